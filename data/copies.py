"""Copies of the journal in a place that outlives the machine: a mounted bucket (any folder) or a data set of the hub.

    <place>/journal/0001-000000000000-000000004096.jsonl      bytes 0 to 4096 of segment 0001, never changed once written
    <place>/runs/<id>/...                                     a finished run's folder without its checkpoints (`copies_runs.py`)

On a Space the disk goes with the machine, and a database file must not live on a bucket mount: that uploads files when they are
closed, the last writer winning. So what is copied are closed pieces of the journal, every few seconds and when the app ends; at
the next start on an empty disk the pieces are put together and the database is rebuilt from them. A piece whose size is not the
one in its name was cut off while it was written and is left out: the next one begins where the last whole one ended.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from data import copies_runs
from data.copies_pieces import MAX_PIECE, PIECE, Piece, by_segment, chain, cut, pieces
from data.copies_place import Place
from data.database import Database
from data.errors import StudioError, WorkspaceError
from data.journal import Change, segments
from data.settings import Settings

OWNER = "owner"  # a random word of the studio that copies here
PIECES_TO_MERGE = 100  # so many small ones of one segment become one
CLOSING_TRIES = 3
log = logging.getLogger("studio.copies")


@dataclass(frozen=True)
class Status:
    """For the page: where to, when last (None = not yet), and what is wrong ('' = nothing)."""

    place: str
    last_at: datetime | None = None
    problem: str = ""


# --- back ---------------------------------------------------------------------------------------------------------------------


class Recovered(NamedTuple):
    """How many bytes of journal came back, whether some of it was missing in between, and of how many runs files are missing."""

    bytes: int = 0
    has_gap: bool = False
    torn_runs: int = 0


def recover(settings: Settings, place: Place) -> Recovered:
    """Fill an empty workspace from its copies, before the database is opened.

    Nothing when the workspace has something already or there is nothing to bring back. Where a piece is missing the later ones
    still hold whole commits, so they are brought back too; what was in the missing one is not.
    """
    if settings.db_path.exists() or segments(settings.journal_dir):
        return Recovered()
    staged = settings.home / "recovering"
    shutil.rmtree(staged, ignore_errors=True)
    total, has_gap = 0, False
    try:
        sizes = place.sizes()
        for number, whole in by_segment(pieces(sizes)).items():
            linked = chain(whole)
            has_gap |= linked != chain(whole, over_gaps=False)
            blocks = (place.get(piece.name) for piece in linked)
            total += _write(staged / "journal" / f"{number:04d}.jsonl", blocks)
        if not total:
            return Recovered()
        torn_runs = copies_runs.bring_back(place, sizes, staged)
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
    return Recovered(total, has_gap, torn_runs)


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
    """What is known to be there: the pieces of each segment that follow each other, every piece's name, and the runs."""

    chains: dict[int, list[Piece]] = field(default_factory=dict)
    names: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))  # those that were cut off, too
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
        self._gone_on: set[str] = set()  # runs whose folders are no longer what was copied, or is being copied
        self._id = secrets.token_hex(16).encode()
        self._is_ousted = False
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
            except Exception as error:  # whatever it is: a thread that ended would leave every later label uncopied, without a word
                self._copied = None
                words = self._words(error)
                if words != self._status.problem:
                    known = isinstance(error, OSError | StudioError)
                    log.warning("the journal could not be copied: %s", words, exc_info=None if known else error)
                self._status = replace(self._status, problem=words)
                return False
            self._status = Status(self._place.name, datetime.now(UTC))
            return True

    def _words(self, error: Exception) -> str:
        if isinstance(error, StudioError):
            return str(error)
        said = error.strerror or error if isinstance(error, OSError) else f"{type(error).__name__}, of which the app's log has more"
        return f"{self._place.name}: {said}"

    def _watch(self) -> None:
        while not self._closing.is_set():
            self.copy()
            self._closing.wait(self._place.every_s)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._restored |= any(change.op == "schema" and change.baseline for change in changes)
        self._gone_on.update(
            change.key["run_id"]
            for change in changes
            if change.op == "update"
            and change.table == "runs"
            and change.fields.get("status") == "queued"
            and "run_id" in change.key
        )

    def _level(self) -> None:
        copied = self._level_journal()
        for _ in self._copying_runs(copied.runs):
            self._level_journal()  # a long run's copy must not keep the labels waiting

    def _level_journal(self) -> _Copied:
        self._check_ousted(self._copied is not None)
        newest, good = self._db.journal_mark()
        last = int(newest.stem)
        ends = {n: f.stat().st_size for f in segments(self._settings.journal_dir) if (n := int(f.stem)) < last} | {last: good}
        if self._restored:  # another journal has taken this one's place, and its pieces must not be mixed with the old ones
            self._place.remove([name for name in self._place.sizes() if PIECE.fullmatch(name)])
            self._copied, self._restored = None, False
        if self._copied is None:
            self._copied = self._look(ends)
            self._place.put({OWNER: self._id})
        for segment, end in ends.items():
            linked = self._copied.chains.setdefault(segment, [])
            for piece in cut(segment, self._copied.end(segment), end):
                self._put(self._copied, piece)
                linked.append(piece)
            if len(linked) > PIECES_TO_MERGE:
                self._merge(self._copied, linked)
        self._tidy(self._copied, min(ends))
        return self._copied

    def _check_ousted(self, is_owner: bool) -> None:
        """WorkspaceError, for good, when another studio has begun to copy to this place: two journals must not be mixed."""
        self._is_ousted |= is_owner and self._place.get(OWNER) != self._id
        if self._is_ousted:
            raise WorkspaceError(
                f"Another studio has taken {self._place.name} over, so what is labelled here is no longer copied; "
                "stop one of the two, or give each a place of its own."
            )

    def _put(self, copied: _Copied, piece: Piece) -> None:
        self._check_ousted(True)
        self._place.put({piece.name: self._read(piece)})
        copied.names[piece.segment].add(piece.name)

    def _tidy(self, copied: _Copied, first: int) -> None:
        """Remove what is there beside the chains: pieces cut off or merged, and segments that the journal has let go of, since a
        newer one begins with all that is still to be kept."""
        for segment, names in list(copied.names.items()):
            kept = {piece.name for piece in copied.chains.get(segment, ())} if segment >= first else set()
            if names - kept:
                self._place.remove(sorted(names - kept))
            copied.names[segment] = kept
            if segment < first:
                copied.chains.pop(segment, None)
                del copied.names[segment]

    def _read(self, piece: Piece) -> bytes:
        with (self._settings.journal_dir / f"{piece.segment:04d}.jsonl").open("rb") as f:
            f.seek(piece.start)
            content = f.read(piece.end - piece.start)
        if len(content) != piece.end - piece.start:
            raise WorkspaceError(f"Journal segment {piece.segment} is shorter than it was; it will be copied again.")
        return content

    def _merge(self, copied: _Copied, linked: list[Piece]) -> None:
        """One piece in place of the last small ones, which are tidied away once it is there."""
        first = next((i for i, p in enumerate(linked) if linked[-1].end - p.start <= MAX_PIECE), len(linked))
        small = linked[first:]
        if len(small) > 1:
            whole = Piece(small[0].segment, small[0].start, small[-1].end)
            self._put(copied, whole)
            linked[first:] = [whole]

    def _look(self, ends: Mapping[int, int]) -> _Copied:
        """What the place has; WorkspaceError when it is another workspace's, of which nothing may be overwritten."""
        sizes = self._place.sizes()
        copied = _Copied(runs=copies_runs.whole(self._settings, sizes))
        for name in sizes:
            if match := PIECE.fullmatch(name):
                copied.names[int(match[1])].add(name)
        for segment, whole in by_segment(pieces(sizes)).items():
            if segment < min(ends):
                continue
            linked = chain(whole, over_gaps=False)
            if linked and not self._is_ours(linked, ends):
                raise WorkspaceError(
                    f"{self._place.name} holds the labels of another workspace, so nothing is copied there; "
                    "choose an empty place, or start with an empty --home to bring those labels back."
                )
            copied.chains[segment] = linked
        return copied

    def _is_ours(self, linked: Sequence[Piece], ends: Mapping[int, int]) -> bool:
        """Whether its first and last piece there are what stands here, and it is no longer than it is here."""
        if linked[-1].end > ends.get(linked[0].segment, 0):
            return False
        return all(self._read(piece) == self._place.get(piece.name) for piece in {linked[0], linked[-1]})

    def _copying_runs(self, known: set[str]) -> Iterator[None]:
        while self._gone_on:  # before it is read which have ended: it may have ended once more by now
            known.discard(self._gone_on.pop())
        ended = "select run_id from runs where status not in ('queued', 'running') order by run_id"
        return copies_runs.copying(self._settings, self._place, [row["run_id"] for row in self._db.rows(ended)], known)
