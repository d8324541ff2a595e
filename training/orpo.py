"""ORPO as a run: `python -m training.orpo RUN_DIR`; imitation of the chosen answers and preference in one, without a reference.

config.json: args = `training.config.run_args(model, OrpoConfig)`, data = frozen pairs in Parquet. Leaves `adapter/`
and a result event {adapter, steps, seconds, first_loss, metrics, rows, held_out_rows, dropped}. `sft.py`, `dpo.py`,
`kto.py`, `orpo.py` and `simpo.py` are parallel on purpose: the same functions in the same order, each readable alone. The
loss is our own (`preference_losses`): TRL's is experimental and may vanish with any release. Nothing holds the model near its
start, so the learning rate alone decides how far it moves.
"""

from __future__ import annotations

from typing import Any

from data.errors import RunError
from data.rundir import RunDir, run_child
from training.config import OrpoConfig
from training.loop import Job, train_run


def main(run: RunDir) -> dict[str, Any]:
    """One run, from its config.json to its adapter."""
    return train_run(run, "orpo", make_trainer)


def make_trainer(job: Job) -> Any:
    """Our trainer, ready to train; RunError where only TRL could train this model."""
    config = job.config
    assert isinstance(config, OrpoConfig)
    from training.preference_objectives import Orpo
    from training.preference_rows import items
    from training.preference_trainer import Plan, studio_layout, studio_trainer

    layout = studio_layout(job, several=True)
    if layout is None:
        raise RunError("ORPO trains in whole copies, one process a device, and not on this kind of model; choose DPO instead.")
    train, held_out = (items(part, job.start.tokenizer, job.start.limit) for part in job.rows)
    return studio_trainer(job, Plan(Orpo(config.beta), train, held_out), layout)


if __name__ == "__main__":
    run_child(main)
