"""`kill -9` of the whole app with labels in flight and a run going: nothing acknowledged is lost or there twice, and the run is
what it is. The app, the clients and the run are real processes and real HTTP; the proof is read from the database afterwards.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, AppProcess

ROUNDS = 3


def _call(url: str, body: object | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


class Outbox:
    """What the page does, in Python: labels are made once, sent again until a reply names them, and taken out only then."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: set[str] = set()  # impressions that have a label already
        self.unsent: list[dict[str, Any]] = []
        self.acknowledged: set[str] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        rng = random.Random(7)
        while not self.ended.is_set():
            try:
                self._fill(rng)
                self._send()
            except (OSError, ValueError, urllib.error.URLError):
                time.sleep(0.05)  # the server is gone; what is unsent stays

    def _fill(self, rng: random.Random) -> None:
        for item in _call(f"{self.url}/api/label/batch?n=10")["items"]:
            impression = item["id"]
            if impression not in self.made:
                self.made.add(impression)
                self.unsent.append(
                    {
                        "id": str(uuid.uuid4()),
                        "impression": impression,
                        "event": "cast",
                        "preference": rng.choice("ab"),
                        "dwell_ms": 900,
                    }
                )

    def _send(self) -> None:
        for one in _call(f"{self.url}/api/label", self.unsent)["results"]:
            assert one["accepted"], one
            self.acknowledged.add(one["id"])
        self.unsent = [vote for vote in self.unsent if vote["id"] not in self.acknowledged]


@pytest.mark.browser  # not of the fast part: it starts the app four times
def test_labels_and_a_run_survive_kill_9_of_the_app(serve_app: Callable[..., AppProcess], tmp_path: Path) -> None:
    home = tmp_path / "killed"
    run_id = subprocess.run(
        [sys.executable, "-m", "tests.kill_seed", str(home), "30"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    app = serve_app(home=home)
    outbox = Outbox(app.url)
    client = threading.Thread(target=outbox.run)
    client.start()
    try:
        for round_ in range(ROUNDS):
            goal = len(outbox.acknowledged) + 30
            while len(outbox.acknowledged) < goal:
                assert client.is_alive(), "the client ended: a label was refused"
                time.sleep(0.01)
            time.sleep(random.Random(round_).random() / 5)
            app.kill()
            app.start()
        goal = len(outbox.acknowledged) + 10
        while len(outbox.acknowledged) < goal:
            assert client.is_alive()
            time.sleep(0.01)
    finally:
        outbox.ended.set()
        client.join()
    _assert_run_goes_on_or_finished(home, run_id)
    app.stop()
    _assert_each_label_once(home, outbox)


def _assert_run_goes_on_or_finished(home: Path, run_id: str) -> None:
    events = home / "runs" / run_id / "events.jsonl"
    while '"finished"' not in events.read_text():
        time.sleep(0.2)
    time.sleep(3)  # the app takes the last events in
    assert events.read_text().count('"status": "running"') == 1, "the run was started twice"


def _assert_each_label_once(home: Path, outbox: Outbox) -> None:
    from data.database import Database
    from data.settings import Settings

    db = Database(Settings(home=home))
    try:
        rows = db.rows("select event_id, impression_id, preference, chosen_completion_id from label_events")
        run = db.row("select status, progress from runs")
    finally:
        db.close()
    stored = Counter(row["event_id"] for row in rows)
    assert outbox.acknowledged <= set(stored)
    assert set(stored.values()) == {1}
    assert max(Counter(row["impression_id"] for row in rows).values()) == 1
    assert all(row["chosen_completion_id"] for row in rows)
    assert run is not None
    assert run["status"] == "finished"
    assert json.loads(run["progress"])["done"] == 150
