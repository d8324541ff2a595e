"""The workspace's secret: what cookies are signed with. Made once, readable by its owner alone, in no backup and no export.

A file of its own rather than a row, because the database goes into backups.
"""

from __future__ import annotations

import os
import secrets

from data import home
from data.errors import WorkspaceError
from data.settings import Settings

NAME = "secret.key"
_LENGTH = 64  # hex digits


def read_or_make(settings: Settings) -> bytes:
    """The key; WorkspaceError in words when the file is damaged or cannot be written."""
    path = settings.home / NAME
    try:
        if not path.exists():
            part = path.with_suffix(".part")
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(_LENGTH // 2))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        os.chmod(path, 0o600)
        key = path.read_text("ascii", "replace").strip()
    except OSError as error:
        raise home.words(error, settings) from error
    if len(key) != _LENGTH:
        raise WorkspaceError(f"The file {path} is damaged; delete it and start again: everybody then signs in anew.")
    return key.encode()
