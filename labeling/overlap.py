"""When an item has enough labels: pure rules over what was said of it.

What was said of an item is a short word, one letter a label that counts (skips, gold and repeats do not), in the item's own
order, sides undone: f first, s second, t tie, x both bad, g good, b bad. Plain overlap wants k letters. Adaptive overlap is
content with two that agree, so that labels go where people differ, and asks for up to `max_overlap` otherwise; a share of the
items, fixed by the hash of the item's id, always gets `max_overlap`: agreement is measured there, where nobody stopped early
because people agreed.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from data.records import Outcome, Policy, ProjectSettings

LETTERS: dict[Outcome, str] = {"first": "f", "second": "s", "tie": "t", "both_bad": "x", "good": "g", "bad": "b"}
OUTCOMES: dict[str, Outcome] = {letter: outcome for outcome, letter in LETTERS.items()}
_SIDES = {("a", True): "f", ("a", False): "s", ("b", True): "s", ("b", False): "f"}  # (preference, first is on the left)
ENOUGH_THAT_AGREE = 2
DECISIVE = frozenset("fst")  # what a judge can say too
DISAGREEMENT: Policy = "judge_disagreement"


def letter(preference: str, left: str, right: str) -> str:
    """The letter of a preference by completion ids as shown; '' for a skip or a label taken back. A pair's first completion is
    the one with the smaller id."""
    if preference in ("a", "b"):
        return _SIDES[preference, left < right]
    return LETTERS.get(preference, "")  # type: ignore[call-overload]


def always_full(item_id: str, share: float) -> bool:
    """Whether the item belongs to the fixed share that gets every label: the same for ever; a larger share holds the smaller."""
    return int.from_bytes(hashlib.sha256(f"full\0{item_id}".encode()).digest()[:8], "big") < share * 2**64


def agreed(said: str) -> bool:
    return len(said) >= ENOUGH_THAT_AGREE and max(Counter(said).values()) >= ENOUGH_THAT_AGREE


def majority(said: str) -> str:
    """The most frequent letter, '' when there is none or two share that place."""
    most = Counter(said).most_common(2)
    return "" if not most or (len(most) == 2 and most[0][1] == most[1][1]) else most[0][0]


def disputed(said: str, verdict: str, settings: ProjectSettings) -> bool:
    """Whether people and judge differ on a labelled item that may have more labels: what `judge_disagreement` asks about."""
    if settings.policy != DISAGREEMENT or not said or len(said) >= settings.max_overlap or verdict not in DECISIVE:
        return False
    return majority(said) in DECISIVE - {verdict}


def wanted(said: str, full: bool, contested: bool, settings: ProjectSettings) -> int:
    """How many labels the item should have, given those it has: it is done when it has as many."""
    n = len(said)
    if not settings.adaptive:
        number = settings.overlap
    elif full:
        number = settings.max_overlap
    elif agreed(said):
        number = ENOUGH_THAT_AGREE
    else:
        number = min(max(ENOUGH_THAT_AGREE, n + 1), settings.max_overlap)
    return max(number, n + 1) if contested else number
