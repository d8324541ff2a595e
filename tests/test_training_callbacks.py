"""What a trainer says while it runs: finite numbers or null, an ETA, a stop within a step, failures in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from data.errors import BadInput, RunError
from data.rundir import RunDir, Stopped
from tests.training_runs import events
from training.callbacks import RunEvents, numbers
from training.config import DpoConfig
from training.out_of_memory import failures_in_words

pytestmark = pytest.mark.model


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", {})


def log(told: RunEvents, step: int, logs: dict[str, Any]) -> None:
    state = TrainerState(global_step=step, max_steps=10)
    told.on_log(TrainingArguments("unused", use_cpu=True), state, TrainerControl(), logs=logs)


def test_metrics_keep_trls_names_and_turn_what_is_not_finite_into_null(run: RunDir) -> None:
    told = RunEvents(run, DpoConfig())
    log(told, 1, {"loss": 0.69, "rewards/margins": math.nan, "num_tokens": 100.0, "epoch": 0.1})
    line = (run.path / "events.jsonl").read_text()
    assert "NaN" not in line
    event = json.loads(line)
    assert (event["type"], event["step"], event["loss"], event["rewards/margins"]) == ("metrics", 1, 0.69, None)
    assert event["tokens_per_second"] > 0
    assert 0.01 < event["memory_gb"] < 1000


def test_a_loss_that_is_no_number_ends_the_run_in_words(run: RunDir) -> None:
    told = RunEvents(run, DpoConfig(learning_rate=0.05))
    with pytest.raises(RunError, match=r"no longer a number at step 3; lower the learning rate \(now 0.05\)"):
        log(told, 3, {"loss": math.nan})
    assert events(run, "metrics")[-1]["loss"] is None


def test_the_stop_file_ends_training_at_the_next_step(run: RunDir) -> None:
    told, control = RunEvents(run, DpoConfig()), TrainerControl()
    args, state = TrainingArguments("unused", use_cpu=True), TrainerState(global_step=1, max_steps=10)
    told.on_train_begin(args, state, control)
    told.on_step_end(args, state, control)
    assert not control.should_training_stop
    run.request_stop()
    state.global_step = 2
    told.on_step_end(args, state, control)
    assert control.should_training_stop
    assert [event["done"] for event in events(run, "progress")][-1] == 2


def test_a_stop_before_the_first_step_is_no_half_an_adapter(run: RunDir) -> None:
    told, control = RunEvents(run, DpoConfig()), TrainerControl()
    args, state = TrainingArguments("unused", use_cpu=True), TrainerState(global_step=0, max_steps=10)
    told.on_step_begin(args, state, control)
    run.request_stop()
    for look in (told.on_step_begin, told.on_substep_end):
        with pytest.raises(Stopped, match=r"^Stopped before the first step; no adapter was made\.$"):
            look(args, state, control)
    state.global_step = 1
    told.on_step_begin(args, state, control)


def test_the_end_of_training_is_a_mean_and_the_last_held_out_figures(run: RunDir) -> None:
    told = RunEvents(run, DpoConfig())
    for step in range(1, 21):
        log(told, step, {"loss": float(step), "rewards/margins": None if step == 20 else 2.0, "learning_rate": 0.1})
    log(told, 20, {"eval_loss": 0.5, "eval_rewards/accuracies": 0.8, "eval_runtime": 3.0})
    log(told, 20, {"train_runtime": 9.0, "train_loss": 1.0})
    final = told.final()
    assert final["loss"] == pytest.approx((17 + 18 + 19 + 20) / 4)  # the last fifth
    assert (final["eval_loss"], final["eval_rewards/accuracies"]) == (0.5, 0.8)
    assert "eval_runtime" not in final
    assert "learning_rate" not in final


def test_only_numbers_are_metrics() -> None:
    assert numbers({"loss": 1, "note": "x", "train_runtime": 3, "x_per_second": 2, "kl": math.inf}) == {"loss": 1.0, "kl": None}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_says_what_to_change(error: BaseException) -> None:
    with pytest.raises(RunError, match=r"batches of 8 rows .* halve the batch size or turn checkpointing on"):  # noqa: SIM117
        with failures_in_words(DpoConfig()):
            raise error


def test_other_failures_keep_their_own_words() -> None:
    with pytest.raises(BadInput, match="as it is"), failures_in_words(DpoConfig()):
        raise BadInput("as it is")
    with pytest.raises(RuntimeError, match="a bug"), failures_in_words(DpoConfig()):
        raise RuntimeError("a bug")


def test_an_allocation_that_cannot_be_met_is_recognised() -> None:
    with pytest.raises(RunError, match="Memory ran out"), failures_in_words(DpoConfig()):
        torch.empty(1 << 46)
