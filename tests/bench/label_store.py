"""How many labels a second the store acknowledges: 50 threads, each waiting for its own label to be durable.

    python -m tests.bench.label_store        # needs no model; about half a minute

An acknowledged label is in the fsynced journal and in a committed database transaction, so the disk sets a floor; the printed
fsync time says which. Every round is checked: each acknowledged label is there once.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from data import impressions, labels, people, projects
from data.database import Database
from data.records import Impression, LabelEvent, Project, now
from data.settings import Settings

THREADS = 50
BATCH = 20
ROUNDS = 3
SHOWN = 200  # impressions of each thread's annotator: labels are given and revised again


def measure_writer(home: Path, labels_a_thread: int = 60, rounds: int = ROUNDS) -> dict[str, float]:
    """labels_per_second of single labels and of batches of 20, medians of alternating rounds, on a new workspace in `home`."""
    db = Database(Settings(home=home))
    try:
        shown = _seed(db)
        _round(db, shown, 1, 5)  # warm
        rates: dict[int, list[float]] = {1: [], BATCH: []}
        for _ in range(rounds):
            for size in rates:
                rates[size].append(_round(db, shown, size, labels_a_thread * (1 if size == 1 else 5)))
    finally:
        db.close()
    return {
        "labels_per_second": statistics.median(rates[1]),
        "labels_per_second_batches_of_20": statistics.median(rates[BATCH]),
        "fsync_ms": fsync_ms(home),
    }


def fsync_ms(folder: Path) -> float:
    """Median of writing 4 KB durably: what any store pays for an acknowledgement."""
    file = os.open(folder / "fsync.probe", os.O_WRONLY | os.O_CREAT, 0o600)
    took = []
    for _ in range(50):
        started = time.perf_counter()
        os.pwrite(file, b"x" * 4096, 0)
        os.fsync(file)
        took.append(1000 * (time.perf_counter() - started))
    os.close(file)
    (folder / "fsync.probe").unlink()
    return statistics.median(took)


def _seed(db: Database) -> dict[str, list[str]]:
    """Impressions by annotator."""
    project = projects.create(db, "Bench")
    shown: dict[str, list[str]] = {}
    rows = []
    for number in range(THREADS):
        who = f"annotator{number}"
        people.ensure(db, who, f"Annotator {number}", "simulated")
        shown[who] = [f"{who}-{i}" for i in range(SHOWN)]
        for impression_id in shown[who]:
            rows.append(_impression(impression_id, project, who))
    impressions.add(db, rows)
    return shown


def _round(db: Database, shown: dict[str, list[str]], size: int, labels_a_thread: int) -> float:
    """Labels a second while every thread sends its labels, `size` at a time, each after the one before is durable."""
    project_id = str(db.value("select project_id from projects where name = 'Bench'"))
    work = [_batches(project_id, who, ids, size, labels_a_thread) for who, ids in shown.items()]
    go, failed = threading.Barrier(THREADS + 1), []

    def send(batches: Sequence[Sequence[LabelEvent]]) -> None:
        go.wait()
        try:
            for events in batches:
                labels.append(db, events)
        except Exception as error:
            failed.append(error)

    before = int(db.value("select count(*) from label_events"))
    threads = [threading.Thread(target=send, args=(batches,)) for batches in work]
    for thread in threads:
        thread.start()
    go.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    sent = sum(len(events) for batches in work for events in batches)
    stored = int(db.value("select count(*) from label_events")) - before
    assert stored == sent, f"{sent} acknowledged, {stored} stored"
    return sent / took


def _batches(project_id: str, who: str, ids: Sequence[str], size: int, count: int) -> list[list[LabelEvent]]:
    """Made before the clock starts: what is measured is the store."""
    events = [
        LabelEvent(str(uuid.uuid4()), ids[i % len(ids)], project_id, who, "cast", "ab"[i % 2], dwell_ms=900, client_at=now())  # type: ignore[arg-type]
        for i in range(count)
    ]
    return [events[i : i + size] for i in range(0, count, size)]


def _impression(impression_id: str, project: Project, who: str) -> Impression:
    return Impression(
        impression_id, project.project_id, who, "prompt", "pair", f"{impression_id}-l", f"{impression_id}-r", "pairwise", "normal",
        "random", 1.0, now(), now(),
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.environ.get("STUDIO_HOME")) as folder:
        print(f"load {os.getloadavg()[0]:.1f}", {k: round(v, 2) for k, v in measure_writer(Path(folder) / "home").items()})
