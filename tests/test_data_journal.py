"""The journal is a second copy of everything: the database made from it is the same, whatever tore, broke or went missing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data import projects, replay
from data.database import Database, rebuild
from data.journal import Change, Journal, read, segments
from data.settings import Settings

pytestmark = pytest.mark.long

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def person(annotator_id: str, name: str = "n") -> dict[str, object]:
    return {"annotator_id": annotator_id, "name": name, "kind": "local", "project_id": "", "created_at": WHEN}


def everything(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, from the closed file, `journal_position` and `schema_migrations` included."""
    con = duckdb.connect(str(settings.db_path), read_only=True)
    tables = [name for (name,) in con.execute("select table_name from duckdb_tables() order by 1").fetchall()]
    rows = {table: sorted(con.execute(f"select * from {table}").fetchall(), key=repr) for table in tables}
    con.close()
    return rows


def some_history(db: Database) -> None:
    projects.create(db, "kept")
    gone = projects.create(db, "gone", owner="visitor")
    db.insert("people", [person(str(i), f"name {i} 😀") for i in range(50)])
    db.update("people", {"annotator_id": "7"}, name="renamed", project_id="p")
    db.write(lambda cursor: (cursor.insert("people", [person("in")]), cursor.delete("people", {"annotator_id": "in"})))
    projects.destroy(db, gone.project_id)
    judgment = {
        "judgment_id": "j", "run_id": "r", "project_id": "p", "prompt_id": "q", "sample_index": 0, "model_a": "a", "model_b": "b",
        "completion_a": "x", "completion_b": "y", "judge": "judge", "p_ab": 0.1, "p_ba": 1 / 3, "p": None, "verdict": "",
        "flipped": None, "unscored": "", "raw": {"text": "ü"}, "rule_a": True, "rule_b": None, "created_at": WHEN,
    }  # fmt: skip
    db.insert("judgments", [judgment])


def test_a_database_rebuilt_from_the_journal_is_the_same(settings: Settings) -> None:
    db = Database(settings)
    some_history(db)
    db.close()
    before = everything(settings)
    assert len(before["people"]) == 50
    assert rebuild(settings).damaged == ()
    assert everything(settings) == before
    assert (settings.home / "before-recovery" / "studio.duckdb").exists(), "the old file is kept"


@hypothesis_settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["insert", "update", "delete"]), st.integers(0, 5), st.text(max_size=20)), min_size=1, max_size=15
    )
)
def test_any_history_replays_to_the_same_rows(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]) -> None:
    settings = Settings(home=tmp_path_factory.mktemp("history") / "w")
    db = Database(settings)
    for op, who, name in steps:
        if op == "insert":
            db.insert("people", [person(str(who), name)])
        elif op == "update":
            db.update("people", {"annotator_id": str(who)}, name=name)
        else:
            db.write(lambda cursor, who=who: cursor.delete("people", {"annotator_id": str(who)}))
    db.close()
    before = everything(settings)
    rebuild(settings)
    assert everything(settings) == before


TORN = {
    "half a line": b'{"insert":"people","colu',
    "no commit": b'{"insert":"people","columns":["a"],"rows":[]}\n',
    "half a commit": b'{"commit": 99',
    "zeros": b"\x00" * 100,
}


@pytest.mark.parametrize("tail", TORN.values(), ids=TORN.keys())
def test_a_torn_last_line_is_cut(settings: Settings, tail: bytes) -> None:
    db = Database(settings)
    some_history(db)
    db.close()
    before = everything(settings)
    segment = segments(settings.journal_dir)[-1]
    whole = segment.read_bytes()
    segment.write_bytes(whole + tail)
    assert rebuild(settings).damaged == ()
    assert everything(settings) == before
    assert segment.read_bytes() == whole
    db = Database(settings)
    assert db.insert("people", [person("after")]) == 1
    db.close()
    rebuild(settings)
    assert len(everything(settings)["people"]) == 51


def test_a_group_that_the_database_did_not_get_is_taken_in_at_the_start(settings: Settings) -> None:
    """What a crash between the journal's fsync and the database's commit leaves behind."""
    db = Database(settings)
    db.insert("people", [person("a")])
    number = db.journal.last
    db.close()
    journal = Journal(settings.journal_dir)
    journal.open()
    row = {**person("late"), "created_at": WHEN.isoformat()}
    journal.append([Change("insert", "people", (row,))], number + 1)
    journal.append([Change("update", "people", key={"annotator_id": "a"}, fields={"name": "b"})], number + 2)
    journal.close()
    db = Database(settings)
    assert db.rows("select annotator_id, name from people order by 1") == [
        {"annotator_id": "a", "name": "b"},
        {"annotator_id": "late", "name": "n"},
    ]
    assert db.notices == []
    db.close()


