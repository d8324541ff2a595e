"""`kill -9` of the whole app with labels in flight and a run going: nothing acknowledged is lost or there twice, and the run is
what it is. The app, the clients, the tabs and the run are real processes and real HTTP; the proof is read from the database
afterwards.
"""

from __future__ import annotations

import http.client
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from label_browser import press, saved, visit

from studio import processes
from tests.conftest import ROOT, AppProcess

ROUNDS, MANY_ROUNDS = 1, 20
CLIENTS = 4
TAB_ROUNDS = (3, 9, 15)  # in which a tab is closed


class Outbox:
    """What the page does, in Python: labels are made once, sent again until a reply names them, and taken out only then.

    `cookie`: who it is, '' where nobody signs in. `think_s`: longest pause before the next few labels.
    """

    def __init__(self, url: str, cookie: str = "", think_s: float = 0.0, seed: int = 7) -> None:
        self.url = url
        self.cookie = cookie
        self.think_s = think_s
        self.rng = random.Random(seed)
        self.made: set[str] = set()  # impressions that have a label already
        self.unsent: list[dict[str, Any]] = []
        self.sent_again = 0  # labels that were sent and not acknowledged the first time
        self.acknowledged: set[str] = set()
        self.sending = threading.Event()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self._fill()
                self._send()
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                time.sleep(0.05)
            except (OSError, ValueError, http.client.HTTPException):
                time.sleep(0.05)  # the server is gone; what is unsent stays
            time.sleep(self.rng.random() * self.think_s)

    def _fill(self) -> None:
        for item in self._call("/api/label/batch?n=10")["items"]:
            impression = item["id"]
            if impression not in self.made:
                self.made.add(impression)
                self.unsent.append(
                    {
                        "id": str(uuid.uuid4()),
                        "impression": impression,
                        "event": "cast",
                        "preference": self.rng.choice("ab"),
                        "dwell_ms": 900,
                    }
                )

    def _send(self) -> None:
        self.sending.set()
        try:
            results = self._call("/api/label", self.unsent)["results"]
        except (OSError, ValueError, http.client.HTTPException):
            self.sent_again += len(self.unsent)
            raise
        finally:
            self.sending.clear()
        for one in results:
            assert one["accepted"], one
            self.acknowledged.add(one["id"])
        self.unsent = [vote for vote in self.unsent if vote["id"] not in self.acknowledged]

    def _call(self, path: str, body: object | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Cookie": self.cookie}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


class Seeded(NamedTuple):
    run_id: str
    cookies: list[str]


def seed(home: Path, seconds: int, annotators: int) -> Seeded:
    command = [sys.executable, "-m", "tests.kill_seed", str(home), str(seconds), str(annotators)]
    return Seeded(**json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout))


@contextmanager
def working(clients: Sequence[Outbox]) -> Iterator[None]:
    for client in clients:
        client.thread.start()
    try:
        yield
    finally:
        for client in clients:
            client.ended.set()
        for client in clients:
            client.thread.join()


def wait_for(clients: Sequence[Outbox], more: int) -> None:
    """Until so many more labels are acknowledged."""

    def done() -> int:
        return sum(len(client.acknowledged) for client in clients)

    goal = done() + more
    while done() < goal:
        assert all(client.thread.is_alive() for client in clients), "a client ended: a label was refused"
        time.sleep(0.01)


def in_flight(client: Outbox) -> None:
    """Until it is sending."""
    while not client.sending.wait(1):
        assert client.thread.is_alive(), "a client ended: a label was refused"


@pytest.mark.slow  # a minute; test_studio_label_lost kills the server, test_studio_warm_training one beside a run
def test_labels_and_a_run_survive_kill_9_of_the_app(serve_app: Callable[..., AppProcess], tmp_path: Path) -> None:
    home = tmp_path / "killed"
    seeded = seed(home, 15, 0)
    app = serve_app(home=home)
    client = Outbox(app.url)
    with working([client]):
        for round_ in range(ROUNDS):
            wait_for([client], 30)
            time.sleep(random.Random(round_).random() / 5)
            app.kill()
            app.start()
        wait_for([client], 10)
    _assert_run_goes_on_or_finished(home, seeded.run_id)
    app.stop()
    _assert_each_label_once(home, [client], steps=75)


