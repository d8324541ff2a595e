"""How likely each label is as the first token of a reply: which tokens spell it, and what the logits say.

A label has several spellings ("A", " A") whose probabilities are summed; the next-token distribution is all that is needed, so a
verdict costs one forward and no sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data.engine import LabelResult
from data.errors import EngineError
from training.chat import Tokenizer
from training.decoding import BROKEN_NUMBERS, Budget


@dataclass(frozen=True)
class LabelPrompt:
    """A rendered LabelRequest."""

    index: int
    ids: list[int]
    adapter: str
    labels: tuple[str, ...]


def spellings(tokenizer: Tokenizer, labels: Sequence[str]) -> list[tuple[int, ...]]:
    """Per label the ids of the single tokens that spell it, or else the first token of its plain spelling.

    EngineError when two labels begin with the same token.
    """
    if not labels or not all(label.strip() for label in labels):
        raise EngineError("Name at least one label, and none that is empty.")
    found = [_spelling_ids(tokenizer, label) for label in labels]
    flat = [i for ids in found for i in ids]
    if len(set(flat)) != len(flat):
        raise EngineError(f"This model cannot tell the labels {', '.join(labels)} apart by their first token; use A and B.")
    return found


def read_labels(tokenizer: Tokenizer, prompt: LabelPrompt, odds: torch.Tensor) -> LabelResult:
    """`odds`: log-probabilities of the next token, on the CPU. `text` is the likeliest token."""
    if not math.isfinite(float(odds.amax())):
        return LabelResult(prompt.index, (), error=BROKEN_NUMBERS)
    found = tuple(float(torch.logsumexp(odds[list(ids)], 0)) for ids in spellings(tokenizer, prompt.labels))
    return LabelResult(prompt.index, found, str(tokenizer.decode([int(odds.argmax())])))


def _spelling_ids(tokenizer: Tokenizer, label: str) -> tuple[int, ...]:
    spelled = [tokenizer.encode(text, add_special_tokens=False) for text in (label, " " + label)]
    pieces = (label, "\u2581" + label, "\u0120" + label)  # as vocabularies write a word: bare, after a space, in two conventions
    known = dict(zip(pieces, tokenizer.convert_tokens_to_ids(list(pieces)), strict=True))
    ids = {ids[0] for ids in spelled if len(ids) == 1}
    ids |= {i for piece, i in known.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == piece}
    return tuple(sorted(ids)) or (spelled[0][0],)


def label_batches(prompts: Sequence[LabelPrompt], budget: Budget) -> list[list[LabelPrompt]]:
    batches: list[list[LabelPrompt]] = []
    for prompt in sorted(prompts, key=lambda p: len(p.ids)):
        if batches and len(batches[-1]) < budget.rows and (len(batches[-1]) + 1) * len(prompt.ids) <= budget.prefill:
            batches[-1].append(prompt)
        else:
            batches.append([prompt])
    return batches
