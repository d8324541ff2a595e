"""From what a page asks for to a process: the run's folder with everything that makes it repeatable, then the child.

Before a child is started it is made sure that the run can be what its row says: a row may be years old, come out of a backup, or
have been forged by whoever made the workspace.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from data.errors import RunError
from data.records import Run
from data.rundir import RunDir, sha256_of
from studio import processes
from studio.warm import WarmStart
from training import reporting

GIT_S = 20.0
OWN_PACKAGES = frozenset({"data", "training", "labeling", "evals", "tests"})  # whose modules a run may be
PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "accelerate", "duckdb", "gradio")
KEY_GONE = (
    "The studio was restarted while this run waited, and a typed endpoint key is kept in memory only; "
    "type the key again and start the run again."
)
RESTORED = "This run was waiting when the backup was made, and a restored workspace starts nothing by itself; start the run again."
FOLDER_GONE = "The run's folder is gone; start the run again."
FOREIGN = "This run's module is not part of the studio, so it was not started."


class Child(Protocol):
    """A run's process that this server started."""

    pid: int

    def poll(self) -> int | None: ...


def why_not(run: Run, folder: Path, keys: Mapping[str, str]) -> str:
    """In words why a queued run cannot be started, '' when it can."""
    if set(run.config.get("env", [])) - keys.keys():
        return KEY_GONE
    if not (folder / "config.json").exists():
        return FOLDER_GONE
    if run.module.split(".")[0] not in OWN_PACKAGES:
        return FOREIGN
    return ""


def launch(run: Run, folder: Path, passed: Mapping[str, str], warm: WarmStart | None) -> Child:
    """Its process: forked from the warm one where that is ready and right, else a new one. OSError when there can be none."""
    args = run.config.get("args") or {}
    reports = reporting.variables(args.get("train"))
    env = processes.environment(passed, processes.key_variables(args) | reports)
    forked = warm.start(run.module, folder, env) if warm and not reports else None  # a reporter reads them when it is imported
    return forked or processes.spawn(run.module, folder, env)


def fill(folder: Path, config: dict[str, Any], files: Mapping[str, Path]) -> None:
    """Make the run's folder. The frozen data's hash is checked on the copy that the child will read."""
    run = RunDir.create(folder, config)
    for name, source in files.items():
        if Path(name).name != name:
            raise RunError(f"{name!r} is no plain file name.")
        shutil.copyfile(source, folder / name)
    data = config.get("data") or {}
    if data.get("file"):
        run.check_data(str(data["file"]), str(data.get("sha256") or sha256_of(folder / str(data["file"]))))


def versions() -> dict[str, str]:
    """The installed packages that decide what a run does."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": sys.version.split()[0], **{name: version for name, version in found.items() if version}}


def git() -> dict[str, Any]:
    """Commit of the code and whether tracked files differ from it; empty where it is no checkout (or git is missing, or hangs: no
    run waits for it)."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "", "dirty": None}


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=processes.ROOT, capture_output=True, text=True, check=True, timeout=GIT_S)
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
