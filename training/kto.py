"""Kahneman-Tversky optimisation as a run: `python -m training.kto RUN_DIR`.

config.json: args = `training.config.run_args(model, KtoConfig)`, data = frozen answers labelled good or bad in
Parquet (pairs are taken apart). Leaves `adapter/` and a result event {adapter, steps, seconds, first_loss, metrics,
rows, held_out_rows, dropped}. `sft.py`, `dpo.py` and `kto.py` are parallel on purpose: the same functions in the same
order, each readable alone. TRL goes through KTO's rows in their order, so they are dealt here into batches that hold
good and bad ones; taken in order of labelling, or as a pair data set comes apart, a batch would hold one kind only
and the loss would be of another method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.rundir import RunDir, run_child
from training.config import KtoConfig, read_args
from training.rows import NO_ADAPTER, Dropped, Rows, check_template, kto_balance, kto_order, read_rows, usable_or_refuse

if TYPE_CHECKING:
    from training.adapters import Trainable
    from training.callbacks import RunEvents


def main(run: RunDir) -> dict[str, Any]:
    """Read, check, load, train, save."""
    spec, config = read_args("kto", run.config().get("args", {}))
    assert isinstance(config, KtoConfig)
    frozen = read_rows(run, "kto")  # bad data is refused before seconds are spent on imports

    with run.loading(NO_ADAPTER) as say:
        say("loading the libraries")
        from training.adapters import finish, load_trainable, log_dropped, train
        from training.callbacks import RunEvents, failures_in_words

        with failures_in_words(config):
            say("loading the base model")
            start = load_trainable(spec, config, frozen)
            dropped = Dropped()
            rows = usable_or_refuse(frozen, "kto", start.tokenizer, start.limit, dropped, say)
            check_template(start.tokenizer, rows.train[0], start.ends)
            log_dropped(run, dropped)
            events = RunEvents(run, config)
            say("tokenising the rows")
            trainer = make_trainer(run, config, start, rows, events)
    with failures_in_words(config):
        train(trainer)
        first_loss = events.history[0]["loss"] if events.history else None
        result = finish(run, "kto", spec, config, trainer, events, first_loss)
    return result | {"rows": len(rows.train), "held_out_rows": len(rows.held_out), "dropped": dropped.to_json()}


def make_trainer(run: RunDir, config: KtoConfig, start: Trainable, rows: Rows, events: RunEvents) -> Any:
    """TRL's KTOTrainer, ready to train; it takes the rows in the order given."""
    from trl import KTOConfig, KTOTrainer

    from training.adapters import as_dataset, common_args, hold_in_float32

    weights = kto_balance(rows.train, config.desirable_weight, config.undesirable_weight)
    args = KTOConfig(
        **common_args(run, config, rows, start.limit),
        beta=config.beta,
        desirable_weight=weights.desirable,
        undesirable_weight=weights.undesirable,
    )
    trainer = KTOTrainer(
        model=start.model,
        args=args,
        train_dataset=as_dataset(kto_order(rows.train, config.batch_size, config.seed)),
        eval_dataset=as_dataset(kto_order(rows.held_out, config.batch_size, config.seed)),
        processing_class=start.tokenizer,
        peft_config=start.lora,
        callbacks=[events],
    )
    hold_in_float32(trainer.model, start.parent)
    return trainer


if __name__ == "__main__":
    run_child(main)
