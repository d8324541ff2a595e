"""Do people agree? Raw agreement, Krippendorff's alpha (the headline), Fleiss' and Cohen's kappa, Gwet's AC1.

`labeling.label_table` makes the table: sides undone, skips missing, one label a person and item. A pairwise project has two views:
four-way (a, b, tie, both_bad) and two-way (`decisive`: only a and b are kept, the rest is missing). Formulas with their sources are
in `labeling.coefficients`.

*Undefined is said in words.* If everybody gave the same answer everywhere, chance explains all of it and no coefficient can tell
agreement from habit: 1.0 would be a boast and NaN a riddle. Raw agreement stays defined there.

*Intervals*: percentile bootstrap over items (Efron and Tibshirani 1993; for alpha Hayes and Krippendorff 2007 resample too), 1,000
replicates, seeded, since labels on one item are no independent evidence. Where no item has a disagreement every replicate would
say 1.0 to 1.0; the lower end is then what so few items can rule out: up to z^2 / (n + z^2) of them could still disagree (for
0 of n this is Wilson's bound).

*Adaptive overlap* (stop at two when they agree, else ask more) makes agreement over all labels come out too high: a dispute between
the first two is diluted by later labels, an accord never is. Either measure the slice with full overlap, or
`first_labels(table, 2)`: nobody knew the answers when the first two were asked.

*What to expect*: `HUMAN_CEILINGS`. Rules of thumb like "alpha of 0.8 or reject" come from tasks with a right answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labeling import coefficients
from labeling.coefficients import (
    NO_LABELS,
    NO_OVERLAP,
    ONE_PERSON,
    REPLICATES,
    Coefficient,
    Statistic,
    affordable,
    interval,
    one_answer,
)
from labeling.label_table import LabelTable
from labeling.pair_agreement import PairAgreement, pair_agreements

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ceiling(NamedTuple):
    """How often two people agree in a published study of preferences between answers."""

    name: str
    share: float
    kappa: float  # (share - 1/2) / (1/2): for two equally frequent answers, derived
    what: str
    source: str


HUMAN_CEILINGS: tuple[Ceiling, ...] = (
    Ceiling(
        "AlpacaFarm",
        0.657,
        0.31,
        "one person against the majority of the others, about 2,500 labels",
        "alpaca_eval, evaluators leaderboard, row 'humans' (65.66 %)",
    ),
    Ceiling(
        "MT-bench experts",
        0.81,
        0.62,
        "two experts, about 3,300 votes, ties left out",
        "Zheng et al. 2023, arXiv 2306.05685: 81 %",
    ),
)


@dataclass(frozen=True)
class Agreement:
    """All coefficients of one table. `raters`: the number of labels an item must have for Fleiss' kappa (the most frequent one)."""

    categories: tuple[str, ...]
    raw: Coefficient
    alpha: Coefficient
    fleiss: Coefficient
    raters: int
    ac1: Coefficient
    pairs: tuple[PairAgreement, ...]
    n_items: int
    n_labels: int
    n_annotators: int


# --- the report -------------------------------------------------------------------------------------------------------------


def agreement(table: LabelTable, seed: int = 0, replicates: int = REPLICATES, with_pairs: bool = True) -> Agreement:
    """All coefficients of a table; `with_pairs`: also Cohen's kappa of every two people. The same table and seed give the same."""
    rng = np.random.default_rng(seed)
    counts, items = _patterns(table)
    drawn = coefficients.draw_items(counts, items, affordable(replicates, items.size), rng)
    nothing = _nothing(table, counts)
    raters = _usual_overlap(counts, items)

    def measure(statistic: Statistic, chance_corrected: bool = True) -> Coefficient:
        return _coefficient(statistic, counts, items, drawn, nothing, table.categories if chance_corrected else ())

    fleiss = measure(coefficients.fleiss(raters))
    if fleiss.n_left_out:
        left_out = f"items with {raters} labels only; {fleiss.n_left_out} with another number are left out"
        fleiss = replace(fleiss, note="; ".join(filter(None, (fleiss.note, left_out))))
    return Agreement(
        categories=table.categories,
        raw=measure(coefficients.RAW, chance_corrected=False),
        alpha=measure(coefficients.ALPHA),
        fleiss=fleiss,
        raters=raters,
        ac1=measure(coefficients.AC1),
        pairs=pair_agreements(table, rng, replicates) if with_pairs else (),
        n_items=int(items.sum()),
        n_labels=table.item.size,
        n_annotators=np.unique(table.annotator).size,
    )


