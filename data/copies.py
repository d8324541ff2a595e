"""Copies of the journal in a place that outlives the machine: a mounted bucket (any folder) or a data set of the hub.

    <place>/journal/0001-000000000000-000000004096.jsonl      bytes 0 to 4096 of segment 0001, never changed once written
    <place>/runs/<id>/...                                     a finished run's folder without its checkpoints

On a Space the disk goes with the machine, and a database file must not live on a bucket mount: that uploads files when they are
closed, the last writer winning. So what is copied are closed pieces of the journal, every few seconds and when the app ends; at
the next start on an empty disk the pieces are put together and the database is rebuilt from them. A piece whose size is not the
one in its name was cut off while it was written and is left out: the next one begins where the last whole one ended.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from data.database import Database
from data.errors import StudioError, WorkspaceError
from data.journal import Change, segments
from data.settings import Settings

PIECE = re.compile(r"journal/(\d{4,})-(\d{12})-(\d{12})\.jsonl")
RUN_FILE = re.compile(r"runs/[0-9A-Za-z._-]+/.+")
PIECES_TO_MERGE = 100  # so many small ones of one segment become one
MAX_PIECE = 16 * 1024 * 1024
CLOSING_TRIES = 3
log = logging.getLogger("studio.copies")


class Place(Protocol):
    """Where copies go. Every call may raise OSError or StudioError, in words."""

    name: str
    every_s: float

    def sizes(self) -> Mapping[str, int]:
        """Every file there and its size in bytes."""

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write new files; there for good when it returns."""

    def get(self, name: str) -> bytes: ...

    def remove(self, names: Iterable[str]) -> None: ...


