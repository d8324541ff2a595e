"""From hidden states to the log-probabilities of given tokens, without ever holding the logits of a batch.

The head of a large vocabulary is the dearest layer of a small model. Where it is frozen, as under LoRA, the gradient of a token's
log-probability with respect to its hidden state, W[token] - p·W, is known in the forward pass: one product more, and the backward
pass through the head is a scaling. Entropy (log Z - h·(p·W)) and the mean logit (h·mean(W)) then come for nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear

_LOGIT_BYTES = 64 << 20  # of fp32 logits held at a time


class Tokens(NamedTuple):
    """Of each completion token, [tokens]: its log-probability (with gradient) and, without, what TRL reports beside it."""

    logps: torch.Tensor
    entropy: torch.Tensor
    mean_logit: torch.Tensor
    is_top: torch.Tensor


def mean_row(head: Any) -> torch.Tensor:
    """[1, width]: the mean of the head's rows, of use to `score` for as long as the head stays as it is."""
    with torch.no_grad():
        ones = torch.ones(1, head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
        return (ones @ head.weight) / head.weight.shape[0]


def score(hidden: torch.Tensor, head: Any, targets: torch.Tensor, mean: torch.Tensor | None = None) -> Tokens:
    """`hidden` [tokens, width] before the head, `targets` [tokens]; the head is a linear layer, with a bias or without."""
    weight, bias = head.weight, getattr(head, "bias", None)
    hidden = hidden.to(weight.dtype)
    if weight.requires_grad or bias is not None:
        logps, entropy, is_top = _any_head(hidden, head, targets)
    else:
        logps, entropy, is_top = _FrozenHead.apply(hidden, weight, targets)
    with torch.no_grad():
        mean_logit = linear(hidden, mean_row(head) if mean is None else mean)[:, 0].float()
        if bias is not None:
            mean_logit = mean_logit + bias.float().mean()
    return Tokens(logps, entropy, mean_logit, is_top)


class _FrozenHead(torch.autograd.Function):
    """A head that is not trained and has no bias."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        wanted = ctx.needs_input_grad[0]
        logps, entropy = (torch.empty(len(targets), dtype=torch.float32, device=hidden.device) for _ in range(2))
        is_top = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        direction = torch.empty_like(hidden) if wanted else None
        for chunk in _chunks(len(targets), weight.shape[0]):
            states, tokens = hidden[chunk], targets[chunk]
            logits = linear(states, weight).float()
            top = logits.amax(-1, keepdim=True)
            own = logits.gather(-1, tokens[:, None])
            is_top[chunk] = (own >= top)[:, 0]
            power = logits.sub_(top).exp_()
            total = power.sum(-1, keepdim=True)
            normaliser = top + total.log()
            logps[chunk] = (own - normaliser)[:, 0]
            expected = (power.to(weight.dtype) @ weight).float() / total  # p·W
            entropy[chunk] = normaliser[:, 0] - (states.float() * expected).sum(-1)
            if direction is not None:
                direction[chunk] = (weight[tokens].float() - expected).to(hidden.dtype)
        ctx.direction = direction
        ctx.mark_non_differentiable(entropy, is_top)
        return logps, entropy, is_top

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        return grads[0].to(ctx.direction.dtype)[:, None] * ctx.direction, None, None


def _any_head(hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A head that is trained or has a bias: logits are computed again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def one(states: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = head(states).float()
        all_logps = logits.log_softmax(-1)
        own = all_logps.gather(-1, tokens[:, None])[:, 0]
        with torch.no_grad():
            entropy = -(all_logps.exp() * all_logps).sum(-1)
            is_top = own >= all_logps.amax(-1)
        return own, entropy, is_top

    found = [
        checkpoint(one, hidden[chunk], targets[chunk], use_reentrant=False) for chunk in _chunks(len(targets), head.weight.shape[0])
    ]
    logps, entropy, is_top = (torch.cat(column) for column in zip(*found, strict=True))
    return logps, entropy, is_top


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(16, _LOGIT_BYTES // (4 * vocabulary))
    return [slice(start, start + size) for start in range(0, tokens, size)]
