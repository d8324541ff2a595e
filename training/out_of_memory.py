"""Running out of memory is a state, not the end: the run goes on once with smaller batches and as many rows a step as before.

A batch of 8 becomes two of 4 whose gradients are added up, so the steps stay what they were. The second time the run fails, in
words that say what to change. Imports torch only to give back what it holds.
"""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from data.errors import RunError, StudioError
from training.config import TrainConfig
from training.knobs import knobs

_WORDS: Final = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")


class OutOfMemory(RunError):
    """Its text is what a person is told when there is no second try."""


@contextmanager
def failures_in_words(config: TrainConfig, split: int = 1) -> Iterator[None]:
    """Turn the failures that a user can mend into a RunError; let the others through with their own text."""
    try:
        yield
    except StudioError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        rows = config.batch_size // split
        smaller = "halve the batch size" if rows > 2 else "shorten max_length"
        also = "" if config.checkpointing else " or turn checkpointing on"
        raise OutOfMemory(
            f"Memory ran out with batches of {rows} rows of up to {config.max_length} tokens; {smaller}{also} and start again."
        ) from error


@contextmanager
def loading_in_words() -> Iterator[None]:
    """The same for what no smaller batch would help: the weights themselves."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, StudioError) or not is_out_of_memory(error):
            raise
        raise RunError(
            "Memory ran out while the base model was loaded; choose a smaller base, or train an adapter over it in 4 bits (qlora)."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return any(words in text for words in _WORDS)


def split_of(config: TrainConfig) -> int:
    """Into how many equal parts a batch is cut for the second try: two, or more where it cannot be halved; 1 = it cannot be cut."""
    least = next(int(knob.min or 1) for knob in knobs(type(config)) if knob.name == "batch_size")
    whole = config.batch_size
    return next((whole // rows for rows in range(whole // 2, least - 1, -1) if whole % rows == 0), 1)


def going_on(config: TrainConfig, split: int) -> str:
    """What the run's log says about the second try."""
    rows = config.batch_size // split
    times = "twice" if split == 2 else f"{split} times"
    return (
        f"Memory ran out with batches of {config.batch_size}; going on with {rows} and {times} the accumulation, "
        "so as many rows a step as before."
    )


def release() -> None:
    """Give back what the first try held; call it where no frame of it is left."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
