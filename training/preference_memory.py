"""What the free memory allows a preference step: how many tokens are computed at once, and whether their activations are kept.

Keeping activations is about a third faster than recomputing them in the backward pass, so they are kept where the longest row
leaves half of the free memory alone; a part of a batch is never less than one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil
import torch

from training.preference_rows import Item, Layout, width

TOKENS_CPU, _TOKENS_GPU = 640, 16384  # padded tokens of a part, at most: more is hardly faster and takes more memory
_KEPT, _RECOMPUTED = 60, 4  # bytes of activations a token, hidden unit and layer, those of the adapters among them


def free_bytes(device: torch.device) -> int:
    """Of the GPU, or of this machine."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)


def part_tokens(model: Any, recomputed: bool) -> int:
    """Padded tokens that a part of a batch may have on the model's device, as much memory as is free now."""
    if model.device.type != "cuda":
        return TOKENS_CPU
    return token_budget(free_bytes(model.device), *_size(model), recomputed)


def token_budget(free: int, hidden: int, layers: int, recomputed: bool) -> int:
    """Tokens of a part whose activations take at most half of the `free` bytes of a GPU."""
    each = hidden * layers * (_RECOMPUTED if recomputed else _KEPT)
    return max(TOKENS_CPU, min(_TOKENS_GPU, free // 2 // each))


def must_recompute(model: Any, rows: Sequence[Item], layout: Layout) -> bool:
    """Whether the activations of the longest row would take more than half of what is free."""
    hidden, layers = _size(model)
    longest = max((width(row, layout) for row in rows), default=0)
    return longest * hidden * layers * _KEPT > free_bytes(model.device) // 2


def _size(model: Any) -> tuple[int, int]:
    config = model.config.get_text_config()
    return config.hidden_size, config.num_hidden_layers
