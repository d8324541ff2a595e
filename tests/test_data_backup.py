"""A backup is the whole workspace in one file; a restore keeps what it replaces; an archive from anywhere can do no harm."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data import projects
from data.database import Database, rebuild, restore_workspace
from data.errors import BadInput, StudioError, WorkspaceError
from data.home import Gate
from data.settings import Settings

pytestmark = pytest.mark.app

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def person(annotator_id: str) -> dict[str, object]:
    return {"annotator_id": annotator_id, "name": "n", "kind": "local", "project_id": "", "created_at": WHEN}


def names(db: Database) -> set[str]:
    return {row["annotator_id"] for row in db.rows("select annotator_id from people")}


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def some_run(settings: Settings) -> None:
    run = settings.runs_dir / "r1"
    for file in ("config.json", "events.jsonl", "adapter/adapter_model.safetensors", "checkpoints/step-1/optimizer.pt"):
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_text(file)
    (run / "link").symlink_to("/etc/passwd")


@pytest.fixture
def backed_up(settings: Settings, tmp_path: Path) -> Path:
    db = Database(settings)
    projects.create(db, "P")
    db.insert("people", [person("a"), person("b")])
    some_run(settings)
    (settings.import_dir / "big.csv").write_text("mine")
    target = db.backup(tmp_path / "backups" / "studio.zip")
    db.close()
    return target


def test_a_backup_holds_what_it_should(backed_up: Path) -> None:
    with zipfile.ZipFile(backed_up) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            "studio-backup.json",
            "studio.duckdb",
            "journal/0001.jsonl",
            "runs/r1/config.json",
            "runs/r1/events.jsonl",
            "runs/r1/adapter/adapter_model.safetensors",
        }
    assert [f.name for f in backed_up.parent.iterdir()] == ["studio.zip"], "nothing half-made is left"


def test_a_restored_workspace_is_the_same(backed_up: Path, tmp_path: Path) -> None:
    fresh = Settings(home=tmp_path / "elsewhere" / "w")
    assert restore_workspace(fresh, backed_up) is None
    db = Database(fresh)
    assert names(db) == {"a", "b"}
    assert [p.name for p in projects.visible(db)] == ["P"]
    assert db.notices == []
    assert (fresh.runs_dir / "r1" / "adapter" / "adapter_model.safetensors").read_text() == "adapter/adapter_model.safetensors"
    assert not (fresh.runs_dir / "r1" / "checkpoints").exists()
    assert db.insert("people", [person("c")]) == 1
    db.close()
    assert rebuild(fresh).damaged == ()
    again = Database(fresh)
    assert names(again) == {"a", "b", "c"}
    again.close()


def test_restoring_keeps_the_workspace_it_replaces(backed_up: Path, settings: Settings) -> None:
    db = Database(settings)
    db.insert("people", [person("newer")])
    db.close()
    kept = restore_workspace(settings, backed_up)
    assert kept is not None
    assert kept.name.startswith("workspace.before-restore-")
    old, new = Database(Settings(home=kept)), Database(settings)
    assert names(old) == {"a", "b", "newer"}
    assert names(new) == {"a", "b"}
    assert (kept / "import" / "big.csv").read_text() == "mine"
    old.close()
    new.close()


def test_whoever_waits_to_close_the_file_goes_before_new_readers() -> None:
    """Readers that follow each other without a gap would keep a restore, and every write behind it, waiting for ever."""
    gate, order = Gate(), []

    def close() -> None:
        with gate.closed():
            order.append("closed")

    def read() -> None:
        with gate.through():
            order.append("read")

    closer, reader = threading.Thread(target=close), threading.Thread(target=read)
    with gate.through():
        for thread in (closer, reader):
            before = len(gate._condition._waiters)  # type: ignore[attr-defined]
            thread.start()
            while thread.is_alive() and len(gate._condition._waiters) == before:  # type: ignore[attr-defined]
                time.sleep(0.001)
        assert order == []
        with gate.through(giving_back=True):
            assert order == [], "it waits for nobody who only waits"
    for thread in (closer, reader):
        thread.join()
    assert order == ["closed", "read"]


def test_a_live_restore_under_readers_and_writers(backed_up: Path, settings: Settings) -> None:
    """The app goes on: readers wait a moment, writes land in the old or the new workspace, each whole."""
    db = Database(settings)
    told: list[str] = []
    db.on_commit(lambda changes: told.extend(c.op for c in changes))
    stop = threading.Event()
    trouble: list[BaseException] = []

    def keep_busy(use: Callable[[int], object]) -> None:
        i = 0
        while not stop.is_set():
            i += 1
            try:
                use(i)
            except BaseException as error:
                trouble.append(error)
                return

    def read(i: int) -> None:
        assert {"a", "b"} <= names(db)

    threads = [threading.Thread(target=keep_busy, args=(read,)) for _ in range(3)]
    threads.append(threading.Thread(target=keep_busy, args=(lambda i: db.insert("people", [person(f"busy {i}")]),)))
    for thread in threads:
        thread.start()
    try:
        db.insert("people", [person("replaced")])
        kept = db.restore(backed_up)
        assert "schema" in told, "listeners hear that everything may be different"
        assert "replaced" not in names(db)
        db.insert("people", [person("after")])
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    stored = names(db)
    assert {"a", "b", "after"} <= stored
    db.close()
    again = Database(settings)
    assert names(again) == stored
    again.close()
    old = Database(Settings(home=kept))
    assert "replaced" in names(old)
    old.close()
    assert sorted(p.name for p in settings.home.parent.iterdir()) == ["backups", "workspace", kept.name]


def test_what_was_left_half_read_keeps_neither_a_restore_nor_the_end_waiting(backed_up: Path, settings: Settings) -> None:
    """An error that is kept keeps the list that it came out of; nobody will ever read that to its end."""
    db = Database(settings)
    half, whole = (db.stream("select range from range(2000)") for _ in range(2))
    assert next(half) == next(whole) == (0,)
    assert [row for (row,) in whole] == list(range(1, 2000)), "and while it is being read it is all there"
    assert db._file._gate._inside == 0, "else whoever closes the file waits"
    db.restore(backed_up)
    with pytest.raises(WorkspaceError, match="try again"):
        list(half)
    again = db.stream("select range from range(2000)")
    next(again)
    db.close()
    with pytest.raises(WorkspaceError, match="try again"):
        list(again)


def test_a_restore_waits_for_no_run(backed_up: Path, settings: Settings) -> None:
    db = Database(settings)
    run = {
        "run_id": "r1", "project_id": "p", "owner": "", "kind": "sft", "name": "n", "module": "m", "status": "running",
        "device": "cpu", "config": "{}", "snapshot_id": "", "pid": 1, "pid_created": 0.0, "event_offset": 0, "progress": "{}",
        "result": "{}", "error": "", "queued_at": WHEN,
    }  # fmt: skip
    db.insert("runs", [run])
    with pytest.raises(WorkspaceError, match=r"1 run\(s\) are still going; stop them"):
        db.restore(backed_up)
    assert db.value("select count(*) from runs") == 1
    assert not list(settings.home.parent.glob("*.restoring-*"))
    db.close()


def test_a_mounted_workspace_is_restored_inside_the_mount(backed_up: Path, tmp_path: Path) -> None:
    """A mount point cannot be renamed: what is in it moves into a folder beside the new content."""
    with mounted(tmp_path / "mounted") as folder:
        db = Database(Settings(home=folder))
        db.insert("people", [person("replaced")])
        kept = db.restore(backed_up)
        assert kept.parent == folder
        assert names(db) == {"a", "b"}
        db.close()


def test_a_backup_while_writes_go_on_is_of_one_moment(settings: Settings, tmp_path: Path) -> None:
    db = Database(settings)
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            db.insert("people", [person(f"{i}-one"), person(f"{i}-two")])
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backups = [db.backup(tmp_path / f"{i}.zip") for i in range(2)]
    finally:
        stop.set()
    writer.join()
    db.close()
    for i, backup in enumerate(backups):
        fresh = Settings(home=tmp_path / f"restored {i}")
        restore_workspace(fresh, backup)
        copy = Database(fresh)
        stored = names(copy)
        assert copy.notices == []
        copy.close()
        assert len([n for n in stored if n.endswith("one")]) == len([n for n in stored if n.endswith("two")])
        rebuild(fresh)
        copy = Database(fresh)
        assert names(copy) == stored, "database and journal are of the same moment"
        copy.close()


def forged(backup: Path, change: Callable[[zipfile.ZipFile], object], without: str = "") -> Path:
    """The backup with something added (or left out)."""
    target = backup.with_name("forged.zip")
    with zipfile.ZipFile(backup) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename != without:
                new.writestr(entry, old.read(entry))
        change(new)
    return target


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("runs/r1/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


HOSTILE: dict[str, Callable[[zipfile.ZipFile], object]] = {
    "parent": lambda z: z.writestr("runs/../../evil", "x"),
    "parent of the journal": lambda z: z.writestr("journal/../../evil", "x"),
    "absolute": lambda z: z.writestr("/tmp/evil", "x"),
    "backslash": lambda z: z.writestr("runs\\..\\evil", "x"),
    "stranger": lambda z: z.writestr("studio.lock", "x"),
    "dot": lambda z: z.writestr("runs/./r1/x", "x"),
    "link": lambda z: z.writestr(link(), "/etc/passwd"),
    "folder": lambda z: z.mkdir("runs/empty"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_archive_cannot_write_elsewhere(
    backed_up: Path, settings: Settings, change: Callable[[zipfile.ZipFile], object]
) -> None:
    before = sorted(settings.home.parent.rglob("*"))
    archive = forged(backed_up, change)
    with pytest.raises(BadInput, match="which no backup of the studio has; nothing was restored"):
        restore_workspace(settings, archive)
    archive.unlink()
    assert sorted(settings.home.parent.rglob("*")) == before


def test_a_bomb_is_refused_before_it_is_unpacked(backed_up: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.backup.FREE_GROWTH", 1 << 20)

    def swell(archive: zipfile.ZipFile) -> None:
        with archive.open("runs/r1/zeros", "w", force_zip64=True) as out:
            for _ in range(60):
                out.write(bytes(1 << 20))

    with pytest.raises(BadInput, match=r"would unpack to 0\.1 GB"):
        restore_workspace(settings, forged(backed_up, swell))


def test_a_lie_about_the_size_is_found_out(backed_up: Path, settings: Settings) -> None:
    archive = forged(backed_up, lambda z: z.writestr("runs/r1/lie", bytes(100_000)))
    raw = archive.read_bytes()
    assert raw.count((100_000).to_bytes(4, "little")) == 2
    archive.write_bytes(raw.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(BadInput, match="not a whole zip file"):
        restore_workspace(settings, archive)
    db = Database(settings)
    assert names(db) == {"a", "b"}
    db.close()


def manifest(**changes: object) -> Callable[[zipfile.ZipFile], object]:
    body = {"alignment_studio_backup": 1, "schema": 1, "created_at": "", **changes}
    return lambda z: z.writestr("studio-backup.json", json.dumps(body))


@pytest.mark.parametrize("changes", [{"alignment_studio_backup": 2}, {"schema": 99_999}, {"schema": "1; drop"}])
def test_a_backup_of_a_newer_studio(backed_up: Path, settings: Settings, changes: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="newer Alignment Studio; update the studio"):
        restore_workspace(settings, forged(backed_up, manifest(**changes), without="studio-backup.json"))


def test_other_files_are_refused_in_words(backed_up: Path, settings: Settings, tmp_path: Path) -> None:
    text = tmp_path / "notes.zip"
    text.write_text("hello")
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    torn = tmp_path / "torn.zip"
    torn.write_bytes(backed_up.read_bytes()[:-200])
    for file, words in ((text, "not a whole zip"), (other, "not a backup of Alignment Studio"), (torn, "not a whole zip")):
        with pytest.raises(BadInput, match=words):
            restore_workspace(settings, file)
    with pytest.raises(StudioError):
        restore_workspace(settings, tmp_path / "missing.zip")


def test_a_backup_whose_database_is_broken_comes_back_from_its_journal(backed_up: Path, settings: Settings) -> None:
    archive = forged(backed_up, lambda z: z.writestr("studio.duckdb", b"hello"), without="studio.duckdb")
    restore_workspace(settings, archive)
    db = Database(settings)
    assert names(db) == {"a", "b"}
    db.close()


def test_a_backup_that_does_not_open_replaces_nothing(backed_up: Path, settings: Settings) -> None:
    archive = backed_up.with_name("hollow.zip")
    with zipfile.ZipFile(backed_up) as old, zipfile.ZipFile(archive, "w") as new:
        new.writestr("studio-backup.json", old.read("studio-backup.json"))
        new.writestr("studio.duckdb", b"hello")
    with pytest.raises(StudioError):
        restore_workspace(settings, archive)
    db = Database(settings)
    with pytest.raises(StudioError):
        db.restore(archive)
    assert names(db) == {"a", "b"}
    db.close()


def test_an_open_workspace_is_not_replaced_from_outside(backed_up: Path, settings: Settings) -> None:
    db = Database(settings)
    with pytest.raises(WorkspaceError, match="open in another app"):
        restore_workspace(replace(settings), backed_up)
    assert names(db) == {"a", "b"}
    db.close()
    shutil.rmtree(settings.home)
