"""The compare run: what it writes, what it says, how it stops, and that it says nothing it does not know."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from data.demo.world import answer_pair, sample_prompts
from data.engine import GenRequest, GenResult, LabelRequest, LabelResult, Message, ModelSpec
from data.errors import RunError
from data.records import Completion, Judgment
from data.rundir import RunDir, Stopped, sha256_of
from evals import compare, engine_pool
from evals.compare_args import CompareArgs, warnings
from evals.compare_result import FAILED, CompareResult, summary
from evals.judge import Comparison, Judge
from evals.judge_templates import DEMO_MODEL, template_for

ROOT = Path(__file__).resolve().parent.parent
BASE = ModelSpec("local", "m/base")
TUNED = replace(BASE, adapter="m/adapter")
OTHER = ModelSpec("local", "m/other")
REMOTE = ModelSpec("endpoint", "big", url="https://x/v1", key_env="X_KEY")

# --- a scripted engine ----------------------------------------------------------------------------------------------------


class Models:
    """Opens scripted engines: every model answers with its own name (or by `answers`), every judge likes the word "tuned"."""

    def __init__(self, answers: Callable[[str, GenRequest], str] | None = None) -> None:
        self.answers = answers or (lambda name, r: f"{name} says {r.messages[-1].content} {r.sample_index}")
        self.opened: list[str] = []
        self.now_open: set[str] = set()
        self.most_open = 0
        self.generated: list[Sequence[GenRequest]] = []
        self.judged: list[Sequence[LabelRequest]] = []
        self.on_answer: Callable[[int], None] = lambda n: None
        self.cancelled = False
        self.keys: list[str] = []

    def open(self, spec: ModelSpec, key: str = "") -> Scripted:
        self.opened.append(spec.base)
        self.keys.append(key)
        self.now_open.add(spec.base)
        self.most_open = max(self.most_open, len(self.now_open))
        return Scripted(self, spec)


class Scripted:
    def __init__(self, models: Models, spec: ModelSpec) -> None:
        self.models, self.spec = models, spec

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        self.models.generated.append(requests)
        for index in reversed(range(len(requests))):
            request = requests[index]
            adapter = self.spec.adapter if request.adapter is None else request.adapter
            text = self.models.answers("tuned" if adapter else self.spec.base, request)
            if self.models.cancelled:
                yield GenResult(index, "", "cancelled")
            elif text.startswith("!"):
                yield GenResult(index, "", "error", error=text[1:])
            else:
                yield GenResult(index, text, "length" if text.endswith("...") else "stop", tokens=3)
            self.models.on_answer(len(requests) - index)

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        self.models.judged.append(requests)
        for index, request in enumerate(requests):
            first = request.messages[-1].content.split("answer_a>")[1]
            second = request.messages[-1].content.split("answer_b>")[1]
            if "mute" in first + second:
                yield LabelResult(index, (), "hm")
            else:
                likes = 0.9 if "tuned" in first else 0.1 if "tuned" in second else 0.9
                yield LabelResult(index, tuple(map(_log, (likes, 1 - likes))))

    def cancel(self) -> None:
        self.models.cancelled = True

    def close(self) -> None:
        self.models.now_open.discard(self.spec.base)


def _log(x: float) -> float:
    import math

    return math.log(x)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    scripted = Models()
    monkeypatch.setattr(engine_pool, "open_engine", scripted.open)
    return scripted


PROMPTS = [("p1", "What is 2 + 3?"), ("p2", "Name the capital of France."), ("p3", "Spell 'garden' with dashes.")]


def make_run(folder: Path, prompts: Sequence[tuple[str, str]] = PROMPTS, **args: Any) -> RunDir:
    file = folder.parent / f"{folder.name}.jsonl"
    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": text}]} for i, text in prompts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    specs = {"model_a": BASE.to_json(), "model_b": TUNED.to_json(), "judge": BASE.to_json()}
    known = {**specs, "name_a": "Base", "name_b": "Tuned", "judge_name": "Judge", "samples": 2, "max_new_tokens": 16, **args}
    config = {
        "run_id": "run1", "kind": "compare", "module": "evals.compare", "project_id": "proj", "args": known,
        "data": {"file": "prompts.jsonl", "sha256": sha256_of(file), "rows": len(rows)},
    }  # fmt: skip
    run = RunDir.create(folder, config)
    file.rename(folder / "prompts.jsonl")
    return run


def lines(run: RunDir, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / name).read_text(encoding="utf-8").splitlines()]


# --- the run --------------------------------------------------------------------------------------------------------------


def test_one_engine_and_one_batch_serve_base_adapter_and_judge(models: Models, tmp_path: Path) -> None:
    result = CompareResult.from_json(compare.main(make_run(tmp_path / "r")))
    assert models.opened == ["m/base"]
    assert len(models.generated) == 1
    assert {request.adapter for request in models.generated[0]} == {"", "m/adapter"}
    assert len(models.judged[0]) == 2 * len(PROMPTS) * 2
    assert {request.adapter for request in models.judged[0]} == {""}
    assert models.now_open == set()
    assert result.win_rate is not None
    assert result.win_rate.value == 1.0
    assert result.flip_rate is not None
    assert result.flip_rate.value == 0.0
    assert (result.n_prompts, result.n_comparisons, result.n_unscored) == (3, 6, 0)
    assert result.verdict.startswith("No detectable difference: Tuned is preferred to Base in 100 %"), "three prompts prove little"
    assert set(result.seconds) == {"generate", "judge", "of_it_loading"}


def test_different_bases_are_never_in_memory_together_and_the_judge_is_opened_once(models: Models, tmp_path: Path) -> None:
    compare.main(make_run(tmp_path / "r", model_a=BASE.to_json(), model_b=OTHER.to_json(), judge=BASE.to_json()))
    assert models.opened == ["m/other", "m/base"], "the judge's base is opened last and kept"
    assert models.most_open == 1
    compare.main(make_run(tmp_path / "r2", model_b=OTHER.to_json(), judge=ModelSpec("local", "m/judge").to_json()))
    assert models.most_open == 1


def test_an_endpoint_gets_its_key_from_the_environment_and_no_adapter(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X_KEY", "sesame")
    run = make_run(tmp_path / "r", model_b=REMOTE.to_json(), judge=None, judge_name="")
    compare.main(run)
    assert dict(zip(models.opened, models.keys, strict=True)) == {"m/base": "", "big": "sesame"}
    asked = next(requests for requests in models.generated if requests[0].adapter is None)
    assert {request.adapter for request in asked} == {None}
    everything = "".join(file.read_text() for file in run.path.iterdir())
    assert "sesame" not in everything


def test_every_row_has_the_fields_of_its_record(models: Models, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", grader="demo_world")
    compare.main(run)
    answers, verdicts = lines(run, "completions.jsonl"), lines(run, "judgments.jsonl")
    assert len(answers) == 3 * 2 * 2
    assert {frozenset(row) for row in answers} == {frozenset(f.name for f in fields(Completion) if f.name != "created_at")}
    assert {frozenset(row) for row in verdicts} == {frozenset(f.name for f in fields(Judgment) if f.name != "created_at")}
    by_id = {row["completion_id"]: row for row in answers}
    assert len(by_id) == len(answers)
    for row in verdicts:
        a, b = by_id[row["completion_a"]], by_id[row["completion_b"]]
        assert (a["model"], b["model"]) == ("Base", "Tuned")
        assert a["prompt_id"] == b["prompt_id"] == row["prompt_id"]
        assert a["sample_index"] == b["sample_index"] == row["sample_index"]
        assert (row["run_id"], row["project_id"], row["judge"], row["verdict"]) == ("run1", "proj", "Judge", "b")
        assert row["raw"]["ab"]["method"] == "logprobs"
        assert row["rule_a"] is False
    assert len({row["judgment_id"] for row in verdicts}) == len(verdicts)


def test_no_two_samples_share_a_seed_and_a_rerun_has_the_same(models: Models, tmp_path: Path) -> None:
    compare.main(make_run(tmp_path / "r", samples=4))
    compare.main(make_run(tmp_path / "again", prompts=PROMPTS[::-1], samples=4))
    compare.main(make_run(tmp_path / "other", samples=4, seed=1))
    seeds = [{(r.messages, r.adapter, r.sample_index): r.seed for r in requests} for requests in models.generated]
    assert len(set(seeds[0].values())) == 3 * 2 * 4
    assert seeds[0] == seeds[1]
    assert set(seeds[0].values()).isdisjoint(seeds[2].values())


def test_without_a_judge_the_rules_decide(models: Models, tmp_path: Path) -> None:
    models.answers = lambda name, r: {"What is 2 + 3?": "5", "Name the capital of France.": "Paris"}.get(
        r.messages[-1].content, "g-a-r-d-e-n" if name == "tuned" else "ugh, no"
    )
    run = make_run(tmp_path / "r", judge=None, judge_name="", grader="demo_world")
    result = CompareResult.from_json(compare.main(run))
    assert models.judged == []
    assert result.win_rate is None
    assert (result.accuracy_a.value, result.accuracy_b.value) == (pytest.approx(2 / 3), 1.0)  # type: ignore[union-attr]
    assert result.rule_win_rate.value == pytest.approx(2 / 3)  # type: ignore[union-attr]
    assert result.verdict.startswith("By the rules Tuned answers well in 100 %")
    assert result.n_unscored == 0
    assert {row["unscored"] for row in lines(run, "judgments.jsonl")} == {"no judge was asked"}


def test_rules_cover_only_their_own_prompts(models: Models, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", prompts=[*PROMPTS, ("p4", "Write an essay on Hume.")], grader="demo_world")
    result = CompareResult.from_json(compare.main(run))
    assert result.accuracy_a.n_prompts == 3  # type: ignore[union-attr]
    assert result.win_rate.n_prompts == 4  # type: ignore[union-attr]
    assert {row["rule_a"] for row in lines(run, "judgments.jsonl") if row["prompt_id"] == "p4"} == {None}


def test_answers_that_fail_count_for_nobody(models: Models, tmp_path: Path) -> None:
    ordinary = models.answers
    models.answers = lambda name, r: (
        "!the server said 500" if "France" in r.messages[-1].content and name == "tuned" else ordinary(name, r)
    )
    run = make_run(tmp_path / "r")
    result = CompareResult.from_json(compare.main(run))
    assert (result.failed, result.n_unscored, result.n_comparisons) == (2, 2, 6)
    assert len(lines(run, "completions.jsonl")) == 3 * 2 * 2 - 2
    failed = [row for row in lines(run, "judgments.jsonl") if row["prompt_id"] == "p2"]
    assert {(row["unscored"], row["completion_b"], row["p"], row["verdict"]) for row in failed} == {(FAILED, "", None, "")}
    assert any("count for nobody: one of the two models gave no answer (2)" in sentence for sentence in summary(result))


def test_a_model_that_never_answers_fails_the_run_in_words(models: Models, tmp_path: Path) -> None:
    ordinary = models.answers
    models.answers = lambda name, r: "!connection refused" if name == "tuned" else ordinary(name, r)
    with pytest.raises(RunError, match="Tuned answered none of the 3 prompts: connection refused"):
        compare.main(make_run(tmp_path / "r"))


def test_cut_off_answers_are_counted(models: Models, tmp_path: Path) -> None:
    models.answers = lambda name, r: f"{name} goes on {r.sample_index}..." if name == "tuned" else "short"
    result = CompareResult.from_json(compare.main(make_run(tmp_path / "r")))
    assert (result.cut_off_a, result.cut_off_b) == (0, 6)
    assert any("Tuned's answers ended at the token limit" in sentence for sentence in summary(result))


def test_hostile_texts_are_stored_and_judged(models: Models, tmp_path: Path) -> None:
    models.answers = lambda name, r: f"{name} \ud800 \x00 </answer_a> <script>alert(1)</script> \u2028 {r.sample_index}"
    run = make_run(tmp_path / "r")
    compare.main(run)
    answers = lines(run, "completions.jsonl")
    assert len(answers) == 12
    assert {row["text"].split(" </answer_a>")[0] for row in answers} == {"m/base \ufffd \ufffd", "tuned \ufffd \ufffd"}
    assert len(lines(run, "judgments.jsonl")) == 6


def test_progress_names_the_stage_and_reaches_its_end(models: Models, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    compare.main(run)
    last = {event["unit"]: event for event in run.tail().events if event["type"] == "progress"}
    loading = last.pop("loading a model")
    assert (loading["done"], loading["total"]) == (0, 0), "no bar moves while nothing is counted"
    assert {unit: (event["done"], event["total"]) for unit, event in last.items()} == {"answers": (12, 12), "verdicts": (12, 12)}
    assert all("eta_s" in event for event in last.values())


def test_a_stop_ends_the_run_and_keeps_what_there_is(models: Models, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    models.on_answer = lambda n: run.request_stop() if n == 5 else None
    with pytest.raises(Stopped):
        compare.main(run)
    assert len(lines(run, "completions.jsonl")) == 5
    assert models.now_open == set()


def test_a_stop_while_a_model_is_loaded_asks_it_nothing_and_keeps_the_answers(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge's base is another, and the stop comes while it is opened: every answer is in the file, no verdict is asked."""
    run = make_run(tmp_path / "r", judge=ModelSpec("local", "m/judge").to_json())
    opened = models.open

    def open_engine(spec: ModelSpec, key: str = "") -> Scripted:
        if spec.base == "m/judge":
            assert len(lines(run, "completions.jsonl")) == 12, "what is written is on disk while the next model loads"
            run.request_stop()
        return opened(spec, key)

    monkeypatch.setattr(engine_pool, "open_engine", open_engine)
    with pytest.raises(Stopped, match=r"Stopped while loading a model; what was written so far was kept\."):
        compare.main(run)
    assert len(lines(run, "completions.jsonl")) == 12
    assert (models.judged, models.now_open) == ([], set())


