"""`python -m tests.zero_on_cpu RUN_DIR`: a training run whose weights DeepSpeed cuts up among gloo processes, without a GPU.

DeepSpeed has a backend of its own for CPUs (`DS_ACCELERATOR=cpu`), so nothing is disguised; it is the studio that refuses.
"""

from __future__ import annotations

import importlib
from typing import Any

from data.rundir import RunDir, run_child


def main(run: RunDir) -> dict[str, Any]:
    """The run's method; its result also says whether the weights were in pieces when they were saved."""
    from training import adapters

    save, found = adapters.whole_weights, []

    def look(trainer: Any) -> Any:
        found.append(all(weight.ds_tensor.numel() < weight.ds_numel for weight in trainer.model.parameters()))
        return save(trainer)

    adapters.whole_weights = look
    adapters.check_devices = lambda: None  # which would refuse to cut up anything here
    result: dict[str, Any] = importlib.import_module(f"training.{run.config()['kind']}").main(run)
    return {**result, "cut_up": found}


if __name__ == "__main__":
    operations: Any = importlib.import_module("deepspeed.ops")
    operations.__compatible_ops__ = {}  # else it compiles a faster way to add up on one machine, for minutes
    run_child(main)
