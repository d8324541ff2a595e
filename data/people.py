"""People: who labels. One row each, made when somebody is first seen; the project they have open is remembered here, not in the
browser."""

from __future__ import annotations

from data.cursor import Cursor
from data.database import Database
from data.errors import NotFound
from data.records import Person, PersonKind, from_row, now, to_row


def ensure(db: Database, annotator_id: str, name: str, kind: PersonKind) -> Person:
    """The person, made now if need be; an existing one keeps name and kind."""
    row = db.row("select * from people where annotator_id = ?", [annotator_id])
    if row is None:
        db.insert("people", [to_row(Person(annotator_id, name, kind, "", now()))])
        row = db.row("select * from people where annotator_id = ?", [annotator_id])
    if row is None:
        raise NotFound("This person was removed just now; reload the page.")
    return from_row(Person, row)


def open_project(db: Database, annotator_id: str) -> str:
    """The id of the project this person has open, '' before the first."""
    return db.cached(_open, "people").get(annotator_id, "")


def _open(db: Database) -> dict[str, str]:
    return {row["annotator_id"]: row["project_id"] for row in db.rows("select annotator_id, project_id from people")}


def set_open_project(db: Database, annotator_id: str, project_id: str) -> None:
    def change(cursor: Cursor) -> None:
        if project_id and cursor.row("select 1 from projects where project_id = ?", [project_id]) is None:
            raise NotFound("There is no such project; choose one on the Home page.")
        if not cursor.update("people", {"annotator_id": annotator_id}, project_id=project_id):
            raise NotFound("There is no such person.")

    db.write(change)


def names(db: Database) -> dict[str, str]:
    """annotator -> name, those without one left out."""
    return {row["annotator_id"]: row["name"] for row in db.rows("select annotator_id, name from people where name != ''")}
