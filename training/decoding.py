"""Sampling from a local model: rows that decode in step, each with its own seed, temperature, adapter, limit and end.

Why not `model.generate`: there a batch shares its settings and its random numbers, so what one request gets depends on its
neighbours, nothing can leave before all are done, and mixed adapters exclude several samples a prompt. Here a prompt is prefilled
once for all its samples, a row draws one number a token from its own generator and picks by inverse CDF, and rows that are done are
cut from the cache.

    cohort = Cohort(Forward(base), rows, ends, pad)
    while cohort.rows:
        for row in cohort.step(): ...   # rows that got a token; row.reason is set on those that ended
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from data.engine import FinishReason, GenRequest
from training.detokenize import TextBuffer
from training.forward import Forward, left_padded

KEEP_SHARE = 0.75  # of a batch: with fewer rows left, those that ended are cut from the cache
NUCLEUS_FIRST = 2048  # top-p looks at so many tokens before it sorts the whole vocabulary
BROKEN_NUMBERS = "The model's numbers overflowed; its adapter or its weights are broken."


@dataclass
class Row:
    """One reply being written. `limit` is the most tokens it may have; `reason` is None while it goes on."""

    index: int
    request: GenRequest
    prompt: list[int]
    adapter: str
    limit: int
    buffer: TextBuffer
    streaming: bool = False
    tokens: int = 0
    piece: str = ""  # what the last step added to the text; '' too while it is held back
    reason: FinishReason | None = None
    error: str = ""
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.request.seed}:{self.request.sample_index}")

    def accept(self, token: int, ends: frozenset[int]) -> None:
        self.tokens += 1
        self.piece = ""
        if token in ends:
            self.reason = "stop"
        else:
            self.piece = self.buffer.push(token)
            if self.buffer.stopped:
                self.reason = "stop"
            elif self.tokens >= self.limit:
                self.reason = "length"
        if self.reason is not None:
            self.piece += self.buffer.finish()

    def end(self, reason: FinishReason, error: str = "") -> None:
        self.reason, self.error = reason, error
        self.piece = self.buffer.finish()

    def restart(self) -> Row:
        """The same request from its beginning: the same seed gives the same text."""
        buffer = TextBuffer(self.buffer.tokenizer, self.request.stop, self.streaming)
        return Row(self.index, self.request, self.prompt, self.adapter, self.limit, buffer, self.streaming)


class Budget(NamedTuple):
    """What fits into one batch: rows, tokens held in the cache, and tokens of prompts in one forward."""

    rows: int
    cached: int
    prefill: int


class Cohort:
    """Rows decoded together from one cache; `rows` are those still going on."""

    def __init__(self, forward: Forward, rows: Sequence[Row], ends: frozenset[int], pad: int) -> None:
        self.forward, self.rows, self.ends, self.pad = forward, list(rows), ends, pad
        self._slots = list(rows)  # by position in the cache; ended rows stay until they are cut out
        self._cache: Any = None
        self._mask = torch.empty(0)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One token for every row that goes on; the rows that got one, in no order."""
        logits = self._prefill() if self._cache is None else self._decode()
        live = [i for i, row in enumerate(self._slots) if row.reason is None]
        sound, tokens = _pick(logits, self._slots)
        self._next = tokens
        chosen, fine = tokens.tolist(), sound.tolist()
        for i in live:
            if fine[i]:
                self._slots[i].accept(chosen[i], self.ends)
            else:
                self._slots[i].end("error", BROKEN_NUMBERS)
        moved = [self._slots[i] for i in live]
        self.rows = [row for row in moved if row.reason is None]
        if len(self.rows) <= KEEP_SHARE * len(self._slots):
            self._cut()
        return moved

    def _prefill(self) -> torch.Tensor:
        """Each distinct (prompt, adapter) once, then the cache is spread over the rows that share it."""
        groups: dict[tuple[tuple[int, ...], str], int] = {}
        spread = [groups.setdefault((tuple(row.prompt), row.adapter), len(groups)) for row in self._slots]
        where = self.forward.device
        ids, mask = left_padded([list(prompt) for prompt, _ in groups], self.pad, where)
        self._cache = self.forward.new_cache()
        logits = self.forward.logits(ids, mask, [adapter for _, adapter in groups], self._cache)
        order = torch.tensor(spread, device=where)
        self._mask = mask.index_select(0, order)
        self._cache.reorder_cache(order)
        return logits.index_select(0, order)

    def _decode(self) -> torch.Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._slots), 1)], dim=1)
        return self.forward.logits(self._next[:, None], self._mask, [row.adapter for row in self._slots], self._cache)

    def _cut(self) -> None:
        keep = [i for i, row in enumerate(self._slots) if row.reason is None]
        self._slots = [self._slots[i] for i in keep]
        if keep:
            order = torch.tensor(keep, device=self._mask.device)
            self._mask, self._next = self._mask.index_select(0, order), self._next.index_select(0, order)
            self._cache.reorder_cache(order)
        else:
            self._cache = None


