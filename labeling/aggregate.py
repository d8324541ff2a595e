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

from data.records import Preference

Outcome = Literal["first", "second", "tie", "both_bad"]
Reason = Literal["skip", "tie", "both_bad", "split_vote", "conflict", "same_text", "empty_text", "one_sided", "bad"]
REASONS: dict[Reason, str] = {
    "skip": "labels that were skipped",
    "tie": "pairs called a tie",
    "both_bad": "pairs of which both were bad",
    "split_vote": "items on which the annotators disagree without a majority",
    "conflict": "answers that won as often as they lost",
    "same_text": "pairs whose two answers are the same text",
    "empty_text": "rows with an empty answer",
    "one_sided": "answers to prompts that have only good or only bad ones",
    "bad": "bad answers, which are nothing to imitate",
}


class Vote(NamedTuple):
    """A current label. `right` is '' in binary tasks."""

    annotator_id: str
    prompt_id: str
    left: str
    right: str
    preference: Preference


class PairRow(NamedTuple):
    prompt_id: str
    chosen: str
    rejected: str


class SingleRow(NamedTuple):
    prompt_id: str
    completion: str
    good: bool


@dataclass
class Tally:
    """What the votes come to: pairs by (smaller id, larger id), completions by id, and what fell out."""

    pairs: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    singles: dict[str, bool] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)  # completion -> prompt
    dropped: Counter[Reason] = field(default_factory=Counter)
    votes_an_item: Counter[int] = field(default_factory=Counter)


def tally(votes: Iterable[Vote]) -> Tally:
    """Majority outcome of every item. Of one annotator's several votes on an item (repeats) the last counts."""
    result = Tally()
    by_item: dict[tuple[str, str], dict[str, Preference]] = defaultdict(dict)
    for vote in votes:
        if vote.preference == "skip":
            result.dropped["skip"] += 1
            continue
        first, second = sorted((vote.left, vote.right)) if vote.right else (vote.left, "")
        for completion_id in (vote.left, vote.right):
            if completion_id:
                result.prompts[completion_id] = vote.prompt_id
        by_item[first, second][vote.annotator_id] = _unsided(vote, first)
    for (first, second), said in by_item.items():
        result.votes_an_item[len(said)] += 1
        winner = _majority(said.values())
        if winner is None:
            result.dropped["split_vote"] += 1
        elif second:
            result.pairs[first, second] = {"a": "first", "b": "second", "tie": "tie", "both_bad": "both_bad"}[winner]  # type: ignore[assignment]
        else:
            result.singles[first] = winner == "good"
    return result


def _unsided(vote: Vote, first: str) -> Preference:
    """The preference with a = the completion with the smaller id, whichever side it was on."""
    if vote.preference in ("a", "b") and vote.left != first:
        return "b" if vote.preference == "a" else "a"
    return vote.preference


def _majority(said: Iterable[Preference]) -> Preference | None:
    """The most frequent preference, None when two share that place."""
    (top, n), *rest = Counter(said).most_common(2)
    return None if rest and rest[0][1] == n else top


def preference_rows(result: Tally, texts: Mapping[str, str], rng: random.Random) -> list[PairRow]:
    """Decided pairs, then pairs of a good and a bad completion of one prompt; each once."""
    rows: dict[frozenset[str], PairRow] = {}
    for (first, second), outcome in result.pairs.items():
        if outcome in ("tie", "both_bad"):
            result.dropped[outcome] += 1
            continue
        chosen, rejected = (first, second) if outcome == "first" else (second, first)
        rows[frozenset((first, second))] = PairRow(result.prompts[first], chosen, rejected)
    for row in _from_singles(result, rng):
        first, second = sorted((row.chosen, row.rejected))
        if (first, second) not in result.pairs:  # what was said of the pair itself counts more
            rows[frozenset((first, second))] = row
    return [row for row in rows.values() if _usable(result, [texts[row.chosen], texts[row.rejected]])]


def single_rows(result: Tally, texts: Mapping[str, str]) -> list[SingleRow]:
    """Completions labelled good or bad: by a vote on the completion itself, else by how it fared in its pairs."""
    wins: Counter[str] = Counter()
    for (first, second), outcome in result.pairs.items():
        if outcome == "tie":
            result.dropped["tie"] += 1
        elif outcome == "both_bad":
            wins.subtract((first, second))
        else:
            wins[first] += 1 if outcome == "first" else -1
            wins[second] += 1 if outcome == "second" else -1
    good = {completion_id: n > 0 for completion_id, n in wins.items() if n}
    result.dropped["conflict"] += sum(1 for completion_id, n in wins.items() if not n and completion_id not in result.singles)
    good |= result.singles
    rows = [SingleRow(result.prompts[completion_id], completion_id, label) for completion_id, label in good.items()]
    return [row for row in rows if _usable(result, [texts[row.completion]])]


def sft_rows(result: Tally, texts: Mapping[str, str]) -> list[SingleRow]:
    """The good completions; the same text to the same prompt once."""
    singles = single_rows(result, texts)
    rows = {(row.prompt_id, texts[row.completion].strip()): row for row in singles if row.good}
    result.dropped["bad"] += sum(1 for row in singles if not row.good)
    return list(rows.values())


def _from_singles(result: Tally, rng: random.Random) -> list[PairRow]:
    """Each good completion with a bad one of its prompt, going round the shorter side: each is used, none too often."""
    sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for completion_id, is_good in sorted(result.singles.items()):
        sides[result.prompts[completion_id]][0 if is_good else 1].append(completion_id)
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
