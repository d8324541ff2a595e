"""The database file while the app holds it: opened with its journal at the same commit, opened anew when the engine gives up.

What a crash, a full disk or a damaged file leaves behind is put right from the journal, and `notices` says so in words. Whoever
reads goes through the gate; whoever closes the file (to mend it, to put another in its place) waits until the readers are out.
All but `read` and `reading` belongs to the writer thread, which alone decides when (`data/database.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from data import backup as backups
from data import home
from data import replay as replays
from data.connection import Connection, EngineError, answers, closed, connect, copy_whole, harden, is_broken, is_damage
from data.cursor import Catalog, read_catalog
from data.errors import WorkspaceError
from data.journal import Journal, read
from data.replay import Rebuilt
from data.settings import Settings

T = TypeVar("T")
log = logging.getLogger(__name__)


class DatabaseFile:
    """`generation` counts how often the file was closed: whoever met an error before that need not mend it again."""

    catalog: Catalog  # read at each opening

    def __init__(self, settings: Settings, schema_dir: Path) -> None:
        """Takes the workspace's lock; WorkspaceError in words, with nothing left open, when it cannot be opened."""
        self.settings = settings
        self.notices: list[str] = []
        self.journal = Journal(settings.journal_dir)
        self.generation = 0
        self.numbers: dict[str, int] = {}  # see Cursor.next_numbers; another file may hold others
        self._schema_dir = schema_dir
        self._gate = home.Gate()
        self._con: Connection | None = None
        self._lock = home.lock(settings)
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    # --- reading: any thread ----------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A cursor of one's own; the file stays open until it is given back."""
        with self._gate.through():
            cursor = self.connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    def read(self, fn: Callable[[Connection], T]) -> T:
        """The same for one question. Marks a damaged file, so that a start that gets no further rebuilds it."""
        try:
            with self.reading() as cursor:
                return fn(cursor)
        except EngineError as error:
            if is_damage(error):
                self._marker.touch()
            raise

    def parts(self, ask: Callable[[Connection], None], size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of one question, so many at a time. The file may be closed between two parts, and then there are no more: what
        is read half-way and kept, in the traces of an error say, must keep nobody waiting."""
        with self._gate.through():
            generation, cursor = self.generation, self.connection.cursor()
            ask(cursor)
        try:
            while rows := self._part(generation, cursor, size):
                yield rows
        finally:
            with self._gate.through(giving_back=True):
                if self._is_open_since(generation):
                    cursor.close()

    def _part(self, generation: int, cursor: Connection, size: int) -> list[tuple[Any, ...]]:
        with self._gate.through():
            if not self._is_open_since(generation):
                raise WorkspaceError("The workspace was closed or replaced while this was read; try again.")
            return cursor.fetchmany(size)

    def _is_open_since(self, generation: int) -> bool:
        """What was opened then was not closed with the file."""
        return self._con is not None and generation == self.generation

    @property
    def connection(self) -> Connection:
        if self._con is None:
            raise closed()
        return self._con

    @property
    def is_open(self) -> bool:
        return self._con is not None

    # --- closing, and another file in its place ---------------------------------------------------------------------------

    def close(self) -> None:
        with self._gate.closed():
            self._disconnect()
        self.journal.close()
        self._lock.close()

    def copy_to(self, target: Path) -> tuple[Path, int]:
        """A consistent copy of the database, and the journal's mark at the same commit."""
        raw = self.connection.cursor()
        try:
            copy_whole(raw, self.settings.db_path.stem, target)
            return self.journal.mark
        except EngineError as error:
            raw.close()
            self.mend_after(error)
            raise self.explain(error) from error
        finally:
            raw.close()

    def swap_in(self, staged: Path) -> Path:
        """Go on with another workspace; returns where this one is kept."""
        with self._while_closed():
            self.journal.close()
            try:
                return backups.swap(self.settings, staged)
            finally:
                self._lock.close()
                self._lock = home.lock(self.settings)
                self._open()

    def swap_file(self, copy: Path) -> None:
        """Go on with a copy of this file, made by `copy_to` with nothing written since."""
        home.sync(copy)
        with self._while_closed():  # which writes DuckDB's own log into the old file, and so does away with it
            try:
                if home.wal_of(self.settings.db_path).exists():
                    raise WorkspaceError("The database cannot be written out whole; free some space on the disk, then start again.")
                copy.replace(self.settings.db_path)
                home.sync(self.settings.home)
            finally:
                self._connect_hardened()

    @contextmanager
    def _while_closed(self) -> Iterator[None]:
        with self._gate.closed():
            self.generation += 1
            self._disconnect()
            yield

    # --- opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.numbers.clear()
            self.journal = Journal(self.settings.journal_dir)
            self.journal.open()
            self._connect_or_rebuild()
            self._catch_up()
            self._harden()
        except BaseException as error:
            self._disconnect()
            self.journal.close()
            if isinstance(error, OSError | EngineError):
                raise home.words(error, self.settings) from error
            raise

    def _connect_or_rebuild(self) -> None:
        """A start that did not get past replaying the database's own log (marker still there) goes straight to the journal."""
        path = self.settings.db_path
        if not path.exists():
            if self.journal.last:
                self._rebuild("The database file was missing")
        elif self._marker.exists() and self.journal.last:
            self._rebuild("The database file was damaged")
        elif home.wal_of(path).exists():
            with suppress(OSError):  # a full disk must not keep anybody from reading
                home.set_aside(self.settings, keep=True)
                self._marker.touch()
        try:
            self._con = connect(path)
        except EngineError as error:
            if (known := home.words_for_message(str(error), self.settings)) is not None:
                self._marker.unlink(missing_ok=True)
                raise known from error
            if not self.journal.last:
                raise WorkspaceError(
                    f"The database file {path} is damaged and there is no journal to rebuild it from; restore a backup, "
                    "or choose another folder with --home."
                ) from error
            self._rebuild("The database file was damaged")
            self._con = connect(path)
        self._marker.unlink(missing_ok=True)

    def _catch_up(self) -> None:
        """A file that was cut short opens as if it were whole: what is missing is only met when it is read."""
        try:
            notice = replays.catch_up(self.connection, self.journal, self._schema_dir, self.settings.home)
        except EngineError as error:
            if not is_damage(error) or not self.journal.last:
                raise
            self._disconnect()
            self._rebuild("The database file was damaged")
            self._con = connect(self.settings.db_path)
            notice = replays.catch_up(self.connection, self.journal, self._schema_dir, self.settings.home)
        self.notices += [notice] if notice else []

    def _rebuild(self, reason: str) -> None:
        had_file = self.settings.db_path.exists()
        done = rebuild_file(self.settings, self._schema_dir)
        lost = f" {len(done.damaged)} journal entries could not be read ({', '.join(done.damaged[:3])})." if done.damaged else ""
        kept = f" What was there is kept in {self.settings.home / 'before-recovery'}." if had_file else ""
        self.notices.append(f"{reason}, so it was rebuilt from the journal ({done.groups} commits).{lost}{kept}")
        log.warning(self.notices[-1])

    def _connect_hardened(self) -> None:
        self._con = connect(self.settings.db_path)
        self._harden()

    def _harden(self) -> None:
        self.catalog = read_catalog(self.connection)
        harden(self.connection, [self.settings.import_dir, self.settings.export_dir, self.settings.runs_dir])

    def _disconnect(self) -> None:
        if self._con is not None:
            with suppress(EngineError):
                self._con.close()
            self._con = None

    @property
    def _marker(self) -> Path:
        return self.settings.home / "rebuild-at-start"

    # --- mending while it runs --------------------------------------------------------------------------------------------

    def mend(self, generation: int) -> None:
        """Open the file anew, unless that was done since `generation`: after a fatal error DuckDB answers nothing until then."""
        with self._gate.closed():
            if generation == self.generation or self._con is None:
                self.generation += 1
                self._disconnect()
                self.journal.close()
                self._open()

    def mend_after(self, error: Exception) -> None:
        if not isinstance(error, EngineError) or not is_broken(error):
            return
        if is_damage(error):
            self._marker.touch()
        if is_damage(error) or self._con is None or not answers(self._con):
            self.mend(self.generation)

    def has_commit(self, number: int) -> bool:
        """Whether a commit that reported an error is in the database all the same."""
        try:
            if not answers(self.connection):
                with self._while_closed():
                    self._connect_hardened()
            return replays.position(self.connection) >= number
        except EngineError:
            self._disconnect()
            return False

    def explain(self, error: Exception) -> Exception:
        if isinstance(error, OSError):
            return home.words(error, self.settings)
        if isinstance(error, EngineError):
            return home.words_for_message(str(error), self.settings) or error
        return error


def rebuild_file(settings: Settings, schema_dir: Path) -> Rebuilt:
    """Write the database anew from the journal, then put it in the old one's place, which is kept in `before-recovery/`."""
    part = settings.db_path.with_suffix(".rebuilding")
    for file in (part, home.wal_of(part)):
        file.unlink(missing_ok=True)
    con = connect(part)
    try:
        done = replays.replay(con, read(settings.journal_dir), schema_dir)
        con.execute("checkpoint")
    finally:
        con.close()
    home.set_aside(settings, keep=False)
    part.replace(settings.db_path)
    return done
