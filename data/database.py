"""The one door to the database file: open, read from any thread, write through one thread, and get everything back after a crash.

DuckDB locks its file against every other process, so only the web process opens it. Inside, a cursor per read (a connection
shared by threads returns wrong rows) and one writer thread that commits what is waiting as one transaction. Every change is in
the journal before it is committed (`data/journal.py`) and every acknowledged one is in both: what a crash, a full disk or a
damaged file leaves behind is put right at the next start from the journal, and `notices` says so in words.

    db = Database(settings)
    db.rows("select name from projects where owner = ?", [owner])
    db.write(lambda cursor: cursor.insert("projects", [row]))     # returns after the commit
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb

from data import backup as backups
from data import home, migrations
from data.cursor import ROWS_PER_STATEMENT, Catalog, Cursor, fetch, read_catalog
from data.errors import StudioError, WorkspaceError
from data.journal import Change, Journal, read
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
BOOTSTRAP = """
create table if not exists schema_migrations (
    version integer primary key, name text not null, sha256 text not null, applied_at timestamptz not null);
create table if not exists journal_position (commit_no bigint not null);
insert into journal_position select 0 where not exists (select 1 from journal_position);
"""
UNJOURNALED = {"journal_position", "schema_migrations"}


class Rebuilt(NamedTuple):
    groups: int
    damaged: tuple[str, ...]  # places in the journal that could not be read


class Database:
    """Thread-safe. `notices` holds what went wrong and was mended at the start, in sentences for the user."""

    def __init__(self, settings: Settings, schema_dir: Path = migrations.SCHEMA_DIR) -> None:
        self.settings = settings
        self.notices: list[str] = []
        self.journal = Journal(settings.journal_dir)
        self._schema_dir = schema_dir
        self._callbacks: list[Callable[[Sequence[Change]], None]] = []
        self._gate = home.Gate()
        self._generation = 0
        self._con: duckdb.DuckDBPyConnection | None = None
        self._lock = home.lock(settings)
        try:
            self._open()
        except BaseException:
            self._disconnect()
            self.journal.close()
            self._lock.close()
            raise
        self._writer = Writer(self._commit)

    # --- reading: any thread ----------------------------------------------------------------------------------------------

    def rows(self, sql: str, params: Params = ()) -> list[dict[str, Any]]:
        """All rows as dicts; times are aware (UTC), UUIDs are text."""
        try:
            return self._read(sql, params)
        except (duckdb.FatalException, duckdb.ConnectionException):
            self._reopen_from_reader()
            return self._read(sql, params)

    def row(self, sql: str, params: Params = ()) -> dict[str, Any] | None:
        return next(iter(self.rows(sql, params)), None)

    def value(self, sql: str, params: Params = ()) -> Any:
        """The first column of the first row, None when there is no row."""
        row = self.row(sql, params)
        return None if row is None else next(iter(row.values()))

    def _read(self, sql: str, params: Params) -> list[dict[str, Any]]:
        with self._gate.through():
            cursor = self._connection().cursor()
            try:
                return fetch(cursor, sql, params)
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
        """Like `write`, for many small writes of one kind: `fn`, a module-level function, gets the items of all callers that wait
        right now and returns one outcome for each (an exception goes to that caller alone)."""
        result: T = self._writer.wait(Work(fn, item, merge=fn))
        return result

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Add rows; those whose key is there already are left alone. The number of new ones."""
        return len(self.write(lambda cursor: cursor.insert(table, rows))) if rows else 0

    def update(self, table: str, key: Mapping[str, object], **fields: object) -> int:
        return self.write(lambda cursor: cursor.update(table, key, **fields))

    def on_commit(self, callback: Callable[[Sequence[Change]], None]) -> None:
        """Call `callback(changes)` in the writer thread after each commit, before its callers hear of it; it must not write."""
        self._callbacks.append(callback)

    # --- the workspace as a whole -----------------------------------------------------------------------------------------

    def backup(self, target: Path) -> Path:
        """Write the workspace (database, journal, runs without checkpoints) to one zip file; see data/backup.py."""
        copy = self.settings.export_dir / f".backup-{home.stamp()}.duckdb"
        try:
            journal = self._alone(lambda: self._copy_to(copy))
            schema = max(m.version for m in migrations.known(self._schema_dir))
            return backups.write(self.settings, target, copy, journal, schema)
        except OSError as error:
            raise home.words(error, self.settings) from error
        finally:
            copy.unlink(missing_ok=True)

    def restore(self, archive: Path) -> Path:
        """Put a backup in this workspace's place while the app goes on; returns where the old workspace is kept."""
        active = self.value("select count(*) from runs where status in ('queued', 'running')")
        if active:
            raise WorkspaceError(f"{active} run(s) are still going; stop them, then restore the backup.")
        staged = backups.unpack(self.settings, archive, max(m.version for m in migrations.known(self._schema_dir)))
        return self._alone(lambda: self._swap_in(staged))

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
            name = raw.execute("select current_database()").fetchone()[0]  # type: ignore[index]
            raw.execute(f"attach '{_quoted(copy)}' as backup (storage_version 'v1.5.0')")
            try:
                raw.execute(f'copy from database "{name}" to backup')
            finally:
                raw.execute("detach backup")
            return self.journal.mark
        except duckdb.Error as error:
            raise self._explain(error) from error
        finally:
            raw.close()

    def _swap_in(self, staged: Path) -> Path:
        with self._gate.closed():
            self._disconnect()
            self.journal.close()
            try:
                kept = backups.swap(self.settings, staged)
            finally:
                self._lock.close()
                self._lock = home.lock(self.settings)
                self.journal = Journal(self.settings.journal_dir)
                self._open()
        self._tell([Change("schema", baseline=True)])
        return kept

    # --- one commit -------------------------------------------------------------------------------------------------------

    def _commit(self, body: Callable[[Cursor], list[Any]]) -> list[Any]:
        if self._con is None:
            self._reopen(self._generation)
        raw = self._connection().cursor()
        try:
            raw.execute("begin")
            cursor = Cursor(raw, self._catalog)
            outcomes = body(cursor)
            if cursor.changes:
                self._store(raw, cursor.changes)
            else:
                raw.execute("commit")
        except Exception as error:
            with suppress(duckdb.Error):
                raw.execute("rollback")
            raw.close()
            if isinstance(error, duckdb.FatalException):
                self._reopen(self._generation)
            raise self._explain(error) from error
        raw.close()
        if cursor.changes:
            self._tell(cursor.changes)
            self._checkpoint_when_due()
        return outcomes

    def _store(self, raw: Any, changes: Sequence[Change]) -> None:
        """Journal, then commit; a commit that fails is cut from the journal again."""
        number = self.journal.last + 1
        raw.execute("update journal_position set commit_no = ?", [number])
        self.journal.append(changes, number)
        try:
            raw.execute("commit")
        except Exception:
            with suppress(OSError):  # `append` cuts it first thing next time
                self.journal.undo()
            raise

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
        except duckdb.FatalException:
            self._reopen(self._generation)
        except duckdb.Error as error:
            log.warning("checkpoint postponed: %s", error)

    # --- opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.journal.open()
            self._connect_or_rebuild()
            self._migrate()
            self._harden()
        except (OSError, duckdb.Error) as error:
            raise self._explain(error) from error

    def _connect_or_rebuild(self) -> None:
        """A start that did not get past replaying the database's own log (marker still there) goes straight to the journal."""
        path, marker = self.settings.db_path, self.settings.home / "rebuild-at-start"
        if not path.exists():
            if self.journal.last:
                self._rebuild("The database file was missing")
        elif marker.exists() and self.journal.last:
            self._rebuild("The database file could not be opened last time")
        elif home.wal_of(path).exists():
            home.set_aside(self.settings, keep=True)
            marker.touch()
        try:
            self._connect(path)
        except duckdb.Error as error:
            known = home.words_for_message(str(error), self.settings)
            if known is not None:
                marker.unlink(missing_ok=True)
                raise known from error
            if not self.journal.last:
                raise WorkspaceError(
                    f"The database file {path} is damaged and there is no journal to rebuild it from; restore a backup, "
                    "or choose another folder with --home."
                ) from error
            self._rebuild("The database file was damaged")
            self._connect(path)
        marker.unlink(missing_ok=True)

    def _rebuild(self, reason: str) -> None:
        done = _rebuild_file(self.settings, self._schema_dir)
        lost = f" {len(done.damaged)} journal entries could not be read ({', '.join(done.damaged[:3])})." if done.damaged else ""
        kept = f" What was there is kept in {self.settings.home / 'before-recovery'}." if self.settings.db_path.exists() else ""
        self.notices.append(f"{reason}, so it was rebuilt from the journal ({done.groups} commits).{lost}{kept}")
        log.warning(self.notices[-1])

    def _connect(self, path: Path) -> None:
        self._con = duckdb.connect(str(path), config=dict(CONFIG))
        self._con.execute("set global TimeZone = 'UTC'")
        self._con.execute(BOOTSTRAP)
        self._catalog: Catalog = read_catalog(self._con)

    def _migrate(self) -> None:
        """Bring database and journal to the same commit, then apply what is new; each migration is one transaction."""
        con = self._connection()
        todo = migrations.pending(_applied(con), migrations.known(self._schema_dir), self.settings.home)
        fresh = not _applied(con)
        position = _position(con)
        if self.journal.last > position:
            _replay(con, read(self.settings.journal_dir, after=position), self._schema_dir)
        elif position > self.journal.last or (self.journal.last == 0 and not fresh):
            self.notices.append("The journal was missing or older than the database, so a new one was begun from a full copy.")
            self.journal.replace_all(self._dump(), position)
        done = {row["version"] for row in _applied(con)}
        for migration in (m for m in todo if m.version not in done):
            row = {**migration._asdict(), "applied_at": datetime.now(UTC).isoformat()}
            del row["sql"]
            self.journal.append([Change("schema", rows=(row,))], self.journal.last + 1)
            _apply(con, migration, row["applied_at"], self.journal.last)
        self._catalog = read_catalog(con)

    def _harden(self) -> None:
        """From here on SQL reaches no file outside these folders, whatever an imported text talks somebody into."""
        con, settings = self._connection(), self.settings
        folders = [settings.import_dir, settings.export_dir, settings.runs_dir]
        con.execute("set allowed_directories = [" + ", ".join(f"'{_quoted(f)}/'" for f in folders) + "]")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")

    def _reopen(self, generation: int) -> None:
        """After a fatal error DuckDB answers nothing until the file is opened anew. Writer thread only."""
        with self._gate.closed():
            if generation == self._generation:
                self._generation += 1
                self._disconnect()
                self.journal.close()
                self._open()

    def _reopen_from_reader(self) -> None:
        generation = self._generation
        if self._con is None and self._writer.is_closed:
            raise WorkspaceError("The workspace is closed.")
        self._reopen(generation) if self._writer.is_me() else self._alone(lambda: self._reopen(generation))

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            raise duckdb.ConnectionException("closed")
        return self._con

    def _disconnect(self) -> None:
        if self._con is not None:
            with suppress(duckdb.Error):
                self._con.close()
            self._con = None

    def _dump(self) -> Iterator[list[Change]]:
        """All tables as journal groups: the baseline of a new journal."""
        con = self._connection()
        yield [Change("schema", rows=tuple(_applied(con)), baseline=True)]
        plain = Cursor(con, self._catalog)._plain
        for table, key in self._catalog.keys.items():
            if table in UNJOURNALED:
                continue
            reader = con.cursor()
            columns = list(self._catalog.types[table])
            reader.execute(f"select * from {table} order by {key}")
            while batch := reader.fetchmany(ROWS_PER_STATEMENT):
                yield [Change("insert", table, tuple(plain(table, dict(zip(columns, row, strict=True))) for row in batch))]
            reader.close()

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, StudioError):
            return error
        if isinstance(error, OSError):
            return home.words(error, self.settings)
        if isinstance(error, duckdb.Error):
            return home.words_for_message(str(error), self.settings) or error
        return error


