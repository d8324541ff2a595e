"""Copies of the journal outside the machine: what was acknowledged and copied comes back on an empty disk, whatever died when."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from copying import recovered
from hypothesis import given
from hypothesis import strategies as st
from labelling import seed_project

from data import completions, copies, copies_pieces, impressions, labels, projects
from data.copies import Copier, recover
from data.copies_pieces import Piece, chain, cut, pieces
from data.copies_place import FolderPlace
from data.database import Database
from data.records import Impression, LabelEvent, now
from data.settings import Settings

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("projects", "prompts", "completions", "pairs", "impressions", "label_events")


def everything(db: Database) -> dict[str, list[dict[str, object]]]:
    return {table: db.rows(f"select * from {table} order by all") for table in TABLES}


def label(db: Database, project_id: str, n: int) -> None:
    for pair in completions.pairs_of(db, project_id, n):
        sides = (pair.prompt_id, pair.pair_id, pair.completion_a, pair.completion_b)
        shown = Impression(uuid.uuid4().hex, project_id, "local", *sides, "pairwise", "normal", "random", 1.0, now(), now())
        impressions.add(db, [shown])
        labels.append(db, [LabelEvent(str(uuid.uuid4()), shown.impression_id, project_id, "local", "cast", "a")])


def test_a_new_machine_gets_every_row_back(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    project = seed_project(db)
    assert copier.copy()
    label(db, project.project_id, 5)
    copier.close()
    assert copier.status.last_at
    assert not copier.status.problem
    again = recovered(tmp_path / "new", place)
    assert everything(again) == everything(db)
    assert Copier(again.settings, again, place).copy(), "and goes on in the same place"
    again.close()


def test_pieces_are_closed_files_and_only_what_is_new_is_copied(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    copier.copy()
    before = place.sizes()
    copier.copy()
    assert place.sizes() == before, "nothing new, nothing written"
    seed_project(db)
    copier.copy()
    added = place.sizes().keys() - before.keys()
    assert len(added) == 1
    assert before.items() <= place.sizes().items()


def test_many_small_pieces_become_one(db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "PIECES_TO_MERGE", 4)
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    for i in range(12):
        projects.create(db, f"Project {i}")
        assert copier.copy()
        assert len(place.sizes()) <= 5
    again = recovered(tmp_path / "new", place)
    assert len(projects.visible(again)) == 12
    again.close()


def test_a_piece_that_was_cut_off_is_not_believed(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    projects.create(db, "First")
    copier.copy()
    whole = set(place.sizes())
    projects.create(db, "Second")
    copier.copy()
    (torn,) = set(place.sizes()) - whole
    file = place.folder / torn
    file.write_bytes(file.read_bytes()[:-7])
    again = recovered(tmp_path / "new", place)
    assert [p.name for p in projects.visible(again)] == ["First"]
    again.close()
    assert Copier(settings, db, place).copy(), "and the next start copies it again"
    last = recovered(tmp_path / "newest", place)
    assert [p.name for p in projects.visible(last)] == ["First", "Second"]
    last.close()


def test_what_the_journal_forgets_the_copies_forget(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    mine = projects.create(db, "Kept")
    theirs = projects.create(db, "Secret of a visitor", owner="v")
    copier.copy()
    projects.destroy(db, theirs.project_id)
    db.forget_deleted()
    copier.copy()
    assert not any("Secret of a visitor" in place.get(name).decode() for name in place.sizes())
    again = recovered(tmp_path / "new", place)
    assert [p.project_id for p in projects.visible(again)] == [mine.project_id]
    again.close()


def test_a_cut_off_piece_is_forgotten_too(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    theirs = projects.create(db, "Secret of a visitor", owner="v")
    copier.copy()
    (name,) = place.sizes()
    torn = name.replace(name[-18:-6], f"{int(name[-18:-6]) + 500:012d}")
    place.put({torn: place.get(name)})
    copier = Copier(settings, db, place)
    copier.copy()
    assert torn not in place.sizes(), "tidied away at the next start"
    place.put({torn: place.get(name)})
    copier = Copier(settings, db, place)
    projects.destroy(db, theirs.project_id)
    db.forget_deleted()
    copier.copy()
    assert not any("Secret of a visitor" in place.get(name).decode() for name in place.sizes())


def test_two_studios_on_one_place_never_mix_their_journals(db: Database, settings: Settings, tmp_path: Path) -> None:
    """A new machine starts while the old one still serves: the new one goes on, the old one says that it no longer copies."""
    place = FolderPlace(tmp_path / "bucket")
    old = Copier(settings, db, place)
    projects.create(db, "Before")
    old.copy()
    newer = recovered(tmp_path / "new", place)
    taking_over = Copier(newer.settings, newer, place)
    assert taking_over.copy()
    for i in range(3):
        projects.create(db, f"Old {i}")
        projects.create(newer, f"New {i}")
        assert not old.copy()
        assert "taken" in old.status.problem
        assert taking_over.copy(), taking_over.status.problem
    old.close()
    last = recovered(tmp_path / "last", place)
    assert [p.name for p in projects.visible(last)] == ["Before", "New 0", "New 1", "New 2"]
    last.close()
    newer.close()


def test_where_a_piece_is_missing_the_later_ones_come_back_all_the_same(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    copier.copy()
    for i in range(4):
        before = set(place.sizes())
        projects.create(db, f"Project {i}")
        copier.copy()
        if i == 1:
            (lost,) = set(place.sizes()) - before
    place.remove([lost])
    new = Settings(home=tmp_path / "new")
    assert recover(new, place).has_gap
    again = Database(new)
    assert [p.name for p in projects.visible(again)] == ["Project 0", "Project 2", "Project 3"]
    again.forget_deleted()
    assert Copier(new, again, place).copy()
    again.close()
    assert not recover(Settings(home=tmp_path / "newest"), place).has_gap


def test_a_restored_backup_takes_the_old_copies_place(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    projects.create(db, "Before")
    archive = db.backup(tmp_path / "backup.zip")
    for i in range(5):
        projects.create(db, f"After {i}")
    copier.copy()
    db.restore(archive)
    assert copier.copy()
    again = recovered(tmp_path / "new", place)
    assert [p.name for p in projects.visible(again)] == ["Before"]
    again.close()


def test_another_workspaces_copies_are_never_overwritten(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    Copier(settings, db, place).copy()
    before = {name: place.get(name) for name in place.sizes()}
    other = Database(Settings(home=tmp_path / "other"))
    projects.create(other, "Other")
    copier = Copier(other.settings, other, place)
    assert not copier.copy()
    assert "another workspace" in copier.status.problem
    assert {name: place.get(name) for name in place.sizes()} == before
    other.close()


def test_a_workspace_that_has_something_is_left_alone(db: Database, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    Copier(settings, db, place).copy()
    assert recover(settings, place).bytes == 0
    assert recover(Settings(home=tmp_path / "fresh"), FolderPlace(tmp_path / "empty")).bytes == 0


def test_a_place_that_cannot_be_written_is_said_and_costs_no_label(db: Database, settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    copier = Copier(settings, db, FolderPlace(blocked / "bucket"))
    project = seed_project(db)
    assert not copier.copy()
    assert copier.status.problem
    assert copier.status.last_at is None
    label(db, project.project_id, 2)
    blocked.unlink()
    assert copier.copy()
    assert not copier.status.problem


def test_no_fault_whatever_ends_the_copying(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copier = Copier(settings, db, place := FolderPlace(tmp_path / "bucket"))
    with monkeypatch.context() as patch:
        patch.setattr(place, "sizes", lambda: (_ for _ in ()).throw(ValueError("unforeseen")))
        assert not copier.copy()
    assert "ValueError" in copier.status.problem
    assert copier.copy()
    assert not copier.status.problem


CHILD = """
import sys, time, uuid
from pathlib import Path
from data.copies import Copier
from data.copies_place import FolderPlace
from data.database import Database
from data.settings import Settings
from data import projects
home, bucket = sys.argv[1:]
settings = Settings(home=Path(home))
db = Database(settings)
place = FolderPlace(Path(bucket)); place.every_s = 0.01
copier = Copier(settings, db, place)
copier.start()

