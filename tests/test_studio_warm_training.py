"""A real training run forked from the warm process: it goes on when all around it is killed, and learns what a cold one does."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_studio import ended, wait
from training_runs import dpo_rows, make_run

from data import models, projects, runs
from data.database import Database
from data.records import Run
from data.resume import newest
from data.rundir import RunDir, sha256_of
from data.settings import Settings
from studio import warm as client
from studio.jobs import Jobs
from studio.metrics import Metrics
from training.config import DpoConfig

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "data" / "demo" / "model"
STEPS = 24
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a warm start forks, which is safe on Linux only"),
]

SERVER = """
import sys, time
from pathlib import Path
from tests.test_studio_warm_training import begin
from data import projects, runs
from data.database import Database
from data.settings import Settings
from studio import warm as client
from studio.jobs import Jobs

client.NEEDS = 0  # what else runs on this machine is not asked
settings = Settings(home=Path(sys.argv[1]))
db = Database(settings)
warm = client.WarmStart(settings.home / "warm.log")
warm.prepare()
while not warm.ready:
    assert warm._life.alive, (settings.home / "warm.log").read_text()
    time.sleep(0.05)
jobs = Jobs(settings, db, poll_s=0.05, warm=warm)
run = begin(jobs, projects.create(db, "P").project_id, settings.home)
while (run := runs.get(db, run.run_id)).progress.get("unit") != "steps":
    assert run.status in ("queued", "running"), run
    time.sleep(0.02)
print(run.run_id, warm._life.process.pid, flush=True)
time.sleep(600)
"""


def begin(jobs: Jobs, project_id: str, home: Path) -> Run:
    """A DPO run over twelve pairs."""
    made = make_run(home / "made", BASE, DpoConfig(max_steps=STEPS, batch_size=4), [*dpo_rows(12), *dpo_rows(4, "held_out")])
    config, file = made.config(), made.path / "data.parquet"
    data = {"file": "data.parquet", "sha256": sha256_of(file), "rows": 16}
    return jobs.start("dpo", "training.dpo", "DPO", project_id, {"args": config["args"], "data": data}, {"data.parquet": file})


def metrics(folder: RunDir) -> list[dict[str, Any]]:
    return [event for event in folder.tail(0).events if event["type"] == "metrics" and "loss" in event]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_training_run_outlives_the_server_and_its_curve_has_no_gap(settings: Settings) -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(settings.home)], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    run_id, warm_pid = server.stdout.readline().split()
    server.kill()
    server.wait()
    while not gone(int(warm_pid)):
        time.sleep(0.05)
    db = Database(settings)
    seen, folder = runs.get(db, run_id), RunDir(settings.runs_dir / run_id)
    assert seen.status == "running"
    jobs = Jobs(settings, db, poll_s=0.05)
    jobs.reconcile()
    done = wait(db, run_id, ended)
    jobs.close()
    assert (done.status, done.error, done.pid) == ("finished", "", seen.pid)
    assert [event["step"] for event in metrics(folder)] == list(range(1, STEPS + 1))
    assert done.result["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert done.result["steps"] == STEPS
    assert [m.run_id for m in models.visible(db, done.project_id, "", "adapter")] == [run_id]
    while not gone(done.pid):  # and its memory with it
        time.sleep(0.05)
    db.close()


@pytest.mark.slow  # trains twice, once with all the imports
def test_a_forked_run_makes_the_very_adapter_that_a_cold_one_makes(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, str] = {}
    monkeypatch.setattr(client, "NEEDS", 0)
    warm = client.WarmStart(settings.home / "warm.log")
    warm.prepare()
    while not warm.ready:
        assert warm._life is not None
        assert warm._life.alive, (settings.home / "warm.log").read_text()
        time.sleep(0.05)
    for name, start in (("warm", warm), ("cold", None)):
        jobs = Jobs(settings, db, poll_s=0.05, warm=start)
        run = begin(jobs, projects.create(db, name).project_id, settings.home / name)
        done = wait(db, run.run_id, ended)
        jobs.close()
        assert done.status == "finished", done.error
        made[name] = sha256_of(settings.runs_dir / run.run_id / "adapter" / "adapter_model.safetensors")
    warm.close()
    assert made["warm"] == made["cold"]


def test_a_training_run_that_is_killed_is_never_shown_as_running(settings: Settings, db: Database) -> None:
    """As when memory runs out: the row says lost, the device is free, and the next run gets it."""
    jobs = Jobs(settings, db, poll_s=0.05)
    project = projects.create(db, "P")
    run = begin(jobs, project.project_id, settings.home)
    going = wait(db, run.run_id, lambda each: each.progress.get("unit") == "loading the libraries")
    os.kill(going.pid, signal.SIGKILL)
    done = wait(db, run.run_id, ended)
    assert done.status == "lost"
    assert "memory ran out" in done.error
    assert gone(done.pid)
    after = jobs.start("generate", "tests.jobs_child", "next", project.project_id, {"args": {}})
    assert wait(db, after.run_id, ended).status == "finished"
    jobs.close()


@pytest.mark.slow  # two cold starts; its halves are in test_studio_again.py and in the tests of the checkpoints
def test_a_training_run_that_was_stopped_goes_on_with_one_curve(settings: Settings, db: Database) -> None:
    """Stopped in the middle, queued again in its folder: it goes on at its checkpoint, and every step is there once."""
    jobs = Jobs(settings, db, poll_s=0.05)
    run = begin(jobs, projects.create(db, "P").project_id, settings.home)
    folder = RunDir(settings.runs_dir / run.run_id)
    wait(db, run.run_id, lambda each: len(metrics(folder)) >= 3)
    jobs.stop(run.run_id)
    assert wait(db, run.run_id, ended).status == "stopped"
    at = newest(folder.path)
    assert at is not None
    assert 3 <= at.step < STEPS
    jobs.resume(run.run_id)
    done = wait(db, run.run_id, ended)
    jobs.close()
    assert (done.status, done.error) == ("finished", "")
    assert (done.result["steps"], done.result["resumed_from"]) == (STEPS, at.step)
    drawn = [event["step"] for event in Metrics(settings.runs_dir).of(run.run_id) if "loss" in event]
    assert drawn == list(range(1, STEPS + 1))
    assert newest(folder.path) is None, "a run that has finished keeps no checkpoint"
