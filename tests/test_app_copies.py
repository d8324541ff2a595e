"""A Space's disk goes with the machine: the app, started on an empty one, has every label that was copied, and says where to."""

from __future__ import annotations

import json
import shutil
import signal
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.database import Database
from data.settings import Settings

pytestmark = pytest.mark.browser  # not of the fast part: it starts the app twice


def call(url: str, body: object | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def label(url: str, n: int) -> set[str]:
    votes = [
        {"id": str(uuid.uuid4()), "impression": item["id"], "event": "cast", "preference": "a", "dwell_ms": 900}
        for item in call(f"{url}/api/label/batch?n={n}")["items"][:n]
    ]
    assert all(one["accepted"] for one in call(f"{url}/api/label", votes)["results"])
    return {vote["id"] for vote in votes}


@pytest.mark.slow
def test_an_app_on_a_new_disk_has_the_labels_of_the_old_one(serve_app: Callable[..., Any], page: Any, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    app = serve_app("--backup", str(bucket))
    given = label(app.url, 7)
    app.process.send_signal(signal.SIGTERM)  # the last ones are copied on the way out
    app.process.wait()
    shutil.rmtree(app.home)
    app.start()
    assert call(f"{app.url}/api/label/batch?n=1")["progress"]["mine"] == 7
    more = label(app.url, 3)
    while not any(next(iter(more)) in f.read_text("utf-8", "replace") for f in (bucket / "journal").iterdir()):
        assert app.process.poll() is None, app.log.read_text()
        assert "could not be copied" not in (log := app.log.read_text()), log
        time.sleep(0.1)  # copied by itself, within seconds
    page.goto(app.url)
    page.get_by_text("Labels are copied to").wait_for()
    app.kill()
    shutil.rmtree(app.home)
    app.start()
    app.stop()
    db = Database(Settings(home=app.home))
    assert given <= {row["event_id"] for row in db.rows("select event_id from label_events")}
    db.close()
