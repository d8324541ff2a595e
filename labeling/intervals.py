"""Shares, tests and sample sizes for small counts: what the agreement report and the bias card are built from.

Every function takes numbers or arrays of them and is vectorised, because a card is made for every annotator at once.

*Interval of a share*: Wilson's score interval (Wilson 1927; recommended for binomial shares by Brown, Cai and DasGupta 2001). It
stays inside [0, 1] and has a width where nobody ever disagreed, which k / n +- 1.96 se has not.

*Several annotators*: looking at 50 people, two or three differ "significantly" by luck alone. `holm` raises the p-values so that
the chance of even one false alarm in the family stays at 5 % (Holm 1979), whatever the tests have to do with each other.

*How many would be needed*: the usual normal approximation for a test with power 0.8 at two-sided alpha 0.05. It is stated for an
effect worth caring about, fixed beforehand, never for the one that was seen: that would be a p-value in disguise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc, ndtri

Floats = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] of `n` cases with its 95 % interval; None and a `note` in words where there is nothing to measure.

    `p`: of the test this share is used for, None where there is none. `p_adjusted`: after Holm over all annotators. `against`: the
    share it is held against. `n_needed`: cases needed to see the effect described in `effect`.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    p: float | None = None
    p_adjusted: float | None = None
    n_needed: int | None = None
    effect: str = ""
    note: str = ""
    against: float | None = None


def wilson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Floats, Floats]:
    """(low, high) of the share k / n, elementwise; [0, 1] where n = 0, which is all that no cases can say."""
    count, total = np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if np.any((count < 0) | (count > total)):
        raise ValueError("a share needs 0 <= k <= n")
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    middle = (count + z2 / 2) / (total + z2)
    # k (n - k) / n, with 0 for n = 0
    spread = np.divide(count * (total - count), total, out=np.zeros_like(middle), where=total > 0)
    half = np.sqrt(z2 * (spread + z2 / 4)) / (total + z2)
    # At k = 0 and k = n the bound is exactly 0 or 1; rounding would leave 1e-17.
    return np.where(count == 0, 0.0, middle - half), np.where(count == total, 1.0, middle + half)


def coin_p(k: ArrayLike, n: ArrayLike) -> Floats:
    """Exact two-sided p of k of n against a fair coin: twice the smaller tail (the coin is symmetric), at most 1; 1 for n = 0."""
    count, total = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    return np.minimum(1.0, 2.0 * _at_most(np.minimum(count, total - count), total, 0.5))


def above_p(k: ArrayLike, n: ArrayLike, share: float) -> Floats:
    """Exact one-sided p for "more than `share`": P(X >= k), X ~ Binomial(n, share); 1 for n = 0."""
    count, total = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    return np.where(count <= 0, 1.0, bdtrc(np.maximum(count - 1, 0), np.maximum(total, 1).astype(np.int64), share))


def below_p(k: ArrayLike, n: ArrayLike, share: float) -> Floats:
    """Exact one-sided p for "less than `share`": P(X <= k), X ~ Binomial(n, share); 1 for n = 0."""
    count, total = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    return _at_most(count, total, share)


def _at_most(k: Floats, n: Floats, share: float) -> Floats:
    return np.where(k >= n, 1.0, bdtr(np.minimum(k, n), np.maximum(n, 1).astype(np.int64), share))


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values, in the order given. NaN (nothing was tested) stays NaN and does not count."""
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(raw))
    order = tested[np.argsort(raw[tested], kind="stable")]
    steps = raw[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def n_for_share(null: float, true: float, power: float = POWER, alpha: float = ALPHA, two_sided: bool = True) -> int:
    """Cases needed to tell a share `true` from `null`: ((z_a sd0 + z_power sd1) / (true - null))^2, rounded up (Fleiss 1981)."""
    if not (0 <= null <= 1 and 0 <= true <= 1) or null == true:
        raise ValueError("two different shares in [0, 1] are needed")
    z_alpha = float(ndtri(1 - alpha / 2 if two_sided else 1 - alpha))
    spread = z_alpha * math.sqrt(null * (1 - null)) + float(ndtri(power)) * math.sqrt(true * (1 - true))
    return math.ceil((spread / (true - null)) ** 2)


def n_for_slope(slope: float, power: float = POWER, alpha: float = ALPHA) -> int:
    """Cases needed to see a logistic slope per standard deviation where both answers are about as frequent.

    (z_a + z_power)^2 / (p (1 - p) slope^2) with p = 1/2, rounded up (Hsieh, Bloch and Larsen 1998). A second regressor that goes
    with the first (r) raises it by 1 / (1 - r^2); that is not known beforehand and not included.
    """
    if slope == 0:
        raise ValueError("no number of cases shows a slope of 0")
    return math.ceil((float(ndtri(1 - alpha / 2)) + float(ndtri(power))) ** 2 / (0.25 * slope**2))
