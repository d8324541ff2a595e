"""The looks part of the bias card: does the longer answer, the one with more Markdown or the one on the left win by its looks?

One logistic regression a person and one for the project: choosing the left answer on the scaled differences in length and Markdown
(left minus right) and an intercept, the side. `labeling.bias` says what the coefficients mean.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from labeling.bias_card import LEFT, RIGHT, Effect, LabelColumns
from labeling.intervals import LEVEL
from labeling.logistic import Fit, fit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_DECISIVE = 20  # fewer decisive labels say nothing about three coefficients
TOO_FEW = f"needs {MIN_DECISIVE} pairs with a label that chose a side"
SAME_LENGTH = "both answers of every pair are of one length"
SAME_MARKDOWN = "both answers of every pair use as much Markdown"
_ROBUST_SD = 0.6745  # the median of |d| of a normal d is 0.6745 standard deviations


class Looks(NamedTuple):
    """Of one person or the project."""

    side: Effect
    length: Effect
    markdown: Effect


class _Rows(NamedTuple):
    """Decisive labels sorted by annotator: `x` (3, rows) = 1, length, markdown; `ends` (people + 1,): where each one begins."""

    x: Floats
    left: Floats
    item: Ints
    ends: Ints


def looks(labels: LabelColumns, people: int) -> list[Looks]:
    """One a person (by code), then the project."""
    rows = _rows(labels, people)
    whole = _fit_project(rows)
    start = None if whole is None else whole.coefficients
    found = [_effects(_fit_person(rows.x[:, i:j], rows.left[i:j], start), rows.x[:, i:j]) for i, j in pairwise(rows.ends)]
    return [*found, _effects(whole, rows.x)]


def by_annotator(annotator: Ints, people: int) -> Ints:
    """The order that sorts by annotator; 16-bit codes are sorted by radix, ten times faster."""
    return np.argsort(annotator.astype(np.int16) if people < 2**15 else annotator, kind="stable")


def scaled(difference: Ints) -> Floats:
    """tanh(d / s), s a robust standard deviation, over its root mean square about 0; all 0 where no pair differs."""
    size = np.abs(difference)
    middle = float(np.median(size)) / _ROBUST_SD if size.size else 0.0
    spread = middle or (float(size.mean()) if size.size else 0.0)  # more than half of the pairs do not differ: their mean
    if spread == 0:
        return np.zeros(difference.size)
    squeezed = np.tanh(difference / spread)
    return squeezed / np.sqrt(np.mean(squeezed**2))


def _rows(labels: LabelColumns, people: int) -> _Rows:
    chose = np.flatnonzero((labels.preference == LEFT) | (labels.preference == RIGHT))
    annotator = labels.annotator[chose]
    rows = chose[by_annotator(annotator, people)]
    length = scaled(labels.length_left[rows] - labels.length_right[rows])
    markdown = scaled(labels.markdown_left[rows] - labels.markdown_right[rows])
    ends = np.r_[0, np.cumsum(np.bincount(annotator, minlength=people))]
    left = (labels.preference[rows] == LEFT).astype(np.float64)
    return _Rows(np.stack([np.ones(rows.size), length, markdown]), left, labels.item[rows], ends)


def _numbered(item: Ints) -> Ints:
    """Codes small enough to count by."""
    if item.size and int(item.max()) > 4 * item.size + 1000:
        return np.unique(item, return_inverse=True)[1]
    return item


def _fit_project(rows: _Rows) -> Fit | None:
    item = _numbered(rows.item)
    several_pairs = np.count_nonzero(np.bincount(item)) >= MIN_DECISIVE
    return fit(rows.x, rows.left, clusters=item) if several_pairs else None


def _fit_person(x: Floats, left: Floats, start: Floats | None) -> Fit | None:
    return fit(x, left, start) if left.size >= MIN_DECISIVE else None


def _effects(found: Fit | None, x: Floats) -> Looks:
    n = x.shape[1]
    if found is None:
        nothing = Effect(None, n=n, note=TOO_FEW)
        return Looks(nothing, nothing, nothing)
    # Where a regressor is 0 everywhere the fit knows only the prior.
    return Looks(
        _effect(found, 0, n),
        _effect(found, 1, n) if x[1].any() else Effect(None, n=n, note=SAME_LENGTH),
        _effect(found, 2, n) if x[2].any() else Effect(None, n=n, note=SAME_MARKDOWN),
    )


def _effect(found: Fit, k: int, n: int) -> Effect:
    value, se = float(found.coefficients[k]), float(np.sqrt(found.covariance[k, k]))
    t = float(stdtrit(found.freedom, 0.5 + LEVEL / 2))
    return Effect(value, se, value - t * se, value + t * se, n, 2 * float(stdtr(found.freedom, -abs(value) / se)))
