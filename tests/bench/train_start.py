"""From "Train on these labels" to the first step, through the studio's own queue: a DPO run on the demo model, warm and cold."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data import projects, runs
from data.database import Database
from data.engine import ModelSpec
from data.records import Project
from data.rundir import RunDir, sha256_of
from data.settings import Settings
from studio.jobs import Jobs
from studio.warm import WarmStart
from tests.bench.table import Row
from tests.training_runs import dpo_rows
from training.config import DpoConfig, run_args

MODEL = Path(__file__).resolve().parents[2] / "data" / "demo" / "model"
PAIRS, STEPS = 100, 2
BARS = {"warm": 3.0, "cold": 15.0}


@dataclass(frozen=True)
class Studio:
    """The parts of the app that start runs."""

    settings: Settings
    db: Database
    project: Project
    data: Path

    def seconds(self, warm: WarmStart | None) -> float:
        """From the order to the end of the run's first step."""
        jobs = Jobs(self.settings, self.db, warm=warm)
        try:
            frozen = {"file": self.data.name, "sha256": sha256_of(self.data), "rows": PAIRS}
            args = run_args(ModelSpec("local", base=str(MODEL)), DpoConfig(max_steps=STEPS, log_every=1))
            jobs.reconcile()
            began = time.time()
            run = jobs.start(
                "train",
                "training.dpo",
                "bench",
                self.project.project_id,
                {"args": args, "data": frozen},
                {self.data.name: self.data},
            )
            folder = RunDir(self.settings.runs_dir / run.run_id)
            while run.status in ("queued", "running"):
                time.sleep(0.2)
                run = runs.get(self.db, run.run_id)
        finally:
            jobs.close()
        if run.status != "finished":
            sys.exit(f"the run {run.status}: {run.error}\n{folder.log_tail(3000)}")
        return _first_step(folder.tail().events) - began


def _first_step(events: list[dict[str, Any]]) -> float:
    """When the first step was done, by whichever event says so first."""
    for event in events:
        if event["type"] == "metrics" or (event.get("unit") == "steps" and event["done"] > 0):
            return datetime.fromisoformat(event["at"]).timestamp()
    sys.exit("the run told of no step")


def rows(folder: Path, rounds: int) -> list[Row]:
    settings = Settings(home=folder / "home")
    db = Database(settings)
    data = folder / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(dpo_rows(PAIRS)), data)
    studio = Studio(settings, db, projects.create(db, "bench"), data)
    warm = WarmStart(settings.home / "warm.log")
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    try:
        for _ in range(rounds):
            found["cold"].append(studio.seconds(None))
            _until_ready(warm)
            found["warm"].append(studio.seconds(warm))
            print(f"  cold {found['cold'][-1]:.1f} s, warm {found['warm'][-1]:.1f} s", flush=True)
    finally:
        warm.close()
        db.close()
    return [_row(how, statistics.median(found[how])) for how in ("warm", "cold")]


def _until_ready(warm: WarmStart) -> None:
    warm.prepare()
    until = time.monotonic() + 300
    while not warm.ready:
        if time.monotonic() > until:
            sys.exit(f"the warm process is not ready after five minutes; memory must be free for it (see {warm._log_file})")
        time.sleep(0.2)


def _row(how: str, seconds: float) -> Row:
    bar = BARS[how]
    return Row(
        f'"Train on these labels" to the first step, {how}, the demo model',
        round(seconds, 2),
        "s",
        bar=f"<= {bar:g}",
        met=seconds <= bar,
    )
