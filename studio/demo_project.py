"""The demo project and the demo model's rows: what is there when the app starts for the first time.

Prompts and four candidates for some of them ship with the app (`data/demo`), so that a first label is one click away and
needs no model. A visitor's throw-away project is made of the same files, smaller. The model's path is set again at each
start: the app may have moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data import completions, models, projects, prompts
from data.database import Database
from data.engine import Message, ModelSpec
from data.errors import WorkspaceError
from data.records import Completion, Project, Prompt

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo"
MODEL = DEMO / "model"
MODEL_ID = "demo-model"
JUDGE_ID = "demo-judge"
NAME = "Demo: short answers"
GUIDELINES = (
    "Choose the answer that is right, does exactly what was asked and is polite. Prefer the shorter one when both are equally good."
)


class DemoRow(NamedTuple):
    """A prompt of the demo with its shipped candidates."""

    prompt: str
    category: str
    candidates: tuple[dict[str, Any], ...]


def ensure_models(db: Database) -> None:
    """The demo model as a base and as a judge; adds them once and keeps their path true."""
    if not (MODEL / "config.json").is_file():
        return
    spec = ModelSpec(kind="local", base=str(MODEL)).to_json()
    models.add(db, models.new("Demo model", "base", spec, model_id=MODEL_ID))
    models.add(db, models.new("Demo judge", "judge", spec, model_id=JUDGE_ID))
    for model_id in (MODEL_ID, JUDGE_ID):
        if models.get(db, model_id).spec != spec:
            db.update("models", {"model_id": model_id}, spec=spec)


def ensure_project(db: Database) -> None:
    """The shared demo project, at the very first start only: one that was archived does not come back."""
    if db.value("select count(*) from projects where owner = ''") == 0:
        create(db)


def create(db: Database, owner: str = "", without_candidates: int | None = None) -> Project:
    """A project from the shipped files; `without_candidates` caps the prompts that come with none."""
    chosen = _trim(list(_read()), without_candidates)
    if not chosen:
        raise WorkspaceError("The demo's files are missing from data/demo; check out the app again.")
    project = projects.create(db, NAME, "pairwise", owner, GUIDELINES, is_demo=True)
    asked = [prompts.new(project.project_id, [Message("user", row.prompt)], category=row.category, source="demo") for row in chosen]
    prompts.add(db, asked)
    completions.add(db, [c for prompt, row in zip(asked, chosen, strict=True) for c in _completions(prompt, row)])
    return project


def _completions(prompt: Prompt, row: DemoRow) -> Iterator[Completion]:
    for index, raw in enumerate(row.candidates):
        yield completions.new(
            prompt,
            raw["text"],
            "generated",
            "Demo model",
            MODEL_ID,
            sampling=raw.get("sampling", {}),
            seed=raw.get("seed", 0),
            sample_index=raw.get("sample_index", index),
            finish_reason=raw.get("finish_reason", "stop"),
        )


def _trim(rows: list[DemoRow], without_candidates: int | None) -> list[DemoRow]:
    if without_candidates is None:
        return rows
    bare = [row for row in rows if not row.candidates][:without_candidates]
    return [row for row in rows if row.candidates] + bare


def _read() -> Iterator[DemoRow]:
    candidates: dict[str, list[dict[str, Any]]] = {}
    if (DEMO / "candidates.jsonl").is_file():
        for raw in _lines(DEMO / "candidates.jsonl"):
            candidates.setdefault(raw["prompt"], []).extend(raw["completions"])
    for raw in _lines(DEMO / "prompts.jsonl"):
        yield DemoRow(raw["prompt"], raw["family"], tuple(candidates.get(raw["prompt"], ())))


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)
