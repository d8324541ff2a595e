"""Where the studio keeps its things and on which address it answers; read once in `app.py`, never at import.

Frozen, so that no page can move the workspace while a run writes to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    accounts: bool | None = None  # people sign in; None = where the workspace has accounts (`studio.context.open_studio` decides)
    public_names: frozenset[str] = frozenset()  # names under which a proxy hands requests to a loopback address
    backup: str = ""  # where the journal is copied to (`data/copies.py`): a folder, or hf://datasets/owner/name
    on_space: bool = False  # the disk goes with the machine
    proxies: frozenset[str] = frozenset({"127.0.0.1", "::1"})  # who is believed for whom it asks (`studio/proxy.py`)
    warm_start: bool = False  # hold the libraries ready for runs (`training/warm.py`); some hundred MB

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


def read_settings(
    host: str | None = None,
    port: int | None = None,
    home: str | None = None,
    visitor: bool = False,
    accounts: bool | None = None,
    public_names: Iterable[str] = (),
    backup: str | None = None,
) -> Settings:
    """Flags win over the environment (`STUDIO_HOME`, `STUDIO_HOST`, `STUDIO_PORT`, `STUDIO_ACCOUNTS`, `STUDIO_BACKUP`,
    `STUDIO_WARM_START`, `FORWARDED_ALLOW_IPS`), which wins over the defaults.

    On a Space (`SPACE_ID` is set) the host is 0.0.0.0, since the Space's proxy must reach the app (nobody else can, so whoever
    asks is that proxy), and visitor mode is on,
    unless accounts are asked for and people can sign in with Hugging Face. Any other address that is not this machine's own
    needs accounts.
    """
    on_space = bool(os.environ.get("SPACE_ID"))
    if accounts is None and os.environ.get("STUDIO_ACCOUNTS") == "1":
        accounts = True
    if on_space and not os.environ.get("OAUTH_CLIENT_ID"):
        accounts = False
    settings = Settings(
        home=Path(home or os.environ.get("STUDIO_HOME") or "workspace").expanduser().resolve(),
        host=host or os.environ.get("STUDIO_HOST") or ("0.0.0.0" if on_space else "127.0.0.1"),
        port=port if port is not None else int(os.environ.get("STUDIO_PORT") or 7860),
        visitor=visitor or (on_space and not accounts),
        accounts=accounts,
        public_names=frozenset(name.strip().lower().rstrip(".") for name in public_names if name.strip()),
        backup=backup or os.environ.get("STUDIO_BACKUP") or "",
        on_space=on_space,
        proxies=frozenset({"*"}) if on_space else _proxies(),
        warm_start=os.environ.get("STUDIO_WARM_START") != "0",
    )
    if accounts is None and not settings.visitor and not settings.is_loopback:
        return replace(settings, accounts=True)
    return settings


def _proxies() -> frozenset[str]:
    named = os.environ.get("FORWARDED_ALLOW_IPS", "")
    return frozenset(part.strip() for part in named.split(",") if part.strip()) or Settings.proxies
