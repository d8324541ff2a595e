"""Agreement coefficients as functions of sums over items, so that a bootstrap replicate costs a few multiplications.

What a coefficient needs of an item is how many people gave each answer, and with a few labels an item there are few different
such count patterns: 1,000,000 labels by five people and four answers have at most 125. Resampling items with replacement is a
multinomial draw over those patterns, and every coefficient here is a formula over sums of *features* of a pattern. So the cost
of an interval grows with the number of patterns, not of items.

Notation: an item has m labels, c_k of them in category k; "paired" items have m >= 2. Sums run over paired items.

*Raw agreement*: mean over paired items of the share of agreeing pairs, sum_k c_k (c_k - 1) / (m (m - 1)). Every item counts once.
*Krippendorff's alpha*, nominal, with missing data (Krippendorff 2004, ch. 11.3; Hayes and Krippendorff 2007): 1 - D_o / D_e with
    D_o = 1 - (1/N) sum_items sum_k c_k (c_k - 1) / (m - 1),   D_e = 1 - sum_k N_k (N_k - 1) / (N (N - 1)),
    N_k = labels in category k on paired items, N = sum_k N_k. An item counts by its number of labels.
*Fleiss' kappa* (Fleiss 1971), over items with exactly r labels: (P - S) / (1 - S) with P the mean share of agreeing pairs and
    S = sum_k (N_k / N)^2.
*Gwet's AC1* (Gwet 2008; missing labels as in Gwet 2014, ch. 5): (P - S) / (1 - S) with S = sum_k q_k (1 - q_k) / (K - 1), q_k the
    mean of c_k / m over all items with a label (also a single one) and K the number of categories that could be chosen.
*Cohen's kappa* (Cohen 1960): from the two annotators' table, chance agreement from each one's own frequencies.

A value is NaN in here where the formula divides by zero; `labeling.agreement` turns that into words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from labeling.intervals import LEVEL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPLICATES = 1000
_MOST_DRAWS = 5_000_000  # patterns x replicates: with very many patterns fewer replicates are drawn, never under 200
_FEWEST_REPLICATES = 200

NO_LABELS = "nothing has been labelled yet"
ONE_PERSON = "only one person has labelled: agreement needs two"
NO_OVERLAP = "no item has labels from two people yet"
ONE_ITEM = "one item has no interval"
TOO_FEW = "too few items for an interval"
NO_DISAGREEMENT = "nobody disagreed on any item; the lower end is what so few items can rule out"


@dataclass(frozen=True)
class Coefficient:
    """One coefficient with its 95 % interval. `value` is None where it is undefined, and `note` says why (or what is special).

    `n_items`, `n_labels`: what went into it. `n_left_out`: items with several labels that this coefficient cannot use.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n_items: int = 0
    n_labels: int = 0
    n_left_out: int = 0
    note: str = ""


class Statistic(NamedTuple):
    """`features`: (patterns, K) counts -> (patterns, d). `value`: (..., d) sums of them -> (...) coefficient, NaN = undefined.

    `enters`: which patterns' items count for it at all.
    """

    features: Callable[[Floats], Floats]
    value: Callable[[Floats], Floats]
    enters: Callable[[Floats], NDArray[np.bool_]]


def _paired(counts: Floats) -> NDArray[np.bool_]:
    return counts.sum(axis=1) >= 2


