"""Delete my data: nothing a person wrote of themselves is left in any file, their labels all are, whatever dies when."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from labelling import seed_project

from data import accounts, exporters, forget, invitations, labels
from data.copies import Copier
from data.copies_place import FolderPlace
from data.database import Database, rebuild
from data.errors import BadInput, NotFound, WorkspaceError
from data.pseudonyms import Pseudonyms
from data.records import Account, Adjudication, Gold, LabelEvent, Project, Role, now, to_row
from data.settings import Settings
from labeling.assignment import Assignment

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery"
SECRETS = ("zebra-note", "zebra-reason", "zebra-login", "zebra-gold", "zebra-excluded")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=512, parallelism=1))


def join(db: Database, login: str, role: Role, project_id: str = "") -> Account:
    return invitations.accept(db, invitations.make(db, role, project_id, ""), login, PASSWORD)


def label(db: Database, project: Project, annotator_id: str, note: str, n: int = 3) -> None:
    for shown in Assignment(db).serve(annotator_id, project.project_id, n):
        one = shown.impression
        event = LabelEvent(str(uuid.uuid4()), one.impression_id, project.project_id, annotator_id, "cast", "a", note=note)
        labels.append(db, [event])


class Told:
    """A workspace in which `zoe` has written what is to go, and `ann` what is to stay."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        db = Database(settings)
        self.project = seed_project(db)
        join(db, "ada", "admin")
        self.zoe = join(db, "zebra-login", "annotator", self.project.project_id)
        self.ann = join(db, "ann", "annotator", self.project.project_id)
        label(db, self.project, self.zoe.annotator_id, "zebra-note")
        label(db, self.project, self.ann.annotator_id, "quagga-note")
        accounts.set_role(db, self.zoe.annotator_id, "researcher")
        who, item = self.zoe.annotator_id, "item"
        db.insert("gold", [to_row(Gold("g1", self.project.project_id, item, "first", "entered", who, "zebra-gold", now()))])
        row = Adjudication("a1", self.project.project_id, item, "first", "zebra-reason", who, now())
        db.insert("adjudications", [to_row(row)])
        self.name = Pseudonyms(db, self.project.project_id).of(who)
        self.key = str(db.value("select pseudonym_key from people where annotator_id = ?", [who]))
        self.said = self.labels(db)
        db.close()
        db = Database(settings)  # so that what is to go lies in the file's blocks, not only in its log
        excluded = {"event": "excluded", "preference": "", "note": "zebra-excluded", "actor": who, "event_id": str(uuid.uuid4())}
        first = db.rows("select * from label_events where annotator_id = ? order by seq", [self.ann.annotator_id])[0]
        db.insert("label_events", [{**first, **excluded, "seq": first["seq"] + 100}])
        db.close()
        (settings.home / "before-recovery").mkdir()
        (settings.home / "before-recovery" / "studio.duckdb").write_bytes(settings.db_path.read_bytes())

    def labels(self, db: Database) -> list[dict[str, Any]]:
        columns = "event_id, impression_id, annotator_id, preference, seq"
        return db.rows(f"select {columns} from label_events where event = 'cast' order by seq")

    def left(self) -> dict[str, list[str]]:
        """What of it is in any file of the workspace."""
        found: dict[str, list[str]] = {}
        for file in self.settings.home.rglob("*"):
            if file.is_file():
                body = file.read_bytes()
                there = [word for word in (*SECRETS, self.key, self.zoe.password_hash) if word.encode() in body]
                if there:
                    found[file.name] = there
        return found


@pytest.fixture
def told(settings: Settings) -> Told:
    return Told(settings)


@pytest.fixture
def db(told: Told) -> Iterator[Database]:
    database = Database(told.settings)
    yield database
    database.close()


