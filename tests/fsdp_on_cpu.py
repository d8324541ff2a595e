"""`python -m tests.fsdp_on_cpu RUN_DIR`: a training run whose weights are cut up among gloo processes, for machines without a GPU.

accelerate knows FSDP on accelerators alone: on a CPU it falls back to whole copies without a word. Here it is told that the
processes have GPUs, while every tensor stays on the CPU; torch's `fully_shard` itself takes either. Answers are sampled as
`sampled_alike` has it.
"""

from __future__ import annotations

from typing import Any

import accelerate.state
import torch.distributed
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from data.rundir import RunDir, run_child
from tests import sampled_alike
from training import adapters


def as_on_gpus(self: Any, cpu: bool = False, *args: Any, **kwargs: Any) -> tuple[str, DistributedType]:
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    self.device = torch.device("cpu")
    return "gloo", DistributedType.MULTI_GPU


def main(run: RunDir) -> dict[str, Any]:
    """The run's method; its result also says whether the weights were in pieces when they were saved."""
    save, found = adapters.whole_weights, []

    def look(trainer: Any) -> Any:
        found.append(any(isinstance(p, DTensor) for p in trainer.model.parameters()))
        return save(trainer)

    adapters.whole_weights = look
    adapters.check_devices = lambda: None  # which would refuse to cut up anything here
    return {**sampled_alike.main(run), "cut_up": found}


if __name__ == "__main__":
    accelerate.state.PartialState._prepare_backend = as_on_gpus
    run_child(main)
