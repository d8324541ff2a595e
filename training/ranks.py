"""Several processes that train together: how all of them hear the same thing at the same step, and what is gathered at the end.

Each is `python -m training.<method> RUN_DIR` with RANK and WORLD_SIZE in its environment, as accelerate, torchrun and Ray set
them. The first one alone looks for the stop file (`data/rundir.py`); were each to look by itself, one would leave the loop a step
before another, which would wait for it for ever.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist

from data.rundir import rank

Sharding = Literal["", "fsdp", "zero3"]


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    return processes() > 1


def is_first() -> bool:
    return rank() == 0


def sharding() -> Sharding:
    """Whether each process holds a part of the weights only, as the launcher's environment tells."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return "fsdp"
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return "zero3" if deepspeed and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else ""


def whole_copies() -> bool:
    """Whether each process holds all there is of a training, neither cut up by FSDP nor by DeepSpeed."""
    return not any(os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true" for kind in ("FSDP", "DEEPSPEED"))


def even_batch(rows: int, batch: int) -> int:
    """Held-out rows a process takes at once, at most `batch`: so many that no process is short of more than one of them.

    TRL's figures are means over batches, in which a small last one would count as much as a whole one; and with several processes
    accelerate fills up what is missing in it with rows from the start, which would count twice.
    """
    if not rows:
        return batch
    rounds = math.ceil(rows / (processes() * batch))
    return math.ceil(rows / (processes() * rounds))


def anyone(flag: bool) -> bool:
    """Whether any of the processes says so. All must ask, at the same place; where there is one only it is `flag` itself."""
    if not (dist.is_available() and dist.is_initialized()):
        return flag
    said = torch.tensor([int(flag)], device="cuda" if "nccl" in str(dist.get_backend()) else "cpu")
    dist.all_reduce(said, op=dist.ReduceOp.MAX)
    return bool(said.item())


def whole_weights(trainer: Any) -> dict[str, Any]:
    """The model's weights, put together from all processes where each holds a part; all must ask, the first gets them."""
    weights: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped if sharding() else trainer.model)
    return weights


@contextmanager
def not_yet_cut_up(model: torch.nn.Module) -> Iterator[None]:
    """For a look at a model that ZeRO-3 is yet to cut up: TRL takes every weight for one that it has, and would put it together."""
    if sharding() != "zero3":
        yield
        return
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    whole: list[Any] = [weight for weight in model.parameters() if not hasattr(weight, "ds_status")]
    for weight in whole:
        weight.ds_status = ZeroParamStatus.AVAILABLE
    try:
        yield
    finally:
        for weight in whole:
            del weight.ds_status


def wait_for_all() -> None:
    """Until every process has come this far: none may leave while the first still writes what they have made."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
