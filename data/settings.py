"""Where the studio keeps its things and on which address it answers; read once in `app.py`, never at import.

Frozen, so that no page can move the workspace while a run writes to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MAX_UPLOAD_BYTES = 200 * 1024 * 1024  # above this a browser upload is refused in favour of `<home>/import`
VISITOR_UPLOAD_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """`home` is the workspace; everything the studio writes lies below it."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 7860
    visitor: bool = False  # each browser gets a throw-away project of its own, with limits

    @property
    def db_path(self) -> Path:
        return self.home / "studio.duckdb"

    @property
    def journal_dir(self) -> Path:
        return self.home / "journal"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def import_dir(self) -> Path:
        """The only folder (beside `export_dir` and `runs_dir`) that the database may read files from."""
        return self.home / "import"

    @property
    def export_dir(self) -> Path:
        return self.home / "export"

    @property
    def max_upload_bytes(self) -> int:
        return VISITOR_UPLOAD_BYTES if self.visitor else MAX_UPLOAD_BYTES

    @property
    def is_loopback(self) -> bool:
        return self.host in {"127.0.0.1", "localhost", "::1"} or self.host.startswith("127.")


def read_settings(host: str | None = None, port: int | None = None, home: str | None = None, visitor: bool = False) -> Settings:
    """Flags win over the environment (`STUDIO_HOME`, `STUDIO_HOST`, `STUDIO_PORT`), which wins over the defaults.

    On a Space (`SPACE_ID` is set) visitor mode is on and the host is 0.0.0.0: the Space's proxy must reach the app.
    """
    on_space = bool(os.environ.get("SPACE_ID"))
    default_host = "0.0.0.0" if on_space else "127.0.0.1"
    return Settings(
        home=Path(home or os.environ.get("STUDIO_HOME") or "workspace").expanduser().resolve(),
        host=host or os.environ.get("STUDIO_HOST") or default_host,
        port=port if port is not None else int(os.environ.get("STUDIO_PORT") or 7860),
        visitor=visitor or on_space,
    )
