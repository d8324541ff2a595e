"""Labels: append-only events, resolved against the sides that were served, never against what a browser says.

A browser sends an impression's id and a preference. Which completion that chose is looked up in the stored impression, inside the
writer, at the commit. The event's id is made by the client, so sending it again stores nothing and is acknowledged again, while an
id that comes back with something else to say is refused; what is current is a view over the events (`current_labels`), newest
`seq` per impression.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, get_args

from data.cursor import Cursor, uuid_text
from data.database import Database
from data.errors import BadInput
from data.records import (
    BINARY_PREFERENCES,
    PAIRWISE_PREFERENCES,
    LabelEvent,
    LabelEventType,
    Preference,
    Task,
    from_row,
    now,
    to_row,
)

EVENTS = frozenset(get_args(LabelEventType))
MAX_NOTE = 10_000
MAX_DWELL_MS = 2**31 - 1


class Resolved(NamedTuple):
    """Completion ids, '' for none, and what a binary preference says of the one completion (None: nothing)."""

    chosen: str
    rejected: str
    label: bool | None = None


class Outcome(NamedTuple):
    """What became of one event: stored (now or before) when `problem` is ''."""

    event_id: str
    problem: str = ""


class Counts(NamedTuple):
    """Current labels. `decided` are not skipped; `by_preference` sums to `labels`."""

    labels: int
    decided: int
    annotators: int
    simulated: int
    by_preference: dict[str, int]


def resolve(preference: str, left: str, right: str) -> Resolved:
    """The table preference x sides -> chosen, rejected, label. `left` and `right` are completion ids as served; binary items
    have no right.

    tie, both_bad, skip and a retraction ('') choose nothing. ValueError for a word that is no preference.
    """
    match preference:
        case "a":
            return Resolved(left, right)
        case "b":
            return Resolved(right, left)
        case "good":
            return Resolved(left, "", True)
        case "bad":
            return Resolved("", left, False)
        case "tie" | "both_bad" | "skip" | "":
            return Resolved("", "")
    raise ValueError(f"{preference!r} is no preference")


def append(db: Database, events: Sequence[LabelEvent]) -> list[str]:
    """Store events in their order, all or none; the ids, those stored before included, once they are durable.

    BadInput when one has no impression, another annotator's impression, or a preference its task does not have.
    """
    outcomes: list[Outcome] = db.gather(_append_all_or_none, list(events)) if events else []
    return [outcome.event_id for outcome in outcomes]


def append_each(db: Database, events: Sequence[LabelEvent]) -> list[Outcome]:
    """The same, but a bad event holds up no other: one outcome per event, in order."""
    outcomes: list[Outcome] = db.gather(_append_each, list(events)) if events else []
    return outcomes


def stored(db: Database, event_ids: Sequence[str]) -> set[str]:
    """Which of these are ids of stored events, as they are written here; what is no UUID is not."""
    ids = {event_id: _uuid(event_id) for event_id in event_ids}
    sql = "select event_id from label_events where event_id in (select unnest(?::uuid[]))"
    there = {row["event_id"] for row in db.rows(sql, [sorted(filter(None, set(ids.values())))])}
    return {event_id for event_id, canonical in ids.items() if canonical in there}


def current(db: Database, project_id: str) -> list[LabelEvent]:
    """What each impression's label is now (retracted and excluded ones left out), in the order they were given."""
    sql = "select * from current_labels where project_id = ? order by seq"
    return [from_row(LabelEvent, row) for row in db.rows(sql, [project_id])]


def history(db: Database, impression_id: str) -> list[LabelEvent]:
    sql = "select * from label_events where impression_id = ? order by seq"
    return [from_row(LabelEvent, row) for row in db.rows(sql, [impression_id])]


def counts(db: Database, project_id: str) -> Counts:
    sql = """select preference, count(*) as n, count(*) filter (simulated) as simulated
             from current_labels where project_id = ? group by preference order by preference"""
    rows = db.rows(sql, [project_id])
    annotators = db.value("select count(distinct annotator_id) from current_labels where project_id = ?", [project_id])
    return Counts(
        labels=sum(row["n"] for row in rows),
        decided=sum(row["n"] for row in rows if row["preference"] != "skip"),
        annotators=annotators,
        simulated=sum(row["simulated"] for row in rows),
        by_preference={row["preference"]: row["n"] for row in rows},
    )


# --- in the writer thread ---------------------------------------------------------------------------------------------------


class _Shown(NamedTuple):
    """What of an impression decides about its label."""

    impression_id: str
    annotator_id: str
    project_id: str
    task: Task
    left_completion_id: str
    right_completion_id: str


class _Said(NamedTuple):
    """What an event says. Sent again it says the same."""

    impression_id: str
    annotator_id: str
    event: str
    preference: str
    strength: str
    note: str


