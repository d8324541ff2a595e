"""Copies of the journal outside the machine: what was acknowledged and copied comes back on an empty disk, whatever died when."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from huggingface_hub import close_session, constants
from hypothesis import given
from hypothesis import strategies as st
from labelling import seed_project

from data import completions, copies, copies_pieces, copies_place, copies_runs, hub_client, impressions, labels, projects, runs
from data.copies import Copier, recover
from data.copies_hub import HubPlace
from data.copies_pieces import Piece, chain, cut, pieces
from data.copies_place import Content, FolderPlace, Place
from data.database import Database
from data.errors import WorkspaceError
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


def recovered(home: Path, place: Place) -> Database:
    settings = Settings(home=home)
    settings.home.mkdir(parents=True)
    assert recover(settings, place).bytes > 0
    return Database(settings)


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


def test_finished_runs_come_back_and_going_ones_do_not(db: Database, settings: Settings, tmp_path: Path) -> None:
    project = projects.create(db, "Runs")
    for name, status in (("done", "finished"), ("going", "running")):
        db.insert("runs", [_run(name, project.project_id, status)])
        folder = settings.runs_dir / name
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "weights").write_bytes(b"\0\1" * 500)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "big").write_bytes(b"x")
    place = FolderPlace(tmp_path / "bucket")
    Copier(settings, db, place).copy()
    again = recovered(tmp_path / "new", place)
    files = {f.relative_to(again.settings.runs_dir).as_posix() for f in again.settings.runs_dir.rglob("*") if f.is_file()}
    assert files == {"done/adapter/weights"}
    assert runs.get(again, "done").status == "finished"
    again.close()


def test_many_old_runs_are_a_few_commits(db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub counts commits: one a run would take the labels' share for hours."""
    project = projects.create(db, "Runs")
    db.insert("runs", [_run(f"run{n}", project.project_id, "finished") for n in range(30)])
    for n in range(30):
        (settings.runs_dir / f"run{n}").mkdir(parents=True)
        (settings.runs_dir / f"run{n}" / "weights").write_bytes(b"\0\1" * 500)
    place, puts = FolderPlace(tmp_path / "bucket"), []
    put = place.put
    monkeypatch.setattr(copies_runs, "TOGETHER", 10_000)
    monkeypatch.setattr(place, "put", lambda files: [puts.append(set(files)), put(files)])
    assert Copier(settings, db, place).copy()
    of_runs = [files for files in puts if any(name.startswith("runs/") for name in files)]
    assert sorted(map(len, of_runs)) == [20, 20, 20], "each with its list"
    there = {name for name in place.sizes() if name.startswith("runs/")}
    assert there == {f"runs/run{n}{name}" for n in range(30) for name in (".json", "/weights")}


def _with_run(db: Database, settings: Settings, weights: int = 1000) -> Path:
    """A finished run's folder, with weights of so many bytes."""
    db.insert("runs", [_run("done", projects.create(db, "Runs").project_id, "finished")])
    folder = settings.runs_dir / "done"
    (folder / "model").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with (folder / "model" / "weights").open("wb") as f:
        f.truncate(weights)
    return folder


def test_a_large_model_is_never_held_in_memory(db: Database, settings: Settings, tmp_path: Path) -> None:
    size, place = 96 * 2**20, FolderPlace(tmp_path / "bucket")
    _with_run(db, settings, size)
    tracemalloc.start()
    try:
        assert Copier(settings, db, place).copy()
        assert recover(new := Settings(home=tmp_path / "new"), place).torn_runs == 0
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (new.runs_dir / "done" / "model" / "weights").stat().st_size == size
    assert most < size / 10


