"""The workspace folder: making it, holding it against a second app, and saying in words what is wrong with it.

A lock file of our own is taken before anything is read: DuckDB's lock would only be met after the copy that is set aside before
a recovery.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from data.errors import WorkspaceError
from data.settings import Settings

FULL = {errno.ENOSPC, errno.EDQUOT}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


def lock(settings: Settings) -> IO[bytes]:
    """Make the folders and hold the workspace until the returned file is closed (or the process dies)."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        file = (settings.home / "studio.lock").open("ab+", buffering=0)
    except OSError as error:
        raise words(error, settings) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for folder in (settings.journal_dir, settings.runs_dir, settings.import_dir, settings.export_dir):
            folder.mkdir(exist_ok=True)
        os.utime(file.fileno())  # a read-only mount lets an existing file be opened and locked
        file.truncate(0)
        with suppress(OSError):  # a full disk: the number is only a courtesy
            file.write(str(os.getpid()).encode())
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().decode("ascii", "replace").strip()
        file.close()
        raise WorkspaceError(
            f"The workspace {settings.home} is open in another app{f' (process {holder})' if holder else ''}; "
            "close that one, or choose another folder with --home."
        ) from error
    except OSError as error:
        file.close()
        raise words(error, settings) from error
    return file


def words(error: Exception, settings: Settings) -> WorkspaceError:
    """A failure of the file system as one sentence that says what to do."""
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        return _full(settings)
    if number in READ_ONLY:
        return _read_only(settings)
    if number in NOT_A_FOLDER:
        return WorkspaceError(f"The workspace {settings.home} is a file, not a folder; choose a folder with --home.")
    return words_for_message(str(error), settings) or WorkspaceError(
        f"The workspace {settings.home} cannot be used ({error}); check the disk, or choose another folder with --home."
    )


def words_for_message(message: str, settings: Settings) -> WorkspaceError | None:
    """The same for what the database engine reports in text; None when it is not about the folder."""
    if "No space left" in message or "Disk quota" in message:
        return _full(settings)
    if "Read-only file system" in message or "Permission denied" in message:
        return _read_only(settings)
    if "Could not set lock" in message or "Conflicting lock" in message:
        return WorkspaceError(
            f"The workspace {settings.home} is open in another app; close that one, or choose another folder with --home."
        )
    if "database file with version number" in message or "storage version" in message.lower():
        return WorkspaceError(
            f"The workspace {settings.home} was written by a newer database engine; "
            "update the studio, or choose another folder with --home."
        )
    return None


def _full(settings: Settings) -> WorkspaceError:
    return WorkspaceError(f"The disk of the workspace {settings.home} is full; free some space and try again, nothing was changed.")


def _read_only(settings: Settings) -> WorkspaceError:
    return WorkspaceError(
        f"The workspace {settings.home} cannot be written to; make it writable, or choose another folder with --home."
    )


def wal_of(path: Path) -> Path:
    """DuckDB's own log beside its file; its presence at the start means that the app did not end in an orderly way."""
    return path.with_name(path.name + ".wal")


def set_aside(settings: Settings, keep: bool) -> None:
    """Copy (`keep`) or move the database and its log to `before-recovery/`, in place of the last such copy.

    A full disk skips the copy: the journal is the safety net, this is the second one.
    """
    files = [file for file in (settings.db_path, wal_of(settings.db_path)) if file.exists()]
    if keep and shutil.disk_usage(settings.home).free < 2 * sum(file.stat().st_size for file in files):
        return
    folder = settings.home / "before-recovery"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in files:
        if keep:
            shutil.copyfile(file, folder / file.name)
        else:
            file.replace(folder / file.name)


def sync(path: Path) -> None:
    """Make a file, or a folder's list of names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")


class Gate:
    """Readers pass through; `closed()` waits until they are out and meanwhile keeps new ones waiting, who would else follow each
    other for ever."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._closing = 0  # who has closed it or waits to
        self._closed_by = 0

    @contextmanager
    def through(self, giving_back: bool = False) -> Iterator[None]:
        """`giving_back`: what was read with, maybe by the garbage collector in a thread that is inside or waits to close: so it
        waits for nobody who only waits."""
        me = threading.get_ident()
        with self._condition:
            self._condition.wait_for(lambda: self._closed_by == me or not (self._closed_by if giving_back else self._closing))
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        with self._condition:
            self._closing += 1
        try:
            with self._condition:
                self._condition.wait_for(lambda: not self._inside and not self._closed_by)
                self._closed_by = threading.get_ident()
            try:
                yield
            finally:
                self._closed_by = 0
        finally:
            with self._condition:
                self._closing -= 1
                self._condition.notify_all()
