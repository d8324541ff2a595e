"""Past one device: the same run folder trained by several processes, here or elsewhere.

`python -m training.launch RUN_DIR` trains a run whose args hold a `launch` (see `Launch`) by `accelerate launch` on this machine.
It is the run's own process: it starts the others, hears SIGTERM, and ends them all, with a sentence, when one of them has failed.
Everything else is a pure function from a launch to an argument list; the files for clusters are in `training/launch_files.py`, a
Ray job is `training/ray_job.py`. No command is ever put together as a string. Free of torch.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from data.errors import BadInput, RunError, StudioError
from data.resume import last_life
from data.rundir import FINAL_STATUS, LOOK_S, RunDir, read_events, signal_name
from training.methods import short_name

Kind = Literal["accelerate", "ray", "slurm", "skypilot", "hf_jobs"]
Preset = Literal["ddp", "fsdp", "zero2", "zero3"]
ROOT = Path(__file__).resolve().parent.parent
PRESETS = Path("training") / "launch_presets"  # relative to the root, where every command is run
MOST = 1024  # processes
WHOLE = ("training.orpo", "training.simpo")  # our own step, which cuts up no weights
LEAVE_S = 20.0  # how long the others may go on once the first has said its end
_LOST = re.compile(  # what a process says when it is another that has failed
    r"closed by peer|connection reset|broken pipe|connection refused|socket timeout|ncclRemoteError|NCCL error|NCCL communicator"
    r"|DistBackendError|DistNetworkError|watchdog|recvValue failed|timed out waiting",
    re.IGNORECASE,
)
_EXIT = re.compile(r"rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*(-\d+)")


@dataclass(frozen=True)
class Launch:
    """How many processes train a run and what starts them. `devices`: processes a machine, one for each GPU."""

    kind: Kind = "accelerate"
    preset: Preset = "ddp"
    devices: int = 2
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.preset not in get_args(Preset):
            raise BadInput("There is no such way to train on several devices; choose one from the list.")
        for name, value in (("devices", self.devices), ("machines", self.nodes)):
            if type(value) is not int or not 1 <= value <= MOST:
                raise BadInput(f"The number of {name} must be a whole number from 1 to {MOST}.")
        if self.kind == "ray" and self.preset != "ddp":
            raise BadInput("As a Ray job the whole model is on every device; choose that, or accelerate for cut up weights.")

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Launch:
        unknown = sorted(set(raw) - {f.name for f in fields(Launch)})
        if unknown:
            raise BadInput(f"A launch has no setting {unknown[0]!r}.")
        return Launch(**raw)


def check_method(module: str, launch: Launch) -> None:
    """BadInput where the method cannot be trained so."""
    if module in WHOLE and launch.preset != "ddp":
        raise BadInput(f"{short_name(module.rpartition('.')[2])} trains in whole copies of the model; choose “Whole copies (DDP)”.")


def accelerate_argv(module: str, run_dir: str, launch: Launch) -> list[str]:
    """`accelerate launch` of a run on one machine; run it in the studio's folder."""
    return [*_accelerate(launch), "--main_process_port", "0", "--module", module, run_dir]


def accelerate_argv_of_node(module: str, run_dir: str, launch: Launch, rank: str, head: str, port: str) -> list[str]:
    """The same on each of several machines: its number, and the first one's address."""
    where = ["--machine_rank", rank, "--main_process_ip", head, "--main_process_port", port]
    return [*_accelerate(launch), *where, "--module", module, run_dir]


def _accelerate(launch: Launch) -> list[str]:
    config = (PRESETS / f"{launch.preset}.yaml").as_posix()
    several = ["--num_processes", str(launch.processes), "--num_machines", str(launch.nodes)]
    return ["accelerate", "launch", "--config_file", config, *several]


def ray_argv(run_dir: str, launch: Launch, address: str = "") -> list[str]:
    """A Ray job over a cluster that runs (`address`), or over one of its own on this machine."""
    there = ["--address", address] if address else []
    return ["python", "-m", "training.ray_job", run_dir, "--processes", str(launch.processes), *there]


# --- on this machine ----------------------------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """What one of the processes said before it ended."""

    at: str
    rank: int
    words: str


def main(run: RunDir) -> int:
    """Train by several processes of this machine; the exit code. Writes to the run's events only when they have all ended."""
    signal.signal(signal.SIGTERM, lambda *_: run.request_stop())
    try:
        launch, module = of_run(run)
        argv = accelerate_argv(module, str(run.path), launch)
        # The module instead of the script beside it: that is the one that belongs to this Python.
        child = subprocess.Popen(
            [sys.executable, "-m", "accelerate.commands.launch", *argv[2:]], cwd=ROOT, env=surroundings(os.environ)
        )
        code = _wait(run, child)
    except StudioError as error:
        run.event("error", message=str(error))
        run.event("status", status="failed")
        return 1
    return conclude(run, launch.processes, code)


