"""Schema migrations: from nothing and from a saved file with rows; each whole or not at all; a newer workspace is refused.

`files/schema_001.duckdb.gz` is what the first release writes. Never make it again once that release is out; until then:
`python tests/test_data_migrations.py`.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import completions, impressions, labels, migrations, people, projects, prompts
from data.database import Database, rebuild
from data.engine import Message
from data.errors import WorkspaceError
from data.records import Impression, LabelEvent, now
from data.settings import Settings

SAVED = Path(__file__).resolve().parent / "files" / "schema_001.duckdb.gz"
EVENT = "0b5f2a52-7d61-4a8e-9d0a-111111111111"
SECOND = """
-- adds a column with a value for old rows, and rewrites old values
alter table prompts add column language text default 'en';
update projects set guidelines = 'none' where guidelines = '';
create table notes (note_id text primary key, text text not null);
"""


def make_saved_file() -> None:
    """A project with one prompt, three completions, a label that was revised and a person."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "w")
        db = Database(settings)
        project = projects.create(db, "Saved")
        people.ensure(db, "local", "You", "local")
        prompt = prompts.new(project.project_id, [Message("user", "What is 2+2? 😀")], follow_up=["And 3+3?"])
        prompts.add(db, [prompt])
        made = [completions.new(prompt, text, "generated", "demo", sample_index=i) for i, text in enumerate(["4", "5", "four"])]
        completions.add(db, made)
        pair = completions.pairs_of(db, project.project_id)[0]
        sides = (pair.pair_id, pair.completion_a, pair.completion_b)
        policy = ("pairwise", "normal", "rank", 0.5)
        shown = Impression("shown", project.project_id, "local", prompt.prompt_id, *sides, *policy, now(), now())
        impressions.add(db, [shown])
        labels.append(db, [LabelEvent(EVENT, "shown", project.project_id, "local", "cast", "a")])
        labels.append(db, [LabelEvent(EVENT[:-1] + "2", "shown", project.project_id, "local", "revised", "b")])
        db.close()
        SAVED.parent.mkdir(exist_ok=True)
        SAVED.write_bytes(gzip.compress(settings.db_path.read_bytes(), 9, mtime=0))


@pytest.fixture
def saved(settings: Settings) -> Settings:
    settings.home.mkdir(parents=True)
    settings.db_path.write_bytes(gzip.decompress(SAVED.read_bytes()))
    return settings


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """The released migrations and a made-up next one."""
    folder = tmp_path / "schema"
    shutil.copytree(migrations.SCHEMA_DIR, folder)
    (folder / "900_next.sql").write_text(SECOND)
    return folder


def versions(db: Database) -> list[int]:
    return [row["version"] for row in db.rows("select version from schema_migrations order by version")]


def test_an_empty_folder_gets_every_table(settings: Settings) -> None:
    db = Database(settings)
    known = migrations.known()
    rows = db.rows("select version, name, sha256 from schema_migrations order by version")
    assert rows == [{"version": m.version, "name": m.name, "sha256": m.sha256} for m in known]
    tables = {row["table_name"] for row in db.rows("select table_name from duckdb_tables()")}
    assert {"projects", "prompts", "completions", "pairs", "impressions", "label_events", "models", "runs", "judgments"} <= tables
    assert db.rows("select index_name from duckdb_indexes()") == [], "no secondary indexes"
    db.close()


def test_a_saved_workspace_opens_with_all_its_rows(saved: Settings) -> None:
    db = Database(saved)
    assert versions(db) == [m.version for m in migrations.known()]
    (project,) = projects.visible(db)
    (prompt,) = prompts.of_project(db, project.project_id)
    assert prompt.messages == (Message("user", "What is 2+2? 😀"),)
    assert prompt.follow_up == ("And 3+3?",)
    assert projects.counts(db, project.project_id)[:6] == (1, projects.counts(db, project.project_id).held_out, 3, 3, 1, 1)
    (label,) = labels.current(db, project.project_id)
    assert (label.preference, label.event) == ("b", "revised")
    assert [event.preference for event in labels.history(db, "shown")] == ["a", "b"]
    db.close()


def test_a_migration_changes_old_rows_and_keeps_them(saved: Settings, schema: Path) -> None:
    Database(saved).close()
    db = Database(saved, schema)
    assert versions(db)[-1] == 900
    assert db.row("select language from prompts") == {"language": "en"}
    assert db.value("select guidelines from projects") == "none"
    assert db.insert("notes", [{"note_id": "n", "text": "new table"}]) == 1
    assert db.value("select count(*) from current_labels") == 1
    db.close()
    db = Database(saved, schema)
    assert db.notices == []
    db.close()


def test_a_migrated_workspace_is_rebuilt_through_its_migrations(saved: Settings, schema: Path) -> None:
    """Rows of before are replayed into the tables of before, then the migration changes them as it did then."""
    Database(saved).close()
    db = Database(saved, schema)
    before = [db.rows(f"select * from {table}") for table in ("projects", "prompts", "schema_migrations")]
    db.close()
    rebuild(saved, schema)
    db = Database(saved, schema)
    assert [db.rows(f"select * from {table}") for table in ("projects", "prompts", "schema_migrations")] == before
    db.close()


def test_a_migration_that_fails_changes_nothing(saved: Settings, schema: Path) -> None:
    (schema / "900_next.sql").write_text(SECOND + "select no_such_function();")
    Database(saved).close()
    with pytest.raises(WorkspaceError, match=r"could not be brought to 900_next\.sql .* it is as it was"):
        Database(saved, schema)
    db = Database(saved)
    assert versions(db) == [m.version for m in migrations.known()]
    assert "language" not in (db.row("select * from prompts") or {})
    assert db.value("select guidelines from projects") == ""
    db.close()


def test_a_workspace_of_a_newer_studio_is_refused_and_left_alone(saved: Settings, schema: Path) -> None:
    Database(saved, schema).close()
    before = saved.db_path.read_bytes()
    with pytest.raises(WorkspaceError, match=r"written by a newer Alignment Studio \(schema 900, this one knows \d+\); update"):
        Database(saved)
    assert saved.db_path.read_bytes() == before
    saved.db_path.unlink()
    with pytest.raises(WorkspaceError, match="newer Alignment Studio"):
        Database(saved)


def test_a_released_migration_that_was_edited_is_refused(saved: Settings, schema: Path) -> None:
    Database(saved, schema).close()
    (schema / "900_next.sql").write_text(SECOND + "-- edited")
    with pytest.raises(WorkspaceError, match=r"another edition of the studio \(900_next\.sql differs\)"):
        Database(saved, schema)


if __name__ == "__main__":
    make_saved_file()
