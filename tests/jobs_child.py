"""A run's child for the tests of `studio/jobs.py`: `python -m tests.jobs_child RUN_DIR`; config args say how to behave.

steps, seconds_a_step, wait_at (a step, until the file `go` is there), then one ending: finish | fail | silent | killed |
stubborn (ignores the stop file and SIGTERM) | linger.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import RunError
from data.rundir import RunDir, Stopped, run_child


def main(run: RunDir) -> Mapping[str, Any]:
    args = run.config()["args"]
    steps = int(args.get("steps", 3))
    if args.get("ending") == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (run.path / "helper.pid").write_text(str(helper.pid))
    started = time.monotonic()
    print("hello from the child", flush=True)
    for step in range(steps):
        if run.stop_requested and args.get("ending") != "stubborn":
            save(run, args)
            raise Stopped
        while step == args.get("wait_at") and not (run.path / "go").exists():
            time.sleep(0.01)
        candidates(run, args, step)
        run.progress(step + 1, steps, "steps", started)
        run.event("metrics", step=step + 1, loss=1.0 / (step + 1))
        time.sleep(float(args.get("seconds_a_step", 0.01)))
        if args.get("ending") == "silent" and step == 1:
            print("last words of the child", flush=True)
            os._exit(3)
        if args.get("ending") == "killed" and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    if args.get("ending") == "fail":
        raise RunError("The child was told to fail; choose another ending.")
    save(run, args)
    if args.get("parquet"):
        return {"file": "data.parquet", "rows": 2}
    seen = {"key": os.environ.get("STUDIO_KEY_M", ""), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
    return {"loss": 0.5, "environment": sorted(os.environ), "niceness": os.nice(0), "metrics": args.get("metrics", {}), **seen}


def save(run: RunDir, args: Mapping[str, Any]) -> None:
    if args.get("adapter"):
        (run.path / "adapter").mkdir(exist_ok=True)
        (run.path / "adapter" / "adapter_config.json").write_text("{}")
    if args.get("whole_model"):
        (run.path / "model").mkdir(exist_ok=True)
        (run.path / "model" / "config.json").write_text("{}")
    if args.get("judgments"):
        (run.path / "judgments.jsonl").write_text("".join(json.dumps(j) + "\n" for j in args["judgments"]))
    if args.get("parquet"):
        (run.path / "data.parquet").write_bytes(Path(args["parquet"]).read_bytes())


def candidates(run: RunDir, args: Mapping[str, Any], step: int) -> None:
    """One line a step, in two writes, so that a reader meets half lines."""
    lines = args.get("completions", [])
    if step < len(lines):
        text = json.dumps(lines[step]) + "\n"
        with (run.path / "completions.jsonl").open("a") as f:
            f.write(text[:20])
            f.flush()
            time.sleep(0.01)
            f.write(text[20:])


if __name__ == "__main__":
    run_child(main)
    if RunDir(Path(sys.argv[1])).config()["args"].get("ending") == "linger":
        time.sleep(600)
