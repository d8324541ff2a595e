"""Statistics in words: a share, a coefficient, a verdict, each with its uncertainty. No number leaves here without one."""

from __future__ import annotations

from labeling.bias_binary import BinaryCard
from labeling.bias_card import BiasCard, Effect, Seconds
from labeling.coefficients import Coefficient
from labeling.intervals import ALPHA, Share
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
    "tie": "equally good",
    "both_bad": "both bad",
    "good": "good",
    "bad": "bad",
}
PREFERENCE_NAMES = {
    "a": "left",
    "b": "right",
    "tie": "equally good",
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
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


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
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def stands_out(measure: Share | Effect) -> bool:
    return measure.p_adjusted is not None and measure.p_adjusted < ALPHA


def verdict(measure: Share | Effect, above: str, below: str, nothing: str, half: float) -> str:
    """What a measure says: `above` or `below` `half`, `nothing`, or that there are too few labels to say it."""
    if measure.value is None:
        return measure.note or "not measured"
    if stands_out(measure):
        return above if measure.value > half else below
    needed = measure.n_needed
    if needed and measure.n < needed:
        return f"too few to tell: {measure.n:,} of about {needed:,}"
    return nothing


def binary_verdicts(card: BinaryCard) -> dict[str, str]:
    """By the field of the card."""
    return {
        "length": verdict(card.length, "calls longer answers good", "calls shorter answers good", "length hardly matters", 0.0),
        "markdown": verdict(card.markdown, "calls more Markdown good", "calls less Markdown good", "Markdown hardly matters", 0.0),
        "gold": verdict(card.gold, "", "often wrong on known items", "right on known items", 1.0),
    }


def verdicts(card: BiasCard) -> dict[str, str]:
    """By the field of the card."""
    return {
        "left": verdict(card.left, "leans to the left", "leans to the right", "no lean", 0.5),
        "side": verdict(card.side, "leans to the left at equal looks", "leans to the right at equal looks", "no lean", 0.0),
        "length": verdict(card.length, "favours longer answers", "avoids longer answers", "length hardly matters", 0.0),
        "markdown": verdict(card.markdown, "favours more Markdown", "avoids Markdown", "Markdown hardly matters", 0.0),
        "flips": verdict(card.flips, "answers change with the side", "", "no more than two people differ", 0.0),
        "gold": verdict(card.gold, "", "often wrong on known items", "right on known items", 1.0),
    }
