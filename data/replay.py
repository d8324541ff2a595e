"""Bringing a database and its journal to the same commit: migrations, replay of journal groups, and a full copy as a new journal.

Works on an open connection it is handed; `data/database_file.py` decides when.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from data import migrations
from data.cursor import ROWS_PER_STATEMENT, Catalog, Cursor, fetch, read_catalog
from data.errors import WorkspaceError
from data.journal import Change, Group, Journal, read

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


def catch_up(con: Any, journal: Journal, schema_dir: Path, where: Path) -> str:
    """Take in what the journal has and the database has not, then apply new migrations. Returns a sentence when all was not well.

    The database is ahead only when somebody removed the journal: a new one is begun from a full copy.
    """
    notice, at = "", position(con)
    migrations.pending(applied(con), migrations.known(schema_dir), where)
    if journal.last > at:
        replay(con, read(journal.folder, after=at), schema_dir)
    elif at > journal.last or (not journal.last and applied(con)):
        notice = "The journal was missing or older than the database, so a new one was begun from a full copy."
        journal.replace_all(dump(con, read_catalog(con)), at)
    for migration in migrations.pending(applied(con), migrations.known(schema_dir), where):
        at_time = datetime.now(UTC).isoformat()
        record = {"version": migration.version, "name": migration.name, "sha256": migration.sha256, "applied_at": at_time}
        journal.append([Change("schema", rows=(record,))], journal.last + 1)
        try:
            apply(con, migration, at_time, journal.last)
        except Exception as error:
            journal.undo()
            raise WorkspaceError(
                f"The workspace {where} could not be brought to {migration.name} ({str(error).splitlines()[0]}); it is as it was: "
                "go on with the edition of the studio that made it, and report this."
            ) from error
    return notice


def apply(con: Any, migration: migrations.Migration, applied_at: str, number: int) -> None:
    """One transaction, and a checkpoint after it: replaying table changes from DuckDB's log is where its bugs have been."""
    with transaction(con):
        con.execute(migration.sql)
        values = [migration.version, migration.name, migration.sha256, applied_at]
        con.execute("insert into schema_migrations select ?, ?, ?, ?::timestamptz", values)
        con.execute("update journal_position set commit_no = ?", [number])
    con.execute("checkpoint")


def applied(con: Any) -> list[dict[str, Any]]:
    rows = fetch(con, "select version, name, sha256, applied_at from schema_migrations order by version")
    return [{**row, "applied_at": row["applied_at"].isoformat()} for row in rows]


def position(con: Any) -> int:
    """The number of the newest journal group that the database has."""
    return int(fetch(con, "select commit_no from journal_position")[0]["commit_no"])


def replay(con: Any, groups: Iterable[Group], schema_dir: Path) -> Rebuilt:
    """Do journaled groups again. A migration is applied where the journal has it: old rows meet the tables they were made for."""
    known = {m.version: m for m in migrations.known(schema_dir)}
    done, damaged, catalog = 0, [], read_catalog(con)
    for number, changes, where in groups:
        if changes is None:
            damaged.append(where)
            continue
        for record in [record for change in changes if change.op == "schema" for record in change.rows]:
            migrations.pending([record], list(known.values()), schema_dir)
            if record["version"] not in {r["version"] for r in applied(con)}:
                apply(con, known[record["version"]], record["applied_at"], number)
                catalog = read_catalog(con)
        _redo(con, catalog, changes, number)
        done += 1
    return Rebuilt(done, tuple(damaged))


def dump(con: Any, catalog: Catalog) -> Iterator[list[Change]]:
    """All tables as journal groups: the baseline of a new journal."""
    yield [Change("schema", rows=tuple(applied(con)), baseline=True)]
    plain = Cursor(con, catalog).plain_row
    for table, key in catalog.keys.items():
        if table in UNJOURNALED:
            continue
        columns = list(catalog.types[table])
        reader = con.cursor()
        reader.execute(f"select {', '.join(columns)} from {table} order by {key}")
        while batch := reader.fetchmany(ROWS_PER_STATEMENT):
            yield [Change("insert", table, tuple(plain(table, dict(zip(columns, row, strict=True))) for row in batch))]
        reader.close()


def _redo(con: Any, catalog: Catalog, changes: Sequence[Change], number: int) -> None:
    with transaction(con):
        cursor = Cursor(con, catalog)
        for change in changes:
            cursor.redo(change)
        con.execute("update journal_position set commit_no = ?", [number])


@contextmanager
def transaction(con: Any) -> Iterator[None]:
    con.execute("begin")
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the error that led here is the one to report
            con.execute("rollback")
        raise
    con.execute("commit")
