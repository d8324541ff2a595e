"""Runs with real child processes: they survive the server, end as they really ended, and wait in a queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from run_studio import CHILD, SPEC, begin, ended, folder_of, jobs_of, started, wait

from data import models, projects, runs
from data.database import Database
from data.errors import LimitReached, NotFound, RunError
from data.records import Project, Run
from data.rundir import RunDir, sha256_of
from data.settings import Settings
from studio import processes
from studio.jobs import Jobs
from studio.processes import Process

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def jobs(settings: Settings, db: Database) -> Iterator[Jobs]:
    with jobs_of(settings, db) as made:
        yield made


# --- from start to end ------------------------------------------------------------------------------------------------------


def test_a_run_goes_from_queued_to_finished(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    run = begin(jobs, project)
    assert run.status == "queued"
    done = wait(db, run.run_id, ended)
    assert done.status == "finished"
    assert done.error == ""
    assert done.result["loss"] == 0.5
    assert done.result["niceness"] == processes.NICENESS
    assert done.progress["done"] == done.progress["total"] == 3
    assert done.started_at is not None
    assert done.ended_at is not None
    assert done.queued_at <= done.started_at <= done.ended_at
    folder = folder_of(settings, run)
    assert done.event_offset == (folder.path / "events.jsonl").stat().st_size, "every event was taken in"
    assert "hello from the child" in folder.log_tail()
    config = folder.config()
    assert (config["run_id"], config["kind"], config["module"]) == (run.run_id, "sft", CHILD)
    assert config["project_id"] == project.project_id
    assert set(config["versions"]) >= {"python", "torch", "trl", "duckdb"}
    assert len(config["git"]["commit"]) in (0, 40)
    assert config == done.config


def test_a_run_that_fails_says_why(jobs: Jobs, db: Database, project: Project) -> None:
    done = wait(db, begin(jobs, project, ending="fail").run_id, ended)
    assert (done.status, done.error) == ("failed", "The child was told to fail; choose another ending.")


def test_a_module_that_does_not_exist_is_lost_with_its_last_words(jobs: Jobs, db: Database, project: Project) -> None:
    run = jobs.start("sft", "tests.no_such_module", "n", project.project_id, {"args": {}})
    done = wait(db, run.run_id, ended)
    assert done.status == "lost"
    assert "No module named" in done.error


def test_frozen_data_is_copied_and_checked(jobs: Jobs, db: Database, settings: Settings, project: Project, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("{}\n")
    config = {"args": {}, "data": {"file": "data.jsonl", "sha256": sha256_of(file), "rows": 1}}
    run = jobs.start("sft", CHILD, "n", project.project_id, config, {"data.jsonl": file}, snapshot_id="s")
    assert folder_of(settings, run).check_data("data.jsonl", config["data"]["sha256"]).read_text() == "{}\n"  # type: ignore[index]
    assert wait(db, run.run_id, ended).snapshot_id == "s"
    file.write_text("changed\n")
    before = set(settings.runs_dir.iterdir())
    with pytest.raises(RunError, match="has changed since it was frozen"):
        jobs.start("sft", CHILD, "n", project.project_id, config, {"data.jsonl": file})
    with pytest.raises(RunError, match="no plain file name"):
        jobs.start("sft", CHILD, "n", project.project_id, config, {"../data.jsonl": file})
    with pytest.raises(NotFound):
        jobs.start("sft", CHILD, "n", "nowhere", config)
    assert set(settings.runs_dir.iterdir()) == before, "nothing half-made is left"
    assert len(runs.of_project(db, project.project_id)) == 1


def test_a_child_sees_the_keys_it_needs_and_no_others(
    jobs: Jobs, db: Database, settings: Settings, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for runs")
    monkeypatch.setenv("OTHER_API_KEY", "not for this run")
    monkeypatch.setenv("MY_API_KEY", "named by the spec")
    args = {"model": SPEC, "judge": {"kind": "endpoint", "url": "http://x", "key_env": "MY_API_KEY"}}
    run = jobs.start("sft", CHILD, "n", project.project_id, {"args": args}, env={"STUDIO_KEY_M": "typed secret"})
    done = wait(db, run.run_id, ended)
    assert done.result["key"] == "typed secret"
    seen = set(done.result["environment"])
    assert {"PATH", "MY_API_KEY", "STUDIO_KEY_M"} <= seen
    assert not seen & {"AWS_SECRET_ACCESS_KEY", "OTHER_API_KEY"}
    assert done.config["env"] == ["STUDIO_KEY_M"]
    stored = json.dumps(folder_of(settings, run).config()) + "".join(f.read_text() for f in settings.journal_dir.glob("*"))
    for secret in ("not for runs", "named by the spec"):
        assert secret not in stored
    assert "typed secret" not in json.dumps(done.config)


def test_a_forged_module_is_not_started(db: Database, jobs: Jobs, project: Project) -> None:
    run = jobs.start("generate", "http.server", "forged", project.project_id, {"args": {}})
    while runs.get(db, run.run_id).status == "queued":
        time.sleep(0.02)
    assert runs.get(db, run.run_id).status == "failed"
    assert "not part of the studio" in runs.get(db, run.run_id).error
    assert runs.get(db, run.run_id).pid == 0


# --- the queue --------------------------------------------------------------------------------------------------------------


def test_one_run_at_a_time_per_device(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    config = {"args": {"steps": 3, "wait_at": 1}}
    first, second = (jobs.start("sft", CHILD, name, project.project_id, config) for name in ("first", "second"))
    other = jobs.start("sft", CHILD, "other device", project.project_id, config, device="cuda:0")
    for run in (first, other):
        wait(db, run.run_id, started)
    assert runs.get(db, second.run_id).status == "queued"
    assert processes.find(settings.runs_dir / second.run_id) is None
    (settings.runs_dir / first.run_id / "go").touch()
    later = wait(db, second.run_id, started)
    done = runs.get(db, first.run_id)
    assert not processes.is_alive(Process(done.pid, done.pid_created), settings.runs_dir / first.run_id)
    assert later.pid != done.pid
    for run in (second, other):
        (settings.runs_dir / run.run_id / "go").touch()
        assert wait(db, run.run_id, ended).status == "finished"
    assert wait(db, first.run_id, ended).status == "finished"


def test_a_visitor_has_one_run_at_a_time(jobs: Jobs, db: Database) -> None:
    theirs, others = projects.create(db, "v1's", owner="v1"), projects.create(db, "v2's", owner="v2")
    config = {"args": {"steps": 1000, "seconds_a_step": 0.05}}
    run = jobs.start("sft", CHILD, "n", theirs.project_id, config, owner="v1")
    with pytest.raises(LimitReached, match="one run at a time"):
        jobs.start("sft", CHILD, "n", theirs.project_id, config, owner="v1")
    waiting = jobs.start("sft", CHILD, "n", others.project_id, config, owner="v2")
    jobs.stop(waiting.run_id)
    assert runs.get(db, waiting.run_id).status == "stopped", "a queued run is stopped at once"
    wait(db, run.run_id, started)
    jobs.stop(run.run_id)
    assert wait(db, run.run_id, ended).status == "stopped"
    assert jobs.start("sft", CHILD, "n", theirs.project_id, {"args": {}}, owner="v1").status == "queued"


def test_the_device_is_freed_before_a_launch(jobs: Jobs, db: Database, project: Project) -> None:
    told: list[str] = []
    jobs.before_launch(lambda run: told.append(run.run_id))
    run = begin(jobs, project)
    wait(db, run.run_id, ended)
    assert told == [run.run_id]


# --- stopping ---------------------------------------------------------------------------------------------------------------


def test_a_restored_backup_starts_nothing_by_itself(settings: Settings, db: Database, project: Project) -> None:
    waiting = Jobs(settings, db)
    waiting._go = lambda: None  # type: ignore[method-assign]
    queued = begin(waiting, project)
    archive = db.backup(settings.home.parent / "backup.zip")
    runs.update(db, queued.run_id, status="stopped")
    jobs = Jobs(settings, db)
    jobs.reconcile()
    try:
        db.restore(archive)
        run = wait(db, queued.run_id, ended)
        assert run.status == "failed"
        assert "start the run again" in run.error
        assert not (folder_of(settings, run).path / "stdout.log").exists()
    finally:
        jobs.close()


def test_stopping_lets_the_run_save(jobs: Jobs, db: Database, project: Project) -> None:
    run = begin(jobs, project, steps=1000, seconds_a_step=0.02, adapter=True)
    wait(db, run.run_id, started)
    jobs.stop(run.run_id)
    done = wait(db, run.run_id, ended)
    assert (done.status, done.error) == ("stopped", "")
    assert done.progress["done"] < 1000
    assert [m.run_id for m in models.visible(db, project.project_id, "", "adapter")] == [run.run_id], "what it saved can be chosen"
    jobs.stop(run.run_id)
    assert runs.get(db, run.run_id) == done, "stopping again changes nothing"


def test_a_stubborn_child_is_ended_with_its_helpers(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    run = begin(jobs, project, steps=100_000, seconds_a_step=0.02, ending="stubborn")
    running = wait(db, run.run_id, started)
    helper = int((settings.runs_dir / run.run_id / "helper.pid").read_text())
    jobs.stop(run.run_id)
    time.sleep(0.5)
    assert runs.get(db, run.run_id).status == "running", "it ignores the stop file"
    jobs.stop(run.run_id)
    done = wait(db, run.run_id, ended)
    assert (done.status, done.error) == ("stopped", "The run was ended before it could save what it had.")
    for pid in (running.pid, helper):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_does_not_go_after_its_end_is_ended(
    jobs: Jobs, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.LINGER_S", 0.2)
    assert wait(db, begin(jobs, project, ending="linger").run_id, ended).status == "finished"


# --- restarts ---------------------------------------------------------------------------------------------------------------

SERVER = """
import sys, time
from pathlib import Path
from data import projects, runs
from data.database import Database
from data.settings import Settings
from studio.jobs import Jobs

