"""A reward model as a run: `python -m training.reward RUN_DIR`; learn from pairs to score answers.

config.json: args = `training.config.run_args(model, RewardConfig)`, data = frozen pairs in Parquet. Leaves `adapter/`, LoRA for
sequence classification with its score head, which plain peft loads (or, where all weights are trained, `model/`, which plain
transformers loads), and a result event of every method with `right` beside it: on how many held-out pairs the chosen answer scores
higher. The loss is -log sigmoid of the difference (Bradley and Terry; Ouyang et al., arXiv 2203.02155), so a head of zeros begins
at ln 2; anything else means a head that was not made for this run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from data.engine import ModelSpec
from data.errors import RunError
from data.rundir import RunDir, run_child
from training.config import RewardConfig, TrainConfig
from training.loop import Job, train_run
from training.rows import Rows

if TYPE_CHECKING:
    from training.adapters import Trainable

_TOLERANCE = 1e-2


def main(run: RunDir) -> dict[str, Any]:
    return train_run(run, "reward", make_trainer, checked_first_loss, load=load, also=held_out_right)


def load(spec: ModelSpec, config: TrainConfig, rows: Rows) -> Trainable:
    """The base with a score head instead of its language head."""
    from training.reward_model import load_scoring

    return load_scoring(spec, config)


def make_trainer(job: Job) -> Any:
    """TRL's RewardTrainer, ready to train."""
    from trl import RewardConfig as Arguments
    from trl import RewardTrainer

    from training.adapters import common_args, trl_trainer

    config = job.config
    assert isinstance(config, RewardConfig)
    args = Arguments(**common_args(job.run, config, job.rows, job.start.limit), center_rewards_coefficient=config.center or None)
    return trl_trainer(RewardTrainer, job, args, job.rows)


def checked_first_loss(trainer: Any) -> float:
    """The first rows' loss before any step; RunError unless it is ln 2."""
    import torch

    count = min(len(trainer.train_dataset), trainer.args.per_device_train_batch_size)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(count)])
    with torch.no_grad(), trainer.accelerator.autocast():
        loss = float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)))
    trainer._metrics["train"].clear()  # it was no step of the training
    trainer._metrics["eval"].clear()
    trainer._total_train_tokens = 0
    if abs(loss - math.log(2)) > _TOLERANCE:
        raise RunError(f"The first loss is {loss:.3f} instead of ln 2 = 0.693, so the score head is not new; start the run again.")
    return loss


def held_out_right(trainer: Any) -> dict[str, Any]:
    """On how many held-out pairs the chosen answer scores higher than the rejected one; a tie is not right."""
    from training.reward_model import RewardModel

    pairs = trainer.eval_dataset
    if pairs is None:
        return {}
    model = RewardModel(trainer.model, trainer.processing_class)
    chosen, rejected = model.score_ids(pairs["chosen_ids"]), model.score_ids(pairs["rejected_ids"])
    return {"right": sum(good > bad for good, bad in zip(chosen, rejected, strict=True))}


if __name__ == "__main__":
    run_child(main)
