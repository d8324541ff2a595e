"""Rows into JSON lines, CSV or Parquet, a few at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

from data.errors import BadInput
from data.import_folder import safe_name
from data.readers import escape

Format = Literal["jsonl", "csv", "parquet"]
Row = dict[str, Any]
BATCH = 1_000
COLUMNS: dict[str, tuple[str, ...]] = {
    "dpo": ("prompt", "chosen", "rejected"),
    "reward": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
    "sft": ("prompt", "completion"),
    "prompts": ("prompt", "follow_up", "reference", "category", "external_id", "source", "split"),
    "labels": (
        "label_id", "task", "prompt", "follow_up", "response_a", "response_b", "preference", "annotator", "model_a", "model_b",
        "split", "simulated", "dwell_ms", "note", "labelled_at",
    ),
}  # fmt: skip

WEIGHTED = frozenset({"dpo", "reward", "kto", "sft"})


def new_file(folder: Path, project: str, what: str, ending: str) -> Path:
    """An empty file for what is exported: "short-answers-dpo-2026-11-30.jsonl", the next of a day with "-2" before its ending.

    It is made here, so that two who export at once never write into the same one.
    """
    stem = f"{safe_name(project).replace('.', '-').lower()[:40].strip('-')}-{what}-{datetime.now(UTC):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    for n in count(1):
        path = folder / f"{stem}{f'-{n}' if n > 1 else ''}.{ending}"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            continue
    raise AssertionError("count() does not end")


def columns_of(layout: str, weighted: bool) -> tuple[str, ...]:
    return (*COLUMNS[layout], *(("weight",) if weighted and layout in WEIGHTED else ()))


def write(path: Path, format: Format, layout: str, conversational: bool, rows: Iterable[Row], weighted: bool = False) -> int:
    """How many rows were written; OSError when the disk does not take them. `weighted`: rows keep their `weight`."""
    columns = columns_of(layout, weighted)
    rows = ({column: row[column] for column in columns} for row in rows)
    if format == "jsonl":
        return _jsonl(path, rows)
    if format == "csv":
        return _csv(path, columns, rows)
    if format == "parquet":
        return _parquet(path, columns, conversational, rows)
    raise BadInput(f"{format!r} cannot be written; choose jsonl, csv or parquet.")


def _jsonl(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            count += 1
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return count


def _csv(path: Path, columns: tuple[str, ...], rows: Iterable[Row]) -> int:
    """With a byte order mark: without it Excel takes UTF-8 for Windows-1252."""
    count = 0
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        for row in rows:
            count += 1
            writer.writerow([_cell(row[column]) for column in columns])
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return escape(str(value))


def _parquet(path: Path, columns: tuple[str, ...], conversational: bool, rows: Iterable[Row]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = {"follow_up": pa.list_(pa.string()), "label": pa.bool_(), "simulated": pa.bool_(), "dwell_ms": pa.int64()}
    kinds["weight"] = pa.float64()
    if conversational:
        kinds |= dict.fromkeys(("prompt", "chosen", "rejected", "completion"), turns)
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in columns])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        yield batch
