"""Which item an annotator is shown next, with its sides fixed, written down before it is shown.

The tables stay the truth. What must answer in milliseconds beside a million rows (counts, who has seen what, leases) is kept in
memory, one `ProjectMemory` per project: rebuilt from the tables when a project is first asked for, then updated by what each
commit brings, whoever wrote it.

An impression is served again, same sides, until its annotator labels it or others have completed the item: so a reload brings
back what was on the screen. A lease (120 s, renewed by the page's heartbeat) keeps a place in the item's overlap meanwhile.
Nobody holds more leases than the remaining items divided by the people at work, so that the last ones are shared. A label on an
expired lease is kept all the same, and marked `extra` when the item had enough without it.

Renewals are kept in memory alone. So after a start whatever was on a screen is held for its annotator once more, until one lease
has passed since the start: a page that is still there has renewed it by then.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from data import completions, impressions, prompts
from data.database import Database
from data.errors import NotFound
from data.journal import Change
from data.records import Impression, Prompt
from labeling.memory import COUNTED, ProjectMemory
from labeling.memory_load import load
from labeling.serving import Batch, Fresh, swapped, take_back
from labeling.track import Consistency, Track, day_of

__all__ = ["HEARTBEAT_SECONDS", "LEASE_SECONDS", "Assignment", "Beat", "Progress", "Served", "swapped", "with_texts"]

LEASE_SECONDS = 120
HEARTBEAT_SECONDS = 20
MAX_SERVED = 100
MAX_NEWS_ROWS = 20_000
TABLES = frozenset(
    {"prompts", "pairs", "completions", "impressions", "label_events", "gold", "adjudications", "judgments"}
)  # fmt: skip
log = logging.getLogger("studio.assignment")


class Served(NamedTuple):
    """An impression with the texts that belong on its sides; `right` is '' in binary tasks."""

    impression: Impression
    prompt: Prompt
    left: str
    right: str


class Progress(NamedTuple):
    """`mine`, `skipped`, `today` and `consistency` are this annotator's; `first_rank` is how many labels give every prompt one;
    `labels` are everybody's."""

    mine: int
    skipped: int
    complete: int
    total: int
    first_rank: int
    left: int
    today: int
    labels: int
    consistency: Consistency


class Beat(NamedTuple):
    """Which impressions still have their place, and which went to others: those need no label any more."""

    kept: list[str]
    lost: list[str]


def with_texts(db: Database, served: Sequence[Impression]) -> list[Served]:
    """Impressions with the texts that belong on their sides, in order."""
    texts = completions.texts(db, (i for s in served for i in (s.left_completion_id, s.right_completion_id) if i))
    asked = {p.prompt_id: p for p in prompts.get_many(db, sorted({s.prompt_id for s in served}))}
    return [Served(s, asked[s.prompt_id], texts[s.left_completion_id], texts.get(s.right_completion_id, "")) for s in served]


