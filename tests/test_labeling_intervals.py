"""Shares, exact tests, Holm and sample sizes: against published numbers, scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from labeling.intervals import above_p, below_p, coin_p, holm, n_for_share, n_for_slope, wilson

COUNTS = st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_golden_numbers() -> None:
    """Newcombe (1998), table I: Wilson's score interval without continuity correction."""
    low, high = wilson([81, 15, 0, 1], [263, 148, 20, 29])
    assert low == pytest.approx([0.2553, 0.0624, 0.0, 0.0061], abs=5e-5)
    assert high == pytest.approx([0.3662, 0.1605, 0.1611, 0.1718], abs=5e-5)


@given(COUNTS)
@settings(max_examples=80)
def test_shares_against_scipy(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson(k, n)
    if n == 0:
        assert (float(low), float(high), float(coin_p(0, 0)), float(above_p(0, 0, 0.3))) == (0.0, 1.0, 1.0, 1.0)
        return
    reference = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (float(low), float(high)) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert float(coin_p(k, n)) == pytest.approx(stats.binomtest(k, n, 0.5).pvalue, abs=1e-9)
    assert float(above_p(k, n, 0.343)) == pytest.approx(stats.binomtest(k, n, 0.343, alternative="greater").pvalue, abs=1e-9)
    assert float(below_p(k, n, 0.8)) == pytest.approx(stats.binomtest(k, n, 0.8, alternative="less").pvalue, abs=1e-9)
    other_low, other_high = wilson(n - k, n)
    assert (float(other_low), float(other_high)) == pytest.approx((1 - float(high), 1 - float(low)), abs=1e-12)


def test_a_million_labels_have_an_exact_p() -> None:
    assert float(coin_p(500_980, 1_000_000)) == pytest.approx(2 * stats.norm.sf(1.959), rel=0.01)


def test_a_share_beyond_its_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson(3, 2)


def test_holm_by_hand() -> None:
    """The textbook case: 0.01 x 4, then 0.02 x 3, 0.03 x 2, 0.04, never falling; what was not tested stays out."""
    assert holm([0.03, 0.01, np.nan, 0.04, 0.02]) == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


def test_sample_sizes() -> None:
    """The numbers on the card: 60/40 takes about 194 decisive labels, 55/45 about 782."""
    assert n_for_share(0.5, 0.6) == n_for_share(0.5, 0.4) == 194
    assert n_for_share(0.5, 0.55) == pytest.approx(782, abs=1)
    assert n_for_slope(0.25) == n_for_slope(-0.25) == 503
    assert n_for_slope(0.5) == pytest.approx(503 / 4, abs=1)
    with pytest.raises(ValueError, match="different shares"):
        n_for_share(0.5, 0.5)
    with pytest.raises(ValueError, match="slope of 0"):
        n_for_slope(0.0)


@pytest.mark.parametrize("true", [0.6, 0.55])
def test_the_sample_size_has_the_power_it_promises(true: float) -> None:
    """Power of the exact test itself, added up over all outcomes; discreteness may cost a few points."""
    n = n_for_share(0.5, true)
    k = np.arange(n + 1)
    power = float(stats.binom.pmf(k, n, true)[coin_p(k, n) < 0.05].sum())
    assert 0.76 <= power <= 0.83
