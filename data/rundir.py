"""The run folder's format, the only way a child process and the web process speak.

    runs/<id>/config.json    what to do: written once, before the child starts
    runs/<id>/events.jsonl   what happened: the child is its only writer, one JSON object a line
    runs/<id>/stop           its presence asks the child to save and end within a step
    runs/<id>/stdout.log     everything printed

A reader keeps a byte offset and takes whole lines only, so a line that is half written is read the next time. Children are
started as `python -m <module> RUN_DIR` and call `run_child(main)`, which turns an exception into an `error` event in words.

A stop is heard in three ways. Between steps the child looks (`stop_requested`). A call that hands out results one by one is
cancelled from a thread (`cancel_on_stop`). What can be neither looked into nor cancelled, importing torch or reading gigabytes of
weights, runs inside `loading`: there is nothing to save yet, so the process says so and ends at once.

Where several processes train together (`training/launch.py`), each is started like that, with RANK and WORLD_SIZE around it. The
first alone writes events.jsonl and hears a stop; it tells the others (`training/ranks.py`). Each of the others prints into a file
of its own, `rank-N.log`, and leaves why it failed in `rank-N.jsonl`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data.errors import RunError, StudioError

EventType = Literal["status", "progress", "metrics", "sample", "log", "result", "error"]
FINAL_STATUS = frozenset({"finished", "failed", "stopped", "lost"})
LOOK_S = 0.2  # how often a thread looks for the stop file
SAY_S = 0.5  # between two progress events, at least


def rank() -> int:
    """Which of the processes that train together this one is; 0 is the first, or the only one."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("RANK", "0")) if several else 0


class Tail(NamedTuple):
    """Events read and the offset to go on from."""

    events: list[dict[str, Any]]
    offset: int


class Stopped(Exception):
    """Raised in a child to end a run that was asked to stop; everything worth keeping has been saved. Its text, if any, is
    shown."""


@dataclass(frozen=True)
class RunDir:
    """A run folder. Reading is safe from any process; `event` is the child's alone."""

    path: Path

    @staticmethod
    def create(path: Path, config: Mapping[str, Any]) -> RunDir:
        """Make the folder and write `config.json` (atomically); an existing folder is an error."""
        path.mkdir(parents=True, exist_ok=False)
        part = path / "config.json.part"
        part.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
        part.replace(path / "config.json")
        return RunDir(path)

    @property
    def home(self) -> Path:
        """The workspace it lies in, as `<home>/runs/<id>`; the folder around it where it was put elsewhere."""
        above = self.path.resolve().parent
        return above.parent if above.name == "runs" else above

    def config(self) -> dict[str, Any]:
        try:
            raw: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"The run folder {self.path.name} has no readable config.json; start the run again.") from error
        return raw

    # --- the child's side -------------------------------------------------------------------------------------------------

    def event(self, type: EventType, **data: Any) -> None:
        """Append one event; flushed at once so that a reader and a crash see it. Of several processes the first alone speaks,
        and the others leave their errors beside it."""
        if rank() and type != "error":
            return
        file = f"rank-{rank()}.jsonl" if rank() else "events.jsonl"
        line = json.dumps({"at": datetime.now(UTC).isoformat(), "type": type, **data}, ensure_ascii=False, allow_nan=False)
        with (self.path / file).open("ab") as f:
            f.write(line.encode() + b"\n")

    def progress(self, done: int, total: int, unit: str, started: float) -> None:
        """`started` is `time.monotonic()` at the first item; the ETA is linear in what is done."""
        took = time.monotonic() - started
        eta = took / done * (total - done) if done else None
        self.event(
            "progress", done=done, total=total, unit=unit, seconds=round(took, 1), eta_s=None if eta is None else round(eta, 1)
        )

    @contextmanager
    def loading(self, kept: str) -> Iterator[Loading]:
        """What comes before there is anything to save; call the result with what goes on, as a progress line.

        A stop ends a child at once, in the middle of whatever it does, and elsewhere at the next call. `kept` ends the sentence
        that says so: "no adapter was made".
        """
        say = Loading(self, kept)
        with _unsaved(say):
            yield say
        say.heed()

    @property
    def stop_requested(self) -> bool:
        """Never for the others of several processes: were each to look by itself, one would leave while the rest wait for it."""
        return not rank() and (self.path / "stop").exists()

    def check_data(self, name: str, sha256: str) -> Path:
        """The path of a frozen input file; RunError when it is missing or is not the file that was frozen."""
        file = self.path / name
        if not file.is_file():
            raise RunError(f"The run's data file {name} is missing; start the run again.")
        if sha256_of(file) != sha256:
            raise RunError(f"The run's data file {name} has changed since it was frozen; start the run again.")
        return file

    # --- the reader's side ------------------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        (self.path / "stop").touch()

    def tail(self, offset: int = 0) -> Tail:
        """Whole lines after `offset`; a line that is no JSON object becomes a log event, never an exception."""
        file = self.path / "events.jsonl"
        if not file.exists():
            return Tail([], offset)
        with file.open("rb") as f:
            f.seek(offset)
            raw = f.read()
        end = raw.rfind(b"\n") + 1
        return Tail(read_events(raw[:end]), offset + end)

    def log_tail(self, max_bytes: int = 65536) -> str:
        file = self.path / "stdout.log"
        if not file.exists():
            return ""
        with file.open("rb") as f:
            f.seek(max(0, file.stat().st_size - max_bytes))
            return f.read().decode("utf-8", "replace")


