"""Direct preference optimisation as a run: `python -m training.dpo RUN_DIR`.

config.json: args = `training.config.run_args(model, DpoConfig)`, data = frozen pairs in Parquet. Leaves `adapter/`
and a result event {adapter, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}. `sft.py`, `dpo.py`
and `kto.py` are parallel on purpose: the same functions in the same order, each readable alone. The reference is the
model before the run: the base with the adapter off or, over a parent adapter, TRL's frozen copy of it. At the start
both agree, so the first preference loss is ln 2; anything else means a wrong reference, and the run ends with a
sentence instead of training on noise. On one device our own step trains (`preference_trainer`); TRL does where several
devices are at hand, where it is asked for (`backend`), and for model families our step disagrees with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from data.errors import RunError
from data.rundir import RunDir, run_child
from training.config import DpoConfig, read_args
from training.rows import NO_ADAPTER, Dropped, Rows, Say, check_template, read_rows, usable_or_refuse

if TYPE_CHECKING:
    from training.adapters import Trainable
    from training.callbacks import RunEvents

_TOLERANCE = 1e-2


def main(run: RunDir) -> dict[str, Any]:
    """Read, check, load, train, save."""
    spec, config = read_args("dpo", run.config().get("args", {}))
    assert isinstance(config, DpoConfig)
    frozen = read_rows(run, "dpo")  # bad data is refused before seconds are spent on imports

    with run.loading(NO_ADAPTER) as say:
        say("loading the libraries")
        from training.adapters import finish, load_trainable, log_dropped, train
        from training.callbacks import RunEvents, failures_in_words

        with failures_in_words(config):
            say("loading the base model")
            start = load_trainable(spec, config, frozen)
            dropped = Dropped()
            rows = usable_or_refuse(frozen, "dpo", start.tokenizer, start.limit, dropped, say)
            check_template(start.tokenizer, rows.train[0], start.ends)
            log_dropped(run, dropped)
            events = RunEvents(run, config)
            say("tokenising the rows")
            trainer = make_trainer(run, config, start, rows, events, say)
            say("comparing with the reference")
            first_loss = checked_first_loss(trainer)
    with failures_in_words(config):
        train(trainer)
        result = finish(run, "dpo", spec, config, trainer, events, first_loss)
    return result | {"rows": len(rows.train), "held_out_rows": len(rows.held_out), "dropped": dropped.to_json()}


def make_trainer(run: RunDir, config: DpoConfig, start: Trainable, rows: Rows, events: RunEvents, say: Say) -> Any:
    """Our trainer or TRL's, ready to train."""
    from training.preference_objectives import Dpo
    from training.preference_rows import items
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    layout = studio_layout(config, start, rows)
    if layout is None:
        run.event("log", text="Trained by TRL.")
        return trl_trainer(run, config, start, rows, events)
    objective = Dpo(config.loss, config.beta, config.sft_weight, config.label_smoothing)
    train, held_out = (items(part, start.tokenizer, start.limit) for part in rows)
    plan = Plan(objective, train, held_out)
    return studio_trainer(run, config, start, rows, plan, layout, events, say)


def trl_trainer(run: RunDir, config: DpoConfig, start: Trainable, rows: Rows, events: RunEvents) -> Any:
    """TRL's DPOTrainer."""
    from trl import DPOConfig, DPOTrainer

    from training.adapters import as_dataset, common_args, hold_in_float32

    with_sft = config.sft_weight > 0
    args = DPOConfig(
        **common_args(run, config, rows, start.limit),
        beta=config.beta,
        loss_type=[config.loss, "sft"] if with_sft else [config.loss],
        loss_weights=[1.0, config.sft_weight] if with_sft else None,
        label_smoothing=config.label_smoothing,
    )
    trainer = DPOTrainer(
        model=start.model,
        args=args,
        train_dataset=as_dataset(rows.train),
        eval_dataset=as_dataset(rows.held_out),
        processing_class=start.tokenizer,
        peft_config=start.lora,
        callbacks=[events],
    )
    hold_in_float32(trainer.model, start.parent)
    return trainer


def checked_first_loss(trainer: Any) -> float:
    """The first preference loss; RunError unless it is ln 2."""
    loss = first_preference_loss(trainer)
    if abs(loss - math.log(2)) > _TOLERANCE:
        raise RunError(
            f"The first preference loss is {loss:.3f} instead of ln 2 = 0.693, so the reference is not the model "
            "before the run; check that the parent adapter belongs to this base."
        )
    return loss


def first_preference_loss(trainer: Any) -> float:
    """The preference loss of the first rows before any step, without the SFT part that may stand beside it."""
    import torch

    from training.preference_objectives import Dpo
    from training.preference_trainer import PreferenceTrainer

    if isinstance(trainer, PreferenceTrainer):
        assert isinstance(trainer.objective, Dpo)
        first = trainer.rows[: trainer.args.per_device_train_batch_size]
        return trainer.batch_loss(first, Dpo("sigmoid", trainer.objective.beta))
    count = min(len(trainer.train_dataset), trainer.args.per_device_train_batch_size)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(count)])
    kinds, weights = trainer.loss_types, trainer.loss_weights
    trainer.loss_types, trainer.loss_weights = ["sigmoid"], [1.0]
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)))
    trainer.loss_types, trainer.loss_weights = kinds, weights
    trainer._metrics["train"].clear()  # it was no step of the training
    trainer._metrics["eval"].clear()
    trainer._total_train_tokens = 0
    return loss


if __name__ == "__main__":
    run_child(main)
