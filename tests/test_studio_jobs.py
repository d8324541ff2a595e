"""Runs with real child processes: they survive the server, end as they really ended, and leave their outputs as rows once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from data import completions, judgments, models, projects, prompts, runs
from data.database import Database
from data.engine import Message
from data.errors import BadInput, LimitReached, NotFound, RunError, WorkspaceError
from data.records import Judgment, Project, Prompt, Run, now
from data.rundir import RunDir, sha256_of
from data.settings import Settings
from studio import processes, run_launch
from studio.jobs import Jobs
from studio.processes import Process

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
CHILD = "tests.jobs_child"
SPEC = {"kind": "local", "base": "data/demo/model", "adapter": "", "quantize": False, "url": "", "key_env": ""}


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def jobs(settings: Settings, db: Database) -> Iterator[Jobs]:
    made = Jobs(settings, db, poll_s=0.05, grace_s=0.3)
    made.reconcile()
    yield made
    for run in runs.active(db):
        if run.pid:
            processes.end(Process(run.pid, run.pid_created), settings.runs_dir / run.run_id, signal.SIGKILL)
    made.close()


def wait(db: Database, run_id: str, until: Callable[[Run], object]) -> Run:
    while not until(run := runs.get(db, run_id)):
        assert run.status in ("queued", "running"), run
        time.sleep(0.02)
    return run


def ended(run: Run) -> bool:
    return run.status not in ("queued", "running")


def begin(jobs: Jobs, project: Project, kind: str = "sft", **args: Any) -> Run:
    return jobs.start(kind, CHILD, "A run", project.project_id, {"args": {"model": SPEC, **args}})  # type: ignore[arg-type]


def started(run: Run) -> bool:
    return run.status == "running" and bool(run.progress)


def folder_of(settings: Settings, run: Run) -> RunDir:
    return RunDir(settings.runs_dir / run.run_id)


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


# --- ends that nobody reported ----------------------------------------------------------------------------------------------


def test_a_child_that_dies_silently_is_lost(jobs: Jobs, db: Database, project: Project) -> None:
    done = wait(db, begin(jobs, project, ending="silent").run_id, ended)
    assert done.status == "lost"
    assert "ended without a word" in done.error
    assert "last words of the child" in done.error
    assert done.progress["done"] == 2


def test_a_child_killed_by_the_system_hints_at_memory(jobs: Jobs, db: Database, project: Project) -> None:
    done = wait(db, begin(jobs, project, ending="killed").run_id, ended)
    assert done.status == "lost"
    assert "most likely because memory ran out" in done.error


def test_a_zombie_is_dead(db: Database, settings: Settings, project: Project) -> None:
    """After the server's death a child can stay in the process table, unreaped."""
    first = Jobs(settings, db, poll_s=0.05)
    run = begin(first, project, wait_at=1)
    pid = wait(db, run.run_id, started).pid
    first.close()
    os.kill(pid, signal.SIGKILL)
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
    second = Jobs(settings, db, poll_s=0.05)
    second.reconcile()
    assert wait(db, run.run_id, ended).status == "lost"
    second.close()


