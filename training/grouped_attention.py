"""The plain attention of short rows on a CPU, with fewer passes over its scores than the models' own.

    take_up(model)           # the model attends this way from now on, if it was seen to give the same hidden states

The models' own repeats keys and values for every query head of a group, multiplies the scores, and turns them to fp32 and back for
the softmax, forward and backward. Here the heads of a group stand under each other as more rows of queries, the queries are
scaled instead of the scores, and the softmax, which sums in fp32 whatever it is given, works in the dtype of the stream. Families
whose attention has something of its own (capped scores, sinks) differ on a probe and keep theirs.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn.functional import dropout as drop
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED: Final = "studio_grouped"
_PROBE = (2, 7)  # rows and tokens
_OWN = ("softcap", "s_aux", "position_bias")  # what an attention of another kind is called with


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`query` [rows, heads, tokens, width], `key` and `value` [rows, groups, tokens, width], a mask to be added; the output is
    [rows, tokens, heads, width]."""
    if any(kwargs.get(name) is not None for name in _OWN):
        raise ValueError("This family's attention is of another kind.")
    rows, heads, tokens, width = query.shape
    groups = (rows, key.shape[1], heads // key.shape[1] * tokens)
    scale = width**-0.5 if scaling is None else scaling
    scores = (query * scale).reshape(*groups, width) @ key.transpose(2, 3)
    scores = scores.view(rows, heads, tokens, -1)
    if attention_mask is not None:
        scores = scores.add_(attention_mask)
    weights = drop(scores.softmax(-1), dropout, module.training)
    out = weights.view(*groups, -1) @ value
    return out.view(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, attention)
AttentionMaskInterface.register(GROUPED, eager_mask)


def take_up(model: Any) -> bool:
    """Give a base that attends eagerly this attention, if its hidden states say that it is the same; else leave it as it is."""
    was_training = model.training
    model.eval()
    try:
        own = _hidden(model)
        model.set_attn_implementation(GROUPED)
        near = 1e-4 if own.dtype == torch.float32 else 0.05
        same = torch.allclose(own, _hidden(model), rtol=near, atol=near * float(own.abs().max()))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        same = False  # a family that cannot be called so
    if not same:
        model.set_attn_implementation("eager")
    model.train(was_training)
    return same


def _hidden(model: Any) -> torch.Tensor:
    """The last hidden states of some random tokens."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, _PROBE, generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.no_grad():
        states: torch.Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states
