"""The run folder's format, the only way a child process and the web process speak.

    runs/<id>/config.json    what to do: written once, before the child starts
    runs/<id>/events.jsonl   what happened: the child is its only writer, one JSON object a line
    runs/<id>/stop           its presence asks the child to save and end within a step
    runs/<id>/stdout.log     everything printed

A reader keeps a byte offset and takes whole lines only, so a line that is half written is read the next time. Children are
started as `python -m <module> RUN_DIR` and call `run_child(main)`, which turns an exception into an `error` event in words.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data.errors import RunError, StudioError

EventType = Literal["status", "progress", "metrics", "sample", "log", "result", "error"]
FINAL_STATUS = frozenset({"finished", "failed", "stopped", "lost"})


class Tail(NamedTuple):
    """Events read and the offset to go on from."""

    events: list[dict[str, Any]]
    offset: int


class Stopped(Exception):
    """Raised in a child to end a run that was asked to stop; everything worth keeping has been saved."""


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

    def config(self) -> dict[str, Any]:
        try:
            raw: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"The run folder {self.path.name} has no readable config.json; start the run again.") from error
        return raw

    # --- the child's side -------------------------------------------------------------------------------------------------

    def event(self, type: EventType, **data: Any) -> None:
        """Append one event; flushed at once so that a reader and a crash see it."""
        line = json.dumps({"at": datetime.now(UTC).isoformat(), "type": type, **data}, ensure_ascii=False, allow_nan=False)
        with (self.path / "events.jsonl").open("ab") as f:
            f.write(line.encode() + b"\n")

    def progress(self, done: int, total: int, unit: str, started: float) -> None:
        """`started` is `time.monotonic()` at the first item; the ETA is linear in what is done."""
        took = time.monotonic() - started
        eta = took / done * (total - done) if done else None
        self.event(
            "progress", done=done, total=total, unit=unit, seconds=round(took, 1), eta_s=None if eta is None else round(eta, 1)
        )

    @property
    def stop_requested(self) -> bool:
        return (self.path / "stop").exists()

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
        return Tail([_parse(line) for line in raw[:end].splitlines() if line.strip()], offset + end)

    def log_tail(self, max_bytes: int = 65536) -> str:
        file = self.path / "stdout.log"
        if not file.exists():
            return ""
        with file.open("rb") as f:
            f.seek(max(0, file.stat().st_size - max_bytes))
            return f.read().decode("utf-8", "replace")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"type": "log", "text": line.decode("utf-8", "replace")}


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def run_child(main: Callable[[RunDir], Mapping[str, Any] | None]) -> None:
    """Entry point of every run: `main` gets the folder and returns the result; status, errors and stops become events.

    SIGTERM asks for the same orderly stop as the stop file.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    run = RunDir(parser.parse_args().run_dir)
    signal.signal(signal.SIGTERM, lambda *_: run.request_stop())
    run.event("status", status="running", pid=os.getpid())
    try:
        result = main(run)
    except Stopped:
        run.event("status", status="stopped")
    except Exception as error:
        traceback.print_exc()
        words = str(error) if isinstance(error, StudioError) else f"{type(error).__name__}: {error}"
        run.event("error", message=words)
        run.event("status", status="failed")
        sys.exit(1)
    else:
        if result is not None:
            run.event("result", **result)
        run.event("status", status="stopped" if run.stop_requested else "finished")
