"""Adjudications: a researcher's decision, with a reason, on an item the annotators disagree on. Append-only; the newest row of an
item counts, an empty outcome takes the decision back. What the annotators said stays as they said it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
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
    """An item on which people differ and nobody has decided yet. `majority` is '' when no answer leads; `among`: how many wait."""

    item_id: str
    prompt_id: str
    said: tuple[Said, ...]
    majority: Outcome | Literal[""]
    among: int


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


def open_items(db: Database, project_id: str, limit: int | None = None, offset: int = 0) -> Iterator[OpenItem]:
    """What waits for a decision, all of it without a `limit`: items without a majority first, then those with most labels."""
    sql = f"""
        with said as not materialized ({items.SAID}),
        counts as (select item_id, outcome, count(*) as n from said group by all),
        decided as (
            select item_id from adjudications where project_id = $project
            group by item_id having arg_max(outcome, created_at) != ''
        ),
        differ as (
            select item_id, list_reverse_sort(list(n)) as ns, if(ns[1] > ns[2], arg_max(outcome, n), '') as majority,
                   sum(n) as labels, count(*) over () as among
            from counts where item_id not in (select item_id from decided)
            group by item_id having count(*) > 1 order by majority != '', labels desc, item_id limit $limit offset $offset
        )
        select d.item_id, any_value(s.prompt_id), to_json(list([s.annotator_id, s.outcome] order by s.annotator_id)),
               any_value(d.majority), any_value(d.among)
        from differ d join said s using (item_id)
        group by d.item_id order by any_value(d.majority) != '', any_value(d.labels) desc, d.item_id
    """
    for item_id, prompt_id, said, *rest in db.stream(sql, {"project": project_id, "limit": limit, "offset": offset}):
        yield OpenItem(item_id, prompt_id, tuple(Said(*one) for one in json.loads(said)), *rest)
