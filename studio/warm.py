"""The client of `training/warm.py`: runs that begin in a second, because a process with the imports done is forked for each.

It is only ever a shortcut. Where there is none (not asked for, not ready yet, died, memory is short, another system than Linux) or
where it would be a wrong one (the code or the surroundings have changed since it was started), `start` answers None, and the run
is started cold. A run belongs to nobody: neither the end of that process nor of this one touches it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from studio import processes
from training.warm import PADDING

NEEDS = 3 * 2**30  # bytes free before the imports are held ready; a run needs them more
ANSWER_S = 60.0  # a fork takes milliseconds; after so long something is wrong
GRACE_S = 5.0
PACKAGES = ("data", "training", "labeling", "evals")
log = logging.getLogger("studio.warm")


@dataclass
class Forked:
    """A run's process whose parent is the warm one, which tells how it ended."""

    pid: int
    _codes: dict[int, int]

    def poll(self) -> int | None:
        """Its exit code as Popen gives it; None while it is not known, and for good where the warm process ended first."""
        return self._codes.get(self.pid)


class Surroundings(NamedTuple):
    """What must not have changed between the imports and a run: the environment they read, and the code itself."""

    env: dict[str, str]
    code: int


@dataclass
class _Life:
    """One warm process."""

    process: subprocess.Popen[bytes]
    made_in: Surroundings
    ready: threading.Event = field(default_factory=threading.Event)
    pids: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)  # 0: no such process, or none ever
    codes: dict[int, int] = field(default_factory=dict)
    megabytes: int = 0

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def listen(self) -> None:
        """Until its stdout ends."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            with suppress(ValueError, KeyError):  # half a line: it was killed while it wrote
                self._hear(json.loads(raw))
        self.process.wait()
        self.ready.clear()
        self.pids.put(0)

    def _hear(self, said: dict[str, Any]) -> None:
        if "exit" in said:
            self.codes[int(said["exit"])] = int(said["code"])
        elif "ready" in said:
            self.megabytes = int(said["megabytes"])
            self.ready.set()
        else:
            pid = int(said.get("pid", 0))
            self.codes.pop(pid, None)  # of an earlier process with this number
            self.pids.put(pid)

    def ask(self, module: str, folder: Path, env: Mapping[str, str]) -> int:
        """The forked process's id; 0 where there is none."""
        line = json.dumps({"module": module, "folder": str(folder), "env": dict(env)}).encode() + b"\n"
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(line)
            self.process.stdin.flush()
            return self.pids.get(timeout=ANSWER_S)
        except (OSError, ValueError, queue.Empty):
            self.process.kill()
            self.process.wait()
            found = processes.find(folder)  # it may have been forked before all that
            return found.pid if found else 0

    def end(self) -> None:
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class WarmStart:
    """Safe from any thread. Nothing runs until `prepare()`."""

    def __init__(self, log_file: Path, bare: bool = False) -> None:
        self._log_file, self._bare = log_file, bare
        self._life: _Life | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def ready(self) -> bool:
        life = self._life
        return life is not None and life.ready.is_set() and life.alive

    @property
    def megabytes(self) -> int:
        """What the warm process held when its imports were done, 0 while there is none."""
        life = self._life
        return life.megabytes if life is not None and life.alive else 0

    def prepare(self) -> None:
        """Have the imports done, in the background, unless they are; returns at once."""
        with self._lock:
            self._prepare(surroundings())

    def start(self, module: str, folder: Path, env: Mapping[str, str]) -> Forked | None:
        """The run's process, forked; None where a cold one is to be started instead."""
        with self._lock:
            life, now = self._life, surroundings()
            if life is None or not life.ready.is_set() or not life.alive:
                return None
            if life.made_in.code != now.code or not _fits(env, life.made_in.env):
                self._prepare(now)
                return None
            pid = life.ask(module, folder, env)
            return Forked(pid, life.codes) if pid else None

    def close(self) -> None:
        """End the warm process; its runs go on."""
        with self._lock:
            self._closed, life, self._life = True, self._life, None
        if life is not None:
            life.end()

    def _prepare(self, now: Surroundings) -> None:
        life = self._life
        if life is not None and life.alive:
            if life.made_in == now:
                return
            life.end()
        if self._closed or not sys.platform.startswith("linux") or psutil.virtual_memory().available < NEEDS:
            return
        try:
            self._life = self._begin(now)
        except (OSError, RuntimeError) as error:  # no memory for a process, or for the thread that listens to it
            log.warning("runs will start cold: %s", error)

    def _begin(self, now: Surroundings) -> _Life:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "training.warm", PADDING, *(["--bare"] if self._bare else [])],
                cwd=processes.ROOT,
                env=now.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the app
            )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, processes.NICENESS)
        life = _Life(process, now)
        threading.Thread(target=life.listen, name="warm-start", daemon=True).start()
        return life


def surroundings() -> Surroundings:
    """Those of now. The code is known by the time and size of every file that a run may import from this studio."""
    files = sorted(file for package in PACKAGES for file in (processes.ROOT / package).rglob("*.py"))
    stats = []
    for file in files:
        with suppress(FileNotFoundError):  # another is just being put in its place
            stats.append((str(file), (stat := file.stat()).st_mtime_ns, stat.st_size))
    return Surroundings(processes.environment({}, ()), hash((*stats, Path(psutil.__file__).parent.parent.stat().st_mtime_ns)))


def _fits(env: Mapping[str, str], imported_in: Mapping[str, str]) -> bool:
    """Whether the libraries were imported in what `env` is but for keys and the choice of a GPU, which are read later."""
    wanted = {name: env[name] for name in env if name in imported_in or processes.is_passed_on(name)}
    choice = "CUDA_VISIBLE_DEVICES"
    return {**wanted, choice: ""} == {**imported_in, choice: ""}
