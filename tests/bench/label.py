"""Labelling, measured: how soon the next pair is there, how soon a label is safe, how many fit in a second, beside a million.

    make bench-label        (.venv/bin/python -m tests.bench.label [paint] [http] [store] [batch] [quality] [potato])

The pages are measured in a real browser and the labels over real HTTP, both against the whole app while a training run goes
on beside it. Potato's pairwise task runs in the same browser; the two are timed in turns, with nothing else going on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import sync_playwright

from data import people, projects, prompts, runs
from data.checkers import demo_world
from data.database import Database
from data.engine import Message, ModelSpec
from data.rundir import RunDir
from data.settings import Settings
from labeling import preferences, snapshots
from labeling.assignment import Assignment
from studio import demo_project
from studio.jobs import Jobs
from tests.bench import label_batch, label_http, label_paint, label_quality, label_store, potato
from tests.bench.table import Row, at_least, publish
from tests.conftest import CHROMIUM_ARGS, AppProcess, browser_path
from tests.labelling import seed_project
from training.config import config_class, run_args

VOTES = 200
ALONE = 150
ANNOTATORS = 50
LABELS_EACH = 12
THINK_S = 2.0
SHOWN_EACH = 600
TURNS = 3
VOTES_A_TURN = 15
PACKAGES = ("gradio", "duckdb", "playwright")


def no_more(what: str, ours: float, bar: float, unit: str) -> Row:
    """A figure that must not be higher than the bar."""
    return Row(what, round(ours, 1), unit, bar=f"<= {bar:g}", met=ours <= bar)


# --- the app, with a run going ------------------------------------------------------------------------------------------------


def start_training(home: Path) -> str:
    """A DPO run of the demo model that will go on until it is ended; its id. Done before the app opens the workspace."""
    settings = Settings(home=home)
    db = Database(settings)
    jobs = Jobs(settings, db, poll_s=0.1)
    try:
        project = demo_project.create(db)
        people.ensure(db, "rules", "The rules", "simulated")
        for one in Assignment(db).serve("rules", project.project_id, 60):
            said = demo_world.prefer(one.prompt.text, one.left, one.right)
            preferences.cast(db, "rules", one.impression.impression_id, said, simulated=True)
        frozen = snapshots.freeze(db, settings, project.project_id, "preference")
        file = snapshots.file_of(settings, frozen)
        config = config_class("dpo")(max_steps=1_000_000, batch_size=4)  # it must outlast what is measured
        args = run_args(ModelSpec("local", base=str(demo_project.MODEL)), config)
        data = {"file": file.name, "sha256": frozen.sha256}
        run = jobs.start("dpo", "training.dpo", "bench", project.project_id, {"args": args, "data": data}, {file.name: file})
        while not any(e["type"] == "metrics" for e in RunDir(settings.runs_dir / run.run_id).tail().events):
            time.sleep(0.2)
            if runs.get(db, run.run_id).status not in ("queued", "running"):
                sys.exit(f"the run that should go on beside it ended: {runs.get(db, run.run_id).error}")
        return run.run_id
    finally:
        jobs.close()
        db.close()


@contextmanager
def app(home: Path, run_id: str, *flags: str) -> Iterator[str]:
    """The app's address; the run that goes on beside it is ended with it, after a look that it really went on."""
    process = AppProcess(home, *flags)
    try:
        yield process.url
    finally:
        process.stop()
        if run_id:
            end_run(home, run_id)


def end_run(home: Path, run_id: str) -> None:
    db = Database(Settings(home=home))
    run = runs.get(db, run_id)
    db.close()
    going = psutil.pid_exists(run.pid) and psutil.Process(run.pid).status() != psutil.STATUS_ZOMBIE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    if not going:
        sys.exit("the run beside the measurement had ended, so the figures are not what they say")


# --- what is measured ---------------------------------------------------------------------------------------------------------


def measure_paint(folder: Path) -> list[Row]:
    """Key to next pair painted, and one annotator's labels acknowledged; then very long answers, with nothing beside."""
    home = folder / "workspace"
    run_id = start_training(home)
    db = Database(Settings(home=home))
    project = seed_project(db, n_prompts=2 * (VOTES + label_paint.WARM_UP) + ALONE + 100)
    people.ensure(db, "local", "You", "local")
    people.set_open_project(db, "local", project.project_id)
    db.close()
    rows: list[Row] = []
    with app(home, run_id) as url:
        for delay in (0, 80):
            rows += label_paint.rows(label_paint.measure_key_to_paint(url, delay, VOTES), ", while a run trains")
        alone = label_http.acknowledged(url, [""], 0.05, ALONE)
    rows.append(no_more("label acknowledged, 1 annotator, while a run trains, p95", alone.p95, 50, "ms"))
    long = folder / "long"
    label_paint.seed(long, VOTES + label_paint.WARM_UP + 40, label_paint.LONG)
    with app(long, "") as url:
        rows += label_paint.rows(label_paint.measure_key_to_paint(url, 0, VOTES), label_paint.LONG_ANSWERS)
    return rows