settings = Settings(home=Path(sys.argv[1]))
db = Database(settings)
jobs = Jobs(settings, db, poll_s=0.05)
jobs.reconcile()
project = projects.create(db, "P")
config = {"args": {"steps": 60, "wait_at": 30, "model": {"kind": "local", "base": "b"}, "adapter": True}}
first = jobs.start("sft", "tests.jobs_child", "goes on", project.project_id, config)
second = jobs.start("sft", "tests.jobs_child", "waits", project.project_id, {"args": {"steps": 2}})
third = jobs.start("sft", "tests.jobs_child", "waits for a key", project.project_id, {"args": {}}, env={"STUDIO_KEY_M": "secret"})
while (run := runs.get(db, first.run_id)).progress.get("done", 0) < 5:
    assert run.status in ("queued", "running"), run
    time.sleep(0.02)
print(first.run_id, second.run_id, third.run_id, flush=True)
time.sleep(600)
"""


def test_a_run_outlives_a_server_that_is_killed(settings: Settings) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(settings.home)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    first, second, third = server.stdout.readline().split()
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    db = Database(settings)
    seen = runs.get(db, first)
    assert seen.status == "running"
    assert processes.is_alive(Process(seen.pid, seen.pid_created), settings.runs_dir / first), "it never noticed"
    jobs = Jobs(settings, db, poll_s=0.05)
    jobs.reconcile()
    (settings.runs_dir / first / "go").touch()
    done = wait(db, first, ended)
    assert done.status == "finished"
    assert done.pid == seen.pid
    assert done.progress["done"] == 60
    events = RunDir(settings.runs_dir / first).tail(0)
    assert [e["step"] for e in events.events if e["type"] == "metrics"] == list(range(1, 61))
    assert done.event_offset == events.offset
    assert [m.name for m in models.visible(db, done.project_id, "", "adapter")] == ["goes on"]
    assert wait(db, second, ended).status == "finished", "what was queued still gets its turn"
    keyless = wait(db, third, ended)
    assert keyless.status == "failed"
    assert "type the key again" in keyless.error
    jobs.close()
    db.close()


def test_a_launch_that_was_never_written_down_is_not_done_twice(
    settings: Settings, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies between starting the process and noting its pid."""
    first = Jobs(settings, db, poll_s=0.05)
    with monkeypatch.context() as patched:
        patched.setattr("studio.jobs.runs.update", lambda *args, **fields: (_ for _ in ()).throw(OSError("the server dies here")))
        run = begin(first, project, steps=40, seconds_a_step=0.05)
        while not (settings.runs_dir / run.run_id / "events.jsonl").exists():
            child = first._children.get(run.run_id)
            assert child is None or child.poll() is None, folder_of(settings, run).log_tail()
            time.sleep(0.02)
        first.close()
    assert runs.get(db, run.run_id).status == "queued"
    second = Jobs(settings, db, poll_s=0.05)
    second.reconcile()
    done = wait(db, run.run_id, ended)
    assert done.status == "finished"
    statuses = [e["status"] for e in folder_of(settings, run).tail(0).events if e["type"] == "status"]
    assert statuses == ["running", "finished"], "one child only"
    second.close()


