"""Measure the demo model on held-out prompts and write the figures beside its weights.

    python -m training.demo_report [--model data/demo/model] [--prompts 900] [--samples 2]

Prints one table, and with --write stores metrics.json and the model card's table. What is measured: the share of
answers the world's rules call good (greedy and at temperature 0.8), and how often the model as a judge prefers the
answer the rules prefer, on the world's pairs and on pairs of its own samples, its verdict being the mean over both
orders. Intervals are 95 % bootstrap intervals over prompts.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from data.checkers.demo_world import grade, prefer
from data.demo.tasks import FAMILIES
from data.demo.world import DemoPrompt, answer_pair, prompts, sample_prompts
from data.splits import split_of
from training.demo_sampling import Question, probability_of_a, sample_answers
from training.pretrain_demo import MODEL_DIR

TABLE_START: Final = "<!-- figures: written by python -m training.demo_report --write -->"
TABLE_END: Final = "<!-- end of figures -->"


@dataclass(frozen=True)
class Share:
    """A share of `n` cases with its 95 % interval, bootstrapped over prompts; all between 0 and 1."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Judging:
    """How a judge does on pairs: right averaged over both orders, and how often the order alone turned the verdict."""

    right: Share
    flips: Share
    said_a: Share


@dataclass(frozen=True)
class Figures:
    """All that the model card states; `families` is the greedy and the sampled share of each family."""

    greedy: Share
    sampled: Share
    temperature: float
    world_pairs: Judging
    own_samples: Judging
    families: dict[str, dict[str, float]]
    seconds: float


def load(folder: Path = MODEL_DIR) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model in float32 and its tokenizer, from a folder; nothing is fetched."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def share(values: Sequence[Sequence[float]], seed: int = 0, rounds: int = 1_000) -> Share:
    """The mean of all values with an interval that resamples the outer groups (prompts), not the single answers."""
    totals, counts = [sum(group) for group in values], [len(group) for group in values]
    rng = random.Random(seed)
    draws = []
    for _ in range(rounds):
        picked = rng.choices(range(len(values)), k=len(values))
        draws.append(sum(totals[i] for i in picked) / sum(counts[i] for i in picked))
    draws.sort()
    return Share(sum(totals) / sum(counts), draws[int(0.025 * rounds)], draws[int(0.975 * rounds)], sum(counts))


def held_out_prompts(count: int, seed: int = 0) -> list[DemoPrompt]:
    """Held-out prompts, equally many of each family; raises AssertionError if one was on the training side."""
    chosen = sample_prompts(count, "held_out", random.Random(f"report:{seed}"))
    trained_on = {prompt for family in FAMILIES for prompt in prompts(family, "train")}
    assert not trained_on & {row.prompt for row in chosen}
    assert all(split_of(row.prompt) == "held_out" for row in chosen)
    return chosen


def goodness(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[str], temperature: float, samples: int = 1
) -> tuple[list[list[float]], list[list[str]]]:
    """(1.0 or 0.0 for each answer, the answers), both of shape (prompts, samples)."""
    drawn = [sample_answers(model, tokenizer, rows, temperature, seed) for seed in range(samples)]
    answers = [list(group) for group in zip(*drawn, strict=True)]
    return [[float(grade(row, answer).good) for answer in group] for row, group in zip(rows, answers, strict=True)], answers


def judging(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]) -> Judging:
    """How the model judges pairs of which exactly one answer is good: p is the mean over both orders, right above half."""
    forward = probability_of_a(model, tokenizer, questions)
    backward = probability_of_a(model, tokenizer, [Question(q.prompt, q.b, q.a) for q in questions])
    right, flips, said_a = [], [], []
    for question, p_first, p_second in zip(questions, forward, backward, strict=True):
        mean = (p_first + 1 - p_second) / 2
        right.append([float((mean > 0.5) == (prefer(*question) == "a"))])
        flips.append([float((p_first > 0.5) == (p_second > 0.5))])
        said_a.append([float(p_first > 0.5), float(p_second > 0.5)])
    return Judging(share(right), share(flips), share(said_a))


