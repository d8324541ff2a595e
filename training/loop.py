"""The course of every training run: read and check the rows, load the base, make the trainer, train, save the adapter.

A method's module hands in what is its own: how its trainer is made from a `Job`, and what its first loss must be. Bad data is
refused before seconds are spent on imports; torch and its like are imported inside. The result event is the same for all methods:
{adapter, adapter_sha256, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}, and where it applies {resumed_from},
{stopped_early, best_step} and {memory_ran_out, batch_size, accumulation}.

A folder that has a checkpoint is gone on with from there (`training/checkpoints.py`), whether an earlier child left it or this one
did when its memory ran out (`training/out_of_memory.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from data import resume
from data.engine import ModelSpec
from data.resume import Checkpoint
from data.rundir import RunDir
from training import reporting
from training.config import Method, TrainConfig, read_args
from training.out_of_memory import OutOfMemory, failures_in_words, going_on, loading_in_words, release, split_of
from training.rows import NO_ADAPTER, Dropped, Rows, Say, check_template, read_rows, usable_or_refuse

if TYPE_CHECKING:
    from training.adapters import Trainable
    from training.callbacks import RunEvents


class Job(NamedTuple):
    """What a method makes its trainer from. `config` is of the method's own class; `say` tells what goes on. `split`: into how many
    parts a batch is cut because memory ran out, 1 = it is whole."""

    run: RunDir
    config: TrainConfig
    start: Trainable
    rows: Rows
    events: RunEvents
    say: Say
    split: int = 1


class _Course(NamedTuple):
    """What does not change between the first try and the second."""

    run: RunDir
    method: Method
    spec: ModelSpec
    config: TrainConfig
    frozen: Rows
    make_trainer: Callable[[Job], Any]
    check: Callable[[Any], float] | None
    load: Callable[[ModelSpec, TrainConfig, Rows], Trainable] | None
    also: Callable[[Any], dict[str, Any]] | None


def train_run(
    run: RunDir,
    method: Method,
    make_trainer: Callable[[Job], Any],
    check: Callable[[Any], float] | None = None,
    load: Callable[[ModelSpec, TrainConfig, Rows], Trainable] | None = None,
    also: Callable[[Any], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train as the run's config.json says. `check` returns the trainer's first loss before any step, or refuses it; `load` makes
    the model ready where that is the method's own; `also` says what a run that was not stopped adds to the result."""
    spec, config = read_args(method, run.config().get("args", {}))
    reporting.prepare(run, config.report_to)
    course = _Course(run, method, spec, config, read_rows(run, method), make_trainer, check, load, also)
    start = _start_point(run)
    split = int(start.state["split"]) if start else 1
    try:
        return _train(course, start, split)
    except OutOfMemory:
        if split > 1 or split_of(config) == 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise  # of several processes one alone cannot begin again
    release()  # out here: the failure's frames, and all that they held, are gone
    run.event("log", text=going_on(config, split_of(config)))
    return _train(course, _start_point(run), split_of(config))


def _train(course: _Course, start: Checkpoint | None, split: int) -> dict[str, Any]:
    """One try, from the checkpoint or from the first step."""
    run, config = course.run, course.config
    kept = f"the checkpoint of step {start.step} is kept" if start else NO_ADAPTER
    with run.loading(kept) as say:
        say("loading the libraries")
        from training.adapters import finish, load_trainable, log_dropped
        from training.callbacks import RunEvents
        from training.checkpoints import Checkpoints
        from training.samples import Samples

        say("loading the base model")
        with loading_in_words():
            base = (course.load or load_trainable)(course.spec, config, course.frozen)
        with failures_in_words(config, split):
            dropped = Dropped()
            rows = usable_or_refuse(course.frozen, course.method, base.tokenizer, base.limit, dropped, say)
            check_template(base.tokenizer, rows.train[0], base.ends)
            log_dropped(run, dropped)
            events = RunEvents(run, config)
            checkpoints = Checkpoints(run, config, events, start, split)
            say("tokenising the rows")
            trainer = course.make_trainer(Job(run, config, base, rows, events, say, split))
            trainer.add_callback(Samples(run, config, base, rows, events))
            if course.check:
                say("comparing with the reference")
            first_loss = course.check(trainer) if course.check else None
            checkpoints.attach(trainer, bool(rows.held_out))
    with failures_in_words(config, split):
        checkpoints.train()
        if course.check is None:
            first_loss = events.first_loss
        result = finish(run, course.method, course.spec, config, checkpoints, first_loss)
        if course.also and not run.stop_requested:
            result |= course.also(checkpoints.trainer)
    return result | {"rows": len(rows.train), "held_out_rows": len(rows.held_out), "dropped": dropped.to_json()}


def _start_point(run: RunDir) -> Checkpoint | None:
    """The newest whole checkpoint; what is damaged, and where the run goes on from, is said in its log and to its charts."""
    found, unusable = resume.start_point(run.path)
    for step in unusable:
        run.event("log", text=f"The checkpoint of step {step} is damaged or was not written whole; it is left out.")
    if found:
        run.event("log", text=f"Resumed from step {found.step}.")
    elif unusable:
        run.event("log", text="No checkpoint can be used: the run begins at its first step again.")
    if found or any(event.get("type") == "metrics" for event in run.tail().events):
        run.event("metrics", step=found.step if found else 0, resumed=True)
    return found
