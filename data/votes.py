"""Which labels become training rows: those that stand, as far as the filters want them, and what is known of items besides.

One place for exports and snapshots alike. Of one person's labels on an item (a repeat is a second one) the last counts, in
`data/majority.py`; gold items and decided ones have an answer that stands above the votes, as long as anybody voted on them.
What the filters leave out is counted by reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple, get_args

from data import adjudications, gold
from data.database import Database
from data.errors import BadInput
from data.majority import Outcome, Vote
from data.records import Adjudication, Flag, Gold

Aggregation = Literal["majority", "every", "weighted"]
Ties = Literal["drop", "good"]


@dataclass(frozen=True)
class Filters:
    """Whose labels count. Simulated and imported ones are marked in the store, so they can always be told from a person's own.

    `annotators` empty = everybody; labels with one of `without_flags` are left out; days are UTC, both included, '' = open.
    """

    simulated: bool = True
    imported: bool = True
    annotators: tuple[str, ...] = ()
    without_flags: tuple[Flag, ...] = ()
    first_day: str = ""
    last_day: str = ""


@dataclass(frozen=True)
class Rules:
    """How several people's labels become rows. `majority`: one row an item, by the most frequent vote. `every`: one row a person's
    vote. `weighted`: as majority, with the share of the votes that agree as `weight`. `ties`: what two equally good answers are
    where single answers are good or bad."""

    aggregation: Aggregation = "majority"
    ties: Ties = "drop"


class Cast(NamedTuple):
    """A label that stands and passed, with the vote it is."""

    vote: Vote
    source: Literal["people", "simulated", "imported"]
    impression_id: str
    task: str
    dwell_ms: int
    note: str
    created_at: datetime


class Chosen(NamedTuple):
    """`known`: (first, second) -> the answer that stands above the votes. `left_out` counts by reason, `flags` what passed."""

    cast: list[Cast]
    known: dict[tuple[str, str], Outcome]
    sources: Counter[str]
    left_out: Counter[str]
    flags: Counter[str]

    @property
    def votes(self) -> list[Vote]:
        return [each.vote for each in self.cast]


def choose(db: Database, project_id: str, filters: Filters = Filters()) -> Chosen:
    """In the order in which they were given. BadInput for a day that is none."""
    first, last = _day(filters.first_day), _day(filters.last_day)
    sql = """
        select l.impression_id, l.annotator_id, l.preference, l.simulated, l.flags, l.dwell_ms, l.note, l.created_at,
               i.kind, i.task, i.prompt_id, i.left_completion_id, i.right_completion_id,
               if(i.right_completion_id = '', i.left_completion_id, i.pair_id) as item_id
        from current_labels l join impressions i using (impression_id) where l.project_id = ? order by l.seq
    """
    known = _known(db, project_id)
    out = Chosen([], {}, Counter(), Counter(), Counter())
    for row in db.rows(sql, [project_id]):
        flags = json.loads(row["flags"])
        source: Any = "simulated" if row["simulated"] else "imported" if row["kind"] == "imported" else "people"
        if reason := _unwanted(row, source, flags, filters, first, last):
            out.left_out[reason] += 1
            continue
        out.sources[source] += 1
        out.flags.update(flags)
        left, right = row["left_completion_id"], row["right_completion_id"]
        if row["item_id"] in known:
            out.known[(left, "") if not right else (min(left, right), max(left, right))] = known[row["item_id"]]
        vote = Vote(row["annotator_id"], row["prompt_id"], left, right, row["preference"])
        out.cast.append(Cast(vote, source, row["impression_id"], row["task"], row["dwell_ms"], row["note"], row["created_at"]))
    return out


def _known(db: Database, project_id: str) -> dict[str, Outcome]:
    """item -> its answer; of gold and a decision the later one."""
    found: list[Gold | Adjudication] = [*gold.current(db, project_id), *adjudications.current(db, project_id)]
    return {each.item_id: each.outcome for each in sorted(found, key=lambda each: each.created_at) if each.outcome}


def _unwanted(
    row: Mapping[str, Any], source: str, flags: list[str], filters: Filters, first: date | None, last: date | None
) -> str:
    """Why this label is left out, '' when it is not."""
    day = row["created_at"].date()
    if (source == "simulated" and not filters.simulated) or (source == "imported" and not filters.imported):
        return source
    if filters.annotators and row["annotator_id"] not in filters.annotators:
        return "annotator"
    if any(flag in filters.without_flags for flag in flags):
        return "flag"
    return "day" if (first and day < first) or (last and day > last) else ""


def check(filters: Filters, rules: Rules) -> None:
    """BadInput in words for what cannot be."""
    if rules.aggregation not in get_args(Aggregation) or rules.ties not in get_args(Ties):
        raise BadInput("Choose one of the ways to make rows of several people's labels.")
    if not set(filters.without_flags) <= set(get_args(Flag)):
        raise BadInput("Choose flags from the list.")
    _day(filters.first_day), _day(filters.last_day)


def _day(text: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"“{text.strip()[:40]}” is no day; write it like 2026-11-23.") from None
