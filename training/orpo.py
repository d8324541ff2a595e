"""ORPO and SimPO as a run: `python -m training.orpo RUN_DIR`; preferences without a reference model.

config.json: args = `training.config.run_args(model, OrpoConfig)`, data = frozen pairs in Parquet. Leaves `adapter/`
and a result event {adapter, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}. `sft.py`, `dpo.py`,
`kto.py` and `orpo.py` are parallel on purpose: the same functions in the same order, each readable alone. Both losses
are our own (`preference_losses`): TRL's are experimental and may vanish with any release. Nothing holds the model near
its start, so the learning rate alone decides how far it moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.errors import RunError
from data.rundir import RunDir, run_child
from training.config import OrpoConfig, read_args
from training.rows import NO_ADAPTER, Dropped, Rows, Say, check_template, read_rows, usable_or_refuse

if TYPE_CHECKING:
    from training.adapters import Trainable
    from training.callbacks import RunEvents


def main(run: RunDir) -> dict[str, Any]:
    """Read, check, load, train, save."""
    spec, config = read_args("orpo", run.config().get("args", {}))
    assert isinstance(config, OrpoConfig)
    frozen = read_rows(run, "orpo")  # bad data is refused before seconds are spent on imports

    with run.loading(NO_ADAPTER) as say:
        say("loading the libraries")
        from training.adapters import finish, load_trainable, log_dropped, train
        from training.callbacks import RunEvents, failures_in_words

        with failures_in_words(config):
            say("loading the base model")
            start = load_trainable(spec, config, frozen)
            dropped = Dropped()
            rows = usable_or_refuse(frozen, "orpo", start.tokenizer, start.limit, dropped, say)
            check_template(start.tokenizer, rows.train[0], start.ends)
            log_dropped(run, dropped)
            events = RunEvents(run, config)
            say("tokenising the rows")
            trainer = make_trainer(run, config, start, rows, events, say)
    with failures_in_words(config):
        train(trainer)
        first_loss = events.history[0]["loss"] if events.history else None
        result = finish(run, "orpo", spec, config, trainer, events, first_loss)
    return result | {"rows": len(rows.train), "held_out_rows": len(rows.held_out), "dropped": dropped.to_json()}


def make_trainer(run: RunDir, config: OrpoConfig, start: Trainable, rows: Rows, events: RunEvents, say: Say) -> Any:
    """Our trainer, ready to train; RunError where only TRL could train this model."""
    from training.preference_objectives import Orpo, SimPo
    from training.preference_rows import items
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    layout = studio_layout(config, start, rows)
    if layout is None:
        raise RunError("ORPO and SimPO train on one device and not on this kind of model; choose DPO instead.")
    objective = Orpo(config.beta) if config.variant == "orpo" else SimPo(config.beta, config.margin)
    train, held_out = (items(part, start.tokenizer, start.limit) for part in rows)
    return studio_trainer(run, config, start, rows, Plan(objective, train, held_out), layout, events, say)


if __name__ == "__main__":
    run_child(main)
