"""The folder that files are imported from: what may be read, how an upload gets there, what lies in it.

Nothing outside the workspace's own folders is ever read, whatever a path, a link or a file name says. A visitor's uploads (and
exports) lie in folders of their own, out of other visitors' reach, and go with the visitor.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from data import home
from data.errors import BadInput, LimitReached
from data.readers import SUFFIXES
from data.rundir import sha256_of
from data.settings import Settings

MAX_NAME = 100
CHUNK = 1 << 20


class ImportFile(NamedTuple):
    path: Path
    name: str
    size: int
    modified: datetime


def folder_of(folder: Path, owner: str = "") -> Path:
    """Where in the import or export folder this person's files go; a visitor's (`owner`) under the hash of their id."""
    return folder / "visitors" / hashlib.sha256(owner.encode()).hexdigest()[:32] if owner else folder


def resolve(settings: Settings, path: Path, owner: str = "") -> Path:
    """The real path of a file that may be read. A relative path means one in the import folder, else (`runs/...`, what a run
    fetched) in the workspace. BadInput for any other."""
    folder = folder_of(settings.import_dir, owner)
    allowed = [folder] if owner else [folder, settings.runs_dir, settings.export_dir]
    name = path.name or path
    try:
        there = folder / path
        real = (settings.home / path if not owner and not there.exists() else there).resolve(strict=True)
        inside = any(real.is_relative_to(root.resolve()) for root in allowed)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: a NUL in the name
        if owner:
            raise BadInput(f"{name} is not among your files; upload it first.") from error
        raise BadInput(f"{name} is not in the import folder {settings.import_dir}; copy it there first.") from error
    if not inside and owner:
        raise BadInput(f"{name} is not among your files; upload it first.")
    if not inside:
        raise BadInput(f"{name} lies outside the import folder (or is a link that leads out); copy it to {settings.import_dir}.")
    if not real.is_file():
        raise BadInput(f"{name} is not an ordinary file; choose a file with rows.")
    return real


def copy_upload(settings: Settings, source_path: Path, name: str, owner: str = "") -> Path:
    """Copy an upload into the import folder, all or nothing; the same content under the same name is kept once.

    LimitReached above the limit for uploads, WorkspaceError when the disk is full or read-only.
    """
    _check_size(settings, source_path, name)
    folder = folder_of(settings.import_dir, owner)
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with source_path.open("rb") as source, part.open("xb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        _check_size(settings, part, name)
        return _placed(part, folder, safe_name(name))
    except OSError as error:
        raise home.words(error, settings) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """A file name without folders, hidden dots or odd characters, its ending kept."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(".-")
    stem, dot, ending = base.partition(".")
    ending = ending[-20:] if dot else ""
    stem = stem[:MAX_NAME] or "upload"
    return f"{stem}.{ending}" if ending else stem


def files(settings: Settings, owner: str = "") -> list[ImportFile]:
    """What can be imported from the folder, newest first."""
    folder, found = folder_of(settings.import_dir, owner), []
    for path in folder.iterdir() if folder.is_dir() else []:
        name = path.name.lower().removesuffix(".gz")
        if path.name.startswith(".") or not name.endswith(SUFFIXES) or path.is_symlink() or not path.is_file():
            continue
        stat = path.stat()
        found.append(ImportFile(path, path.name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)))
    return sorted(found, key=lambda file: file.modified, reverse=True)


def keep_newest(settings: Settings, owner: str, most: int) -> None:
    """Remove all but a visitor's `most` newest uploads."""
    folder = folder_of(settings.import_dir, owner)
    found = [path for path in folder.iterdir() if path.is_file()] if owner and folder.is_dir() else []
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)[most:]:
        path.unlink(missing_ok=True)


def forget(settings: Settings, owner: str) -> None:
    """Remove a visitor's files: what they uploaded and what was made for them to download."""
    if owner:
        for folder in (settings.import_dir, settings.export_dir):
            shutil.rmtree(folder_of(folder, owner), ignore_errors=True)


def _check_size(settings: Settings, path: Path, name: str) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise BadInput(f"The upload of {name[:MAX_NAME]} did not arrive; upload it again.") from error
    limit = settings.max_upload_bytes
    if size <= limit:
        return
    where = (
        "run the studio on your own machine for larger ones"
        if settings.visitor
        else f"copy it to {settings.import_dir}, where a file of any size is read from"
    )
    raise LimitReached(f"{safe_name(name)} has {size / 2**20:,.1f} MB and uploads may have {limit / 2**20:,.0f} MB: {where}.")


def _placed(part: Path, folder: Path, name: str) -> Path:
    """The part under its name, or under name-2, name-3 ... when another content has it."""
    stem, dot, ending = name.partition(".")
    digest, number = sha256_of(part), 1
    while True:
        target = folder / (name if number == 1 else f"{stem}-{number}{dot}{ending}")
        try:
            target.open("xb").close()  # reserves the name: two uploads at once do not overwrite each other
        except FileExistsError:
            if target.is_file() and not target.is_symlink() and sha256_of(target) == digest:
                return target
            number += 1
            continue
        part.replace(target)
        return target