def test_a_pid_that_belongs_to_somebody_else_is_left_alone(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        run = begin(jobs, project, steps=3)
        done = wait(db, run.run_id, ended)
        folder = settings.runs_dir / run.run_id
        right, wrong = processes.created(stranger.pid), done.pid_created - 1000
        for created in (right, wrong):
            assert not processes.is_alive(Process(stranger.pid, created), folder)
            assert not processes.end(Process(stranger.pid, created), folder, signal.SIGKILL)
        impostor = replace(done, run_id="impostor", status="running", pid=stranger.pid, pid_created=right)
        RunDir.create(settings.runs_dir / "impostor", {"run_id": "impostor"}).request_stop()
        runs.add(db, impostor)
        jobs.stop("impostor")
        assert wait(db, "impostor", ended).status == "stopped"
        assert stranger.poll() is None, "a stranger is never signalled"
    finally:
        stranger.kill()
        stranger.wait()


def test_the_same_pid_with_another_create_time_is_dead(settings: Settings, jobs: Jobs, db: Database, project: Project) -> None:
    run = begin(jobs, project, steps=1000, seconds_a_step=0.02)
    running = wait(db, run.run_id, started)
    folder = settings.runs_dir / run.run_id
    assert processes.is_alive(Process(running.pid, running.pid_created), folder)
    assert not processes.is_alive(Process(running.pid, running.pid_created - 60), folder)
    assert not processes.is_alive(Process(running.pid, running.pid_created), folder.with_name("other"))
    assert processes.find(folder) == (running.pid, running.pid_created)


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


# --- outputs ----------------------------------------------------------------------------------------------------------------


def lines_for(asked: list[Prompt], samples: int, run_id: str = "") -> list[dict[str, Any]]:
    made = [completions.new(p, f"{p.text} {i}", "generated", "demo", sample_index=i) for p in asked for i in range(samples)]
    return [{k: v for k, v in vars(c).items() if k != "created_at"} | {"run_id": run_id} for c in made]


@pytest.fixture
def asked(db: Database, project: Project) -> list[Prompt]:
    made = [prompts.new(project.project_id, [Message("user", f"Question {i}")]) for i in range(3)]
    prompts.add(db, made)
    return made


def test_candidates_show_up_as_they_come(
    jobs: Jobs, db: Database, settings: Settings, project: Project, asked: list[Prompt]
) -> None:
    lines = lines_for(asked, 4)
    run = begin(jobs, project, "generate", steps=12, wait_at=5, completions=lines)
    wait(db, run.run_id, lambda r: completions.counts(db, project.project_id).completions == 5)
    assert not ended(runs.get(db, run.run_id)), "while it still writes"
    (settings.runs_dir / run.run_id / "go").touch()
    assert wait(db, run.run_id, ended).status == "finished"
    counts = completions.counts(db, project.project_id)
    assert (counts.completions, counts.pairs) == (12, 18)
    assert {c.run_id for c in completions.of_run(db, run.run_id)} == {run.run_id}


def test_lines_that_are_no_use_are_counted_and_the_others_kept(
    jobs: Jobs, db: Database, project: Project, asked: list[Prompt]
) -> None:
    other = projects.create(db, "other")
    strange = prompts.new(other.project_id, [Message("user", "not yours")])
    prompts.add(db, [strange])
    good = lines_for(asked[:1], 2)
    bad = [{"completion_id": "half"}, *lines_for([strange], 1), {**good[0], "completion_id": "x", "prompt_id": "gone"}]
    done = wait(db, begin(jobs, project, "generate", steps=5, completions=[bad[0], good[0], bad[1], good[1], bad[2]]).run_id, ended)
    assert done.status == "finished"
    assert done.result["unusable_lines"] == 3
    assert completions.counts(db, project.project_id).completions == 2
    assert completions.counts(db, other.project_id).completions == 0


def test_an_adapter_is_registered_with_its_parent(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    args = {"model": {**SPEC, "adapter": "runs/parent/adapter"}, "model_id": "parent", "adapter": True}
    run = jobs.start("dpo", CHILD, "My  adapter", project.project_id, {"args": args}, owner="v1")
    done = wait(db, run.run_id, ended)
    (model,) = models.visible(db, project.project_id, "v1", "adapter")
    assert (model.name, model.run_id, model.parent_model_id, model.owner) == ("My adapter", run.run_id, "parent", "v1")
    assert model.spec == {**SPEC, "adapter": str(settings.runs_dir / run.run_id / "adapter")}
    assert done.result["model_id"] == model.model_id


@pytest.mark.parametrize("ending", ["fail", "silent"])
def test_a_run_that_did_not_get_there_registers_nothing(jobs: Jobs, db: Database, project: Project, ending: str) -> None:
    wait(db, begin(jobs, project, ending=ending, adapter=True).run_id, ended)
    assert models.visible(db, project.project_id, "", "adapter") == []


def test_a_comparison_leaves_answers_and_verdicts(jobs: Jobs, db: Database, project: Project, asked: list[Prompt]) -> None:
    lines = lines_for(asked[:1], 2)
    a, b = (line["completion_id"] for line in lines)
    found = {"p_ab": 0.2, "p_ba": 0.3, "p": 0.25, "verdict": "b", "flipped": False, "unscored": "", "raw": {"ab": "B"}}
    sides = {"model_a": "base", "model_b": "mine", "completion_a": a, "completion_b": b, "judge": "judge"}
    verdict = Judgment("j1", "", "", asked[0].prompt_id, 0, **sides, **found, created_at=now())  # type: ignore[arg-type]
    written = {k: v for k, v in vars(verdict).items() if k != "created_at"}
    run = begin(jobs, project, "compare", completions=lines, judgments=[written])
    wait(db, run.run_id, ended)
    (stored,) = judgments.of_run(db, run.run_id)
    assert (stored.project_id, stored.p, stored.verdict, stored.raw) == (project.project_id, 0.25, "b", {"ab": "B"})
    assert {c.completion_id for c in completions.of_run(db, run.run_id)} == {a, b}


def test_a_downloaded_data_set_waits_in_the_import_folder(
    jobs: Jobs, db: Database, settings: Settings, project: Project, tmp_path: Path
) -> None:
    """Nothing is taken in before somebody has looked at it."""
    file = tmp_path / "x.parquet"
    file.write_bytes(b"PAR1")
    done = wait(db, begin(jobs, project, "hub_import", parquet=str(file)).run_id, ended)
    assert (settings.import_dir / done.result["file"]).read_bytes() == b"PAR1"
    assert prompts.count(db, project.project_id) == 0


def test_outputs_wait_for_room_on_a_full_disk(
    db: Database, settings: Settings, project: Project, asked: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = completions.add
    full = [True]

    def add(*args: Any, **options: Any) -> int:
        if full[0]:
            raise WorkspaceError("The disk is full.")
        return real(*args, **options)

    monkeypatch.setattr("data.completions.add", add)
    jobs = Jobs(settings, db, poll_s=0.05)
    jobs.reconcile()
    run = begin(jobs, project, "compare", completions=lines_for(asked, 1))
    wait(db, run.run_id, lambda r: r.run_id in jobs._ending)
    assert runs.get(db, run.run_id).status == "running"
    full[0] = False
    jobs.close()
    again = Jobs(settings, db, poll_s=0.05)
    again.reconcile()
    assert wait(db, run.run_id, ended).status == "finished"
    assert completions.counts(db, project.project_id)[:2] == (3, 0)  # a judge's business: nobody is asked to label them
    again.close()


def test_a_moved_workspace_finds_its_adapters(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    run = begin(jobs, project, adapter=True)
    wait(db, run.run_id, ended)
    (model,) = models.visible(db, project.project_id, "", "adapter")
    db.update("models", {"model_id": model.model_id}, spec={**model.spec, "adapter": "/old/place/adapter"})
    jobs.reconcile()
    assert models.get(db, model.model_id).spec == model.spec


def test_a_run_of_all_weights_leaves_a_base_that_moves_with_the_workspace(
    jobs: Jobs, db: Database, settings: Settings, project: Project
) -> None:
    """Also where it lies under an adapter that was trained on from it."""
    first = begin(jobs, project, whole_model=True, model_id="demo")
    wait(db, first.run_id, ended)
    (whole,) = models.visible(db, project.project_id, "", "base")
    place = str(settings.runs_dir / first.run_id / "model")
    assert (whole.run_id, whole.parent_model_id, whole.spec["base"], whole.spec["adapter"]) == (first.run_id, "demo", place, "")
    assert models.is_trained(whole)
    second = jobs.start("dpo", CHILD, "on it", project.project_id, {"args": {"model": whole.spec, "adapter": True}})
    wait(db, second.run_id, ended)
    (adapter,) = models.visible(db, project.project_id, "", "adapter")
    assert adapter.spec["base"] == place
    for model in (whole, adapter):
        db.update("models", {"model_id": model.model_id}, spec={**model.spec, "base": "/old/place/model"})
    jobs.reconcile()
    assert [models.get(db, model.model_id).spec["base"] for model in (whole, adapter)] == [place, place]


def test_a_forged_module_is_not_started(db: Database, jobs: Jobs, project: Project) -> None:
    run = jobs.start("generate", "http.server", "forged", project.project_id, {"args": {}})
    while runs.get(db, run.run_id).status == "queued":
        time.sleep(0.02)
    assert runs.get(db, run.run_id).status == "failed"
    assert "not part of the studio" in runs.get(db, run.run_id).error
    assert runs.get(db, run.run_id).pid == 0


# --- nobody waits for ever --------------------------------------------------------------------------------------------------


def test_a_studio_that_is_closed_just_when_the_runs_are_to_be_looked_at_closes(settings: Settings, db: Database) -> None:
    """`close` wakes the thread at the one moment at which the thread forgets that it was woken."""
    jobs = Jobs(settings, db)

    class Wake(threading.Event):
        in_vain = False

        def clear(self) -> None:
            jobs._closing.set()  # as `close` does
            self.set()
            super().clear()

        def wait(self, timeout: float | None = None) -> bool:
            self.in_vain = timeout is None and not self.is_set()
            return True

    jobs._wake = wake = Wake()
    jobs._loop()
    assert not wake.in_vain


def test_a_run_whose_end_there_was_no_thread_for_ends_at_the_next_look(
    settings: Settings, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    class NoneAtFirst(threading.Thread):
        def start(self) -> None:
            if self.name.startswith("ending") and not refused:
                refused.append(self.name)
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr("studio.jobs.threading.Thread", NoneAtFirst)
    monkeypatch.setattr(Jobs, "_go", lambda jobs: None)  # it is looked at here
    jobs = Jobs(settings, db)
    run = begin(jobs, project)
    while not refused:
        jobs._look()
        time.sleep(0.02)
    assert not jobs._ending, "else it is taken for one that is being seen off"
    jobs._look()
    for thread in [*jobs._ending.values()]:
        thread.join()
    assert runs.get(db, run.run_id).status == "finished"


def test_a_run_whose_words_cannot_be_taken_in_ends_all_the_same(
    jobs: Jobs, db: Database, project: Project, asked: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be shown as running, and hold its device, for as long as the studio is open."""

    def candidates(*_: Any) -> Any:
        raise BadInput("No line of this can be stored.")

    monkeypatch.setattr("studio.jobs.ingest.candidates", candidates)
    done = wait(db, begin(jobs, project, "generate", completions=lines_for(asked, 1)).run_id, ended)
    assert (done.status, done.error) == (
        "finished",
        "The run ended, but what it left could not be taken in: No line of this can be stored.",
    )


def test_a_stubborn_run_is_ended_although_the_disk_is_full(
    jobs: Jobs, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = wait(db, begin(jobs, project, steps=100_000, seconds_a_step=0.02, ending="stubborn").run_id, started)

    def full(*_: Any) -> Any:
        raise WorkspaceError("The disk is full.")

    with monkeypatch.context() as no_room:
        no_room.setattr(jobs, "_take_events", full)
        jobs.stop(run.run_id)
        jobs.stop(run.run_id)
        child = jobs._children[run.run_id]
        while child.poll() is None:
            time.sleep(0.02)
    assert wait(db, run.run_id, ended).status == "stopped"


def test_a_last_word_that_cannot_be_stored_keeps_no_run_going(
    jobs: Jobs, db: Database, settings: Settings, project: Project
) -> None:
    run = wait(db, begin(jobs, project, wait_at=1, ending="linger").run_id, started)
    folder = folder_of(settings, run)
    last = [
        rb'{"type": "result", "half": "\ud800"}',
        b'{"type": "progress", "loss": NaN}',
        b'{"type": "status", "status": "finished"}',
    ]
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b"\n".join(last) + b"\n")
    os.kill(run.pid, signal.SIGKILL)
    done = wait(db, run.run_id, ended)
    assert (done.status, done.result) == ("finished", {})
    assert [event["type"] for event in folder.tail(0).events][-3:] == ["log", "log", "status"]


def test_a_git_that_hangs_keeps_no_run_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that asks a folder on a server that is gone."""
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nexec sleep 600\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(run_launch, "GIT_S", 0.1)
    assert run_launch.git() == {"commit": "", "dirty": None}
