"""Win rates and accuracies with intervals that respect the prompts: arrays in, frozen results out.

Several answers to one prompt resemble each other, so rows are no independent evidence: with 8 samples a prompt an interval over
rows can be half as wide as it should be and miss the truth every third time. Everything here is clustered by prompt.

*Standard error* (Liang and Zeger 1986; for evaluations Miller 2024, arXiv 2411.00640): with n rows in G prompts and the mean m,
    se^2 = G / (G - 1) * sum over prompts of (sum over its rows of (y - m))^2 / n^2
which for one row a prompt is the ordinary standard error of the mean.

*Interval of a share* (Wilson's, over the effective sample size n_e = m (1 - m) / se^2, with Student's t on G - 1 degrees of
freedom for the normal quantile; Franco, Little, Louis and Slud 2019 found Wilson's form the best calibrated for clustered
shares): never outside [0, 1]. m +- t se covers 57-92 % where 95 % was promised when few prompts give a share near 0 or 1; this
covers 89-99 %.

*Interval of a difference*: d +- t se with the differences' influence summed by prompt, so that both models' answers to a prompt
are paired.

*Where every prompt says the same* se is 0 and no interval has width 0 for it: up to a share s = t^2 / (G + t^2) of prompts
could still say the opposite (for 0 of G this is Wilson's upper bound), so the interval is [(1 - s) m, (1 - s) m + s].

*One prompt* has no interval, and the estimate says so in words.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
_SAME = 1e-12  # below this a standard error is rounding noise: every prompt says the same

NO_ROWS = "nothing could be scored"
ONE_PROMPT = "one prompt has no interval: compare on more prompts"
ALL_SAME = "every prompt says the same, so the interval is what so few prompts can rule out"


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1] or a difference in [-1, 1] with its 95 % interval; `note`: why something is missing or special."""

    value: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    n: int = 0  # rows
    n_prompts: int = 0
    note: str = ""

    def excludes(self, point: float) -> bool:
        """Whether the interval lies wholly on one side of `point`; False where there is no interval."""
        return self.low is not None and self.high is not None and (point < self.low or point > self.high)


@dataclass(frozen=True)
class WinRate:
    """How often one model is preferred to another. All shares are of scored comparisons and clustered by prompt.

    `win_rate` counts a tie as half a win. `flip_rate`: the two orders disagreed (1 - positional agreement). `first_slot`: how
    often the answer shown first was preferred; 0.5 = the judge does not care about the order.
    """

    win_rate: Estimate
    tie_rate: Estimate
    flip_rate: Estimate
    first_slot: Estimate
    n_prompts: int
    n_comparisons: int
    n_unscored: int


