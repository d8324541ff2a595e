"""The figures of the Overview tab count everything, and say so where they do not."""

from __future__ import annotations

from datetime import date, timedelta

from data.records import Project, now
from labeling.overview import DAYS, Overview
from studio import quality_overview
from studio.quality_overview import Names

NAMES = Names({}, lambda who: f"annotator-{who}")


def drawn(items_by_labels: tuple[int, ...], days: int, **flags: int) -> str:
    every = tuple((date(2026, 1, 1) + timedelta(days=i), 3) for i in range(days))
    seen = Overview(
        sum(items_by_labels), items_by_labels, 0, 0, labels=3 * days, skips=0, simulated=0, imported=0, excluded=0, flags=flags,
        days=every, seconds=(), annotators=(),
    )  # fmt: skip
    return str(quality_overview.overview(seen, Project("p", "P", "pairwise", "", "", False, now()), NAMES))


def test_items_with_very_many_labels_have_a_bar_together() -> None:
    html = drawn((5, *[1] * 11, 4, 0, 7), days=3)
    assert "<title>11 items with 12 labels or more</title>" in html
    assert ">12+<" in html
    assert "or more" not in drawn((5, *[1] * 11), days=3)


def test_the_pace_says_when_it_is_of_the_last_days() -> None:
    assert f"Labels a day, the last {DAYS} days" in drawn((1, 2), days=DAYS)
    assert "<figcaption>Labels a day</figcaption>" in drawn((1, 2), days=DAYS - 1)


def test_flags_of_one_kind_are_counted_once() -> None:
    assert "26 flags<small>all too fast</small>" in drawn((1, 2), days=1, too_fast=26)
    assert "<small>20 too fast, 6 not read to the end</small>" in drawn((1, 2), days=1, too_fast=20, unread=6)