# --- picking a token ------------------------------------------------------------------------------------------------------------


def _pick(logits: torch.Tensor, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sound [rows] bool, token [rows]); a row whose logits are no numbers is not sound and its token means nothing.

    One uniform number a row and token picks by inverse CDF in vocabulary order: nothing of a row's luck comes from its neighbours.
    """
    sound = logits.amax(-1).isfinite()
    greedy = logits.argmax(-1)
    if all(row.request.temperature <= 0 for row in rows):
        return sound, greedy
    where = logits.device
    heat = torch.tensor([row.request.temperature if row.request.temperature > 0 else 1.0 for row in rows], device=where)
    odds = torch.softmax(logits / heat[:, None], dim=-1)
    if any(row.request.top_k > 0 or row.request.top_p < 1 for row in rows):
        odds = _truncated(odds, rows)
    luck = torch.tensor([row.rng.random() if row.reason is None else 0.0 for row in rows], device=where, dtype=torch.float64)
    climb = odds.double().cumsum(-1)
    drawn = torch.searchsorted(climb, (luck * climb[:, -1])[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    cold = torch.tensor([row.request.temperature <= 0 for row in rows], device=where)
    return sound, torch.where(cold, greedy, drawn)


def _truncated(odds: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """`odds` with what lies outside top-k or the nucleus set to 0; the sum is no longer 1."""
    size = odds.shape[-1]
    top_k = torch.tensor([row.request.top_k if row.request.top_k > 0 else size for row in rows], device=odds.device)
    top_p = torch.tensor([row.request.top_p for row in rows], device=odds.device)
    best, which = odds.topk(min(size, NUCLEUS_FIRST), dim=-1)
    nucleus = top_p < 1
    if bool(((best.sum(-1) < top_p) & nucleus).any()) or bool(((top_k > NUCLEUS_FIRST) & (top_k < size)).any()):
        best, which = odds.sort(dim=-1, descending=True)
    mass_before = best.cumsum(-1) - best
    inside = (torch.arange(best.shape[-1], device=odds.device) < top_k[:, None]) & (mass_before < top_p[:, None])
    inside[:, 0] = True
    kept = torch.zeros_like(odds).scatter(-1, which, best * inside)
    free = (~nucleus) & (top_k >= size)
    return torch.where(free[:, None], odds, kept)


# --- batches --------------------------------------------------------------------------------------------------------------------


def cohorts(rows: Iterable[Row], budget: Budget) -> Iterator[list[Row]]:
    """Rows of like length together, samples of one prompt side by side, each list within the budget."""
    batch: list[Row] = []
    prompts: set[tuple[tuple[int, ...], str]] = set()
    for row in sorted(rows, key=lambda r: (len(r.prompt), r.prompt, r.adapter, r.index)):
        prompt = (tuple(row.prompt), row.adapter)
        longest = max(len(row.prompt) + r.limit for r in [*batch, row])
        full = (
            len(batch) >= budget.rows
            or (len(batch) + 1) * longest > budget.cached
            or len(prompts | {prompt}) * len(row.prompt) > budget.prefill
        )
        if batch and full:
            yield batch
            batch, prompts = [], set()
        batch.append(row)
        prompts.add(prompt)
    if batch:
        yield batch