def share(values: ArrayLike, prompts: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean of `values` in [0, 1] (one a row; NaN = unscored, left out), with an interval clustered by `prompts`."""
    y, cluster = _scored(values, prompts)
    if y.size == 0:
        return Estimate(None, note=NO_ROWS)
    groups = int(cluster.max()) + 1
    mean = float(y.mean())
    if groups == 1:
        return Estimate(mean, n=y.size, n_prompts=1, note=ONE_PROMPT)
    se = _standard_error(np.bincount(cluster, weights=y - mean) / y.size)
    t = _t_quantile(groups, level)
    if se < _SAME or mean * (1 - mean) < _SAME:
        could_differ = t * t / (groups + t * t)
        low = (1 - could_differ) * mean
        return Estimate(mean, low, low + could_differ, 0.0, y.size, groups, ALL_SAME)
    low, high = _wilson(mean, mean * (1 - mean) / se**2, t)
    return Estimate(mean, low, high, se, y.size, groups)


def difference(
    after: ArrayLike, after_prompts: Sequence[Hashable], before: ArrayLike, before_prompts: Sequence[Hashable], level: float = 0.95
) -> Estimate:
    """mean(after) - mean(before), values in [0, 1], paired by prompt; the two may differ in rows a prompt. NaN rows are left out.

    Prompts that only one side has count towards its mean, but nothing is paired there.
    """
    x, x_prompts = _rows(after, after_prompts)
    y, y_prompts = _rows(before, before_prompts)
    if x.size == 0 or y.size == 0:
        return Estimate(None, note=NO_ROWS)
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys([*x_prompts, *y_prompts]))}
    groups, n = len(numbers), x.size + y.size
    value = float(x.mean() - y.mean())
    if groups == 1:
        return Estimate(value, n=n, n_prompts=1, note=ONE_PROMPT)
    influence = _sums(x - x.mean(), x_prompts, numbers) / x.size - _sums(y - y.mean(), y_prompts, numbers) / y.size
    se, t = _standard_error(influence), _t_quantile(groups, level)
    if se < _SAME:
        could_differ = t * t / (groups + t * t)
        middle = (1 - could_differ) * value
        return Estimate(value, middle - could_differ, middle + could_differ, 0.0, n, groups, ALL_SAME)
    return Estimate(value, max(-1.0, value - t * se), min(1.0, value + t * se), se, n, groups)


def win_rate(
    outcomes: ArrayLike,
    prompts: Sequence[Hashable],
    flipped: ArrayLike | None = None,
    first_slot: ArrayLike | None = None,
    level: float = 0.95,
) -> WinRate:
    """One row a comparison: `outcomes` 1 = win, 0 = loss, 0.5 = tie, NaN = unscored.

    `flipped` (0 or 1) and `first_slot` (P(the answer shown first is better), mean of both orders) are NaN or left out where
    they are not known.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    nothing = np.full(y.shape, np.nan)
    unscored = np.isnan(y)
    ties = np.where(unscored, np.nan, np.abs(y - 0.5) < _SAME)
    return WinRate(
        win_rate=share(y, prompts, level),
        tie_rate=share(ties, prompts, level),
        flip_rate=share(nothing if flipped is None else flipped, prompts, level),
        first_slot=share(nothing if first_slot is None else first_slot, prompts, level),
        n_prompts=len({prompt for prompt, left_out in zip(prompts, unscored, strict=True) if not left_out}),
        n_comparisons=y.size,
        n_unscored=int(unscored.sum()),
    )


def _rows(values: ArrayLike, prompts: Sequence[Hashable]) -> tuple[Floats, list[Hashable]]:
    y = np.asarray(values, dtype=np.float64)
    if y.ndim != 1 or y.size != len(prompts):
        raise ValueError(f"one prompt a row is needed: {y.shape} values, {len(prompts)} prompts")
    if np.any((y < 0) | (y > 1)):
        raise ValueError("values must lie in [0, 1] (NaN = unscored)")
    kept = ~np.isnan(y)
    return y[kept], [prompt for prompt, keep in zip(prompts, kept, strict=True) if keep]


def _scored(values: ArrayLike, prompts: Sequence[Hashable]) -> tuple[Floats, NDArray[np.intp]]:
    y, kept = _rows(values, prompts)
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(kept))}
    return y, np.array([numbers[prompt] for prompt in kept], dtype=np.intp)


def _sums(residuals: Floats, prompts: Sequence[Hashable], numbers: dict[Hashable, int]) -> Floats:
    sums = np.zeros(len(numbers))
    np.add.at(sums, [numbers[prompt] for prompt in prompts], residuals)
    return sums


def _standard_error(influence: Floats) -> float:
    groups = influence.size
    return float(np.sqrt(groups / (groups - 1) * np.sum(influence**2)))


def _t_quantile(groups: int, level: float) -> float:
    return float(stdtrit(groups - 1, 0.5 + level / 2))


def _wilson(mean: float, n: float, t: float) -> tuple[float, float]:
    centre = (mean + t * t / (2 * n)) / (1 + t * t / n)
    half = t * np.sqrt(mean * (1 - mean) / n + t * t / (4 * n * n)) / (1 + t * t / n)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
