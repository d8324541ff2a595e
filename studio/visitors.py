"""Visitor mode: each browser gets a throw-away project of its own, with limits, for a day.

On a Space nobody has an account, so what a visitor owns is what carries their id, and nothing else is ever shown to them.
The limits keep one visitor from filling the machine; each is a sentence when it is met. A day after it was made, a project
goes with all its rows and files.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from data import import_folder, models, projects
from data.database import Database
from data.errors import LimitReached, StudioError
from data.records import Model, Project
from data.settings import Settings
from studio import demo_project
from studio.arrivals import IDLE_S, Arrivals
from studio.pace import Slots
from studio.proxy import ANYBODY

if TYPE_CHECKING:
    from studio.jobs import Jobs
    from studio.offers import Offers

MAX_VISITORS = 200
MAX_PROMPTS = 300
MAX_COMPLETIONS = 2_000
MAX_CHARACTERS = 4_000_000  # of all prompts and answers together
MAX_UNPACKED = 16 * 2**20  # bytes that an upload is read to; packed it has a megabyte at most
MAX_UPLOADS_KEPT = 5
MAX_STREAMS = 2  # answers being written at a time: eight are shared by everybody
STREAM_S = 300.0
MAX_LABEL_EVENTS = 2_000
MAX_QUEUED = 20  # runs of all visitors together
MAX_RUN_PROMPTS = 100
MAX_SAMPLES = 4
MAX_STEPS = 300
MAX_OWN_TOKENS = 600_000
MAX_ADAPTERS = 10
SHIPPED_WITHOUT_CANDIDATES = 80
LIFETIME = timedelta(days=1)
LOOK_EVERY_S = 600.0
LANES = 64
LINE = (
    f"You are a visitor: this project is yours alone, has limits ({MAX_PROMPTS} prompts, one run at a time, the demo model) "
    "and is removed after a day."
)
FULL = "There are too many visitors right now; come back in a few hours, or run the studio on your own machine."
log = logging.getLogger("studio.visitors")


def labels_full() -> str:
    return f"A visitor's project takes at most {MAX_LABEL_EVENTS:,} labels; run the studio on your own machine for more."


class RunSize(NamedTuple):
    """How big a run will be; `steps` only for training, `tokens` where it learns from answers that it writes itself."""

    prompts: int = 0
    samples: int = 1
    steps: int = 0
    tokens: int = 0


class Visitors:
    """Makes, limits and removes visitors' projects; safe from any thread."""

    def __init__(self, settings: Settings, db: Database, jobs: Jobs, offers: Offers) -> None:
        self._settings, self._db, self._jobs, self._offers = settings, db, jobs, offers
        self._lock = threading.Lock()
        self._arrivals, self._sent_off = Arrivals(ANYBODY in settings.proxies), 0
        self.starting = threading.Lock()  # held from a run's check to its start, so that two clicks are not two runs
        self._storing = [threading.Lock() for _ in range(LANES)]  # see `_lane`
        self.streams = Slots(MAX_STREAMS, STREAM_S, "Your last questions are still being answered; wait for them, or stop one.")
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def project(self, owner: str, address: str = "") -> Project:
        """This visitor's project, made now if they have none. LimitReached when the address they come from has opened many lately,
        or when every place is taken."""
        with self._lock:
            found = projects.visible(self._db, owner)
            if not found:
                away = self._who_makes_room()  # first, so that nobody uses up their share while it is full
                self._arrivals.admit(address)
                self._send_off(away)
                found = [demo_project.create(self._db, owner, SHIPPED_WITHOUT_CANDIDATES)]
            self._arrivals.seen(owner)
            return found[0]

    def _who_makes_room(self) -> list[dict[str, Any]]:
        """With every place taken, whoever has labelled nothing and been away for a while, the longest first; what is labelled stays
        its day. None while there is room; LimitReached when there is none to be made."""
        if self._db.value("select count(*) from projects where owner != ''") < MAX_VISITORS:
            return []
        sql = """select project_id, owner from projects p where owner != ''
                 and not exists (select 1 from label_events l where l.project_id = p.project_id)
                 and not exists (select 1 from runs r where r.project_id = p.project_id and r.status in ('queued', 'running'))
                 order by created_at"""
        last, latest = self._arrivals.last, time.monotonic() - IDLE_S
        away = sorted((row for row in self._db.rows(sql) if last(row["owner"]) <= latest), key=lambda row: last(row["owner"]))
        if not away:
            raise LimitReached(FULL)
        return away

    def _send_off(self, away: Sequence[Mapping[str, Any]]) -> None:
        """The first of them that can go."""
        for row in away:
            try:
                self._remove(row["project_id"], row["owner"])
                self._sent_off += 1
                return
            except StudioError as error:
                log.info("a visitor's project stays for now: %s", error)
        if away:
            raise LimitReached(FULL)

    # --- limits ---

    @contextmanager
    def room(self, project: Project, prompts: int, answers: int = 0, characters: int = 0) -> Iterator[None]:
        """While so many more are being stored: two at once would each find the same room. LimitReached where there is none."""
        with self._lane(project):
            self.check_room(project, prompts, answers, characters)
            yield

    @contextmanager
    def label_room(self, project: Project) -> Iterator[int]:
        """How many more labels this project takes, while they are being stored."""
        with self._lane(project):
            yield self.labels_left(project)

    def _lane(self, project: Project) -> AbstractContextManager[object]:
        """What one visitor stores is stored one after the other; nobody else waits, but for a few visitors in the same lane."""
        return self._storing[hash(project.owner) % LANES] if project.owner else nullcontext()

    def check_room(self, project: Project, prompts: int, answers: int = 0, characters: int = 0) -> None:
        """Whether so many more prompts and answers, of so many characters together, may be stored."""
        if not project.owner:
            return
        if characters and self._characters(project) + characters > MAX_CHARACTERS:
            raise LimitReached(
                f"A visitor's project holds at most {MAX_CHARACTERS:,} characters of prompts and answers; "
                "run the studio on your own machine for more."
            )
        counts = projects.counts(self._db, project.project_id)
        if counts.completions + answers > MAX_COMPLETIONS:
            raise LimitReached(
                f"A visitor's project holds at most {MAX_COMPLETIONS:,} answers; run the studio on your own machine for more."
            )
        if counts.prompts + prompts > MAX_PROMPTS:
            raise LimitReached(
                f"A visitor's project holds at most {MAX_PROMPTS} prompts; run the studio on your own machine for more."
            )

    def _characters(self, project: Project) -> int:
        sql = """select (select coalesce(sum(length(messages) + length(follow_up) + length(reference)), 0) from prompts
                         where project_id = $p)
                      + (select coalesce(sum(length(text)), 0) from completions where project_id = $p)"""
        return int(self._db.value(sql, {"p": project.project_id}))

    def check_labels(self, project: Project, adding: int) -> None:
        if adding > self.labels_left(project):
            raise LimitReached(labels_full())

    def labels_left(self, project: Project) -> int:
        """How many more labels this project takes."""
        if not project.owner:
            return sys.maxsize
        stored = self._db.value("select count(*) from label_events where project_id = ?", [project.project_id])
        return max(0, MAX_LABEL_EVENTS - int(stored))

    def tidy_uploads(self, owner: str) -> None:
        """A visitor's older uploads go as new ones come: what was imported is in the project."""
        if owner:
            import_folder.keep_newest(self._settings, owner, MAX_UPLOADS_KEPT)

    def check_run(self, project: Project, chosen: Sequence[Model], size: RunSize) -> None:
        """Whether a visitor may start this run; nothing is checked for a project without an owner."""
        if not project.owner:
            return
        active = self._db.rows("select owner from runs where status in ('queued', 'running') and owner != ''")
        if any(row["owner"] == project.owner for row in active):
            raise LimitReached("A visitor has one run at a time; wait for yours to end, or stop it on the Runs page.")
        if len(active) >= MAX_QUEUED:
            raise LimitReached("Too many visitors' runs are waiting; try again in a few minutes.")
        self.check_models(project, chosen)
        if size.prompts > MAX_RUN_PROMPTS or size.samples > MAX_SAMPLES:
            raise LimitReached(
                f"A visitor's run uses at most {MAX_RUN_PROMPTS} prompts and {MAX_SAMPLES} answers to each; choose fewer."
            )
        if size.steps > MAX_STEPS:
            raise LimitReached(
                f"A visitor's training takes at most {MAX_STEPS} steps, this one would take {size.steps}; choose fewer epochs."
            )
        if size.tokens > MAX_OWN_TOKENS:
            raise LimitReached(
                f"A visitor's training may write at most {MAX_OWN_TOKENS:,} tokens of answers, this one could write "
                f"{size.tokens:,}; choose fewer epochs, or shorter answers."
            )
        self.check_room(project, 0, size.prompts * size.samples)
        counts = projects.counts(self._db, project.project_id)
        if size.steps and counts.made >= MAX_ADAPTERS:
            raise LimitReached(f"A visitor's project holds at most {MAX_ADAPTERS} trained models; remove one on the Models page.")

    def check_models(self, project: Project, chosen: Sequence[Model]) -> None:
        """A visitor uses the demo model and what was trained from it, nothing else."""
        if not project.owner:
            return
        for model in chosen:
            own = models.is_trained(model) and model.project_id == project.project_id and model.owner == project.owner
            if not own and model.model_id not in (demo_project.MODEL_ID, demo_project.JUDGE_ID):
                raise LimitReached(
                    "A visitor can use the demo model and what was trained from it; run the studio on your own machine for others."
                )

    # --- the end of a visit ---

    def remove_old(self, now: datetime | None = None) -> int:
        """Remove projects older than a day; how many went, those that made room since the last time among them. One with a run
        that is still going has it stopped and goes next time."""
        before = (now or datetime.now(UTC)) - LIFETIME
        with self._lock:
            gone, self._sent_off = self._sent_off, 0  # the journal forgets these too
        for row in self._db.rows("select project_id, owner from projects where owner != '' and created_at < ?", [before]):
            try:
                self._remove(row["project_id"], row["owner"])
                gone += 1
            except StudioError as error:
                log.info("a visitor's project stays for now: %s", error)
        if gone:
            self._db.forget_deleted()
        return gone

    def _remove(self, project_id: str, owner: str) -> None:
        sql = "select run_id from runs where project_id = ? and status in ('queued', 'running')"
        for row in self._db.rows(sql, [project_id]):
            self._jobs.stop(row["run_id"])
        files = [row["path"] for row in self._db.rows("select path from snapshots where project_id = ?", [project_id])]
        for run_id in projects.destroy(self._db, project_id):
            shutil.rmtree(self._settings.runs_dir / run_id, ignore_errors=True)
        import_folder.forget(self._settings, owner)
        self._offers.forget(owner)
        self._arrivals.forget(owner)
        home = self._settings.home.resolve()
        for name in files:
            file = (home / name).resolve()
            if file.is_relative_to(home) and file.is_file():
                file.unlink(missing_ok=True)

    def start(self) -> None:
        """Look for old projects now and then, until `close()`."""
        self._thread = threading.Thread(target=self._watch, name="visitors", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self.remove_old()
            except Exception:
                log.exception("removing visitors' projects failed")
            self._closing.wait(LOOK_EVERY_S)