def of_run(run: RunDir, given: Launch | None = None) -> tuple[Launch, str]:
    """The launch in a run's args, or the one `given` in its place, and the module of the run's method."""
    config = run.config()
    raw = (config.get("args") or {}).get("launch")
    if given is None and not isinstance(raw, Mapping):
        raise RunError("The run's config.json does not say on how many devices it is trained; start the run again.")
    for old in run.path.glob("rank-*.jsonl"):
        old.unlink()  # said in an earlier life of the folder
    if End(run).is_said():  # by hand, where no studio has said that it goes on: that end would count for this life's
        run.event("status", status="queued")
    launch, module = given or Launch.from_json(raw or {}), f"training.{config.get('kind')}"
    check_method(module, launch)
    return launch, module


def surroundings(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes: they speak to each other on this machine only, and end when this process does."""
    loop = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**env, **loop, "STUDIO_LAUNCHER": str(os.getpid()), "PYTHONPATH": str(ROOT)}


def _wait(run: RunDir, child: subprocess.Popen[bytes]) -> int:
    """Until all have ended; what hangs once the first process has said its end is ended, if need be by force."""
    leave_at, end = 0.0, End(run)
    harder = iter((child.terminate, child.kill))  # the processes end by themselves once who started them is gone
    while (code := child.poll()) is None:
        if not leave_at and end.is_said():
            leave_at = time.monotonic() + LEAVE_S
        if leave_at and time.monotonic() > leave_at:
            next(harder, child.kill)()
            leave_at = time.monotonic() + 2 * LEAVE_S  # accelerate itself waits for them before it ends them by force
        time.sleep(LOOK_S)
    return code


class End:
    """Whether the first process has said how the run ended; asked often, so that no event is read twice."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._read_to = run, 0
        self._said: list[Mapping[str, Any]] = []

    def is_said(self) -> bool:
        new = self._run.tail(self._read_to)
        self._read_to = new.offset
        self._said = last_life([*self._said, *(event for event in new.events if event.get("type") == "status")])
        return any(event.get("status") in FINAL_STATUS for event in self._said)


def statuses(run: RunDir) -> list[str]:
    """What the first process has said of this life of the run."""
    return [str(event.get("status")) for event in last_life(run.tail().events) if event.get("type") == "status"]


def conclude(run: RunDir, processes: int, code: int, otherwise: str = "") -> int:
    """The end of the run in words, once all processes have ended with `code`; what the first said stands unless another failed.

    `otherwise`: the sentence where none of the processes left one.
    """
    said = statuses(run)
    if said and said[-1] in ("finished", "stopped"):
        return 0
    if run.stop_requested and code != 0 and not failures(run):
        return 0  # ended in the middle, as was asked for
    run.event("error", message=why(failures(run), run.log_tail(), processes, otherwise))
    run.event("status", status="failed")
    return 1


def failures(run: RunDir) -> list[Failure]:
    """What the processes said of why they failed, in the order of time."""
    others = [(int(file.stem[5:]), event) for file in run.path.glob("rank-*.jsonl") for event in read_events(file.read_bytes())]
    first = [(0, event) for event in last_life(run.tail().events) if event.get("type") == "error"]
    return sorted(Failure(str(event.get("at", "")), rank, str(event.get("message", ""))) for rank, event in (*first, *others))


def why(failed: Sequence[Failure], log: str, processes: int, otherwise: str = "") -> str:
    """The sentence for the page: the first that failed for a reason of its own, or the one that was killed."""
    own = [failure for failure in failed if not _LOST.search(failure.words)]
    if own:
        others = f" (process {own[0].rank + 1} of {processes}; all were ended)" if own[0].rank else ""
        return own[0].words + others
    for rank, code in _EXIT.findall(log):
        if int(code) == -signal.SIGTERM:
            continue  # ended because of another
        killed = int(code) == -signal.SIGKILL
        how = "was killed, most likely because memory ran out" if killed else f"crashed ({signal_name(-int(code))})"
        return f"Process {int(rank) + 1} of {processes} {how}, so all were ended; halve the batch size and start the run again."
    return (
        otherwise
        or f"One of the {processes} processes ended without a word, so all were ended; what it printed is in the run's folder."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    sys.exit(main(RunDir(parser.parse_args().run_dir)))
