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
from typing import Any

from data.errors import RunError
from data.rundir import RunDir, run_child
from training.config import DpoConfig
from training.loop import Job, train_run

_TOLERANCE = 1e-2


def main(run: RunDir) -> dict[str, Any]:
    """One run, from its config.json to its adapter."""
    return train_run(run, "dpo", make_trainer, checked_first_loss)


def make_trainer(job: Job) -> Any:
    """Our trainer or TRL's, ready to train."""
    config = job.config
    assert isinstance(config, DpoConfig)
    from training.preference_objectives import Dpo
    from training.preference_rows import items
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    layout = studio_layout(job)
    if layout is None:
        return by_trl(job)
    objective = Dpo(config.loss, config.beta, config.sft_weight, config.label_smoothing)
    train, held_out = (items(part, job.start.tokenizer, job.start.limit) for part in job.rows)
    plan = Plan(objective, train, held_out)
    return studio_trainer(job, plan, layout)


def by_trl(job: Job) -> Any:
    """TRL's DPOTrainer."""
    config = job.config
    assert isinstance(config, DpoConfig)
    from trl import DPOConfig, DPOTrainer

    from training.adapters import common_args, reference_model, trl_trainer

    with_sft = config.sft_weight > 0
    args = DPOConfig(
        **common_args(job.run, config, job.rows, job.start.limit),
        beta=config.beta,
        loss_type=[config.loss, "sft"] if with_sft else [config.loss],
        loss_weights=[1.0, config.sft_weight] if with_sft else None,
        label_smoothing=config.label_smoothing,
    )
    return trl_trainer(DPOTrainer, job, args, job.rows, ref_model=reference_model(job.start))


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
    from training.ranks import not_yet_cut_up

    if isinstance(trainer, PreferenceTrainer):
        assert isinstance(trainer.objective, Dpo)
        first = trainer.rows[: trainer.args.per_device_train_batch_size]
        return trainer.batch_loss(first, Dpo("sigmoid", trainer.objective.beta))
    count = min(len(trainer.train_dataset), trainer.args.per_device_train_batch_size)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(count)])
    kinds, weights = trainer.loss_types, trainer.loss_weights
    trainer.loss_types, trainer.loss_weights = ["sigmoid"], [1.0]
    # Computed as a step is, and as TRL's copy of the model always is.
    with torch.no_grad(), trainer.accelerator.autocast(), not_yet_cut_up(trainer.model):
        loss = float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)))
    trainer.loss_types, trainer.loss_weights = kinds, weights
    trainer._metrics["train"].clear()  # it was no step of the training
    trainer._metrics["eval"].clear()
    trainer._total_train_tokens = 0
    return loss


if __name__ == "__main__":
    run_child(main)
