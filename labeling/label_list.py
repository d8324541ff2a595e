"""Labels to look at: those with a flag, of a person, of some days, counting or left out; and what stands behind one of them.

The same filter that lists labels also names those that are left out or let in again in bulk, so what is changed is what was shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from data.database import Database
from data.errors import BadInput
from data.records import Flag, Preference, Project

State = Literal["counts", "left_out"]
MOST_AT_ONCE = 20_000
LINE = ("prompt_id", "annotator", "said", "flags", "seconds", "at", "left_out_because")


@dataclass(frozen=True)
class Wanted:
    """`flag`: "any" = with some flag, "all" = flagged or not. `annotator` '' = everybody. Days are UTC, both included."""

    flag: Flag | Literal["any", "all"] = "any"
    annotator: str = ""
    first: date | None = None
    last: date | None = None
    state: State = "counts"


class Listed(NamedTuple):
    """`actor` and `reason` are those of whoever left it out, '' where nobody did."""

    impression_id: str
    annotator_id: str
    prompt_id: str
    left: str
    right: str
    preference: Preference
    flags: tuple[Flag, ...]
    dwell_ms: int
    note: str
    at: datetime
    actor: str
    reason: str


_FOUND = """
    with own as (
        select * from label_events where project_id = $project and event in ('cast', 'revised', 'retracted')
        qualify row_number() over (partition by impression_id order by seq desc) = 1
    ), decided as (
        select impression_id, arg_max(event, seq) = 'excluded' as is_out, arg_max(actor, seq) as actor, arg_max(note, seq) as reason
        from label_events where project_id = $project and event in ('excluded', 'restored') group by impression_id
    )
    select own.impression_id, own.annotator_id, i.prompt_id, i.left_completion_id as "left", i.right_completion_id as "right",
           own.preference, own.flags, own.dwell_ms, own.note, own.created_at as said_at, own.seq as seq,
           if(coalesce(is_out, false), decided.actor, '') as actor, if(coalesce(is_out, false), reason, '') as reason
    from own join impressions i using (impression_id) left join decided using (impression_id)
    where own.event != 'retracted' and i.task = $task and coalesce(is_out, false) = $is_out
"""


def find(db: Database, project: Project, wanted: Wanted, limit: int, offset: int = 0) -> list[Listed]:
    """Newest first."""
    sql, bound = _filtered(project, wanted)
    rows = db.rows(f"{sql} order by own.seq desc limit $limit offset $offset", bound | {"limit": limit, "offset": offset})
    return [_listed(row) for row in rows]


def lines(db: Database, project: Project, wanted: Wanted, names: Mapping[str, str]) -> Iterator[tuple[object, ...]]:
    """All that match, newest first, as LINE: for files, so words are put together in the database and a million take seconds.
    `names`: what each annotator is called there. What is said while they are read is not among them."""
    sql, bound = _filtered(project, wanted)
    sql = f"""select prompt_id, who.name, preference, array_to_string(json_extract_string(flags, '$[*]'), ' '), dwell_ms / 1000,
                     strftime(make_timestamp(epoch_us(said_at)), '%Y-%m-%d %H:%M:%S.%f+00:00'), reason
              from ({sql}) join (select unnest($ids::varchar[]) as annotator_id, unnest($names::varchar[]) as name) who
              using (annotator_id) order by seq desc"""
    return db.stream(sql, bound | {"ids": list(names), "names": list(names.values())})


def count(db: Database, project: Project, wanted: Wanted) -> int:
    sql, bound = _filtered(project, wanted)
    return int(db.value(f"select count(*) from ({sql})", bound))


def ids(db: Database, project: Project, wanted: Wanted) -> list[str]:
    """Of all that match; BadInput when they are more than may be changed at once."""
    sql, bound = _filtered(project, wanted)
    found = [row["impression_id"] for row in db.rows(f"{sql} limit $limit", bound | {"limit": MOST_AT_ONCE + 1})]
    if len(found) > MOST_AT_ONCE:
        raise BadInput(f"At most {MOST_AT_ONCE:,} labels are changed at once; choose fewer days or one person.")
    return found


def get(db: Database, project: Project, impression_id: str) -> Listed | None:
    """One label whether it counts or not; None when the project has none of this id."""
    for state in get_args(State):
        sql, bound = _filtered(project, Wanted("all", state=state))
        rows = db.rows(f"{sql} and own.impression_id = $one", bound | {"one": impression_id})
        if rows:
            return _listed(rows[0])
    return None


def _listed(row: dict[str, Any]) -> Listed:
    at, _ = row.pop("said_at"), row.pop("seq")
    return Listed(**{**row, "at": at, "flags": tuple(json.loads(row["flags"]))})


def _filtered(project: Project, wanted: Wanted) -> tuple[str, dict[str, object]]:
    bound: dict[str, object] = {"project": project.project_id, "task": project.task, "is_out": wanted.state == "left_out"}
    sql = _FOUND
    if wanted.flag == "any":
        sql += " and own.flags != '[]'"
    elif wanted.flag != "all":
        sql += " and contains(own.flags, $flag)"
        bound["flag"] = f'"{wanted.flag}"'
    if wanted.annotator:
        sql += " and own.annotator_id = $annotator"
        bound["annotator"] = wanted.annotator
    if wanted.first:
        sql += " and own.created_at >= $first"
        bound["first"] = wanted.first
    if wanted.last:
        sql += " and own.created_at < $after"
        bound["after"] = wanted.last + timedelta(days=1)
    return sql, bound


def day(text: str | None) -> date | None:
    """ "2026-11-23"; None for nothing, BadInput for anything else."""
    if not text or not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"“{text.strip()[:40]}” is no day; write it like 2026-11-23.") from None
