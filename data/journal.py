"""The journal: every change to the database as JSON lines, the copy from which the database can be rebuilt.

    journal/0001.jsonl   {"schema": [...]}                                       which migrations were applied from here on
                         {"insert": "prompts", "columns": [...], "rows": [[...]]}
                         {"update": "runs", "key": {...}, "set": {...}}          absolute values: doing it twice is doing it once
                         {"delete": "runs", "key": {...}}
                         {"commit": 17, "at": "...", "crc": 912837}              ends a group; a group without it never happened

A group is written and fsynced *before* the database commits it and cut off again if that commit fails. So the journal is never
behind the database, whatever dies when: at the next start the database takes in the groups it has not got. Segments are closed
for good once they reach 64 MB; a closed one never changes, which is what can be copied to a bucket."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

SEGMENT_BYTES = 64 * 1024 * 1024
Op = Literal["insert", "update", "delete", "schema"]


@dataclass(frozen=True)
class Change:
    """One change as journaled; values are JSON values (times as ISO text). Given to `Database.on_commit` callbacks too.

    insert: `rows` holds the rows that were new. update: `fields` of the rows matching `key`. delete: `key`.
    schema: `rows` holds one {version, name, sha256, applied_at} per migration; `baseline` = what came before is to be forgotten.
    """

    op: Op
    table: str = ""
    rows: tuple[dict[str, Any], ...] = ()
    key: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    baseline: bool = False

    def line(self) -> bytes:
        if self.op == "insert":
            columns = list(self.rows[0])
            body: dict[str, Any] = {"insert": self.table, "columns": columns, "rows": [[r[c] for c in columns] for r in self.rows]}
        elif self.op == "update":
            body = {"update": self.table, "key": self.key, "set": self.fields}
        elif self.op == "delete":
            body = {"delete": self.table, "key": self.key}
        else:
            body = {"schema": list(self.rows), "baseline": self.baseline}
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def parse(line: bytes) -> Change:
        """Raises ValueError, KeyError or TypeError when the line is no change."""
        body = json.loads(line)
        if "insert" in body:
            rows = tuple(dict(zip(body["columns"], row, strict=True)) for row in body["rows"])
            return Change("insert", body["insert"], rows)
        if "update" in body:
            return Change("update", body["update"], key=body["key"], fields=body["set"])
        if "delete" in body:
            return Change("delete", body["delete"], key=body["key"])
        return Change("schema", rows=tuple(body["schema"]), baseline=body["baseline"])


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Group(NamedTuple):
    """One commit. `changes` is None when its lines are damaged (bit rot, an editor): it is to be skipped and reported."""

    number: int
    changes: tuple[Change, ...] | None
    where: str


class Journal:
    """The writer thread's end: appends groups, takes back the last one, starts new segments."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.last = 0  # number of the newest group
        self._before_last = 0
        self._fd = -1
        self._end = 0  # where good content ends; anything after it is to be cut
        self._undo_to = 0
        self._clean = True

    def open(self) -> None:
        """Find the end of the last whole group and cut what a crash left after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("*.part"):
            leftover.unlink()
        files = segments(self.folder)
        for file in reversed(files):
            end, self.last = _last_commit(file)
            if end:
                break
        self._open_segment(files[-1] if files else self.folder / "0001.jsonl")
        if files:
            self._end, _ = _last_commit(files[-1])
            self._cut()

    def append(self, changes: Sequence[Change], number: int) -> None:
        """Durable when it returns. On OSError (full disk) the journal is as it was."""
        group = _group(changes, number)
        if not self._clean:
            self._cut()
        if self._end >= self.segment_bytes:
            self._open_segment(self.folder / f"{int(self.current.stem) + 1:04d}.jsonl")
        self._undo_to, self._before_last = self._end, self.last
        try:
            self._write(group)
        except OSError:
            self._clean = False
            self._cut()
            raise
        self.last = number

    def undo(self) -> None:
        """Take the group of the last `append` back: its commit failed."""
        self._end, self.last = self._undo_to, self._before_last
        self._clean = False
        self._cut()

    def replace_all(self, groups: Iterator[Sequence[Change]], number: int) -> None:
        """Go on from a full copy of the tables (a baseline), written as a new segment; older segments stay as they are."""
        files = segments(self.folder)
        target = self.folder / f"{int(files[-1].stem) + 1 if files else 1:04d}.jsonl"
        part = target.with_suffix(".part")
        try:
            with part.open("wb") as f:
                for changes in groups:
                    f.write(_group(changes, number))
                f.flush()
                os.fsync(f.fileno())
                end = f.tell()
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        self._open_segment(target)
        self._end, self.last = end, number

    def drop_before_baseline(self) -> None:
        """Delete the segments that the newest baseline has made needless, once it has been read back whole."""
        damaged = [group.where for group in read(self.folder) if group.changes is None]
        if not damaged and _is_baseline(self.current):
            for file in segments(self.folder):
                if file != self.current:
                    file.unlink()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def mark(self) -> tuple[Path, int]:
        """The newest segment and how many of its bytes are good: what a backup copies."""
        return self.current, self._end

    def _open_segment(self, file: Path) -> None:
        fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        self.close()
        self._fd, self.current, self._end, self._clean = fd, file, 0, True
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)  # the file's name must survive a power cut too
        os.close(folder)

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self._end
        while view:
            done = os.pwrite(self._fd, view, at)
            view, at = view[done:], at + done
        _sync(self._fd)
        self._end = at

    def _cut(self) -> None:
        os.ftruncate(self._fd, self._end)
        _sync(self._fd)
        self._clean = True


def _group(changes: Sequence[Change], number: int) -> bytes:
    lines = b"".join(change.line() for change in changes)
    mark = {"commit": number, "at": datetime.now(UTC).isoformat(), "crc": zlib.crc32(lines)}
    return lines + json.dumps(mark).encode() + b"\n"


def segments(folder: Path) -> list[Path]:
    """The segments, oldest first."""
    return sorted((f for f in folder.glob("*.jsonl") if f.stem.isdigit()), key=lambda f: int(f.stem))


def read(folder: Path, after: int = -1) -> Iterator[Group]:
    """Whole groups with a number above `after`, from the newest baseline on; a torn last group is left out without a word."""
    files = segments(folder)
    start = next((i for i in reversed(range(len(files))) if _is_baseline(files[i])), 0)
    for file in files[start:]:
        yield from _groups(file, after)


def _groups(file: Path, after: int) -> Iterator[Group]:
    lines: list[bytes] = []
    with file.open("rb") as f:
        for i, line in enumerate(f, 1):
            if not line.startswith(b'{"commit"'):
                lines.append(line)
                continue
            mark = _parse_mark(line)
            if mark is None:
                yield Group(-1, None, f"{file.name} line {i}")
            elif mark["commit"] > after:
                yield Group(mark["commit"], _parse_group(lines, mark["crc"]), f"{file.name} line {i}")
            lines = []


def _parse_mark(line: bytes) -> dict[str, Any] | None:
    try:
        mark = json.loads(line)
        return {"commit": int(mark["commit"]), "crc": int(mark["crc"])}
    except (ValueError, KeyError, TypeError):
        return None


def _parse_group(lines: Sequence[bytes], crc: int) -> tuple[Change, ...] | None:
    if zlib.crc32(b"".join(lines)) != crc:
        return None
    try:
        return tuple(Change.parse(line) for line in lines)
    except (ValueError, KeyError, TypeError):
        return None


def _is_baseline(file: Path) -> bool:
    with file.open("rb") as f:
        line = f.readline()
    try:
        return json.loads(line).get("baseline") is True
    except (ValueError, AttributeError):
        return False


def _last_commit(file: Path) -> tuple[int, int]:
    """(offset after the last whole commit line, its number); (0, 0) when there is none."""
    end, number, at = 0, 0, 0
    with file.open("rb") as f:
        for line in f:
            at += len(line)
            if line.startswith(b'{"commit"') and line.endswith(b"\n") and (mark := _parse_mark(line)):
                end, number = at, mark["commit"]
    return end, number
