"""Supervised fine-tuning as a run: `python -m training.sft RUN_DIR`.

config.json: args = `training.config.run_args(model, SftConfig)`, data = frozen answers in Parquet. Leaves `adapter/`
and a result event {adapter, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}. `sft.py`, `dpo.py`
and `kto.py` are parallel on purpose: the same functions in the same order, each readable alone. The loss is on the
completion's tokens only, its end token included.
"""

from __future__ import annotations

from typing import Any

from data.rundir import RunDir, run_child
from training.loop import Job, train_run


def main(run: RunDir) -> dict[str, Any]:
    """One run, from its config.json to its adapter."""
    return train_run(run, "sft", make_trainer)


def make_trainer(job: Job) -> Any:
    """TRL's SFTTrainer, ready to train."""
    from trl import SFTConfig, SFTTrainer

    from training.adapters import common_args, trl_trainer

    args = SFTConfig(**common_args(job.run, job.config, job.rows, job.start.limit), completion_only_loss=True)
    return trl_trainer(SFTTrainer, job, args, job.rows)


if __name__ == "__main__":
    run_child(main)
