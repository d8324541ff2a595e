"""RLOO and GRPO as runs: the reward rises, the reference is the start, a stop is heard while sampling, odd rows are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from data.engine import ModelSpec
from data.errors import RunError
from data.rundir import RunDir, Stopped
from tests import tiny_model
from tests.training_runs import adapter_weights, assistant, dpo_rows, events, make_run, prompt_rows, user
from training import grpo, reward, rloo, sft
from training.config import GrpoConfig, RewardConfig, RlooConfig, SftConfig
from training.rows import Rows

pytestmark = pytest.mark.model

FEW: dict[str, Any] = {
    "max_steps": 2, "batch_size": 8, "num_generations": 4, "max_completion_length": 16, "lora_rank": 4, "max_length": 256,
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "config"),
    [(rloo, RlooConfig(**FEW, tuning="qlora")), (grpo, GrpoConfig(**FEW, beta=0.1, tuning="lora"))],
    ids=["rloo", "grpo"],
)
def test_a_run_learns_from_the_rules(tmp_path: Path, module: Any, config: Any) -> None:
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, [*prompt_rows(), *prompt_rows(3, "held_out")])
    result = module.main(run)
    told = events(run, "metrics")
    steps = [event for event in told if "loss" in event]
    assert next(event["step"] for event in told if "eval_reward" in event) == 0, (
        "held-out prompts are answered before the first step"
    )
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6), "the reference is the model before the run"
    assert {"reward", "reward_std", "kl", "completions/mean_length", "tokens_per_second", "rewards/demo_world/mean"} <= set(
        steps[0]
    )
    assert 0 <= steps[0]["reward"] <= 1
    assert (result["steps"], result["rows"], result["held_out_rows"]) == (2, 4, 3)
    assert result["metrics"]["eval_reward"] is not None
    assert any(w.abs().max() > 0 for name, w in adapter_weights(run).items() if "lora_B" in name)


def test_an_adapter_of_rloo_loads_in_plain_peft(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    parent = make_run(tmp_path / "sft", tiny_model.DEMO_MODEL, SftConfig(max_steps=1, lora_rank=4), sft_of_the_world())
    sft.main(parent)
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, RlooConfig(**FEW), prompt_rows(), parent.path / "adapter")
    rloo.main(run)
    first = next(event for event in events(run, "metrics") if "loss" in event)
    assert first["kl"] == pytest.approx(0, abs=1e-4), "over an adapter the reference is that adapter"
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model.DEMO_MODEL, dtype=torch.float32), str(run.path / "adapter")
    )
    assert plain.peft_config["default"].task_type == "CAUSAL_LM"
    assert not (run.path / "adapter" / "ref").exists()
    mine, theirs = adapter_weights(run), adapter_weights(parent)
    assert mine.keys() == theirs.keys()
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)


def sft_of_the_world() -> list[dict[str, Any]]:
    return [
        {"prompt_id": row["prompt_id"], "split": "train", "prompt": row["prompt"], "completion": assistant("Yes.")}
        for row in prompt_rows(8)
    ]


def scored(folder: Path, **knobs: Any) -> RunDir:
    """A reward model's run over pairs that are easy to tell apart."""
    pairs = [{**row, "prompt": user("What is 7 + 12?"), "chosen": assistant(f"{i}9."), "rejected": assistant("Ugh.")}
             for i, row in enumerate(dpo_rows(8))]  # fmt: skip
    run = make_run(folder, tiny_model.DEMO_MODEL, RewardConfig(max_steps=2, batch_size=4, **knobs), pairs)
    reward.main(run)
    return run


def test_rlhf_from_end_to_end(tmp_path: Path) -> None:
    """Reward model -> RLOO over its scores."""
    scorer = scored(tmp_path / "reward", lora_rank=4)
    spec = ModelSpec("local", str(tiny_model.DEMO_MODEL), str(scorer.path / "adapter"))
    run = with_reward_model(
        make_run(tmp_path / "run", tiny_model.DEMO_MODEL, RlooConfig(**FEW, reward="some-id"), prompt_rows()), spec
    )
    rloo.main(run)
    steps = [event for event in events(run, "metrics") if "loss" in event]
    assert steps[0]["reward"] == pytest.approx(steps[0]["rewards/model/mean"])
    assert steps[0]["reward_std"] > 0


