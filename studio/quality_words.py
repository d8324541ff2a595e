"""Statistics in words: a share, a coefficient, a verdict, each with its uncertainty. No number leaves here without one."""

from __future__ import annotations

from typing import NamedTuple

from data.words import number
from labeling.bias_card import Effect, Seconds, stands_out
from labeling.coefficients import Coefficient
from labeling.intervals import Share
from studio.render import percent, percents

FLAG_NAMES = {
    "too_fast": "too fast",
    "unread": "not read to the end",
    "identical": "identical answers",
    "empty": "empty answer",
    "truncated": "answer cut off",
    "error_text": "error message",
    "identity_leak": "names its model",
    "extra": "more than needed",
    "reported": "reported by the annotator",
}
OUTCOME_NAMES = {
    "first": "answer 1",
    "second": "answer 2",
    "tie": "tie",
    "both_bad": "both bad",
    "good": "good",
    "bad": "bad",
}
PREFERENCE_NAMES = {
    "a": "A (left)",
    "b": "B (right)",
    "tie": "tie",
    "both_bad": "both bad",
    "skip": "skipped",
    "good": "good",
    "bad": "bad",
}


def share(of: Share) -> str:
    """ "52 % (49–55 %) of 1,204"; the reason where there is nothing."""
    if of.value is None or of.low is None or of.high is None:
        return of.note or "–"
    return f"{percent(of.value)} ({percents(of.low, of.high)}) of {of.n:,}"


def short_share(of: Share) -> str:
    """For a narrow column; "–" where there is nothing."""
    if of.value is None or of.low is None or of.high is None:
        return "–"
    return f"{percent(of.value)} ({percents(of.low, of.high)})"


def short_effect(of: Effect) -> str:
    """ "+0.25 (+0.10 to +0.40)"; "–" where there is nothing."""
    if of.value is None or of.low is None or of.high is None:
        return "–"
    return f"{signed(of.value)} ({signed(of.low)} to {signed(of.high)})"


def signed(value: float) -> str:
    return number(value, "+.2f")


def seconds(of: Seconds) -> str:
    """ "12 s (8–20 s)": median and quartiles."""
    if of.median is None or of.low_quartile is None or of.high_quartile is None:
        return "–"
    return f"{_s(of.median)} s ({_s(of.low_quartile)}–{_s(of.high_quartile)} s)"


def _s(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def coefficient(of: Coefficient) -> str:
    """ "0.62 (0.55 to 0.68)", or "undefined"."""
    if of.value is None:
        return "undefined"
    if of.low is None or of.high is None:
        return f"{_c(of.value)} (no interval)"
    return f"{_c(of.value)} ({_c(of.low)} to {_c(of.high)})"


def _c(value: float) -> str:
    return number(value, ".2f")


class Told(NamedTuple):
    """What a measure says when it is above what it is held against, below it, and neither."""

    above: str
    below: str
    neither: str


def verdict(measure: Share | Effect, told: Told | None) -> str:
    """What a measure says, or that there are too few labels to say it; '' where nothing is said of it."""
    if told is None:
        return ""
    if measure.value is None or measure.against is None:
        return measure.note or "not measured"
    if stands_out(measure):
        return told.above if measure.value > measure.against else told.below
    needed = measure.n_needed
    if needed and measure.n < needed:
        return f"too few to tell: {measure.n:,} of about {needed:,}"
    return told.neither
