"""DuckDB itself: how a file is opened and hardened, and what an error of the engine means. The only `import duckdb`.

Everything else works on the connection or cursor it is handed; who asks what went wrong asks here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from data.replay import BOOTSTRAP

Connection = duckdb.DuckDBPyConnection
EngineError = duckdb.Error
CONFIG = {
    "storage_compatibility_version": "v1.5.0",  # DuckDB 1.5 can read the file too: no one-way street
    "threads": "2",
    "memory_limit": "1GB",  # the default is 80 % of the machine: it would starve a training run
    "checkpoint_threshold": "1TB",  # the writer does it, when there is room: one that fails closes the database
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}


def connect(path: Path) -> Connection:
    con = duckdb.connect(str(path), config=dict(CONFIG))
    try:
        con.execute("set global TimeZone = 'UTC'")
        con.execute(BOOTSTRAP)
    except duckdb.Error:
        con.close()
        raise
    return con


def harden(con: Connection, folders: Sequence[Path]) -> None:
    """From here on SQL reaches no file outside these folders, whatever an imported text talks somebody into."""
    con.execute("set allowed_directories = [" + ", ".join(f"'{_quoted(f)}/'" for f in folders) + "]")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")


def copy_whole(raw: Connection, name: str, target: Path) -> None:
    """Write the database called `name` into a file of its own, as of one moment."""
    raw.execute(f"attach '{_quoted(target)}' as backup (storage_version 'v1.5.0')")
    try:
        raw.execute(f'copy from database "{name}" to backup')
    finally:
        raw.execute("detach backup")


def closed() -> EngineError:
    """What DuckDB raises for a connection that was closed, for one that is not there at all."""
    return duckdb.ConnectionException("Connection already closed")


def is_damage(error: EngineError) -> bool:
    """Whether the file on the disk is at fault."""
    return "Corrupt database file" in str(error) or "Could not read enough bytes" in str(error)


def is_broken(error: EngineError) -> bool:
    """Whether the file has to be opened anew before the engine answers again."""
    return is_damage(error) or isinstance(error, duckdb.FatalException | duckdb.ConnectionException)


def answers(con: Connection) -> bool:
    try:
        con.cursor().execute("select 1").fetchall()
        return True
    except duckdb.Error:
        return False


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
