"""Child processes of runs: starting one detached, telling it from a stranger with the same number, ending it with all its helpers.

A run outlives the server, so nothing here relies on being its parent. A pid alone may belong to somebody else by now: a process
is ours only when its create time fits and its command line names the run's folder. A zombie is dead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
NICENESS = 10
SAME_TIME_S = 5.0  # the create time is computed from the boot time, which a clock correction shifts
PASSED_ON = frozenset(
    {"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT"}
    | {"STUDIO_LLAMA_CPP"}  # where `training/gguf.py` looks for the converter
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "XDG_CACHE_HOME"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"}
)
PASSED_ON_PREFIXES = (
    "LC_",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "TORCH",
    "PYTORCH_",
    "CUDA_",
    "NVIDIA_",
    "OMP_",
    "MKL_",
    "NCCL_",
)
ALWAYS = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


class Process(NamedTuple):
    """`created` is seconds since the epoch, as the system reports it."""

    pid: int
    created: float


def spawn(module: str, folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`python -m module folder` in a session of its own, nice, its output in the folder's stdout.log."""
    with (folder / "stdout.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with suppress(OSError):  # gone already; the reader of its log will say why
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    return process


def environment(passed: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """What a child may know of this process's surroundings: a short list, the variables `names` that its endpoints' keys are
    in, and `passed` (keys that are held in memory)."""
    wanted = set(names)
    mine = {name: value for name, value in os.environ.items() if name in wanted or is_passed_on(name)}
    return {**mine, **ALWAYS, **passed}


def is_passed_on(name: str) -> bool:
    """Whether every child gets this variable of ours."""
    return name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)


def key_variables(config: Any) -> set[str]:
    """The environment variables that the specs anywhere in a config name as holding a key."""
    if isinstance(config, Mapping):
        own = {config["key_env"]} if isinstance(config.get("key_env"), str) and config["key_env"] else set()
        return own.union(*(key_variables(value) for value in config.values()))
    if isinstance(config, list | tuple):
        return set().union(*(key_variables(value) for value in config))
    return set()


def created(pid: int) -> float:
    """The create time of a living process, 0.0 when there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def is_alive(process: Process, folder: Path) -> bool:
    """Whether the run's own process is still there and no zombie."""
    try:
        found = psutil.Process(process.pid)
        if found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - process.created) > SAME_TIME_S:
            return False
        return _names(found, folder)
    except (psutil.Error, ValueError):
        return False


def find(folder: Path) -> Process | None:
    """The process that works in the folder, whoever started it; of several that train together the one that started the others."""
    working = []
    for found in psutil.process_iter(["status"]):
        with suppress(psutil.Error):
            if found.info["status"] != psutil.STATUS_ZOMBIE and _names(found, folder) and os.getpgid(found.pid) == found.pid:
                working.append(Process(found.pid, float(found.create_time())))
    return min(working, key=lambda each: each.created, default=None)


def end(process: Process, folder: Path, with_signal: signal.Signals) -> bool:
    """Signal the run's whole process group; False, and nothing done, when the process is not (or no more) the run's."""
    if not is_alive(process, folder):
        return False
    with suppress(ProcessLookupError):
        os.killpg(process.pid, with_signal)
    return True


def _names(process: psutil.Process, folder: Path) -> bool:
    return str(folder) in process.cmdline()
