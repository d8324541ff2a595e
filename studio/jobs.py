"""Runs: started as detached children, followed through their folders, stopped in two steps, found again after a restart.

The row in the database is what pages read; the folder (`data/rundir.py`) is what the child writes. One thread reads the folders'
events by byte offset into the rows, starts what is queued (one run per device at a time) and notices when a process has gone. It
holds nothing that a restart could lose: what is alive is asked of the system, what was said is read again from the folder, and
taking outputs in twice adds nothing (`studio/ingest.py`). Only typed endpoint keys live in memory alone; a run that waited for
one says so after a restart.
"""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data import models, projects, resume, runs
from data.database import Change, Database
from data.errors import BadInput, LimitReached, NotFound, StudioError, WorkspaceError
from data.records import Run, RunKind, now
from data.rundir import FINAL_STATUS, RunDir
from data.settings import Settings
from studio import ingest, processes, run_launch, run_queue
from studio.processes import Process
from studio.run_ending import body, ending_of, part_seconds
from studio.run_launch import Child
from studio.warm import WarmStart

POLL_S = 0.4
GRACE_S = 5.0  # between asking a process group to end and ending it
EXIT_CODE_S = 2.0  # to wait for the exit code of a process that has gone
LINGER_S = 30.0  # how long a process may live on after it has reported its end
log = logging.getLogger(__name__)


