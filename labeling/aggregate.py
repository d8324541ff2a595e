"""From votes to training rows: pure functions, so that every rule can be tested by hand and every drop is counted.

Votes of several annotators on one pair (or completion) become one outcome by majority; a split vote decides nothing. Pairwise
outcomes give preferences directly. They also say something about single completions (the chosen one is good, the rejected one
bad, of "both bad" both are), and good and bad completions of one prompt make preferences in turn, so either kind of labelling
serves every layout.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from data.majority import Item, Outcome, Vote, agreement_by_completion, decide, good_or_bad
from data.votes import Rules

Reason = Literal[
    "skip", "tie", "both_bad", "split_vote", "conflict", "same_text", "empty_text", "one_sided", "bad", "contradiction", "repeat"
]
REASONS: dict[Reason, tuple[str, str]] = {  # of one, of several
    "skip": ("label that was skipped", "labels that were skipped"),
    "tie": ("pair called a tie", "pairs called a tie"),
    "both_bad": ("pair of which both were bad", "pairs of which both were bad"),
    "split_vote": (
        "item on which the annotators disagree without a majority",
        "items on which the annotators disagree without a majority",
    ),
    "conflict": ("answer that won as often as it lost", "answers that won as often as they lost"),
    "same_text": ("pair whose two answers are the same text", "pairs whose two answers are the same text"),
    "empty_text": ("row with an empty answer", "rows with an empty answer"),
    "one_sided": (
        "answer to a prompt that has only good or only bad ones",
        "answers to prompts that have only good or only bad ones",
    ),
    "bad": ("bad answer, which is nothing to imitate", "bad answers, which are nothing to imitate"),
    "contradiction": ("row against which another says the opposite", "rows of which others say the opposite"),
    "repeat": ("row that repeats another", "rows that repeat another"),
}


class PairRow(NamedTuple):
    prompt_id: str
    chosen: str
    rejected: str
    weight: float = 1.0


class SingleRow(NamedTuple):
    prompt_id: str
    completion: str
    good: bool
    weight: float = 1.0


@dataclass
class Tally:
    """What the votes come to: every item's outcome, each row's own items where every vote makes one, the prompt of every
    completion, and what fell out."""

    items: tuple[Item, ...]
    prompts: dict[str, str]
    each: tuple[Item, ...] = ()
    rules: Rules = field(default_factory=Rules)
    dropped: Counter[Reason] = field(default_factory=Counter)

    @property
    def votes_an_item(self) -> Counter[int]:
        return Counter(item.votes for item in self.items)

    def drop(self, reason: Reason, rows: int) -> None:
        if rows:
            self.dropped[reason] += rows


def tally(votes: Iterable[Vote], known: Mapping[tuple[str, str], Outcome] = {}, rules: Rules = Rules()) -> Tally:
    """Outcome of every item (`data/majority.py` has the rule), by majority unless it is known."""
    every = list(votes)
    items, skips = decide(every, known)
    each = decide(every, known, every=True).items if rules.aggregation == "every" else items
    result = Tally(items, {completion_id: item.prompt_id for item in items for completion_id in item.ids}, each, rules)
    result.drop("skip", skips)
    if rules.aggregation != "every":
        result.drop("split_vote", sum(item.outcome == "split_vote" for item in items))
    return result


def preference_rows(result: Tally, texts: Mapping[str, str], rng: random.Random) -> list[PairRow]:
    """Decided pairs (each once, or once a vote), then pairs of a good and a bad completion of one prompt, each once."""
    rows: list[PairRow] = []
    spoken = {item.ids for item in result.items if item.second and item.outcome != "split_vote"}
    for item in result.each:
        if item.outcome == "tie" or item.outcome == "both_bad":
            result.drop(item.outcome, 1)
        elif item.chosen_rejected:
            rows.append(PairRow(item.prompt_id, *item.chosen_rejected, _weight(result, item)))
    derived = {}
    for row in _from_singles(result, rng):
        ids = tuple(sorted((row.chosen, row.rejected)))
        if ids not in spoken:  # what was said of the pair itself counts more
            derived[ids] = row
    return [row for row in (*rows, *derived.values()) if _usable(result, [texts[row.chosen], texts[row.rejected]])]


def single_rows(result: Tally, texts: Mapping[str, str]) -> list[SingleRow]:
    """Completions labelled good or bad: by a vote on the completion itself, else by how it fared in its pairs; or a row a vote."""
    ties_are_good = result.rules.ties == "good"
    groups = [[item] for item in result.each] if result.rules.aggregation == "every" else [list(result.items)]
    rows: list[SingleRow] = []
    for items in groups:
        fared = good_or_bad(items, ties_are_good)
        result.drop("tie", fared.ties)
        result.drop("conflict", fared.conflicts)
        weights = agreement_by_completion(items, ties_are_good) if result.rules.aggregation == "weighted" else {}
        rows += [SingleRow(result.prompts[c], c, good, weights.get(c, 1.0)) for c, good in fared.good.items()]
    return [row for row in rows if _usable(result, [texts[row.completion]])]


def _weight(result: Tally, item: Item) -> float:
    return item.share if result.rules.aggregation == "weighted" else 1.0


def sft_rows(result: Tally, texts: Mapping[str, str]) -> list[SingleRow]:
    """The good completions; the same text to the same prompt once."""
    singles = single_rows(result, texts)
    rows = {(row.prompt_id, texts[row.completion].strip()): row for row in singles if row.good}
    result.drop("bad", sum(1 for row in singles if not row.good))
    return list(rows.values())


def _from_singles(result: Tally, rng: random.Random) -> list[PairRow]:
    """Each good completion with a bad one of its prompt, going round the shorter side: each is used, none too often."""
    sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for item in sorted(result.items, key=lambda item: item.first):
        if item.outcome in ("good", "bad"):
            sides[item.prompt_id][0 if item.outcome == "good" else 1].append(item.first)
    rows = []
    for prompt_id, (good, bad) in sorted(sides.items()):
        if not good or not bad:
            result.dropped["one_sided"] += len(good) + len(bad)
            continue
        rng.shuffle(good)
        rng.shuffle(bad)
        for i in range(max(len(good), len(bad))):
            rows.append(PairRow(prompt_id, good[i % len(good)], bad[i % len(bad)]))
    return rows


def _usable(result: Tally, texts: Sequence[str]) -> bool:
    if any(not text.strip() for text in texts):
        result.dropped["empty_text"] += 1
        return False
    if len(texts) == 2 and texts[0].strip() == texts[1].strip():
        result.dropped["same_text"] += 1
        return False
    return True
