"""The bias card on the page: red only where something is found and wrong, and never beside a call for more labels."""

from __future__ import annotations

import re

import numpy as np
import pytest

from labeling.bias import bias_report
from labeling.bias_binary import Called, binary_report
from labeling.bias_card import LEFT, RIGHT, Gold, LabelColumns, Repeats
from labeling.label_report import Cards
from studio import quality_bias
from studio.quality_overview import Names

NAMES = Names({"ann": "Ann"}, lambda who: f"annotator-{who}")


def chose(left: int, right: int) -> LabelColumns:
    """Labels of one person, on answers of all lengths."""
    preference = np.repeat([LEFT, RIGHT], [left, right])
    n = preference.size
    lengths = np.random.default_rng(1).integers(10, 500, (4, n))
    return LabelColumns(np.zeros(n, dtype=np.int64), np.arange(n), preference, *lengths, np.full(n, 5_000))


def known(right: int, n: int) -> Gold:
    return Gold(np.zeros(n, dtype=np.int64), np.arange(n) < right)


def pairs(labels: LabelColumns, repeats: Repeats | None = None, gold: Gold | None = None) -> str:
    return str(quality_bias.of_pairs(Cards(("ann",), bias_report(labels, repeats, gold)), NAMES))


def singles(gold: Gold, rng: np.random.Generator, pull: float) -> str:
    n = 300
    length = rng.integers(10, 500, n)
    good = (rng.random(n) < 1 / (1 + np.exp(-pull * (length - 250) / 100))).astype(np.int64)
    called = Called(np.zeros(n, dtype=np.int64), np.arange(n), good, length, rng.integers(0, 9, n), np.full(n, 5_000))
    return str(quality_bias.of_singles(Cards(("ann",), binary_report(called, None, gold)), NAMES))


def row(html: str, name: str) -> str:
    [found] = [row for row in re.findall("<tr.*?</tr>", html, re.DOTALL) if f">{name}<" in row]
    return found


def test_what_its_own_interval_still_allows_is_no_finding() -> None:
    """19 of 29 known items right: one-sided p = 0.049, and an interval that reaches past the 80 % that are expected."""
    for html in (pairs(chose(30, 30), gold=known(19, 29)), singles(known(19, 29), np.random.default_rng(2), 0.0)):
        told = row(html, "Right on known items")
        assert "too few to tell: 29 of about 36" in told
        assert "st-out" not in html
        assert "Nobody stands out." in html
        assert "Not everything can be told yet" in html
        assert "st-note good" not in html
        assert "after correction" not in html, "no footnote on signs that are not there"
    again = Repeats(np.zeros(20, dtype=np.int64), np.zeros(20, dtype=np.int64), (np.arange(20) < 11).astype(np.int64))
    told = row(pairs(chose(30, 30), again), "Changed with the side")  # 11 of 20: p = 0.046, from 34 %
    assert "too few to tell: 20 of about" in told


def test_a_finding_asks_for_no_more_labels() -> None:
    told = row(pairs(chose(40, 0)), "A (left) chosen")
    assert '<span class="st-out st-small st-told">leans to A (left)</span>' in told
    assert ">enough<" in told
    assert "too few" not in told
    for html in (pairs(chose(30, 30), gold=known(9, 29)), singles(known(9, 29), np.random.default_rng(2), 0.0)):
        assert "after correction" in html
        assert 'class="st-out st-small st-told">often wrong on known items' in row(html, "Right on known items")


def test_what_may_have_a_good_reason_is_set_off_but_not_red() -> None:
    told = row(singles(known(5, 5), np.random.default_rng(3), 2.0), "Pull of length")
    assert '<span class="st-found st-small st-told">calls longer answers good</span>' in told
    assert ">enough<" in told


@pytest.mark.parametrize(("left", "right"), [(3, 0), (12, 8), (60, 40), (300, 300)])
def test_nothing_is_both_red_and_too_few(left: int, right: int) -> None:
    html = pairs(chose(left, right), gold=known(left, left + right))
    assert not [cell for cell in re.findall("<td.*?</td>", html, re.DOTALL) if "st-out" in cell and "too few" in cell]
    for name in ("A (left) chosen", "Pull of A (left)", "Right on known items"):
        told = row(html, name)
        assert ("st-out" not in told) or ">enough<" in told
