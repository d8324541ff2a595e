"""A run as a Ray job: `python -m training.ray_job RUN_DIR [--processes N] [--address auto]`.

Ray Train's TorchTrainer starts the processes and joins them; each does what `python -m training.<method> RUN_DIR` does, so the
first one writes the run's events and all else is as on one device. Without an address Ray runs on this machine alone: loopback
only, no dashboard, nothing reported to anybody. On a cluster the run folder must lie on storage that every machine sees under the
same path. Ray is an extra: `pip install -r requirements-scale.txt`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import secrets
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from data.errors import RunError, StudioError
from data.rundir import LOOK_S, RunDir, apart, work
from training.launch import LEAVE_S, ROOT, End, Launch, conclude, of_run, statuses


def main(run: RunDir, processes: int = 0, address: str = "") -> int:
    """Train by Ray; the exit code. Writes to the run's events only when all processes have ended."""
    signal.signal(signal.SIGTERM, lambda *_: run.request_stop())
    try:
        launch, module = of_run(run, Launch("ray", devices=processes) if processes else None)
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        if not address:  # a token of its own, before Ray is imported: else it would write one into the home folder
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        import_ray()
    except StudioError as error:
        run.event("error", message=str(error))
        run.event("status", status="failed")
        return 1
    said = fit(run, module, launch.processes, address)
    return conclude(run, launch.processes, bool(said), f"Ray ended the run: {said}" if said else "")


def import_ray() -> Any:
    try:
        import ray
        import ray.train.torch
    except ImportError as error:
        raise RunError("Ray is not installed here; install it with `pip install -r requirements-scale.txt`.") from error
    return ray


def fit(run: RunDir, module: str, processes: int, address: str) -> str:
    """Start the processes and wait for them; what Ray said when one failed. Their metrics are in the run's events."""
    ray = import_ray()
    threading.Thread(target=_leave, args=(run,), daemon=True).start()
    try:
        if address:
            ray.init(address=address)
        else:
            ray.init(num_cpus=processes, include_dashboard=False, _node_ip_address="127.0.0.1")
        gpus = ray.cluster_resources().get("GPU", 0) >= processes
        ray.train.torch.TorchTrainer(
            train_one,
            train_loop_config={"run_dir": str(run.path.resolve()), "module": module},
            scaling_config=ray.train.ScalingConfig(num_workers=processes, use_gpu=gpus, resources_per_worker={"CPU": 1}),
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo"),
            run_config=ray.train.RunConfig(name="ray", storage_path=str(run.path.resolve())),
        ).fit()
    except Exception as error:
        traceback.print_exc()
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    finally:
        ray.shutdown()
    return ""


def train_one(config: dict[str, Any]) -> None:
    """One of the processes, inside Ray's worker: RANK and WORLD_SIZE are set and the processes are joined already."""
    os.chdir(ROOT)
    run = RunDir(Path(config["run_dir"]))
    apart(run)
    if not work(run, importlib.import_module(config["module"]).main):
        raise RuntimeError("this process failed; its words are in the run's folder")


def _leave(run: RunDir) -> None:
    """Once the first process has said its end the others have little time: one that hangs must not keep the run open for ever.

    Until it has begun nobody else hears a stop, and a cluster without room may keep it waiting for as long as it likes.
    """
    end = End(run)
    while not end.is_said():
        if run.stop_requested and not statuses(run):
            run.event("log", text="Stopped while Ray was yet to begin; no adapter was made.")
            run.event("status", status="stopped")
            os._exit(0)
        time.sleep(LOOK_S)
    time.sleep(LEAVE_S)
    print("The other processes did not end by themselves; ending them.", flush=True)
    os._exit(0)  # Ray's own processes end with this one


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--address", default="")
    given = parser.parse_args()
    sys.exit(main(RunDir(given.run_dir), given.processes, given.address))
