"""What the memory knows of one annotator in one project: what is on their screen, how much they have said, what may be shown to
them again, and how alike they answered what was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from data.records import Impression

REPEAT_AFTER = 20  # items of this annotator between an item and its repeat
REPEAT_AMONG = 200  # so many of the last labels may be repeated: one of long ago says more about the person than about noise


class Shown(NamedTuple):
    """An impression that has no label yet."""

    impression: Impression
    item_id: str


class Label(NamedTuple):
    """How an impression's label stands. `preference` is what the annotator said last ('' = nothing, or taken back); an excluded
    one stands behind its exclusion and counts for nothing."""

    preference: str = ""
    day: str = ""
    extra: bool = False
    excluded: bool = False

    @property
    def counts(self) -> str:
        """The preference as far as it counts."""
        return "" if self.excluded else self.preference

    @property
    def decides(self) -> bool:
        return self.counts not in ("", "skip")


class Past(NamedTuple):
    """A label that may be asked for again: when it was given (`Track.position`), and the answer, sides undone."""

    position: int
    impression: Impression
    answer: str


class Consistency(NamedTuple):
    """`share` of `n` repeated items answered alike; None before the first."""

    share: float | None
    n: int


@dataclass
class Track:
    shown: dict[str, Shown] = field(default_factory=dict)  # impression id -> it, in the order in which they were served
    labelled: int = 0  # labels that are no skip
    skipped: int = 0
    asked_at: float = -math.inf  # when they last asked for items or their page last beat
    day: str = ""
    today: set[str] = field(default_factory=set)  # impressions labelled on `day`
    position: int = 0  # labels given so far: the clock by which repeats are spaced
    recent: dict[str, Past] = field(default_factory=dict)  # what may be repeated, oldest first
    echoes: dict[str, list[str]] = field(default_factory=dict)  # repeated impression -> [answer then, answer when repeated]

    def count(self, impression: Impression, was: Label, now: Label, answer: str) -> None:
        """One of this annotator's labels goes from `was` to `now`, which says `answer` (an overlap letter, '' for none)."""
        self.skipped += (now.counts == "skip") - (was.counts == "skip")
        self.labelled += now.decides - was.decides
        self.position += bool(now.counts) - bool(was.counts)
        self._count_today(impression.impression_id, now)
        if not answer:
            self.recent.pop(impression.impression_id, None)
        elif (past := self.recent.get(impression.impression_id)) is not None:
            self.recent[impression.impression_id] = past._replace(answer=answer)
        elif not was.decides:
            self.may_repeat(Past(self.position, impression, answer))
        self._hear(impression, answer)

    def _count_today(self, impression_id: str, now: Label) -> None:
        if now.decides and now.day >= self.day:
            if now.day > self.day:
                self.day, self.today = now.day, set()
            self.today.add(impression_id)
        else:
            self.today.discard(impression_id)

    def labelled_on(self, day: str) -> int:
        return len(self.today) if self.day == day else 0

    # --- repeats ---

    def may_repeat(self, past: Past) -> None:
        """Only a normal item, whose authors were not shown after the vote, and only once."""
        impression = past.impression
        hidden = impression.kind == "normal" and impression.policy != "compare"
        if hidden and impression.impression_id not in self.echoes:
            self.recent[impression.impression_id] = past
            while len(self.recent) > REPEAT_AMONG:
                del self.recent[next(iter(self.recent))]

    def repeatable(self) -> list[Past]:
        return [past for past in self.recent.values() if self.position - past.position >= REPEAT_AFTER]

    def repeat(self, impression_id: str) -> None:
        """From now on this impression counts as repeated."""
        past = self.recent.pop(impression_id, None)
        self.echoes.setdefault(impression_id, [past.answer if past else "", ""])

    def unrepeat(self, past: Past) -> None:
        """Take `repeat` back: the repeat could not be stored."""
        self.echoes.pop(past.impression.impression_id, None)
        self.may_repeat(past)

    def _hear(self, impression: Impression, answer: str) -> None:
        if impression.repeat_of:
            self.echoes.setdefault(impression.repeat_of, ["", ""])[1] = answer
        elif impression.impression_id in self.echoes:
            self.echoes[impression.impression_id][0] = answer

    def consistency(self) -> Consistency:
        both = [(then, again) for then, again in self.echoes.values() if then and again]
        return Consistency(sum(then == again for then, again in both) / len(both) if both else None, len(both))


def day_of(at: datetime | str) -> str:
    """The day in UTC, from a time or its ISO text."""
    return (at if isinstance(at, str) else at.isoformat())[:10]
