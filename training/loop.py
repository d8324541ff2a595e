"""The course of every training run: read and check the rows, load the base, make the trainer, train, save the adapter.

A method's module hands in what is its own: how its trainer is made from a `Job`, and what its first loss must be. Bad data is
refused before seconds are spent on imports; torch and its like are imported inside. The result event is the same for all methods:
{adapter, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from data.engine import ModelSpec
from data.rundir import RunDir
from training.config import Method, TrainConfig, read_args
from training.rows import NO_ADAPTER, Dropped, Rows, Say, check_template, read_rows, usable_or_refuse

if TYPE_CHECKING:
    from training.adapters import Trainable
    from training.callbacks import RunEvents


class Job(NamedTuple):
    """What a method makes its trainer from. `config` is of the method's own class; `say` tells what goes on."""

    run: RunDir
    config: TrainConfig
    start: Trainable
    rows: Rows
    events: RunEvents
    say: Say


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
    frozen = read_rows(run, method)

    with run.loading(NO_ADAPTER) as say:
        say("loading the libraries")
        from training.adapters import finish, load_trainable, log_dropped, train
        from training.callbacks import RunEvents, failures_in_words
        from training.samples import Samples

        with failures_in_words(config):
            say("loading the base model")
            start = (load or load_trainable)(spec, config, frozen)
            dropped = Dropped()
            rows = usable_or_refuse(frozen, method, start.tokenizer, start.limit, dropped, say)
            check_template(start.tokenizer, rows.train[0], start.ends)
            log_dropped(run, dropped)
            events = RunEvents(run, config)
            say("tokenising the rows")
            trainer = make_trainer(Job(run, config, start, rows, events, say))
            trainer.add_callback(Samples(run, config, start, rows, events))
            if check:
                say("comparing with the reference")
            first_loss = check(trainer) if check else None
    with failures_in_words(config):
        train(trainer)
        if check is None and events.history:
            first_loss = events.history[0]["loss"]
        result = finish(run, method, spec, config, trainer, events, first_loss)
        if also and not run.stop_requested:
            result |= also(trainer)
    return result | {"rows": len(rows.train), "held_out_rows": len(rows.held_out), "dropped": dropped.to_json()}
