"""LoRA beside a frozen linear layer as one operation: the same numbers with half the passes over memory.

    fuse(model)      # once, on a whole PeftModel that our own step trains

Peft computes base(x) + B(A(x)) * scaling in pieces, with the input in the adapter's dtype: under bf16 arithmetic every layer
casts its input there and back, multiplies and adds over its whole output, and keeps the copies for the backward pass. Here the
adapter's part is added inside a matrix product, forward and backward, and what is kept is the input itself. Layers that are
anything else than plain LoRA over a plain linear layer (NF4, DoRA, dropout, several adapters at once, none) go peft's way, call by
call.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn.functional import linear


def fuse(model: torch.nn.Module) -> None:
    """Every LoRA layer of `model` takes the fused way where it can; weights and names stay what they are."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = _FusedLinear


class _FusedLinear(Linear):
    """Peft's layer with another forward."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = None if args or kwargs else _only_adapter(self)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        base = self.base_layer
        if name is None or base.weight.dtype != dtype:
            return super().forward(x, *args, **kwargs)
        a, b = (part[name].weight.to(dtype) for part in (self.lora_A, self.lora_B))
        out: torch.Tensor = _Fused.apply(x.to(dtype), base.weight, base.bias, a, b, self.scaling[name])
        return out


def _only_adapter(layer: Any) -> str | None:
    """The name of the one adapter at work, if it is plain LoRA over a frozen `nn.Linear`."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1 or names[0] in layer.lora_variant:
        return None
    name: str = names[0]
    plain = type(layer.base_layer) is torch.nn.Linear and not any(p.requires_grad for p in layer.base_layer.parameters())
    if not plain or layer.lora_bias.get(name) or getattr(layer.lora_dropout[name], "p", 0.0):
        return None
    return name


class _Fused(torch.autograd.Function):
    """x W' + bias + s (x A') B', for a W and a bias that are not trained."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.T
        out = linear(rows, weight, bias).addmm_(low, b.T, alpha=scaling)
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        rows, weight, a, b, low = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        down = (grad @ b).mul_(ctx.scaling)
        to_x = (grad @ weight).addmm_(down, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return to_x, None, None, down.T @ rows, (grad.T @ low).mul_(ctx.scaling), None
