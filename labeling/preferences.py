"""What an annotator says about an impression: cast, revise, retract, skip; appended as events and never changed.

A vote names the impression it answers and nothing else, so the side that was shown cannot be recorded wrongly; a client makes
the event's UUID, so sending it again adds nothing. `record` takes a batch and answers for each vote by itself: a bad one does
not hold up the rest. What speaks against trusting a vote is worked out here, from what is stored, and stored with it as flags:
nothing is refused for being quick or careless. A researcher may exclude labels, by name and with a reason, and restore them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple, get_args

from data import completions, impressions, labels, projects
from data.completions import Facts
from data.database import Database
from data.errors import BadInput, NotFound
from data.records import Flag, Impression, LabelEvent, LabelEventType, Preference, ProjectSettings, Strength
from labeling.assignment import Assignment
from labeling.quality import flags_of_vote

REVEALED = "compare"  # the policy of impressions whose authors are shown after the vote, which is therefore final


@dataclass(frozen=True)
class Vote:
    """One event as a client sends it; nothing in it is trusted yet. `preference` is '' for a retraction; `dwell_ms` (time on the
    screen) and `read_share` (of the text seen least) are None where nobody measured them."""

    event_id: str
    impression_id: str
    event: str
    preference: str = ""
    note: str = ""
    dwell_ms: int | None = None
    client_at: datetime | None = None
    strength: str = ""
    reasons: tuple[str, ...] = ()
    read_share: float | None = None
    reported: bool = False  # the annotator says that something is wrong with the item


class Outcome(NamedTuple):
    """`accepted`: stored (now or earlier). Otherwise `reason` says why not, in words; sending the same again will not help."""

    event_id: str
    accepted: bool
    reason: str


class Past(NamedTuple):
    """A label that stands; `at` is when it was given or last changed."""

    impression: Impression
    preference: Preference
    strength: Strength
    reasons: tuple[str, ...]
    note: str
    at: datetime
    reported: bool


def history(db: Database, annotator_id: str, project_id: str, n: int) -> list[Past]:
    """This annotator's last `n` labels that stand and may be taken back, newest first."""
    sql = """
        with mine as (
            select * from label_events where annotator_id = $who and project_id = $project
        ), own as (
            select * from mine where event in ('cast', 'revised', 'retracted')
            qualify row_number() over (partition by impression_id order by seq desc) = 1
        ), gone as (
            select impression_id from mine where event in ('excluded', 'restored')
            qualify row_number() over (partition by impression_id order by seq desc) = 1 and event = 'excluded'
        )
        select l.impression_id, l.preference, l.strength, l.reasons, l.note, l.created_at, l.flags
        from own l join impressions i using (impression_id) join projects p on p.project_id = l.project_id
        where l.event != 'retracted' and i.kind != 'imported' and i.policy != $revealed and i.task = p.task
              and l.impression_id not in (select impression_id from gone)
        order by l.seq desc limit $n
    """
    found = db.rows(sql, {"who": annotator_id, "project": project_id, "revealed": REVEALED, "n": n})
    shown = {i.impression_id: i for i in impressions.get_many(db, [row["impression_id"] for row in found])}
    return [
        Past(
            shown[row["impression_id"]],
            row["preference"],
            row["strength"],
            tuple(json.loads(row["reasons"])),
            row["note"],
            row["created_at"],
            "reported" in json.loads(row["flags"]),
        )
        for row in found
    ]


def record(
    db: Database, annotator_id: str, votes: Sequence[Vote], simulated: bool = False, assignment: Assignment | None = None
) -> list[Outcome]:
    """Store what is valid in one transaction; one outcome per vote, in order. Returns after the commit.

    `assignment` is asked which labels come after their item had enough; without it none is marked so.
    """
    asked = {vote.impression_id for vote in votes}
    served = assignment.on_screen(annotator_id, asked) if assignment else {}
    served |= {i.impression_id: i for i in impressions.get_many(db, list(asked - served.keys()))}
    settings = {p: projects.get(db, p).settings for p in {i.project_id for i in served.values()}}
    reasons = [_refusal(vote, served.get(vote.impression_id), annotator_id, settings) for vote in votes]
    good = [(vote, served[vote.impression_id]) for vote, reason in zip(votes, reasons, strict=True) if not reason]
    texts = completions.facts(db, {c for _, i in good for c in (i.left_completion_id, i.right_completion_id) if c})
    voting = assignment.voting([(i, vote.preference) for vote, i in good]) if assignment else nullcontext([False] * len(good))
    with voting as extra:
        marked = [(vote, i, _flags(vote, i, texts, late)) for (vote, i), late in zip(good, extra, strict=True)]
        stored = iter(labels.append_each(db, [_event(vote, i, simulated, flags) for vote, i, flags in marked]))
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


