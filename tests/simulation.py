"""Simulated annotators over the real store and the real assignment: they ask, wait, beat, vote, skip, undo, crash, come back late.

Time is a number that only the simulation moves, so that hours of labelling take seconds; `Crowd.step` does one thing of one
person. What must hold at the end is checked from the tables alone (`check`).
"""

from __future__ import annotations

import random
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from data.records import Impression
from labeling import preferences
from labeling.assignment import Assignment
from labeling.overlap import letter
from labeling.preferences import Vote


@dataclass
class Person:
    name: str
    rng: random.Random
    screen: list[Impression] = field(default_factory=list)  # what the page holds, in order
    wakes_at: float = 0.0
    beats_at: float = 0.0


class Crowd:
    def __init__(self, db: Any, project_id: str, people: int, seed: int, **rules: Any) -> None:
        self.now = 1_700_000_000.0
        self._db, self._project_id = db, project_id
        self.assignment = Assignment(db, clock=lambda: self.now, rng=random.Random(seed), **rules)
        self.rng = random.Random(seed + 1)
        self.people = [Person(f"person-{k}", random.Random(f"{seed}-{k}")) for k in range(people)]
        self.crashes = self.late = self.lost = 0

    def run(self, most: int = 20_000) -> None:
        """Until nobody is served anything for a while, or `most` steps."""
        for person in self.people:
            person.wakes_at = self.now + person.rng.uniform(0, 60)
        idle = 0
        for _ in range(most):
            person = min(self.people, key=lambda p: p.wakes_at)
            self.now = max(self.now, person.wakes_at)
            idle = 0 if self.step(person) else idle + 1
            if idle > 3 * len(self.people) and not any(p.screen for p in self.people):
                return
        raise AssertionError("the crowd never finished")

    def step(self, person: Person) -> bool:
        """One thing; whether there was anything to do."""
        rng = person.rng
        if not person.screen:
            served = self.assignment.serve(person.name, self._project_id, rng.choice([1, 5, 12]))
            person.screen = [s.impression for s in served]
            person.wakes_at = self.now + (rng.uniform(1, 5) if served else 130)
            person.beats_at = self.now
            return bool(served)
        if rng.random() < 0.06:  # the browser is gone; what was on the screen stays leased until it expires
            person.screen = []
            self.crashes += 1
            person.wakes_at = self.now + rng.choice([1, 60, 400])
            return True
        if self.now - person.beats_at > 20 and rng.random() < 0.7:
            self._beat(person)
            return True
        votes = [self._vote(person, person.screen.pop(0)) for _ in range(min(len(person.screen), rng.choice([1, 1, 1, 4])))]
        if rng.random() < 0.08:  # offline: the votes come late, on leases that may have expired
            self.now += 200
            self.late += 1
        outcomes = preferences.record(self._db, person.name, votes, assignment=self.assignment)
        assert all(o.accepted for o in outcomes), outcomes
        if rng.random() < 0.05:
            preferences.record(self._db, person.name, votes, assignment=self.assignment)  # sent twice
        if rng.random() < 0.04:
            undo = Vote(str(uuid.uuid4()), votes[-1].impression_id, "retracted")
            preferences.record(self._db, person.name, [undo], assignment=self.assignment)
        person.wakes_at = self.now + rng.expovariate(1 / 8)
        return True

    def _beat(self, person: Person) -> None:
        beat = self.assignment.heartbeat(person.name, self._project_id, [i.impression_id for i in person.screen])
        person.screen = [i for i in person.screen if i.impression_id in set(beat.kept)]
        person.beats_at = self.now
        self.lost += len(beat.lost)

    def _vote(self, person: Person, impression: Impression) -> Vote:
        said = person.rng.choice(["a", "a", "b", "b", "tie", "both_bad", "skip"] if impression.pair_id else ["good", "bad", "skip"])
        return Vote(str(uuid.uuid4()), impression.impression_id, "cast", said, dwell_ms=9000)


@dataclass(frozen=True)
class Standing:
    """A label that stands, from the tables."""

    item_id: str
    annotator_id: str
    kind: str
    said: str
    extra: bool
    repeat_of: str


def standing(db: Any, project_id: str) -> list[Standing]:
    sql = """select l.*, i.kind, i.pair_id, i.left_completion_id, i.right_completion_id, i.repeat_of
             from current_labels l join impressions i using (impression_id) where l.project_id = ? order by l.seq"""
    return [
        Standing(
            row["pair_id"] or row["left_completion_id"],
            row["annotator_id"],
            row["kind"],
            letter(row["preference"], row["left_completion_id"], row["right_completion_id"]),
            '"extra"' in row["flags"],
            row["repeat_of"],
        )
        for row in db.rows(sql, [project_id])
    ]


def check_nobody_twice(db: Any, project_id: str) -> None:
    """No pair twice to one person except a planned repeat, which names what it repeats and swaps its sides."""
    sql = "select * from impressions where project_id = ? order by served_at"
    shown = db.rows(sql, [project_id])
    by_id = {row["impression_id"]: row for row in shown}
    met = Counter((row["annotator_id"], row["pair_id"] or row["left_completion_id"]) for row in shown if row["kind"] != "repeat")
    assert max(met.values(), default=0) <= 1
    repeats = [row for row in shown if row["kind"] == "repeat"]
    assert max(Counter(row["repeat_of"] for row in repeats).values(), default=0) <= 1
    for row in repeats:
        first = by_id[row["repeat_of"]]
        assert (first["annotator_id"], first["pair_id"], first["kind"]) == (row["annotator_id"], row["pair_id"], "normal")
        if row["pair_id"]:
            sides = first["right_completion_id"], first["left_completion_id"]
            assert (row["left_completion_id"], row["right_completion_id"]) == sides


def labels_by_item(db: Any, project_id: str) -> dict[str, list[Standing]]:
    """Labels that count for an item's overlap, in the order in which they were given."""
    found: dict[str, list[Standing]] = defaultdict(list)
    for label in standing(db, project_id):
        if label.said and label.kind in ("normal", "imported"):
            found[label.item_id].append(label)
    return found
