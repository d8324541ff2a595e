"""What an export is made of, ids only: the labels that stand, the pairs people decided and the answers they called good or bad.

A majority decides (`data/majority.py` has the rule); what it leaves undecided is counted, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from data.majority import Item, agreement_by_completion, decide, good_or_bad
from data.records import content_id
from data.votes import Chosen, Rules

DROPPED = {  # of one, of several
    "simulated": ("simulated label", "simulated labels"),
    "imported": ("imported label", "imported labels"),
    "annotator": ("label of somebody else", "labels of others"),
    "flag": ("label with a flag", "labels with a flag"),
    "day": ("label of another day", "labels of other days"),
    "split": ("row of the other prompts", "rows of the other prompts"),
    "skip": ("label that was skipped", "labels that were skipped"),
    "tie": ("pair called a tie", "pairs called a tie"),
    "both_bad": ("pair of which both answers were bad", "pairs of which both answers were bad"),
    "split_vote": ("item without a majority", "items without a majority"),
    "conflict": ("answer that won as often as it lost", "answers that won as often as they lost"),
    "empty_text": ("row with an empty answer", "rows with an empty answer"),
    "bad": ("bad answer, which is nothing to imitate", "bad answers, which are nothing to imitate"),
    "many_turns": (
        "row whose prompt has several turns or a system message (export it as messages)",
        "rows whose prompt has several turns or a system message (export them as messages)",
    ),
}


class LabelRow(NamedTuple):
    """A label that stands. `right` is '' for a binary one. `key` is the impression's id, hashed."""

    key: str
    task: str
    prompt_id: str
    left: str
    right: str
    annotator_id: str
    preference: str
    simulated: bool
    dwell_ms: int
    note: str
    created_at: datetime


class DecidedPair(NamedTuple):
    prompt_id: str
    chosen: str
    rejected: str
    weight: float

    @property
    def ids(self) -> tuple[str, str]:
        return self.chosen, self.rejected


class Judged(NamedTuple):
    prompt_id: str
    completion_id: str
    good: bool
    weight: float


def label_rows(chosen: Chosen) -> Iterator[LabelRow]:
    """In the order in which they were given."""
    for each in chosen.cast:
        yield LabelRow(
            content_id("label", each.impression_id), each.task, each.vote.prompt_id, each.vote.left, each.vote.right,
            each.vote.annotator_id, each.vote.preference, each.source == "simulated", each.dwell_ms, each.note, each.created_at,
        )  # fmt: skip


def decided_pairs(chosen: Chosen, rules: Rules, dropped: Counter[str]) -> Iterator[DecidedPair]:
    for item in _decided(chosen, rules, dropped):
        if item.outcome in ("tie", "both_bad"):
            dropped[item.outcome] += 1
        elif item.chosen_rejected:
            yield DecidedPair(item.prompt_id, *item.chosen_rejected, item.share)


def judged_answers(chosen: Chosen, rules: Rules, dropped: Counter[str]) -> Iterator[Judged]:
    """An answer's own good and bad labels; where there are none, whether it won more pairs than it lost; or one a vote."""
    items = _decided(chosen, rules, dropped)
    prompts = {completion_id: item.prompt_id for item in items for completion_id in item.ids}
    for group in [[item] for item in items] if rules.aggregation == "every" else [list(items)]:
        fared = good_or_bad(group, rules.ties == "good")
        dropped["tie"] += fared.ties
        dropped["conflict"] += fared.conflicts
        weights = agreement_by_completion(group, rules.ties == "good")
        for completion_id, good in fared.good.items():
            yield Judged(prompts[completion_id], completion_id, good, weights.get(completion_id, 1.0))


def _decided(chosen: Chosen, rules: Rules, dropped: Counter[str]) -> tuple[Item, ...]:
    items, skips = decide(chosen.votes, chosen.known, every=rules.aggregation == "every")
    dropped["skip"] += skips
    dropped["split_vote"] += sum(item.outcome == "split_vote" for item in items)
    return items
