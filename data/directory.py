"""Who has an account, held in memory: every request asks, so it must not cost a query.

Read when first asked for and again after a commit that touched accounts, people or members, whoever made it; so a person who
is disabled, or whose role changes, is known as such from the next request on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from data import accounts
from data.cached import Cached
from data.database import Database
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
        self._cached = Cached(db, _read, TABLES)

    @property
    def is_stale(self) -> bool:
        """Whether `find` will ask the database, which an event loop had better leave to a thread."""
        return self._cached.is_stale

    def find(self, annotator_id: str) -> Known | None:
        """None for whoever has no account, or one that is disabled."""
        return self._cached.get().get(annotator_id)


def _read(db: Database) -> Mapping[str, Known]:
    enabled = [one for one in accounts.everybody(db) if one.account.disabled_at is None]
    return {one.account.annotator_id: Known(one.account, one.person.name, one.person.role, one.projects) for one in enabled}
