"""What the bias card is computed from and what it says: columns in, frozen cards out (`labeling.bias` explains the numbers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from labeling.intervals import ALPHA, Share, n_for_slope

Card = TypeVar("Card")  # BiasCard, or BinaryCard of labeling.bias_binary
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PREFERENCES = ("a", "b", "tie", "both_bad", "skip")
LEFT, RIGHT, TIE, BOTH_BAD, SKIP = range(5)

SLOPE = 0.25  # log-odds per typical difference: about what Chatbot Arena measures for length
N_SLOPE = n_for_slope(SLOPE)


@dataclass(frozen=True)
class LabelColumns:
    """One row a label, as shown. Codes from 0; `preference` indexes PREFERENCES (a = the left answer).

    Lengths in characters, `markdown_*` = `data.style.Style.markdown`, `dwell_ms` 0 = not measured.
    """

    annotator: Ints
    item: Ints
    preference: Ints
    length_left: Ints
    length_right: Ints
    markdown_left: Ints
    markdown_right: Ints
    dwell_ms: Ints


class Repeats(NamedTuple):
    """One row a pair labelled twice by one person, sides swapped the second time. Preferences in *pair order*, codes as above."""

    annotator: Ints
    before: Ints
    after: Ints


class Gold(NamedTuple):
    """One row a label on an item whose answer is known."""

    annotator: Ints
    right: Bools


@dataclass(frozen=True)
class Effect:
    """A logistic coefficient with its 95 % interval; `effect`: what `n_needed` labels would show with power 0.8."""

    value: float | None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    p_adjusted: float | None = None
    n_needed: int = N_SLOPE
    effect: str = f"{SLOPE} log-odds for a typical difference"
    note: str = ""
    against: float = 0.0


@dataclass(frozen=True)
class Seconds:
    """Time per label in seconds: median and quartiles; None when nothing was measured."""

    median: float | None
    low_quartile: float | None = None
    high_quartile: float | None = None
    n: int = 0


@dataclass(frozen=True)
class BiasCard:
    """`annotator` is None on the project's card. `n_labels` counts all but skips, `n_decisive` the a and b among them."""

    annotator: int | None
    n_labels: int
    n_decisive: int
    n_skips: int
    left: Share
    side: Effect
    length: Effect
    markdown: Effect
    longer: Share
    tie: Share
    both_bad: Share
    flips: Share
    seconds: Seconds
    gold: Share
    flags: tuple[str, ...]


@dataclass(frozen=True)
class BiasReport(Generic[Card]):
    project: Card
    annotators: tuple[Card, ...]


def stands_out(of: Share | Effect) -> bool:
    """Whether this may be called a finding: p, adjusted, is below 0.05, and the interval shown with it leaves out what it is held
    against. Some tests are one-sided: without the second half they would find what their own interval still allows."""
    if of.p_adjusted is None or of.low is None or of.high is None or of.against is None:
        return False
    return of.p_adjusted < ALPHA and not of.low <= of.against <= of.high