def exclude(db: Database, actor: str, impression_ids: Sequence[str], reason: str) -> int:
    """Leave these labels out of everything, as `actor` decides; how many were in until now. NotFound for an unknown one."""
    return _decide(db, actor, impression_ids, reason, "excluded")


def restore(db: Database, actor: str, impression_ids: Sequence[str], reason: str) -> int:
    """Let labels that were excluded count again; how many were out until now."""
    return _decide(db, actor, impression_ids, reason, "restored")


def _decide(db: Database, actor: str, impression_ids: Sequence[str], reason: str, event: LabelEventType) -> int:
    """An annotator's own changes neither undo nor renew an exclusion: it stands until somebody restores it."""
    if not actor.strip() or not reason.strip():
        raise BadInput("Leaving labels out, or letting them count again, needs a name and a reason.")
    ids = list(dict.fromkeys(impression_ids))
    shown = {i.impression_id: i for i in impressions.get_many(db, ids)}
    if len(shown) < len(ids):
        raise NotFound("One of these labels does not exist; nothing was changed.")
    sql = """select impression_id from label_events
             where impression_id in (select unnest(?::varchar[])) and event in ('excluded', 'restored')
             group by impression_id having arg_max(event, seq) = 'excluded'"""
    out = {row["impression_id"] for row in db.rows(sql, [ids])}
    events = [
        replace(_event(Vote(str(uuid.uuid4()), i, event, note=reason), shown[i], False, ()), actor=actor)
        for i in ids
        if (i in out) == (event == "restored")
    ]
    labels.append(db, events)
    return len(events)


def _one(
    db: Database, annotator_id: str, impression_id: str, event: LabelEventType, preference: str, note: str, simulated: bool
) -> str:
    vote = Vote(str(uuid.uuid4()), impression_id, event, preference, note, client_at=datetime.now(UTC))
    outcome = record(db, annotator_id, [vote], simulated)[0]
    if not outcome.accepted:
        raise BadInput(outcome.reason)
    return outcome.event_id


def _refusal(vote: Vote, impression: Impression | None, annotator_id: str, settings: Mapping[str, ProjectSettings]) -> str:
    """Why this vote cannot be stored, '' when that is for `data/labels.py` to say."""
    if impression is None or impression.annotator_id != annotator_id:
        return "This item was not shown to you, so your label for it was not stored."
    if vote.event not in ("cast", "revised", "retracted"):
        return f"“{vote.event[:40]}” is nothing that can be done to a label."
    if impression.policy == REVEALED and vote.event != "cast":
        return "Who wrote the answers has been shown since, so this label stays as it was given."
    if vote.note.encode("utf-8", "replace").decode() != vote.note:
        return "The note holds half a character and cannot be stored; write it again."
    if vote.strength not in get_args(Strength):
        return f"“{vote.strength[:40]}” is no strength; say slightly or clearly."
    if unknown := [reason for reason in vote.reasons if reason not in settings[impression.project_id].reasons]:
        return f"“{unknown[0][:40]}” is not among this project's reasons (any more); choose others."
    if vote.read_share is not None and not 0 <= vote.read_share <= 1:
        return "The share that was read is a number from 0 to 1."
    return ""


def _flags(vote: Vote, impression: Impression, texts: Mapping[str, Facts], extra: bool) -> tuple[Flag, ...]:
    """What speaks against trusting this vote, and what is wrong with the answers it is about."""
    if vote.event == "retracted":
        return ()
    sides = [texts[c] for c in (impression.left_completion_id, impression.right_completion_id) if c in texts]
    own = flags_of_vote(
        vote.dwell_ms,
        [side.length for side in sides],
        vote.read_share,
        skipped=vote.preference == "skip",
        identical=len(sides) == 2 and sides[0].digest == sides[1].digest,
        extra=extra,
        reported=vote.reported,
    )
    return tuple(dict.fromkeys([*own, *(flag for side in sides for flag in side.flags)]))


def _event(vote: Vote, impression: Impression, simulated: bool, flags: tuple[Flag, ...]) -> LabelEvent:
    return LabelEvent(
        event_id=vote.event_id,
        impression_id=impression.impression_id,
        project_id=impression.project_id,
        annotator_id=impression.annotator_id,
        event=vote.event,  # type: ignore[arg-type]
        preference=vote.preference,  # type: ignore[arg-type]
        note=vote.note,
        dwell_ms=vote.dwell_ms or 0,
        simulated=simulated,
        client_at=vote.client_at,
        strength=vote.strength,  # type: ignore[arg-type]
        reasons=tuple(dict.fromkeys(vote.reasons)),
        flags=flags,
        read_share=1.0 if vote.read_share is None else vote.read_share,
    )