class Loading:
    """Says what a run does before its first step: `say("loading the base model")`, `say("checking rows", 180, 200)`."""

    def __init__(self, run: RunDir, kept: str) -> None:
        self.run, self.kept = run, kept
        self.what = "starting"
        self._said = 0.0

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Stopped when the run was asked to stop. Counts are written twice a second, whatever is called."""
        self.heed()
        now = time.monotonic()
        if what == self.what and done < total and now - self._said < SAY_S:
            return
        self.what, self._said = what, now
        self.run.event("progress", done=done, total=total, unit=what, loading=True)

    def heed(self) -> None:
        if self.run.stop_requested:
            raise Stopped(self.farewell)

    @property
    def farewell(self) -> str:
        return f"Stopped while {self.what}; {self.kept}."


class Meter:
    """Progress events at most twice a second, and the last one always; ends the run when it was asked to stop."""

    def __init__(self, run: RunDir, unit: str) -> None:
        self.run, self.unit, self.started, self._said = run, unit, time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        if self.run.stop_requested:
            raise Stopped
        if done == total or time.monotonic() - self._said > SAY_S:
            self._said = time.monotonic()
            self.run.progress(done, total, self.unit, self.started)


def read_events(lines: bytes) -> list[dict[str, Any]]:
    """One event a line; a line that is no JSON object, as a kill in the middle of it leaves one, becomes a log event."""
    return [_parse(line) for line in lines.splitlines() if line.strip()]


def read_line(line: bytes) -> Any:
    """The JSON value of a line; ValueError for what is none, or could not be stored: half a character, a number that is none."""
    value = json.loads(line, parse_constant=_no_number)
    if b"\\u" in line:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = read_line(line)
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) else {"type": "log", "text": line.decode("utf-8", "replace")}


def signal_name(number: int) -> str:
    """What a person can look up; real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def cancel_on_stop(run: RunDir, cancel: Callable[[], None]) -> Iterator[None]:
    """Call `cancel` from a thread once the stop file is there, and again and again: the next call may only just have begun."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            if run.stop_requested:
                cancel()

    thread = threading.Thread(target=watch, name="stop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Child:
    """This process as a run's child: a thread that ends it when a stop comes while it is loading."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.loading: Loading | None = None
        self.lock = threading.Lock()  # held by whoever decides whether the process goes on
        self.parent = os.getppid()
        threading.Thread(target=self._watch, name="stop-watch", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            if self._is_left_alone():
                os._exit(1)
            if self.run.stop_requested:
                with self.lock:
                    if self.loading is not None:
                        self._end(self.loading.farewell)

    def _is_left_alone(self) -> bool:
        """One of several processes whose starter has gone: nobody would hear how it ends, and the others are gone too."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return False
        try:
            os.kill(int(os.environ.get("STUDIO_LAUNCHER") or self.parent), 0)
        except (ProcessLookupError, PermissionError):  # gone, and its number may be another user's by now
            return True
        return os.getppid() != self.parent

    def _end(self, words: str) -> None:
        try:
            self.run.event("log", text=words)
            self.run.event("status", status="stopped")
            sys.stdout.flush()
        finally:  # a full disk keeps nobody from stopping
            os._exit(0)  # the main thread may be deep in a library that hears no exception for minutes


_child: _Child | None = None  # set by `run_child`: a test that calls a run's `main` must not be ended


@contextmanager
def _unsaved(say: Loading) -> Iterator[None]:
    child = _child
    if child is None:
        yield
        return
    with child.lock:
        child.loading = say
    try:
        yield
    finally:
        with child.lock:
            child.loading = None


def run_child(main: Callable[[RunDir], Mapping[str, Any] | None]) -> None:
    """Entry point of every run: `main` gets the folder and returns the result; status, errors and stops become events.

    SIGTERM asks for the same orderly stop as the stop file. One of several processes ends at once: whoever started it sends that
    when another has failed, and hears the stop file itself.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    run = RunDir(parser.parse_args().run_dir)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        _stop_at_sigterm(run)
    apart(run)
    if not work(run, main):
        sys.exit(1)


def _stop_at_sigterm(run: RunDir) -> None:
    """From a thread: the main one may be deep in a library, where it runs no handler of a signal for as long as that takes."""
    bell, ring = os.pipe()

    def hear() -> None:
        while numbers := os.read(bell, 64):
            if signal.SIGTERM in numbers:
                run.request_stop()

    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: run.request_stop())
    threading.Thread(target=hear, name="sigterm", daemon=True).start()


def work(run: RunDir, main: Callable[[RunDir], Mapping[str, Any] | None]) -> bool:
    """Do the run in this process; False when it failed, which its events and its log then say."""
    global _child
    run.event("status", status="running", pid=os.getpid())
    _child = _Child(run)
    try:
        result = main(run)
    except Stopped as stopped:
        if str(stopped):
            run.event("log", text=str(stopped))
        run.event("status", status="stopped")
    except Exception as error:
        traceback.print_exc()
        words = str(error) if isinstance(error, StudioError) else f"{type(error).__name__}: {error}"
        run.event("error", message=words)
        run.event("status", status="failed")
        return False
    else:
        if result is not None:
            run.event("result", **result)
        run.event("status", status="stopped" if run.stop_requested else "finished")
    return True


def apart(run: RunDir) -> None:
    """Of several processes the first prints into the run's log, each other one into a file of its own."""
    if rank():
        with (run.path / f"rank-{rank()}.log").open("ab") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
