"""Rows out of a file, whatever its format: JSON lines, JSON, CSV and TSV (each also gzipped) and Parquet.

The content decides, not the name: a `.json` that holds JSON lines is read as such. Rows come one at a time with the line they
start on (Parquet: the number of the row); one that cannot be read comes with the reason instead. What makes the rest of the file
unreadable is raised as BadInput.

    for record in Records(path):
        print(record.line, record.row or record.problem)
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data import json_stream
from data.errors import BadInput, LimitReached
from data.source import MAX_LINE, Line, Source, check_start, check_text, not_utf8, too_much

Format = Literal["jsonl", "json", "csv", "parquet"]
Row = dict[str, Any]
FORMATS = "JSON lines, JSON, CSV or Parquet (the first three also gzipped)"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
MAX_COLUMNS = 1000
BATCH_ROWS = 512
BATCH_BYTES = 16 << 20
CAREFUL_ROWS = 8  # a small Parquet file can say the same long text in each of a million rows
CAREFUL_CODECS = {"UNCOMPRESSED", "SNAPPY"}  # unpack to 21 times their size at most; a page is unpacked as a whole
MAX_ROW_GROUP = 4 << 30  # bytes as the file itself declares them
DELIMITERS = ",;\t|"
TOO_LONG = f"the row is longer than {MAX_LINE >> 20} MB"


class Record(NamedTuple):
    """`row` is None when the row cannot be read; `problem` then says why. `size` is about what it takes in the file, in bytes."""

    line: int
    row: Row | None
    problem: str = ""
    size: int = 0


class Records:
    """Iterate once. `share` is how much of the file has been read; `total` the number of rows where the file says it (Parquet).

    LimitReached where the file unpacks to more than `limit` bytes (0: there is no limit).
    """

    def __init__(self, path: Path, limit: int = 0) -> None:
        self.path, self._limit = path, limit
        self.format = sniff(path, limit)
        self.total: int | None = None
        self._source: Source | None = None
        self._read = 0

    def __iter__(self) -> Iterator[Record]:
        if self.format == "parquet":
            yield from self._parquet()
            return
        self._source = Source(self.path, self._limit)
        try:
            yield from _READERS[self.format](self._source)
        finally:
            self._source.close()

    @property
    def share(self) -> float:
        if self._source is not None:
            return self._source.share
        return min(1.0, self._read / self.total) if self.total else 0.0

    def check(self) -> None:
        """BadInput when the file as a whole is cut off or in another encoding; one pass over its bytes."""
        if self.format != "parquet":
            check_text(self.path)

    def _parquet(self) -> Iterator[Record]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        unpacked = 0
        try:
            with pq.ParquetFile(self.path, memory_map=True) as file:
                self.total = file.metadata.num_rows
                for batch in file.iter_batches(batch_size=_check_parquet(file, self.path.name, self._limit)):
                    unpacked += batch.nbytes
                    if self._limit and unpacked > self._limit:
                        raise too_much(self.path.name, self._limit)
                    size = batch.nbytes // max(1, batch.num_rows)
                    for row in batch.to_pylist():
                        self._read += 1
                        yield Record(self._read, row, size=size)
        except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
            raise BadInput(
                f"{self.path.name} is damaged, cut off or no Parquet file (row {self._read + 1}); fetch or write it again."
            ) from error


def sniff(path: Path, limit: int = 0) -> Format:
    """The format, from the first bytes; the name only tells CSV from JSON. BadInput when it is none that can be read."""
    source = Source(path, limit)
    try:
        start = source.head
        line = next((line for line in source.lines() if line.raw is None or line.raw.strip(b"\xef\xbb\xbf \t\r\n")), None)
    finally:
        source.close()
    if line is None:
        raise BadInput(f"{path.name} holds nothing but blank lines; choose a file with at least one row.")
    name = path.name.lower().removesuffix(".gz")
    head = (start if line.raw is None else line.raw).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        if source.is_gzip:
            raise BadInput(f"{path.name} is a gzipped Parquet file; unpack it and import it again.")
        return "parquet"
    check_start(start[:4], path.name)
    if name.endswith((".csv", ".tsv")):
        return "csv"
    if name.endswith(".parquet"):
        raise BadInput(f"{path.name} is not a Parquet file (or its start is missing); fetch or write it again.")
    if not name.endswith((".json", ".jsonl", ".ndjson")):
        raise BadInput(f"{path.name} has an ending that is not known here; use {FORMATS}.")
    named_lines = not name.endswith(".json")
    if head.startswith(b"["):
        return "jsonl" if named_lines and _is_lines(path, line, limit) else "json"
    return "jsonl" if named_lines or _is_lines(path, line, limit) else "json"


def _is_lines(path: Path, first: Line, limit: int) -> bool:
    """Whether the first line is JSON by itself and another follows it: then it is no piece of a larger document."""
    try:
        json.loads((first.raw or b"").decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return False
    source = Source(path, limit)
    try:
        return any(line.raw is None or line.raw.strip() for line in source.lines() if line.number > first.number)
    finally:
        source.close()


def _jsonl(source: Source) -> Iterator[Record]:
    for line in source.lines():
        if line.raw is None:
            yield Record(line.number, None, TOO_LONG)
            continue
        text = _decode(source, line)
        if text.strip():
            yield _parsed(line.number, text)._replace(size=len(text))


def _parsed(number: int, text: str) -> Record:
    try:
        value = json.loads(text)
    except RecursionError:
        return Record(number, None, "the JSON is nested too deeply to be data")
    except json.JSONDecodeError as error:
        return Record(number, None, f"not valid JSON: {error.msg.lower()} at character {error.colno}")
    except ValueError:
        return Record(number, None, "not valid JSON: a number with too many digits")
    return _object(number, value)


def _object(number: int, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(number, None, "the row is not a JSON object with named fields")
    return Record(number, value)


def _json(source: Source) -> Iterator[Record]:
    for element in json_stream.elements(source):
        yield _object(element.line, element.value)._replace(size=element.size)


def _csv(source: Source) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE)
    lines = _CsvLines(source)
    reader = csv.reader(lines, delimiter=lines.delimiter(), strict=True)
    header = _header(reader, source.name)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(start, None, _csv_words(str(error)))
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield Record(start, None, f"the row has {len(cells)} cells where the header has {len(header)} columns")
        elif lines.cut:
            yield Record(start, None, TOO_LONG)
        else:
            row = {name: unescape(cell) for name, cell in zip(header, cells, strict=True)}
            yield Record(start, row, size=sum(map(len, cells)))
        lines.cut = False


def _csv_words(message: str) -> str:
    if "unexpected end" in message or "field limit" in message:
        return "a quote is opened in this row and not closed in the rest of the file"
    return f"not valid CSV: {message}"


class _CsvLines:
    """Decoded lines for `csv.reader`, which asks for the next one inside a quoted cell. `cut` is set when one was too long."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = source.lines()
        self._first: str | None = None
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._first is not None:
            text, self._first = self._first, None
            return text
        line = next(self._lines)
        if line.raw is None:
            self.cut = True
            return "\n"
        return _decode(self._source, line)

    def delimiter(self) -> str:
        """Comma, semicolon, tab or bar, whichever the header has most of."""
        self._first = next(self)
        return max(DELIMITERS, key=self._first.count)


