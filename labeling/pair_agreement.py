"""Cohen's kappa of two annotators, and of every two who share items.

Two people's common items come down to one K x K table of answers; a bootstrap replicate is a multinomial draw over its cells. So
the table of all pairs costs one pass over the labels and a few thousand draws a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.errors import BadInput
from labeling import coefficients
from labeling.coefficients import NO_LABELS, NO_OVERLAP, REPLICATES, Coefficient, affordable, interval, one_answer
from labeling.label_table import FOUR_WAY, LabelTable, label_table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_DRAWS = 1_500_000  # cells x replicates over all pairs: 50 people, who make 1,225 pairs, get 200 replicates each


class PairAgreement(NamedTuple):
    """Cohen's kappa of two annotators (codes of the table, first < second) and how often they gave the same answer."""

    first: int
    second: int
    kappa: Coefficient
    raw: float


def cohen_kappa(first: ArrayLike, second: ArrayLike, categories: Sequence[str] = FOUR_WAY, seed: int = 0) -> Coefficient:
    """Cohen's kappa of two annotators: two columns of codes, one row an item, -1 = missing (such items are left out)."""
    one, two = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if one.shape != two.shape:
        raise BadInput("The two annotators' columns must be of one length.")
    rows = np.arange(one.size)
    person = np.repeat([0, 1], one.size)
    table = label_table(np.r_[rows, rows], person, np.r_[one, two], categories)
    pairs = pair_agreements(table, np.random.default_rng(seed), REPLICATES)
    if pairs:
        return pairs[0].kappa
    return Coefficient(None, note=NO_LABELS if not table.item.size else NO_OVERLAP)


def pair_agreements(table: LabelTable, rng: np.random.Generator, replicates: int) -> tuple[PairAgreement, ...]:
    """Every two annotators with an item in common, by code."""
    width = len(table.categories)
    keys, cells = _cells(table)
    numbers, at = np.unique(keys // (width * width), return_inverse=True)
    tables = np.zeros((numbers.size, width * width))
    tables[at, keys % (width * width)] = cells
    people = int(table.annotator.max()) + 1 if table.annotator.size else 1
    enough = affordable(replicates, tables.size, _MOST_DRAWS)
    return tuple(
        PairAgreement(
            int(number) // people,
            int(number) % people,
            _pair_kappa(square, table.categories, enough, rng),
            float(np.trace(square) / square.sum()),
        )
        for number, square in zip(numbers, tables.reshape(-1, width, width), strict=True)
    )


def _cells(table: LabelTable) -> tuple[Ints, Ints]:
    """((first * people + second) * K + answer of first) * K + answer of second, distinct, and how many items have each."""
    width = len(table.categories)
    people = int(table.annotator.max()) + 1 if table.annotator.size else 1
    keys, cells = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for distance in range(1, _most_labels(table)):  # rows are sorted by item: `distance` rows apart within it = two people each
        first = np.flatnonzero(table.item[distance:] == table.item[:-distance])
        second = first + distance
        who = table.annotator[first] * people + table.annotator[second]
        found, n = _counted((who * width + table.category[first]) * width + table.category[second], people * people * width * width)
        keys.append(found)
        cells.append(n)
    every, at = np.unique(np.concatenate(keys), return_inverse=True)
    return every, np.bincount(at, weights=np.concatenate(cells), minlength=every.size).astype(np.int64)


def _most_labels(table: LabelTable) -> int:
    """Of any item."""
    ends = np.flatnonzero(np.r_[table.item[1:] != table.item[:-1], True]) if table.item.size else np.zeros(0, dtype=np.int64)
    return int(np.diff(ends, prepend=-1).max(initial=0))


def _counted(codes: Ints, size: int) -> tuple[Ints, Ints]:
    """The distinct codes and their frequencies; a table of all possible codes is faster than sorting while it is small."""
    if size > 16_000_000:
        found, n = np.unique(codes, return_counts=True)
        return found, n.astype(np.int64)
    table = np.bincount(codes, minlength=size)
    found = np.flatnonzero(table)
    return found, table[found]


def _pair_kappa(square: Floats, categories: tuple[str, ...], replicates: int, rng: np.random.Generator) -> Coefficient:
    total = int(square.sum())
    base = Coefficient(None, None, None, total, 2 * total)
    used = np.flatnonzero(square.sum(axis=0) + square.sum(axis=1))
    if used.size == 1:
        return replace(base, note=one_answer(categories[used[0]]))
    value = float(coefficients.cohen(square))
    filled = np.flatnonzero(square)
    drawn = np.zeros((replicates, square.size))
    drawn[:, filled] = rng.multinomial(total, square.flat[filled] / total, size=replicates)
    shares = (square.sum(axis=0) + square.sum(axis=1)) / (2 * total)
    kappas = coefficients.cohen(drawn.reshape(-1, *square.shape))
    low, high, note = interval(value, kappas, total, float(1 - (shares**2).sum()))
    return replace(base, value=value, low=low, high=high, note=note)
