"""Gold: items whose right answer is known. Shown now and then like any other item, they tell how well somebody labels.

Append-only: the newest row of an item counts, an empty outcome withdraws it. A gold item asks for no more labels of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Literal, NamedTuple

from data import items, prompts
from data.cursor import Cursor
from data.database import Database
from data.errors import BadInput
from data.records import Gold, Outcome, from_row, now, to_row

Source = Literal["entered", "unanimous"]
MIN_UNANIMOUS = 3
MAX_NOTE = 10_000


class Suggestion(NamedTuple):
    """An item on which all `labels` people agree, one `among` so many."""

    item_id: str
    prompt_id: str
    outcome: Outcome
    labels: int
    among: int


def add(
    db: Database, project_id: str, item_id: str, outcome: Outcome, actor: str, source: Source = "entered", note: str = ""
) -> Gold:
    """Make an item gold, or change its right answer. BadInput without a name or with a word its task does not have."""
    if not outcome:
        raise BadInput("Say what the right answer is.")
    return _append(db, project_id, item_id, outcome, actor, source, note)


def withdraw(db: Database, project_id: str, item_id: str, actor: str, note: str = "") -> Gold:
    """The item is gold no more; what people answered to it stays."""
    return _append(db, project_id, item_id, "", actor, "entered", note)


def current(db: Database, project_id: str) -> list[Gold]:
    """One row an item, those that were withdrawn left out."""
    sql = """select * from (
                 select *, row_number() over (partition by item_id order by created_at desc, gold_id) as newest
                 from gold where project_id = ?
             ) where newest = 1 and outcome != '' order by created_at, gold_id"""
    return [from_row(Gold, row) for row in db.rows(sql, [project_id])]


def suggest(
    db: Database, project_id: str, k: int = MIN_UNANIMOUS, search: str = "", limit: int | None = None, offset: int = 0
) -> Iterator[Suggestion]:
    """Items on which at least `k` people agree without exception, most people first, all without a `limit`; not those that are or
    were gold. `search`: only those with these words in their prompt."""
    sql = f"""
        select item_id, any_value(prompt_id), any_value(outcome), count(*) as labels, count(*) over ()
        from ({items.SAID})
        where item_id not in (select item_id from gold where project_id = $project)
              and ($search = '' or prompt_id in ({prompts.WITH_WORDS}))
        group by item_id having count(*) >= $k and count(distinct outcome) = 1
        order by labels desc, item_id limit $limit offset $offset
    """
    bound = {"project": project_id, "k": k, "search": search, "limit": limit, "offset": offset}
    return (Suggestion(*row) for row in db.stream(sql, bound))


def agreed(db: Database, project_id: str, item_id: str, k: int = MIN_UNANIMOUS) -> Outcome | Literal[""]:
    """What at least `k` people say of this item without exception, '' when there is nothing."""
    sql = f"""select any_value(outcome) as outcome from ({items.SAID}) where item_id = $item
              having count(*) >= $k and count(distinct outcome) = 1"""
    found: Outcome | None = db.value(sql, {"project": project_id, "item": item_id, "k": k})
    return found or ""


def _append(
    db: Database, project_id: str, item_id: str, outcome: Outcome | Literal[""], actor: str, source: Source, note: str
) -> Gold:
    if not actor.strip():
        raise BadInput("Whoever decides what is right must be named.")
    if len(note) > MAX_NOTE:
        raise BadInput(f"A note may have {MAX_NOTE} characters at most.")

    def store(cursor: Cursor) -> Gold:
        items.check(cursor, project_id, item_id, outcome)
        made = Gold(secrets.token_hex(12), project_id, item_id, outcome, source, actor, note, now())
        cursor.insert("gold", [to_row(made)])
        return made

    return db.write(store)