class FolderPlace:
    """A folder, such as the mount of a storage bucket: files are written once, whole, and closed."""

    every_s = 5.0

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def sizes(self) -> dict[str, int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = (f for part in ("journal", "runs") for f in (self.folder / part).rglob("*") if f.is_file())
        return {f.relative_to(self.folder).as_posix(): f.stat().st_size for f in found}

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


def place_of(name: str) -> Place:
    """The place that the settings name; WorkspaceError in words when it can be none."""
    from data.copies_hub import PREFIX, HubPlace

    if name.startswith(PREFIX):
        return HubPlace(name)
    if "://" in name:
        raise WorkspaceError(f"{name!r} is no place for copies; write a folder, or {PREFIX}owner/name.")
    return FolderPlace(Path(name).expanduser().resolve())


class Piece(NamedTuple):
    """Bytes `start` to `end` of journal segment `segment`."""

    segment: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"journal/{self.segment:04d}-{self.start:012d}-{self.end:012d}.jsonl"


@dataclass(frozen=True)
class Status:
    """For the page: where to, when last (None = not yet), and what is wrong ('' = nothing)."""

    place: str
    last_at: datetime | None = None
    problem: str = ""


def pieces(sizes: Mapping[str, int]) -> list[Piece]:
    """The whole ones among the files."""
    found = [(Piece(*map(int, m.groups())), size) for name, size in sizes.items() if (m := PIECE.fullmatch(name))]
    return sorted(piece for piece, size in found if piece.end - piece.start == size)


def chain(whole: Sequence[Piece]) -> list[Piece]:
    """The pieces of one segment that follow each other from its beginning, the longest first where several begin alike."""
    longest = {piece.start: piece for piece in sorted(whole, key=lambda p: p.end)}
    linked: list[Piece] = []
    while (following := longest.get(linked[-1].end if linked else 0)) is not None and following.end > following.start:
        linked.append(following)
    return linked


def by_segment(whole: Iterable[Piece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = defaultdict(list)
    for piece in whole:
        found[piece.segment].append(piece)
    return dict(sorted(found.items()))


# --- back ---------------------------------------------------------------------------------------------------------------------


def recover(settings: Settings, place: Place) -> int:
    """Fill an empty workspace from its copies, before the database is opened; how many bytes of journal came back.

    0 when the workspace has something already or there is nothing to bring back. A workspace gets all of it or nothing.
    """
    if settings.db_path.exists() or segments(settings.journal_dir):
        return 0
    try:
        sizes = place.sizes()
        found = by_segment(pieces(sizes))
        staged = settings.home / "recovering"
        shutil.rmtree(staged, ignore_errors=True)
        total = 0
        for number, whole in found.items():
            total += _join(place, chain(whole), staged / "journal" / f"{number:04d}.jsonl")
        if not total:
            return 0
        for name in (n for n in sizes if RUN_FILE.fullmatch(n) and ".." not in PurePosixPath(n).parts):
            _write(staged / name, [place.get(name)])
    except OSError as error:
        raise WorkspaceError(
            f"The labels could not be brought back from {place.name} ({error.strerror or error}); "
            "mend that and start again, or start with another --home. Nothing was changed."
        ) from error
    for part in ("runs", "journal"):  # the journal last: with it the workspace is no longer empty
        if (staged / part).is_dir():
            shutil.rmtree(settings.home / part, ignore_errors=True)
            (staged / part).replace(settings.home / part)
    shutil.rmtree(staged, ignore_errors=True)
    return total


def _join(place: Place, linked: Sequence[Piece], target: Path) -> int:
    return _write(target, (place.get(piece.name) for piece in linked)) if linked else 0


def _write(target: Path, blocks: Iterable[bytes]) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as f:
        for block in blocks:
            f.write(block)
        f.flush()
        os.fsync(f.fileno())
        return f.tell()


# --- out ----------------------------------------------------------------------------------------------------------------------


@dataclass
class _Copied:
    """What is known to be there: the pieces of each segment that follow each other, and the runs."""

    chains: dict[int, list[Piece]] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)

    def end(self, segment: int) -> int:
        linked = self.chains.get(segment)
        return linked[-1].end if linked else 0


class Copier:
    """Copies what is new every few seconds from a thread of its own; `close()` copies the rest. Safe from any thread."""

    def __init__(self, settings: Settings, db: Database, place: Place) -> None:
        self._settings, self._db, self._place = settings, db, place
        self._copied: _Copied | None = None  # None: ask the place
        self._restored = False
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._status = Status(place.name)
        self._thread = threading.Thread(target=self._watch, name="copies", daemon=True)
        db.on_commit(self._committed)

    @property
    def status(self) -> Status:
        return self._status

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop watching and copy what is left; what cannot be copied now is copied at the next start."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        for _ in range(CLOSING_TRIES):
            if self.copy():
                return

    def copy(self) -> bool:
        """Bring the place level with the journal; whether that went well (`status` says what did not)."""
        with self._turn:
            try:
                self._level()
            except (OSError, StudioError) as error:
                self._copied = None
                words = str(error) if isinstance(error, StudioError) else f"{self._place.name}: {error.strerror or error}"
                if words != self._status.problem:
                    log.warning("the journal could not be copied: %s", words)
                self._status = replace(self._status, problem=words)
                return False
            self._status = Status(self._place.name, datetime.now(UTC))
            return True

    def _watch(self) -> None:
        while not self._closing.is_set():
            self.copy()
            self._closing.wait(self._place.every_s)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._restored |= any(change.op == "schema" and change.baseline for change in changes)

    def _level(self) -> None:
        newest, good = self._db.journal_mark()
        last = int(newest.stem)
        ends = {n: f.stat().st_size for f in segments(self._settings.journal_dir) if (n := int(f.stem)) < last} | {last: good}
        if self._restored:  # another journal has taken this one's place, and its pieces must not be mixed with the old ones
            self._place.remove([piece.name for piece in pieces(self._place.sizes())])
            self._copied, self._restored = None, False
        if self._copied is None:
            self._copied = self._look(ends)
        for segment, end in ends.items():
            linked = self._copied.chains.setdefault(segment, [])
            for piece in cut(segment, self._copied.end(segment), end):
                self._place.put({piece.name: self._read(piece)})
                linked.append(piece)
            if len(linked) > PIECES_TO_MERGE:
                self._merge(linked)
        for segment in [s for s in self._copied.chains if s < min(ends)]:  # the journal begins later now, with all that is kept
            self._place.remove([piece.name for piece in self._copied.chains.pop(segment)])
        self._copy_runs(self._copied.runs)

    def _read(self, piece: Piece) -> bytes:
        with (self._settings.journal_dir / f"{piece.segment:04d}.jsonl").open("rb") as f:
            f.seek(piece.start)
            content = f.read(piece.end - piece.start)
        if len(content) != piece.end - piece.start:
            raise WorkspaceError(f"Journal segment {piece.segment} is shorter than it was; it will be copied again.")
        return content

    def _merge(self, linked: list[Piece]) -> None:
        """One piece in place of the last small ones, which go once it is there."""
        first = next((i for i, p in enumerate(linked) if linked[-1].end - p.start <= MAX_PIECE), len(linked))
        small = linked[first:]
        if len(small) > 1:
            whole = Piece(small[0].segment, small[0].start, small[-1].end)
            self._place.put({whole.name: self._read(whole)})
            linked[first:] = [whole]
            self._place.remove([piece.name for piece in small])

    def _look(self, ends: Mapping[int, int]) -> _Copied:
        """What the place has; WorkspaceError when it is another workspace's, of which nothing may be overwritten."""
        sizes = self._place.sizes()
        copied = _Copied(runs={PurePosixPath(name).parts[1] for name in sizes if RUN_FILE.fullmatch(name)})
        for segment, whole in by_segment(pieces(sizes)).items():
            linked = chain(whole)
            if linked and segment >= min(ends) and not self._is_ours(linked, ends):
                raise WorkspaceError(
                    f"{self._place.name} holds the labels of another workspace, so nothing is copied there; "
                    "choose an empty place, or start with an empty --home to bring those labels back."
                )
            copied.chains[segment] = linked if segment >= min(ends) else list(whole)
        return copied

    def _is_ours(self, linked: Sequence[Piece], ends: Mapping[int, int]) -> bool:
        """Whether the segment's beginning there is the one here, and no longer than it."""
        enough = linked[-1].end <= ends.get(linked[0].segment, 0)
        return enough and self._read(linked[0]) == self._place.get(linked[0].name)

    def _copy_runs(self, known: set[str]) -> None:
        ended = "select run_id from runs where status not in ('queued', 'running') order by run_id"
        for row in self._db.rows(ended):
            if row["run_id"] not in known:
                files = _run_files(self._settings, row["run_id"])
                self._place.put({name: file.read_bytes() for name, file in files})
                known.add(row["run_id"])


def cut(segment: int, start: int, end: int) -> Iterator[Piece]:
    """The pieces, none too long, that `start` to `end` is copied in."""
    while start < end:
        piece = Piece(segment, start, min(end, start + MAX_PIECE))
        yield piece
        start = piece.end


def _run_files(settings: Settings, run_id: str) -> Iterator[tuple[str, Path]]:
    root = settings.runs_dir / run_id
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f != "checkpoints")
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield f"runs/{run_id}/{file.relative_to(root).as_posix()}", file