def _agreeing(counts: Floats) -> Floats:
    """Ordered agreeing pairs of an item: sum_k c_k (c_k - 1)."""
    return (counts * (counts - 1)).sum(axis=1)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is 0 (to rounding)."""
    safe = bottom > 1e-12
    return np.where(safe, top / np.where(safe, bottom, 1.0), np.nan)


def _raw_features(counts: Floats) -> Floats:
    m = counts.sum(axis=1)
    pairs = np.maximum(m * (m - 1), 1)
    paired = _paired(counts)
    return np.stack([paired, paired * _agreeing(counts) / pairs], axis=1).astype(np.float64)


def _raw_value(sums: Floats) -> Floats:
    return _ratio(sums[..., 1], sums[..., 0])


def _alpha_features(counts: Floats) -> Floats:
    m, paired = counts.sum(axis=1), _paired(counts)
    agreeing = paired * _agreeing(counts) / np.maximum(m - 1, 1)
    return np.column_stack([agreeing, counts * paired[:, None]])


def _alpha_value(sums: Floats) -> Floats:
    agreeing, by_category = sums[..., 0], sums[..., 1:]
    total = by_category.sum(axis=-1)
    observed = 1 - _ratio(agreeing, total)
    expected = 1 - _ratio((by_category * (by_category - 1)).sum(axis=-1), total * (total - 1))
    return 1 - _ratio(observed, expected)


def _fleiss_value(sums: Floats) -> Floats:
    items, agreement, by_category = sums[..., 0], sums[..., 1], sums[..., 2:]
    shares = _ratio(by_category, by_category.sum(axis=-1, keepdims=True))
    by_chance = (shares**2).sum(axis=-1)
    return _ratio(_ratio(agreement, items) - by_chance, 1 - by_chance)


def _ac1_features(counts: Floats) -> Floats:
    m = counts.sum(axis=1, keepdims=True)
    return np.column_stack([_raw_features(counts), m[:, 0] > 0, counts / np.maximum(m, 1)])


def _ac1_value(sums: Floats) -> Floats:
    agreement = _raw_value(sums[..., :2])
    shares = _ratio(sums[..., 3:], sums[..., 2:3])
    by_chance = (shares * (1 - shares)).sum(axis=-1) / (shares.shape[-1] - 1)
    return _ratio(agreement - by_chance, 1 - by_chance)


def fleiss(raters: int) -> Statistic:
    """Fleiss' kappa over the items with exactly `raters` labels; all others are left out, not trimmed."""

    def enters(counts: Floats) -> NDArray[np.bool_]:
        return counts.sum(axis=1) == raters

    def features(counts: Floats) -> Floats:
        fixed = counts * enters(counts)[:, None]
        return np.column_stack([_raw_features(fixed), fixed])

    return Statistic(features, _fleiss_value, enters)


RAW = Statistic(_raw_features, _raw_value, _paired)
ALPHA = Statistic(_alpha_features, _alpha_value, _paired)
AC1 = Statistic(_ac1_features, _ac1_value, _paired)


def cohen(table: Floats) -> Floats:
    """Cohen's kappa of (..., K, K) tables (first annotator's answer in the rows); NaN where both gave one and the same answer."""
    total = table.sum(axis=(-1, -2))
    agreement = _ratio(np.trace(table, axis1=-2, axis2=-1), total)
    by_chance = _ratio((table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1), total**2)
    return _ratio(agreement - by_chance, 1 - by_chance)


def draw_items(counts: Floats, items: Ints, replicates: int, rng: np.random.Generator) -> Floats:
    """(replicates, patterns): how often each count pattern comes in a resample of the items.

    Items with several labels and items with one are resampled apart: how many have several was decided by whoever set the
    overlap, it is not a matter of chance.
    """
    drawn = np.zeros((replicates, items.size))
    paired = _paired(counts)
    for stratum in (paired, ~paired):
        total = int(items[stratum].sum())
        if total:
            drawn[:, stratum] = rng.multinomial(total, items[stratum] / total, size=replicates)
    return drawn


def affordable(replicates: int, patterns: int, most_draws: int = _MOST_DRAWS) -> int:
    """As many replicates as were asked for, fewer (never under 200) where there are very many patterns."""
    return max(min(replicates, _FEWEST_REPLICATES), min(replicates, most_draws // max(patterns, 1)))


def one_answer(name: str) -> str:
    return f"everybody always answered “{name}”: nothing tells agreement from habit, so the coefficient is undefined"


def interval(value: float, replicates: Floats, n_items: int, by_chance: float) -> tuple[float | None, float | None, str]:
    """(low, high, note): percentiles of the replicates, or in words why there are none. `by_chance`: see NO_DISAGREEMENT's rule."""
    if n_items == 1:
        return None, None, ONE_ITEM
    if value > 1 - 1e-12:
        z2 = float(ndtri(0.5 + LEVEL / 2)) ** 2
        could_be_disputed = z2 / (n_items + z2)
        return max(-1.0, 1 - could_be_disputed / by_chance), 1.0, NO_DISAGREEMENT
    defined = replicates[~np.isnan(replicates)]
    if defined.size < 0.9 * replicates.size:
        return None, None, TOO_FEW
    low, high = np.quantile(defined, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return min(float(low), value), max(float(high), value), ""