class Assignment:
    """Serves impressions; safe to call from any thread. `clock` gives seconds since 1970."""

    def __init__(
        self,
        db: Database,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._db = db
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._started = clock()
        self._rng = rng or random.Random()
        self._projects: dict[str, ProjectMemory] = {}
        self._stale: set[str] = set()  # to be read again from the tables
        self._lock = threading.Lock()  # memory; never held while waiting for a write
        self._news: list[Change] = []  # committed and not yet taken in
        self._news_rows = 0
        self._news_lock = threading.Lock()
        self._turns: dict[tuple[str, str], threading.Lock] = {}
        db.on_commit(self._committed)

    def serve(self, annotator_id: str, project_id: str, n: int) -> list[Served]:
        """Up to `n` impressions for this annotator: those served and not labelled yet, then new ones, stored in one transaction.

        Fewer come back when fewer are open. NotFound when there is no such project.
        """
        n = max(0, min(n, MAX_SERVED))
        with self._turn(annotator_id, project_id):  # two requests of one person: the second must not get what is not yet stored
            with self._lock:
                project, now = self._project(project_id), self._clock()
                limit = self._limit(project, annotator_id, now)
                again = self._again(project, annotator_id, n, limit, now)
                batch = Batch(project, annotator_id, now, self.lease_seconds, self._rng)
                fresh = batch.fill(n - len(again), limit - project.pool.held(annotator_id))
            shown = [one.shown.impression for one in fresh]
            stored: Future[int] | None = None
            try:
                stored = impressions.submit_new(self._db, shown) if shown else None
                served = with_texts(self._db, [*again, *shown])  # while they are being stored
                if stored:
                    stored.result()
            except BaseException:
                self._take_back(project_id, annotator_id, fresh, stored)
                raise
        return served

    def heartbeat(self, annotator_id: str, project_id: str, impression_ids: Sequence[str]) -> Beat:
        """Renew the leases of what this annotator's page holds, in the order in which it will be shown."""
        beat = Beat([], [])
        with self._lock:
            project, now = self._project(project_id), self._clock()
            limit, shown = self._limit(project, annotator_id, now), project.tracks[annotator_id].shown
            ids = dict.fromkeys(impression_ids)
            leased = project.pool.held(annotator_id) - sum(
                project.pool.has_lease(shown[i].item_id, annotator_id) for i in ids if i in shown
            )  # by another page of theirs
            for impression_id in ids:
                one = shown.get(impression_id)
                if one is None:
                    beat.lost.append(impression_id)
                elif one.impression.kind not in COUNTED:
                    beat.kept.append(impression_id)
                elif leased < limit and project.pool.open_for(one.item_id, annotator_id):
                    project.pool.lease(one.item_id, annotator_id, now + self.lease_seconds)
                    leased += 1
                    beat.kept.append(impression_id)
                else:
                    project.pool.release(one.item_id, annotator_id)
                    beat.lost.append(impression_id)
        return beat

    def release(self, annotator_id: str, impression_ids: Iterable[str]) -> int:
        """End the leases of impressions that this annotator will not label now; how many there were."""
        ids, ended = list(impression_ids), 0
        with self._lock:
            self._catch_up()
            for project in self._projects.values():
                mine = project.tracks[annotator_id].shown if annotator_id in project.tracks else {}
                for shown in [mine[i] for i in ids if i in mine]:
                    project.pool.release(shown.item_id, annotator_id)
                    ended += 1
        return ended

    def progress(self, annotator_id: str, project_id: str) -> Progress:
        with self._lock:
            project, now = self._project(project_id), self._clock()
            project.pool.expire(now)
            pool, track = project.pool, project.tracks.get(annotator_id, Track())
            left = pool.left_for(annotator_id) + sum(pool.open_for(s.item_id, annotator_id) for s in track.shown.values())
            return Progress(
                mine=track.labelled,
                skipped=track.skipped,
                complete=pool.complete,
                total=len(pool.items),
                first_rank=pool.first_rank,
                left=left,
                today=track.labelled_on(day_of(datetime.fromtimestamp(now, UTC))),
                labels=sum(t.labelled for t in project.tracks.values()),
                consistency=track.consistency(),
            )

    def on_screen(self, annotator_id: str, impression_ids: Iterable[str]) -> dict[str, Impression]:
        """Those of these impressions that this annotator was served and has not labelled, as far as projects are in memory."""
        with self._lock:
            shown = [p.tracks[annotator_id].shown for p in self._projects.values() if annotator_id in p.tracks]
            return {i: mine[i].impression for i in impression_ids for mine in shown if i in mine}

    @contextmanager
    def voting(self, votes: Sequence[tuple[Impression, str]]) -> Iterator[list[bool]]:
        """While these labels (impression, preference) are being stored: for each, whether it comes when its item has enough without
        it. Two that arrive together are told apart: the first takes the place."""
        with self._lock:
            extra = [self._project(i.project_id).is_extra(i, preference) for i, preference in votes]
        try:
            yield extra
        finally:
            with self._lock:
                self._catch_up()  # what was stored is among the news by now; what was not gives its place back
                for impression, _ in votes:
                    if (project := self._projects.get(impression.project_id)) is not None:
                        project.settle_vote(project.item_of(impression), impression.impression_id)

    # --- serving -----------------------------------------------------------------------------------------------------

    def _turn(self, annotator_id: str, project_id: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault((annotator_id, project_id), threading.Lock())

    def _limit(self, project: ProjectMemory, annotator_id: str, now: float) -> int:
        """How many leases this annotator, who is at work, may hold."""
        project.pool.expire(now)
        project.tracks[annotator_id].asked_at = now
        active = sum(now - track.asked_at < self.lease_seconds for track in project.tracks.values())
        return max(1, math.ceil(project.pool.remaining / max(1, active)))

    def _again(self, project: ProjectMemory, annotator_id: str, n: int, limit: int, now: float) -> list[Impression]:
        """What this annotator was served and has not labelled, as far as it is still wanted; leased anew."""
        wanted: list[Impression] = []
        leased = 0
        for shown in list(project.tracks[annotator_id].shown.values()):
            if shown.impression.kind not in COUNTED:
                if len(wanted) < n:
                    wanted.append(shown.impression)
            elif len(wanted) < n and leased < limit and project.pool.open_for(shown.item_id, annotator_id):
                project.pool.lease(shown.item_id, annotator_id, now + self.lease_seconds)
                leased += 1
                wanted.append(shown.impression)
        return wanted

    def _take_back(self, project_id: str, annotator_id: str, fresh: Sequence[Fresh], stored: Future[int] | None) -> None:
        """What was not stored was never shown; what was is served again."""
        if stored is not None and stored.exception() is None:
            return
        with self._lock:
            if (project := self._projects.get(project_id)) is not None:
                take_back(project, annotator_id, fresh)

    # --- memory ------------------------------------------------------------------------------------------------------

    def _project(self, project_id: str) -> ProjectMemory:
        """The project's memory, level with every commit acknowledged so far. Called with the lock held."""
        self._catch_up()
        while project_id not in self._projects or project_id in self._stale:
            self._stale.discard(project_id)
            try:
                fresh = load(self._db, project_id)
            except NotFound:
                self._projects.pop(project_id, None)
                raise
            if (before := self._projects.get(project_id)) is not None:
                fresh.adopt(before)
            else:
                fresh.revive(self._started + self.lease_seconds)
            self._projects[project_id] = fresh
            self._catch_up()
        return self._projects[project_id]

    def _committed(self, changes: Sequence[Change]) -> None:
        """Runs in the writer thread, so it only notes what a commit brought; the next request takes it in."""
        news = [c for c in changes if _concerns(c)]
        with self._news_lock:
            self._news += news
            self._news_rows += sum(len(c.rows) for c in news)
            if self._news_rows > MAX_NEWS_ROWS:  # a large import while nobody labels: reading the tables again is cheaper
                self._news, self._news_rows = [Change("schema")], 0

    def _catch_up(self) -> None:
        with self._news_lock:
            news, self._news, self._news_rows = self._news, [], 0
        for change in news:
            if change.op == "insert":
                for project in list(self._projects.values()):
                    self._take(project, change)
            elif project_id := change.key.get("project_id"):  # other settings, or a visitor's project removed
                self._stale.add(project_id)
            else:  # restored, rebuilt: anything may be different
                self._stale.update(self._projects)

    def _take(self, project: ProjectMemory, change: Change) -> None:
        try:
            project.take(self._db, change)
        except Exception:
            log.exception("the memory of project %s is read again from the tables", project.project_id)
            self._stale.add(project.project_id)


def _concerns(change: Change) -> bool:
    if change.op == "update":
        return change.table == "projects" and "settings" in change.fields
    return change.op == "schema" or change.table in TABLES or (change.op == "delete" and change.table == "projects")
