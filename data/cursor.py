"""What a write gets to work with: reads, and three changes (insert, update, delete) that are journaled as they are made.

There is no `execute` here on purpose: a change that bypassed the journal could not be rebuilt. Values become JSON values first
(UTC ISO times, canonical UUIDs) and are cast back by the database, so a replay of the journal runs the very same statements.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

from data.errors import BadInput
from data.journal import Change

ROWS_PER_STATEMENT = 5000
READS = ("select", "with", "from", "describe", "explain", "values", "show", "summarize", "pivot")


class Catalog(NamedTuple):
    """Column types and the primary key of every table."""

    types: dict[str, dict[str, str]]
    keys: dict[str, str]


def read_catalog(raw: Any) -> Catalog:
    types: dict[str, dict[str, str]] = {}
    sql = """select table_name, column_name, data_type from duckdb_columns()
             where database_name = current_database() and not internal order by column_index"""
    for table, column, kind in raw.execute(sql).fetchall():
        types.setdefault(table, {})[column] = kind
    sql = """select table_name, constraint_column_names[1] from duckdb_constraints()
             where constraint_type = 'PRIMARY KEY' and database_name = current_database()"""
    return Catalog(types, dict(raw.execute(sql).fetchall()))


def fetch(raw: Any, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> list[dict[str, Any]]:
    """Rows as dicts; times are aware (UTC), UUIDs are text. Refuses anything but a read."""
    words = sql.lstrip(" \n\t(").split(None, 1)
    if not words or words[0].lower() not in READS:
        raise ValueError("reads only: changes go through insert, update and delete, which are journaled")
    raw.execute(sql, params if isinstance(params, Mapping) else list(params))
    columns = [(d[0], _DECODERS.get(str(d[1]))) for d in raw.description]
    if any(decode for _, decode in columns):
        return [
            {n: v if d is None or v is None else d(v) for (n, d), v in zip(columns, row, strict=True)} for row in raw.fetchall()
        ]
    names = [n for n, _ in columns]
    return [dict(zip(names, row, strict=True)) for row in raw.fetchall()]


_DECODERS: dict[str, Any] = {"UUID": str, "TIMESTAMP WITH TIME ZONE": lambda at: at.astimezone(UTC)}


def insert_for_each(cursor: Cursor, items: Sequence[tuple[str, Sequence[Mapping[str, object]]]]) -> list[int]:
    """The inserts of several callers, those into the same table side by side as one statement; how many of its rows each added."""
    counts: list[int] = []
    for table, group in groupby(items, key=lambda item: item[0]):
        callers = [rows for _, rows in group]
        new = cursor.insert(table, [row for rows in callers for row in rows])
        key = cursor.key_of(table)
        fresh = {row[key] for row in new}
        for rows in callers:
            mine = {cursor.plain_row(table, row)[key] for row in rows} & fresh
            fresh -= mine
            counts.append(len(mine))
    return counts


class Cursor:
    """Open for one batch of the writer; sees what the batch has done so far."""

    def __init__(self, raw: Any, catalog: Catalog) -> None:
        self._raw = raw
        self._catalog = catalog
        self.changes: list[Change] = []

    def rows(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> list[dict[str, Any]]:
        return fetch(self._raw, sql, params)

    def row(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> dict[str, Any] | None:
        return next(iter(self.rows(sql, params)), None)

    def value(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> Any:
        row = self.row(sql, params)
        return None if row is None else next(iter(row.values()))

    def key_of(self, table: str) -> str:
        return self._catalog.keys[table]

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """The rows that were new, in the order given (values as journaled); rows whose key is there already are left alone."""
        new: list[dict[str, Any]] = []
        by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            by_columns.setdefault(tuple(row), []).append(self.plain_row(table, row))
        for columns, alike in by_columns.items():
            for at in range(0, len(alike), ROWS_PER_STATEMENT):
                added = self._insert(table, columns, alike[at : at + ROWS_PER_STATEMENT])
                if added:
                    self.changes.append(Change("insert", table, tuple(added)))
                new += added
        return new

    def update(self, table: str, key: Mapping[str, object], **fields: object) -> int:
        """Set `fields` of the rows where every column of `key` has that value; the number of rows found."""
        plain_key, plain = self.plain_row(table, key), self.plain_row(table, fields)
        types = self._catalog.types[table]
        sets = ", ".join(f"{c} = ?::{types[c]}" for c in plain)
        where = self._where(table, plain_key)
        found = self._raw.execute(f"update {table} set {sets} where {where}", [*plain.values(), *plain_key.values()]).fetchone()[0]
        if found:
            self.changes.append(Change("update", table, key=plain_key, fields=plain))
        return int(found)

    def delete(self, table: str, key: Mapping[str, object]) -> int:
        plain_key = self.plain_row(table, key)
        if not plain_key:
            raise ValueError("delete needs a key")
        where = self._where(table, plain_key)
        found = self._raw.execute(f"delete from {table} where {where}", list(plain_key.values())).fetchone()[0]
        if found:
            self.changes.append(Change("delete", table, key=plain_key))
        return int(found)

    def redo(self, change: Change) -> None:
        """Do a journaled change again; `changes` is left as it is."""
        before = len(self.changes)
        if change.op == "insert":
            self.insert(change.table, change.rows)
        elif change.op == "update":
            self.update(change.table, change.key, **change.fields)
        elif change.op == "delete":
            self.delete(change.table, change.key)
        del self.changes[before:]

    def _insert(self, table: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        types, pk = self._catalog.types[table], self._catalog.keys[table]
        by_key: dict[Any, dict[str, Any]] = {}
        for row in rows:
            by_key.setdefault(row[pk], row)
        values = ", ".join(f"unnest(?::{types[c]}[])" for c in columns)
        sql = f"insert into {table} ({', '.join(columns)}) select {values} on conflict do nothing returning {pk}"
        unique = list(by_key.values())
        added = self._raw.execute(sql, [[row[c] for row in unique] for c in columns]).fetchall()
        if len(added) == len(unique):
            return unique
        new = {str(key) for (key,) in added}
        return [row for key, row in by_key.items() if str(key) in new]

    def _where(self, table: str, key: Mapping[str, Any]) -> str:
        types = self._catalog.types[table]
        return " and ".join(f"{c} = ?::{types[c]}" for c in key) or "true"

    def plain_row(self, table: str, row: Mapping[str, object]) -> dict[str, Any]:
        types = self._catalog.types.get(table)
        if types is None or not row.keys() <= types.keys():
            raise ValueError(f"no table {table} with columns {sorted(row)}")
        return {column: plain(value, types[column]) for column, value in row.items()}


def plain(value: object, kind: str) -> object:
    """A value as JSON has it. BadInput for text that is not Unicode, ValueError for what cannot be stored faithfully."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not a finite number")
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a time zone")
        return value.astimezone(UTC).isoformat()
    if kind == "UUID":
        return str(uuid.UUID(str(value)))
    if isinstance(value, dict | list | tuple):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, str):
        raise ValueError(f"cannot store a {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(
            "The text holds half a character (a lone surrogate) and cannot be stored; save the file as UTF-8 again."
        ) from None
    return value