@pytest.mark.slow(reason="a reward model of all weights, a check, a run graded by it here and the same one packed for elsewhere")
def test_a_whole_reward_model_grades_a_run_that_was_checked_here_and_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reward model of all weights -> preflight -> RLOO over its scores, and once more from the file that is carried."""
    from training import carry, preflight, probe
    from training.launch import Launch
    from training.launch_files import Place
    from training.verdicts import Report

    monkeypatch.setattr(probe, "stay_within_free", lambda: None)  # the limit is for the rest of a process's life
    scorer = scored(tmp_path / "scorer", tuning="full")
    spec = ModelSpec("local", str(scorer.path / "model"))
    config = RlooConfig(**FEW | {"tuning": "lora"}, reward="some-id")
    rows = [*prompt_rows(), *prompt_rows(3, "held_out")]
    run = with_reward_model(make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, rows), spec)
    raw = run.config()
    raw["args"]["method"] = "rloo"
    check = RunDir.create(tmp_path / "check", raw)
    shutil.copyfile(run.path / "data.parquet", check.path / "data.parquet")
    report = Report.from_json(preflight.main(check))
    assert {v.level for v in report.verdicts} == {"ok"}, report.verdicts
    assert report.cost is not None
    assert (report.cost.steps, report.cost.evaluation_s > 0) == (2, True)
    result = rloo.main(run)
    steps = [event for event in events(run, "metrics") if "loss" in event]
    assert len(steps) == result["steps"] == 2
    assert steps[0]["reward"] == pytest.approx(steps[0]["rewards/model/mean"])
    assert steps[0]["reward_std"] > 0
    assert result["metrics"]["eval_reward"] is not None
    place = Place("graded", "training.rloo")
    packed = carry.pack(carry.Carried(raw, run.path / "data.parquet"), place, Launch(devices=1), tmp_path / "graded.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    shutil.rmtree(scorer.path)
    there = tmp_path / "there" / "graded"
    env = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "training.rloo", "runs/graded"], cwd=there, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    again = [event for event in events(RunDir(there / "runs" / "graded"), "metrics") if "loss" in event]
    assert [event["reward"] for event in again] == pytest.approx([event["reward"] for event in steps], abs=0.05)


def with_reward_model(run: RunDir, spec: ModelSpec) -> RunDir:
    import json

    config = run.config()
    config["args"]["reward_model"] = spec.to_json()
    (run.path / "config.json").write_text(json.dumps(config))
    return run


def test_without_its_reward_model_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="train one first"):
        rloo.main(make_run(tmp_path / "run", tiny_model.DEMO_MODEL, RlooConfig(**FEW, reward="some-id"), prompt_rows()))


def test_a_stop_is_heard_while_it_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step would sample a thousand tokens; the stop comes within them and the first step is kept."""
    from training import grading

    config = RlooConfig(**FEW | {"max_completion_length": 64, "max_steps": 50})
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, prompt_rows())
    real, tokens = grading._Stop.__call__, []

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._trainer.state.global_step == 1:
            tokens.append(1)
            if len(tokens) == 3:
                run.request_stop()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(grading._Stop, "__call__", counted)
    result = rloo.main(run)
    assert result["steps"] == 1
    assert len(tokens) == 3, "not one more token"
    assert (run.path / "adapter" / "adapter_model.safetensors").exists()


def test_a_stop_before_the_first_step_leaves_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import grading

    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, RlooConfig(**FEW), prompt_rows())
    real = grading.sampling_trainer

    def stopping(*args: Any) -> Any:
        trainer = real(*args)
        threading.Timer(0, run.request_stop).start()
        sample = trainer.model.get_base_model().generate
        trainer.model.get_base_model().generate = lambda *a, **k: (run.request_stop(), sample(*a, **k))[1]
        return trainer

    monkeypatch.setattr(grading, "sampling_trainer", stopping)
    with pytest.raises(Stopped, match="no adapter"):
        rloo.main(run)
    assert not (run.path / "adapter").exists()


def test_prompts_that_the_rules_do_not_cover_are_left_out_by_name(tmp_path: Path) -> None:
    rows = [*prompt_rows(), {"prompt_id": "x", "split": "train", "prompt": user("Explain quantum tunnelling."), "reference": ""}]
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, GrpoConfig(**FEW | {"max_steps": 1}), rows)
    assert grpo.main(run)["rows"] == 4
    assert "1 prompt left out (such as “Explain quantum tunnelling.”)" in " ".join(e["text"] for e in events(run, "log"))
    with pytest.raises(RunError, match="GSM8K"):
        grpo.main(make_run(tmp_path / "sums", tiny_model.DEMO_MODEL, GrpoConfig(**FEW, reward="gsm8k"), prompt_rows()))


@pytest.mark.parametrize(
    ("module", "config"), [(rloo, RlooConfig(**FEW, tuning="qlora")), (grpo, GrpoConfig(**FEW))], ids=["rloo", "grpo"]
)
def test_held_out_prompts_that_nothing_grades_leave_a_run_without_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, config: Any
) -> None:
    from training import grading

    foreign = {"prompt_id": "x", "split": "held_out", "prompt": user("Explain quantum tunnelling."), "reference": ""}
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, prompt_rows())
    job: Any = SimpleNamespace(run=run, config=config, rows=Rows(prompt_rows(), [foreign]), start=SimpleNamespace(limit=256))
    monkeypatch.setattr(grading, "sampling_trainer", lambda kind, job, args, grade: args)
    args = module.make_trainer(job)
    assert (args.eval_strategy, args.eval_on_start, job.rows.held_out) == ("no", False, [])


def test_odd_rows_are_left_out_and_other_files_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no column 'reference'"):
        rloo.main(make_run(tmp_path / "pairs", tiny_model.DEMO_MODEL, RlooConfig(**FEW), dpo_rows()))
    rows = [*prompt_rows(), {"prompt_id": "x", "split": "train", "prompt": assistant("Hello."), "reference": ""}]
    result = rloo.main(make_run(tmp_path / "odd", tiny_model.DEMO_MODEL, RlooConfig(**FEW | {"max_steps": 1}), rows))
    assert (result["rows"], result["dropped"]["rows"]) == (4, 1)


def test_gsm8k_references_reach_the_checker() -> None:
    from training.grading import grader

    rows = Rows([{"prompt": user("How many?"), "reference": "2 + 3 = 5\n#### 5"}], [])
    grade = grader(RunDir(Path("nowhere")), "gsm8k", rows)
    answers = [assistant("It is 5."), assistant("It is 6.")]
    assert grade(prompts=[user("How many?")] * 2, completions=answers, reference=["#### 5"] * 2) == [1.0, 0.0]


def test_fewer_prompts_than_a_batch_still_train() -> None:
    from training.config import steps_of
    from training.grading import whole_batches

    rows = [{"prompt": user(str(i))} for i in range(5)]
    filled = whole_batches(rows, 4, 0)
    assert filled[:5] == rows
    assert len(filled) == 8
    assert whole_batches(rows, 5, 0) == rows
    assert len(whole_batches(rows[:1], 16, 0)) == 16
    assert steps_of(RlooConfig(batch_size=16, num_generations=4, epochs=2), 5) == 4
