"""Runs forked from a process with the imports done: nothing tells them from cold ones, nothing ends them, and where there could be
a doubt they are started cold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_studio import CHILD, ended, jobs_of, started, wait

from data import projects, runs
from data.database import Database
from data.records import Project, Run
from data.rundir import RunDir
from data.settings import Settings
from studio import processes
from studio import warm as client
from studio.jobs import Jobs
from studio.processes import Process
from studio.warm import WarmStart, surroundings

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [
    pytest.mark.app,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a warm start forks, which is safe on Linux only"),
]


def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        time.sleep(0.01)


def until_ready(warm: WarmStart) -> None:
    """One that has ended, or was never begun, will never be."""
    while not warm.ready:
        assert warm._life is not None, "no warm process was begun"
        assert warm._life.alive, warm._log_file.read_text()
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """A zombie that nobody waits for has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WarmStart]:
    monkeypatch.setattr(client, "NEEDS", 0)  # what else runs on this machine is not asked
    made = WarmStart(tmp_path / "warm.log", bare=True)
    made.prepare()
    until_ready(made)
    yield made
    made.close()


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def jobs(settings: Settings, db: Database, warm: WarmStart) -> Iterator[Jobs]:
    with jobs_of(settings, db, warm=warm) as made:
        yield made


def begin(jobs: Jobs, project: Project, **args: Any) -> Run:
    return jobs.start("generate", CHILD, "A run", project.project_id, {"args": args}, env={"STUDIO_KEY_M": "typed secret"})


def parent_of(run: Run) -> int:
    return psutil.Process(run.pid).ppid()


def server_of(warm: WarmStart) -> int:
    assert warm._life is not None
    return warm._life.process.pid


def test_a_forked_run_looks_like_a_cold_one(
    jobs: Jobs, db: Database, settings: Settings, project: Project, warm: WarmStart
) -> None:
    run = wait(db, begin(jobs, project, wait_at=1).run_id, started)
    folder = RunDir(settings.runs_dir / run.run_id)
    assert parent_of(run) == server_of(warm)
    seen = psutil.Process(run.pid)
    assert [part for part in seen.cmdline() if part] == [sys.executable, "-m", CHILD, str(folder.path)]
    assert os.getsid(run.pid) == os.getpgid(run.pid) == run.pid
    assert processes.find(folder.path) == Process(run.pid, pytest.approx(run.pid_created, abs=1))
    (folder.path / "go").touch()
    done = wait(db, run.run_id, ended)
    assert (done.status, done.error) == ("finished", "")
    assert done.result["niceness"] == processes.NICENESS
    assert done.result["key"] == "typed secret"
    cold = set(processes.environment({"STUDIO_KEY_M": ""}, ()))
    assert set(done.result["environment"]) == cold | {"OMP_WAIT_POLICY"}
    assert "hello from the child" in folder.log_tail()


def test_two_runs_are_two_processes_with_nothing_of_each_other(jobs: Jobs, db: Database, project: Project, warm: WarmStart) -> None:
    first = wait(db, begin(jobs, project).run_id, ended)
    second = wait(db, jobs.start("generate", CHILD, "n", project.project_id, {"args": {}}).run_id, ended)
    assert first.result["key"] == "typed secret"
    assert second.result["key"] == "", "the environment of one run is not the next one's"
    assert first.pid != second.pid
    assert warm.ready


def test_stopping_a_forked_run_works_in_both_steps(jobs: Jobs, db: Database, project: Project) -> None:
    run = wait(db, begin(jobs, project, steps=100_000, seconds_a_step=0.02, ending="stubborn").run_id, started)
    jobs.stop(run.run_id)
    jobs.stop(run.run_id)
    done = wait(db, run.run_id, ended)
    assert done.status == "stopped"
    until(lambda: is_gone(run.pid))


def test_how_a_forked_run_was_killed_is_known(jobs: Jobs, db: Database, project: Project) -> None:
    done = wait(db, begin(jobs, project, ending="killed").run_id, ended)
    assert done.status == "lost"
    assert "killed by the system" in done.error


def test_a_run_goes_on_when_the_warm_process_is_killed(
    jobs: Jobs, db: Database, settings: Settings, project: Project, warm: WarmStart
) -> None:
    run = wait(db, begin(jobs, project, steps=20, wait_at=5).run_id, started)
    os.kill(server_of(warm), signal.SIGKILL)
    until(lambda: not warm.ready)
    (settings.runs_dir / run.run_id / "go").touch()
    done = wait(db, run.run_id, ended)
    assert (done.status, done.progress["done"]) == ("finished", 20)
    cold = wait(db, begin(jobs, project, wait_at=1).run_id, started)
    assert parent_of(cold) == os.getpid(), "and the next one is started cold"


def test_a_forked_run_that_dies_unseen_is_not_alive(
    jobs: Jobs, db: Database, settings: Settings, project: Project, warm: WarmStart
) -> None:
    """Its parent does not look after it: a zombie, which is dead."""
    run = wait(db, begin(jobs, project, steps=3, wait_at=1).run_id, started)
    os.kill(server_of(warm), signal.SIGSTOP)
    try:
        os.kill(run.pid, signal.SIGKILL)
        until(lambda: psutil.Process(run.pid).status() == psutil.STATUS_ZOMBIE)
        assert not processes.is_alive(Process(run.pid, run.pid_created), settings.runs_dir / run.run_id)
        assert processes.find(settings.runs_dir / run.run_id) is None
        assert wait(db, run.run_id, ended).status == "lost"
    finally:
        os.kill(server_of(warm), signal.SIGCONT)


