"""What a write gets to work with: reads, and three changes (insert, update, delete) that are journaled as they are made.

There is no `execute` here on purpose: a change that bypassed the journal could not be rebuilt. Values become JSON values first
(UTC ISO times, canonical UUIDs) and are cast back by the database, so a replay of the journal runs the very same statements.

An insert asks which keys are there and adds the others by one plain statement, values by columns. `on conflict do nothing` says
the same, but the database plans it as a merge with a join and a group over every column: three times the work for 50 labels.
Nobody else writes, so nothing can come between the question and the insert; the primary key still guards it.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from types import NoneType
from typing import Any, NamedTuple

from data.errors import BadInput
from data.journal import Change

ROWS_PER_STATEMENT = 5000
ROWS_PER_PART = 500  # making Python objects of many more at once would keep other threads waiting for milliseconds
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
    ask(raw, sql, params)
    columns = [(d[0], _DECODERS.get(str(d[1]))) for d in raw.description]
    if any(decode for _, decode in columns):
        return [
            {n: v if d is None or v is None else d(v) for (n, d), v in zip(columns, row, strict=True)} for row in raw.fetchall()
        ]
    names = [n for n, _ in columns]
    return [dict(zip(names, row, strict=True)) for row in raw.fetchall()]


def fetch_columns(raw: Any, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> dict[str, Any]:
    """The same as a numpy array a column."""
    ask(raw, sql, params)
    columns: dict[str, Any] = raw.fetchnumpy()
    return columns


def ask(raw: Any, sql: str, params: Sequence[object] | Mapping[str, object]) -> None:
    """The rows are then to be fetched. Refuses anything but a read."""
    words = sql.lstrip(" \n\t(").split(None, 1)
    if not words or words[0].lower() not in READS:
        raise ValueError("reads only: changes go through insert, update and delete, which are journaled")
    raw.execute(sql, params if isinstance(params, Mapping) else list(params))


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
            mine = {cursor.plain_row(table, {key: row[key]})[key] for row in rows} & fresh
            fresh -= mine
            counts.append(len(mine))
    return counts


class Cursor:
    """Open for one batch of the writer; sees what the batch has done so far.

    `numbers` remembers the highest number in use of each numbered column between batches; it is cleared whenever a batch fails.
    """

    def __init__(self, raw: Any, catalog: Catalog, numbers: dict[str, int] | None = None) -> None:
        self._raw = raw
        self._catalog = catalog
        self._numbers = {} if numbers is None else numbers
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

    def next_numbers(self, table: str, column: str, count: int) -> range:
        """The next `count` numbers of a column that counts upwards; a batch that fails leaves a gap or gives them again."""
        name = f"{table}.{column}"
        if name not in self._numbers:
            self._numbers[name] = self.value(f"select coalesce(max({column}), 0) from {table}")
        first = self._numbers[name] + 1
        self._numbers[name] += count
        return range(first, first + count)

    def insert(self, table: str, rows: Sequence[Mapping[str, object]], known_new: bool = False) -> list[dict[str, Any]]:
        """The rows that were new, in the order given (values as journaled); rows whose key is there already are left alone.

        `known_new`: the caller has looked and none of the keys is there; if one is after all, the whole batch fails.
        """
        new: list[dict[str, Any]] = []
        by_columns: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
        for row in rows:
            by_columns.setdefault(tuple(row), []).append(row)
        for columns, alike in by_columns.items():
            for at in range(0, len(alike), ROWS_PER_STATEMENT):
                added = self._insert(table, columns, alike[at : at + ROWS_PER_STATEMENT], known_new)
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

    def _insert(
        self, table: str, columns: tuple[str, ...], rows: Sequence[Mapping[str, object]], known_new: bool
    ) -> list[dict[str, Any]]:
        types, pk = self._types_of(table, columns), self._catalog.keys[table]
        values = [plain_column([row[c] for row in rows], types[c]) for c in columns]
        by_key: dict[Any, tuple[Any, ...]] = {}
        for key, row in zip(values[columns.index(pk)], zip(*values, strict=True), strict=True):
            by_key.setdefault(key, row)
        there = set() if known_new else self._there(table, list(by_key))
        new = [row for key, row in by_key.items() if key not in there]
        if new:
            by_column = list(zip(*new, strict=True))
            alike = [len(new) == 1 or _is_one(held) for held in by_column]
            parts = [f"?::{types[c]}" if same else f"unnest(?::{types[c]}[])" for c, same in zip(columns, alike, strict=True)]
            params = [held[0] if same else list(held) for held, same in zip(by_column, alike, strict=True)]
            self._raw.execute(f"insert into {table} ({', '.join(columns)}) select {', '.join(parts)}", params)
        return [dict(zip(columns, row, strict=True)) for row in new]

    def _there(self, table: str, keys: Sequence[Any]) -> set[Any]:
        """Those of the keys that the table has."""
        pk = self._catalog.keys[table]
        kind = self._catalog.types[table][pk]
        sql = f"select {pk} from {table} where {pk} in (select unnest(?::{kind}[]))"
        return {row[pk] for row in self.rows(sql, [list(keys)])}

    def _where(self, table: str, key: Mapping[str, Any]) -> str:
        types = self._catalog.types[table]
        return " and ".join(f"{c} = ?::{types[c]}" for c in key) or "true"

    def plain_row(self, table: str, row: Mapping[str, object]) -> dict[str, Any]:
        types = self._types_of(table, row)
        return {column: plain(value, types[column]) for column, value in row.items()}

    def _types_of(self, table: str, columns: Iterable[str]) -> dict[str, str]:
        types = self._catalog.types.get(table)
        if types is None or not types.keys() >= set(columns):
            raise ValueError(f"no table {table} with columns {sorted(columns)}")
        return types


def _is_one(held: Sequence[Any]) -> bool:
    """Whether all are the same text, number or truth: it is handed to the database once instead of n times."""
    return type(held[0]) in (str, int, bool) and held.count(held[0]) == len(held) and len(set(map(type, held))) == 1


def plain_column(values: list[object], kind: str) -> list[Any]:
    """`plain` for each; a column of plain text, of whole numbers or of the very same thing is checked as one."""
    if all(value is values[0] for value in values):
        return [plain(values[0], kind)] * len(values)
    kinds = set(map(type, values))
    if kinds <= {int, bool, NoneType}:
        return values
    if kinds == {str} and kind != "UUID":
        with suppress(UnicodeEncodeError):
            "".join(values).encode()  # type: ignore[arg-type]
            return values
    return [plain(value, kind) for value in values]


_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid_text(text: str) -> str:
    """A UUID as it is stored; ValueError when it is none."""
    return text if _UUID.fullmatch(text) else str(uuid.UUID(text))


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
        return uuid_text(str(value))
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
