"""What a trainer says while it runs, and how it is stopped: events into the run folder, the stop file.

Imported by the trainers inside `main`, after `transformers`. Metric names are TRL's own. A value that is not a number
becomes null in the event, and a loss that is not a number ends the run: everything after it would be noise.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.errors import RunError
from data.rundir import SAY_S, RunDir, Stopped
from training.config import TrainConfig
from training.ranks import anyone
from training.rows import NO_ADAPTER

_LAST = 10  # logged steps, at most, that make up "the end of training": no more than the last fifth of a short run
_NOT_METRICS = ("_runtime", "_per_second", "_flos")


class StoppedEvaluating(Exception):
    """Ends an evaluation that was asked to stop; the steps before it count."""


class RunEvents(TrainerCallback):
    """Writes `progress` and `metrics` events and ends training within a step once the stop file is there."""

    def __init__(self, run: RunDir, config: TrainConfig) -> None:
        self.run = run
        self.config = config
        self.first_loss: float | None = None
        self.held_out: dict[str, float | None] = {}
        self.started = time.monotonic()
        self._logged_steps = 0
        self._recent: deque[dict[str, float | None]] = deque(maxlen=_LAST)
        self._before = 0.0  # seconds of the run before it went on from a checkpoint
        self._told = 0.0
        self._tokens = 0.0
        self._logged = self.started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._logged = time.monotonic()
        self.started = self._logged - self._before
        self.run.progress(state.global_step, state.max_steps, "steps", self.started)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 0 and anyone(self.run.stop_requested):
            raise Stopped(f"Stopped before the first step; {NO_ADAPTER}.")

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.on_step_begin(args, state, control)

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.on_step_begin(args, state, control)
        if anyone(self.run.stop_requested):
            self.held_out = {}  # those of an earlier evaluation are not of the run's end
            raise StoppedEvaluating

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if anyone(self.run.stop_requested):
            control.should_training_stop = True
        now = time.monotonic()
        if now - self._told >= SAY_S or state.global_step >= state.max_steps or control.should_training_stop:
            self._told = now
            self.run.progress(state.global_step, state.max_steps, "steps", self.started)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        if "train_runtime" in logs:  # the trainer's own summary of the whole run
            return
        metrics = numbers(logs)
        if "loss" in logs:
            metrics["tokens_per_second"] = self._speed(metrics.get("num_tokens"))
            metrics["memory_gb"] = peak_memory_gb()
            self.first_loss = metrics["loss"] if not self._logged_steps else self.first_loss
            self._logged_steps += 1
            self._recent.append(metrics)
        else:
            self.held_out = {name: value for name, value in metrics.items() if name.startswith("eval_")}
        self.run.event("metrics", step=state.global_step, **metrics)
        if "loss" in logs and metrics["loss"] is None:
            raise RunError(
                f"The loss is no longer a number at step {state.global_step}; "
                f"lower the learning rate (now {self.config.learning_rate:g}) and start again."
            )

    def final(self) -> dict[str, float | None]:
        """Each metric's mean over the last fifth of the logged steps (ten at most); held-out figures of the last evaluation."""
        last = list(self._recent)[-min(_LAST, max(1, self._logged_steps // 5)) :]
        names = [name for name in (last[-1] if last else {}) if name not in ("epoch", "num_tokens", "learning_rate")]
        return {name: _mean([entry.get(name) for entry in last]) for name in names} | self.held_out

    def paused(self, seconds: float) -> None:
        """So long something else than training went on: it does not count into tokens a second."""
        self._logged += seconds

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, for `restore`."""
        return {
            "first_loss": self.first_loss,
            "logged_steps": self._logged_steps,
            "recent": list(self._recent),
            "held_out": self.held_out,
            "seconds": time.monotonic() - self.started,
            "tokens": self._tokens,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.first_loss, self._logged_steps, self.held_out = state["first_loss"], state["logged_steps"], state["held_out"]
        self._recent.extend(state["recent"])
        self._before, self._tokens = state["seconds"], state["tokens"]

    def _speed(self, tokens: float | None) -> float | None:
        now = time.monotonic()
        took, self._logged = now - self._logged, now
        if tokens is None or took <= 0:
            return None
        new, self._tokens = tokens - self._tokens, tokens
        return round(new / took, 1)


def numbers(logs: Mapping[str, Any]) -> dict[str, float | None]:
    """The logged numbers without the trainer's bookkeeping; what is not finite is None."""
    kept: dict[str, float | None] = {}
    for name, value in logs.items():
        if isinstance(value, int | float) and not name.endswith(_NOT_METRICS):
            kept[name] = float(value) if math.isfinite(value) else None
    return kept


def peak_memory_gb() -> float:
    """The most that this process has held so far: on the GPU where there is one, else in main memory."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
