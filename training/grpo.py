"""GRPO as a run: `python -m training.grpo RUN_DIR`; learn from verifiable rewards on the model's own answers.

config.json: args = `training.config.run_args(model, GrpoConfig)` and, where a reward model grades, `reward_model` (a ModelSpec);
data = frozen prompts in Parquet, with the reference that a checker may need. Each prompt gets several answers; an answer's
advantage is its reward less their mean, in units of their spread (Shao et al., arXiv 2402.03300), so prompts whose answers are all
right or all wrong teach nothing. `rloo.py` and `grpo.py` are parallel on purpose. The reference, where beta asks for one, is the
model before the run.
"""

from __future__ import annotations

from typing import Any

from data.rundir import RunDir, run_child
from training.config import GrpoConfig
from training.loop import Job, train_run


def main(run: RunDir) -> dict[str, Any]:
    return train_run(run, "grpo", make_trainer)


def make_trainer(job: Job) -> Any:
    """TRL's GRPOTrainer, ready to train."""
    from trl import GRPOConfig, GRPOTrainer

    from training.grading import grader, sampling_args, sampling_trainer

    config = job.config
    assert isinstance(config, GrpoConfig)
    grade = grader(job.run, config.reward, job.rows)  # first, as in `rloo.py`
    args = GRPOConfig(**sampling_args(job), beta=config.beta, loss_type=config.loss)
    return sampling_trainer(GRPOTrainer, job, args, grade)


if __name__ == "__main__":
    run_child(main)
