"""From what a judge said to a verdict: pure functions and frozen records.

A judge is asked twice, with each answer shown first once. In one order it either gives log-probabilities of the two labels or a
text; both become a `Reading`, and two readings become a `Verdict`. What cannot be read is unscored, with the reason: there is
no default verdict, since every default is a vote for somebody.

The hard verdict follows MT-Bench (Zheng et al. 2023, section 3.4): a win needs both orders to agree, else it is a tie. The
probability `p` is kept beside it, and `flipped` says that the orders disagreed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Pick = Literal["first", "second", "tie"]
Hard = Literal["a", "b", "tie", ""]
MIN_MASS = 0.5  # below this the model mostly wanted to say something else than a label
_SEEN = 20_000  # characters of a reply that are read, from its end
_LONGEST_VERDICT = 120  # characters: a longer sentence is reasoning, not a verdict


class LabelShare(NamedTuple):
    """P(first label) among the two, and how much of all probability the two hold together."""

    first: float
    mass: float


@dataclass(frozen=True)
class Reading:
    """What a judge said in one order: `p` = P(the answer shown first is better), None when unscored."""

    p: float | None
    method: Literal["logprobs", "text", "identical", ""] = ""
    logprobs: tuple[float, ...] = ()
    mass: float | None = None
    text: str = ""
    unscored: str = ""
    attempts: int = 1

    @property
    def pick(self) -> Pick | None:
        if self.p is None:
            return None
        return "tie" if self.p == 0.5 else "first" if self.p > 0.5 else "second"

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: a label that was not among the server's top tokens is null."""
        logprobs = [x if math.isfinite(x) else None for x in self.logprobs]
        return {"method": self.method, "logprobs": logprobs, "mass": self.mass, "text": self.text, "attempts": self.attempts}


@dataclass(frozen=True)
class Verdict:
    """Both orders together. `p_ab`, `p_ba`, `p` = P(a is better) with a shown first, with a shown second, and their mean."""

    ab: Reading
    ba: Reading
    p_ab: float | None
    p_ba: float | None
    p: float | None
    verdict: Hard
    flipped: bool | None
    unscored: str = ""

    @property
    def first_slot(self) -> float | None:
        """P(the answer shown first is better), mean of both orders; 0.5 = no position bias."""
        return None if self.ab.p is None or self.ba.p is None else (self.ab.p + self.ba.p) / 2


IDENTICAL = Reading(0.5, "identical", attempts=0)


def unscored(reason: str, text: str = "", attempts: int = 1) -> Reading:
    return Reading(None, text=text, unscored=reason, attempts=attempts)


def nobody(reason: str) -> Verdict:
    """No verdict, because nobody was asked."""
    return Verdict(unscored(reason, attempts=0), unscored(reason, attempts=0), None, None, None, "", None, reason)


def combine(ab: Reading, ba: Reading, tie_band: float = 0.0) -> Verdict:
    """Two readings of one comparison, a shown first in `ab` and second in `ba`.

    `tie_band`: also a tie when p lies within that of 0.5 (0 = only when it is 0.5 exactly); fit it on people's ties, not by taste.
    """
    p_ba = None if ba.p is None else 1 - ba.p
    if ab.p is None or p_ba is None:
        reasons = [f"{shown}: {r.unscored}" for shown, r in (("first order", ab), ("second order", ba)) if r.p is None]
        return Verdict(ab, ba, ab.p, p_ba, None, "", None, "; ".join(reasons))
    p = (ab.p + p_ba) / 2
    mirrored: dict[Pick | None, Pick] = {"first": "second", "second": "first", "tie": "tie"}
    flipped = ab.pick != mirrored[ba.pick]
    hard: Hard = "tie" if flipped or abs(p - 0.5) <= tie_band else "a" if p > 0.5 else "b"
    return Verdict(ab, ba, ab.p, p_ba, p, hard, flipped)


def label_share(logprobs: Sequence[float]) -> LabelShare | None:
    """Two natural log-probabilities -> P(first) = e^l1 / (e^l1 + e^l2) and mass; None when they are no log-probabilities.

    A label the server did not list is -inf. Both unseen gives mass 0 and P(first) 0.5: the caller must look at the mass.
    """
    if len(logprobs) != 2 or any(math.isnan(x) or x > 1e-3 for x in logprobs):
        return None
    one, two = (math.exp(x) for x in logprobs)
    if one + two > 1.01:
        return None
    top = max(logprobs)
    if top == -math.inf:
        return LabelShare(0.5, 0.0)
    weights = [math.exp(x - top) for x in logprobs]  # by the larger one, or both underflow to 0 / 0
    return LabelShare(weights[0] / sum(weights), min(1.0, one + two))


def read_logprobs(logprobs: Sequence[float], text: str = "", min_mass: float = MIN_MASS) -> Reading:
    found = label_share(logprobs)
    if found is None:
        return unscored("the judge's log-probabilities make no sense", text)
    if found.mass < min_mass:
        reason = f"the judge wanted to say something else (its labels hold {100 * found.mass:.0f} % of the probability)"
        return Reading(None, "logprobs", tuple(logprobs), found.mass, text, reason)
    return Reading(found.first, "logprobs", tuple(logprobs), found.mass, text)


