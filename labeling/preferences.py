"""What an annotator says about an impression: cast, revise, retract, skip; appended as events and never changed.

A vote names the impression it answers and nothing else, so the side that was shown cannot be recorded wrongly; a client makes
the event's UUID, so sending it again adds nothing. `record` takes a batch and answers for each vote by itself: a bad one does
not hold up the rest.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from data import impressions, labels
from data.database import Database
from data.errors import BadInput
from data.records import Impression, LabelEvent, LabelEventType, Preference

REVEALED = "compare"  # the policy of impressions whose authors are shown after the vote, which is therefore final


@dataclass(frozen=True)
class Vote:
    """One event as a client sends it; nothing in it is trusted yet. `preference` is '' for a retraction."""

    event_id: str
    impression_id: str
    event: str
    preference: str = ""
    note: str = ""
    dwell_ms: int = 0
    client_at: datetime | None = None


class Outcome(NamedTuple):
    """`accepted`: stored (now or earlier). Otherwise `reason` says why not, in words; sending the same again will not help."""

    event_id: str
    accepted: bool
    reason: str


class Past(NamedTuple):
    """A label that stands."""

    impression: Impression
    preference: Preference


def history(db: Database, annotator_id: str, project_id: str, n: int) -> list[Past]:
    """This annotator's last `n` labels that stand and may be taken back, newest first."""
    sql = """
        select l.impression_id, l.preference
        from current_labels l join impressions i using (impression_id) join projects p on p.project_id = l.project_id
        where l.annotator_id = ? and l.project_id = ? and i.kind != 'imported' and i.policy != ? and i.task = p.task
        order by l.seq desc limit ?
    """
    found = db.rows(sql, (annotator_id, project_id, REVEALED, n))
    shown = {i.impression_id: i for i in impressions.get_many(db, [row["impression_id"] for row in found])}
    return [Past(shown[row["impression_id"]], row["preference"]) for row in found]


def record(db: Database, annotator_id: str, votes: Sequence[Vote], simulated: bool = False) -> list[Outcome]:
    """Store what is valid in one transaction; one outcome per vote, in order. Returns after the commit."""
    served = {i.impression_id: i for i in impressions.get_many(db, list({v.impression_id for v in votes}))}
    reasons = [_refusal(vote, served.get(vote.impression_id), annotator_id) for vote in votes]
    events = [_event(v, served[v.impression_id], simulated) for v, reason in zip(votes, reasons, strict=True) if not reason]
    stored = iter(labels.append_each(db, events))
    reasons = [reason or next(stored).problem for reason in reasons]
    return [Outcome(vote.event_id, not reason, reason) for vote, reason in zip(votes, reasons, strict=True)]


def cast(
    db: Database, annotator_id: str, impression_id: str, preference: Preference, note: str = "", simulated: bool = False
) -> str:
    """The new event's id; BadInput when the preference cannot be stored."""
    return _one(db, annotator_id, impression_id, "cast", preference, note, simulated)


def revise(
    db: Database, annotator_id: str, impression_id: str, preference: Preference, note: str = "", simulated: bool = False
) -> str:
    return _one(db, annotator_id, impression_id, "revised", preference, note, simulated)


def retract(db: Database, annotator_id: str, impression_id: str, simulated: bool = False) -> str:
    """Take the label back: the impression counts as not labelled, its history stays."""
    return _one(db, annotator_id, impression_id, "retracted", "", "", simulated)


def skip(db: Database, annotator_id: str, impression_id: str, note: str = "", simulated: bool = False) -> str:
    return _one(db, annotator_id, impression_id, "cast", "skip", note, simulated)


def _one(
    db: Database, annotator_id: str, impression_id: str, event: LabelEventType, preference: str, note: str, simulated: bool
) -> str:
    vote = Vote(str(uuid.uuid4()), impression_id, event, preference, note, client_at=datetime.now(UTC))
    outcome = record(db, annotator_id, [vote], simulated)[0]
    if not outcome.accepted:
        raise BadInput(outcome.reason)
    return outcome.event_id


def _refusal(vote: Vote, impression: Impression | None, annotator_id: str) -> str:
    """Why this vote cannot be stored, '' when that is for `data/labels.py` to say."""
    if impression is None or impression.annotator_id != annotator_id:
        return "This item was not shown to you, so your label for it was not stored."
    if vote.event not in ("cast", "revised", "retracted"):
        return f"“{vote.event[:40]}” is nothing that can be done to a label."
    if impression.policy == REVEALED and vote.event != "cast":
        return "Who wrote the answers has been shown since, so this label stays as it was given."
    if vote.note.encode("utf-8", "replace").decode() != vote.note:
        return "The note holds half a character and cannot be stored; write it again."
    return ""


def _event(vote: Vote, impression: Impression, simulated: bool) -> LabelEvent:
    return LabelEvent(
        event_id=vote.event_id,
        impression_id=impression.impression_id,
        project_id=impression.project_id,
        annotator_id=impression.annotator_id,
        event=vote.event,  # type: ignore[arg-type]
        preference=vote.preference,  # type: ignore[arg-type]
        note=vote.note,
        dwell_ms=vote.dwell_ms,
        simulated=simulated,
        client_at=vote.client_at,
    )
