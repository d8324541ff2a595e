"""The check before a run, by the model itself: each thing that can be wrong is a verdict, and its counts are the trainer's own."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from data.rundir import RunDir, Stopped
from tests import tiny_model
from tests.measures import Bytes, counting_tokens
from tests.training_runs import ROOT, assistant, dpo_rows, events, kto_rows, make_run, prompt_rows, sft_rows, user
from training import preflight, probe
from training.config import (
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    OrpoConfig,
    RewardConfig,
    RlooConfig,
    SftConfig,
    TrainConfig,
    method_named,
    steps_of,
)
from training.memory import estimate, shape_of
from training.rows import Dropped
from training.verdicts import Report, Verdict, stops

pytestmark = pytest.mark.model

FEW: dict[str, Any] = {"max_steps": 2, "batch_size": 4, "lora_rank": 4, "max_length": 128, "tuning": "lora"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for the rest of a process's life: a child's, not that of the tests."""
    monkeypatch.setattr(probe, "stay_within_free", lambda: None)


def check_run(folder: Path, base: Path, method: str, config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> RunDir:
    run = make_run(folder, base, config, rows)
    raw = run.config()
    raw["args"]["method"] = method
    (run.path / "config.json").write_text(json.dumps(raw))
    return run


def checked(folder: Path, base: Path, method: str, config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> Report:
    report = Report.from_json(preflight.main(check_run(folder, base, method, config, rows)))
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    return report


def of(report: Report, check: str) -> Verdict:
    return next(v for v in report.verdicts if v.check == check)


def long_rows(n: int = 12, words: int = 40) -> list[dict[str, Any]]:
    """Pairs of which every other one has a long answer."""
    return [{**row, "chosen": assistant("word " * words)} if i % 2 else row for i, row in enumerate(dpo_rows(n))]


# --- what is fine ---


@pytest.mark.parametrize(
    ("method", "config", "rows"),
    [
        ("dpo", DpoConfig(**FEW), [*dpo_rows(), *dpo_rows(3, "held_out")]),
        ("dpo", DpoConfig(**FEW, backend="trl"), dpo_rows(6)),
        ("kto", KtoConfig(**FEW), kto_rows()),
        ("sft", SftConfig(**FEW), sft_rows(3)),
        ("orpo", OrpoConfig(**FEW), dpo_rows()),
    ],
)
def test_a_run_that_is_fine_is_measured_and_nothing_is_kept(
    tmp_path: Path, base: Path, method: str, config: TrainConfig, rows: list[dict[str, Any]]
) -> None:
    report = checked(tmp_path / "runs" / "r", base, method, config, rows)
    assert {v.level for v in report.verdicts} == {"ok"}, report.verdicts
    assert (cost := report.cost) is not None
    assert cost.steps == 2
    assert min(cost.ready_s, cost.training_s, cost.peak, cost.estimated) > 0
    assert cost.free > cost.peak
    assert (cost.evaluation_s > 0) == any(row["split"] == "held_out" for row in rows)
    assert ("start" in {v.check for v in report.verdicts}) == (method == "dpo")
    assert not list((tmp_path / "runs" / "r").rglob("*.safetensors"))
    assert not events(RunDir(tmp_path / "runs" / "r"), "metrics")


def test_a_known_reference_costs_nothing(tmp_path: Path, base: Path) -> None:
    from training import dpo

    config, rows = DpoConfig(**FEW), dpo_rows(24)
    first = checked(tmp_path / "runs" / "a", base, "dpo", config, rows)
    dpo.main(make_run(tmp_path / "runs" / "b", base, config, rows))
    second = checked(tmp_path / "runs" / "c", base, "dpo", config, rows)
    assert first.cost is not None
    assert second.cost is not None
    assert first.cost.reference_s > 0 == second.cost.reference_s


# --- what the real run takes ---

LIKE_OTHERS = pytest.mark.slow(reason="a whole run whose tensors are all counted; most of it is as in those that are not slow")
OF_ITS_OWN: dict[str, Any] = {
    "batch_size": 8, "num_generations": 4, "max_completion_length": 10, "lora_rank": 4, "tuning": "lora", "precision": "bf16",
}  # fmt: skip
WORDY = [
    {**row, "chosen": assistant("one two " * (10 + i % 7)), "rejected": assistant("no " * 12)} for i, row in enumerate(dpo_rows(24))
]
MEASURED = {
    "rloo": (
        RlooConfig(**OF_ITS_OWN, accumulation=2, num_iterations=3),
        [*prompt_rows(8), *prompt_rows(3, "held_out")],
    ),
    "grpo": (GrpoConfig(**OF_ITS_OWN, beta=0.1, max_steps=5), [*prompt_rows(8), *prompt_rows(3, "held_out")]),
    "reward, all weights": (RewardConfig(batch_size=4, tuning="full", precision="bf16", epochs=1.0), WORDY),
    "grpo, all weights": (GrpoConfig(**OF_ITS_OWN | {"tuning": "full"}, beta=0.1, max_steps=3), prompt_rows(8)),
    "reward": (
        RewardConfig(batch_size=4, lora_rank=4, max_length=128, tuning="lora", precision="bf16", epochs=2.0),
        [*WORDY, *dpo_rows(5, "held_out")],
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=LIKE_OTHERS) if case != "reward" else case for case in MEASURED])
def test_what_is_foretold_is_what_the_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Time in tokens through the models, which no load moves; memory in bytes that are held at once."""
    (config, rows), method = MEASURED[case], case.split(",")[0]
    with counting_tokens() as clock, monkeypatch.context() as patch:
        patch.setattr(probe, "time", clock)
        report = checked(tmp_path / "check", tiny_model.DEMO_MODEL, method, config, rows)
    assert {v.level for v in report.verdicts} == {"ok"}, report.verdicts
    cost = report.cost
    assert cost is not None
    with counting_tokens() as took, Bytes() as held:
        result = importlib.import_module(f"training.{method}").main(make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, rows))
    assert cost.steps == result["steps"]
    assert cost.training_s + cost.evaluation_s == pytest.approx(took.seen, rel=0.25)
    assert cost.estimated == pytest.approx(held.most, rel=0.4)
    assert cost.longest_s >= cost.training_s or method == "reward"


def test_the_reward_model_that_grades_is_loaded_and_counted(tmp_path: Path) -> None:
    from data.engine import ModelSpec
    from training import reward

    pairs = RewardConfig(batch_size=4, lora_rank=4, max_steps=1, tuning="lora")
    scorer = make_run(tmp_path / "scorer", tiny_model.DEMO_MODEL, pairs, dpo_rows(4))
    reward.main(scorer)
    config = RlooConfig(**OF_ITS_OWN | {"max_steps": 1}, reward="its-id")
    run = check_run(tmp_path / "check", tiny_model.DEMO_MODEL, "rloo", config, prompt_rows(4))
    alone = checked(tmp_path / "alone", tiny_model.DEMO_MODEL, "rloo", config, prompt_rows(4))
    assert "names no reward model" in stops(alone.verdicts)[0].sentence
    raw = run.config()
    raw["args"]["reward_model"] = ModelSpec("local", str(tiny_model.DEMO_MODEL), str(scorer.path / "adapter")).to_json()
    (run.path / "config.json").write_text(json.dumps(raw))
    report = Report.from_json(preflight.main(run))
    assert report.cost is not None
    assert report.cost.training_s > 0 == report.cost.evaluation_s
    shape = shape_of(str(tiny_model.DEMO_MODEL))
    longest = int(of(report, "length limit").sentence.split(" tokens")[0].split(" has ")[1].split(" of ")[0])
    graded_by_rules = estimate(shape, "rloo", config, longest, device=preflight._device(shape, config, report.cost.free)).total
    held = report.cost.estimated - graded_by_rules
    assert held == shape.parameters * (2 if torch.cuda.is_available() else 4), "what grades on a CPU is held in fp32"


def test_prompts_that_the_rules_cannot_grade_are_told_and_cost_nothing(tmp_path: Path) -> None:
    foreign = {"prompt_id": "x", "split": "train", "prompt": user("Explain quantum tunnelling. " * 9), "reference": ""}
    config = GrpoConfig(**OF_ITS_OWN | {"num_generations": 8}, epochs=1.0)
    report = checked(tmp_path / "r", tiny_model.DEMO_MODEL, "grpo", config, [foreign, *prompt_rows(2)])
    found = of(report, "reward")
    assert (found.level, found.rows, found.examples[0].prompt[:7]) == ("warn", 1, "Explain")
    assert "rows" not in {v.check for v in report.verdicts}, "nobody says beside it that all can be learned from"
    assert report.cost is not None
    assert report.cost.steps == 2, "of three prompts two are left"
    none = checked(tmp_path / "none", tiny_model.DEMO_MODEL, "grpo", config, [foreign])
    assert "none is left, so choose another reward" in stops(none.verdicts)[0].sentence
    assert none.cost is None


# --- what is wrong with the rows ---

AS_DPO = pytest.mark.slow(reason="each checks, trains and checks again; DPO's rows have all the faults of the others'")


@pytest.mark.parametrize(
    ("method", "config", "rows"),
    [
        ("dpo", DpoConfig(**(FEW | {"max_length": 40})), long_rows()),
        pytest.param("sft", SftConfig(**(FEW | {"max_length": 24})), sft_rows(), marks=AS_DPO),
        pytest.param("kto", KtoConfig(**(FEW | {"max_length": 24})), kto_rows(), marks=AS_DPO),
    ],
)
def test_what_is_cut_and_left_out_is_what_the_trainer_then_reports(
    tmp_path: Path, base: Path, method: str, config: TrainConfig, rows: list[dict[str, Any]]
) -> None:
    """Over-long prompts, cut answers and rows with a fault; the fix cuts nothing."""
    faulty = {**rows[0], "prompt": assistant("I begin")}
    endless = {**rows[0], "prompt": user("word " * 12), "prompt_id": "endless"}
    rows = [*rows, faulty, endless, endless]
    report = checked(tmp_path / "check", base, method, config, rows)
    trainer = importlib.import_module(f"training.{method}")
    told = trainer.main(make_run(tmp_path / "real", base, config, rows))["dropped"]
    left_out = {v.sentence: v.rows for v in report.verdicts if v.check == "rows"}
    assert sum(left_out.values()) == told["rows"] == 3
    assert all(any(reason in sentence for sentence in left_out) for reason in told["reasons"])
    cut = of(report, "length limit")
    assert (cut.level, cut.rows) == ("warn", told["truncated"])
    assert cut.fix is not None
    again = checked(tmp_path / "mended", base, method, _with(config, cut.fix.settings), rows)
    assert of(again, "length limit").level == "ok"
    assert f"the longest row has {cut.fix.settings['max_length']} of" in of(again, "length limit").sentence


def _with(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    return type(config)(**{**config.to_json(), **changes})


def test_what_the_model_cannot_read_has_no_fix(tmp_path: Path, base: Path) -> None:
    cut = of(checked(tmp_path / "r", base, "dpo", DpoConfig(**FEW), long_rows(words=300)), "length limit")
    assert (cut.level, cut.rows, cut.fix) == ("warn", 6, None)
    assert "the model reads at most 256" in cut.sentence
    assert cut.examples[0].prompt_id == "train1"
    assert cut.examples[0].prompt.startswith("Say moon")


def test_only_over_long_prompts_stop_the_run(tmp_path: Path, base: Path) -> None:
    rows = [{**row, "prompt": user("word " * 60)} for row in dpo_rows(4)]
    report = checked(tmp_path / "r", base, "dpo", DpoConfig(**FEW), rows)
    assert (
        "None of the 4 training rows can be used; most often: the prompt is longer than 128 tokens"
        in stops(report.verdicts)[0].sentence
    )
    assert report.cost is None


def test_labels_of_one_kind_stop_a_kto_run(tmp_path: Path, base: Path) -> None:
    report = checked(tmp_path / "r", base, "kto", KtoConfig(**FEW), kto_rows(6, 0))
    assert "KTO needs good and bad answers" in stops(report.verdicts)[0].sentence


def test_a_file_of_another_kind_stops_the_run(tmp_path: Path, base: Path) -> None:
    report = checked(tmp_path / "r", base, "dpo", DpoConfig(**FEW), sft_rows())
    assert [v.sentence for v in stops(report.verdicts)] == [
        "The data file has no column 'chosen': DPO learns from pairs with a preference (a preference snapshot)."
    ]


# --- what is wrong with the model ---


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (tiny_model.CHAT_TEMPLATE.replace("+ '<|end|>'", ""), "does not end the answer"),
        (
            tiny_model.CHAT_TEMPLATE.replace(
                "{% for m", "{% if messages[-1]['role'] == 'assistant' %}{{ '<|system|>' }}{% endif %}{% for m"
            ),
            "renders a prompt differently once an answer follows",
        ),
    ],
)
def test_a_template_that_teaches_the_wrong_text_stops_the_run(tmp_path: Path, base: Path, template: str, words: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    tiny_model.save_tokenizer(other, template)
    report = checked(tmp_path / "r", other, "sft", SftConfig(**FEW), sft_rows())
    found = of(report, "template")
    assert (found.level, words in found.sentence, found.rows) == ("stop", True, 12)
    assert found.examples[0].prompt == "Say sun 0"
    assert report.cost is None


def test_a_template_that_is_wrong_for_some_rows_only_names_them(tmp_path: Path, base: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    odd = "{% if 'moon' in messages[0]['content'] and messages[-1]['role'] == 'assistant' %}{{ '<|system|>' }}{% endif %}"
    tiny_model.save_tokenizer(other, odd + tiny_model.CHAT_TEMPLATE)
    report = checked(tmp_path / "r", other, "sft", SftConfig(**FEW), sft_rows())
    found = of(report, "template")
    assert (found.level, found.rows) == ("warn", 1)
    assert found.sentence.startswith("In 1 row: This base's chat template renders")
    assert report.cost is not None


def test_a_model_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    report = checked(tmp_path / "r", tmp_path / "gone", "sft", SftConfig(**FEW), sft_rows())
    assert "There is no model folder" in stops(report.verdicts)[0].sentence


def test_a_reference_that_is_none_stops_the_run(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import dpo

    monkeypatch.setattr(dpo, "first_preference_loss", lambda trainer: 0.1)
    report = checked(tmp_path / "r", base, "dpo", DpoConfig(**FEW), dpo_rows())
    assert "instead of ln 2" in stops(report.verdicts)[0].sentence


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.preference_objectives import Orpo

    loss = Orpo.loss
    monkeypatch.setattr(Orpo, "loss", lambda self, *args: loss(self, *args) * float("nan"))
    report = checked(tmp_path / "r", base, "orpo", OrpoConfig(**FEW), dpo_rows())
    assert "The loss is no longer a number at step 1; lower the learning rate" in stops(report.verdicts)[0].sentence


def test_a_stop_is_heard(tmp_path: Path, base: Path) -> None:
    run = check_run(tmp_path / "r", base, "dpo", DpoConfig(**FEW), dpo_rows())
    run.request_stop()
    with pytest.raises(Stopped, match="nothing was checked"):
        preflight.main(run)


# --- memory ---


@pytest.mark.slow  # a cold child that trains until memory runs out, several times
def test_out_of_memory_is_told_with_a_batch_that_was_tried(tmp_path: Path) -> None:
    """A real child whose allocations really fail: TRL takes a batch at once, half a gigabyte holds a few long rows and not 32."""
    rows = [{**row, "completion": assistant("one two three four five six " * 60)} for row in sft_rows(32)]
    config = SftConfig(batch_size=32, max_length=1024, tuning="lora", precision="fp32", backend="trl")
    run = check_run(tmp_path / "r", tiny_model.DEMO_MODEL, "sft", config, rows)
    half_a_gigabyte = (
        "from training import preflight, probe; probe.free_memory = lambda: 2**29; preflight.run_child(preflight.main)"
    )
    child = subprocess.run(
        [sys.executable, "-c", half_a_gigabyte, str(run.path)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-2000:]
    report = Report.from_json(events(run, "result")[0])
    found = of(report, "memory")
    assert found.level == "stop"
    assert found.sentence.startswith("Memory runs out: 32 rows at once do not fit into ")
    assert found.fix is not None
    batch, accumulation = found.fix.settings["batch_size"], found.fix.settings["accumulation"]
    assert batch < 32 == batch * accumulation
    assert f"{found.fix.label} fits." in found.sentence


def test_where_not_even_one_row_fits_it_says_so(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[TrainConfig] = []

    def never(plan: Any, config: TrainConfig, start: Any = None, timed: int = 0) -> None:
        tried.append(config)

    monkeypatch.setattr(probe, "probe", never)
    report = checked(tmp_path / "r", base, "kto", KtoConfig(**FEW | {"batch_size": 8}), kto_rows())
    found = stops(report.verdicts)[0]
    assert "and nor does one; choose a smaller base" in found.sentence
    assert [(c.batch_size, c.accumulation, c.checkpointing) for c in tried] == [
        (8, 1, False),
        (4, 2, False),
        (2, 4, False),
        (2, 4, True),
    ]


@given(st.integers(1, 200), st.integers(1, 20), st.sampled_from([SftConfig, KtoConfig]))
def test_half_a_batch_is_as_many_rows_a_step(batch: int, accumulation: int, kind: type[TrainConfig]) -> None:
    if kind is KtoConfig and batch < 2:
        return
    config = kind(batch_size=batch, accumulation=accumulation)
    smaller = preflight.halved(config)
    if smaller is None:
        assert batch // 2 < (2 if kind is KtoConfig else 1)
        return
    new = _with(config, smaller.settings)
    assert new.batch_size == batch // 2
    assert batch * accumulation <= new.batch_size * new.accumulation < batch * accumulation + new.batch_size * accumulation


def test_a_tight_fit_is_a_warning() -> None:
    from training.verdicts import Cost

    cost = Cost(10, 1, 0, 10, 0, peak=900, free=1000)
    tight = preflight.fits(cost, SftConfig(batch_size=8))
    assert (tight.level, tight.fix.settings if tight.fix else None) == ("warn", {"batch_size": 4, "accumulation": 2})


def test_a_check_tells_its_steps_to_no_reporter() -> None:
    assert probe.shortened(DpoConfig(report_to="wandb"), 3).report_to == "none"


@pytest.mark.parametrize(
    ("settings", "times"),
    [({"epochs": 3.0}, 3), ({"epochs": 0.2}, 1), ({"eval_every": 5, "epochs": 3.0}, 6), ({"max_steps": 20}, 2)],
)
def test_evaluations_are_counted_as_the_trainer_makes_them(settings: dict[str, Any], times: int) -> None:
    config = DpoConfig(batch_size=8, **settings)
    assert preflight._evaluations("dpo", config, steps_of(config, 80), 80) == times
    scores = RewardConfig(batch_size=8, **settings)
    assert preflight._evaluations("reward", scores, steps_of(scores, 80), 80) == times + 1, "and how many pairs it is right on"
    own = GrpoConfig(batch_size=16, num_generations=2, **settings)
    assert preflight._evaluations("grpo", own, steps_of(own, 80), 80) == times + 1, "and before the first step"


def test_steps_that_sample_and_steps_that_learn_again_are_counted_as_the_run_has_them() -> None:
    config = RlooConfig(num_iterations=4, accumulation=2)
    assert probe._of_a_batch([10.0, 2.0, 14.0, 2.0], config) == (12 + 3 * 2) / 4 / 2
    assert probe._of_a_batch([10.0, 14.0], RlooConfig()) == 12
    quick = probe.shortened(config, 3)
    assert isinstance(quick, RlooConfig)
    assert (quick.num_iterations, quick.accumulation, quick.max_steps) == (2, 2, 8)


def test_a_container_has_less_than_its_machine(tmp_path: Path) -> None:
    from training.memory import _left_in_container

    assert _left_in_container(tmp_path) == sys.maxsize
    for name, text in {"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 400\ninactive_file 150\n"}.items():
        (tmp_path / name).write_text(text)
    assert _left_in_container(tmp_path) == 550
    (tmp_path / "memory.max").write_text("max")
    assert _left_in_container(tmp_path) == sys.maxsize


def test_nothing_to_leave_out_is_said_in_one_verdict() -> None:
    assert [v.level for v in preflight.left_out(Dropped(lengths=[3, 4]))] == ["ok"]
    assert method_named("dpo") == "dpo"
