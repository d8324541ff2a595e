"""Labels as columns of codes: what the agreement report counts.

A label is one person's answer about one item, in *pair order*: for a pairwise project "a" is a fixed completion of the pair,
whichever side it was shown on (`in_pair_order` undoes the sides). Skips are missing data. Of one person's several labels on one
item the last row counts, as in a snapshot. Numpy columns rather than records: a project may have 1,000,000 labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.errors import BadInput

Ints = NDArray[np.int64]

FOUR_WAY = ("a", "b", "tie", "both_bad")
TWO_WAY = ("a", "b")
BINARY = ("good", "bad")


@dataclass(frozen=True)
class LabelTable:
    """Labels sorted by (item, annotator), one a person and item, without missing ones. `row`: position in the caller's columns."""

    item: Ints
    annotator: Ints
    category: Ints
    row: Ints
    categories: tuple[str, ...]


def in_pair_order(category: ArrayLike, swapped: ArrayLike) -> Ints:
    """Codes of (a, b, ...) as shown -> in pair order: a and b change places where the pair was shown the other way round."""
    codes = np.asarray(category, dtype=np.int64)
    return np.where(np.asarray(swapped, dtype=bool) & (codes >= 0) & (codes <= 1), 1 - codes, codes)


def label_table(item: ArrayLike, annotator: ArrayLike, category: ArrayLike, categories: Sequence[str] = FOUR_WAY) -> LabelTable:
    """Three columns of codes in order of time, one row a label; category -1 = missing (a skip).

    Codes are 0, 1, 2, ... (gaps are fine). Of several labels by one annotator on one item the last counts.
    """
    items, people, answers = (np.asarray(column, dtype=np.int64) for column in (item, annotator, category))
    if not items.shape == people.shape == answers.shape or items.ndim != 1:
        raise BadInput("The columns item, annotator and category must be of one length.")
    if len(categories) < 2:
        raise BadInput("Agreement needs at least two categories.")
    if items.size and (min(items.min(), people.min()) < 0 or answers.min() < -1 or answers.max() >= len(categories)):
        raise BadInput("Items and annotators are codes from 0, categories from -1 (missing) to the last category.")
    given = np.flatnonzero(answers >= 0)
    width = int(people.max()) + 1 if people.size else 1
    if width * (int(items.max()) + 1 if items.size else 1) >= 2**63:
        raise BadInput("The item and annotator codes are too large: number them from 0.")
    key = items[given] * width + people[given]
    order = np.argsort(key, kind="stable")
    key = key[order]
    last = np.ones(key.size, dtype=bool)
    last[:-1] = key[1:] != key[:-1]
    rows = given[order[last]]
    return LabelTable(items[rows], people[rows], answers[rows], rows, tuple(categories))


def decisive(table: LabelTable) -> LabelTable:
    """The two-way view: only the first two categories (a and b), everything else missing."""
    return _only(replace(table, categories=table.categories[:2]), table.category < 2)


def first_labels(table: LabelTable, k: int) -> LabelTable:
    """The first k labels of every item in order of time: unbiased where the overlap grew with disagreement (after k labels)."""
    order = np.lexsort((table.row, table.item))
    item = table.item[order]
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]]) if item.size else np.zeros(0, dtype=np.int64)
    position = np.arange(item.size) - np.repeat(starts, np.diff(np.r_[starts, item.size]))
    kept = np.zeros(item.size, dtype=bool)
    kept[order[position < k]] = True
    return _only(table, kept)


def _only(table: LabelTable, kept: NDArray[np.bool_]) -> LabelTable:
    return LabelTable(table.item[kept], table.annotator[kept], table.category[kept], table.row[kept], table.categories)
