"""What a sampled answer is worth, for the methods that learn from their own answers (RLOO, GRPO).

    grade = grader(run, reward, rows)     # a function as TRL calls it: prompts, completions and the rows' columns -> rewards
    sampling_trainer(RLOOTrainer, job, RLOOConfig(**sampling_args(job), ...), grade)

The reward is the setting `reward`: a checker's name (`data/checkers`), which grades by rule, or a reward model's id, whose
ModelSpec stands in config.json beside the base's (args.reward_model). Prompts that a checker cannot grade are left out: a reward
of zero would teach the model something.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import StoppingCriteria, StoppingCriteriaList

from data.checkers import CHECKERS, Checker, checker
from data.engine import ModelSpec
from data.errors import RunError
from data.rundir import RunDir, Stopped
from data.words import count
from training.adapters import common_args, trl_trainer
from training.callbacks import StoppedEvaluating
from training.chat import TEMPLATE_KWARGS
from training.config import MOST_HELD_OUT, SamplingConfig
from training.loop import Job
from training.ranks import sharding
from training.reward_model import RewardModel
from training.rows import NO_ADAPTER, Row, Rows, excerpt

Grader = Callable[..., list[float]]


def grader(run: RunDir, reward: str, rows: Rows) -> Grader:
    """TRL's reward function; RunError when the reward model is missing. Rows that cannot be graded are taken out of `rows`."""
    rules = rules_of(reward)
    if rules is None:
        raw = run.config()["args"].get("reward_model")
        if not raw:
            raise RunError("The run names no reward model; train one first, or choose rules that grade the answers.")
        return _by_model(RewardModel.load(ModelSpec.from_json(dict(raw))))
    foreign = [*_take_out(rules, rows.train), *_take_out(rules, rows.held_out)]
    if foreign:
        such = f"{count(len(foreign), 'prompt')} left out (such as “{excerpt(foreign[0])}”)"
        if not rows.train:
            raise RunError(f"{rules.title}: no prompt can be graded by it, {such}; choose another reward.")
        run.event("log", text=f"{such}: “{rules.title}” cannot grade answers to them.")
    return _by_rule(rules)


def _take_out(rules: Checker, rows: list[Row]) -> list[Row]:
    """The rows that the rules do not cover, taken out of the list."""
    foreign = [row for row in rows if not gradable(rules, row)]
    rows[:] = [row for row in rows if gradable(rules, row)]
    return foreign


def rules_of(reward: str) -> Checker | None:
    """The rules that grade; None where a reward model does."""
    return checker(reward) if reward in CHECKERS else None


def gradable(rules: Checker | None, row: Row) -> bool:
    """Whether an answer to the row's prompt can be graded: by rules those they cover, by a reward model all."""
    return rules is None or rules.covers(row["prompt"][-1]["content"], row["reference"] or "")


def _by_rule(rules: Checker) -> Grader:
    def grade(prompts: Any, completions: Any, reference: Sequence[str | None], **more: Any) -> list[float]:
        asked = zip(prompts, reference, completions, strict=True)
        return [rules.score(prompt[-1]["content"], right or "", answer[-1]["content"]) for prompt, right, answer in asked]

    grade.__name__ = rules.name
    return grade


def _by_model(model: RewardModel) -> Grader:
    def grade(prompts: Any, completions: Any, **more: Any) -> list[float]:
        return model.score(prompts, completions)

    grade.__name__ = "model"
    return grade


class _Stop(StoppingCriteria):
    """Ends the run, not only the answers: a batch of cut answers is nothing to learn from."""

    def __init__(self, run: RunDir, trainer: Any) -> None:
        self._run, self._trainer = run, trainer

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> Any:
        if self._run.stop_requested:
            raise StoppedEvaluating if self._trainer.state.global_step else Stopped(f"Stopped before the first step; {NO_ADAPTER}.")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def sampling_args(job: Job) -> dict[str, Any]:
    """Arguments that mean the same to RLOO and GRPO. A held-out prompt gets one answer, before the first step and each round."""
    config = job.config
    assert isinstance(config, SamplingConfig)
    common = common_args(job.run, config, job.rows, job.start.limit)
    del common["max_length"]  # an answer has a limit of its own
    return common | {
        "num_generations": config.num_generations,
        "num_generations_eval": 1,
        "eval_on_start": bool(job.rows.held_out),
        "max_completion_length": config.max_completion_length,
        "temperature": config.temperature,
        "num_iterations": config.num_iterations,
        "chat_template_kwargs": TEMPLATE_KWARGS,
        "use_vllm": False,
    }


def whole_batches(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """The rows and, to fill the last batch, some of them again: TRL drops what fills none, which of few prompts may be all."""
    more = -len(rows) % size
    return [*rows, *random.Random(seed).choices(rows, k=more)]


def sampling_trainer(kind: Any, job: Job, args: Any, grade: Grader) -> Any:
    """TRL's trainer, ready to train, sampling as the studio does: answers end where it ends them, and a stop is heard between
    two tokens."""
    del job.rows.held_out[MOST_HELD_OUT:]  # so many tell how it goes, and each costs an answer every round
    rows = Rows(whole_batches(job.rows.train, args.generation_batch_size // args.num_generations, args.seed), job.rows.held_out)
    trainer = trl_trainer(kind, job, args, rows, reward_funcs=grade)
    trainer.generation_config.eos_token_id = trainer.eos_token_ids = sorted(job.start.ends)
    _refer_to_start(trainer, job)
    if trainer.accelerator.num_processes > 1:  # one that stopped by itself would leave the others waiting: they stop between steps
        return trainer
    base = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
    sample, stop = base.generate, StoppingCriteriaList([_Stop(job.run, trainer)])
    base.generate = lambda *given, **named: sample(*given, stopping_criteria=stop, **named)
    return trainer


def _refer_to_start(trainer: Any, job: Job) -> None:
    """Where all weights are trained, TRL reads its reference from the base's folder: it gets the weights that training begins with,
    a parent adapter that was merged into them among them."""
    if trainer.ref_model is None:  # an adapter is switched off instead, and without beta nothing is compared
        return
    if not sharding():
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(job.start.model.state_dict())
    elif job.run.config()["args"]["model"].get("adapter"):
        raise RunError("Begun from an adapter, this method trains all weights in whole copies (DDP) only; merge the adapter first.")
    trainer.ref_model.requires_grad_(False)
