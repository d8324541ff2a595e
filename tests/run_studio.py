"""A studio whose runs are `tests/jobs_child.py`, over labelled prompts: for what is about runs and not about training."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from labelling import seed_project

from data import completions, models, people, prompts, runs
from data.database import Database
from data.engine import Message
from data.records import Project, Prompt, Run, Snapshot
from data.rundir import RunDir
from data.settings import Settings
from labeling import preferences, snapshots
from labeling.assignment import Assignment
from studio import processes
from studio.context import Studio, Viewer
from studio.demo_project import MODEL_ID, ensure_models
from studio.endpoint_keys import EndpointKeys
from studio.jobs import Jobs
from studio.processes import Process
from studio.visitors import RunSize
from training.config import from_json

CHILD = "tests.jobs_child"
VIEWER = Viewer("local", "", False)
SPEC = {"kind": "local", "base": "data/demo/model", "adapter": "", "quantize": False, "url": "", "key_env": ""}


@contextmanager
def jobs_of(settings: Settings, db: Database, **options: Any) -> Iterator[Jobs]:
    """Their runs are ended with them."""
    made = Jobs(settings, db, poll_s=0.05, grace_s=0.3, **options)
    made.reconcile()
    yield made
    for run in runs.active(db):
        if run.pid:
            processes.end(Process(run.pid, run.pid_created), settings.runs_dir / run.run_id, signal.SIGKILL)
    made.close()


def begin(jobs: Jobs, project: Project, kind: str = "sft", **args: Any) -> Run:
    return jobs.start(kind, CHILD, "A run", project.project_id, {"args": {"model": SPEC, **args}})  # type: ignore[arg-type]


def folder_of(settings: Settings, run: Run) -> RunDir:
    return RunDir(settings.runs_dir / run.run_id)


def questions(db: Database, project: Project) -> list[Prompt]:
    made = [prompts.new(project.project_id, [Message("user", f"Question {i}")]) for i in range(3)]
    prompts.add(db, made)
    return made


def lines_for(asked: Sequence[Prompt], samples: int, run_id: str = "") -> list[dict[str, Any]]:
    """Completions as a run writes them."""
    made = [completions.new(p, f"{p.text} {i}", "generated", "demo", sample_index=i) for p in asked for i in range(samples)]
    return [{k: v for k, v in vars(c).items() if k != "created_at"} | {"run_id": run_id} for c in made]


@contextmanager
def studio_with_runs(settings: Settings, db: Database, **options: Any) -> Iterator[Studio]:
    """Its runs are ended with it."""
    ensure_models(db)
    people.ensure(db, "local", "You", "local")
    with jobs_of(settings, db, **options) as jobs:
        yield Studio(settings, db, jobs, cast(Any, None), Assignment(db), EndpointKeys())


def labelled_project(studio: Studio, n: int = 12) -> Project:
    """Open, with a preference on a pair of each of `n` prompts."""
    project = seed_project(studio.db, n)
    people.set_open_project(studio.db, "local", project.project_id)
    for served in studio.assignment.serve("local", project.project_id, n):
        preferences.cast(studio.db, "local", served.impression.impression_id, "a")
    return project


def freeze(studio: Studio, project: Project) -> Snapshot:
    return snapshots.freeze(studio.db, studio.settings, project.project_id, "preference", min_train_rows=1)


def train(studio: Studio, snapshot: Snapshot, knobs: Mapping[str, Any] = {}, method: str = "dpo", **child: Any) -> Run:
    """A training run as the Train page starts it, whose child does what `child` says."""
    args = {
        "model": models.get(studio.db, MODEL_ID).spec,
        "model_id": child.pop("model_id", MODEL_ID),
        "train": from_json(method, knobs).to_json(),
        **child,
    }
    data = {"file": "data.parquet", "sha256": snapshot.sha256, "rows": snapshot.rows}
    file = snapshots.file_of(studio.settings, snapshot)
    return studio.start_run(
        VIEWER, cast(Any, method), CHILD, "First", {"args": args, "data": data}, {"data.parquet": file}, [], RunSize(),
        snapshot.snapshot_id,
    )  # fmt: skip


def wait(db: Database, run_id: str, until: Callable[[Run], object]) -> Run:
    while not until(run := runs.get(db, run_id)):
        assert run.status in ("queued", "running"), run
        time.sleep(0.02)
    return run


def ended(run: Run) -> bool:
    return run.status not in ("queued", "running")


def started(run: Run) -> bool:
    return run.status == "running" and bool(run.progress)
