"""The numbered schema files, `schema/NNN_name.sql`, and whether a workspace fits them.

A file that was released is never edited: its sha256 is stored beside its number, and a workspace written with another text is
refused rather than guessed at. The next change is a new file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import WorkspaceError

SCHEMA_DIR = Path(__file__).parent / "schema"


class Migration(NamedTuple):
    version: int
    name: str
    sql: str
    sha256: str


def known(folder: Path = SCHEMA_DIR) -> list[Migration]:
    """All migrations this studio knows, in order."""
    files = sorted(folder.glob("[0-9][0-9][0-9]_*.sql"))
    return [Migration(int(f.name[:3]), f.name, f.read_text("utf-8"), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


def pending(applied: Sequence[Mapping[str, Any]], migrations: Sequence[Migration], where: Path) -> list[Migration]:
    """What is to be applied; WorkspaceError when the workspace is newer than this studio or made by another text of a migration."""
    by_version = {m.version: m for m in migrations}
    for row in applied:
        mine = by_version.get(int(row["version"]))
        if mine is None:
            raise newer_format(where, f"schema {row['version']}, this one knows {max(by_version)}")
        if mine.sha256 != row["sha256"]:
            raise WorkspaceError(
                f"The workspace {where} was made by another edition of the studio ({mine.name} differs); "
                "use the edition that made it, or choose a new folder with --home."
            )
    done = {int(row["version"]) for row in applied}
    return [m for m in migrations if m.version not in done]


def newer_format(where: Path, detail: str) -> WorkspaceError:
    return WorkspaceError(
        f"The workspace {where} was written by a newer Alignment Studio ({detail}); "
        "update the studio, or choose another folder with --home."
    )
