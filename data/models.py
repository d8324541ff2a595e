"""Models: whatever can be chosen by name to write or judge text: a base, an adapter, an endpoint, a judge. Removed ones stay as
rows, for the completions and verdicts that name them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from data.database import Database
from data.errors import BadInput, NotFound
from data.records import Model, ModelKind, from_row, now, to_row

MAX_NAME = 200


def new(
    name: str,
    kind: ModelKind,
    spec: Mapping[str, Any],
    project_id: str = "",
    owner: str = "",
    run_id: str = "",
    parent_model_id: str = "",
    model_id: str = "",
) -> Model:
    """`spec` is `ModelSpec.to_json()`; `model_id` is given by callers for whom doing it twice must be doing it once."""
    return Model(model_id or uuid.uuid4().hex, project_id, owner, _name(name), kind, dict(spec), run_id, parent_model_id, now())


def add(db: Database, model: Model) -> Model:
    """Store it; an existing one with the same id is left as it is and returned."""
    db.insert("models", [to_row(model)])
    return get(db, model.model_id)


def get(db: Database, model_id: str) -> Model:
    """Removed ones too: a run may still name it."""
    row = db.row("select * from models where model_id = ?", [model_id])
    if row is None:
        raise NotFound("There is no such model; choose one on the Models page.")
    return from_row(Model, row)


def visible(db: Database, project_id: str, owner: str, kind: ModelKind | None = None) -> list[Model]:
    """Those of the project and of every project, everybody's and this owner's, oldest first, without removed ones and without
    those whose run goes on: its weights are about to change."""
    sql = """select * from models where removed_at is null and project_id in ('', $project) and owner in ('', $owner)
             and ($kind is null or kind = $kind)
             and run_id not in (select run_id from runs where status in ('queued', 'running')) order by created_at, model_id"""
    return [from_row(Model, row) for row in db.rows(sql, {"project": project_id, "owner": owner, "kind": kind})]


def is_trained(model: Model) -> bool:
    """Whether a run of this studio made it: an adapter, or a whole model."""
    return bool(model.run_id)


def merges(db: Database) -> set[str]:
    """The runs that merged an adapter into its base: what they made was trained by another one."""
    return {str(row["run_id"]) for row in db.rows("select run_id from runs where kind = 'merge'", [])}


def rename(db: Database, model_id: str, name: str) -> None:
    if not db.update("models", {"model_id": model_id}, name=_name(name)):
        raise NotFound("There is no such model; choose one on the Models page.")


def remove(db: Database, model_id: str) -> None:
    if not db.update("models", {"model_id": model_id}, removed_at=now()):
        raise NotFound("There is no such model; choose one on the Models page.")


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME:
        raise BadInput(f"A model needs a name of 1 to {MAX_NAME} characters.")
    return name
