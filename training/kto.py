"""Kahneman-Tversky optimisation as a run: `python -m training.kto RUN_DIR`.

config.json: args = `training.config.run_args(model, KtoConfig)`, data = frozen answers labelled good or bad in
Parquet (pairs are taken apart). Leaves `adapter/` and a result event {adapter, steps, seconds, first_loss, metrics,
rows, held_out_rows, dropped}. `sft.py`, `dpo.py` and `kto.py` are parallel on purpose: the same functions in the same
order, each readable alone. TRL goes through KTO's rows in their order, so they are dealt here into batches that hold
good and bad ones; taken in order of labelling, or as a pair data set comes apart, a batch would hold one kind only
and the loss would be of another method. Our own step keeps to these batches; TRL trains where `dpo.py` leaves it to TRL too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.rundir import RunDir, run_child
from training.config import KtoConfig, read_args
from training.rows import (
    NO_ADAPTER,
    Balance,
    Dropped,
    Rows,
    Say,
    check_template,
    kto_balance,
    kto_order,
    read_rows,
    usable_or_refuse,
)

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
            trainer = make_trainer(run, config, start, rows, events, say)
    with failures_in_words(config):
        train(trainer)
        first_loss = events.history[0]["loss"] if events.history else None
        result = finish(run, "kto", spec, config, trainer, events, first_loss)
    return result | {"rows": len(rows.train), "held_out_rows": len(rows.held_out), "dropped": dropped.to_json()}


def make_trainer(run: RunDir, config: KtoConfig, start: Trainable, rows: Rows, events: RunEvents, say: Say) -> Any:
    """Our trainer or TRL's, ready to train; the rows stay in the batches they are dealt into here."""
    from training.preference_objectives import Kto
    from training.preference_rows import items, with_others
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    dealt = Rows(*(kto_order(part, config.batch_size, config.seed) for part in rows))
    weights = kto_balance(rows.train, config.desirable_weight, config.undesirable_weight)
    layout = studio_layout(config, start, rows)
    if layout is None:
        run.event("log", text="Trained by TRL.")
        return trl_trainer(run, config, start, dealt, weights, events)
    train, held_out = (with_others(items(part, start.tokenizer, None), config.batch_size, start.limit) for part in dealt)
    plan = Plan(Kto(config.beta, (weights.desirable, weights.undesirable)), train, held_out, dealt=True)
    return studio_trainer(run, config, start, rows, plan, layout, events, say)


def trl_trainer(run: RunDir, config: KtoConfig, start: Trainable, dealt: Rows, weights: Balance, events: RunEvents) -> Any:
    """TRL's KTOTrainer; it takes the rows in the order given."""
    from trl import KTOConfig, KTOTrainer

    from training.adapters import as_dataset, common_args, hold_in_float32

    args = KTOConfig(
        **common_args(run, config, dealt, start.limit),
        beta=config.beta,
        desirable_weight=weights.desirable,
        undesirable_weight=weights.undesirable,
    )
    trainer = KTOTrainer(
        model=start.model,
        args=args,
        train_dataset=as_dataset(dealt.train),
        eval_dataset=as_dataset(dealt.held_out),
        processing_class=start.tokenizer,
        peft_config=start.lora,
        callbacks=[events],
    )
    hold_in_float32(trainer.model, start.parent)
    return trainer


if __name__ == "__main__":
    run_child(main)