def test_another_process_with_the_same_number_is_not_the_run(
    jobs: Jobs, db: Database, settings: Settings, project: Project
) -> None:
    run = wait(db, begin(jobs, project, wait_at=1).run_id, started)
    folder = settings.runs_dir / run.run_id
    assert processes.is_alive(Process(run.pid, run.pid_created), folder)
    assert not processes.is_alive(Process(run.pid, run.pid_created - 60), folder), "one that began at another time"
    assert not processes.is_alive(Process(run.pid, run.pid_created), folder.with_name("another")), "one of another run"
    other = Process(os.getpid(), psutil.Process().create_time())
    assert not processes.is_alive(other, folder)
    assert not processes.end(other, folder, signal.SIGKILL)


# --- when it would be wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["code", "surroundings"])
def test_after_a_change_a_run_starts_cold_and_the_next_one_warm(
    jobs: Jobs,
    db: Database,
    settings: Settings,
    project: Project,
    warm: WarmStart,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    before = server_of(warm)
    if what == "surroundings":
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    else:
        changed = surroundings()._replace(code=1)
        monkeypatch.setattr(client, "surroundings", lambda: changed)
    run = wait(db, begin(jobs, project, wait_at=1).run_id, started)
    assert parent_of(run) == os.getpid()
    until_ready(warm)
    assert server_of(warm) != before
    (settings.runs_dir / run.run_id / "go").touch()
    wait(db, run.run_id, ended)
    assert parent_of(wait(db, begin(jobs, project, wait_at=1).run_id, started)) == server_of(warm)


def test_a_key_or_a_gpu_of_ones_own_is_no_change_of_the_surroundings(warm: WarmStart, tmp_path: Path) -> None:
    env = processes.environment({"STUDIO_KEY_M": "x", "CUDA_VISIBLE_DEVICES": "1"}, ())
    assert warm.start("tests.no_such_module", tmp_path, env) is not None


def test_a_folder_whose_name_does_not_fit_starts_cold(warm: WarmStart, tmp_path: Path) -> None:
    env = processes.environment({}, ())
    assert warm.start("m" * 10_000, tmp_path, env) is None
    assert warm.ready
    assert processes.find(tmp_path) is None
    run = warm.start("tests.no_such_module", tmp_path, env)
    assert run is not None
    until(lambda: run.poll() is not None or not warm.ready)
    assert warm._life is not None
    assert set(warm._life.codes) == {run.pid}, "what never was a run ends none: else the warm process would count them wrong"


def test_its_memory_is_given_back_although_a_run_could_not_be_forked(tmp_path: Path) -> None:
    """It waits for no run that never was."""
    code = "import sys; from training import warm; warm.IDLE_S = 0.2; sys.argv += ['--bare']; warm.main()"
    server = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps({"module": "m" * 10_000, "folder": str(tmp_path), "env": {}}).encode() + b"\n")
    server.stdin.flush()
    assert [next(iter(json.loads(line))) for line in server.stdout] == ["ready", "error"]
    assert server.wait() == 0


def test_nothing_is_kept_ready_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "NEEDS", 2**60)
    warm = WarmStart(tmp_path / "warm.log", bare=True)
    warm.prepare()
    assert warm._life is None
    assert warm.start(CHILD, tmp_path, {}) is None


def test_a_closed_studio_leaves_no_warm_process(warm: WarmStart) -> None:
    pid = server_of(warm)
    warm.close()
    assert not psutil.pid_exists(pid)
    warm.prepare()
    assert not warm.ready


SERVER = """
import sys, time
from pathlib import Path
from data import projects, runs
from data.database import Database
from data.settings import Settings
from studio import warm as client
from studio.jobs import Jobs

client.NEEDS = 0
settings = Settings(home=Path(sys.argv[1]))
db = Database(settings)
warm = client.WarmStart(settings.home / "warm.log", bare=True)
warm.prepare()
while not warm.ready:
    assert warm._life.alive, (settings.home / "warm.log").read_text()
    time.sleep(0.01)
jobs = Jobs(settings, db, poll_s=0.05, warm=warm)
project = projects.create(db, "P")
run = jobs.start("generate", "tests.jobs_child", "goes on", project.project_id, {"args": {"steps": 40, "wait_at": 20}})
while (run := runs.get(db, run.run_id)).progress.get("done", 0) < 5:
    assert run.status in ("queued", "running"), run
    time.sleep(0.02)
print(run.run_id, warm._life.process.pid, flush=True)
time.sleep(600)
"""


def test_a_forked_run_outlives_a_server_that_is_killed(settings: Settings) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(settings.home)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    run_id, warm_pid = server.stdout.readline().split()
    server.kill()
    server.wait()
    until(lambda: is_gone(int(warm_pid)))
    db = Database(settings)
    seen = runs.get(db, run_id)
    assert processes.is_alive(Process(seen.pid, seen.pid_created), settings.runs_dir / run_id)
    jobs = Jobs(settings, db, poll_s=0.05)
    jobs.reconcile()
    (settings.runs_dir / run_id / "go").touch()
    done = wait(db, run_id, ended)
    assert (done.status, done.pid) == ("finished", seen.pid)
    steps = [e["step"] for e in RunDir(settings.runs_dir / run_id).tail(0).events if e["type"] == "metrics"]
    assert steps == list(range(1, 41))
    jobs.close()
    db.close()
