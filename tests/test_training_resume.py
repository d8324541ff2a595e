"""A run that goes on from a checkpoint ends as one that was never interrupted, bit for bit; a damaged checkpoint is left out."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")

from data import resume
from data.rundir import RunDir, Stopped
from tests import tiny_model
from tests.training_runs import adapter_weights, dpo_rows, events, kto_rows, make_run, prompt_rows, sft_rows, start
from training import checkpoints, dpo, grpo, kto, orpo, reward, rloo, sft, simpo
from training.callbacks import RunEvents
from training.config import (
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    OrpoConfig,
    RewardConfig,
    RlooConfig,
    SftConfig,
    SimpoConfig,
    TrainConfig,
)

pytestmark = pytest.mark.model

FEW = {
    "epochs": 3.0,
    "batch_size": 4,
    "lora_rank": 4,
    "max_length": 128,
    "learning_rate": 0.01,
    "tuning": "lora",
    "sample_prompts": 0,
}
PAIRS = [*dpo_rows(10), *dpo_rows(4, "held_out")]
ANSWERS = [*sft_rows(10), *sft_rows(4, "held_out")]
LABELLED = [*kto_rows(5, 5), *kto_rows(2, 2, "held_out")]
PROMPTS = [*prompt_rows(6), *prompt_rows(3, "held_out")]
ANSWERS_OF_ITS_OWN = {"batch_size": 8, "num_generations": 4, "max_completion_length": 16, "max_length": 256}
FULL_OF_ITS_OWN: dict[str, Any] = {**FEW, **ANSWERS_OF_ITS_OWN, "tuning": "full", "learning_rate": 1e-3}
CLOCK = ("at", "tokens_per_second", "memory_gb", "step_time")
AT, AFTER = "on_step_end", "on_epoch_end"  # where the stop comes: within a step, or just before an epoch's evaluation


class Case(NamedTuple):
    method: Any
    config: TrainConfig
    rows: list[dict[str, Any]]
    step: int  # where it is stopped: 3 steps make an epoch
    where: str
    demo: bool = False  # over the demo model: what learns from its own answers needs some that are right


CASES = {
    "sft": Case(sft, SftConfig(**FEW), ANSWERS, 4, AT),
    "sft-trl": Case(sft, SftConfig(**{**FEW, "batch_size": 2}, accumulation=2, backend="trl"), ANSWERS, 6, AFTER),
    "sft-full": Case(sft, SftConfig(**{**FEW, "tuning": "full"}), ANSWERS, 3, AFTER),
    "dpo": Case(dpo, DpoConfig(**FEW), PAIRS, 6, AFTER),
    "dpo-trl": Case(dpo, DpoConfig(**FEW, backend="trl"), PAIRS, 6, AFTER),
    "dpo-early": Case(dpo, DpoConfig(**FEW, early_stop=2, eval_every=2), PAIRS, 5, AT),
    "kto": Case(kto, KtoConfig(**FEW), LABELLED, 6, AFTER),
    "kto-trl": Case(kto, KtoConfig(**FEW, backend="trl"), LABELLED, 4, AT),
    "orpo": Case(orpo, OrpoConfig(**FEW), PAIRS, 6, AFTER),
    "simpo": Case(simpo, SimpoConfig(**FEW), PAIRS, 4, AT),
    "reward": Case(reward, RewardConfig(**FEW), PAIRS, 4, AT),
    "reward-full": Case(reward, RewardConfig(**{**FEW, "tuning": "full"}), PAIRS, 4, AT),
    "rloo": Case(rloo, RlooConfig(**{**FEW, **ANSWERS_OF_ITS_OWN}), PROMPTS, 4, AT, demo=True),
    "rloo-full": Case(rloo, RlooConfig(**FULL_OF_ITS_OWN), PROMPTS, 4, AT, demo=True),
    "grpo-full": Case(grpo, GrpoConfig(**FULL_OF_ITS_OWN, beta=0.1), PROMPTS, 5, AT, demo=True),
    "grpo": Case(grpo, GrpoConfig(**{**FEW, **ANSWERS_OF_ITS_OWN}, beta=0.1), PROMPTS, 5, AT, demo=True),
}

RARE = frozenset(
    {
        "sft-full",
        "sft-trl",
        "dpo-trl",
        "kto-trl",
        "dpo-early",
        "orpo",
        "simpo",
        "reward",
        "rloo",
        "grpo",
        "rloo-full",
        "grpo-full",
        "reward-full",
    }
)
SLOWER = pytest.mark.slow(reason="two runs each of what differs from its neighbours least")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a child of the tests has it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, where: str = "on_step_end") -> None:
    """Ask the first run that reaches the step to stop there."""
    real: Callable[..., None] = getattr(RunEvents, where)

    def asked(told: RunEvents, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == step:
            told.run.request_stop()
        real(told, args, state, control, **more)

    monkeypatch.setattr(RunEvents, where, asked)


def curve(run: RunDir, after: int = 0) -> list[dict[str, Any]]:
    """The points of a run's charts, without what depends on the clock and the machine."""
    points: list[dict[str, Any]] = []
    for event in events(run, "metrics"):
        if event.get("resumed"):
            points = [point for point in points if point["step"] <= event["step"]]
        else:
            points.append({k: v for k, v in event.items() if k not in CLOCK})
    return [point for point in points if point["step"] > after]


