"""A workspace as one zip file, and back.

    studio-backup.json    what this is: format, schema version, time
    studio.duckdb         a consistent copy of the database
    journal/NNNN.jsonl    the journal up to the same commit
    runs/<id>/...         every run's folder without `checkpoints/` (adapters are in)

`import/` and `export/` are left out: files the user has elsewhere. A backup is a file from anywhere, so unpacking trusts
nothing in it: names that leave the folder, links, other contents than the above and archives that swell without bound are
refused before a byte is written.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from data import home
from data.errors import BadInput
from data.journal import segments
from data.settings import Settings

MANIFEST = "studio-backup.json"
FORMAT = 1
MAX_FILES = 200_000
FREE_GROWTH = 1 << 30  # an archive may unpack to this much whatever its own size...
MAX_GROWTH = 100  # ... and beyond it to this many times its own size


def write(settings: Settings, target: Path, database: Path, journal: tuple[Path, int], schema: int) -> Path:
    """`journal` is the newest segment and how many of its bytes belong to the copy in `database`. The zip is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    manifest = {"alignment_studio_backup": FORMAT, "schema": schema, "created_at": datetime.now(UTC).isoformat()}
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
            archive.writestr(MANIFEST, json.dumps(manifest))
            archive.write(database, settings.db_path.name)
            for file in segments(settings.journal_dir):
                if int(file.stem) <= int(journal[0].stem):
                    _write_start(archive, file, f"journal/{file.name}", journal[1] if file == journal[0] else file.stat().st_size)
            for file, name in _run_files(settings):
                with suppress(FileNotFoundError):  # a run that goes on may tidy up meanwhile
                    archive.write(file, name)
        with part.open("rb") as f:
            os.fsync(f.fileno())
        return part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _write_start(archive: zipfile.ZipFile, file: Path, name: str, size: int) -> None:
    with file.open("rb") as source, archive.open(name, "w", force_zip64=True) as out:
        while size and (block := source.read(min(size, 1 << 20))):
            out.write(block)
            size -= len(block)


def _run_files(settings: Settings) -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(settings.runs_dir):
        folders[:] = sorted(f for f in folders if f != "checkpoints")
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield file, f"runs/{file.relative_to(settings.runs_dir).as_posix()}"


def unpack(settings: Settings, archive: Path, schema: int) -> Path:
    """Unpack beside the workspace (or inside it, where its parent cannot be written) and return that folder; BadInput in words."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            _check(zipped, archive, schema)
            staged = _staging(settings)
            try:
                _extract(zipped, staged)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadInput(f"{archive.name} is not a whole zip file ({error}); choose a backup made by the studio.") from error
    except OSError as error:
        raise home.words(error, settings) from error
    return staged


def swap(settings: Settings, staged: Path) -> Path:
    """Move the workspace to `<home>.before-restore-<time>` and the unpacked one into its place."""
    kept = settings.home.with_name(f"{settings.home.name}.before-restore-{home.stamp()}")
    try:
        if staged.parent == settings.home:
            raise OSError("unpacked inside")
        settings.home.rename(kept)
    except OSError:  # a mount point, or a parent folder that cannot be written: move what is in it
        kept = settings.home / f"before-restore-{home.stamp()}"
        kept.mkdir()
        for entry in sorted(settings.home.iterdir()):
            if entry not in (kept, staged) and not entry.name.startswith("before-restore-"):
                entry.rename(kept / entry.name)
        for entry in sorted(staged.iterdir()):
            shutil.move(entry, settings.home / entry.name)
        shutil.rmtree(staged)
        return kept
    try:
        staged.rename(settings.home)
    except OSError:
        kept.rename(settings.home)
        raise
    return kept


def _staging(settings: Settings) -> Path:
    beside = settings.home.with_name(f"{settings.home.name}.restoring-{home.stamp()}")
    try:
        beside.mkdir(parents=True)
        return beside
    except PermissionError:
        inside = settings.home / f"restoring-{home.stamp()}"
        inside.mkdir(parents=True)
        return inside


def _check(zipped: zipfile.ZipFile, archive: Path, schema: int) -> None:
    manifest = _manifest(zipped, archive)
    if (
        manifest.get("alignment_studio_backup") != FORMAT
        or not isinstance(manifest.get("schema"), int)
        or manifest["schema"] > schema
    ):
        raise BadInput(f"{archive.name} was made by a newer Alignment Studio; update the studio, then restore it.")
    entries = zipped.infolist()
    for entry in entries:
        if not _is_ours(entry):
            raise BadInput(f"{archive.name} holds {entry.filename!r}, which no backup of the studio has; nothing was restored.")
    total, packed = sum(e.file_size for e in entries), archive.stat().st_size
    if (
        len(entries) > MAX_FILES
        or len({e.filename for e in entries}) != len(entries)
        or total > max(FREE_GROWTH, MAX_GROWTH * packed)
    ):
        raise BadInput(
            f"{archive.name} would unpack to {total / 1e9:.1f} GB in {len(entries)} files: no backup of the studio does."
        )


def _manifest(zipped: zipfile.ZipFile, archive: Path) -> dict[str, Any]:
    try:
        info = zipped.getinfo(MANIFEST)
        manifest = json.loads(zipped.read(info)) if info.file_size < 10_000 else None
    except (KeyError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or "alignment_studio_backup" not in manifest:
        raise BadInput(f"{archive.name} is not a backup of Alignment Studio; choose a file made with its backup button.")
    return manifest


def _is_ours(entry: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(entry.filename)
    kind = entry.external_attr >> 28
    plain = kind in (0, 0o10) and not entry.is_dir()  # a regular file: no link, device or folder entry
    inside = not name.is_absolute() and ".." not in name.parts and "\\" not in entry.filename and "\0" not in entry.filename
    known = entry.filename in (MANIFEST, "studio.duckdb") or (len(name.parts) > 1 and name.parts[0] in ("journal", "runs"))
    return plain and inside and known and str(name) == entry.filename


def _extract(zipped: zipfile.ZipFile, folder: Path) -> None:
    """Never more bytes than the directory of the archive declares (and `_check` has allowed)."""
    for entry in zipped.infolist():
        target = folder / entry.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        left = entry.file_size
        with zipped.open(entry) as source, target.open("xb") as out:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise zipfile.BadZipFile(f"{entry.filename} is longer than declared")
                out.write(block)