def wait_for_a_copy():
    before = copier.status.last_at
    while copier.status.last_at == before:
        if copier.status.problem:
            sys.exit(copier.status.problem)
        time.sleep(0.001)

while True:
    name = uuid.uuid4().hex
    projects.create(db, name)
    wait_for_a_copy()
    wait_for_a_copy()
    print(name, flush=True)
"""


@pytest.mark.parametrize("seconds", [0.1, 0.35])
def test_what_was_copied_survives_kill_9_and_the_loss_of_the_disk(tmp_path: Path, seconds: float) -> None:
    """A name is printed after a copy that was taken later than its commit... twice over, so that one began after it."""
    home, bucket, log = tmp_path / "home", tmp_path / "bucket", tmp_path / "log"
    with log.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(home), str(bucket)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert child.stdout is not None
    printed = [child.stdout.readline().strip()]
    assert printed[0], log.read_text()
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    printed += child.stdout.read().split()
    child.wait()
    shutil.rmtree(home)
    again = recovered(home, FolderPlace(bucket))
    assert {*printed[:-1]} <= {p.name for p in projects.visible(again)}
    again.close()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_the_chain_covers_what_whole_pieces_cover(lengths: list[int], data: st.DataObject) -> None:
    """Merged pieces beside their parts, lost pieces: the chain is gapless from 0, and as long as whole pieces allow."""
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    parts = [Piece(1, end - n, end) for n, end in zip(lengths, ends, strict=True)]
    merged = [Piece(1, 0, data.draw(st.sampled_from(ends)))]
    lost = data.draw(st.sets(st.sampled_from(parts)))
    there = [p for p in parts if p not in lost] + merged
    at = 0
    for piece in chain(there, over_gaps=False):
        assert piece.start == at
        at = piece.end
    assert at >= merged[0].end
    assert not [p for p in parts if p not in lost and p.start == at], "it could have gone on"
    over = chain(there)
    assert all(a.end <= b.start for a, b in itertools.pairwise(over)), "no byte twice"
    assert {p for p in parts if p not in lost and p.start >= merged[0].end} <= {*over}, "nothing whole is left out"


def test_no_piece_is_longer_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_pieces, "MAX_PIECE", 10)
    assert list(cut(3, 5, 27)) == [Piece(3, 5, 15), Piece(3, 15, 25), Piece(3, 25, 27)]
    assert pieces({Piece(3, 5, 15).name: 10, Piece(3, 15, 25).name: 9, "journal/x.jsonl": 4}) == [Piece(3, 5, 15)]
