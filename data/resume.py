"""How a run goes on in its own folder after a stop, a failure or a kill: sealed checkpoints, a folder ready to start again.

    runs/<id>/checkpoints/checkpoint-<step>/seal.json    written last: the size and sha256 of every file beside it

A checkpoint without its seal was cut off while it was written, and one whose files differ from it is damaged: both are as if they
were not there. Free of torch: the web process asks `newest` whether there is something to go on from and calls `reopen`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.rundir import RunDir, sha256_of

FOLDER = "checkpoints"
_SEAL = "seal.json"


class Checkpoint(NamedTuple):
    """`state`: what the run's own counters were, beside what the trainer keeps of its own."""

    path: Path
    step: int
    state: dict[str, Any]


def seal(path: Path, step: int, state: Mapping[str, Any]) -> Checkpoint:
    """Declare a written checkpoint whole; everything is on the disk before the seal is."""
    files = {}
    for file in _files(path):
        _to_disk(file)
        files[file.relative_to(path).as_posix()] = {"size": file.stat().st_size, "sha256": sha256_of(file)}
    part = path / f"{_SEAL}.part"
    part.write_text(json.dumps({"step": step, "files": files, "state": state}, allow_nan=False), encoding="utf-8")
    _to_disk(part)
    part.replace(path / _SEAL)
    return Checkpoint(path, step, dict(state))


def sealed(folder: Path) -> list[Checkpoint]:
    """The run folder's checkpoints, newest first, as far as their files' sizes are right; nothing is hashed."""
    found = [_read(path) for path in (folder / FOLDER).glob("checkpoint-*")]
    return sorted((one for one in found if one), key=lambda one: one.step, reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The one a run in this folder would go on from, unless the child finds it damaged."""
    return next(iter(sealed(folder)), None)


class StartPoint(NamedTuple):
    """What a child goes on from, and the steps of newer checkpoints that are of no use."""

    checkpoint: Checkpoint | None
    unusable: list[int]


def start_point(folder: Path) -> StartPoint:
    """The newest checkpoint whose every file is as it was sealed."""
    unusable: list[int] = []
    for path in sorted((folder / FOLDER).glob("checkpoint-*"), key=_step_of, reverse=True):
        found = _read(path)
        if found and is_whole(found):
            return StartPoint(found, unusable)
        unusable.append(_step_of(path))
    return StartPoint(None, unusable)


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether every file is as it was sealed."""
    try:
        files = json.loads((checkpoint.path / _SEAL).read_text(encoding="utf-8"))["files"]
        return all(sha256_of(checkpoint.path / name) == facts["sha256"] for name, facts in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prune(folder: Path, keep: Collection[str]) -> None:
    """Remove everything among the checkpoints but the names to keep."""
    for path in (folder / FOLDER).glob("*"):
        if path.name in keep:
            continue
        if path.is_dir():
            (path / _SEAL).unlink(missing_ok=True)  # first: what is half removed is no checkpoint
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove all checkpoints: the run has finished."""
    prune(folder, ())
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def reopen(run: RunDir) -> None:
    """Make the folder of a run whose child is gone ready for the next one: its events go on in the same file."""
    (run.path / "stop").unlink(missing_ok=True)
    log, number = run.path / "stdout.log", 1
    while (run.path / f"stdout-{number}.log").exists():
        number += 1
    if log.exists():
        log.replace(run.path / f"stdout-{number}.log")
    _end_line(run.path / "events.jsonl")
    run.event("status", status="queued")


def last_life(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The events since the folder was reopened: how an earlier child ended says nothing of the last one."""
    again = [i for i, event in enumerate(events) if event.get("type") == "status" and event.get("status") == "queued"]
    return list(events[again[-1] + 1 if again else 0 :])


def _read(path: Path) -> Checkpoint | None:
    try:
        raw = json.loads((path / _SEAL).read_text(encoding="utf-8"))
        sizes = {name: facts["size"] for name, facts in raw["files"].items()}
        if any((path / name).stat().st_size != size for name, size in sizes.items()):
            return None
        return Checkpoint(path, int(raw["step"]), dict(raw["state"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _step_of(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name not in (_SEAL, f"{_SEAL}.part"))


def _to_disk(file: Path) -> None:
    with file.open("rb") as f:
        os.fsync(f.fileno())


def _end_line(file: Path) -> None:
    """A line that was cut off by a kill must not swallow the next one."""
    if not file.exists() or not file.stat().st_size:
        return
    with file.open("r+b") as f:
        f.seek(-1, os.SEEK_END)
        if f.read(1) != b"\n":
            f.write(b"\n")
