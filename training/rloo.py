"""RLOO as a run: `python -m training.rloo RUN_DIR`; learn from a reward on the model's own answers.

config.json: args = `training.config.run_args(model, RlooConfig)` and, where a reward model grades, `reward_model` (a ModelSpec);
data = frozen prompts in Parquet. RLHF is this method over a reward model: SFT -> reward model (`reward.py`) -> RLOO. Each prompt
gets several answers; an answer's advantage is its reward less the others' mean, less beta times its distance from the start
(Ahmadian et al., arXiv 2402.14740). The reference is the model before the run, as in `dpo.py`. TRL's trainer samples with the very
template and end tokens that the studio samples with.
"""

from __future__ import annotations

from typing import Any

from data.rundir import RunDir, run_child
from training.config import RlooConfig
from training.loop import Job, train_run


def main(run: RunDir) -> dict[str, Any]:
    return train_run(run, "rloo", make_trainer)


def make_trainer(job: Job) -> Any:
    """TRL's RLOOTrainer, ready to train."""
    from trl import RLOOConfig, RLOOTrainer

    from training.grading import grader, sampling_args, sampling_trainer

    config = job.config
    assert isinstance(config, RlooConfig)
    grade = grader(job.run, config.reward, job.rows)  # first: it takes out rows, and the arguments say whether any are held out
    args = RLOOConfig(**sampling_args(job), beta=config.beta, normalize_advantages=config.normalize_advantages)
    return sampling_trainer(RLOOTrainer, job, args, grade)


if __name__ == "__main__":
    run_child(main)