def test_nothing_is_left_in_any_file_and_every_label_is(told: Told, db: Database) -> None:
    assert set(told.left()) >= {"studio.duckdb", "0001.jsonl"}
    forget.person(db, told.zoe.annotator_id)
    assert told.left() == {}  # while the app goes on
    assert told.labels(db) == told.said
    assert accounts.check(db, "zebra-login", PASSWORD) is None
    assert {row["note"] for row in db.rows("select note from label_events")} == {"", "quagga-note"}
    assert not db.row("select * from members where annotator_id = ?", [told.zoe.annotator_id])
    db.close()
    assert told.left() == {}
    assert not [f.name for f in told.settings.home.iterdir() if f.name.startswith(("forget", "before-recovery"))]


def test_the_app_goes_on_and_a_rebuild_brings_nothing_back(told: Told, db: Database) -> None:
    forget.person(db, told.zoe.annotator_id)
    label(db, told.project, told.ann.annotator_id, "written afterwards", n=1)
    after = told.labels(db)
    assert len(after) == len(told.said) + 1
    db.close()
    rebuild(told.settings)
    again = Database(told.settings)
    assert told.labels(again) == after
    assert again.notices == []
    again.close()
    assert told.left() == {}


def test_a_pseudonym_cannot_be_made_again(told: Told, db: Database) -> None:
    kept = Pseudonyms(db, told.project.project_id).of(told.ann.annotator_id)
    forget.person(db, told.zoe.annotator_id)
    done = exporters.export(db, told.settings, told.project.project_id, "labels")
    text = done.path.read_text()
    assert told.name not in text
    assert kept in text
    assert "zebra" not in text


def test_the_only_admin_and_nobody_cannot_be_forgotten(told: Told, db: Database) -> None:
    ada = accounts.by_login(db, "ada")
    assert ada is not None
    with pytest.raises(BadInput, match="only admin"):
        forget.person(db, ada.annotator_id)
    with pytest.raises(NotFound):
        forget.person(db, "person-x")
    with pytest.raises(NotFound):
        forget.person(db, "local")
    assert accounts.check(db, "ada", PASSWORD)


def test_a_list_that_cannot_be_read_is_said_in_words(told: Told, db: Database) -> None:
    (told.settings.home / "forget.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"forget\.json"):
        forget.finish(db)


def killed_at(told: Told, step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/forget_child.py", str(told.settings.home), told.zoe.annotator_id, str(step)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_copies_of_the_journal_follow(told: Told, db: Database, tmp_path: Path) -> None:
    """On a Space they are what outlives the machine."""
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(told.settings, db, place)

    def there() -> bytes:
        return b"".join(place.get(name) for name in place.sizes())

    assert copier.copy()
    assert b"zebra-note" in there()
    forget.person(db, told.zoe.annotator_id)
    assert copier.copy()
    assert b"zebra" not in there()
    assert b"quagga-note" in there()


@pytest.mark.slow(reason="a dozen processes, each killed at another step")
def test_killed_between_any_two_steps_it_is_done_at_the_next_start(tmp_path: Path) -> None:
    """Every trace it leaves on the disk is a step; the child dies before each of them in turn."""
    step, finished = 0, False
    while not finished:
        step += 1
        told = Told(Settings(tmp_path / f"workspace-{step}"))
        done = killed_at(told, step)
        finished = done.returncode == 0
        assert finished or done.returncode == -9, done.stderr
        db = Database(told.settings)
        try:
            assert told.labels(db) == told.said, step
            begun = (told.settings.home / "forget.json").exists()
            forget.finish(db)
            if begun or finished:
                assert told.left() == {}, step
                assert accounts.by_login(db, "zebra-login") is None
            else:  # it died before anything was promised
                assert accounts.check(db, "zebra-login", PASSWORD), step
            assert told.labels(db) == told.said, step
        finally:
            db.close()
        rebuild(told.settings)
        again = Database(told.settings)
        assert told.labels(again) == told.said, step
        again.close()
    assert step > 8
