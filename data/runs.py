"""Runs: one row per child-process job. The row is what pages read; the run folder is what the child writes (`data/rundir.py`)."""

from __future__ import annotations

from typing import Any

from data.cursor import Cursor
from data.database import Database
from data.errors import NotFound
from data.prompts import must_have_projects
from data.records import JSON_FIELDS, Run, from_row, to_row


def add(db: Database, run: Run) -> Run:
    """NotFound when its project is not there (any more)."""

    def store(cursor: Cursor) -> None:
        must_have_projects(cursor, {run.project_id})
        cursor.insert("runs", [to_row(run)])

    db.write(store)
    return run


def get(db: Database, run_id: str) -> Run:
    row = db.row("select * from runs where run_id = ?", [run_id])
    if row is None:
        raise NotFound("There is no such run; choose one on the Runs page.")
    return from_row(Run, row)


def of_project(db: Database, project_id: str, limit: int | None = None) -> list[Run]:
    """Newest first."""
    sql = "select * from runs where project_id = ? order by queued_at desc, run_id limit ?"
    return [from_row(Run, row) for row in db.rows(sql, [project_id, limit])]


def active(db: Database) -> list[Run]:
    """Queued and running ones of all projects, in the order of the queue."""
    sql = "select * from runs where status in ('queued', 'running') order by place, queued_at, run_id"
    return [from_row(Run, row) for row in db.rows(sql)]


def of_group(db: Database, group_id: str) -> list[Run]:
    """Runs that were started together, in the order of their start; none for ''."""
    sql = "select * from runs where group_id = ? and group_id != '' order by queued_at, run_id"
    return [from_row(Run, row) for row in db.rows(sql, [group_id])]


def update(db: Database, run_id: str, **fields: Any) -> None:
    """JSON fields take dicts. NotFound when the run is gone."""
    unknown = fields.keys() - Run.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"no field of a run: {sorted(unknown)}")
    assert all(isinstance(value, dict) for name, value in fields.items() if name in JSON_FIELDS)
    if not db.update("runs", {"run_id": run_id}, **fields):
        raise NotFound("There is no such run (any more).")