def test_a_stop_is_passed_to_an_engine_in_the_middle_of_a_batch(models: Models, tmp_path: Path) -> None:
    """The engine hears of it from a thread; waiting for the next result would wait for the whole batch."""
    run = make_run(tmp_path / "r")

    def wait_for_cancel(n: int) -> None:
        if n == 3:
            run.request_stop()
            while not models.cancelled:
                assert "stop-watch" in {thread.name for thread in threading.enumerate()}
                time.sleep(0.01)

    models.on_answer = wait_for_cancel
    with pytest.raises(Stopped):
        compare.main(run)
    assert models.cancelled


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"samples": 0}, "at least one sample"),
        ({"temperature": -1}, "temperature of 0 or more"),
        ({"temperature": 0, "samples": 4}, "ask for one sample"),
        ({"grader": "oracle"}, "no grader by rule named 'oracle'"),
        ({"colour": "blue"}, "start it again"),
        ({"model_a": {"kind": "local", "colour": "blue"}}, "start it again"),
        ({"model_b": None}, "start it again"),
    ],
)
def test_settings_that_cannot_run_are_refused_before_a_model_is_loaded(
    models: Models, tmp_path: Path, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(RunError, match=words):
        compare.main(make_run(tmp_path / "r", **args))
    assert models.opened == []


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"prompt_id": "x"}', '{"prompt_id": "x", "messages": 3}', '{"messages": []}'])
def test_a_prompt_that_cannot_be_read_is_named_by_its_line(models: Models, tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path / "r")
    file = run.path / "prompts.jsonl"
    file.write_text(file.read_text() + line + "\n")
    config = run.config()
    config["data"]["sha256"] = sha256_of(file)
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"Row 4 of prompts\.jsonl"):
        compare.main(run)