def measure_http(folder: Path) -> list[Row]:
    """Fifty people at two seconds a label beside a run; then as many as fit, with nothing beside."""
    home = folder / "workspace"
    seeded = label_http.seed(home, ANNOTATORS, SHOWN_EACH, pairs=2_000)
    run_id = start_training(home)
    with app(home, run_id, "--accounts") as url:
        fifty = label_http.acknowledged(url, seeded.cookies, THINK_S, LABELS_EACH)
    with app(home, "", "--accounts") as url:
        per_second = label_http.throughput(url, seeded, threads=ANNOTATORS)
    return [
        no_more(f"label acknowledged, {ANNOTATORS} annotators, while a run trains, p95", fifty.p95, 250, "ms"),
        Row(f"label acknowledged, {ANNOTATORS} annotators, while a run trains, median", round(fifty.p50, 1), "ms"),
        at_least("durable labels over HTTP, batches of 20", round(per_second), 3000, "labels/s"),
    ]


def measure_store(folder: Path) -> list[Row]:
    found = label_store.measure_writer(folder / "workspace")
    return [
        at_least(
            "durable labels at the writer, 50 producers, batches of 20", found["labels_per_second_batches_of_20"], 3000, "labels/s"
        ),
        at_least("durable labels at the writer, 50 producers, one by one", found["labels_per_second"], 3000, "labels/s"),
        Row("one fsync of 4 KB on this disk", round(found["fsync_ms"], 2), "ms"),
    ]


def measure_batch(folder: Path) -> list[Row]:
    found = label_batch.measure_next_batch(folder / "workspace")
    return [
        no_more("next batch of 30 beside 1,000,000 labels, p95", found["batch_p95_ms"], 20, "ms"),
        Row("next batch of 30 beside 1,000,000 labels, median", round(found["batch_p50_ms"], 1), "ms"),
        Row("its memory read at the start", round(found["load_s"], 1), "s"),
    ]


def measure_quality(folder: Path) -> list[Row]:
    """What is computed for each tab, and the page as a researcher meets it: opened in the browser until its figures are there."""
    home = folder / "workspace"
    found = label_quality.measure_quality(home)
    mine = label_quality.shown_to(home, "local", TURNS)
    with app(home, "") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_ARGS).new_context()
        first = label_quality.opened(browser, url)
        client, again = label_http.Client(url, ""), []
        for impression_id in mine:
            client.label([impression_id])
            again.append(label_quality.opened(browser, url))
        browser.close()
    return [
        no_more("quality page at 1,000,000 labels, opened after a new label until it is painted", statistics.median(again), 2, "s"),
        Row("the same, the first time after a start", round(first, 1), "s"),
        Row("quality page at 1,000,000 labels, the bias cards for the first time", round(found["first_cards_s"], 1), "s"),
        no_more("quality page at 1,000,000 labels, its slowest tab", found["page_s"], 2, "s"),
        no_more("quality page at 1,000,000 labels, first tab after a start", found["cold_s"], 2, "s"),
    ]


def measure_potato(folder: Path) -> list[Row]:
    """Ours and the peer's in turns, the same texts, the same browser, nothing else going on."""
    studio_home = Path(os.environ.get("STUDIO_HOME", "workspace")).resolve()
    program = potato.install(studio_home)
    home = folder / "workspace"
    db = Database(Settings(home=home))
    project = projects.create(db, "Beside Potato")
    texts = [(f"Answer one to question {i}. " + "word " * 60, f"Answer two to question {i}. " + "other " * 60) for i in range(400)]
    fill(db, project, texts)
    db.close()
    ours: list[float] = []
    theirs: list[float] = []
    with app(home, "") as url, potato.serving(program, folder / "potato", texts) as peer, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_ARGS)
        annotator = potato.Annotator(browser, peer)
        annotator.vote()  # warm
        for _ in range(TURNS):
            theirs.append(statistics.median(annotator.vote() for _ in range(VOTES_A_TURN)))
            ours.append(label_paint.measure_in(browser, url, 0, VOTES_A_TURN)["p50"])
        browser.close()
    mine, other = statistics.median(ours), statistics.median(theirs)
    what = f"key to next pair painted, beside {potato.PACKAGE}, median"
    return [Row(what, round(mine, 1), "ms", round(other, 1), round(other / mine, 1), "peer / ours >= 10", other >= 10 * mine)]


def fill(db: Database, project: Any, texts: list[tuple[str, str]]) -> None:
    """One prompt and one pair for each pair of texts, in the project that is open."""
    from data import completions

    asked = [prompts.new(project.project_id, [Message("user", f"Question {i}?")]) for i in range(len(texts))]
    prompts.add(db, asked)
    both = [(p, text, k) for p, pair in zip(asked, texts, strict=True) for k, text in enumerate(pair)]
    completions.add(db, [completions.new(p, text, "generated", f"model {k}", sample_index=k) for p, text, k in both])
    people.ensure(db, "local", "You", "local")
    people.set_open_project(db, "local", project.project_id)


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "store": measure_store,
    "batch": measure_batch,
    "quality": measure_quality,
    "potato": measure_potato,
    "paint": measure_paint,
    "http": measure_http,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure labelling.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    flags = parser.parse_args()
    rows: list[Row] = []
    for name in flags.parts or PARTS:
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-label-") as folder:
            found = PARTS[name](Path(folder))
        for row in found:
            print(f"  {row.what}: {row.ours} {row.unit}", flush=True)
        rows += found
    return 0 if publish("label", rows, PACKAGES) else 1


if __name__ == "__main__":
    sys.exit(main())