def own_questions(rows: Sequence[str], answers: Sequence[Sequence[str]]) -> list[Question]:
    """One question a prompt: its first two samples of which the rules call exactly one good."""
    questions = []
    for row, group in zip(rows, answers, strict=True):
        pairs = ((a, b) for index, a in enumerate(group) for b in group[index + 1 :])
        pair = next(((a, b) for a, b in pairs if prefer(row, a, b) in ("a", "b")), None)
        if pair:
            questions.append(Question(row, *pair))
    return questions


def measure(folder: Path = MODEL_DIR, count: int = 900, samples: int = 2, temperature: float = 0.8) -> Figures:
    """All figures of the model in a folder, on `count` held-out prompts."""
    started = time.monotonic()
    model, tokenizer = load(folder)
    chosen = held_out_prompts(count)
    rows = [row.prompt for row in chosen]
    greedy, _ = goodness(model, tokenizer, rows, 0.0)
    sampled, answers = goodness(model, tokenizer, rows, temperature, samples)
    rng = random.Random("report-pairs")
    world = [Question(pair.prompt, pair.a, pair.b) for pair in (answer_pair(row, rng) for row in rows)]
    families: dict[str, dict[str, float]] = {
        family: {
            "greedy": share([good for row, good in zip(chosen, greedy, strict=True) if row.family == family]).value,
            "sampled": share([good for row, good in zip(chosen, sampled, strict=True) if row.family == family]).value,
        }
        for family in FAMILIES
    }
    return Figures(
        share(greedy), share(sampled), temperature,
        judging(model, tokenizer, world), judging(model, tokenizer, own_questions(rows, answers)),
        families, round(time.monotonic() - started, 1),
    )  # fmt: skip


def table(figures: Figures) -> str:
    """The figures as the Markdown tables of the model card."""

    def cell(what: Share) -> str:
        return f"{what.value:.1%} ({what.low:.1%} to {what.high:.1%}) | {what.n}"

    rows = [
        ("Answered well, greedy", figures.greedy),
        (f"Answered well, temperature {figures.temperature}", figures.sampled),
        ("As a judge right on the world's pairs", figures.world_pairs.right),
        ("… verdict turned by the order", figures.world_pairs.flips),
        ("As a judge right on its own samples", figures.own_samples.right),
        ("… verdict turned by the order", figures.own_samples.flips),
    ]
    lines = ["| On held-out prompts | Share (95 % interval) | n |", "|---|---|---|"]
    lines += [f"| {what} | {cell(value)} |" for what, value in rows]
    lines += ["", "| Family | Greedy | Sampled |", "|---|---|---|"]
    lines += [f"| {family} | {one['greedy']:.0%} | {one['sampled']:.0%} |" for family, one in figures.families.items()]
    return "\n".join(lines)


def write(figures: Figures, folder: Path) -> None:
    """Store metrics.json and put the table between the markers of the folder's README.md."""
    (folder / "metrics.json").write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    card = folder / "README.md"
    if card.exists():
        text = card.read_text(encoding="utf-8")
        head, _, rest = text.partition(TABLE_START)
        _, _, tail = rest.partition(TABLE_END)
        card.write_text(f"{head}{TABLE_START}\n{table(figures)}\n{TABLE_END}{tail}", encoding="utf-8")


def main() -> None:
    """Parse the flags, measure, print, and store when asked."""
    parser = argparse.ArgumentParser(description="Measure the demo model on held-out prompts.")
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--prompts", type=int, default=900, help="held-out prompts, spread evenly over the families")
    parser.add_argument("--samples", type=int, default=2, help="samples a prompt at temperature 0.8")
    parser.add_argument("--write", action="store_true", help="store metrics.json and the model card's table")
    flags = parser.parse_args()
    figures = measure(flags.model, flags.prompts, flags.samples)
    print(table(figures))
    print(f"\nsaid A: {figures.world_pairs.said_a.value:.1%} of world pairs; measured in {figures.seconds} s")
    if flags.write:
        write(figures, flags.model)


if __name__ == "__main__":
    main()
