"""What a trainer says while it runs, and how it is stopped: events into the run folder, the stop file, failures in
words.

Imported by the trainers inside `main`, after `transformers`. Metric names are TRL's own. A value that is not a number
becomes null in the event, and a loss that is not a number ends the run: everything after it would be noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.errors import RunError, StudioError
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
        self.history: list[dict[str, float | None]] = []
        self.held_out: dict[str, float | None] = {}
        self.started = time.monotonic()
        self._told = 0.0
        self._tokens = 0.0
        self._logged = self.started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.started = self._logged = time.monotonic()
        self.run.progress(0, state.max_steps, "steps", self.started)

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
            self.history.append(metrics)
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
        last = self.history[-min(_LAST, max(1, len(self.history) // 5)) :]
        names = [name for name in (last[-1] if last else {}) if name not in ("epoch", "num_tokens", "learning_rate")]
        return {name: _mean([entry.get(name) for entry in last]) for name in names} | self.held_out

    def paused(self, seconds: float) -> None:
        """So long something else than training went on: it does not count into tokens a second."""
        self._logged += seconds

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


@contextmanager
def failures_in_words(config: TrainConfig) -> Iterator[None]:
    """Turn the failures that a user can mend into a RunError; let the others through with their own text."""
    try:
        yield
    except StudioError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = "halve the batch size" if config.batch_size > 2 else "shorten max_length"
        also = "" if config.checkpointing else " or turn checkpointing on"
        raise RunError(
            f"Memory ran out with batches of {config.batch_size} rows of up to {config.max_length} tokens; "
            f"{smaller}{also} and start again."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