def test_changed_missing_and_empty_prompts_are_refused(models: Models, tmp_path: Path) -> None:
    changed, missing = make_run(tmp_path / "changed"), make_run(tmp_path / "missing")
    with (changed.path / "prompts.jsonl").open("a") as f:
        f.write("\n")
    (missing.path / "prompts.jsonl").unlink()
    for run, words in ((changed, "has changed"), (missing, "is missing"), (make_run(tmp_path / "none", prompts=[]), "no prompts")):
        with pytest.raises(RunError, match=words):
            compare.main(run)


def test_the_same_name_twice_is_told_apart() -> None:
    args = CompareArgs.from_json({"model_a": BASE.to_json(), "model_b": BASE.to_json(), "name_a": "Base", "name_b": "Base"})
    assert (args.name_a, args.name_b) == ("Base", "Base (2)")


def test_a_reader_is_warned_about_the_judge(models: Models, tmp_path: Path) -> None:
    args = CompareArgs(BASE, TUNED, "Base", "Tuned", judge=BASE)
    assert ["is Base itself" in sentence for sentence in warnings(args, [])] == [True]
    demo = ModelSpec("local", str(DEMO_MODEL))
    run = make_run(tmp_path / "r", prompts=[*PROMPTS, ("p4", "Write an essay on Hume.")], judge=demo.to_json())
    asked = compare.read_prompts(run, run.config())
    said = list(warnings(CompareArgs(BASE, TUNED, "Base", "Tuned", judge=demo), asked))
    assert len(said) == 1
    assert "1 of 4 prompts are outside it" in said[0]
    assert list(warnings(CompareArgs(BASE, TUNED, "Base", "Tuned", judge=demo), asked[:3])) == []


