"""What was read from a few small tables, kept in memory until a commit touches one of them: for what every request asks.

A commit tells before its caller hears of it, so whoever wrote something reads it back; and whoever asks while it is being read
anew waits, since what was known before may be less than what is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from data.journal import Change

if TYPE_CHECKING:
    from data.database import Database

T = TypeVar("T")


class Cached(Generic[T]):
    """Safe from any thread. What `get` returns is shared: nobody may change it."""

    def __init__(self, db: Database, read: Callable[[Database], T], tables: frozenset[str]) -> None:
        self._db, self._read, self._tables = db, read, tables
        self._lock = threading.Lock()
        self._changes = 1  # commits that touched these tables, and how many of them are taken in
        self._taken_in = 0
        db.on_commit(self._committed)

    @property
    def is_stale(self) -> bool:
        """Whether `get` will ask the database, which an event loop had better leave to a thread."""
        return self._taken_in != self._changes

    def get(self) -> T:
        if self.is_stale:
            with self._lock:
                if self.is_stale:
                    changes = self._changes  # before reading: a commit meanwhile asks for another round
                    self._kept = self._read(self._db)
                    self._taken_in = changes
        return self._kept

    def _committed(self, changes: Sequence[Change]) -> None:
        if any(change.op == "schema" or change.table in self._tables for change in changes):
            self._changes += 1  # by the writer's thread alone
