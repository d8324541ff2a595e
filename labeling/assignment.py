"""Which item an annotator is shown next, with its sides fixed, written down before it is shown.

The tables stay the truth. What must answer in milliseconds beside a million rows (counts, who has seen what, leases) is kept in
memory, one `Pool` per project: rebuilt from the tables when a project is first asked for, then updated by what each commit
brings, whoever wrote it.

An impression is served again, same sides, until its annotator labels it or someone else has completed the item: so a reload
brings back what was on the screen. A lease (120 s) keeps an item from a second person meanwhile; a label on an expired lease is
kept all the same.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from data import completions, impressions, prompts
from data.database import Database
from data.journal import Change
from data.records import Impression, Prompt
from labeling.memory import ProjectMemory, Shown
from labeling.pool import POLICY, Drawn

LEASE_SECONDS = 120
OVERLAP = 1  # labels an item needs; a project's own number comes with projects' settings
MAX_SERVED = 100
MAX_NEWS_ROWS = 20_000
TABLES = frozenset({"prompts", "pairs", "completions", "impressions", "label_events"})
log = logging.getLogger("studio.assignment")


class Served(NamedTuple):
    """An impression with the texts that belong on its sides; `right` is '' in binary tasks."""

    impression: Impression
    prompt: Prompt
    left: str
    right: str


class Progress(NamedTuple):
    """`mine` and `skipped` are this annotator's; `first_rank` is how many labels give every prompt one."""

    mine: int
    skipped: int
    complete: int
    total: int
    first_rank: int
    left: int


def swapped(annotator_id: str, pair_id: str) -> bool:
    """Whether this annotator sees the pair's second completion on the left: a fair coin, the same for ever."""
    return hashlib.sha256(f"side\0{annotator_id}\0{pair_id}".encode()).digest()[0] & 1 == 1


def with_texts(db: Database, served: Sequence[Impression]) -> list[Served]:
    """Impressions with the texts that belong on their sides, in order."""
    ids = {i for s in served for i in (s.left_completion_id, s.right_completion_id) if i}
    texts = {c.completion_id: c.text for c in completions.get_many(db, sorted(ids))}
    asked = {p.prompt_id: p for p in prompts.get_many(db, sorted({s.prompt_id for s in served}))}
    return [Served(s, asked[s.prompt_id], texts[s.left_completion_id], texts.get(s.right_completion_id, "")) for s in served]


class Assignment:
    """Serves impressions; safe to call from any thread."""

    def __init__(self, db: Database, overlap: int = OVERLAP, lease_seconds: float = LEASE_SECONDS) -> None:
        self._db = db
        self._overlap = overlap
        self._lease_seconds = lease_seconds
        self._projects: dict[str, ProjectMemory] = {}
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
        with self._turn(
            annotator_id, project_id
        ):  # two requests of one person: the second must not be given what is not yet stored
            with self._lock:
                project = self._project(project_id)
                now = time.time()
                project.pool.expire(now)
                again = self._again(project, annotator_id, n, now)
                fresh = [
                    self._show(project, project_id, annotator_id, d, now) for d in project.pool.draw(annotator_id, n - len(again))
                ]
            if fresh:
                self._store(project, annotator_id, fresh)
        return with_texts(self._db, [*again, *(shown.impression for shown in fresh)])

    def release(self, annotator_id: str, impression_ids: Iterable[str]) -> int:
        """End the leases of impressions that this annotator will not label now; how many there were."""
        ended = 0
        with self._lock:
            self._catch_up()
            for project in self._projects.values():
                mine = project.shown.get(annotator_id, {})
                for impression_id in impression_ids:
                    if shown := mine.get(impression_id):
                        project.pool.release(shown.item_id, annotator_id)
                        ended += 1
        return ended

    def progress(self, annotator_id: str, project_id: str) -> Progress:
        with self._lock:
            project = self._project(project_id)
            project.pool.expire(time.time())
            pool, mine = project.pool, project.shown.get(annotator_id, {})
            left = pool.left_for(annotator_id) + sum(pool.open_for(shown.item_id, annotator_id) for shown in mine.values())
            labelled, skipped = project.labelled.get(annotator_id, 0), project.skipped.get(annotator_id, 0)
            return Progress(labelled, skipped, pool.complete, len(pool.items), pool.first_rank, left)

    # --- serving -----------------------------------------------------------------------------------------------------

    def _turn(self, annotator_id: str, project_id: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault((annotator_id, project_id), threading.Lock())

    def _again(self, project: ProjectMemory, annotator_id: str, n: int, now: float) -> list[Impression]:
        """What this annotator was served and has not labelled, as far as it is still wanted; leased anew."""
        wanted = [s for s in project.shown.get(annotator_id, {}).values() if project.pool.open_for(s.item_id, annotator_id)][:n]
        for shown in wanted:
            project.pool.lease(shown.item_id, annotator_id, now + self._lease_seconds)
        return [shown.impression for shown in wanted]

    def _show(self, project: ProjectMemory, project_id: str, annotator_id: str, drawn: Drawn, now: float) -> Shown:
        item = drawn.item
        left, right = item.first, item.second
        if right and swapped(annotator_id, item.item_id):
            left, right = right, left
        served_at = datetime.fromtimestamp(now, UTC)
        impression = Impression(
            impression_id=secrets.token_hex(12),
            project_id=project_id,
            annotator_id=annotator_id,
            prompt_id=item.prompt_id,
            pair_id=item.item_id if item.second else "",
            left_completion_id=left,
            right_completion_id=right,
            task=project.task,
            kind="normal",
            policy=POLICY,
            probability=drawn.probability,
            served_at=served_at,
            lease_expires_at=served_at + timedelta(seconds=self._lease_seconds),
        )
        project.pool.see(item.item_id, annotator_id)
        project.pool.lease(item.item_id, annotator_id, now + self._lease_seconds)
        shown = Shown(impression, item.item_id)
        project.shown[annotator_id][impression.impression_id] = shown
        return shown

    def _store(self, project: ProjectMemory, annotator_id: str, fresh: Sequence[Shown]) -> None:
        try:
            impressions.add(self._db, [shown.impression for shown in fresh])
        except BaseException:
            with self._lock:
                for shown in fresh:
                    project.shown[annotator_id].pop(shown.impression.impression_id, None)
                    project.pool.unsee(shown.item_id, annotator_id)
                    project.pool.release(shown.item_id, annotator_id)
            raise

    # --- memory ------------------------------------------------------------------------------------------------------

    def _project(self, project_id: str) -> ProjectMemory:
        """The project's memory, level with every commit acknowledged so far. Called with the lock held."""
        self._catch_up()
        while project_id not in self._projects:
            self._projects[project_id] = ProjectMemory.load(self._db, project_id, self._overlap)
            self._catch_up()
        return self._projects[project_id]

    def _committed(self, changes: Sequence[Change]) -> None:
        """Runs in the writer thread, so it only notes what a commit brought; the next request takes it in."""
        news = [c for c in changes if c.op in ("schema", "delete") or (c.op == "insert" and c.table in TABLES)]
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
            else:  # restored, rebuilt, a visitor's rows removed: anything may be different
                self._projects.clear()

    def _take(self, project: ProjectMemory, change: Change) -> None:
        try:
            project.take(self._db, change)
        except Exception:
            log.exception("the memory of project %s is read again from the tables", project.project_id)
            del self._projects[project.project_id]