def _header(reader: Any, name: str) -> list[str]:
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        raise BadInput(f"{name}: line 1 is not a valid CSV header ({error}); name the columns there.") from error
    if not any(header) or len(header) > MAX_COLUMNS:
        raise BadInput(f"{name}: line 1 does not name the columns; write a header such as prompt,reference.")
    doubled = sorted({cell for cell in header if header.count(cell) > 1})
    if doubled:
        raise BadInput(f"{name}: line 1 names the column {doubled[0]!r} twice; give every column a name of its own.")
    return header


def _decode(source: Source, line: Line) -> str:
    raw = line.raw or b""
    try:
        return raw.decode("utf-8-sig" if line.number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(source.name, line.number, error) from error


def escape(cell: str) -> str:
    """A cell that a spreadsheet would take for a formula gets an apostrophe in front, and so does one that has it already."""
    return "'" + cell if cell.lstrip("'")[:1] in _FORMULA else cell


def unescape(cell: str) -> str:
    """Undo `escape`, so that what was exported comes back as it was."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'")[:1] in _FORMULA else cell


_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # the wide ones where East Asian characters are typed


def _check_parquet(file: Any, name: str, limit: int) -> int:
    """How many rows to read at a time, so that they take some 16 MB; BadInput for a file that cannot be read in pieces.

    What the file declares of itself may be a lie, so under a `limit` few rows are read at a time, and no codec that unpacks a
    page to a thousand times its size.
    """
    metadata = file.metadata
    if not metadata.num_rows:
        raise BadInput(f"{name} has no rows; choose a file with at least one row.")
    if metadata.num_columns > MAX_COLUMNS:
        raise BadInput(f"{name} has {metadata.num_columns} columns; write only those that are needed.")
    largest = max(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if largest > MAX_ROW_GROUP:
        raise BadInput(f"{name} has a row group of {largest >> 30} GB; write it with smaller ones (pyarrow: row_group_size=10000).")
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if limit:
        if total > limit:
            raise too_much(name, limit)
        _check_codecs(metadata, name)
        return CAREFUL_ROWS
    return max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(1, total)))


def _check_codecs(metadata: Any, name: str) -> None:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    codecs = {group.column(i).compression for group in groups for i in range(group.num_columns)}
    if not codecs <= CAREFUL_CODECS:
        raise LimitReached(
            f"{name} is packed with {sorted(codecs - CAREFUL_CODECS)[0]}, which a visitor's file cannot be; "
            "write it with snappy, or as JSON lines."
        )


_READERS: dict[Format, Any] = {"jsonl": _jsonl, "json": _json, "csv": _csv}
