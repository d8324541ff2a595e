"""One forward of a resident base for rows with different adapters: ids and mask in, logits after the last token out.

peft can mix adapters in a batch, but looks through the whole model to hook every LoRA layer anew at each call, which costs a small
model more than the forward itself. Here each layer is hooked once and reads the rows' adapters from this object.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import DynamicCache

BASE = "__base__"  # peft's name for "no adapter" in a mixed batch


class Forward:
    """Over the bare base, which stays the same object when peft wraps it. Not thread-safe."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self._known = frozenset(signature(type(base).forward).parameters)
        self._adapters: list[str] | None = None
        self._hooked: set[int] = set()

    def hook_adapters(self) -> None:
        """To be called after an adapter was attached: it may have brought new layers."""
        for module in self.base.modules():
            if isinstance(module, LoraLayer | AuxiliaryTrainingWrapper) and id(module) not in self._hooked:
                module.register_forward_pre_hook(self._tell_adapters, with_kwargs=True)
                self._hooked.add(id(module))

    def new_cache(self) -> Any:
        return DynamicCache(config=self.base.config)

    @property
    def device(self) -> torch.device:
        where: torch.device = self.base.device
        return where

    def logits(self, ids: torch.Tensor, mask: torch.Tensor, adapters: Sequence[str], cache: Any = None) -> torch.Tensor:
        """fp32 [rows, vocabulary]; `adapters[i]` is row i's (BASE = none); `mask` covers what the cache holds as well."""
        extra: dict[str, Any] = {}
        if "position_ids" in self._known:
            extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._known:
            extra["logits_to_keep"] = 1
        self._adapters = list(adapters) if self._hooked else None
        try:
            out = self.base(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None, **extra)
        finally:
            self._adapters = None
        last: torch.Tensor = out.logits[:, -1].float()
        return last

    def _tell_adapters(self, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._adapters is not None:
            kwargs["adapter_names"] = self._adapters
        return args, kwargs


def left_padded(prompts: Sequence[Sequence[int]], pad: int, where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both [rows, longest]."""
    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(p)) + list(p) for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids, device=where), torch.tensor(mask, device=where)