def read_text(text: str, labels: tuple[str, str] = ("A", "B"), attempts: int = 1) -> Reading:
    pick = parse_reply(text, labels)
    if pick is None:
        reason = "the judge's reply names no verdict" if text.strip() else "the judge's reply is empty"
        return unscored(reason, text, attempts)
    p = {"first": 1.0, "second": 0.0, "tie": 0.5}[pick]
    return Reading(p, "text", text=text, attempts=attempts)


def parse_reply(text: str, labels: tuple[str, str] = ("A", "B")) -> Pick | None:
    """The last verdict on the menu, or None. Strict on purpose: a sentence counts only when it is a verdict from end to end.

    "[[A]]" counts anywhere. "Verdict: A", "The better answer is B." or "It is a tie." count as whole sentences, so "I doubt
    that the better answer is A" does not. A bare label ("A", "Answer B") counts at the start or the end of the reply, and only
    if the other label does not stand bare somewhere: headings and enumerations of both answers are no verdict. Reasoning
    between <think> tags is not read.
    """
    _, _, text = text[-_SEEN:].rpartition("</think>")
    if "<think>" in text:
        return None
    patterns = _patterns(labels)
    said: Pick | None = None
    bare: dict[int, Pick] = {}
    units = [unit for unit in _UNITS.split(text) if unit.strip()]
    for i, unit in enumerate(units):
        for bracketed in patterns.bracketed.finditer(unit):
            said = _pick(bracketed["label"], labels)
        plain = _DECORATION.sub("", unit).strip(" \t\r'")
        if len(plain) > _LONGEST_VERDICT:
            continue
        if explicit := patterns.explicit.fullmatch(plain):
            said = _pick(next(filter(None, explicit.groups())), labels)
        elif alone := patterns.bare.fullmatch(plain):
            bare[i] = _pick(alone["label"], labels)
    if said is not None or len(set(bare.values())) != 1:
        return said
    ends = bare.keys() & {0, len(units) - 1}
    return next(iter(bare.values())) if ends else None


# A unit ends at a line's end or after a full stop that is followed by white space.
_UNITS = re.compile(r"\n+|(?<=[.!?])[*_\"')\]]*\s+")
_DECORATION = re.compile(r"[*_`#\"“”{}\[\]()<>|~]|^\s*[-•]\s|,\s*$")
_TIE = r"(?:tie|tied|draw)"


class _Patterns(NamedTuple):
    bracketed: re.Pattern[str]
    explicit: re.Pattern[str]
    bare: re.Pattern[str]


@lru_cache(maxsize=8)
def _patterns(labels: tuple[str, str]) -> _Patterns:
    """Letters count in their own case only ("a better answer" names nothing); the words around them in any case."""
    letter = "|".join(re.escape(label) for label in labels)
    noun = r"(?i:(?:the\s)?(?:answer|response|output|option|assistant|candidate)\s)?"
    lead = r"(?i:(?:so|thus|hence|therefore|overall|finally|in\s(?:conclusion|summary|short)),?\s)?"
    best = r"(?:better|best|preferred|stronger|winning)\s(?:answer|response|one|option|output)"
    name = (
        rf"(?i:(?:the\s|my\s)?(?:final\s|overall\s)?(?:{best}"
        r"|verdict|answer|winner|choice|decision|judge?ment|preference|conclusion|result))"
    )
    end = r"\s*[.!]?"
    choose = r"(?i:I(?:'d|\swould)?\s(?:prefer|choose|pick|select|vote\sfor|go\s(?:with|for)))"
    ranked = rf"(?:\s(?:clearly|much|slightly))?(?:\sthe)?\s(?:{best}|better|best|preferred|stronger|winner)"
    better = rf"(?i:\swins|\s(?:is|was){ranked})(?:(?i:\sthan)\s{noun}(?:{letter}))?"
    equal = (
        r"(?i:(?:it|this|the\sresult|the\sverdict)(?:'s|\sis)\sa\s" + _TIE + r"|a\s" + _TIE + r"|"
        r"(?:both|the\stwo)(?:\s(?:answers|responses))?\sare\s(?:equal|tied|equally\s(?:good|bad|helpful))|neither(?:\sanswer)?\sis\sbetter)"
    )
    explicit = "|".join(
        (
            rf"{lead}{name}(?i:\s?[:=]\s?|\sis:?\s){noun}({letter}|(?i:(?:a\s)?{_TIE})){end}",
            rf"{lead}{choose}\s{noun}({letter}){end}",
            rf"{lead}{noun}({letter}){better}{end}",
            rf"{lead}({equal}){end}",
        )
    )
    bracketed = rf"\[\[\s*(?P<label>{letter}|(?i:{_TIE}))\s*\]\]"
    return _Patterns(re.compile(bracketed), re.compile(explicit), re.compile(rf"{noun}(?P<label>{letter}|(?i:{_TIE})){end}"))


def _pick(said: str, labels: tuple[str, str]) -> Pick:
    if said == labels[0]:
        return "first"
    return "second" if said == labels[1] else "tie"
