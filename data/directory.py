"""Who has an account, held in memory: every request asks, so it must not cost a query.

Read when first asked for and again after a commit that touched accounts, people or members, whoever made it; so a person who
is disabled, or whose role changes, is known as such from the next request on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data import accounts
from data.database import Change, Database
from data.records import Account, Role

TABLES = frozenset({"accounts", "people", "members"})


class Known(NamedTuple):
    """An account that may sign in."""

    account: Account
    name: str
    role: Role
    projects: tuple[str, ...]  # an annotator's


class Directory:
    """Safe from any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._known: Mapping[str, Known] = {}
        self._changes = 1  # commits that touched these tables, and how many of them `_known` has
        self._taken_in = 0
        db.on_commit(self._committed)

    @property
    def is_stale(self) -> bool:
        """Whether `find` will ask the database, which an event loop had better leave to a thread."""
        return self._taken_in != self._changes

    def find(self, annotator_id: str) -> Known | None:
        """None for whoever has no account, or one that is disabled."""
        if self.is_stale:
            with self._lock:  # whoever comes meanwhile waits: what is known is not yet what is stored
                if self.is_stale:
                    self._read()
        return self._known.get(annotator_id)

    def _read(self) -> None:
        changes = self._changes  # before reading: a commit meanwhile asks for another round
        listed = accounts.everybody(self._db)
        enabled = [one for one in listed if one.account.disabled_at is None]
        self._known = {
            one.account.annotator_id: Known(one.account, one.person.name, one.person.role, one.projects) for one in enabled
        }
        self._taken_in = changes

    def _committed(self, changes: Sequence[Change]) -> None:
        if any(change.op == "schema" or change.table in TABLES for change in changes):
            self._changes += 1  # by the writer's thread alone
