"""Projects: what one team labels and trains towards. Archived ones are hidden, never destroyed; a visitor's throw-away one is
destroyed."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from typing import NamedTuple, get_args

from data.cursor import Cursor
from data.database import Database
from data.errors import BadInput, NotFound, RunError
from data.records import Policy, Project, ProjectSettings, Task, from_row, now, to_row
from data.validity import check_patterns

MAX_NAME = 200
MAX_OVERLAP = 20
MAX_WORDS = 100
MIN_RANDOM_SHARE = 0.25
TABLES = (
    "prompts", "completions", "pairs", "impressions", "label_events", "gold", "adjudications", "members", "models", "snapshots",
    "runs", "judgments", "projects",
)  # fmt: skip


class Counts(NamedTuple):
    """What Home shows. `labels` are current ones, `decided` those of them that say something (no skip). Of the models that runs
    made, `adapters` answer (adapters and whole models), `reward_models` score, and `merged` are copies of the first."""

    prompts: int
    held_out: int
    completions: int
    pairs: int
    labels: int
    decided: int
    runs: int
    active_runs: int
    adapters: int
    reward_models: int
    merged: int
    comparisons: int  # finished compare runs

    @property
    def made(self) -> int:
        """Models that runs made, of any kind."""
        return self.adapters + self.reward_models + self.merged


def create(
    db: Database,
    name: str,
    task: Task = "pairwise",
    owner: str = "",
    guidelines: str = "",
    is_demo: bool = False,
    settings: ProjectSettings = ProjectSettings(),
) -> Project:
    project = Project(uuid.uuid4().hex, _name(name), _task(task), guidelines, owner, is_demo, now(), settings=settings)
    db.insert("projects", [to_row(project)])
    return project


def get(db: Database, project_id: str) -> Project:
    project = db.cached(_all, "projects").get(project_id)
    if project is None:
        raise NotFound("There is no such project; choose one on the Home page.")
    return project


def _all(db: Database) -> dict[str, Project]:
    """Every request asks for a project, so they are kept in memory. Oldest first."""
    rows = db.rows("select * from projects order by created_at, project_id")
    return {row["project_id"]: from_row(Project, row) for row in rows}


def visible(db: Database, owner: str = "") -> list[Project]:
    """The projects of this owner ('' = everybody's), oldest first, without archived ones."""
    return [p for p in db.cached(_all, "projects").values() if p.owner == owner and p.archived_at is None]


def archived(db: Database, owner: str = "") -> list[Project]:
    """The hidden ones, last hidden first."""
    sql = "select * from projects where owner = ? and archived_at is not null order by archived_at desc, project_id"
    return [from_row(Project, row) for row in db.rows(sql, [owner])]


def rename(db: Database, project_id: str, name: str) -> None:
    _must_exist(db.update("projects", {"project_id": project_id}, name=_name(name)))


def change(db: Database, project_id: str, settings: ProjectSettings, guidelines: str | None = None) -> None:
    """New settings, and guidelines if given; they count from now on. BadInput in words for what cannot be."""
    _check(settings)
    fields = {"settings": json.dumps(asdict(settings), ensure_ascii=False)}
    if guidelines is not None:
        fields["guidelines"] = guidelines
    _must_exist(db.update("projects", {"project_id": project_id}, **fields))


def archive(db: Database, project_id: str) -> None:
    _must_exist(db.update("projects", {"project_id": project_id}, archived_at=now()))


def bring_back(db: Database, project_id: str) -> None:
    """Show an archived project again."""
    _must_exist(db.update("projects", {"project_id": project_id}, archived_at=None))


def destroy(db: Database, project_id: str) -> list[str]:
    """Delete a throw-away project (one with an owner) and all its rows; returns the ids of its runs, whose folders are the
    caller's."""

    def everything(cursor: Cursor) -> list[str]:
        owner = cursor.value("select owner from projects where project_id = ?", [project_id])
        if owner is None:
            raise NotFound("There is no such project.")
        if not owner:
            raise BadInput("Only a visitor's throw-away project can be destroyed; archive this one instead.")
        runs = cursor.rows("select run_id, status from runs where project_id = ?", [project_id])
        if any(run["status"] in ("queued", "running") for run in runs):
            raise RunError("A run of this project is still going; stop it first.")
        for table in TABLES:
            cursor.delete(table, {"project_id": project_id})
        if cursor.value("select count(*) from projects where owner = ?", [owner]) == 0:
            cursor.delete("people", {"annotator_id": owner})
            cursor.delete("models", {"owner": owner})
        return [run["run_id"] for run in runs]

    return db.write(everything)


def counts(db: Database, project_id: str) -> Counts:
    """One statement, so that the numbers belong together."""
    sql = """
    with made as (
        select case when m.kind = 'reward' then 'reward' when r.kind = 'merge' then 'merged' else 'adapter' end as kind
        from models m left join runs r on r.run_id = m.run_id
        where m.project_id = $p and m.run_id != '' and m.removed_at is null
    )
    select
        (select count(*) from prompts where project_id = $p) as prompts,
        (select count(*) from prompts where project_id = $p and split = 'held_out') as held_out,
        (select count(*) from completions where project_id = $p) as completions,
        (select count(*) from pairs where project_id = $p) as pairs,
        (select count(*) from current_labels where project_id = $p) as labels,
        (select count(*) from current_labels where project_id = $p and preference != 'skip') as decided,
        (select count(*) from runs where project_id = $p) as runs,
        (select count(*) from runs where project_id = $p and status in ('queued', 'running')) as active_runs,
        (select count(*) from made where kind = 'adapter') as adapters,
        (select count(*) from made where kind = 'reward') as reward_models,
        (select count(*) from made where kind = 'merged') as merged,
        (select count(*) from runs where project_id = $p and kind = 'compare' and status = 'finished') as comparisons
    """
    row = db.row(sql, {"p": project_id})
    assert row is not None
    return Counts(**row)


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME:
        raise BadInput(f"A project needs a name of 1 to {MAX_NAME} characters.")
    return name


def _task(task: Task) -> Task:
    if task not in ("pairwise", "binary"):
        raise BadInput(f"A project's task is pairwise or binary, not {task!r}.")
    return task


def _check(s: ProjectSettings) -> None:
    if not 1 <= s.overlap <= MAX_OVERLAP or not s.overlap <= s.max_overlap <= MAX_OVERLAP:
        raise BadInput(f"Labels an item needs: 1 to {MAX_OVERLAP}, and at most no fewer than at least.")
    for name, share, most in (
        ("gold", s.gold_rate, 0.5),
        ("repeats", s.repeat_rate, 0.5),
        ("items with full overlap", s.full_overlap, 1.0),
    ):
        if not 0 <= share <= most:
            raise BadInput(f"The share of {name} is a number from 0 to {most:g}.")
    if not MIN_RANDOM_SHARE <= s.random_share <= 1:
        raise BadInput(f"At least {MIN_RANDOM_SHARE:.0%} is drawn at random, or the labels would say little about the whole.")
    if s.policy not in get_args(Policy):
        raise BadInput(f"There is no order called {s.policy!r}.")
    if s.target < 0:
        raise BadInput("The number of labels wanted is 0 (all) or more.")
    for words in (s.reasons, s.sources, s.leak_phrases):
        if len(words) > MAX_WORDS or any(not w.strip() or len(w) > MAX_NAME for w in words):
            raise BadInput(f"A list holds at most {MAX_WORDS} entries of 1 to {MAX_NAME} characters.")
    check_patterns(s.leak_phrases)


def _must_exist(found: int) -> None:
    if not found:
        raise NotFound("There is no such project; choose one on the Home page.")
