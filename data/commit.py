"""One commit: the changes of a batch are in the journal before the database has them, and whoever wants to hear of it does.

A commit that did not come about is cut from the journal again, so that both always say the same. Runs in the writer thread.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from data import home
from data.connection import Connection, EngineError
from data.cursor import Cursor
from data.database_file import DatabaseFile
from data.errors import StudioError
from data.journal import Change

CHECKPOINT_BYTES = 16 * 1024 * 1024
log = logging.getLogger(__name__)


class Committer:
    """`commit` is the writer's (data/writer.py); `callbacks` are called with the changes of each commit."""

    def __init__(self, file: DatabaseFile) -> None:
        self.callbacks: list[Callable[[Sequence[Change]], None]] = []
        self._file = file

    def commit(self, body: Callable[[Cursor], list[Any]]) -> list[Any]:
        """What `body` returns, once its changes are stored; raises when nothing was."""
        file = self._file
        if not file.is_open:
            file.mend(file.generation)
        raw = file.connection.cursor()
        cursor = Cursor(raw, file.catalog, file.numbers)
        try:
            raw.execute("begin")
            outcomes = body(cursor)
            self._store(raw, cursor.changes)
        except BaseException as error:
            file.numbers.clear()
            with suppress(EngineError):
                raw.execute("rollback")
            raw.close()
            if not isinstance(error, Exception):
                raise
            file.mend_after(error)
            raise file.explain(error) from error
        raw.close()
        if cursor.changes:
            self.tell(cursor.changes)
            self._checkpoint_when_due()
        return outcomes

    def tell(self, changes: Sequence[Change]) -> None:
        for callback in self.callbacks:
            try:
                callback(changes)
            except Exception:
                log.exception("an on_commit callback failed")

    def _store(self, raw: Connection, changes: Sequence[Change]) -> None:
        if not changes:
            raw.execute("commit")
            return
        journal = self._file.journal
        number = journal.last + 1
        journal.append(changes, number)
        try:
            raw.execute(f"update journal_position set commit_no = {number:d}; commit")
        except EngineError:
            raw.close()
            if self._file.has_commit(number):
                return
            with suppress(OSError):  # then `append` cuts it first thing next time
                journal.undo()
            raise

    def _checkpoint_when_due(self) -> None:
        """A checkpoint that runs out of room makes DuckDB close the database, so it is only tried with room to spare."""
        wal = home.wal_of(self._file.settings.db_path)
        size = wal.stat().st_size if wal.exists() else 0
        if size < CHECKPOINT_BYTES or shutil.disk_usage(self._file.settings.home).free < 3 * size:
            return
        try:
            self._file.connection.execute("checkpoint")
        except EngineError as error:
            log.warning("checkpoint postponed: %s", error)
            with suppress(StudioError):
                self._file.mend_after(error)
