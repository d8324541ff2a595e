"""Runs whose end nobody reported, or that cannot be written down: each ends all the same, and keeps nobody waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_studio import begin, ended, folder_of, jobs_of, lines_for, questions, started, wait

from data import projects, runs
from data.database import Database
from data.errors import BadInput, WorkspaceError
from data.records import Project, Prompt
from data.rundir import RunDir
from data.settings import Settings
from studio import processes, run_launch
from studio.jobs import Jobs
from studio.processes import Process

pytestmark = pytest.mark.app


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def jobs(settings: Settings, db: Database) -> Iterator[Jobs]:
    with jobs_of(settings, db) as made:
        yield made


@pytest.fixture
def asked(db: Database, project: Project) -> list[Prompt]:
    return questions(db, project)


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
