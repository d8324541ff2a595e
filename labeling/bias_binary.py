"""The bias card where one answer is shown at a time: does somebody call an answer good for its length or looks?

There are no sides here, so nothing is drawn by lot that could tell a bias by itself. What can be measured, each with its n:

- *good*: share of all labels but skips that say good, with Wilson's interval.
- *length*, *markdown*: the logistic coefficients of `labeling.bias`, the project's typical answer (median length, median Markdown)
  in the place of the other one: the change in log-odds of "good" for one typical distance from it. Long answers may be good ones:
  compare people with each other.
- *changed*: of the answers shown to one person a second time and decided both times, the share that was called otherwise.
- *seconds*, *gold*: as in `labeling.bias`.

The rows are those of `labeling.bias` as well: good in the place of left, bad in that of right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labeling.bias import bias_report, flags_of_gold, flags_of_looks
from labeling.bias_card import LEFT, RIGHT, SKIP, BiasCard, BiasReport, Effect, Gold, LabelColumns, Repeats, Seconds
from labeling.intervals import Share
from labeling.looks import MIN_DECISIVE, SAME_LENGTH, SAME_MARKDOWN, TOO_FEW

Ints = NDArray[np.int64]

NO_LABELS = "nothing was called good or bad yet"
NO_REPEATS = "no answer was labelled twice and decided both times yet"
_NOTES = {
    TOO_FEW: f"needs {MIN_DECISIVE} answers called good or bad",
    SAME_LENGTH: "all answers are of one length",
    SAME_MARKDOWN: "all answers use as much Markdown",
}


@dataclass(frozen=True)
class Called:
    """One row a label on an answer shown by itself. `good`: 1 good, 0 bad, -1 skipped; the rest as in `LabelColumns`."""

    annotator: Ints
    item: Ints
    good: Ints
    length: Ints
    markdown: Ints
    dwell_ms: Ints


@dataclass(frozen=True)
class BinaryCard:
    """`annotator` is None on the project's card. `n_labels` counts all but skips."""

    annotator: int | None
    n_labels: int
    n_skips: int
    good: Share
    length: Effect
    markdown: Effect
    changed: Share
    seconds: Seconds
    gold: Share
    flags: tuple[str, ...]


def binary_report(called: Called, repeats: Repeats | None = None, gold: Gold | None = None) -> BiasReport[BinaryCard]:
    """`repeats`: 1 good, 0 bad, before and after."""
    told = called.good >= 0
    columns = LabelColumns(
        annotator=called.annotator,
        item=called.item,
        preference=np.where(told, np.where(called.good == 1, LEFT, RIGHT), SKIP),
        length_left=called.length,
        length_right=_typical(called.length, told),
        markdown_left=called.markdown,
        markdown_right=_typical(called.markdown, told),
        dwell_ms=called.dwell_ms,
    )
    found = bias_report(columns, repeats, gold)
    return BiasReport(_card(found.project, None), tuple(_card(card, found.project) for card in found.annotators))


def _typical(of: Ints, told: NDArray[np.bool_]) -> Ints:
    return np.full(of.size, int(np.median(of[told])) if told.any() else 0)


def _card(card: BiasCard, project: BiasCard | None) -> BinaryCard:
    return BinaryCard(
        annotator=card.annotator,
        n_labels=card.n_labels,
        n_skips=card.n_skips,
        good=_plain(card.left, NO_LABELS),
        length=_in_words(card.length),
        markdown=_in_words(card.markdown),
        changed=_plain(card.flips, NO_REPEATS),
        seconds=card.seconds,
        gold=card.gold,
        flags=(*flags_of_looks(card, project), *flags_of_gold(card)),
    )


def _plain(of: Share, nothing: str) -> Share:
    """Without the tests: how many answers are good nobody knows, and that one in three pairs is disputed says nothing of these."""
    return replace(of, p=None, p_adjusted=None, against=None, n_needed=None, effect="", note=nothing if of.value is None else "")


def _in_words(of: Effect) -> Effect:
    return replace(of, note=_NOTES.get(of.note, of.note))
