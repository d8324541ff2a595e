"""Copies of finished runs outside the machine: whole or none, streamed, again after a run went on, and in no label's way."""

from __future__ import annotations

import errno
import shutil
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from copying import recovered

from data import copies_place, copies_runs, projects, runs
from data.copies import Copier, recover
from data.copies_hub import HubPlace
from data.copies_place import Content, FolderPlace
from data.database import Database
from data.settings import Settings

pytestmark = pytest.mark.app


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
