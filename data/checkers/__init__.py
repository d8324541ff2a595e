"""What can be graded by rule: one module per kind of question, free of torch, used by training and evals alike.

`CHECKERS` is the one list: a run's reward, the Train page and the snapshots of prompts read it. A new kind of question is a module
beside `gsm8k.py` and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from data.checkers import demo_world, gsm8k
from data.errors import BadInput


class Checker(NamedTuple):
    """`covers(prompt, reference)`: whether it can grade answers to this prompt; `score(prompt, reference, answer)`: from 1 (right)
    down to 0. `prompt` is the last user turn."""

    name: str
    title: str
    covers: Callable[[str, str], bool]
    score: Callable[[str, str, str], float]


CHECKERS: Final[dict[str, Checker]] = {
    each.name: each
    for each in (
        Checker(
            "demo_world", "The demo world's rules", lambda p, r: demo_world.covers(p), lambda p, r, a: demo_world.grade(p, a).score
        ),
        Checker("gsm8k", "GSM8K: the right final number", lambda p, r: gsm8k.covers(r), lambda p, r, a: float(gsm8k.grade(r, a))),
    )
}


def checker(name: str) -> Checker:
    """The checker of that name; BadInput for any other word."""
    if name not in CHECKERS:
        raise BadInput(f"Nothing grades by the name {name!r}; choose one of {', '.join(CHECKERS)}.")
    return CHECKERS[name]
