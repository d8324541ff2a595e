"""Members: which projects an annotator labels. Researchers and admins see every project and need no row here."""

from __future__ import annotations

from collections import defaultdict

from data.cursor import Cursor
from data.database import Database
from data.errors import NotFound
from data.records import Member, content_id, now, to_row


def add(db: Database, project_id: str, annotator_id: str) -> None:
    """Doing it twice is doing it once; somebody who was removed comes back."""
    db.write(lambda cursor: add_in(cursor, project_id, annotator_id))


def add_in(cursor: Cursor, project_id: str, annotator_id: str) -> None:
    """The same inside a write that is going on."""
    if cursor.row("select 1 from projects where project_id = ?", [project_id]) is None:
        raise NotFound("There is no such project any more; reload the page.")
    member_id = content_id(project_id, annotator_id)
    if not cursor.insert("members", [to_row(Member(member_id, project_id, annotator_id, now()))]):
        cursor.update("members", {"member_id": member_id}, removed_at=None)


def remove(db: Database, project_id: str, annotator_id: str) -> None:
    """They are shown nothing more of it; what they labelled stays."""
    db.update("members", {"member_id": content_id(project_id, annotator_id)}, removed_at=now())


def by_annotator(db: Database) -> dict[str, tuple[str, ...]]:
    """annotator's id -> ids of their projects, in the order in which they joined."""
    found: dict[str, list[str]] = defaultdict(list)
    sql = "select annotator_id, project_id from members where removed_at is null order by added_at, project_id"
    for row in db.rows(sql):
        found[row["annotator_id"]].append(row["project_id"])
    return {annotator_id: tuple(ids) for annotator_id, ids in found.items()}
