"""Where copies of the workspace go (`data/copies.py`): a folder, such as the mount of a storage bucket, or a data set of the hub.

What is put there is either in memory, a piece of the journal, or a file of this machine, which is streamed: a run may have left a
model of gigabytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from data.errors import WorkspaceError

Content = bytes | Path  # what is in memory, or a file to stream


class Place(Protocol):
    """Where copies go. Every call may raise OSError or StudioError, in words."""

    name: str

    @property
    def every_s(self) -> float:
        """Seconds from one look for what is new to the next."""

    def sizes(self) -> Mapping[str, int]:
        """Every file there and its size in bytes."""

    def put(self, files: Mapping[str, Content]) -> None:
        """Write new files, in this order; there for good when it returns."""

    def get(self, name: str) -> bytes: ...

    def fetch(self, name: str, target: Path) -> None:
        """The file as `target`, whose folder is there, without ever holding all of it."""

    def remove(self, names: Iterable[str]) -> None: ...


class FolderPlace:
    """A folder, such as the mount of a storage bucket: files are written once, whole, and closed."""

    every_s = 5.0

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def sizes(self) -> dict[str, int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = (f for part in ("journal", "runs") for f in (self.folder / part).rglob("*") if f.is_file())
        return {f.relative_to(self.folder).as_posix(): f.stat().st_size for f in found}

    def put(self, files: Mapping[str, Content]) -> None:
        for name, content in files.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write(target, content)
            except OSError:
                with suppress(OSError):
                    target.unlink()  # half of it is none, and keeps a full place from taking the labels
                raise

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def fetch(self, name: str, target: Path) -> None:
        shutil.copyfile(self.folder / name, target)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


def _write(target: Path, content: Content) -> None:
    with target.open("wb") as f:
        if isinstance(content, Path):
            with content.open("rb") as source:
                shutil.copyfileobj(source, f)
        else:
            f.write(content)
        f.flush()
        os.fsync(f.fileno())


def place_of(name: str) -> Place:
    """The place that the settings name; WorkspaceError in words when it can be none."""
    from data.copies_hub import PREFIX, HubPlace

    if name.startswith(PREFIX):
        return HubPlace(name)
    if "://" in name:
        raise WorkspaceError(f"{name!r} is no place for copies; write a folder, or {PREFIX}owner/name.")
    return FolderPlace(Path(name).expanduser().resolve())