def _append_all_or_none(cursor: Cursor, callers: list[Any]) -> list[list[Outcome] | Exception]:
    """One statement each for the impressions and the events of all callers that wait."""
    every = [event for events in callers for event in events]
    impressions, said = _impressions(cursor, every), _said(cursor, every)
    outcomes: list[list[Outcome] | Exception] = []
    rows: list[dict[str, Any]] = []
    at = now()
    for events in callers:
        mine: dict[str, _Said] = {}
        try:
            resolved = [_resolved(event, impressions, at) for event in events]
            rows += [row for row in resolved if _is_new(row, ChainMap(mine, said))]
        except BadInput as error:
            outcomes.append(error)
            continue
        said |= mine
        outcomes.append([Outcome(row["event_id"]) for row in resolved])
    _store(cursor, rows)
    return outcomes


def _append_each(cursor: Cursor, callers: list[Any]) -> list[list[Outcome]]:
    every = [event for events in callers for event in events]
    impressions, said = _impressions(cursor, every), _said(cursor, every)
    rows: list[dict[str, Any]] = []
    outcomes: list[list[Outcome]] = []
    at = now()
    for events in callers:
        mine: list[Outcome] = []
        for event in events:
            try:
                row = _resolved(event, impressions, at)
                if _is_new(row, said):
                    rows.append(row)
                mine.append(Outcome(row["event_id"]))
            except BadInput as error:
                mine.append(Outcome(event.event_id, str(error)))
        outcomes.append(mine)
    _store(cursor, rows)
    return outcomes


def _impressions(cursor: Cursor, events: Sequence[LabelEvent]) -> dict[str, _Shown]:
    ids = sorted({event.impression_id for event in events})
    sql = """select impression_id, annotator_id, project_id, task, left_completion_id, right_completion_id
             from impressions where impression_id in (select unnest(?::varchar[]))"""
    return {row["impression_id"]: _Shown(**row) for row in cursor.rows(sql, [ids])}


def _said(cursor: Cursor, events: Sequence[LabelEvent]) -> dict[str, _Said]:
    """What is stored under the events' ids."""
    ids = sorted({event_id for event in events if (event_id := _uuid(event.event_id))})
    sql = """select event_id, impression_id, annotator_id, event, preference, strength, note
             from label_events where event_id in (select unnest(?::uuid[]))"""
    return {row.pop("event_id"): _Said(**row) for row in cursor.rows(sql, [ids])}


def _is_new(row: Mapping[str, Any], said: MutableMapping[str, _Said]) -> bool:
    """Whether nothing is known under the event's id, where it then is; BadInput when that is something else."""
    says = _Said(*(row[name] for name in _Said._fields))
    before = said.setdefault(row["event_id"], says)
    if before != says:
        raise BadInput("Another label has this id already, so this one was not stored; reload the page and give it again.")
    return before is says


def _uuid(text: str) -> str:
    """The id as it is stored; '' when it is no UUID."""
    try:
        return uuid_text(text)
    except ValueError:
        return ""


def _store(cursor: Cursor, rows: list[dict[str, Any]]) -> None:
    """`_said` has found none of the ids there, so the insert need not look again."""
    for row, seq in zip(rows, cursor.next_numbers("label_events", "seq", len(rows)), strict=True):
        row["seq"] = seq
    cursor.insert("label_events", rows, known_new=True)


def _resolved(event: LabelEvent, impressions: Mapping[str, _Shown], at: datetime) -> dict[str, Any]:
    """The event as a table row, but for its number."""
    impression = impressions.get(event.impression_id)
    if impression is None or impression.annotator_id != event.annotator_id or impression.project_id != event.project_id:
        raise BadInput("This item was never shown to you; reload the page to get new ones.")
    allowed: tuple[Preference | str, ...] = PAIRWISE_PREFERENCES if impression.task == "pairwise" else BINARY_PREFERENCES
    allowed = allowed if event.event in ("cast", "revised") else ("",)
    if event.event not in EVENTS or event.preference not in allowed:
        raise BadInput(f"{event.preference!r} is no answer to this item; reload the page.")
    event_id = _uuid(event.event_id)
    if not event_id:
        raise BadInput("A label needs a UUID of its own as its id; reload the page.")
    if len(event.note) > MAX_NOTE:
        raise BadInput(f"A note may have {MAX_NOTE} characters at most.")
    sides = resolve(event.preference, impression.left_completion_id, impression.right_completion_id)
    dwell_ms = min(max(int(event.dwell_ms), 0), MAX_DWELL_MS)
    row = to_row(event)
    row |= {"event_id": event_id, "dwell_ms": dwell_ms, "created_at": at}
    return row | {"chosen_completion_id": sides.chosen, "rejected_completion_id": sides.rejected}
