"""What an export is made of, ids only: the labels that stand, the pairs people decided and the answers they called good or bad.

A majority decides, one vote a person (of repeats the last); what it leaves undecided is counted, never guessed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from data.database import Database
from data.records import content_id

DROPPED = {
    "skip": "labels that were skipped",
    "tie": "pairs called a tie",
    "both_bad": "pairs of which both answers were bad",
    "split_vote": "items without a majority",
    "conflict": "answers that won as often as they lost",
    "empty_text": "rows with an empty answer",
    "bad": "bad answers, which are nothing to imitate",
    "many_turns": "rows whose prompt has several turns or a system message (export them as messages)",
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
    for (one, other), (prompt_id, outcome) in _outcomes(labels, dropped).items():
        if outcome in ("tie", "both_bad"):
            dropped[outcome] += 1
        elif other and outcome:
            yield DecidedPair(prompt_id, outcome, other if outcome == one else one)


def judged_answers(labels: Iterable[LabelRow], dropped: Counter[str]) -> Iterator[Judged]:
    """An answer's own good and bad labels; where there are none, whether it won more pairs than it lost."""
    own: dict[str, Judged] = {}
    net: Counter[str] = Counter()
    asked: dict[str, str] = {}
    for (one, other), (prompt_id, outcome) in _outcomes(labels, dropped).items():
        asked |= {one: prompt_id} | ({other: prompt_id} if other else {})
        if not other:
            own[one] = Judged(prompt_id, one, outcome == "good")
        elif outcome == "tie":
            dropped["tie"] += 1
        elif outcome == "both_bad":
            net.subtract((one, other))
        else:
            net[one] += 1 if outcome == one else -1
            net[other] += 1 if outcome == other else -1
    for completion_id, wins in net.items():
        if completion_id in own:
            continue
        if wins:
            own[completion_id] = Judged(asked[completion_id], completion_id, wins > 0)
        else:
            dropped["conflict"] += 1
    yield from own.values()


def _outcomes(labels: Iterable[LabelRow], dropped: Counter[str]) -> dict[tuple[str, str], tuple[str, str]]:
    """(completion, completion or '') -> (prompt, what the majority says): the id of the chosen, tie, both_bad, good or bad."""
    votes: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    asked: dict[tuple[str, str], str] = {}
    for label in labels:
        if label.preference == "skip":
            dropped["skip"] += 1
            continue
        one, other = sorted((label.left, label.right)) if label.right else (label.left, "")
        says = {"a": label.left, "b": label.right}.get(label.preference, label.preference)
        votes[one, other][label.annotator_id] = says
        asked[one, other] = label.prompt_id
    decided: dict[tuple[str, str], tuple[str, str]] = {}
    for item, said in votes.items():
        winner = _majority(said.values())
        if winner:
            decided[item] = asked[item], winner
        else:
            dropped["split_vote"] += 1
    return decided


def _majority(said: Iterable[Any]) -> str:
    """The most frequent, '' when two share that place."""
    (top, n), *rest = Counter(said).most_common(2)
    return "" if rest and rest[0][1] == n else str(top)
