"""Supervised fine-tuning as a run: `python -m training.sft RUN_DIR`.

config.json: args = `training.config.run_args(model, SftConfig)`, data = frozen answers in Parquet. Leaves `adapter/`
and a result event {adapter, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}. `sft.py`, `dpo.py`
and `kto.py` are parallel on purpose: the same functions in the same order, each readable alone. The loss is on the
completion's tokens only, its end token included. Our own step takes rows of like length together and lets the head see
completion tokens only; TRL trains where `dpo.py` leaves it to TRL too, and where rows are to be packed.
"""

from __future__ import annotations

from typing import Any

from data.rundir import RunDir, run_child
from training.config import SftConfig
from training.loop import Job, train_run


def main(run: RunDir) -> dict[str, Any]:
    """One run, from its config.json to its adapter."""
    return train_run(run, "sft", make_trainer)


def make_trainer(job: Job) -> Any:
    """Our trainer or TRL's, ready to train."""
    config = job.config
    assert isinstance(config, SftConfig)
    from training.preference_objectives import Sft
    from training.preference_rows import items
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    layout = None if config.packing else studio_layout(job)
    if layout is None:
        return by_trl(job)
    train, held_out = (items(part, job.start.tokenizer, job.start.limit) for part in job.rows)
    return studio_trainer(job, Plan(Sft(), train, held_out), layout)


def by_trl(job: Job) -> Any:
    """TRL's SFTTrainer."""
    config = job.config
    assert isinstance(config, SftConfig)
    from trl import SFTConfig, SFTTrainer

    from training.adapters import common_args, trl_trainer

    args = SFTConfig(
        **common_args(job.run, config, job.rows, job.start.limit),
        completion_only_loss=True,
        packing=config.packing,
        eval_packing=False,
    )
    return trl_trainer(SFTTrainer, job, args, job.rows)


if __name__ == "__main__":
    run_child(main)
