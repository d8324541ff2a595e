"""What Home says of copies off this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from label_app import studio_without_runs

from data.copies import Copier
from data.copies_place import FolderPlace
from data.settings import Settings
from studio.context import open_studio
from studio.copies_line import NOWHERE, copies_line, copies_missing


def test_a_disk_that_goes_with_the_machine_is_warned_of(db: Any, settings: Settings) -> None:
    here = studio_without_runs(settings, db)
    assert (copies_missing(here), copies_line(here)) == ([], "")
    space = studio_without_runs(replace(settings, on_space=True), db)
    assert copies_missing(space) == [NOWHERE]


def test_the_last_copy_and_what_is_wrong_are_told(db: Any, settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "<b>bucket"
    copier = Copier(settings, db, FolderPlace(blocked))
    studio = replace(studio_without_runs(settings, db), copier=copier)
    assert "the first copy is being made" in copies_line(studio)
    copier.copy()
    assert "&lt;b&gt;bucket: last copied just now" in copies_line(studio)
    (blocked / "journal").rename(tmp_path / "away")
    (blocked / "journal").write_text("in the way")
    db.insert("people", [{"annotator_id": "a", "name": "A", "kind": "local", "project_id": "", "created_at": "2026-01-01"}])
    assert not copier.copy()
    assert copies_line(studio) == ""
    (words,) = copies_missing(studio)
    assert words.startswith("The last copy of the labels was made just now.")


def test_a_run_whose_copy_was_cut_off_is_told_of_on_a_new_machine(db: Any, settings: Settings, tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "bucket")
    assert Copier(settings, db, place).copy()
    place.put({"runs/lost.json": b'{"runs/lost/model/weights": 9}'})
    with open_studio(Settings(home=tmp_path / "new", backup=str(place.folder))) as studio:
        assert any("the copy of 1 run was cut off" in notice for notice in studio.db.notices)
