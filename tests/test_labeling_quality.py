"""Flags of labels: the reading floor and what else speaks against a label."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.quality import flags_of_vote, floor_ms


@pytest.mark.parametrize(
    ("lengths", "floor"),
    [((0, 0), 500), ((40, 40), 500), ((300, 300), 2500), ((1000, 100), 4583), ((50_000, 50_000), 5000), ((480,), 2000)],
)
def test_the_floor_is_ten_times_reading_speed_within_bounds(lengths: tuple[int, ...], floor: int) -> None:
    assert floor_ms(lengths) == floor
    assert flags_of_vote(floor - 1, lengths) == ("too_fast",)
    assert flags_of_vote(floor, lengths) == ()


def test_an_ordinary_reader_is_never_too_fast() -> None:
    """238 words a minute on two answers of 100 words, and even a skimmer at four times that."""
    assert flags_of_vote(int(200 / 238 * 60_000), (600, 600)) == ()
    assert flags_of_vote(int(200 / 952 * 60_000), (600, 600)) == ()


def test_what_was_not_measured_is_not_held_against_anyone() -> None:
    assert flags_of_vote(None, (9000, 9000), None) == ()


def test_unread() -> None:
    assert flags_of_vote(60_000, (9000, 9000), 0.4) == ("unread",)
    assert flags_of_vote(60_000, (9000, 9000), 0.97) == ()


def test_a_skip_needs_no_reading() -> None:
    assert flags_of_vote(10, (9000, 9000), 0.1, skipped=True) == ()
    assert flags_of_vote(10, (9000, 9000), 0.1, skipped=True, extra=True) == ("extra",)


def test_all_at_once() -> None:
    flags = flags_of_vote(1, (9, 9), 0.0, identical=True, extra=True, reported=True)
    assert flags == ("too_fast", "unread", "identical", "extra", "reported")


@settings(max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=2), st.integers(0, 10**6))
def test_longer_answers_never_lower_the_floor(lengths: list[int], more: int) -> None:
    assert 500 <= floor_ms(lengths) <= floor_ms([lengths[0] + more, *lengths[1:]]) <= 5000
