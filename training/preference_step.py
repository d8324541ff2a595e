"""The one interface that every preference loss stands on: log-probabilities of completions under an adapter.

    layout = trusted_layout(model, pad, limit)     # None: this family cannot be scored here, TRL has to do it
    scorer = Scorer(model, pad, layout)            # a base or a PeftModel
    scores = scorer.logps(items)                   # the adapter in training, with gradient
    scores = scorer.logps(items, BASE)             # the bare base: the reference of a new adapter

What makes it fast on one device: a prompt is computed once for both of its completions, the head sees completion tokens only
(`preference_head`), and nothing is computed that a loss or a chart does not need. Whether a family may be given a block mask is
not believed but measured at load on the model itself (`trusted_layout`): its log-probabilities must equal those of the plain
forward, and those of the rejected completion must not move when the chosen one is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple

import torch
from peft import PeftModel

from training.grouped_attention import GROUPED, take_up
from training.preference_head import mean_row, score
from training.preference_rows import Item, Layout, pack

BASE: Final = "__base__"  # no adapter
_EAGER_TOKENS = 1024
_PROBE = (11, 7, 5)  # tokens of the probe's prompt and completions


class Scores(NamedTuple):
    """[rows, completions] each; `sums` carries the gradient. The others are sums over a completion's tokens, for the charts."""

    sums: torch.Tensor
    tokens: torch.Tensor
    entropy: torch.Tensor
    mean_logit: torch.Tensor
    is_top: torch.Tensor

    @property
    def means(self) -> torch.Tensor:
        """Mean log-probability a token."""
        return self.sums / self.tokens.clamp(min=1)

    def detach(self) -> Scores:
        return self._replace(sums=self.sums.detach())

    @staticmethod
    def join(parts: Sequence[Scores]) -> Scores:
        return Scores(*(torch.cat(column) for column in zip(*parts, strict=True)))


class Scorer:
    """Over one resident model. `autocast`: bf16 arithmetic, whatever the trained weights are held in. Not thread-safe."""

    def __init__(self, model: Any, pad: int, layout: Layout, autocast: bool = False) -> None:
        self.model, self.pad, self.layout, self.autocast = model, pad, layout, autocast
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self._base, self._backbone, self._head = base, base.base_model, base.get_output_embeddings()
        eager = base.config.get_text_config()._attn_implementation in ("eager", GROUPED)
        self._mean = None if self._head.weight.requires_grad else mean_row(self._head)
        self._additive = _stream_dtype(base, autocast) if eager else None

    @property
    def device(self) -> torch.device:
        where: torch.device = self._base.device
        return where

    def logps(self, items: Sequence[Item], adapter: str | None = None) -> Scores:
        """Of rows with equally many completions; `adapter` None = the active one, BASE = none, else one by name."""
        batch = pack(items, self.layout, self.pad, self.device, self._additive)
        with self._under(adapter), self.arithmetic():
            hidden = self._backbone(
                input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
            tokens = score(hidden.flatten(0, 1)[batch.at], self._head, batch.targets, self._mean)
        shape = (len(items), -1)
        sums = (torch.stack([part.sum() for part in column.float().split(batch.counts)]).view(shape) for column in tokens)
        logps, entropy, mean_logit, is_top = sums
        counts = torch.tensor(batch.counts, device=self.device).view(shape)
        return Scores(logps, counts, entropy, mean_logit, is_top)

    def arithmetic(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def _under(self, adapter: str | None) -> AbstractContextManager[Any]:
        if adapter is None or not isinstance(self.model, PeftModel):
            return nullcontext()
        if adapter == BASE:
            return self.model.disable_adapter()
        from trl.trainer.utils import use_adapter

        return use_adapter(self.model, adapter)

    def plain(self, item: Item) -> list[list[float]]:
        """Log-probabilities of each completion's tokens by the model's own forward and head: what all else is measured against."""
        out = []
        for completion in item.completions:
            ids = torch.tensor([[*item.prompt, *completion]], device=self.device)
            with self.arithmetic():
                logits = self._base(input_ids=ids, use_cache=False).logits[0, len(item.prompt) - 1 : -1].float()
            out.append(logits.log_softmax(-1)[torch.arange(len(completion)), list(completion)].tolist())
        return out


# --- which layout this model can be trusted with --------------------------------------------------------------------------------


def trusted_layout(model: Any, pad: int, limit: int, autocast: bool = False) -> Layout | None:
    """The better of the layouts that give this model's own log-probabilities; `limit` is the longest sequence in tokens."""
    config = model.config.get_text_config()
    if getattr(config, "router_aux_loss_coef", 0):
        return None  # a mixture of experts wants a loss of its own beside ours
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if _sees_all(config, limit) and _agrees(Scorer(model, pad, "shared", autocast)):
                return "shared"
            return "apart" if _agrees(Scorer(model, pad, "apart", autocast)) else None
    finally:
        model.train(was_training)


def quicken(model: Any, tokens: int) -> None:
    """Choose the attention for rows of up to so many tokens: on a CPU the fused kernel's backward under a mask is the slower one
    until its scores outgrow the rest of a layer."""
    if model.device.type == "cpu" and tokens <= _EAGER_TOKENS:
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        base.set_attn_implementation("eager")
        take_up(base)


def _sees_all(config: Any, limit: int) -> bool:
    """Whether every layer attends to all that stands before a token: a mask of ours would replace that of a sliding window."""
    if config._attn_implementation not in ("sdpa", "eager", GROUPED):
        return False
    if kinds := getattr(config, "layer_types", None):
        return set(kinds) == {"full_attention"}
    window = getattr(config, "sliding_window", None)
    return not window or window >= limit


def _agrees(scorer: Scorer) -> bool:
    """Against the plain forward, on random tokens; bf16 and NF4 round differently in every shape, fp32 hardly."""
    probe, changed = _probes(scorer)
    try:
        plain = [sum(values) for values in scorer.plain(probe)]
        found, moved = (scorer.logps([row, row]).sums[0].tolist() for row in (probe, changed))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False  # a family that cannot be called so
    exact = scorer._base.dtype == torch.float32 and not scorer.autocast
    near = all(abs(a - b) <= (1e-3 if exact else 0.08) * n for a, b, n in zip(plain, found, _PROBE[1:], strict=True))
    return near and abs(found[1] - moved[1]) <= 1e-4


def _probes(scorer: Scorer) -> tuple[Item, Item]:
    """A row, and the same with another chosen completion."""
    vocabulary = scorer._head.weight.shape[0]
    some = torch.randint(vocabulary, (sum(_PROBE) + _PROBE[1],), generator=torch.Generator().manual_seed(0)).tolist()
    prompt, chosen, rejected = some[: _PROBE[0]], some[_PROBE[0] : sum(_PROBE[:2])], some[sum(_PROBE[:2]) : sum(_PROBE)]
    row = Item(tuple(prompt), (tuple(chosen), tuple(rejected)))
    return row, Item(tuple(prompt), (tuple(some[sum(_PROBE) :]), tuple(rejected)))


def _stream_dtype(base: Any, autocast: bool) -> torch.dtype:
    """What the scores of an eager attention are held in."""
    return torch.bfloat16 if autocast else base.dtype
