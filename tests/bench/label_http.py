"""Labels over real HTTP into the real app: how soon one is acknowledged, alone and among fifty, and how many a second fit in.

The app is a process of its own, as a user starts it; annotators are signed in and speak to the routes of the Label page. The
clients share the machine with it.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from data import accounts, completions, impressions, members, people, projects
from data.database import Database
from data.records import Impression, Project, now
from data.settings import Settings
from studio.sessions import Sessions
from tests.labelling import seed_project

BATCH = 20


class Seeded(NamedTuple):
    """A workspace with a project and annotators who are signed in; `shown` holds impressions ready to be labelled."""

    project: Project
    cookies: list[str]
    shown: list[list[str]]


class Times(NamedTuple):
    """Milliseconds, and how many were measured."""

    p50: float
    p95: float
    n: int


def seed(home: Path, annotators: int, shown_each: int, pairs: int) -> Seeded:
    """Fill an empty workspace: done before the app opens it."""
    settings = Settings(home=home, accounts=True)
    db = Database(settings)
    project = seed_project(db, n_prompts=pairs)
    sessions = Sessions(settings, db)
    made = completions.pairs_of(db, project.project_id)
    cookies, shown = [], []
    for i in range(annotators):
        account = db.write(lambda cursor, i=i: accounts.add(cursor, f"annotator{i}", "", "annotator"))
        members.add(db, project.project_id, account.annotator_id)
        people.set_open_project(db, account.annotator_id, project.project_id)
        cookies.append(sessions.cookie(account.annotator_id, https=False).split(";")[0])
        served = [_impression(made[k % len(made)], account.annotator_id) for k in range(shown_each)]
        impressions.add(db, served)
        shown.append([one.impression_id for one in served])
    projects.get(db, project.project_id)
    db.close()
    return Seeded(project, cookies, shown)


def _impression(pair: Any, annotator_id: str) -> Impression:
    sides = (pair.prompt_id, pair.pair_id, pair.completion_a, pair.completion_b)
    shown = (secrets.token_hex(12), pair.project_id, annotator_id, *sides, "pairwise", "normal", "stratified_random", 1.0)
    return Impression(*shown, now(), now())


class Client:
    """One browser's connection, kept open."""

    def __init__(self, url: str, cookie: str) -> None:
        self._at = urlsplit(url)
        self._headers = {"Cookie": cookie, "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(self._at.hostname or "", self._at.port or 80, timeout=60)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def label(self, shown: Sequence[str]) -> float:
        """Send these as one request; milliseconds until all were acknowledged."""
        votes = [_vote(impression_id) for impression_id in shown]
        started = time.perf_counter()
        results = self.ask("POST", "/api/label", votes)["results"]
        took = 1000 * (time.perf_counter() - started)
        refused = [one for one in results if not one["accepted"]]
        if refused or len(results) != len(votes):
            raise RuntimeError(f"refused: {refused[:3]}")
        return took


def _vote(impression_id: str) -> dict[str, object]:
    return {
        "id": str(uuid.uuid4()),
        "impression": impression_id,
        "event": "cast",
        "preference": random.choice("ab"),
        "dwell_ms": 2000,
    }


def acknowledged(url: str, cookies: Sequence[str], think_s: float, labels_each: int) -> Times:
    """Every annotator fetches items and labels one after the other, `think_s` on average between two."""
    took: list[float] = []

    def annotate(cookie: str) -> None:
        client, waiting = Client(url, cookie), []
        rng = random.Random(cookie)
        time.sleep(rng.uniform(0, think_s))
        for _ in range(labels_each):
            if not waiting:
                waiting = [item["id"] for item in client.ask("GET", f"/api/label/batch?n={BATCH}")["items"]]
            took.append(client.label([waiting.pop()]))
            time.sleep(rng.uniform(0.5, 1.5) * think_s)

    _all_at_once([lambda cookie=cookie: annotate(cookie) for cookie in cookies])
    return Times(statistics.median(took), statistics.quantiles(took, n=20)[-1], len(took))


def throughput(url: str, seeded: Seeded, threads: int) -> float:
    """Labels a second, sent in batches of twenty as fast as they are acknowledged."""

    def send(cookie: str, shown: Sequence[str]) -> None:
        client = Client(url, cookie)
        for at in range(0, len(shown), BATCH):
            client.label(shown[at : at + BATCH])

    work = list(zip(seeded.cookies, seeded.shown, strict=True))[:threads]
    started = time.perf_counter()
    _all_at_once([lambda one=one: send(*one) for one in work])
    return sum(len(shown) for _, shown in work) / (time.perf_counter() - started)


def _all_at_once(jobs: Sequence[Callable[[], None]]) -> None:
    problems: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