def test_an_old_copy_of_the_database_catches_up(settings: Settings) -> None:
    db = Database(settings)
    db.insert("people", [person("a")])
    db.close()
    old = settings.db_path.read_bytes()
    db = Database(settings)
    some_history(db)
    db.close()
    before = everything(settings)
    settings.db_path.write_bytes(old)
    Database(settings).close()
    assert everything(settings) == before


def test_a_missing_database_comes_back(settings: Settings) -> None:
    db = Database(settings)
    some_history(db)
    db.close()
    before = everything(settings)
    settings.db_path.unlink()
    db = Database(settings)
    assert "rebuilt from the journal" in db.notices[0]
    db.close()
    assert everything(settings) == before


def test_a_missing_journal_is_begun_again_from_a_full_copy(settings: Settings) -> None:
    db = Database(settings)
    some_history(db)
    db.close()
    for segment in segments(settings.journal_dir):
        segment.unlink()
    db = Database(settings)
    assert "full copy" in db.notices[0]
    db.insert("people", [person("after")])
    db.update("people", {"annotator_id": "1"}, name="after too")
    db.close()
    before = everything(settings)
    rebuild(settings)
    assert everything(settings) == before
    db = Database(settings)
    assert db.notices == []
    db.close()


def test_segments_are_closed_when_they_are_full(settings: Settings) -> None:
    db = Database(settings)
    db.journal.segment_bytes = 1000
    for i in range(20):
        db.insert("people", [person(str(i), "x" * 100)])
    db.close()
    files = segments(settings.journal_dir)
    assert len(files) > 3
    assert [f.name for f in files[:3]] == ["0001.jsonl", "0002.jsonl", "0003.jsonl"]
    before = everything(settings)
    rebuild(settings)
    assert everything(settings) == before


def test_a_damaged_line_costs_that_commit_alone_and_is_reported(settings: Settings) -> None:
    db = Database(settings)
    for name in ("first", "damaged", "last"):
        db.insert("people", [person(name)])
    db.close()
    segment = segments(settings.journal_dir)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"damaged"', b'"dXmaged"'))
    settings.db_path.unlink()
    db = Database(settings)
    assert {row["annotator_id"] for row in db.rows("select annotator_id from people")} == {"first", "last"}
    assert "1 journal entries could not be read (0001.jsonl line" in db.notices[0]
    db.close()


def test_every_line_is_json_and_every_group_is_closed(settings: Settings) -> None:
    db = Database(settings)
    some_history(db)
    db.close()
    lines = [json.loads(line) for line in segments(settings.journal_dir)[0].read_text().splitlines()]
    assert "schema" in lines[0]
    numbers = [line["commit"] for line in lines if "commit" in line]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "commit" in lines[-1]


def test_what_was_deleted_can_be_forgotten(settings: Settings) -> None:
    db = Database(settings)
    some_history(db)
    gone = projects.create(db, "a secret of a visitor", owner="v1")
    projects.destroy(db, gone.project_id)
    db.forget_deleted()
    db.insert("people", [person("after")])
    db.close()
    assert [f.name for f in segments(settings.journal_dir)] == ["0002.jsonl"]
    for file in settings.home.rglob("*"):
        assert not file.is_file() or file.suffix == ".duckdb" or b"secret of a visitor" not in file.read_bytes(), file
    ops = [change.op for group in read(settings.journal_dir) for change in group.changes or ()]
    assert ops[0] == "schema"
    assert set(ops[1:]) == {"insert"}
    before = everything(settings)
    rebuild(settings)
    assert everything(settings) == before
    db = Database(settings)
    assert db.notices == []
    db.close()


def test_a_damaged_baseline_drops_nothing(settings: Settings) -> None:
    db = Database(settings)
    some_history(db)
    db.close()
    journal = Journal(settings.journal_dir)
    journal.open()
    con = duckdb.connect(str(settings.db_path))
    journal.replace_all(replay.dump(con, replay.read_catalog(con)), journal.last)
    con.close()
    journal.current.write_bytes(journal.current.read_bytes().replace(b"name 1", b"nXme 1"))
    journal.drop_before_baseline()
    journal.close()
    assert len(segments(settings.journal_dir)) == 2


def test_undo_takes_back_the_last_group(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    journal.append([Change("delete", "people", key={"annotator_id": "a"})], 1)
    journal.append([Change("delete", "people", key={"annotator_id": "b"})], 2)
    journal.undo()
    assert journal.last == 1
    journal.append([Change("delete", "people", key={"annotator_id": "c"})], 2)
    journal.close()
    assert [(g.number, g.changes[0].key["annotator_id"]) for g in read(tmp_path) if g.changes] == [(1, "a"), (2, "c")]