def test_the_hub_library_is_given_a_path_and_no_weights(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = _with_run(db, settings) / "model" / "weights"
    place, added = HubPlace("hf://datasets/someone/labels"), []
    monkeypatch.setattr(place._api, "create_commit", lambda _, operations, **more: added.extend(operations))
    place.put({"runs/done/model/weights": weights, "owner": b"me"})
    assert [each.path_or_fileobj for each in added] == [str(weights), b"me"]


def test_a_file_that_has_gone_meanwhile_does_not_end_the_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a project is removed while its runs are copied: the thread goes on after an OSError, and after no other."""
    place = HubPlace("hf://datasets/someone/labels")
    monkeypatch.setattr(place._api, "create_commit", lambda *_, **__: None)
    for one in (place, FolderPlace(tmp_path / "bucket")):
        with pytest.raises(OSError, match="No such file"):
            one.put({"runs/done/weights": tmp_path / "gone"})


def test_a_run_whose_copy_was_cut_off_counts_as_none(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_run(db, settings)
    place, half = FolderPlace(tmp_path / "bucket"), bytes(500)
    put = place.put

    def cut_off(files: Mapping[str, copies_place.Content]) -> None:
        put({name: half if name.endswith("weights") else content for name, content in files.items()})
        if any(name.startswith("runs/") for name in files):
            raise OSError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(place, "put", cut_off)
        assert not Copier(settings, db, place).copy()
    found = recover(lost := Settings(home=tmp_path / "lost"), place)
    assert found.torn_runs == 1
    assert (lost.runs_dir / "done" / "config.json").is_file(), "what is whole comes back"
    assert not (lost.runs_dir / "done" / "model").exists(), "half a model is none"
    assert Copier(settings, db, place).copy(), "and at the next start it is copied again"
    assert recover(whole := Settings(home=tmp_path / "whole"), place).torn_runs == 0
    assert (whole.runs_dir / "done" / "model" / "weights").stat().st_size == 1000


def test_nothing_but_the_list_of_a_run_is_a_run_cut_off(db: Database, settings: Settings, tmp_path: Path) -> None:
    _with_run(db, settings)
    place = FolderPlace(tmp_path / "bucket")
    Copier(settings, db, place).copy()
    place.remove([name for name in place.sizes() if name.startswith("runs/done/")])
    assert recover(Settings(home=tmp_path / "new"), place).torn_runs == 1
    place.remove(["runs/done.json"])
    place.put({"runs/done/config.json": b"{}"})
    old = Settings(home=tmp_path / "old")
    assert recover(old, place).torn_runs == 0, "copies of before there were lists come back as they are"
    assert (old.runs_dir / "done" / "config.json").is_file()


@pytest.mark.parametrize(
    "content", ['{"runs/done/config.json": 2', "[1]", '{"mine": 1}', '{"runs/done/config.json": null}', "[" * 9999]
)
def test_what_is_no_list_of_a_run_keeps_no_studio_from_starting(
    db: Database, settings: Settings, tmp_path: Path, content: str
) -> None:
    _with_run(db, settings)
    place = FolderPlace(tmp_path / "bucket")
    Copier(settings, db, place).copy()
    place.put({"runs/done.json": content.encode()})
    assert recover(new := Settings(home=tmp_path / "new"), place).torn_runs == 0
    assert (new.runs_dir / "done" / "config.json").is_file()


def test_a_run_that_goes_on_is_copied_again_when_it_has_ended(db: Database, settings: Settings, tmp_path: Path) -> None:
    folder, place = _with_run(db, settings), FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)
    assert copier.copy()
    runs.update(db, "done", status="running")
    (folder / "events.jsonl").write_text("more")
    assert copier.copy()
    assert "runs/done/events.jsonl" not in place.sizes()
    runs.update(db, "done", status="finished")
    assert copier.copy()
    assert "runs/done/events.jsonl" in place.sizes()


def test_a_run_that_goes_on_and_ends_between_two_copies_or_during_one_is_copied_again(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = _with_run(db, settings), FolderPlace(tmp_path / "bucket")
    copier = Copier(settings, db, place)

    def go_on(said: str) -> None:
        runs.update(db, "done", status="queued")
        (folder / "events.jsonl").write_text(said)
        runs.update(db, "done", status="finished")

    assert copier.copy()
    go_on("more")
    assert copier.copy()
    assert place.get("runs/done/events.jsonl") == b"more"
    go_on("and more")
    put = place.put

    def meanwhile(files: Mapping[str, Content]) -> None:
        put(files)
        if "runs/done/events.jsonl" in files and place.get("runs/done/events.jsonl") == b"and more":
            go_on("and more again")

    monkeypatch.setattr(place, "put", meanwhile)
    assert copier.copy()
    assert copier.copy()
    assert place.get("runs/done/events.jsonl") == b"and more again"


def test_a_model_that_does_not_fit_keeps_neither_labels_nor_other_runs_from_being_copied(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_run(db, settings, 5_000)
    db.insert("runs", [_run("small", projects.create(db, "Other").project_id, "finished")])
    (settings.runs_dir / "small").mkdir()
    (settings.runs_dir / "small" / "weights").write_bytes(b"here")
    bucket = tmp_path / "bucket"
    place = FolderPlace(bucket)
    copier = Copier(settings, db, place)

    def into_a_full_place(source: Any, target: Any) -> None:
        room = 5_000 - sum(file.stat().st_size for file in (bucket / "runs").rglob("*") if file.is_file())
        content = source.read()
        target.write(content[: max(0, room)])
        target.flush()
        if len(content) > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", into_a_full_place)
        assert not copier.copy()
        assert "No space left" in copier.status.problem
    assert "runs/done/model/weights" not in place.sizes(), "half of it is none, and takes the room that is short"
    assert place.get("runs/small/weights") == b"here"


def test_a_file_that_changes_while_it_is_copied_is_copied_again(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = _with_run(db, settings), FolderPlace(tmp_path / "bucket")
    copier, put = Copier(settings, db, place), place.put

    def meanwhile(files: Mapping[str, Content]) -> None:
        if "runs/done.json" in files and (folder / "config.json").stat().st_size == 2:
            (folder / "config.json").write_text("{} and more")  # written by what outlives the run's process
        put(files)

    monkeypatch.setattr(place, "put", meanwhile)
    assert copier.copy()
    assert copier.copy()
    assert recover(Settings(home=tmp_path / "new"), place).torn_runs == 0


def test_labels_do_not_wait_for_a_long_run_to_be_copied(
    db: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_run(db, settings, 20_000)
    place, puts = FolderPlace(tmp_path / "bucket"), []
    put = place.put

    def slow(files: Mapping[str, copies_place.Content]) -> None:
        put(files)
        if "runs/done.json" in files:
            projects.create(db, "Labelled meanwhile")
        puts.append(set(files))

    monkeypatch.setattr(copies_runs, "TOGETHER", 10_000)
    monkeypatch.setattr(place, "put", slow)
    assert Copier(settings, db, place).copy()
    assert "runs/done.json" in puts[-2]
    assert next(iter(puts[-1])).startswith("journal/")


def _run(run_id: str, project_id: str, status: str) -> dict[str, object]:
    empty = dict.fromkeys(("owner", "module", "device", "snapshot_id", "error"), "")
    blank = dict.fromkeys(("config", "progress", "result"), "{}")
    numbers = {"pid": 0, "pid_created": 0.0, "event_offset": 0, "queued_at": "2026-01-01T00:00:00+00:00"}
    return {
        "run_id": run_id,
        "project_id": project_id,
        "kind": "dpo",
        "name": run_id,
        "status": status,
        **empty,
        **blank,
        **numbers,
    }


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


HUB_CHILD = """
import sys
from pathlib import Path
from data import projects
from data.copies import Copier, recover
from data.copies_hub import HubPlace
from data.database import Database
from data.settings import Settings
home, new = (Settings(home=Path(folder)) for folder in sys.argv[1:])
place = HubPlace("hf://datasets/someone/labels")
db = Database(home)
copier = Copier(home, db, place)
for name in ("first", "second"):
    projects.create(db, name)
    if not copier.copy():
        sys.exit(copier.status.problem)
db.close()
new.home.mkdir()
assert recover(new, place).bytes > 0
print([p.name for p in projects.visible(Database(new))])
"""


def _with_hub(url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    online = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_test"}
    return subprocess.run(
        [sys.executable, "-c", HUB_CHILD, str(tmp_path / "home"), str(tmp_path / "new")],
        env={**os.environ, **online, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_hub_data_set_brings_everything_back(tmp_path: Path) -> None:
    """The real client library, over real HTTP, to a hub on this machine."""
    server = HubServer("someone/labels", {})
    try:
        done = _with_hub(server.url, tmp_path)
    finally:
        server.close()
    assert done.stdout.strip() == "['first', 'second']", done.stderr
    assert len([name for name in server.files if name.startswith("journal/0001-")]) == 2


def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(tmp_path: Path) -> None:
    done = _with_hub("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 1
    assert "check its name, HF_TOKEN and the network." in done.stderr, done.stderr
    with pytest.raises(WorkspaceError, match="no data set"):
        HubPlace("hf://datasets/labels")


def test_a_hub_that_falls_silent_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and never answers; its library would wait for ever, and the app's end with it."""
    monkeypatch.setattr(hub_client, "SILENT_S", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = HubPlace("hf://datasets/someone/labels")
    close_session()
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            place._api.endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(WorkspaceError, match="timed out"):
                place.sizes()
    finally:
        close_session()  # the next one is patient again


def test_the_hub_is_asked_for_no_more_commits_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody labels without a pause for three hours: every few seconds at first, and in no hour more than 128 times."""
    now = [0.0]
    place = HubPlace("hf://datasets/someone/labels", clock=lambda: now[0])
    made: list[float] = []
    monkeypatch.setattr(place._api, "create_commit", lambda *_, **__: made.append(now[0]))
    while now[0] < 3 * 3600:
        place.put({f"journal/{len(made)}": b"x"})
        now[0] += place.every_s
    assert made[20] == 100.0
    assert max(sum(start <= at < start + 3600 for at in made) for start in made) <= 128
    assert made[-1] - made[-2] == pytest.approx(36, abs=1)
    now[0] += 3600
    assert place.every_s == 5.0
