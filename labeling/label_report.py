"""The reports on a project's labels: the overview (`labeling/overview.py`), agreement, the bias cards.

Assembles the columns of `labeling.label_data` into what `labeling.agreement` and `labeling.bias` measure, and keeps the last
answers: a report is made anew only when a label, a gold item or a decision has come since. `Reports` is what a page holds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from data.database import Database
from data.records import Project
from labeling.agreement import Agreement, agreement
from labeling.bias import bias_report
from labeling.bias_binary import BinaryCard, Called, binary_report
from labeling.bias_card import SKIP, BiasCard, BiasReport, Card, Gold, LabelColumns, Repeats
from labeling.label_data import GOLD, GOOD, NORMAL, Labels, Read, Styles, Votes, checks, echoes, load, votes
from labeling.label_table import LabelTable, decisive, first_labels
from labeling.overview import Overview, overview

T = TypeVar("T")
KEPT = 3  # projects whose answers are remembered


@dataclass(frozen=True)
class AgreementReport:
    """`four` is two-way already in binary projects, where `two` is None. `early`: only the first two labels of every item, the
    unbiased view where the overlap grows with disagreement; None where it does not."""

    four: Agreement
    two: Agreement | None
    early: Agreement | None


class Cards(NamedTuple, Generic[Card]):
    people: tuple[str, ...]
    report: BiasReport[Card]


# --- agreement and bias -----------------------------------------------------------------------------------------------------


def agreement_of(project: Project, table: LabelTable) -> AgreementReport:
    four = agreement(table)
    two = agreement(decisive(table)) if project.task == "pairwise" else None
    return AgreementReport(four, two, agreement(first_labels(table, 2), with_pairs=False) if project.settings.adaptive else None)


def cards(db: Database, project: Project, labels: Labels, styles: Styles) -> Cards[BiasCard]:
    """Normal and gold labels of people here: what was imported has no sides drawn by lot."""
    shown = labels.only(np.flatnonzero((labels.kind == NORMAL) | (labels.kind == GOLD)))
    left, right = styles.of(project.project_id, shown.left), styles.of(project.project_id, shown.right)
    _, item = np.unique(shown.item, return_inverse=True)
    columns = LabelColumns(
        shown.annotator, item, shown.preference, left.length, right.length, left.markdown, right.markdown, shown.dwell_ms
    )
    check, echo = checks(db, project.project_id, labels), echoes(labels)
    return Cards(labels.people, bias_report(columns, Repeats(*echo), Gold(*check)))


def binary_cards(db: Database, project: Project, labels: Labels, styles: Styles) -> Cards[BinaryCard]:
    """The same where answers are shown one at a time."""
    shown = labels.only(np.flatnonzero((labels.kind == NORMAL) | (labels.kind == GOLD)))
    style = styles.of(project.project_id, shown.left)
    _, item = np.unique(shown.item, return_inverse=True)
    good = np.where(shown.preference == SKIP, -1, (shown.preference == GOOD).astype(np.int64))
    called = Called(shown.annotator, item, good, style.length, style.markdown, shown.dwell_ms)
    check, echo = checks(db, project.project_id, labels), echoes(labels)
    again = Repeats(echo.annotator, (echo.before == GOOD).astype(np.int64), (echo.after == GOOD).astype(np.int64))
    return Cards(labels.people, binary_report(called, again, Gold(*check)))


# --- kept -------------------------------------------------------------------------------------------------------------------


class Reports:
    """The reports of the projects looked at last; safe from any thread."""

    def __init__(self, db: Database) -> None:
        self._db, self._styles = db, Styles(db)
        self._lock = threading.Lock()
        self._last: dict[str, Read] = {}
        self._turns: dict[str, threading.RLock] = {}
        self._kept: OrderedDict[str, tuple[tuple[object, ...], dict[str, Any]]] = OrderedDict()

    def labels(self, project: Project) -> Labels:
        return self._get(project, "labels", lambda: self._read(project))

    def _read(self, project: Project) -> Labels:
        """From what was read last, as far as it goes."""
        with self._lock:
            before = self._last.pop(project.project_id, None)
        found = load(self._db, project, before)
        with self._lock:
            self._last[project.project_id] = found
            while len(self._last) > KEPT:
                del self._last[next(iter(self._last))]
        return found.labels

    def _votes(self, project: Project) -> Votes:
        return self._get(project, "votes", lambda: votes(self.labels(project), project.task))

    def overview(self, project: Project) -> Overview:
        return self._get(project, "overview", lambda: overview(self._db, project, self.labels(project), self._votes(project)))

    def agreement(self, project: Project) -> AgreementReport:
        return self._get(project, "agreement", lambda: agreement_of(project, self._votes(project).table))

    def cards(self, project: Project) -> Cards[BiasCard]:
        """Of a pairwise project."""
        return self._get(project, "cards", lambda: cards(self._db, project, self.labels(project), self._styles))

    def binary_cards(self, project: Project) -> Cards[BinaryCard]:
        """Of a binary project."""
        return self._get(project, "binary", lambda: binary_cards(self._db, project, self.labels(project), self._styles))

    def forget(self, project_id: str) -> None:
        with self._lock:
            self._kept.pop(project_id, None)
            self._last.pop(project_id, None)

    def _get(self, project: Project, name: str, make: Callable[[], T]) -> T:
        """One at a time makes the reports of a project: two who open the page do not read a million labels twice."""
        with self._lock:
            turn = self._turns.setdefault(project.project_id, threading.RLock())
        with turn:
            stamp = self._stamp(project)
            with self._lock:
                at, made = self._kept.pop(project.project_id, (stamp, {}))
                made = made if at == stamp else {}
                self._kept[project.project_id] = stamp, made
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            if name not in made:
                made[name] = make()
            found: T = made[name]
            return found

    def _stamp(self, project: Project) -> tuple[object, ...]:
        sql = """select (select max(seq) from label_events where project_id = $p) as label,
                        (select count(*) from gold where project_id = $p) as gold,
                        (select count(*) from adjudications where project_id = $p) as decided,
                        (select count(*) from pairs where project_id = $p) as pairs,
                        (select count(*) from completions where project_id = $p) as completions,
                        (select count(*) from label_events where project_id = $p) as events,
                        (select count(*) from people) as people"""
        row = self._db.row(sql, {"p": project.project_id})
        assert row is not None
        return (*row.values(), project.task, str(asdict(project.settings)))