# --- how it is done ---------------------------------------------------------------------------------------------------------


def _patterns(table: LabelTable) -> tuple[Floats, Ints]:
    """The distinct per-item count patterns (patterns, K) and how many items have each."""
    width = len(table.categories)
    if not table.item.size:
        return np.zeros((0, width)), np.zeros(0, dtype=np.int64)
    number = np.cumsum(np.r_[False, table.item[1:] != table.item[:-1]])
    flat = np.bincount(number * width + table.category, minlength=(int(number[-1]) + 1) * width)
    matrix = flat.reshape(-1, width)
    base = int(matrix.max()) + 1
    if base**width >= 2**62:
        patterns, items = np.unique(matrix, axis=0, return_counts=True)
        return patterns.astype(np.float64), items.astype(np.int64)
    codes = matrix @ (base ** np.arange(width, dtype=np.int64))
    found, items = np.unique(codes, return_counts=True)
    patterns = (found[:, None] // base ** np.arange(width, dtype=np.int64)) % base
    return patterns.astype(np.float64), items.astype(np.int64)


def _nothing(table: LabelTable, counts: Floats) -> str:
    """Why no coefficient at all can be had, '' when one can."""
    if not table.item.size:
        return NO_LABELS
    if (table.annotator == table.annotator[0]).all():
        return ONE_PERSON
    return "" if (counts.sum(axis=1) >= 2).any() else NO_OVERLAP


def _usual_overlap(counts: Floats, items: Ints) -> int:
    """The number of labels (2 or more) that most items have; the larger of two equally frequent ones; 2 when none has two."""
    by_overlap = np.bincount(counts.sum(axis=1).astype(np.int64), weights=items, minlength=3)
    by_overlap[:2] = 0
    return int(by_overlap.size - 1 - np.argmax(by_overlap[::-1])) if by_overlap.any() else 2


def _coefficient(
    statistic: Statistic, counts: Floats, items: Ints, drawn: Floats, nothing: str, categories: tuple[str, ...]
) -> Coefficient:
    """`categories`: names for the sentence about one and the same answer; empty for raw agreement, which is defined there too."""
    enters = statistic.enters(counts)
    n_items = int(items[enters].sum())
    n_labels = int((counts.sum(axis=1) * items)[enters].sum())
    several = counts.sum(axis=1) >= 2
    base = Coefficient(None, None, None, n_items, n_labels, int(items[several & ~enters].sum()))
    if nothing or not n_items:
        return replace(base, note=nothing or NO_OVERLAP)
    used = np.flatnonzero((counts[enters] > 0).any(axis=0))
    if categories and used.size == 1:
        return replace(base, note=one_answer(categories[used[0]]))
    features = statistic.features(counts)
    value = float(statistic.value(items @ features))
    low, high, note = interval(
        value, statistic.value(drawn @ features), n_items, _disagreement_by_chance(counts, items, categories)
    )
    return replace(base, value=value, low=low, high=high, note=note)


def _disagreement_by_chance(counts: Floats, items: Ints, categories: tuple[str, ...]) -> float:
    """How much two random labels would disagree: what turns a share of disputed items into a loss of the coefficient."""
    if not categories:
        return 1.0
    by_category = items @ (counts * (counts.sum(axis=1) >= 2)[:, None])
    return float(1 - ((by_category / by_category.sum()) ** 2).sum())
