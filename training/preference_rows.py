"""Rows of a preference method as token ids, dealt into steps and packed into tensors.

A row is a prompt with its completions. Two ways to lay it out:

    shared   prompt|chosen|rejected in one sequence: the prompt is computed once, the positions of each completion go on from the
             prompt's end, and a block mask keeps the completions from seeing each other
    apart    one sequence for each completion, for model families that cannot be given such a mask

Steps are dealt by length inside windows of a few steps, so that few padding tokens are computed while the order stays random; a
step is then cut into parts of at most so many tokens, which bounds memory without changing the sum. Every epoch holds every row
once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from training.chat import TEMPLATE_KWARGS, Tokenizer
from training.rows import Row

Layout = Literal["shared", "apart"]
WINDOW = 8  # steps whose rows are sorted by length together


@dataclass(frozen=True)
class Item:
    """One row: token ids, and the log-probabilities of its completions under the reference once they are known."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    desirable: bool | None = None  # KTO
    other: tuple[int, ...] = ()  # KTO: the completion of another prompt, for the KL term
    reference: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))

    def with_other(self) -> Item:
        """The same prompt with the other prompt's completion."""
        return Item(self.prompt, (self.other,))

    def refer(self, values: Sequence[float]) -> Item:
        return replace(self, reference=tuple(values))


class Packed(NamedTuple):
    """Tensors of some rows, ready for a forward. `at`, `targets`: flat positions of the hidden states that predict a completion's
    tokens, and those tokens; in the order of the completions, whose lengths are `counts`."""

    ids: torch.Tensor
    positions: torch.Tensor | None
    mask: torch.Tensor | None
    at: torch.Tensor
    targets: torch.Tensor
    counts: list[int]


# --- tokens -------------------------------------------------------------------------------------------------------------------


def items(rows: Sequence[Row], tokenizer: Tokenizer, limit: int | None) -> list[Item]:
    """Pairs or single labelled completions as token ids, each cut at `limit` tokens together with its prompt; None = whole."""
    return [_item(row, tokenizer, limit) for row in rows]


def _item(row: Row, tokenizer: Tokenizer, limit: int | None) -> Item:
    answers = [row["chosen"], row["rejected"]] if "chosen" in row else [row["completion"]]
    prompt = _ids(tokenizer, row["prompt"], True)
    wholes = [_ids(tokenizer, [*row["prompt"], *answer], False) for answer in answers]
    start = min(_common(prompt, whole) for whole in wholes)
    completions = tuple(tuple(whole[start:limit]) for whole in wholes)
    return Item(tuple(prompt[:start]), completions, row.get("label"))


def _ids(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[int]:
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt, return_dict=False, **TEMPLATE_KWARGS
    )
    return [int(i) for i in ids]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def with_others(rows: Sequence[Item], batch: int, limit: int) -> list[Item]:
    """KTO's rows, not yet cut, with the completion of their neighbour in the batch (the last one's for the first); cut here."""
    out = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        for row, before in zip(part, [part[-1], *part[:-1]], strict=True):
            room = limit - len(row.prompt)
            out.append(replace(row, completions=(row.completions[0][:room],), other=before.completions[0][:room]))
    return out


# --- steps --------------------------------------------------------------------------------------------------------------------


def deal(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of an epoch's batches: every row once, rows of like length together, batches in random order."""
    rng = random.Random(f"{seed} {epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), WINDOW * batch):
        window = sorted(order[start : start + WINDOW * batch], key=lambda i: lengths[i])
        batches += [window[i : i + batch] for i in range(0, len(window), batch)]
    rng.shuffle(batches)
    return batches


def parts(rows: Sequence[Item], layout: Layout, budget: int) -> Iterator[list[Item]]:
    """The rows by falling width in parts of at most `budget` padded tokens, or of a single longer row."""
    part: list[Item] = []
    for row in sorted(rows, key=lambda row: -width(row, layout)):
        if part and (len(part) + 1) * width(part[0], layout) > budget:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def width(row: Item, layout: Layout) -> int:
    """Tokens the row takes in a batch whose longest it is."""
    if layout == "shared":
        return row.length
    return len(row.completions) * (len(row.prompt) + max(map(len, row.completions)))


# --- tensors ------------------------------------------------------------------------------------------------------------------


def pack(rows: Sequence[Item], layout: Layout, pad: int, device: torch.device, additive: torch.dtype | None = None) -> Packed:
    """Rows as tensors; `additive` is the dtype of a mask to be added to the scores, None = a boolean one."""
    if layout == "apart" or all(len(row.completions) == 1 for row in rows):
        return _apart(rows, pad, device)
    return _shared(rows, pad, device, additive)


def _apart(rows: Sequence[Item], pad: int, device: torch.device) -> Packed:
    """Padding stands on the right, where causal attention never looks: no mask is needed, and its positions are never read."""
    pairs = [(row.prompt, completion) for row in rows for completion in row.completions]
    width = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.full((len(pairs), width), pad)
    at, targets = [], []
    for i, (prompt, completion) in enumerate(pairs):
        ids[i, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        first = i * width + len(prompt) - 1
        at.append(torch.arange(first, first + len(completion)))
        targets.append(torch.tensor(completion))
    counts = [len(completion) for _, completion in pairs]
    return Packed(ids.to(device), None, None, torch.cat(at).to(device), torch.cat(targets).to(device), counts)


def _shared(rows: Sequence[Item], pad: int, device: torch.device, additive: torch.dtype | None) -> Packed:
    width = max(row.length for row in rows)
    ids = torch.full((len(rows), width), pad)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    block = torch.full((len(rows), width), -1)  # 0 the prompt, 1 and on its completions, -1 padding
    at, targets, counts = [], [], []
    for i, row in enumerate(rows):
        prompt = len(row.prompt)
        ids[i, : row.length] = torch.tensor([*row.prompt, *(t for completion in row.completions for t in completion)])
        positions[i, :prompt] = torch.arange(prompt)
        block[i, :prompt] = 0
        start = prompt
        for number, completion in enumerate(row.completions, 1):
            end = start + len(completion)
            positions[i, start:end] = torch.arange(prompt, prompt + len(completion))
            block[i, start:end] = number
            at.append(i * width + torch.tensor([prompt - 1, *range(start, end - 1)]))
            targets.append(torch.tensor(completion))
            counts.append(len(completion))
            start = end
    mask = block_mask(block.to(device))
    if additive is not None:
        mask = torch.zeros(mask.shape, dtype=additive, device=device).masked_fill(~mask, torch.finfo(additive).min)
    return Packed(ids.to(device), positions.to(device), mask, torch.cat(at).to(device), torch.cat(targets).to(device), counts)


def block_mask(block: torch.Tensor) -> torch.Tensor:
    """Bool [rows, 1, query, key] from block numbers [rows, tokens]: a token sees the prompt and its own block, up to itself.

    Padding sees padding, so that no row of scores is empty.
    """
    query, key = block[:, :, None], block[:, None, :]
    causal = torch.ones(block.shape[1], block.shape[1], dtype=torch.bool, device=block.device).tril()
    return (((key == query) | ((key == 0) & (query > 0))) & causal)[:, None]