@contextmanager
def _transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("begin")
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):
            con.execute("rollback")
        raise
    con.execute("commit")


def _apply(con: duckdb.DuckDBPyConnection, migration: migrations.Migration, applied_at: str, number: int) -> None:
    with _transaction(con):
        con.execute(migration.sql)
        values = [migration.version, migration.name, migration.sha256, applied_at]
        con.execute("insert into schema_migrations select ?, ?, ?, ?::timestamptz", values)
        con.execute("update journal_position set commit_no = ?", [number])
    con.execute("checkpoint")  # replaying table changes from the log is where DuckDB's bugs have been


def _applied(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = fetch(con, "select version, name, sha256, applied_at from schema_migrations order by version")
    return [{**row, "applied_at": row["applied_at"].isoformat()} for row in rows]


def _position(con: duckdb.DuckDBPyConnection) -> int:
    return int(fetch(con, "select commit_no from journal_position")[0]["commit_no"])


def _replay(con: duckdb.DuckDBPyConnection, groups: Iterator[Any], schema_dir: Path) -> Rebuilt:
    """Do journaled groups again. A migration is applied where the journal has it: old rows meet the tables they were made for."""
    known = {m.version: m for m in migrations.known(schema_dir)}
    done, damaged, catalog = 0, [], read_catalog(con)
    for number, changes, where in groups:
        if changes is None:
            damaged.append(where)
            continue
        for row in (row for change in changes if change.op == "schema" for row in change.rows):
            migrations.pending([row], list(known.values()), schema_dir)
            if row["version"] not in {r["version"] for r in _applied(con)}:
                _apply(con, known[row["version"]], row["applied_at"], number)
                catalog = read_catalog(con)
        with _transaction(con):
            cursor = Cursor(con, catalog)
            for change in changes:
                cursor.replay(change)
            con.execute("update journal_position set commit_no = ?", [number])
        done += 1
    return Rebuilt(done, tuple(damaged))


def _rebuild_file(settings: Settings, schema_dir: Path) -> Rebuilt:
    part = settings.db_path.with_suffix(".rebuilding")
    for file in (part, home.wal_of(part)):
        file.unlink(missing_ok=True)
    con = duckdb.connect(str(part), config=dict(CONFIG))
    try:
        con.execute("set global TimeZone = 'UTC'")
        con.execute(BOOTSTRAP)
        done = _replay(con, read(settings.journal_dir), schema_dir)
        con.execute("checkpoint")
    finally:
        con.close()
    home.set_aside(settings, keep=False)
    part.replace(settings.db_path)
    return done


def rebuild(settings: Settings, schema_dir: Path = migrations.SCHEMA_DIR) -> Rebuilt:
    """Make the database anew from the journal (no app may be open on the workspace); the old file is kept in `before-recovery/`."""
    with home.lock(settings):
        Journal(settings.journal_dir).open()
        try:
            return _rebuild_file(settings, schema_dir)
        except (OSError, duckdb.Error) as error:
            raise home.words(error, settings) from error


def restore_workspace(settings: Settings, archive: Path) -> Path | None:
    """Unpack a backup as the workspace of `settings` (no app may be open on it); returns where an older workspace was kept."""
    staged = backups.unpack(settings, archive, max(m.version for m in migrations.known()))
    if not settings.home.exists():
        staged.rename(settings.home)
        return None
    with home.lock(settings):
        return backups.swap(settings, staged)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