def goes_on(run: RunDir, method: Any) -> dict[str, Any]:
    resume.reopen(run)
    result: dict[str, Any] = method.main(run)
    return result


def texts(run: RunDir) -> list[str]:
    return [event["text"] for event in events(run, "log")]


@pytest.mark.parametrize("case", [pytest.param(case, marks=SLOWER) if case in RARE else case for case in CASES])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Its file, its curve and its figures; so two runs of one config give the same adapter, whatever the method."""
    method, config, rows, step, where, demo = CASES[case]
    of = tiny_model.DEMO_MODEL if demo else base
    whole, cut = (make_run(tmp_path / "runs" / name, of, config, rows) for name in ("whole", "cut"))
    expected = method.main(whole)
    with monkeypatch.context() as patch:
        stop_at(patch, step, where)
        stopped = method.main(cut)
    assert stopped["steps"] == step
    assert f"checkpoint-{step}" in [path.name for path in (cut.path / "checkpoints").iterdir()]
    result = goes_on(cut, method)
    assert (result["steps"], result["resumed_from"]) == (expected["steps"], step)
    assert f"Resumed from step {step}." in texts(cut)
    (key,) = [name for name in expected if name.endswith("_sha256")]
    assert result[key] == expected[key] != stopped[key]
    assert curve(cut) == curve(whole)
    keys = [name for name in expected["metrics"] if name not in CLOCK]
    assert {k: result["metrics"][k] for k in keys} == {k: expected["metrics"][k] for k in keys}
    assert result.get("first_loss") == expected.get("first_loss")
    assert result.get("best_step") == expected.get("best_step")
    assert not (cut.path / "checkpoints").exists(), "a finished run needs none"
    assert not (whole.path / "checkpoints").exists()


def test_dpo_over_a_parent_goes_on_with_the_parent_as_its_reference(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's checkpoint holds a frozen copy of the parent beside the adapter."""
    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW, max_steps=2), ANSWERS)
    sft.main(parent)
    config = DpoConfig(**FEW, max_steps=4, backend="trl")
    runs = [make_run(tmp_path / name, base, config, PAIRS, adapter=parent.path / "adapter") for name in ("whole", "cut")]
    expected = dpo.main(runs[0])
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        dpo.main(runs[1])
    assert (runs[1].path / "checkpoints" / "checkpoint-2" / "ref").is_dir()
    result = goes_on(runs[1], dpo)
    assert result["adapter_sha256"] == expected["adapter_sha256"]
    assert result["first_loss"] == pytest.approx(math.log(2), abs=1e-4)


SLOW = pytest.mark.slow(reason="a process of its own for the plainer of the two kills")


@pytest.mark.parametrize(("happens", "step"), [({"KILL_SEALING": 4}, 2), pytest.param({"KILL_AT": 5}, 4, marks=SLOW)])
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, base: Path, one_thread: None, happens: dict[str, int], step: int
) -> None:
    """Within a step, and while a checkpoint is written, when the one before is still there."""
    config = DpoConfig(**FEW, save_every=2)
    killed, whole = (make_run(tmp_path / name, base, config, PAIRS) for name in ("killed", "whole"))
    assert start("dpo", killed, **happens).wait() == -signal.SIGKILL
    assert not events(killed, "result")
    result = goes_on(killed, dpo)
    assert result["resumed_from"] == step
    assert result["adapter_sha256"] == dpo.main(whole)["adapter_sha256"]
    assert curve(killed) == curve(whole)