def test_an_end_that_was_seen_but_not_acted_on(settings: Settings, db: Database, project: Project) -> None:
    """All events taken in, then the server died: the outputs are taken in at the next start."""
    first = Jobs(settings, db, poll_s=0.05)
    run = begin(first, project, adapter=True)
    wait(db, run.run_id, ended)
    first.close()
    db.write(lambda cursor: cursor.delete("models", {"run_id": run.run_id}))
    runs.update(db, run.run_id, status="running", result={}, ended_at=None)
    second = Jobs(settings, db, poll_s=0.05)
    second.reconcile()
    done = wait(db, run.run_id, ended)
    assert (done.status, done.result["loss"]) == ("finished", 0.5)
    assert len(models.visible(db, project.project_id, "", "adapter")) == 1
    second.close()


def test_a_run_that_ends_while_the_runs_are_read_ends_once(
    jobs: Jobs, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, see_off, seen = runs.active, Jobs._see_off, list[str]()

    def stale(database: Database) -> list[Run]:
        found = read(database)
        for ending in list(jobs._ending.values()):
            ending.join()
        return found

    def counted(self: Jobs, run_id: str) -> None:
        seen.append(run_id)
        time.sleep(0.2)  # so that the runs are read while it is still "running"
        see_off(self, run_id)

    monkeypatch.setattr(runs, "active", stale)
    monkeypatch.setattr(Jobs, "_see_off", counted)
    run = wait(db, begin(jobs, project, steps=1).run_id, ended)
    wait(db, begin(jobs, project, steps=1).run_id, ended)  # the first has been looked at for long enough
    assert seen.count(run.run_id) == 1
