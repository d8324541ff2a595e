"""Kahneman-Tversky optimisation as a run: `python -m training.kto RUN_DIR`.

config.json: args = `training.config.run_args(model, KtoConfig)`, data = frozen answers labelled good or bad in
Parquet (pairs are taken apart). Leaves `adapter/` and a result event {adapter, steps, seconds, first_loss, metrics,
rows, held_out_rows, dropped}. `sft.py`, `dpo.py` and `kto.py` are parallel on purpose: the same functions in the same
order, each readable alone. TRL goes through KTO's rows in their order, so they are dealt here into batches that hold
good and bad ones; taken in order of labelling, or as a pair data set comes apart, a batch would hold one kind only
and the loss would be of another method. Our own step keeps to these batches; TRL trains where `dpo.py` leaves it to TRL too.
"""

from __future__ import annotations

from typing import Any

from data.rundir import RunDir, run_child
from training.config import KtoConfig
from training.loop import Job, train_run
from training.rows import Balance, Rows, in_turn, kto_balance, kto_order


def main(run: RunDir) -> dict[str, Any]:
    """One run, from its config.json to its adapter."""
    return train_run(run, "kto", make_trainer)


def make_trainer(job: Job) -> Any:
    """Our trainer or TRL's, ready to train; the rows stay in the batches they are dealt into here."""
    config = job.config
    assert isinstance(config, KtoConfig)
    from training.preference_objectives import Kto
    from training.preference_rows import items, with_others
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    dealt = Rows(*(kto_order(part, config.batch_size, config.seed) for part in job.rows))
    weights = kto_balance(job.rows.train, config.desirable_weight, config.undesirable_weight)
    layout = studio_layout(job)
    if layout is None:
        return by_trl(job, dealt, weights)
    train, held_out = (with_others(items(part, job.start.tokenizer, None), config.batch_size, job.start.limit) for part in dealt)
    plan = Plan(Kto(config.beta, (weights.desirable, weights.undesirable)), train, held_out, dealt=True)
    return studio_trainer(job, plan, layout)


def by_trl(job: Job, dealt: Rows, weights: Balance) -> Any:
    """TRL's KTOTrainer; it takes the rows in the order given."""
    config = job.config
    assert isinstance(config, KtoConfig)
    from trl import KTOConfig, KTOTrainer

    from training.adapters import common_args, reference_model, trl_trainer

    if job.split > 1:
        dealt = Rows(*(in_turn(part, config.batch_size) for part in dealt))
    args = KTOConfig(
        **common_args(job.run, config, dealt, job.start.limit),
        beta=config.beta,
        desirable_weight=weights.desirable,
        undesirable_weight=weights.undesirable,
    )
    return trl_trainer(KTOTrainer, job, args, dealt, ref_model=reference_model(job.start))


if __name__ == "__main__":
    run_child(main)