def test_a_damaged_checkpoint_is_left_out_in_words(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one is gone on from, and without any the run begins again; either way it ends the same."""
    config = OrpoConfig(**FEW)
    whole, cut, lost = (make_run(tmp_path / name, base, config, PAIRS) for name in ("whole", "cut", "lost"))
    expected = orpo.main(whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        for run in (cut, lost):
            orpo.main(run)
    older = cut.path / "checkpoints" / "checkpoint-4"
    newer = shutil.copytree(older, older.with_name("checkpoint-5"))
    with (newer / "optimizer.pt").open("r+b") as f:
        f.seek(200)
        f.write(b"?")
    with (lost.path / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors").open("r+b") as f:
        f.truncate(100)
    damaged = "The checkpoint of step {} is damaged or was not written whole; it is left out."
    for run, step, words in (
        (cut, 4, [damaged.format(5), "Resumed from step 4."]),
        (lost, None, [damaged.format(4), "No checkpoint can be used: the run begins at its first step again."]),
    ):
        result = goes_on(run, orpo)
        assert result.get("resumed_from") == step
        assert set(words) <= set(texts(run))
        assert result["adapter_sha256"] == expected["adapter_sha256"]
        assert curve(run) == curve(whole)


def test_a_checkpoint_holds_no_code(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are safetensors; the rest is read as tensors and plain values alone."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    run = make_run(tmp_path / "run", base, SftConfig(**FEW), ANSWERS)
    stop_at(monkeypatch, 1)
    sft.main(run)
    (folder,) = (run.path / "checkpoints").iterdir()
    assert not list(folder.glob("*.bin"))
    pickled = {path.name for pattern in ("*.pt", "*.pth") for path in folder.glob(pattern)}
    assert pickled == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    with safe_globals():
        for name in pickled:
            torch.load(folder / name, weights_only=True)


@pytest.mark.parametrize("every", [0, 2])
def test_only_the_newest_checkpoint_is_kept(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """By steps or by the clock; the end of the run needs none."""
    seen: list[list[str]] = []
    real = checkpoints.Checkpoints.save

    def looked(self: checkpoints.Checkpoints, **more: Any) -> None:
        real(self, **more)
        seen.append(sorted(path.name for path in (self.run.path / "checkpoints").iterdir()))

    monkeypatch.setattr(checkpoints.Checkpoints, "save", looked)
    monkeypatch.setattr(checkpoints, "_EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "_COST", 0)
    run = make_run(tmp_path / "run", base, OrpoConfig(**FEW, max_steps=5, save_every=every), PAIRS)
    orpo.main(run)
    assert seen == [[f"checkpoint-{step}"] for step in ((2, 4) if every else (1, 2, 3, 4))]


def test_a_checkpoint_that_cannot_be_written_costs_no_training(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written of it goes before anything else is, so that there is room to say so."""
    written: list[Path] = []
    said = RunDir.event

    def full(path: Path, *_: Any) -> None:
        written.append(path)
        raise OSError(28, "No space left on device")

    def event(self: RunDir, type: Any, **data: Any) -> None:
        if "could not be written" in str(data.get("text")):
            assert written
            assert not written[-1].exists()
        said(self, type, **data)

    monkeypatch.setattr(resume, "seal", full)
    monkeypatch.setattr(RunDir, "event", event)
    run = make_run(tmp_path / "run", base, OrpoConfig(**FEW, max_steps=3, save_every=2), PAIRS)
    assert orpo.main(run)["steps"] == 3
    assert any("checkpoint of step 2 could not be written" in text and "No space left" in text for text in texts(run))
    assert adapter_weights(run)


@pytest.mark.parametrize("fails", ["", "here", "elsewhere", "while it is sealed"])
def test_whoever_cannot_write_a_checkpoint_meets_the_others_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Of several processes: one that left something out would be waited for."""
    met: list[str] = []
    run = RunDir.create(tmp_path / "run", {})
    saver = checkpoints.Checkpoints(run, SftConfig(), RunEvents(run, SftConfig()), None)
    saver.trainer = SimpleNamespace(state=SimpleNamespace(global_step=2), model=None)
    folder = run.path / "checkpoints" / "checkpoint-2"

    def write(*_: Any) -> None:
        folder.mkdir(parents=True)
        if fails == "here":
            raise OSError(28, "No space left on device")

    def anyone(flag: bool) -> bool:
        met.append("asked")
        return flag or fails == "elsewhere"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    saver._write = write
    monkeypatch.setattr(checkpoints, "anyone", anyone)
    monkeypatch.setattr(checkpoints, "wait_for_all", lambda: met.append("waited"))
    if fails == "while it is sealed":
        monkeypatch.setattr(resume, "seal", full)
    saver.save()
    assert met == ["asked", "waited"]
    assert folder.exists() == (not fails)
    assert bool(texts(run)) == bool(fails)


def test_a_stop_while_a_run_that_goes_on_is_loading_keeps_its_checkpoint(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", base, OrpoConfig(**FEW), PAIRS)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        orpo.main(run)
    resume.reopen(run)
    run.request_stop()
    with pytest.raises(Stopped, match=r"the checkpoint of step 4 is kept\.$"):
        orpo.main(run)
    assert resume.newest(run.path) is not None
