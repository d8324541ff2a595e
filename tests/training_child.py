"""A training run that something happens to: `python -m tests.training_child sft RUN_DIR`, in its environment one of

    KILL_AT=5        a kill -9 of itself within step 5, after it was computed
    KILL_SEALING=4   the same while the checkpoint of step 4 is written
    ROWS=6 FROM=3    from step 3 on, room for the activations of so many rows at a time and no more: a limit that the system sets

A row's activations are a real allocation of `ROW` bytes, which the limit on the process's address space refuses.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import data.resume
from data.rundir import RunDir, run_child

ROW = 192 << 20


def main(run: RunDir) -> Any:
    method = importlib.import_module(f"training.{METHOD}")
    if "KILL_AT" in os.environ:
        kill_at(int(os.environ["KILL_AT"]))
    if "KILL_SEALING" in os.environ:
        kill_sealing(int(os.environ["KILL_SEALING"]))
    if "ROWS" in os.environ:
        limit(float(os.environ["ROWS"]), int(os.environ.get("FROM", "1")))
    return method.main(run)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(step: int) -> None:
    from training.callbacks import RunEvents

    def on_pre_optimizer_step(self: RunEvents, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step + 1 == step:
            kill()

    RunEvents.on_pre_optimizer_step = on_pre_optimizer_step  # type: ignore[method-assign]


def kill_sealing(step: int) -> None:
    real = data.resume.seal

    def seal(path: Path, at: int, state: Any) -> Any:
        return kill() if at == step else real(path, at, state)

    data.resume.seal = seal


def limit(rows: float, first: int) -> None:
    import torch
    from transformers import Trainer

    from training.callbacks import RunEvents
    from training.preference_step import Scorer

    limited: list[int] = []

    def on_step_begin(self: RunEvents, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step + 1 == first and not limited:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            limited.append(held)
            resource.setrlimit(resource.RLIMIT_AS, (held + int(rows * ROW), resource.RLIM_INFINITY))

    step, logps = Trainer.training_step, Scorer.logps

    def training_step(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        held = torch.empty(len(inputs["input_ids"]) * ROW, dtype=torch.uint8)
        loss = step(self, model, inputs, *more, **named)
        del held
        return loss

    def scored(self: Any, items: Any, *more: Any) -> Any:
        held = torch.empty(len(items) * ROW, dtype=torch.uint8)
        scores = logps(self, items, *more)
        del held
        return scores

    RunEvents.on_step_begin = on_step_begin  # type: ignore[method-assign]
    Trainer.training_step, Scorer.logps = training_step, scored


if __name__ == "__main__":
    METHOD = sys.argv.pop(1)
    run_child(main)
