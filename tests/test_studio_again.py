"""A training run once more: the very same frozen rows and parent, only what was changed is changed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pyarrow.parquet as pq
import pytest
from run_studio import VIEWER, ended, freeze, labelled_project, started, studio_with_runs, train, wait

from data import models, runs
from data.errors import BadInput, StudioError
from data.records import Project, Run, now
from data.resume import seal
from data.rundir import RunDir
from labeling import preferences
from studio.again import checkpoint_of, config_of, go_on, start_again, train_rows
from studio.context import Studio
from studio.render import took
from studio.run_ending import part_seconds
from studio.runs_page import RunsPage

pytestmark = pytest.mark.app


@pytest.fixture
def studio(settings: Any, db: Any) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        yield opened


@pytest.fixture
def project(studio: Studio) -> Project:
    return labelled_project(studio)


@pytest.fixture
def first(studio: Studio, project: Project) -> Run:
    run = train(studio, freeze(studio, project), {"beta": 0.5, "seed": 7})
    return wait(studio.db, run.run_id, ended)


def files_of(studio: Studio, run: Run) -> bytes:
    return (studio.settings.runs_dir / run.run_id / "data.parquet").read_bytes()


def test_once_more_is_the_same_run_under_another_id(studio: Studio, first: Run) -> None:
    again = wait(studio.db, start_again(studio, VIEWER, first).run_id, ended)
    assert again.status == "finished"
    assert again.run_id != first.run_id
    for part in ("args", "data"):
        assert again.config[part] == first.config[part]
    assert (again.kind, again.module, again.snapshot_id, again.name) == (first.kind, first.module, first.snapshot_id, first.name)
    assert (again.config["again_of"], again.config["changes"]) == (first.run_id, {})
    assert files_of(studio, again) == files_of(studio, first)


def test_one_change_changes_one_setting(studio: Studio, first: Run) -> None:
    again = start_again(studio, VIEWER, first, {"beta": 0.1, "seed": 7}, name="Softer")
    assert again.name == "Softer"
    assert again.config["changes"] == {"beta": 0.1}
    before, after = first.config["args"], again.config["args"]
    assert after["train"] == {**before["train"], "beta": 0.1}
    assert {k: v for k, v in after.items() if k != "train"} == {k: v for k, v in before.items() if k != "train"}


@pytest.mark.parametrize(("change", "says"), [({"beta": -1.0}, "beta must be at least"), ({"margin": 1.0}, "no setting 'margin'")])
def test_a_change_that_cannot_be_starts_nothing(studio: Studio, first: Run, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        start_again(studio, VIEWER, first, change)
    assert len(runs.of_project(studio.db, first.project_id)) == 1


def test_new_labels_do_not_slip_in(studio: Studio, project: Project, first: Run) -> None:
    (label, *_) = studio.db.rows("select impression_id from label_events")
    preferences.cast(studio.db, "local", label["impression_id"], "b")
    assert freeze(studio, project).sha256 != first.config["data"]["sha256"]
    again = start_again(studio, VIEWER, first)
    assert files_of(studio, again) == files_of(studio, first)
    assert again.config["data"]["sha256"] == first.config["data"]["sha256"]


def test_the_snapshot_stands_in_for_a_run_whose_file_is_gone_but_not_another_file(studio: Studio, first: Run) -> None:
    own = studio.settings.runs_dir / first.run_id / "data.parquet"
    kept = own.read_bytes()
    own.unlink()
    assert files_of(studio, start_again(studio, VIEWER, first)) == kept
    own.write_bytes(b"something else")
    assert files_of(studio, start_again(studio, VIEWER, first)) == kept
    frozen = studio.db.value("select path from snapshots")
    (studio.settings.home / frozen).write_bytes(b"something else, too")
    with pytest.raises(BadInput, match="missing or was changed"):
        start_again(studio, VIEWER, first)


def test_a_parent_that_was_removed_is_named(studio: Studio, first: Run) -> None:
    models.remove(studio.db, "demo-model")
    with pytest.raises(BadInput, match="Demo model, the model this run began with, was removed"):
        start_again(studio, VIEWER, first)


def test_what_was_no_training_cannot_be_run_again(studio: Studio, project: Project) -> None:
    other = studio.jobs.start("generate", "tests.jobs_child", "n", project.project_id, {"args": {}})
    with pytest.raises(BadInput, match="Only a training run"):
        start_again(studio, VIEWER, other)


def test_the_rows_it_trains_on_are_those_of_the_snapshot(studio: Studio, first: Run) -> None:
    rows = pq.read_table(studio.settings.runs_dir / first.run_id / "data.parquet").to_pylist()
    assert train_rows(studio, first) == sum(row["split"] == "train" for row in rows)
    assert config_of(first).to_json() == first.config["args"]["train"]


# --- going on ---


def stopped(studio: Studio, project: Project, with_checkpoint: bool = True) -> Run:
    """A run that was stopped after a few steps."""
    run = train(studio, freeze(studio, project), steps=1000, seconds_a_step=0.02, adapter=True)
    wait(studio.db, run.run_id, started)
    studio.jobs.stop(run.run_id)
    done = wait(studio.db, run.run_id, ended)
    if with_checkpoint:
        folder = studio.settings.runs_dir / run.run_id / "checkpoints" / "checkpoint-2"
        folder.mkdir(parents=True)
        (folder / "state").write_text("state")
        seal(folder, 2, {})
    return done


def test_a_stopped_run_goes_on_in_its_own_folder(studio: Studio, project: Project) -> None:
    run = stopped(studio, project)
    at = checkpoint_of(studio, run)
    assert at is not None
    assert at.step == 2
    go_on(studio, VIEWER, run)
    going = wait(studio.db, run.run_id, started)
    assert (going.error, going.result, going.ended_at) == ("", {}, None)
    assert going.pid != run.pid
    assert run.started_at is not None
    assert run.ended_at is not None
    assert going.earlier_s == pytest.approx((run.ended_at - run.started_at).total_seconds(), abs=0.05)
    studio.jobs.stop(run.run_id)
    again = wait(studio.db, run.run_id, ended)
    assert again.status == "stopped"
    folder = RunDir(studio.settings.runs_dir / run.run_id)
    statuses = [event["status"] for event in folder.tail(0).events if event["type"] == "status"]
    assert statuses == ["running", "stopped", "queued", "running", "stopped"]
    assert again.event_offset == folder.tail(0).offset
    assert (folder.path / "stdout-1.log").exists()
    assert len(runs.of_project(studio.db, project.project_id)) == 1
    assert "in all, before and after it was resumed" in RunsPage(studio)._detail(again)
    assert "in all" not in RunsPage(studio)._detail(run)


def test_a_run_took_as_long_as_all_its_parts(tmp_path: Path, first: Run) -> None:
    """Not counted are the pause before it was resumed and the night in which nobody saw that it had been killed."""
    folder = RunDir.create(tmp_path / "run", {})
    folder.event("progress", done=1, total=2)
    begun, noticed = now() - timedelta(seconds=100), now() + timedelta(hours=9)
    assert part_seconds(replace(first, started_at=begun, ended_at=noticed), folder) == pytest.approx(100, abs=5)
    assert part_seconds(replace(first, started_at=begun, ended_at=begun + timedelta(seconds=7)), folder) == 7
    assert part_seconds(replace(first, started_at=None), folder) == 0
    last = replace(first, started_at=begun, ended_at=begun + timedelta(seconds=20), earlier_s=100.0)
    assert took(last) == "2 min 00 s"
    assert took(replace(last, started_at=None)) == "1 min 40 s", "refused before its second part began"
    assert took(replace(last, earlier_s=0.0)) == "20 s"


def test_a_model_whose_run_goes_on_is_not_to_be_had(studio: Studio, project: Project) -> None:
    """Its weights are about to change under whatever would be done with them."""
    run = stopped(studio, project)
    (made,) = [m for m in studio.models(VIEWER) if m.run_id == run.run_id]
    go_on(studio, VIEWER, run)
    assert made.model_id not in [m.model_id for m in studio.models(VIEWER)]
    with pytest.raises(StudioError, match="not in the list"):
        studio.model(VIEWER, made.model_id)
    wait(studio.db, run.run_id, started)
    studio.jobs.stop(run.run_id)
    wait(studio.db, run.run_id, ended)
    assert made.model_id in [m.model_id for m in studio.models(VIEWER)]


def test_the_buttons_are_about_the_run_that_is_seen(studio: Studio, project: Project, first: Run) -> None:
    """Somebody else's run that begins meanwhile is not what a page that is open would stop, publish or go on with."""
    page = RunsPage(studio)
    with gr.Blocks() as demo:
        page.build(demo)
    request: Any = SimpleNamespace(query_params={}, cookies={}, headers={})
    _, picked, *_ = page.load(request)
    assert picked == first.run_id
    studio.jobs.start("generate", "tests.jobs_child", "somebody else's", project.project_id, {"args": {}})
    again = page._chosen(VIEWER, picked)
    assert again is not None
    assert again.run_id == first.run_id


def test_an_old_end_says_nothing_of_a_new_life(studio: Studio, project: Project) -> None:
    """Stopped first, then killed: it is lost, not stopped."""
    run = stopped(studio, project)
    go_on(studio, VIEWER, run)
    going = wait(studio.db, run.run_id, started)
    os.kill(going.pid, signal.SIGKILL)
    assert wait(studio.db, run.run_id, ended).status == "lost"


def test_only_what_was_broken_off_can_go_on(studio: Studio, project: Project, first: Run) -> None:
    assert checkpoint_of(studio, first) is None
    with pytest.raises(BadInput, match="This run is finished"):
        studio.jobs.resume(first.run_id)
    bare = stopped(studio, project, with_checkpoint=False)
    with pytest.raises(BadInput, match="no checkpoint"):
        go_on(studio, VIEWER, bare)


def test_a_run_whose_model_is_in_use_does_not_change_it(studio: Studio, project: Project) -> None:
    run = stopped(studio, project)
    models.add(studio.db, models.new("child", "adapter", {}, project.project_id, parent_model_id=run.result["model_id"]))
    with pytest.raises(BadInput, match="has been used"):
        go_on(studio, VIEWER, run)
    assert runs.get(studio.db, run.run_id).status == "stopped"
