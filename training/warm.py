"""A process that has done the imports and waits: each run is forked from it, and begins where a cold one arrives after seconds.

    python -m training.warm PADDING [--bare]     started by `studio/warm.py`; speaks JSON lines, ends when its stdin does

PADDING makes room in the command line; --bare leaves the imports out, for tests.

asked:   {"module", "folder", "env"}   a run, as `python -m module folder` would be one
said:    {"ready", "megabytes"}        the imports are done
         {"pid"} or {"error"}          one for each run asked for, in order
         {"exit", "code"}              a run's process has ended

A run must not be able to tell that it was forked, nor anybody who looks at it: it is a session of its own, has the environment it
was given and no other, prints to its folder's log, and its command line is the one a cold run has, written over this process's, so
that what recognises a run by its folder (`studio/processes.py`) needs to know nothing of forks. It goes on when this process or
the server ends. Linux only.

Nothing here may start threads or touch a GPU before the fork, which neither survives. Importing bitsandbytes (and peft, which does)
asks a GPU for its properties, so where there is one these are left to the run. A run that finds its GPU touched all the same
becomes a cold one.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

PADDING = "." * 8192  # in this process's command line, for those of its runs to be written over
IDLE_S = 1800.0  # after so long without a run the memory is given back
SET_AT_IMPORT = ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM")  # by training/__init__.py
EVERYWHERE = (
    "pyarrow.parquet",
    "torch.utils.data",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "datasets",
)
WITHOUT_GPU = ("bitsandbytes", "peft", "trl.trainer.sft_trainer", "training.callbacks", "training.preference_trainer")


class Asked(NamedTuple):
    """A run to fork."""

    module: str
    folder: str
    env: dict[str, str]

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, self.folder]


def main() -> None:
    """Import, then fork a run for each line; in a forked process this returns from `serve` with what it is to be."""
    out = os.dup(1)  # what libraries print goes to the log, the lines to their reader
    os.dup2(2, 1)
    asked = serve(out)
    if asked is not None:
        run(asked)


def serve(out: int) -> Asked | None:
    """Until stdin ends: None. In a run's own process: the run."""
    if "--bare" not in sys.argv:
        import_all()
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say(out, ready=True, megabytes=_megabytes())
    rest, going = b"", 0
    while True:
        heard, _, _ = select.select([0, bell], [], [], None if going else IDLE_S)
        if bell in heard:
            os.read(bell, 4096)
            for pid, code in _ended():
                going -= 1
                _say(out, exit=pid, code=code)
        if heard and 0 not in heard:
            continue
        block = os.read(0, 65536) if heard else b""
        if not block:
            return None
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            asked = Asked(**json.loads(line))
            pid = fork(asked, [out, bell, ring])
            if pid == 0:
                return asked
            going += pid > 0
            _say(out, **({"pid": pid} if pid > 0 else {"error": "the process could not be made a run"}))


def import_all() -> None:
    """The libraries that runs use, as far as they can be loaded before a fork."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # whether there is a GPU is asked without touching it
    for name in EVERYWHERE:
        importlib.import_module(name)
    import torch

    if not torch.cuda.is_available():
        for name in WITHOUT_GPU:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in every run would copy all of this process's memory


def fork(asked: Asked, inherited: Sequence[int]) -> int:
    """The new process's id, -1 where it ended at once; 0 in the new process, which is set up as a run."""
    became, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(became)
        try:
            become(asked, inherited)
        except BaseException:  # at once: what libraries do at the end of a process is not for a copy of it
            traceback.print_exc()
            os._exit(1)
        os.write(told, b"1")
        os.close(told)
        return 0
    os.close(told)
    fine = os.read(became, 1)
    os.close(became)
    if not fine:
        os.waitpid(pid, 0)  # here, for `_ended` counts runs
        return -1
    return pid


def become(asked: Asked, inherited: Sequence[int]) -> None:
    """Make this forked process what `python -m module folder` is, but for the imports that are done."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in inherited:
        os.close(each)
    name_process(asked.command)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(asked.folder) / "stdout.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    mine = {name: os.environ[name] for name in SET_AT_IMPORT if name in os.environ}
    os.environ.clear()
    os.environ.update(mine | asked.env)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def run(asked: Asked) -> None:
    """What `python -m` does."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda._is_in_bad_fork():
        os.execve(sys.executable, asked.command, dict(os.environ))
    sys.argv = [asked.module, asked.folder]
    runpy.run_module(asked.module, run_name="__main__", alter_sys=True)


def name_process(command: Sequence[str]) -> None:
    """Write `command` over this process's command line, as `ps` and psutil read it; OSError where there is no room for it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, the 48th and 49th of proc(5)
    line = b"\0".join(os.fsencode(part) for part in command) + b"\0"
    if not start or len(line) > end - start:
        raise OSError("the command line is too long for this process")
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, line, len(line))


def _ended() -> list[tuple[int, int]]:
    """Runs that have ended since the last time, with their exit code, negative for a signal."""
    found = []
    with suppress(ChildProcessError):
        while (gone := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((gone[0], os.waitstatus_to_exitcode(gone[1])))
    return found


def _say(out: int, **what: Any) -> None:
    with suppress(BrokenPipeError):  # the reader is gone, and so will be stdin
        os.write(out, json.dumps(what).encode() + b"\n")


def _megabytes() -> int:
    """Memory held by this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


if __name__ == "__main__":
    main()
