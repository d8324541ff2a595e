"""Adjudications: a researcher's decision, with a reason, on an item the annotators disagree on. Append-only; the newest row of an
item counts, an empty outcome takes the decision back. What the annotators said stays as they said it."""

from __future__ import annotations

import json
import secrets
from typing import Literal, NamedTuple

from data import items
from data.cursor import Cursor
from data.database import Database
from data.errors import BadInput
from data.records import Adjudication, Outcome, from_row, now, to_row

MAX_REASON = 10_000


class Said(NamedTuple):
    annotator_id: str
    outcome: Outcome


class OpenItem(NamedTuple):
    """An item on which people differ and nobody has decided yet. `majority` is '' when no answer leads."""

    item_id: str
    prompt_id: str
    said: tuple[Said, ...]
    majority: Outcome | Literal[""]


def add(db: Database, project_id: str, item_id: str, outcome: Outcome | Literal[""], reason: str, actor: str) -> Adjudication:
    """Decide an item, or with '' take the decision back; the reason and who gives it are always needed."""
    if not reason.strip() or not actor.strip():
        raise BadInput("A decision needs a reason and a name.")
    if len(reason) > MAX_REASON:
        raise BadInput(f"A reason may have {MAX_REASON} characters at most.")

    def store(cursor: Cursor) -> Adjudication:
        items.check(cursor, project_id, item_id, outcome)
        made = Adjudication(secrets.token_hex(12), project_id, item_id, outcome, reason, actor, now())
        cursor.insert("adjudications", [to_row(made)])
        return made

    return db.write(store)


def current(db: Database, project_id: str) -> list[Adjudication]:
    """One row an item, those that were taken back left out."""
    sql = """select * from (
                 select *, row_number() over (partition by item_id order by created_at desc, adjudication_id) as newest
                 from adjudications where project_id = ?
             ) where newest = 1 and outcome != '' order by created_at, adjudication_id"""
    return [from_row(Adjudication, row) for row in db.rows(sql, [project_id])]


def open_items(db: Database, project_id: str, limit: int = 500) -> list[OpenItem]:
    """What waits for a decision: items without a majority first, then those with most labels."""
    sql = f"""
        with said as materialized ({items.SAID}),
        counts as (select item_id, outcome, count(*) as n from said group by all),
        differ as (
            select item_id, arg_max(outcome, n) as top, list_reverse_sort(list(n)) as ns, sum(n) as labels
            from counts group by item_id having count(*) > 1
        ),
        decided as (
            select item_id from adjudications where project_id = $project
            group by item_id having arg_max(outcome, created_at) != ''
        )
        select d.item_id, any_value(s.prompt_id) as prompt_id, any_value(if(d.ns[1] > d.ns[2], d.top, '')) as majority,
               to_json(list([s.annotator_id, s.outcome] order by s.annotator_id)) as said
        from differ d join said s using (item_id)
        where d.item_id not in (select item_id from decided)
        group by d.item_id order by majority != '', any_value(d.labels) desc, d.item_id limit $limit
    """
    found = db.rows(sql, {"project": project_id, "limit": limit})
    return [
        OpenItem(row["item_id"], row["prompt_id"], tuple(Said(*one) for one in json.loads(row["said"])), row["majority"])
        for row in found
    ]
