"""Early stopping: the loss on the held-out rows decides when to end, and which of the run's adapters is kept. Of a model that
learns from its own answers the loss says nothing: there the held-out reward decides.

Every evaluation that is better than all before it asks for a checkpoint; after `early_stop` evaluations without a better one the
run ends. At the end the best checkpoint is what is saved, also when the run went its whole length or was stopped.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.rundir import RunDir
from training.callbacks import RunEvents


class EarlyStop(TrainerCallback):
    """`patience` 0 = off. Its figures go into each checkpoint, so that a run that goes on decides as one that never ended."""

    def __init__(self, run: RunDir, patience: int, events: RunEvents) -> None:
        self.run, self.patience, self.events = run, patience, events
        self.best_step = 0  # 0: nothing was evaluated yet
        self.best = math.inf
        self.worse = 0  # evaluations since the best one
        self.held_out: dict[str, float | None] = {}

    @property
    def over(self) -> bool:
        return bool(self.patience) and self.worse >= self.patience

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self.patience or not state.global_step:  # nothing has been learned yet that could be kept
            return
        reward = self.events.held_out.get("eval_reward")
        loss = (metrics or {}).get("eval_loss", math.nan) if reward is None else -reward
        if loss < self.best:
            self.best, self.best_step, self.worse = loss, state.global_step, 0
            self.held_out = dict(self.events.held_out)
            control.should_save = True
            return
        self.worse += 1
        if self.over:
            control.should_training_stop = True
            self.run.event(
                "log",
                text=f"Stopped early at step {state.global_step}: the held-out "
                f"{'loss has not fallen' if reward is None else 'reward has not risen'} since step {self.best_step}.",
            )

    @property
    def best_in_words(self) -> str:
        """ "held-out loss was lowest at step 12 (0.41)"."""
        by = "reward was highest" if "eval_reward" in self.held_out else "loss was lowest"
        return f"held-out {by} at step {self.best_step} ({abs(self.best):.4g})"

    def state(self) -> dict[str, Any]:
        known = math.isfinite(self.best)
        return {
            "best": self.best if known else None,
            "best_step": self.best_step,
            "worse": self.worse,
            "held_out": self.held_out,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else state["best"]
        self.best_step, self.worse, self.held_out = state["best_step"], state["worse"], state["held_out"]

    def result(self, last_step: int) -> dict[str, Any]:
        """For the result event; empty when it is off."""
        if not self.patience:
            return {}
        return {"stopped_early": self.over, "best_step": self.best_step or last_step}
