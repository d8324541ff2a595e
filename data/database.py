"""The one door to the database file: open, read from any thread, write through one thread, and get everything back after a crash.

DuckDB locks its file against every other process, so only the web process opens it. Inside, a cursor per read (a connection
shared by threads returns wrong rows) and one writer thread that commits what is waiting as one transaction. Every change is in
the journal before it is committed (`data/journal.py`) and every acknowledged one is in both: what a crash, a full disk or a
damaged file leaves behind is put right from the journal, and `notices` says so in words.

    db = Database(settings)
    db.rows("select name from projects where owner = ?", [owner])
    db.write(lambda cursor: cursor.insert("projects", [row]))     # returns after the commit
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from numpy.typing import NDArray

from data import backup as backups
from data import home, migrations
from data import replay as replays
from data.cached import Cached
from data.cursor import Catalog, Cursor, fetch, fetch_columns, fetch_in_parts, insert_for_each, read_catalog
from data.errors import BadInput, StudioError, WorkspaceError
from data.journal import Change, Journal, read
from data.replay import Rebuilt
from data.settings import Settings
from data.writer import Work, Writer

__all__ = ["Change", "Cursor", "Database", "Rebuilt", "rebuild", "restore_workspace"]

T = TypeVar("T")
log = logging.getLogger(__name__)
Params = Sequence[object] | Mapping[str, object]
CHECKPOINT_BYTES = 16 * 1024 * 1024
CONFIG = {
    "storage_compatibility_version": "v1.5.0",  # DuckDB 1.5 can read the file too: no one-way street
    "threads": "2",
    "memory_limit": "1GB",  # the default is 80 % of the machine: it would starve a training run
    "checkpoint_threshold": "1TB",  # the writer does it, when there is room: one that fails closes the database
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}


class Database:
    """Thread-safe. `notices` holds what went wrong and was mended, in sentences for the user."""

    def __init__(self, settings: Settings, schema_dir: Path = migrations.SCHEMA_DIR) -> None:
        self.settings = settings
        self.notices: list[str] = []
        self.journal = Journal(settings.journal_dir)
        self._schema_dir = schema_dir
        self._callbacks: list[Callable[[Sequence[Change]], None]] = []
        self._gate = home.Gate()
        self._generation = 0
        self._numbers: dict[str, int] = {}  # see Cursor.next_numbers
        self._cached: dict[Any, Cached[Any]] = {}
        self._whole = threading.Lock()  # backup, restore and a new journal exclude each other
        self._con: duckdb.DuckDBPyConnection | None = None
        self._lock = home.lock(settings)
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise
        self._writer = Writer(self._commit)

    # --- reading: any thread ----------------------------------------------------------------------------------------------

    def rows(self, sql: str, params: Params = ()) -> list[dict[str, Any]]:
        """All rows as dicts; times are aware (UTC), UUIDs are text."""
        return self._mending(lambda cursor: fetch(cursor, sql, params))

    def stream(self, sql: str, params: Params = ()) -> Iterator[tuple[Any, ...]]:
        """Rows as of one moment, a part in memory at a time: for a million of them. Times and UUIDs come as the database has them.
        Whoever reads must not wait for a write before the last row: one that closes the file (a restore) waits for its readers."""
        with self._gate.through():
            cursor = self._connection().cursor()
            try:
                yield from fetch_in_parts(cursor, sql, params)
            finally:
                cursor.close()

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

    def _mending(self, read: Callable[[Any], T]) -> T:
        """What `read` gets from a cursor of its own, again after a damaged file was put right."""
        generation = self._generation
        try:
            return self._through(read)
        except duckdb.Error as error:
            if not _is_broken(error):
                raise
            if _is_damage(error):
                self._marker.touch()
            self._mend_for_reader(generation)
            return self._through(read)

    def _through(self, read: Callable[[Any], T]) -> T:
        with self._gate.through():
            cursor = self._connection().cursor()
            try:
                return read(cursor)
            finally:
                cursor.close()

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
        self._callbacks.append(callback)

    # --- the workspace as a whole -----------------------------------------------------------------------------------------

    def backup(self, target: Path) -> Path:
        """Write the workspace (database, journal, runs without checkpoints) to one zip file; see data/backup.py."""
        copy = self.settings.export_dir / f".backup-{home.stamp()}.duckdb"
        try:
            with self._whole:
                journal = self._alone(lambda: self._copy_to(copy))
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
                self.journal.replace_all(replays.dump(self._connection(), self._catalog), self.journal.last)
                self.journal.drop_before_baseline()
            except (OSError, duckdb.Error) as error:
                raise self._explain(error) from error

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
        with self._gate.closed():
            self._disconnect()
        self.journal.close()
        self._lock.close()

    def _alone(self, fn: Callable[[], T]) -> T:
        result: T = self._writer.wait(Work(lambda _, __: [fn()], alone=True))
        return result

    def _copy_to(self, copy: Path) -> tuple[Path, int]:
        raw = self._connection().cursor()
        try:
            name = self.settings.db_path.stem
            raw.execute(f"attach '{_quoted(copy)}' as backup (storage_version 'v1.5.0')")
            try:
                raw.execute(f'copy from database "{name}" to backup')
            finally:
                raw.execute("detach backup")
            return self.journal.mark
        except duckdb.Error as error:
            raw.close()
            self._mend_after(error)
            raise self._explain(error) from error
        finally:
            raw.close()

    def _swap_in(self, staged: Path) -> Path:
        active = self.value("select count(*) from runs where status in ('queued', 'running')")
        if active:
            raise WorkspaceError(f"{active} run(s) are still going; stop them, then restore the backup.")
        with self._gate.closed():
            self._generation += 1
            self._disconnect()
            self.journal.close()
            try:
                kept = backups.swap(self.settings, staged)
            finally:
                self._lock.close()
                self._lock = home.lock(self.settings)
                self._open()
        self._tell([Change("schema", baseline=True)])
        return kept

    def _swap_file(self, copy: Path) -> None:
        self._copy_to(copy)
        home.sync(copy)
        with self._gate.closed():
            self._generation += 1
            self._disconnect()  # which writes DuckDB's own log into the old file, and so does away with it
            try:
                if home.wal_of(self.settings.db_path).exists():
                    raise WorkspaceError("The database cannot be written out whole; free some space on the disk, then start again.")
                copy.replace(self.settings.db_path)
                home.sync(self.settings.home)
            finally:
                self._connect()
                self._harden()

    # --- one commit -------------------------------------------------------------------------------------------------------

    def _commit(self, body: Callable[[Cursor], list[Any]]) -> list[Any]:
        if self._con is None:
            self._mend(self._generation)
        raw = self._connection().cursor()
        cursor = Cursor(raw, self._catalog, self._numbers)
        try:
            raw.execute("begin")
            outcomes = body(cursor)
            self._store(raw, cursor.changes)
        except Exception as error:
            self._numbers.clear()
            with suppress(duckdb.Error):
                raw.execute("rollback")
            raw.close()
            self._mend_after(error)
            raise self._explain(error) from error
        raw.close()
        if cursor.changes:
            self._tell(cursor.changes)
            self._checkpoint_when_due()
        return outcomes

    def _store(self, raw: Any, changes: Sequence[Change]) -> None:
        """Journal, then commit; a commit that did not come about is cut from the journal again."""
        if not changes:
            raw.execute("commit")
            return
        number = self.journal.last + 1
        self.journal.append(changes, number)
        try:
            raw.execute(f"update journal_position set commit_no = {number:d}; commit")
        except duckdb.Error:
            raw.close()
            if self._landed(number):
                return
            with suppress(OSError):  # then `append` cuts it first thing next time
                self.journal.undo()
            raise

    def _landed(self, number: int) -> bool:
        """Whether a commit that reported an error is in the database all the same."""
        try:
            if not _answers(self._connection()):
                with self._gate.closed():
                    self._generation += 1
                    self._disconnect()
                    self._connect()
                    self._harden()
            return replays.position(self._connection()) >= number
        except duckdb.Error:
            self._disconnect()
            return False

    def _tell(self, changes: Sequence[Change]) -> None:
        for callback in self._callbacks:
            try:
                callback(changes)
            except Exception:
                log.exception("an on_commit callback failed")

    def _checkpoint_when_due(self) -> None:
        """A checkpoint that runs out of room makes DuckDB close the database, so it is only tried with room to spare."""
        wal = home.wal_of(self.settings.db_path)
        size = wal.stat().st_size if wal.exists() else 0
        if size < CHECKPOINT_BYTES or shutil.disk_usage(self.settings.home).free < 3 * size:
            return
        try:
            self._connection().execute("checkpoint")
        except duckdb.Error as error:
            log.warning("checkpoint postponed: %s", error)
            with suppress(StudioError):
                self._mend_after(error)

    # --- opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """WorkspaceError in words, with nothing left open, when it cannot be."""
        try:
            self._numbers.clear()
            self.journal = Journal(self.settings.journal_dir)
            self.journal.open()
            self._connect_or_rebuild()
            self._catch_up()
            self._harden()
        except BaseException as error:
            self._disconnect()
            self.journal.close()
            if isinstance(error, OSError | duckdb.Error):
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
            self._connect()
        except duckdb.Error as error:
            if (known := home.words_for_message(str(error), self.settings)) is not None:
                self._marker.unlink(missing_ok=True)
                raise known from error
            if not self.journal.last:
                raise WorkspaceError(
                    f"The database file {path} is damaged and there is no journal to rebuild it from; restore a backup, "
                    "or choose another folder with --home."
                ) from error
            self._rebuild("The database file was damaged")
            self._connect()
        self._marker.unlink(missing_ok=True)

    def _catch_up(self) -> None:
        """A file that was cut short opens as if it were whole: what is missing is only met when it is read."""
        try:
            notice = replays.catch_up(self._connection(), self.journal, self._schema_dir, self.settings.home)
        except duckdb.Error as error:
            if not _is_damage(error) or not self.journal.last:
                raise
            self._disconnect()
            self._rebuild("The database file was damaged")
            self._connect()
            notice = replays.catch_up(self._connection(), self.journal, self._schema_dir, self.settings.home)
        self.notices += [notice] if notice else []

    def _rebuild(self, reason: str) -> None:
        had_file = self.settings.db_path.exists()
        done = _rebuild_file(self.settings, self._schema_dir)
        lost = f" {len(done.damaged)} journal entries could not be read ({', '.join(done.damaged[:3])})." if done.damaged else ""
        kept = f" What was there is kept in {self.settings.home / 'before-recovery'}." if had_file else ""
        self.notices.append(f"{reason}, so it was rebuilt from the journal ({done.groups} commits).{lost}{kept}")
        log.warning(self.notices[-1])

    def _connect(self) -> None:
        self._con = _connect(self.settings.db_path)

    def _harden(self) -> None:
        """From here on SQL reaches no file outside these folders, whatever an imported text talks somebody into."""
        con, settings = self._connection(), self.settings
        self._catalog: Catalog = read_catalog(con)
        folders = [settings.import_dir, settings.export_dir, settings.runs_dir]
        con.execute("set allowed_directories = [" + ", ".join(f"'{_quoted(f)}/'" for f in folders) + "]")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")

    @property
    def _marker(self) -> Path:
        return self.settings.home / "rebuild-at-start"

    # --- mending while it runs --------------------------------------------------------------------------------------------

    def _mend(self, generation: int) -> None:
        """Open the file anew: after a fatal error DuckDB answers nothing until then. Writer thread only."""
        with self._gate.closed():
            if generation == self._generation or self._con is None:
                self._generation += 1
                self._disconnect()
                self.journal.close()
                self._open()

    def _mend_after(self, error: Exception) -> None:
        if not isinstance(error, duckdb.Error) or not _is_broken(error):
            return
        if _is_damage(error):
            self._marker.touch()
        if _is_damage(error) or self._con is None or not _answers(self._con):
            self._mend(self._generation)

    def _mend_for_reader(self, generation: int) -> None:
        if self._writer.is_me():
            self._mend(generation)
        else:
            self._alone(lambda: self._mend(generation))

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            raise duckdb.ConnectionException("Connection already closed")
        return self._con

    def _disconnect(self) -> None:
        if self._con is not None:
            with suppress(duckdb.Error):
                self._con.close()
            self._con = None

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, OSError):
            return home.words(error, self.settings)
        if isinstance(error, duckdb.Error):
            return home.words_for_message(str(error), self.settings) or error
        return error


def rebuild(settings: Settings, schema_dir: Path = migrations.SCHEMA_DIR) -> Rebuilt:
    """Make the database anew from the journal (no app may be open on it); the old file is kept in `before-recovery/`."""
    with home.lock(settings):
        journal = Journal(settings.journal_dir)
        try:
            journal.open()
            return _rebuild_file(settings, schema_dir)
        except (OSError, duckdb.Error) as error:
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
        Database(Settings(home=staged), schema_dir).close()
        (staged / "studio.lock").unlink()
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, Exception) and not isinstance(error, WorkspaceError):
            raise BadInput(f"{archive.name} holds no workspace that can be opened; choose another backup.") from error
        raise
    return staged


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(str(path), config=dict(CONFIG))
    try:
        con.execute("set global TimeZone = 'UTC'")
        con.execute(replays.BOOTSTRAP)
    except duckdb.Error:
        con.close()
        raise
    return con


def _rebuild_file(settings: Settings, schema_dir: Path) -> Rebuilt:
    part = settings.db_path.with_suffix(".rebuilding")
    for file in (part, home.wal_of(part)):
        file.unlink(missing_ok=True)
    con = _connect(part)
    try:
        done = replays.replay(con, read(settings.journal_dir), schema_dir)
        con.execute("checkpoint")
    finally:
        con.close()
    home.set_aside(settings, keep=False)
    part.replace(settings.db_path)
    return done


def _is_damage(error: duckdb.Error) -> bool:
    return "Corrupt database file" in str(error) or "Could not read enough bytes" in str(error)


def _is_broken(error: duckdb.Error) -> bool:
    return _is_damage(error) or isinstance(error, duckdb.FatalException | duckdb.ConnectionException)


def _answers(con: duckdb.DuckDBPyConnection) -> bool:
    try:
        con.cursor().execute("select 1").fetchall()
        return True
    except duckdb.Error:
        return False


def _newest(schema_dir: Path) -> int:
    return max(m.version for m in migrations.known(schema_dir))


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
