"""The log-probabilities that servers send, in either of their two shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

ROUNDING = 1e-3  # a certain token may come as a little more than 0


def first_tokens(given: Any) -> Iterator[tuple[str, float]]:
    """(token, log-probability) of the first position in a chat's or a completion's `logprobs`; nothing in another shape."""
    if not isinstance(given, dict):
        return
    chat, plain = given.get("content"), given.get("top_logprobs")
    if isinstance(chat, list) and chat and isinstance(chat[0], dict) and isinstance(chat[0].get("top_logprobs"), list):
        pairs = [(top.get("token"), top.get("logprob")) for top in chat[0]["top_logprobs"] if isinstance(top, dict)]
    elif isinstance(plain, list) and plain and isinstance(plain[0], dict):
        pairs = list(plain[0].items())
    else:
        return
    for token, odds in pairs:
        if isinstance(token, str) and isinstance(odds, int | float) and not isinstance(odds, bool) and odds <= ROUNDING:
            yield token, min(0.0, float(odds))


def log_sum(odds: Iterable[float]) -> float:
    """log of the summed probabilities; -inf of none."""
    total = sum(math.exp(o) for o in odds)
    return math.log(total) if total > 0 else -math.inf
