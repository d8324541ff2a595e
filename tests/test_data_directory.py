"""Who is known to have an account: never less than what is stored, however many ask at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from data import accounts
from data.database import Database
from data.directory import Directory


def _account(db: Database, login: str) -> str:
    return db.write(lambda cursor: accounts.add(cursor, login, "", "annotator")).annotator_id


def test_whoever_asks_while_it_is_being_read_waits_for_the_answer(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(db)
    first = _account(db, "first")
    reading, go_on = threading.Event(), threading.Event()
    read = accounts.everybody

    def slowly(of: Database) -> Any:
        reading.set()
        go_on.wait()
        return read(of)

    monkeypatch.setattr(accounts, "everybody", slowly)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(directory.find, first)]
        found[0].add_done_callback(lambda _: reading.set())
        reading.wait()
        try:
            found += [pool.submit(directory.find, first) for _ in range(7)]
            while sum(one.running() for one in found) < 8 and not any(one.done() for one in found):
                time.sleep(0.001)
            assert not any(one.done() for one in found), "nobody is told less than what is stored"
        finally:
            go_on.set()
        assert all(one.result() for one in found)


def test_a_change_made_during_the_reading_is_seen_by_the_next_who_asks(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(db)
    first = _account(db, "first")
    read = accounts.everybody

    def then_disabled(of: Database) -> Any:
        listed = read(of)
        monkeypatch.setattr(accounts, "everybody", read)
        db.update("accounts", {"annotator_id": first}, disabled_at="2026-01-01T00:00:00+00:00")
        return listed

    monkeypatch.setattr(accounts, "everybody", then_disabled)
    directory.find(first)
    assert directory.is_stale
    assert directory.find(first) is None
