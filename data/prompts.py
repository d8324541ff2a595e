"""Prompts: what is asked. A prompt is its messages: the id is their hash within the project, so the same import twice adds nothing,
and so is the split, so that no prompt is ever trained on and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from data.cursor import Cursor
from data.database import Database
from data.engine import Message
from data.errors import BadInput, NotFound
from data.lookup import among
from data.records import Prompt, Split, content_id, from_row, now, to_row
from data.splits import split_of

# What a comparison wrote is the judge's business and no candidate.
_UNANSWERED = """p.project_id = ? and not exists (
    select 1 from completions c where c.prompt_id = p.prompt_id
    and c.run_id not in (select run_id from runs where kind = 'compare'))"""

_TEXT = "array_to_string(json_extract_string(messages, '$[*].content'), chr(10))"  # of all messages
WITH_WORDS = f"select prompt_id from prompts where project_id = $project and contains(lower({_TEXT}), lower($search))"


def new(
    project_id: str,
    messages: Sequence[Message],
    follow_up: Sequence[str] = (),
    reference: str = "",
    category: str = "",
    source: str = "",
    external_id: str = "",
) -> Prompt:
    """A prompt with its id and split; BadInput unless it ends with a user turn that says something."""
    turns = tuple(Message(m.role, m.content) for m in messages)
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise BadInput("A prompt needs at least one message and must end with a user's turn that is not empty.")
    if any(m.role not in ("system", "user", "assistant") for m in turns):
        raise BadInput("A message's role must be system, user or assistant.")
    return Prompt(
        prompt_id=content_id(project_id, [m._asdict() for m in turns], list(follow_up)),
        project_id=project_id,
        messages=turns,
        follow_up=tuple(follow_up),
        reference=reference,
        category=category,
        source=source,
        external_id=external_id,
        split=split_of("".join(m.content for m in turns if m.role == "user")),
        created_at=now(),
    )


def add(db: Database, prompts: Sequence[Prompt]) -> int:
    """Store them; how many were new."""

    def store(cursor: Cursor) -> int:
        must_have_projects(cursor, {p.project_id for p in prompts})
        return len(cursor.insert("prompts", [to_row(p) for p in prompts]))

    return db.write(store) if prompts else 0


def must_have_projects(cursor: Cursor, project_ids: set[str]) -> None:
    """NotFound when one of the projects does not exist (any more): there are no foreign keys."""
    found = cursor.rows("select project_id from projects where project_id in (select unnest(?::varchar[]))", [sorted(project_ids)])
    if len(found) != len(project_ids):
        raise NotFound("The project does not exist any more; nothing was stored.")


def get(db: Database, prompt_id: str) -> Prompt:
    row = db.row("select * from prompts where prompt_id = ?", [prompt_id])
    if row is None:
        raise NotFound("There is no such prompt.")
    return from_row(Prompt, row)


def get_many(db: Database, prompt_ids: Sequence[str]) -> list[Prompt]:
    """Those that exist, in no particular order."""
    if not prompt_ids:
        return []
    marks, params = among(prompt_ids)
    return [from_row(Prompt, row) for row in db.rows(f"select * from prompts where prompt_id in {marks}", params)]


def of_project(
    db: Database, project_id: str, split: Split | None = None, limit: int | None = None, offset: int = 0, search: str = ""
) -> list[Prompt]:
    """In the order of import. `search` looks for its letters, whatever their case, in the text of any message."""
    where, params = _where(project_id, split, search)
    sql = f"select * from prompts where {where} order by created_at, prompt_id limit ? offset ?"
    return [from_row(Prompt, row) for row in db.rows(sql, [*params, limit, offset])]


def unanswered(db: Database, project_id: str, limit: int | None = None) -> list[Prompt]:
    """Those that have no candidate yet, the newest import first and each import in its own order."""
    sql = f"""select * exclude (newest) from (
                select *, max(created_at) over (partition by source) as newest from prompts p where {_UNANSWERED}
              ) order by newest desc, created_at, prompt_id limit ?"""
    return [from_row(Prompt, row) for row in db.rows(sql, [project_id, limit])]


def waiting(db: Database, project_id: str, since: datetime | None = None) -> int:
    """How many that somebody brought (after `since`) have no candidate yet; the demo's own prompts are not counted."""
    sql = f"select count(*) from prompts p where {_UNANSWERED} and source != 'demo' and (? is null or created_at > ?)"
    return int(db.value(sql, [project_id, since, since]))


def labelled(db: Database, project_id: str, limit: int | None = None) -> list[Prompt]:
    """Those of which an answer has a label that stands, in the order of import."""
    sql = """select * from prompts where prompt_id in (
                 select i.prompt_id from current_labels l join impressions i using (impression_id) where l.project_id = ?)
             order by created_at, prompt_id limit ?"""
    return [from_row(Prompt, row) for row in db.rows(sql, [project_id, limit])]


def count(db: Database, project_id: str, split: Split | None = None, search: str = "") -> int:
    where, params = _where(project_id, split, search)
    return int(db.value(f"select count(*) from prompts where {where}", params))


def _where(project_id: str, split: Split | None, search: str) -> tuple[str, list[object]]:
    where, params = "project_id = ?", [project_id]
    if split is not None:
        where, params = where + " and split = ?", [*params, split]
    if search.strip():
        where, params = f"{where} and contains(lower({_TEXT}), lower(?))", [*params, search.strip()]
    return where, list(params)
