"""What an export is made of, ids only: the labels that stand, the pairs people decided and the answers they called good or bad.

A majority decides (`data/majority.py` has the rule); what it leaves undecided is counted, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from data.database import Database
from data.majority import Item, Vote, decide, good_or_bad
from data.records import content_id

DROPPED = {  # of one, of several
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

    @property
    def ids(self) -> tuple[str, str]:
        return self.chosen, self.rejected


class Judged(NamedTuple):
    prompt_id: str
    completion_id: str
    good: bool


def label_rows(db: Database, project_id: str) -> Iterator[LabelRow]:
    """In the order in which they were given."""
    sql = """
        select l.impression_id, i.task, i.prompt_id, i.left_completion_id, i.right_completion_id, l.annotator_id, l.preference,
               l.simulated, l.dwell_ms, l.note, l.created_at
        from current_labels l join impressions i using (impression_id) where l.project_id = ? order by l.seq
    """
    for row in db.rows(sql, [project_id]):
        impression_id, *rest = row.values()
        yield LabelRow(content_id("label", impression_id), *rest)


def decided_pairs(labels: Iterable[LabelRow], dropped: Counter[str]) -> Iterator[DecidedPair]:
    for item in _decided(labels, dropped):
        if item.outcome in ("tie", "both_bad"):
            dropped[item.outcome] += 1
        elif item.chosen_rejected:
            yield DecidedPair(item.prompt_id, *item.chosen_rejected)


def judged_answers(labels: Iterable[LabelRow], dropped: Counter[str]) -> Iterator[Judged]:
    """An answer's own good and bad labels; where there are none, whether it won more pairs than it lost."""
    items = _decided(labels, dropped)
    prompts = {completion_id: item.prompt_id for item in items for completion_id in item.ids}
    fared = good_or_bad(items)
    dropped["tie"] += fared.ties
    dropped["conflict"] += fared.conflicts
    for completion_id, good in fared.good.items():
        yield Judged(prompts[completion_id], completion_id, good)


def _decided(labels: Iterable[LabelRow], dropped: Counter[str]) -> tuple[Item, ...]:
    items, skips = decide(Vote(x.annotator_id, x.prompt_id, x.left, x.right, x.preference) for x in labels)
    dropped["skip"] += skips
    dropped["split_vote"] += sum(item.outcome == "split_vote" for item in items)
    return items