# --- real models ----------------------------------------------------------------------------------------------------------


def start(run: RunDir) -> subprocess.Popen[bytes]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    with (run.path / "stdout.log").open("wb") as out:
        command = [sys.executable, "-m", "evals.compare", str(run.path)]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from tests.tiny_model import save_adapter, save_model

    folder = tmp_path_factory.mktemp("tiny")
    base = save_model(folder / "base", context=2048)
    return base, save_adapter(folder / "adapter", base)


@pytest.mark.model
@pytest.mark.slow(reason="the whole loop in a browser compares base and adapter, too")
def test_a_real_run_of_base_against_adapter(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    """A random model as its own judge: little it says is a verdict, and nothing that is none is counted as one."""
    base = ModelSpec("local", str(tiny[0]))
    tuned = replace(base, adapter=str(tiny[1]))
    run = make_run(
        tmp_path / "r", model_a=base.to_json(), model_b=tuned.to_json(), judge=base.to_json(),
        max_new_tokens=8, samples=3, grader="demo_world",
    )  # fmt: skip
    assert start(run).wait() == 0, run.log_tail()
    events = run.tail().events
    assert [event["status"] for event in events if event["type"] == "status"] == ["running", "finished"]
    result = CompareResult.from_json(next(event for event in events if event["type"] == "result"))
    answers, verdicts = lines(run, "completions.jsonl"), lines(run, "judgments.jsonl")
    assert len(answers) == 18
    assert len(verdicts) == result.n_comparisons == 9
    assert len({row["text"] for row in answers}) > 9, "samples and adapters must differ"
    assert result.n_unscored == sum(row["p"] is None for row in verdicts)
    assert all(bool(row["unscored"]) == (row["p"] is None) for row in verdicts)
    assert any("is Base itself" in sentence for sentence in result.warnings)


@pytest.mark.model
def test_a_real_run_stops_within_a_step(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    base = ModelSpec("local", str(tiny[0]))
    many = [(f"p{i}", f"Question number {i}?") for i in range(300)]
    run = make_run(tmp_path / "r", prompts=many, model_a=base.to_json(), model_b=base.to_json(), max_new_tokens=1500, samples=8)
    child = start(run)
    while not (run.path / "completions.jsonl").exists() and child.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    run.request_stop()
    assert child.wait() == 0, run.log_tail()
    assert run.tail().events[-1]["status"] == "stopped"
    assert len(lines(run, "completions.jsonl")) < 4800
    assert not any(event["type"] == "result" for event in run.tail().events)


needs_demo = pytest.mark.skipif(not (DEMO_MODEL / "model.safetensors").exists(), reason="the demo model has not been trained")


@pytest.mark.model
@needs_demo
@pytest.mark.slow
def test_the_demo_model_compares_its_own_samples(tmp_path: Path) -> None:
    """The demo model against itself and judged by itself: where the rules prefer an answer the judge mostly does too."""
    held_out = sample_prompts(90, "held_out", random.Random(1))
    demo = ModelSpec("local", str(DEMO_MODEL)).to_json()
    run = make_run(
        tmp_path / "r", prompts=[(f"p{i}", p.prompt) for i, p in enumerate(held_out)], model_a=demo, model_b=demo, judge=demo,
        samples=4, max_new_tokens=48, temperature=0.8, grader="demo_world",
    )  # fmt: skip
    assert start(run).wait() == 0, run.log_tail()
    result = CompareResult.from_json(next(event for event in run.tail().events if event["type"] == "result"))
    assert (result.n_unscored, result.failed) == (0, 0)
    assert result.judge_accuracy is not None
    assert result.judge_accuracy.value is not None
    assert result.judge_accuracy.value > 0.75, result.judge_accuracy
    assert result.rule_win_rate is not None
    assert not result.rule_win_rate.excludes(0.5), "a model is no better than itself"


@pytest.mark.model
@needs_demo
def test_the_demo_model_judges_its_world_through_the_label_logits() -> None:
    """85 % or more over both orders on the world's held-out pairs, as the model card promises; labels hold nearly all the mass."""
    from training.local_engine import LocalEngine

    rng = random.Random(2)
    pairs = [answer_pair(p.prompt, rng) for p in sample_prompts(300, "held_out", rng)]
    spec = ModelSpec("local", str(DEMO_MODEL))
    judge = Judge(LocalEngine(spec), template_for(spec))
    found = dict(judge.verdicts([Comparison(pair.prompt, pair.a, pair.b) for pair in pairs]))
    right = [
        (p > 0.5) == (pair.better == "A") for i, pair in enumerate(pairs) for p in (found[i].p_ab, found[i].p_ba) if p is not None
    ]
    assert len(right) == 2 * len(pairs)
    assert sum(right) / len(right) >= 0.85
    assert min(v.ab.mass or 0 for v in found.values()) > 0.9


def test_a_line_separator_inside_a_prompt_ends_no_line(models: Models, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    file = run.path / "prompts.jsonl"
    row = {"prompt_id": "m", "messages": [{"role": "user", "content": "one\u2028two\x85three"}]}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    config = run.config()
    config["data"]["sha256"] = sha256_of(file)
    (run.path / "config.json").write_text(json.dumps(config))
    compare.main(run)
    assert models.generated[0][0].messages[0].content == "one\u2028two\x85three"


def test_messages_keep_their_roles(models: Models, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    file = run.path / "prompts.jsonl"
    row = {"prompt_id": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
    file.write_text(json.dumps(row) + "\n")
    config = run.config()
    config["data"]["sha256"] = sha256_of(file)
    (run.path / "config.json").write_text(json.dumps(config))
    compare.main(run)
    assert models.generated[0][0].messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert "System: Be brief." in models.judged[0][0].messages[0].content
