"""The import folder: what may be read, and how uploads get there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data import import_folder, importers, projects
from data.database import Database
from data.errors import BadInput, LimitReached, WorkspaceError
from data.settings import Settings


@pytest.fixture
def home(settings: Settings) -> Settings:
    for folder in (settings.import_dir, settings.runs_dir, settings.export_dir):
        folder.mkdir(parents=True)
    return settings


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "gradio" / "abc" / "upload.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"prompt": "hello"}\n')
    return path


def test_a_name_means_a_file_in_the_import_folder_and_a_runs_path_one_in_the_workspace(home: Settings) -> None:
    (home.import_dir / "a.jsonl").write_text('{"prompt": "a"}\n')
    (home.runs_dir / "r1").mkdir()
    (home.runs_dir / "r1" / "b.jsonl").write_text('{"prompt": "b"}\n')
    assert importers.read(home, Path("a.jsonl")).sample[0].messages[0].content == "a"
    assert importers.read(home, Path("runs/r1/b.jsonl")).sample[0].messages[0].content == "b"
    assert importers.read(home, home.import_dir / "a.jsonl").good == 1


def test_nothing_outside_the_workspaces_folders_is_read(home: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"prompt": "secret"}\n')
    (home.home / "studio.jsonl").write_text('{"prompt": "the journal"}\n')
    (home.import_dir / "link.jsonl").symlink_to(secret)
    (home.import_dir / "links").symlink_to(tmp_path)
    (home.import_dir / "round").symlink_to(home.import_dir / "round")
    os.mkfifo(home.import_dir / "pipe.jsonl")
    for path in (
        secret, "../../secret.jsonl", "../studio.jsonl", "studio.jsonl", "link.jsonl", "links/secret.jsonl", "round", "/etc/passwd",
        "pipe.jsonl", ".", "", "gone.jsonl", "a\0b", "/dev/zero", "x" * 5000,
    ):  # fmt: skip
        with pytest.raises(BadInput) as refused:
            importers.read(home, Path(path))
        assert "\n" not in str(refused.value)
        assert 'secret"' not in str(refused.value)


def test_a_link_within_the_folder_is_fine(home: Settings) -> None:
    (home.import_dir / "a.jsonl").write_text('{"prompt": "a"}\n')
    (home.import_dir / "b.jsonl").symlink_to("a.jsonl")
    assert importers.read(home, Path("b.jsonl")).good == 1


def test_an_upload_is_copied_once_and_can_be_imported(home: Settings, upload: Path) -> None:
    path = import_folder.copy_upload(home, upload, "My prompts (1).jsonl")
    assert path == home.import_dir / "My-prompts-1-.jsonl"
    assert import_folder.copy_upload(home, upload, "My prompts (1).jsonl") == path
    upload.write_text('{"prompt": "another"}\n')
    other = import_folder.copy_upload(home, upload, "My prompts (1).jsonl")
    assert other.name == "My-prompts-1--2.jsonl"
    assert path.read_text() == '{"prompt": "hello"}\n'
    assert {file.name for file in import_folder.files(home)} == {path.name, other.name}
    assert sorted(p.name for p in home.import_dir.iterdir()) == sorted([path.name, other.name]), "no parts are left"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.jsonl.gz", "a.jsonl.gz"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.csv", "a.csv"),
        (".hidden.json", "hidden.json"),
        ("", "upload"),
        ("..", "upload"),
        ("a\0b\n.json", "a-b-.json"),
        ("ü" * 300 + ".json", "json"),
        ("x" * 300 + ".jsonl.gz", "x" * 100 + ".jsonl.gz"),
        ("-rf.csv", "rf.csv"),
    ],
)
def test_names_of_uploads_are_made_safe(name: str, safe: str) -> None:
    assert import_folder.safe_name(name) == safe


def test_a_large_upload_is_refused_with_the_way_out(home: Settings, upload: Path) -> None:
    with upload.open("r+b") as file:
        file.truncate(201 * 2**20)
    with pytest.raises(LimitReached, match=rf"201.0 MB and uploads may have 200 MB: copy it to {home.import_dir}"):
        import_folder.copy_upload(home, upload, "big.jsonl")
    assert list(home.import_dir.iterdir()) == []


def test_a_visitor_has_a_smaller_limit_and_a_folder_of_their_own(home: Settings, upload: Path) -> None:
    visiting = replace(home, visitor=True)
    mine = import_folder.copy_upload(visiting, upload, "mine.jsonl", owner="cookie-1")
    assert "cookie-1" not in str(mine)
    assert importers.read(visiting, Path("mine.jsonl"), owner="cookie-1").good == 1
    assert [f.name for f in import_folder.files(visiting, "cookie-1")] == ["mine.jsonl"]
    assert import_folder.files(visiting, "cookie-2") == []
    assert import_folder.files(visiting) == []
    for path in (mine, Path("mine.jsonl"), Path("../") / mine.parent.name / "mine.jsonl"):
        with pytest.raises(BadInput):
            importers.read(visiting, path, owner="cookie-2")
    (home.import_dir / "everybodys.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(BadInput):
        importers.read(visiting, home.import_dir / "everybodys.jsonl", owner="cookie-1")
    upload.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(LimitReached, match=r"1\.0 MB and uploads may have 1 MB: run the studio on your own machine"):
        import_folder.copy_upload(visiting, upload, "mine.jsonl", owner="cookie-1")
    import_folder.forget(visiting, "cookie-1")
    assert not mine.exists()
    import_folder.forget(visiting, "")
    assert (home.import_dir / "everybodys.jsonl").exists()


def test_an_upload_that_did_not_arrive(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did not arrive"):
        import_folder.copy_upload(home, tmp_path / "gone", "a.jsonl")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Settings]:
    """A workspace on a disk of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    (folder / "import").mkdir()
    yield Settings(home=folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_or_read_only_disk_is_said_in_words_and_nothing_is_left(small_disk: Settings, upload: Path) -> None:
    upload.write_bytes(b'{"prompt": "a"}\n' * 200_000)
    with pytest.raises(WorkspaceError, match="is full; free some space and try again"):
        import_folder.copy_upload(small_disk, upload, "a.jsonl")
    assert list(small_disk.import_dir.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.home)], check=True)
    with pytest.raises(WorkspaceError, match="cannot be written to"):
        import_folder.copy_upload(small_disk, upload, "a.jsonl")


def test_a_file_where_the_folder_should_be(home: Settings, upload: Path) -> None:
    home.import_dir.rmdir()
    home.import_dir.write_text("")
    with pytest.raises(WorkspaceError):
        import_folder.copy_upload(home, upload, "a.jsonl")


def test_only_what_can_be_read_is_listed(home: Settings) -> None:
    for name in ("a.jsonl", "b.csv", "c.parquet", "d.json.gz", "e.txt", ".f.jsonl", "g.zip"):
        (home.import_dir / name).write_text("x")
    (home.import_dir / "folder.json").mkdir()
    (home.import_dir / "link.jsonl").symlink_to("a.jsonl")
    assert {f.name for f in import_folder.files(home)} == {"a.jsonl", "b.csv", "c.parquet", "d.json.gz"}


def test_the_import_of_a_name_that_is_not_unicode(home: Settings) -> None:
    db = Database(home)
    try:
        path = home.import_dir / os.fsdecode(b"caf\xe9.jsonl")
        path.write_text('{"prompt": "a"}\n')
        assert importers.load(db, projects.create(db, "Names").project_id, path).prompts_added == 1
        assert db.value("select source from prompts") == "caf?.jsonl"
    finally:
        db.close()
