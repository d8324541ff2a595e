"""The store under many threads and `kill -9`: nothing acknowledged is lost, nothing is there twice, a bad write fails alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data.cursor import Cursor
from data.database import Database, rebuild
from data.errors import BadInput, WorkspaceError
from data.journal import Change, read
from data.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


def person(annotator_id: str, name: str = "n") -> dict[str, object]:
    return {
        "annotator_id": annotator_id,
        "name": name,
        "kind": "local",
        "project_id": "",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    }


def names(db: Database) -> set[str]:
    return {row["annotator_id"] for row in db.rows("select annotator_id from people")}


def test_rows_come_back_as_they_went_in(db: Database) -> None:
    text = "naïve 😀 \x00 \"quoted\" 'single' \\ \n\t"
    assert db.insert("people", [person("p", text)]) == 1
    row = db.row("select * from people where name = ?", [text])
    assert row is not None
    assert {name: row[name] for name in person("p")} == person("p", text)
    assert row["created_at"].tzinfo is UTC
    assert db.row("select * from people where annotator_id = $who", {"who": "nobody"}) is None
    assert db.value("select count(*) from people") == 1


def test_what_is_there_already_is_left_alone(db: Database) -> None:
    assert db.insert("people", [person("a"), person("a", "other"), person("b")]) == 2
    assert db.insert("people", [person("a", "third"), person("c")]) == 1
    assert db.value("select name from people where annotator_id = 'a'") == "n"
    assert db.insert("people", []) == 0


def test_values_of_a_column_that_are_all_alike_are_stored_as_they_are(db: Database) -> None:
    """What all rows share is handed over once: text, numbers and truth must come back of their own kind, from one row or many."""
    for rows in ([{**person("one"), "name": ""}], [{**person(f"many {i}"), "name": "0"} for i in range(3)]):
        db.insert("people", rows)
    assert db.rows("select annotator_id, name from people order by annotator_id") == [
        {"annotator_id": "many 0", "name": "0"},
        {"annotator_id": "many 1", "name": "0"},
        {"annotator_id": "many 2", "name": "0"},
        {"annotator_id": "one", "name": ""},
    ]
    judged: dict[str, object] = dict.fromkeys(
        [
            "run_id",
            "project_id",
            "prompt_id",
            "model_a",
            "model_b",
            "completion_a",
            "completion_b",
            "judge",
            "verdict",
            "unscored",
            "raw",
        ],
        "x",
    )
    judged |= {"created_at": datetime(2026, 1, 1, tzinfo=UTC), "sample_index": 1, "p": 1.0, "rule_a": True, "rule_b": None}
    db.insert("judgments", [{**judged, "judgment_id": str(i), "flipped": bool(i)} for i in range(2)])
    found = db.rows("select sample_index, p, rule_a, rule_b, flipped from judgments order by judgment_id")
    assert [tuple(row.values()) for row in found] == [(1, 1.0, True, None, False), (1, 1.0, True, None, True)]
    assert [type(value) for value in found[0].values()] == [int, float, bool, type(None), bool]
    changes = [change for group in read(db.journal.folder) for change in group.changes or () if change.table == "judgments"]
    assert [row["sample_index"] for change in changes for row in change.rows] == [1, 1]


def test_a_key_that_was_there_after_all_fails_the_write_and_nothing_else(db: Database) -> None:
    db.insert("people", [person("a")])
    with pytest.raises(Exception, match=r"(?i)duplicate key"):
        db.write(lambda cursor: cursor.insert("people", [person("new"), person("a", "other")], known_new=True))
    assert db.insert("people", [person("b")]) == 1
    assert db.rows("select annotator_id, name from people order by 1") == [
        {"annotator_id": "a", "name": "n"},
        {"annotator_id": "b", "name": "n"},
    ]


def test_numbers_count_on_from_what_is_stored_whatever_failed_between(db: Database) -> None:
    def take(cursor: Cursor, then: Callable[[], object] = lambda: None) -> list[int]:
        numbers = list(cursor.next_numbers("label_events", "seq", 3))
        then()
        return numbers

    assert [db.write(take), db.write(take)] == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ZeroDivisionError):
        db.write(lambda cursor: take(cursor, lambda: 1 / 0))
    assert db.write(take) == [1, 2, 3], "nothing was stored, so they begin anew"


def test_update_and_delete_say_how_many(db: Database) -> None:
    db.insert("people", [person(str(i)) for i in range(5)])
    assert db.update("people", {"name": "n"}, project_id="p") == 5
    assert db.update("people", {"annotator_id": "nobody"}, project_id="q") == 0
    assert db.write(lambda cursor: cursor.delete("people", {"annotator_id": "3"})) == 1
    assert db.value("select count(*) from people where project_id = 'p'") == 4


def test_a_failing_write_fails_alone(db: Database) -> None:
    """All three are submitted while the writer is held up, so they share a batch."""
    held, go = hold(db)
    good = db.submit(lambda cursor: cursor.insert("people", [person("good")]))
    bad = db.submit(lambda cursor: cursor.insert("people", [{**person("bad"), "kind": None}]))
    ugly = db.submit(lambda cursor: 1 / 0)
    late = db.submit(lambda cursor: cursor.insert("people", [person("late")]))
    go.set()
    assert held.result()
    assert len(good.result()) == 1
    assert len(late.result()) == 1
    with pytest.raises(Exception, match="NOT NULL"):
        bad.result()
    with pytest.raises(ZeroDivisionError):
        ugly.result()
    assert names(db) == {"good", "late"}
    assert db.insert("people", [person("after")]) == 1


def hold(db: Database) -> tuple[Any, threading.Event]:
    """Keep the writer busy, alone in its batch, until the event is set: what is submitted meanwhile shares the next batch."""
    inside, go = threading.Event(), threading.Event()

    def wait(cursor: Cursor) -> bool:
        inside.set()
        return go.wait()

    held = db.submit(wait)
    held.add_done_callback(lambda _: inside.set())
    inside.wait()
    return held, go


def test_a_write_is_whole_or_not_there(db: Database) -> None:
    def half(cursor: Cursor) -> None:
        cursor.insert("people", [person("first half")])
        raise BadInput("no second half")

    with pytest.raises(BadInput):
        db.write(half)
    assert names(db) == set()


def test_an_exit_inside_a_write_is_its_callers_and_the_writer_goes_on(db: Database) -> None:
    """Whatever is raised there: a thread that ended would leave everybody waiting who writes."""

    def leave(cursor: Cursor) -> None:
        cursor.insert("people", [person("half")])
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        db.write(leave)
    with pytest.raises(SystemExit):
        db._alone(lambda: sys.exit(3))
    assert db.insert("people", [person("after")]) == 1
    assert names(db) == {"after"}


def test_nobody_waits_for_a_writer_that_has_ended(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when no memory is left: those who wait are told, and those who come later."""
    held, go = hold(db)
    waiting = [db.submit(lambda cursor: cursor.insert("people", [person("waiting")])) for _ in range(300)]  # more than a batch
    monkeypatch.setattr("data.writer.groupby", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    go.set()
    assert held.result()
    for future in waiting:
        with pytest.raises(WorkspaceError, match="start the studio again"):
            future.result()
    with pytest.raises(WorkspaceError, match="start the studio again"):
        db.insert("people", [person("later")])
    assert names(db) == set()


def test_gathered_inserts_count_what_each_caller_added(db: Database) -> None:
    held, go = hold(db)
    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(db.insert, "people", [person("same"), person(f"own {i}")]) for i in range(8)]
        while db._writer._queue.qsize() < 8 and not any(future.done() for future in counts):
            time.sleep(0.001)
        go.set()
        total = sum(future.result() for future in counts)
    assert held.result()
    assert total == 9 == db.value("select count(*) from people")


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("people", {**person("x"), "no_such_column": 1}),
        ("no_such_table", person("x")),
        ("people; drop table people", person("x")),
        ("people", {**person("x"), "created_at": datetime(2026, 1, 1)}),
        ("judgments", {"judgment_id": "x", "p": float("nan")}),
    ],
)
def test_what_cannot_be_stored_faithfully_is_refused(db: Database, table: str, row: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        db.insert(table, [row])
    assert db.value("select count(*) from people") == 0


def test_text_that_is_no_unicode_is_bad_input(db: Database) -> None:
    with pytest.raises(BadInput, match="UTF-8"):
        db.insert("people", [person("x", "half \ud800")])


@pytest.mark.parametrize(
    "sql", ["delete from people", "insert into people values (1)", "  UPDATE people set name = 'x'", "drop table people", ""]
)
def test_reads_only_read(db: Database, sql: str) -> None:
    with pytest.raises(ValueError, match="reads only"):
        db.rows(sql)


def test_sql_reaches_no_file_outside_its_folders(db: Database, tmp_path: Path) -> None:
    inside, outside = db.settings.import_dir / "x.csv", tmp_path / "x.csv"
    for file in (inside, outside):
        file.write_text("a\n1\n")
    assert db.rows("select * from read_csv(?)", [str(inside)]) == [{"a": 1}]
    for hostile in (str(outside), "/etc/passwd", str(inside.parent / ".." / ".." / "x.csv")):
        with pytest.raises(Exception, match="Permission Error"):
            db.rows("select * from read_csv(?)", [hostile])


def test_fifty_threads_write_and_none_is_lost_or_doubled(settings: Settings) -> None:
    """Each thread sends every row twice (an outbox that replays) while readers look on."""
    db = Database(settings)
    acknowledged: list[str] = []
    wrong: list[object] = []
    done = threading.Event()

    def produce(worker: int) -> None:
        for i in range(20):
            rows = [person(f"{worker}-{i}")]
            db.insert("people", rows)
            acknowledged.append(f"{worker}-{i}")
            if db.insert("people", rows):
                wrong.append(rows)

    def look() -> None:
        while not done.is_set():
            n = len(acknowledged)
            if db.value("select count(*) from people") < n:
                wrong.append(n)
            time.sleep(0.005)

    with ThreadPoolExecutor(54) as pool:
        readers = [pool.submit(look) for _ in range(4)]
        try:
            list(pool.map(produce, range(50)))
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert not wrong
    assert len(acknowledged) == 1000
    assert names(db) == set(acknowledged)
    db.close()
    assert rebuild(settings).damaged == ()
    again = Database(settings)
    assert names(again) == set(acknowledged)
    assert again.value("select count(*) from people") == 1000
    again.close()


def test_callbacks_hear_of_new_rows_before_the_caller(db: Database) -> None:
    heard: list[Change] = []

    def listen(changes: Any) -> None:
        heard.extend(changes)

    def broken(changes: Any) -> None:
        raise RuntimeError("a broken listener harms nobody")

    db.on_commit(broken)
    db.on_commit(listen)
    db.insert("people", [person("a")])
    assert [(c.op, c.table, c.rows[0]["annotator_id"]) for c in heard] == [("insert", "people", "a")]
    db.insert("people", [person("a")])
    assert len(heard) == 1, "nothing new, nothing told"


def test_writing_from_a_callback_is_an_error_not_a_deadlock(db: Database) -> None:
    said: list[str] = []

    def write(changes: Any) -> None:
        try:
            db.insert("people", [person("from the callback")])
        except RuntimeError as error:
            said.append(str(error))

    db.on_commit(write)
    db.insert("people", [person("a")])
    assert said
    assert names(db) == {"a"}


def test_a_closed_database_says_so(settings: Settings) -> None:
    db = Database(settings)
    db.close()
    for use in (lambda: db.insert("people", [person("x")]), lambda: db.rows("select 1")):
        with pytest.raises(WorkspaceError, match="closed"):
            use()


def test_the_log_is_folded_into_the_file_as_it_grows(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.commit.CHECKPOINT_BYTES", 100_000)
    db = Database(settings)
    for i in range(30):
        db.insert("people", [person(f"{i}-{j}", "x" * 1000) for j in range(20)])
    wal = settings.db_path.with_name("studio.duckdb.wal")
    assert not wal.exists() or wal.stat().st_size < 200_000
    db.close()


CHILD = """
import sys, threading, uuid
from datetime import UTC, datetime
from pathlib import Path
from data.database import Database
from data.settings import Settings

db = Database(Settings(home=Path(sys.argv[1])))
lock = threading.Lock()
print("open", flush=True)

def produce():
    while True:
        row = dict(annotator_id=str(uuid.uuid4()), name="x" * 300, kind="local", project_id="", created_at=datetime.now(UTC))
        db.insert("people", [row])
        with lock:
            sys.stdout.write(row["annotator_id"] + "\\n")
            sys.stdout.flush()
        db.insert("people", [row])

threads = [threading.Thread(target=produce) for _ in range(8)]
[t.start() for t in threads]
"""


def killed_round(home: Path, seconds: float) -> list[str]:
    """Let a child write for a while, `kill -9` it, and return the ids that it was told are safe."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    threading.Timer(seconds, child.kill).start()
    lines = child.stdout.read().split("\n")
    child.wait()
    return [line for line in lines[:-1] if len(line) == 36]


def check_rounds(settings: Settings, rounds: int, pause: Callable[[int], float]) -> None:
    acknowledged: list[str] = []
    for i in range(rounds):
        acknowledged += killed_round(settings.home, pause(i))
        db = Database(settings)
        stored = [row["annotator_id"] for row in db.rows("select annotator_id from people")]
        journaled = [
            row["annotator_id"] for g in read(settings.journal_dir) for c in g.changes or () if c.op == "insert" for row in c.rows
        ]
        assert set(acknowledged) <= set(stored)
        assert len(stored) == len(set(stored))
        assert sorted(stored) == sorted(journaled)
        assert db.insert("people", [person(str(uuid.uuid4()))]) == 1
        db.close()
    assert len(acknowledged) > 20 * rounds


def test_kill_9_loses_nothing_that_was_acknowledged(settings: Settings) -> None:
    check_rounds(settings, 2, lambda i: 0.6)


@pytest.mark.slow
def test_kill_9_twenty_times(settings: Settings) -> None:
    check_rounds(settings, 20, lambda i: 0.2 + 0.1 * (i % 10))
