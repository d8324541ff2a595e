"""Checkpoints while a run trains, and going on from one: bit for bit as if it had never ended, on a CPU.

transformers writes and reads them: weights as safetensors; optimiser, schedule and random state as tensors that are read with
`weights_only`, from the run's own folder alone. Ours is when (every so many steps, or every few minutes, and on a stop), that a
checkpoint counts only once it is sealed (`data/resume.py`), that only the newest and the best stay, and what no trainer knows: the
run's own counters, and whether an evaluation was cut off. A disk that is full costs a checkpoint, never the run.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import RepeatSampler

from data import resume
from data.resume import Checkpoint
from data.rundir import RunDir
from training.callbacks import RunEvents, StoppedEvaluating
from training.config import TrainConfig
from training.early_stop import EarlyStop
from training.out_of_memory import is_out_of_memory
from training.ranks import anyone, is_first, several, wait_for_all

_EVERY_S: Final = 180.0  # between two checkpoints, where the steps between them are not given
_COST: Final = 20  # writing them takes at most such a part of the time
_PICKLE: Final = "training_args.bin"  # written by transformers, read by nobody
_COUNTERS: Final = ("_total_train_tokens", "_tokens")  # a trainer's count of tokens: TRL's, ours


class Enough(Exception):
    """Ends training before another step: the run that goes on has nothing left to do."""


class Checkpoints(TrainerCallback):
    """Of one trainer: `attach` it, then `train`. `start`: where this run goes on from."""

    def __init__(self, run: RunDir, config: TrainConfig, events: RunEvents, start: Checkpoint | None, split: int = 1) -> None:
        self.run, self.config, self.events, self.start, self.split = run, config, events, start, split
        self.early = EarlyStop(run, config.early_stop, events)
        self._last, self._took = time.monotonic(), 0.0
        self._moving = False  # inside the optimiser's step: half of the weights may have moved
        self.trainer: Any = None
        self._write: Any = None

    def attach(self, trainer: Any, held_out: bool) -> None:
        """Take over when and how this trainer's checkpoints are written; `held_out`: whether there is anything to evaluate on."""
        self.trainer, self._write = trainer, trainer._save_checkpoint
        trainer._save_checkpoint = lambda model, trial: self.save()
        if self.config.early_stop and not held_out:
            self.run.event("log", text="There are no held-out rows, so this run cannot be stopped early.")
        if self.start:
            trainer.args.eval_on_start = False  # it was, before the first step
            _deal_on(trainer, self.start)
            self.events.restore(self.start.state["events"])
            self.early.restore(self.start.state["early_stop"])
        trainer.add_callback(self.early)
        trainer.add_callback(self)

    def train(self) -> None:
        """To the end, to a stop, in the middle of an evaluation too, or to where it is no longer worth while."""
        try:
            self.trainer.train(resume_from_checkpoint=str(self.start.path) if self.start else None)
        except StoppedEvaluating:
            if self._step not in (one.step for one in resume.sealed(self.run.path)):  # else it was no evaluation that was due
                self.save(unevaluated=not self.trainer.model.training)  # else it was answering prompts to learn from
        except Enough:
            pass
        except (RuntimeError, MemoryError, OSError) as error:
            if is_out_of_memory(error) and not several():
                self._rescue()
            raise

    def _rescue(self) -> None:
        """Keep the last whole step of a training that failed for want of memory."""
        if self._step and not self._moving:
            self.save(unevaluated=not self.trainer.model.training)

    def keep_best(self) -> int:
        """With early stopping: load the best weights of the run. The step that the trainer's weights are of."""
        best = self.early.best_step
        if not best or best == self._step:
            return self._step
        found = [one for one in resume.sealed(self.run.path) if one.step == best and resume.is_whole(one)]
        if not found:
            self.run.event("log", text=f"The best checkpoint, of step {best}, is missing; the last step's adapter is saved.")
            self.early.best_step = self._step
            return self._step
        self.trainer.state.best_model_checkpoint = str(found[0].path)
        self.trainer._load_best_model()
        self.events.held_out = self.early.held_out
        self.run.event("log", text=f"The {self.early.best_in_words}: that adapter is saved.")
        return best

    def result(self) -> dict[str, Any]:
        """For the result event: what of all this has come into play."""
        found = self.early.result(self._step)
        if self.start and self.start.state["split"] == self.split:
            found["resumed_from"] = self.start.step
        if self.split > 1:
            rows, times = self.config.batch_size // self.split, self.config.accumulation * self.split
            found |= {"memory_ran_out": True, "batch_size": rows, "accumulation": times}
        return found

    # --- when -------------------------------------------------------------------------------------------------------------

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._due(state, control) and not self._evaluated_next(args, state):
            control.should_save = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._due(state, control) and self._evaluated_next(args, state):
            control.should_save = True  # after the evaluation, which the one that goes on must not miss

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._moving = True

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._moving = False

    def _due(self, state: TrainerState, control: TrainerControl) -> bool:
        every = self.config.save_every
        late = time.monotonic() - self._last >= max(_EVERY_S, _COST * self._took)
        due = state.global_step % every == 0 if every else late
        over = state.global_step >= state.max_steps or control.should_training_stop  # the adapter is saved next
        return anyone(self.run.stop_requested or (due and not over))

    @staticmethod
    def _evaluated_next(args: TrainingArguments, state: TrainerState) -> bool:
        """Whether the end of an epoch follows, with its evaluation."""
        whole = state.epoch is not None and float(state.epoch).is_integer()
        return args.eval_strategy == "epoch" and (whole or state.global_step >= state.max_steps)

    # --- writing ----------------------------------------------------------------------------------------------------------

    def save(self, unevaluated: bool = False) -> None:
        """Write, seal, and only then remove the older ones. `unevaluated`: the evaluation due at this step is still to come."""
        began, path = time.monotonic(), self.run.path / resume.FOLDER / f"checkpoint-{self._step}"
        reason = _why_not(lambda: self._write(self.trainer.model, None))
        half = anyone(bool(reason))  # all ask, whether they could write or not: one that did not would be waited for by the others
        if is_first() and not half:
            reason = _why_not(lambda: self._seal(path, unevaluated))
        if reason or half:
            if is_first():  # half of it is of no use, and takes the room that the run needs to say so and to go on
                shutil.rmtree(path, ignore_errors=True)
            why = reason or "another process could not write its part"
            self.run.event(
                "log", text=f"The checkpoint of step {self._step} could not be written ({why}); training goes on without it."
            )
        wait_for_all()  # whoever looks next finds it sealed
        self._last, self._took = time.monotonic(), time.monotonic() - began

    def _seal(self, path: Path, unevaluated: bool) -> None:
        (path / _PICKLE).unlink(missing_ok=True)
        resume.seal(path, self._step, self._state(unevaluated))
        self._prune(path)

    def _prune(self, newest: Path) -> None:
        resume.prune(self.run.path, {newest.name, f"checkpoint-{self.early.best_step}"})

    def _state(self, unevaluated: bool) -> dict[str, Any]:
        counter = next((name for name in _COUNTERS if hasattr(self.trainer, name)), "")
        return {
            "events": self.events.state(),
            "early_stop": self.early.state(),
            "tokens": float(getattr(self.trainer, counter, 0.0)),
            "split": self.split,
            "unevaluated": unevaluated,
        }

    @property
    def _step(self) -> int:
        return int(self.trainer.state.global_step)

    # --- going on ---------------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last = time.monotonic()
        if self.start is None:
            return
        if is_first():
            self._prune(self.start.path)
        for name in _COUNTERS:
            if hasattr(self.trainer, name):
                setattr(self.trainer, name, self.start.state["tokens"])
        if self.start.state["unevaluated"] and args.eval_strategy != "no":
            self.trainer.evaluate()
        if state.global_step >= state.max_steps or self.early.over:
            raise Enough


def _why_not(write: Callable[[], object]) -> str:
    """Write; in words what kept it from that, '' where nothing did."""
    try:
        write()
    except (OSError, RuntimeError, SafetensorError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""


def _deal_on(trainer: Any, start: Checkpoint) -> None:
    """Let a trainer that samples its own answers meet its prompts as if it had never stopped: TRL shuffles each epoch from where
    one generator stands, and a new one would begin with the first epoch's order again."""
    done = int(json.loads((start.path / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])
    make = trainer._get_train_sampler

    def sampler(*given: Any) -> Any:
        made = make(*given)
        if isinstance(made, RepeatSampler):
            for _ in range(done):
                torch.randperm(made.num_samples, generator=made.generator)
        return made

    trainer._get_train_sampler = sampler