class Jobs:
    """Safe from any thread. Call `reconcile()` once after the start; `close()` leaves the children running."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        poll_s: float = POLL_S,
        grace_s: float = GRACE_S,
        warm: WarmStart | None = None,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`gpus` are this machine's, None = look."""
        self._settings, self._db, self._warm, self._gpus = settings, db, warm, gpus
        self._poll_s, self._grace_s = poll_s, grace_s
        self._lock = threading.RLock()  # starting and stopping exclude each other
        self._wake, self._closing = threading.Event(), threading.Event()
        self._children: dict[str, Child] = {}
        self._keys: dict[str, dict[str, str]] = {}  # a run's typed keys until it is started
        self._taken: dict[str, int] = {}  # offset into completions.jsonl of generating runs
        self._kill_at: dict[str, float] = {}
        self._ending: dict[str, threading.Thread] = {}
        self._before_launch: list[Callable[[Run], None]] = []
        self._restored = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="studio-jobs", daemon=True)
        db.on_commit(self._committed)

    # --- what pages call --------------------------------------------------------------------------------------------------

    def start(
        self,
        kind: RunKind,
        module: str,
        name: str,
        project_id: str,
        config: Mapping[str, Any],
        files: Mapping[str, Path] = {},
        owner: str = "",
        snapshot_id: str = "",
        device: str = run_queue.ANY,
        env: Mapping[str, str] = {},
        group_id: str = "",
    ) -> Run:
        """Queue a run; it starts within a moment when a device is free (`device`: the one that it must be, or `run_queue.ALL`).

        `config` holds `args` and, for frozen data, `data` {file, sha256, rows}; `files` are copied into the run's folder under
        their names. LimitReached when a visitor has a run going, RunError when a file is not what was frozen.
        """
        projects.get(self._db, project_id)
        run_id = uuid.uuid4().hex
        folder = self._settings.runs_dir / run_id
        name = " ".join(name.split())[: models.MAX_NAME] or kind
        whole = {"run_id": run_id, "project_id": project_id, "kind": kind, "module": module, "name": name, **config}
        whole |= {"env": sorted(env), "versions": run_launch.versions(), "git": run_launch.git()}
        with self._lock:
            if owner and any(run.owner == owner for run in runs.active(self._db)):
                raise LimitReached("A visitor has one run at a time; wait for yours to end, or stop it on the Runs page.")
            try:
                run_launch.fill(folder, whole, files)
                run = Run(
                    run_id=run_id,
                    project_id=project_id,
                    owner=owner,
                    kind=kind,
                    name=name,
                    module=module,
                    status="queued",
                    device=device,
                    config=whole,
                    snapshot_id=snapshot_id,
                    pid=0,
                    pid_created=0.0,
                    event_offset=0,
                    progress={},
                    result={},
                    error="",
                    queued_at=now(),
                    place=run_queue.last_place(runs.active(self._db)),
                    group_id=group_id,
                )
                self._keys[run_id] = dict(env)
                runs.add(self._db, run)
            except BaseException as error:
                self._keys.pop(run_id, None)
                shutil.rmtree(folder, ignore_errors=True)
                if isinstance(error, OSError):
                    raise WorkspaceError(
                        f"The run's folder cannot be written ({error.strerror}); free some space and try again."
                    ) from error
                raise
        self._go()
        return run

    def stop(self, run_id: str) -> None:
        """First: the run saves what it has and ends within a step. Again: it is ended now. A queued run is stopped at once."""
        with self._lock:
            run = runs.get(self._db, run_id)
            folder = RunDir(self._settings.runs_dir / run_id)
            if run.status == "queued" and processes.find(folder.path) is None:
                self._keys.pop(run_id, None)
                runs.update(self._db, run_id, status="stopped", ended_at=now())
            elif run.status in ("queued", "running"):
                if not folder.stop_requested:
                    folder.request_stop()
                elif processes.end(_process(run), folder.path, signal.SIGTERM):
                    self._kill_at.setdefault(run_id, time.monotonic() + self._grace_s)
        self._go()

    def stop_group(self, group_id: str) -> None:
        """Stop every run of a group that has not ended: those that wait are taken out, one that runs saves what it has."""
        with self._lock:  # nobody of the group begins while the others are taken out
            for run in reversed(runs.of_group(self._db, group_id)):
                if run.status == "queued" or not RunDir(self._settings.runs_dir / run.run_id).stop_requested:
                    self.stop(run.run_id)

    def move(self, run_id: str, where: run_queue.Move) -> None:
        """Change a waiting run's place in the queue; nothing happens to one that has begun."""
        with self._lock:
            for each, place in run_queue.moved(runs.active(self._db), run_id, where).items():
                runs.update(self._db, each, place=place)

    def resume(self, run_id: str) -> None:
        """Queue a run that has ended once more, in its own folder; its child goes on from the newest checkpoint. BadInput when it
        has not ended or has finished. Whether that is wise is for the caller to say (`studio/again.py`)."""
        with self._lock:
            run = runs.get(self._db, run_id)
            folder = RunDir(self._settings.runs_dir / run_id)
            if run.status not in ("stopped", "failed", "lost") or run_id in self._ending:
                raise BadInput(f"This run is {run.status}; only one that was stopped, failed or was lost can go on.")
            if processes.find(folder.path) is not None:
                raise BadInput("The run's process is still there; wait until it has ended.")
            if not (folder.path / "config.json").exists():
                raise BadInput(run_launch.FOLDER_GONE)
            earlier_s = run.earlier_s + part_seconds(run, folder)
            resume.reopen(folder)
            place = run_queue.last_place(runs.active(self._db))
            device = run_queue.wanted(run.config)
            fields: dict[str, Any] = {"status": "queued", "error": "", "result": {}, "progress": {}, "pid": 0, "pid_created": 0.0}
            fields |= {"device": device, "place": place, "started_at": None, "ended_at": None, "earlier_s": earlier_s}
            runs.update(self._db, run_id, **fields)
        self._go()

    def before_launch(self, callback: Callable[[Run], None]) -> None:
        """Call `callback(run)` before each run's process starts, to free the device it needs."""
        self._before_launch.append(callback)

    def reconcile(self) -> None:
        """Once, at the start: runs whose process lives are followed on, the others get their true end; then go on as usual."""
        ingest.mend_model_paths(self._db, self._settings)
        self._go()

    def close(self) -> None:
        """Stop following; the children go on and are found again at the next start."""
        self._closing.set()
        self._wake.set()
        for thread in [self._thread, *self._ending.values()]:
            if thread.is_alive():
                thread.join()

    @property
    def gpus(self) -> Sequence[str]:
        """The GPUs that runs are spread over, by their names for CUDA."""
        if self._gpus is None:
            self._gpus = run_queue.gpus()
        return self._gpus

    def prepare(self) -> None:
        """Somebody is about to start a run: have the libraries ready for it."""
        if self._warm is not None:
            self._warm.prepare()

    # --- the one thread ---------------------------------------------------------------------------------------------------

    def _go(self) -> None:
        with self._lock:
            if self._thread.ident is None and not self._closing.is_set():
                self._thread.start()
        self._wake.set()

    def _committed(self, changes: Sequence[Change]) -> None:
        if any(change.op == "schema" for change in changes):  # a backup was restored: its runs are to be looked at
            self._restored.set()
            self._wake.set()

    def _loop(self) -> None:
        while True:
            self._wake.clear()
            if self._closing.is_set():  # after that: `close` wakes once, and never anybody again
                return
            active = True
            try:
                active = self._look()
            except Exception:
                log.exception("following the runs failed; trying again")
            self._wake.wait(self._poll_s if active else None)

    def _look(self) -> bool:
        """One round; whether any run is still active."""
        while self._restored.is_set():
            self._refuse_restored()
        ending = self._ending.copy()  # before the runs are read: of those read as running, none has ended since unseen
        active = runs.active(self._db)
        for run in active:
            if run.status == "running" and run.run_id not in ending:
                self._try(run, self._follow, run)
        for run, device in run_queue.due(active, run_queue.devices_of(self.gpus), self._ending):
            self._try(run, self._launch, run.run_id, device)
        return bool(active)

    def _refuse_restored(self) -> None:
        self._restored.clear()  # before the runs are read: a backup that is restored meanwhile asks for another round
        try:
            for run in runs.active(self._db):
                if run.status == "queued":
                    self._refuse(run, run_launch.RESTORED)
        except BaseException:
            self._restored.set()
            raise

    def _try(self, run: Run, what: Callable[..., None], *args: Any) -> None:
        """Whatever is wrong with one run keeps no other from being seen to."""
        try:
            what(*args)
        except NotFound:
            log.info("run %s was removed", run.run_id)
        except Exception:
            log.exception("following run %s failed; trying again", run.run_id)

    def _launch(self, run_id: str, device: str) -> None:
        with self._lock:
            run = runs.get(self._db, run_id)
            if run.status != "queued" or self._restored.is_set():
                return
            self._kill_at.pop(run_id, None)  # what was still to be done to an earlier process of it
            folder = self._settings.runs_dir / run_id
            if (folder / "stdout.log").exists():  # started before, but that was never written down
                self._adopt(run, folder, device)
                return
            keys = self._keys.get(run_id, {})
            if why := run_launch.why_not(run, folder, keys):
                self._refuse(run, why)
                return
            for callback in self._before_launch:
                callback(run)
            try:
                child = run_launch.launch(run, folder, keys | run_queue.visible(device, self.gpus), self._warm)
            except OSError as error:
                self._refuse(
                    run, f"The run's process could not be started ({error.strerror}); free some memory and start it again."
                )
                return
            self._children[run_id] = child
            if any(other.status == "queued" and other.run_id != run_id for other in runs.active(self._db)):
                self.prepare()  # for those behind it
            created = processes.created(child.pid)
            runs.update(self._db, run_id, status="running", device=device, pid=child.pid, pid_created=created, started_at=now())
            self._keys.pop(run_id, None)

    def _adopt(self, run: Run, folder: Path, device: str) -> None:
        found = processes.find(folder) or Process(0, 0.0)
        known = {"pid": found.pid, "pid_created": found.created}
        runs.update(self._db, run.run_id, status="running", device=device, started_at=now(), **known)

    def _refuse(self, run: Run, why: str) -> None:
        self._keys.pop(run.run_id, None)
        runs.update(self._db, run.run_id, status="failed", error=why, ended_at=now())

    def _follow(self, run: Run) -> None:
        """Take in what the run has said and written since the last look; see it off when its process has gone."""
        folder = RunDir(self._settings.runs_dir / run.run_id)
        alive = self._is_alive(run)
        try:
            self._take_in(run, folder)
        finally:  # also of what cannot be taken in (a full disk, a line that is no use) the end is heard, and brought about
            if not alive:
                self._begin_to_see_off(run.run_id)
            elif time.monotonic() > self._kill_at.get(run.run_id, float("inf")):
                processes.end(_process(run), folder.path, signal.SIGKILL)

    def _take_in(self, run: Run, folder: RunDir) -> None:
        if self._take_events(run, folder):
            self._kill_at.setdefault(run.run_id, time.monotonic() + LINGER_S)
        if run.kind == "generate":
            offset = self._taken.get(run.run_id, 0)
            self._taken[run.run_id] = ingest.candidates(self._db, run, folder.path, offset).offset

    def _begin_to_see_off(self, run_id: str) -> None:
        thread = threading.Thread(target=self._see_off, args=(run_id,), name=f"ending {run_id[:8]}", daemon=True)
        self._ending[run_id] = thread
        try:
            thread.start()
        except RuntimeError:  # no memory for it just now: the next look tries again
            del self._ending[run_id]
            raise

    def _is_alive(self, run: Run) -> bool:
        child = self._children.get(run.run_id)
        if child is not None and child.poll() is not None:
            return False
        return processes.is_alive(_process(run), self._settings.runs_dir / run.run_id)

    def _take_events(self, run: Run, folder: RunDir) -> bool:
        """Whether the run has reported its end."""
        tail = folder.tail(run.event_offset)
        if tail.offset == run.event_offset:
            return run.run_id in self._kill_at
        fields: dict[str, Any] = {"event_offset": tail.offset}
        for event in tail.events:
            if event.get("type") == "progress":
                fields["progress"] = body(event)
            elif event.get("type") == "error":
                fields["error"] = str(event.get("message", ""))
        runs.update(self._db, run.run_id, **fields)
        return any(event.get("type") == "status" and event.get("status") in FINAL_STATUS for event in tail.events)

    # --- the end of a run -------------------------------------------------------------------------------------------------

    def _see_off(self, run_id: str) -> None:
        """Take in the outputs, then give the run its last status: a page that sees "finished" finds everything there."""
        while not self._closing.is_set():
            try:
                self._finish(runs.get(self._db, run_id))
                break
            except NotFound:
                break
            except WorkspaceError as error:  # a full disk: the outputs are safe in the folder until there is room
                log.warning("the outputs of run %s wait: %s", run_id, error)
                self._closing.wait(5.0)
            except Exception:
                log.exception("the end of run %s could not be recorded; trying again", run_id)
                self._closing.wait(5.0)
        for held in (self._children, self._kill_at, self._taken, self._ending):
            held.pop(run_id, None)
        self._wake.set()

    def _finish(self, run: Run) -> None:
        folder = RunDir(self._settings.runs_dir / run.run_id)
        self._take_events(run, folder)
        end = ending_of(folder, lambda: self._exit_code(run.run_id))
        run = runs.get(self._db, run.run_id)
        if end.result:
            runs.update(self._db, run.run_id, result=end.result)
            run = runs.get(self._db, run.run_id)
        error, more = end.error, {}
        try:
            more = ingest.outputs(self._db, self._settings, run, end.status)
        except WorkspaceError:
            raise
        except (StudioError, ValueError, TypeError, KeyError, OSError) as problem:
            log.exception("taking in the outputs of run %s failed", run.run_id)
            error = error or f"The run ended, but what it left could not be taken in: {problem}"
        result = {**run.result, **more}
        runs.update(self._db, run.run_id, status=end.status, error=error, result=result, ended_at=end.at or now())

    def _exit_code(self, run_id: str) -> int | None:
        """None where it is not known. A process with threads is a zombie a moment before it can be waited for."""
        child, until = self._children.get(run_id), time.monotonic() + EXIT_CODE_S
        while child is not None and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return child.poll() if child is not None else None


def _process(run: Run) -> Process:
    return Process(run.pid, run.pid_created)
