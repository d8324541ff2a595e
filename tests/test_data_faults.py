"""What a disk, a folder or a second app can do to a workspace: one sentence that says what to do, and nothing stored is lost.

The full and the read-only disk are real mounts (they need root and are skipped with that reason elsewhere).
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from data.database import Database, rebuild
from data.errors import WorkspaceError
from data.journal import segments
from data.settings import Settings

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def person(annotator_id: str, name: str = "n") -> dict[str, object]:
    return {"annotator_id": annotator_id, "name": name, "kind": "local", "project_id": "", "created_at": WHEN}


def names(db: Database) -> set[str]:
    return {row["annotator_id"] for row in db.rows("select annotator_id from people")}


def mount(folder: Path, *options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    mount(folder, "-t", "tmpfs", "-o", "size=12m", "tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all the room there is, but `leave` bytes."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as f:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize
        f.write(b"x" * max(0, free - leave))
    return ballast


def no_more_than_sentences(error: BaseException) -> None:
    text = str(error)
    assert "Traceback" not in text
    assert "Error" not in text
    assert text.endswith(".")
    assert len(text) < 400


@pytest.mark.parametrize("leave", [0, 4096, 200_000])
def test_a_full_disk_fails_the_write_and_nothing_else(small_disk: Path, leave: int) -> None:
    settings = Settings(home=small_disk / "w")
    db = Database(settings)
    db.insert("people", [person("before")])
    ballast = fill(small_disk, leave)
    stored = {"before"}
    refused: list[WorkspaceError] = []
    for i in range(12):
        try:
            db.insert("people", [person(f"big {i}", os.urandom(30_000).hex())])
            stored.add(f"big {i}")
        except WorkspaceError as error:
            refused.append(error)
        assert names(db) == stored, "reads go on, and show what was acknowledged"
    assert refused
    for error in refused:
        assert "is full; free some space and try again" in str(error)
        no_more_than_sentences(error)
    ballast.unlink()
    assert db.insert("people", [person("after")]) == 1
    stored.add("after")
    assert names(db) == stored
    db.close()
    assert rebuild(settings).damaged == ()
    again = Database(settings)
    assert names(again) == stored
    assert again.notices == []
    again.close()


def test_a_full_disk_at_a_checkpoint_closes_nothing_for_good(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB answers nothing after a checkpoint that ran out of room; the store must open it again and go on."""
    settings = Settings(home=small_disk / "w")
    db = Database(settings)
    stored = set()
    for i in range(20):
        db.insert("people", [person(f"first {i}", os.urandom(30_000).hex())])
        stored.add(f"first {i}")
    fill(small_disk, 200_000)
    with pytest.raises(duckdb.Error):
        db._file.connection.execute("checkpoint")
    assert names(db) == stored
    monkeypatch.setattr("data.commit.CHECKPOINT_BYTES", 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 1 << 40}))
    db.insert("people", [person("second")])
    stored.add("second")
    assert names(db) == stored
    (small_disk / "ballast").unlink()
    db.insert("people", [person("third")])
    assert names(db) == stored | {"third"}
    db.close()
    again = Database(settings)
    assert names(again) == stored | {"third"}
    again.close()


def test_fifty_threads_on_a_disk_that_fills_up(small_disk: Path) -> None:
    """Each is told the truth about its own row, and the writer is alive afterwards."""
    settings = Settings(home=small_disk / "w")
    db = Database(settings)
    fill(small_disk, 1_500_000)
    stored: list[str] = []
    refused: list[str] = []

    def produce(worker: int) -> None:
        for i in range(4):
            try:
                db.insert("people", [person(f"{worker}-{i}", os.urandom(10_000).hex())])
                stored.append(f"{worker}-{i}")
            except WorkspaceError:
                refused.append(f"{worker}-{i}")

    threads = [threading.Thread(target=produce, args=(w,)) for w in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stored) + len(refused) == 200
    assert stored
    assert refused
    assert names(db) == set(stored)
    (small_disk / "ballast").unlink()
    assert db.insert("people", [person("after")]) == 1
    db.close()
    rebuild(settings)
    again = Database(settings)
    assert names(again) == {*stored, "after"}
    again.close()


def test_a_workspace_on_a_full_disk_can_still_be_read(small_disk: Path) -> None:
    settings = Settings(home=small_disk / "w")
    db = Database(settings)
    db.insert("people", [person("before")])
    db.close()
    fill(small_disk)
    db = Database(settings)
    assert names(db) == {"before"}
    with pytest.raises(WorkspaceError, match="full"):
        db.insert("people", [person("x", "x" * 100_000)])
    db.close()


def test_no_workspace_can_be_made_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(WorkspaceError, match="full") as caught:
        Database(Settings(home=small_disk / "w"))
    no_more_than_sentences(caught.value)


def test_a_backup_on_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    settings = Settings(home=small_disk / "w")
    db = Database(settings)
    db.insert("people", [person(str(i), os.urandom(30_000).hex()) for i in range(20)])
    fill(small_disk, 600_000)
    with pytest.raises(WorkspaceError, match="full"):
        db.backup(settings.export_dir / "backup.zip")
    assert list(settings.export_dir.iterdir()) == []
    assert len(names(db)) == 20
    (small_disk / "ballast").unlink()
    assert db.backup(settings.export_dir / "backup.zip").exists()
    db.close()


