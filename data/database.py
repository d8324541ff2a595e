"""The one door to the database: read from any thread, write through one thread, and get everything back after a crash.

DuckDB locks its file against every other process, so only the web process opens it. Inside, a cursor per read (a connection
shared by threads returns wrong rows) and one writer thread that commits what is waiting as one transaction. Behind this door:

    connection.py      DuckDB itself: opening, hardening, what its errors mean
    database_file.py   the file while the app holds it: opened, mended from the journal, put in another's place
    writer.py          the writer thread, which gathers what waits into one transaction
    commit.py          one such transaction: journaled before it is committed
    cursor.py          what a write works with: reads, and insert, update, delete

    db = Database(settings)
    db.rows("select name from projects where owner = ?", [owner])
    db.write(lambda cursor: cursor.insert("projects", [row]))     # returns after the commit
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from data import backup as backups
from data import home, migrations
from data import replay as replays
from data.cached import Cached
from data.commit import Committer
from data.connection import Connection, EngineError, is_broken
from data.cursor import ROWS_PER_PART, Cursor, ask, fetch, fetch_columns, insert_for_each
from data.database_file import DatabaseFile, rebuild_file
from data.errors import BadInput, WorkspaceError
from data.journal import Change, Journal
from data.replay import Rebuilt
from data.settings import Settings
from data.writer import Work, Writer

__all__ = ["Change", "Cursor", "Database", "Rebuilt", "rebuild", "restore_workspace"]

T = TypeVar("T")
Params = Sequence[object] | Mapping[str, object]


class Database:
    """Thread-safe. `notices` holds what went wrong and was mended, in sentences for the user."""

    def __init__(self, settings: Settings, schema_dir: Path = migrations.SCHEMA_DIR) -> None:
        self.settings = settings
        self._schema_dir = schema_dir
        self._cached: dict[Any, Cached[Any]] = {}
        self._whole = threading.Lock()  # backup, restore and a new journal exclude each other
        self._file = DatabaseFile(settings, schema_dir)
        self.notices = self._file.notices
        self._committer = Committer(self._file)
        self._writer = Writer(self._committer.commit)

    @property
    def journal(self) -> Journal:
        return self._file.journal

    # --- reading: any thread ----------------------------------------------------------------------------------------------

    def rows(self, sql: str, params: Params = ()) -> list[dict[str, Any]]:
        """All rows as dicts; times are aware (UTC), UUIDs are text."""
        return self._mending(lambda cursor: fetch(cursor, sql, params))

    def stream(self, sql: str, params: Params = ()) -> Iterator[tuple[Any, ...]]:
        """Rows as of one moment, a part in memory at a time: for a million of them. Times and UUIDs come as the database has them.
        WorkspaceError when the file is closed before the last of them (a restore, the app's end), which waits for nobody here."""
        for rows in self._file.parts(lambda cursor: ask(cursor, sql, params), ROWS_PER_PART):
            yield from rows

    def row(self, sql: str, params: Params = ()) -> dict[str, Any] | None:
        return next(iter(self.rows(sql, params)), None)

    def value(self, sql: str, params: Params = ()) -> Any:
        """The first column of the first row, None when there is no row."""
        row = self.row(sql, params)
        return None if row is None else next(iter(row.values()))

    def columns(self, sql: str, params: Params = ()) -> dict[str, NDArray[Any]]:
        """The same as numpy columns, for a million rows at once; select numbers only, text would be a million objects."""
        return self._mending(lambda cursor: fetch_columns(cursor, sql, params))

    def cached(self, read: Callable[[Database], T], *tables: str) -> T:
        """What `read`, a module-level function, finds; asked again only once a commit has touched one of these tables."""
        kept = self._cached.get(read)
        if kept is None:
            kept = self._cached.setdefault(read, Cached(self, read, frozenset(tables)))
        result: T = kept.get()
        return result

    def _mending(self, read: Callable[[Connection], T]) -> T:
        """What `read` gets from a cursor of its own, again after a damaged file was put right."""
        generation = self._file.generation
        try:
            return self._file.read(read)
        except EngineError as error:
            if not is_broken(error):
                raise
            if self._writer.is_me():
                self._file.mend(generation)
            else:
                self._alone(lambda: self._file.mend(generation))
            return self._file.read(read)

    # --- writing: the one writer thread -----------------------------------------------------------------------------------

    def write(self, fn: Callable[[Cursor], T]) -> T:
        """Run `fn` in the writer thread; returns after commit and journal. `fn` may run twice (see data/writer.py)."""
        result: T = self._writer.wait(Work(lambda cursor, _: [fn(cursor)]))
        return result

    def submit(self, fn: Callable[[Cursor], T]) -> Future[T]:
        return self._writer.submit(Work(lambda cursor, _: [fn(cursor)]))

    def gather(self, fn: Callable[[Cursor, list[Any]], Sequence[T | Exception]], item: object) -> T:
        """Like `write`, for many small writes of one kind: `fn`, a module-level function, gets the items of all callers that
        wait right now and returns one outcome for each (an exception goes to that caller alone)."""
        result: T = self._writer.wait(Work(fn, item, merge=fn))
        return result

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Add rows; those whose key is there already are left alone. The number of new ones."""
        return self.gather(insert_for_each, (table, list(rows))) if rows else 0

    def update(self, table: str, key: Mapping[str, object], **fields: object) -> int:
        """Set `fields` where every column of `key` has that value; the number of rows found."""
        return self.write(lambda cursor: cursor.update(table, key, **fields))

    def on_commit(self, callback: Callable[[Sequence[Change]], None]) -> None:
        """Call `callback(changes)` in the writer thread after each commit, before its callers hear of it; it must not write."""
        self._committer.callbacks.append(callback)

    # --- the workspace as a whole -----------------------------------------------------------------------------------------

    def backup(self, target: Path) -> Path:
        """Write the workspace (database, journal, runs without checkpoints) to one zip file; see data/backup.py."""
        copy = self.settings.export_dir / f".backup-{home.stamp()}.duckdb"
        try:
            with self._whole:
                journal = self._alone(lambda: self._file.copy_to(copy))
                return backups.write(self.settings, target, copy, journal, _newest(self._schema_dir))
        except OSError as error:
            raise home.words(error, self.settings) from error
        finally:
            for file in (copy, home.wal_of(copy)):
                file.unlink(missing_ok=True)

    def restore(self, archive: Path) -> Path:
        """Put a backup in this workspace's place while the app goes on; returns where the old workspace is kept."""
        staged = _stage(self.settings, archive, self._schema_dir)
        try:
            with self._whole:
                return self._alone(lambda: self._swap_in(staged))
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def journal_mark(self) -> tuple[Path, int]:
        """The newest journal segment and how many of its bytes are committed: what may be copied now."""
        return self._alone(lambda: self.journal.mark)

    def forget_deleted(self) -> None:
        """Begin the journal anew from what is stored now, so that it keeps no deleted row and does not grow for ever."""

        def compact() -> None:
            try:
                self.journal.replace_all(replays.dump(self._file.connection, self._file.catalog), self.journal.last)
                self.journal.drop_before_baseline()
            except (OSError, EngineError) as error:
                raise self._file.explain(error) from error

        with self._whole:
            self._alone(compact)

    def rewrite_file(self) -> None:
        """Copy what is stored into a new file that takes the old one's place: an old file keeps deleted text in freed blocks."""
        copy = self.settings.export_dir / f".rewriting-{home.stamp()}.duckdb"
        try:
            with self._whole:
                self._alone(lambda: self._swap_file(copy))
        except OSError as error:
            raise home.words(error, self.settings) from error
        finally:
            for file in self.settings.export_dir.glob(".rewriting-*"):
                file.unlink()

    def close(self) -> None:
        """Finish what was submitted, write everything into the one file and let go of the folder."""
        self._writer.close()
        self._file.close()

    def _alone(self, fn: Callable[[], T]) -> T:
        result: T = self._writer.wait(Work(lambda _, __: [fn()], alone=True))
        return result

    def _swap_in(self, staged: Path) -> Path:
        active = self.value("select count(*) from runs where status in ('queued', 'running')")
        if active:
            raise WorkspaceError(f"{active} run(s) are still going; stop them, then restore the backup.")
        kept = self._file.swap_in(staged)
        self._committer.tell([Change("schema", baseline=True)])
        return kept

    def _swap_file(self, copy: Path) -> None:
        self._file.copy_to(copy)
        self._file.swap_file(copy)


def rebuild(settings: Settings, schema_dir: Path = migrations.SCHEMA_DIR) -> Rebuilt:
    """Make the database anew from the journal (no app may be open on it); the old file is kept in `before-recovery/`."""
    with home.lock(settings):
        journal = Journal(settings.journal_dir)
        try:
            journal.open()
            return rebuild_file(settings, schema_dir)
        except (OSError, EngineError) as error:
            raise home.words(error, settings) from error
        finally:
            journal.close()


def restore_workspace(settings: Settings, archive: Path) -> Path | None:
    """Unpack a backup as the workspace of `settings` (no app may be open on it); returns where an older workspace is kept."""
    staged = _stage(settings, archive, migrations.SCHEMA_DIR)
    try:
        if not settings.home.exists():
            staged.rename(settings.home)
            return None
        with home.lock(settings):
            return backups.swap(settings, staged)
    except OSError as error:
        raise home.words(error, settings) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _stage(settings: Settings, archive: Path, schema_dir: Path) -> Path:
    """Unpack beside the workspace and open it once, so that nothing is swapped for a backup that does not open."""
    staged = backups.unpack(settings, archive, _newest(schema_dir))
    try:
        DatabaseFile(Settings(home=staged), schema_dir).close()
        (staged / "studio.lock").unlink()
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, Exception) and not isinstance(error, WorkspaceError):
            raise BadInput(f"{archive.name} holds no workspace that can be opened; choose another backup.") from error
        raise
    return staged


def _newest(schema_dir: Path) -> int:
    return max(m.version for m in migrations.known(schema_dir))
