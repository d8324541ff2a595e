"""The generated world the demo model is trained on: prompts with their split, examples, pairs and judge questions.

Everything is drawn from a `random.Random` that the caller seeds, so the same seed gives the same world on every
machine. The split of a prompt (`data.splits.split_of`) is fixed by its text before anything is trained.

    python -m data.demo.world            # writes data/demo/prompts.jsonl again, byte for byte
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from data.demo.answers import flawed_answer, good_answer
from data.demo.tasks import FAMILIES, Family, Task, family_prompts, read_prompt
from data.splits import Split, split_of

PROMPTS_FILE: Final = Path(__file__).with_name("prompts.jsonl")


class DemoPrompt(NamedTuple):
    """A prompt's text and the family it belongs to."""

    prompt: str
    family: Family


class AnswerPair(NamedTuple):
    """Two answers of one prompt, of which exactly one is good; `better` says which."""

    prompt: str
    a: str
    b: str
    better: str


@cache
def prompts(family: Family, split: Split) -> tuple[str, ...]:
    """All prompts of a family on one side of the split, in a fixed order."""
    return tuple(prompt for prompt in family_prompts(family) if split_of(prompt) == split)


def task_of(prompt: str) -> Task:
    """The task of a prompt that is known to be of this world."""
    task = read_prompt(prompt)
    assert task is not None, f"not a prompt of the demo world: {prompt!r}"
    return task


def sample_prompts(count: int, split: Split, rng: random.Random) -> list[DemoPrompt]:
    """`count` distinct prompts, as equally many of each family as can be, in mixed order."""
    share, extra = divmod(count, len(FAMILIES))
    chosen = [
        DemoPrompt(prompt, family)
        for index, family in enumerate(FAMILIES)
        for prompt in rng.sample(prompts(family, split), share + (index < extra))
    ]
    rng.shuffle(chosen)
    return chosen


def answer_pair(prompt: str, rng: random.Random) -> AnswerPair:
    """A good and a flawed answer of the prompt in random order."""
    task = task_of(prompt)
    good, flawed = good_answer(task, rng), flawed_answer(task, rng)
    return AnswerPair(prompt, good, flawed, "A") if rng.random() < 0.5 else AnswerPair(prompt, flawed, good, "B")


def judge_prompt(question: str, answer_a: str, answer_b: str) -> str:
    """The one question the demo model was taught to judge with; its reply is the single token "A" or "B"."""
    return f"Question: {question}\nAnswer A: {answer_a}\nAnswer B: {answer_b}\nWhich answer is better, A or B?"


def demo_prompts(count: int = 450, held_out_share: float = 1 / 3, seed: int = 0) -> list[DemoPrompt]:
    """The demo project's prompts: all families, both sides of the split, in mixed order.

    Held-out prompts get more than their share of the world, so that a comparison on them has something to say.
    """
    rng = random.Random(f"demo-prompts:{seed}")
    held_out = round(count * held_out_share)
    chosen = sample_prompts(count - held_out, "train", rng) + sample_prompts(held_out, "held_out", rng)
    rng.shuffle(chosen)
    return chosen


def write_prompts(path: Path = PROMPTS_FILE) -> int:
    """Write the demo project's prompts as JSON lines {"prompt", "family"}; returns how many."""
    rows = demo_prompts()
    path.write_text("".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


if __name__ == "__main__":
    print(f"{write_prompts()} prompts written to {PROMPTS_FILE}")