@pytest.mark.parametrize("existing", [True, False])
def test_a_read_only_workspace_is_refused_in_words(tmp_path: Path, existing: bool) -> None:
    folder = tmp_path / "read-only"
    mount(folder, "-t", "tmpfs", "-o", "size=16m", "tmpfs")
    try:
        if existing:
            db = Database(Settings(home=folder / "w"))
            db.insert("people", [person("before")])
            db.close()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(WorkspaceError, match="cannot be written to; make it writable") as caught:
            Database(Settings(home=folder / "w"))
        no_more_than_sentences(caught.value)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        db = Database(Settings(home=folder / "w"))
        assert names(db) == ({"before"} if existing else set())
        db.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_second_app_on_the_same_workspace_is_refused(settings: Settings) -> None:
    db = Database(settings)
    db.insert("people", [person("mine")])
    code = """
import sys
from pathlib import Path
from data.database import Database
from data.errors import WorkspaceError
from data.settings import Settings
try:
    Database(Settings(home=Path(sys.argv[1])))
except WorkspaceError as error:
    print(error)
"""
    second = subprocess.run([sys.executable, "-c", code, str(settings.home)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"is open in another app (process {os.getpid()}); close that one" in second.stdout
    with pytest.raises(WorkspaceError, match="open in another app"):
        Database(settings)
    assert db.insert("people", [person("still mine")]) == 1
    db.close()
    Database(settings).close()


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("important")
    for home in (file, file / "below"):
        with pytest.raises(WorkspaceError, match="is a file, not a folder; choose a folder with --home") as caught:
            Database(Settings(home=home))
        no_more_than_sentences(caught.value)
    assert file.read_text() == "important"


def checksum(block: bytes) -> int:
    """DuckDB's checksum of a header block (511 words)."""
    total = 5381
    for (word,) in struct.iter_unpack("<Q", block):
        total ^= (word * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return total


def test_a_database_of_a_newer_engine(settings: Settings) -> None:
    db = Database(settings)
    db.insert("people", [person("x")])
    db.close()
    raw = bytearray(settings.db_path.read_bytes())
    raw[12:20] = struct.pack("<Q", 200)
    raw[:8] = struct.pack("<Q", checksum(bytes(raw[8:4096])))
    settings.db_path.write_bytes(raw)
    with pytest.raises(WorkspaceError, match="newer database engine; update the studio") as caught:
        Database(settings)
    no_more_than_sentences(caught.value)
    assert settings.db_path.read_bytes() == raw, "it is not touched"


@pytest.mark.parametrize("damage", ["text", "empty", "head", "half"])
def test_a_damaged_database_is_rebuilt_and_kept(settings: Settings, damage: str) -> None:
    db = Database(settings)
    db.insert("people", [person(str(i)) for i in range(2000)])
    db.close()
    raw = settings.db_path.read_bytes()
    broken = {"text": b"hello", "empty": b"", "head": b"\xff" * 4096 + raw[4096:], "half": raw[: len(raw) // 2]}[damage]
    settings.db_path.write_bytes(broken)
    db = Database(settings)
    assert len(names(db)) == 2000
    assert "The database file was damaged, so it was rebuilt from the journal" in db.notices[0]
    assert (settings.home / "before-recovery" / "studio.duckdb").read_bytes() == broken
    assert db.insert("people", [person("after")]) == 1
    db.close()


def test_damage_found_while_running_is_mended_while_running(settings: Settings) -> None:
    db = Database(settings)
    db.insert("people", [person(str(i), os.urandom(500).hex()) for i in range(4_000)])
    db.close()
    raw = bytearray(settings.db_path.read_bytes())
    for at in range(len(raw) // 2, len(raw) // 2 + 300_000):
        raw[at] ^= 0xFF
    settings.db_path.write_bytes(raw)
    db = Database(settings)
    assert db.value("select count(distinct name) from people") == 4_000
    assert "rebuilt from the journal" in db.notices[0]
    assert db.insert("people", [person("after")]) == 1
    db.close()


def test_a_damaged_database_without_a_journal_is_not_touched(settings: Settings) -> None:
    db = Database(settings)
    db.close()
    for segment in segments(settings.journal_dir):
        segment.unlink()
    settings.db_path.write_bytes(b"hello")
    with pytest.raises(WorkspaceError, match="damaged and there is no journal to rebuild it from; restore a backup"):
        Database(settings)
    assert settings.db_path.read_bytes() == b"hello"


def test_a_crash_in_the_engine_while_it_opens_leads_to_the_journal(settings: Settings) -> None:
    """The marker is what a process leaves that died while DuckDB replayed its own log."""
    db = Database(settings)
    db.insert("people", [person("x")])
    db.close()
    (settings.home / "rebuild-at-start").touch()
    db = Database(settings)
    assert names(db) == {"x"}
    assert "rebuilt" in db.notices[0]
    db.close()
    db = Database(settings)
    assert db.notices == []
    db.close()
