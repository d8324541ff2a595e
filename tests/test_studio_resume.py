"""A real training run, stopped on the Runs page and gone on with: one curve, one model, the adapter of a run never interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data import models, projects, runs
from data.database import Database
from data.records import Project, Run
from data.resume import newest
from data.settings import Settings
from studio.jobs import Jobs
from studio.metrics import Metrics
from tests import tiny_model
from tests.training_runs import dpo_rows, make_run
from training.config import DpoConfig

pytestmark = [pytest.mark.model, pytest.mark.slow(reason="three processes that train")]


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def jobs(settings: Settings, db: Database) -> Iterator[Jobs]:
    made = Jobs(settings, db, poll_s=0.05)
    made.reconcile()
    yield made
    made.close()


def wait(db: Database, run_id: str, until: Callable[[Run], object]) -> Run:
    while not until(run := runs.get(db, run_id)):
        time.sleep(0.02)
    return run


def ended(run: Run) -> bool:
    return run.status not in ("queued", "running")


def test_a_stopped_run_goes_on_in_its_own_folder(
    settings: Settings, db: Database, jobs: Jobs, project: Project, tmp_path: Path
) -> None:
    config = DpoConfig(epochs=20.0, batch_size=4, lora_rank=4, tuning="lora", sample_prompts=0)
    frozen = make_run(tmp_path / "frozen", tiny_model.DEMO_MODEL, config, [*dpo_rows(12), *dpo_rows(4, "held_out")])
    told = {name: frozen.config()[name] for name in ("args", "data")}

    def start(name: str) -> Run:
        files = {"data.parquet": frozen.path / "data.parquet"}
        return jobs.start("dpo", "training.dpo", name, project.project_id, told, files)

    run, charts = start("cut"), Metrics(settings.runs_dir)
    while len(charts.of(run.run_id)) < 5:
        assert not ended(runs.get(db, run.run_id))
        time.sleep(0.02)
    jobs.stop(run.run_id)
    stopped = wait(db, run.run_id, ended)
    assert stopped.status == "stopped", stopped.error
    point = newest(settings.runs_dir / run.run_id)
    assert point is not None
    assert point.step == stopped.result["steps"] < 60
    jobs.resume(run.run_id)
    done, whole = wait(db, run.run_id, ended), wait(db, start("whole").run_id, ended)
    assert (done.status, whole.status) == ("finished", "finished"), (done.error, whole.error)
    assert (done.result["resumed_from"], done.result["steps"]) == (point.step, 60)
    assert done.result["adapter_sha256"] == whole.result["adapter_sha256"] != stopped.result["adapter_sha256"]
    points = [[event for event in charts.of(each.run_id) if not event.get("resumed")] for each in (done, whole)]
    losses = [[(event["step"], event.get("loss"), event.get("eval_loss")) for event in of] for of in points]
    assert losses[0] == losses[1]
    made = [model for model in models.visible(db, project.project_id, "") if model.run_id == run.run_id]
    assert [model.model_id for model in made] == [done.result["model_id"]]
    assert newest(settings.runs_dir / run.run_id) is None