@pytest.mark.browser
@pytest.mark.slow  # the same at length: 20 starts of the app
def test_labels_of_many_survive_20_kills_and_closed_tabs(
    serve_app: Callable[..., AppProcess], tmp_path: Path, visitor: Any, page: Any
) -> None:
    """Killed at a random moment or with labels of one of them in flight, while another's tabs are closed with labels unsent."""
    home = tmp_path / "killed"
    seeded = seed(home, 120, CLIENTS + 1)
    app = serve_app("--accounts", home=home)
    clients = [Outbox(app.url, cookie, 0.5, number) for number, cookie in enumerate(seeded.cookies[:CLIENTS])]
    tab = Tabs(visitor, app, seeded.cookies[-1])
    rng = random.Random(11)
    with working(clients):
        for round_ in range(MANY_ROUNDS):
            wait_for(clients, rng.randrange(1, 60))
            if round_ in TAB_ROUNDS:
                tab.answer_and_close(page if round_ == TAB_ROUNDS[0] else visitor.new_page())
            else:
                time.sleep(rng.random() / 2)
                if round_ % 2:  # else it is left to chance what is going on
                    in_flight(clients[round_ // 2 % CLIENTS])
                app.kill()
            app.start()
        wait_for(clients, 40)
        tab.open_again()
    _assert_run_goes_on_or_finished(home, seeded.run_id)
    app.stop()
    assert all(client.sent_again for client in clients), "somebody's labels were never in flight when the app was killed"
    _assert_each_label_once(home, clients, steps=600, tab=tab)


class Tabs:
    """One person who labels in the browser and closes the tab while labels wait in its outbox."""

    def __init__(self, context: Any, app: AppProcess, cookie: str) -> None:
        self.context, self.app, self.cookie = context, app, cookie.split("=", 1)
        self.said: dict[str, str] = {}  # impression -> what was answered

    def answer_and_close(self, page: Any) -> None:
        """Two answers with the app there, the third in flight when it is killed, two without it, and the tab is gone."""
        self.context.add_cookies([{"name": self.cookie[0], "value": self.cookie[1], "url": self.app.url}])
        page.on("dialog", lambda dialog: dialog.accept())
        visit(page, self.app.url)
        for number, key in enumerate("12121"):
            self.said[press(page, key)["id"]] = "ab"["12".index(key)]
            if number == 2:
                self.app.kill()
        page.locator('.al-status[data-kind="waiting"]', has_text="unsent").wait_for()
        page.close()

    def open_again(self) -> None:
        page = self.context.new_page()
        visit(page, self.app.url)
        saved(page)


def _assert_run_goes_on_or_finished(home: Path, run_id: str) -> None:
    events = home / "runs" / run_id / "events.jsonl"
    going_on = True
    while '"finished"' not in events.read_text():
        assert going_on, f"the run ended otherwise: {events.read_text()[-1000:]}"
        going_on = processes.find(events.parent) is not None
        time.sleep(0.2)
    time.sleep(3)  # the app takes the last events in
    assert events.read_text().count('"status": "running"') == 1, "the run was started twice"


def _assert_each_label_once(home: Path, clients: Sequence[Outbox], steps: int, tab: Tabs | None = None) -> None:
    from data.database import Database
    from data.settings import Settings

    db = Database(Settings(home=home))
    try:
        rows = db.rows("select event_id, impression_id, preference, chosen_completion_id from label_events")
        run = db.row("select status, progress from runs")
    finally:
        db.close()
    stored = Counter(row["event_id"] for row in rows)
    assert all(client.acknowledged <= set(stored) for client in clients)
    assert set(stored.values()) == {1}
    assert max(Counter(row["impression_id"] for row in rows).values()) == 1
    assert all(row["chosen_completion_id"] for row in rows)
    if tab:
        said = {row["impression_id"]: row["preference"] for row in rows}
        assert len(tab.said) == 5 * len(TAB_ROUNDS)
        assert {impression: said.get(impression) for impression in tab.said} == tab.said
    assert run is not None
    assert run["status"] == "finished"
    assert json.loads(run["progress"])["done"] == steps
