"""Import: look at a file before anything is written, then take its good rows in and report the bad ones.

    preview = importers.read(settings, path)             # what the file is, in words; nothing is written
    report = importers.load(db, project_id, path)        # or with a mapping that somebody changed

Ids come from content, so the same file twice adds nothing. Rows go through in batches: memory does not grow with the file. A
file that turns out to be broken half way keeps what came before and says so. Reading is `data/readers.py`, the meaning of columns
`data/recognise.py` and `data/normalise.py`, storing `data/import_store.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data.columns import ColumnMap, describe
from data.database import Database
from data.errors import BadInput
from data.import_folder import copy_upload, files, resolve
from data.import_store import Batch, store
from data.normalise import Item, items
from data.preview import Look, Preview, Problem, Problems
from data.readers import Record, Records
from data.recognise import recognise
from data.settings import Settings
from data.transcripts import RowError
from data.words import count

__all__ = ["ColumnMap", "ImportReport", "Preview", "Problem", "copy_upload", "files", "load", "read"]

PREVIEW_ROWS = 20_000
RECOGNISE_ROWS = 100
RECOGNISE_BYTES = 16 << 20
BATCH_ITEMS = 2_000
BATCH_CHARS = 16 * 1024 * 1024
Progress = Callable[[int, float], None]  # rows read, share of the file read (0 to 1)


@dataclass
class ImportReport:
    """What an import did. `duplicates` are good rows of which everything was there before, in the project or higher up in the file.

    `stopped` says why reading ended before the end of the file, '' when it did not.
    """

    rows: int = 0
    prompts_added: int = 0
    completions_added: int = 0
    preferences_added: int = 0
    duplicates: int = 0
    stopped: str = ""
    found: Problems = field(default_factory=Problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The first 1,000."""
        return tuple(self.found.kept)

    @property
    def problem_count(self) -> int:
        return self.found.count

    @property
    def summary(self) -> str:
        answers, labels = count(self.completions_added, "answer"), count(self.preferences_added, "label")
        added = f"{count(self.prompts_added, 'prompt')}, {answers} and {labels} added"
        known = f", {count(self.duplicates, 'row was', 'rows were')} there already" if self.duplicates else ""
        bad = f", {count(self.problem_count, 'row')} could not be used" if self.problem_count else ""
        return f"{added}{known}{bad}." + (f" Reading stopped after row {self.rows:,}: {self.stopped}" if self.stopped else "")


def read(settings: Settings, path: Path, mapping: ColumnMap | None = None, owner: str = "", limit: int = 0) -> Preview:
    """Look at the file's first 20,000 rows; nothing is written. BadInput when the file cannot be read or its layout is not known.

    `mapping` overrides the recognised one; `owner` is the visitor in whose folder the file must lie. LimitReached, and reading
    ends there, where it unpacks to more than `limit` bytes (0: there is no limit).
    """
    path = resolve(settings, path, owner)
    records = Records(path, limit)
    rows = _Rows(records)
    found, notes, columns = _mapping(rows, mapping, path.name)
    look, complete = Look(found), True
    for record in rows:
        if look.rows == PREVIEW_ROWS:
            complete = False
            break
        look.take(record.line, _items(record, found, look.problems))
    return Preview(
        name=path.name,
        format=records.format,
        mapping=found,
        description=describe(found),
        columns=columns,
        sample=tuple(look.sample),
        rows=look.rows,
        good=look.good,
        prompts=len(look.prompts),
        answers=look.answers,
        labels=look.labels,
        characters=look.characters,
        complete=complete,
        total_rows=records.total if records.total is not None else (look.rows if complete else None),
        problems=tuple(look.problems.kept),
        problem_count=look.problems.count,
        warnings=(*notes, *look.warnings()),
    )


def load(
    db: Database,
    project_id: str,
    path: Path,
    mapping: ColumnMap | None = None,
    progress: Progress | None = None,
    owner: str = "",
) -> ImportReport:
    """Take the file's good rows into the project. BadInput, with nothing written, when the file as a whole cannot be read.

    `mapping` None means the recognised one. `progress` is called after each batch; what it raises ends the import there.
    """
    path = resolve(db.settings, path, owner)
    records = Records(path)
    rows = _Rows(records)
    found, _, _ = _mapping(rows, mapping, path.name)
    records.check()
    source = path.name.encode("utf-8", "replace").decode()
    report, batch = ImportReport(), Batch(project_id, source)
    try:
        for record in rows:
            report.rows += 1
            batch.add(_items(record, found, report.found))
            if len(batch) >= BATCH_ITEMS or batch.characters >= BATCH_CHARS:
                _flush(db, batch, report, progress, records)
                batch = Batch(project_id, source)
    except BadInput as error:  # of the file, not of a row: what came before is good
        report.stopped = str(error)
    if report.stopped and report.rows == report.problem_count:
        raise BadInput(report.stopped)
    _flush(db, batch, report, progress, records)
    return report


class _Rows:
    """The records, the first of which can be looked at without being used up."""

    def __init__(self, records: Records) -> None:
        self._records = iter(records)
        self.head: list[Record] = []
        size = 0
        for record in islice(self._records, RECOGNISE_ROWS):
            self.head.append(record)
            size += record.size
            if size > RECOGNISE_BYTES:
                break

    def __iter__(self) -> Iterator[Record]:
        yield from self.head
        yield from self._records


def _mapping(rows: _Rows, mapping: ColumnMap | None, name: str) -> tuple[ColumnMap, tuple[str, ...], tuple[str, ...]]:
    """The mapping to read by, what there is to say about it, and the columns seen."""
    good = [record.row for record in rows.head if record.row is not None]
    if not good:
        why = f" (line {rows.head[0].line}: {rows.head[0].problem})" if rows.head else ""
        raise BadInput(f"{name} has no row that can be read{why}; give every row a prompt.")
    columns = tuple(dict.fromkeys(str(column) for row in good for column in row))
    if mapping is not None:
        return mapping.check(set(columns)), (), columns
    found = recognise(good, name)
    return found.mapping, found.notes, columns


def _items(record: Record, mapping: ColumnMap, problems: Problems) -> list[Item]:
    if record.row is None:
        problems.add(record.line, record.problem)
        return []
    try:
        return items(record.row, mapping)
    except RowError as error:
        problems.add(record.line, str(error))
        return []


def _flush(db: Database, batch: Batch, report: ImportReport, progress: Progress | None, records: Records) -> None:
    stored = store(db, batch)
    report.prompts_added += stored.prompts
    report.completions_added += stored.completions
    report.preferences_added += stored.preferences
    report.duplicates += stored.duplicates
    if progress is not None:
        progress(report.rows, records.share)
