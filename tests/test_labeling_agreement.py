"""Agreement: published values, hand-worked examples, the reference package on random tables, and what must never be claimed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import BadInput
from labeling.agreement import HUMAN_CEILINGS, agreement
from labeling.coefficients import NO_DISAGREEMENT, NO_LABELS, NO_OVERLAP, ONE_ITEM, ONE_PERSON, Coefficient
from labeling.label_table import FOUR_WAY, LabelTable, decisive, first_labels, in_pair_order, label_table
from labeling.pair_agreement import cohen_kappa

# Fleiss (1971), table 1: 30 patients, 6 psychiatrists each, 5 diagnoses; how many of the six gave each diagnosis.
FLEISS_1971 = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
# Gwet (2014), Handbook of Inter-Rater Reliability, p. 120 (Krippendorff's four observers): rows are raters, '.' is missing.
GWET_FOUR_RATERS = ["123321412...", "1233224125..", ".33323422513", "12332441251."]
# The same, p. 125: five observers, categories 0 to 3.
GWET_FIVE_OBSERVERS = ["112.001122.0131", "1130000.2110231", "203000222100221", ".13....0.10022.", "2..0001.2....31"]
# Wikipedia, Fleiss' kappa: 14 raters, 10 subjects, 5 categories.
WIKIPEDIA = [
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
]  # fmt: skip


def from_counts(counts: list[tuple[int, ...]]) -> LabelTable:
    rows = [(item, rater, k) for item, row in enumerate(counts) for rater, k in enumerate(np.repeat(np.arange(len(row)), row))]
    item, annotator, category = np.array(rows).T
    return label_table(item, annotator, category, [str(k) for k in range(len(counts[0]))])


def from_matrix(matrix: np.ndarray, categories: list[str]) -> LabelTable:
    """(raters, items) of codes, -1 = missing."""
    annotator, item = np.indices(matrix.shape)
    return label_table(item.ravel(), annotator.ravel(), matrix.ravel(), categories)


def from_lines(lines: list[str], first: int, n: int) -> LabelTable:
    return from_matrix(np.array([[-1 if c == "." else int(c) - first for c in line] for line in lines]), [str(k) for k in range(n)])


def value(coefficient: Coefficient) -> float:
    assert coefficient.value is not None, coefficient.note
    return coefficient.value


# --- published numbers ----------------------------------------------------------------------------------------------------


def test_pandalm(shared_data: Path) -> None:
    """999 pairs, three people each: the published kappas, alpha and Fleiss' kappa."""
    rows = json.loads((shared_data / "pandalm" / "testset-v1.json").read_text())
    matrix = np.array([[int(row[f"annotator{k}"]) for row in rows] for k in (1, 2, 3)])
    found = agreement(from_matrix(matrix, ["tie", "first", "second"]))
    assert value(found.alpha) == pytest.approx(0.864221, abs=5e-7)
    assert value(found.fleiss) == pytest.approx(0.864175, abs=5e-7)
    assert [round(value(pair.kappa), 3) for pair in found.pairs] == [0.852, 0.879, 0.862]
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert (found.n_items, found.n_labels, found.n_annotators, found.raters) == (999, 2997, 3, 3)
    for coefficient in (found.raw, found.alpha, found.fleiss, found.ac1, *(pair.kappa for pair in found.pairs)):
        assert coefficient.low is not None
        assert coefficient.high is not None
        assert coefficient.low < value(coefficient) < coefficient.high < coefficient.low + 0.1


def test_fleiss_1971() -> None:
    found = agreement(from_counts([tuple(map(int, row)) for row in FLEISS_1971.split()]))
    assert (found.raters, found.fleiss.n_items, found.fleiss.n_labels) == (6, 30, 180)
    assert value(found.fleiss) == pytest.approx(0.430, abs=5e-4)
    assert value(found.raw) == pytest.approx(0.5556, abs=5e-5)


def test_fleiss_on_wikipedia() -> None:
    assert value(agreement(from_counts(WIKIPEDIA)).fleiss) == pytest.approx(0.210, abs=5e-4)


def test_gwet_with_missing_labels() -> None:
    """AC1, raw agreement and alpha of the Handbook's two tables with missing ratings, as irrCAC prints them."""
    four = agreement(from_lines(GWET_FOUR_RATERS, 1, 5))
    assert value(four.ac1) == pytest.approx(0.77544, abs=5e-6)
    assert value(four.raw) == pytest.approx(0.8181818, abs=5e-8)
    assert value(four.alpha) == pytest.approx(0.74342, abs=5e-6)
    five = agreement(from_lines(GWET_FIVE_OBSERVERS, 0, 4))
    assert value(five.ac1) == pytest.approx(0.497, abs=5e-4)
    assert value(five.raw) == pytest.approx(0.616, abs=5e-4)


def test_the_paradox_of_kappa() -> None:
    """Gwet (2002): 125 subjects, two raters agree on 94.4 %, nearly always on "+": kappa is below 0, AC1 is not."""
    first = np.repeat([0, 0, 1], [118, 5, 2])
    second = np.repeat([0, 1, 0], [118, 5, 2])
    found = agreement(from_matrix(np.array([first, second]), ["+", "-"]))
    assert value(found.raw) == pytest.approx(0.944)
    assert value(found.pairs[0].kappa) == pytest.approx(-0.0234, abs=5e-5)
    assert value(found.ac1) == pytest.approx(0.9408, abs=5e-5)


def test_cohen_by_hand() -> None:
    """Gwet's 100 women, two abstractors: 0.7964094."""
    cells = np.array([[13, 0, 0], [0, 20, 7], [0, 4, 56]])
    first, second = (np.repeat(axis.ravel(), cells.ravel()) for axis in np.indices(cells.shape))
    assert value(cohen_kappa(first, second, ["e", "a", "n"])) == pytest.approx(0.7964094, abs=5e-8)


def test_human_ceilings_are_what_was_published() -> None:
    assert {ceiling.name: ceiling.share for ceiling in HUMAN_CEILINGS} == {"AlpacaFarm": 0.657, "MT-bench experts": 0.81}
    assert all(ceiling.kappa == pytest.approx(2 * ceiling.share - 1, abs=0.005) for ceiling in HUMAN_CEILINGS)


# --- against the reference, and laws ----------------------------------------------------------------------------------------

MATRICES = st.integers(2, 5).flatmap(
    lambda raters: st.lists(st.lists(st.integers(-1, 3), min_size=raters, max_size=raters), min_size=1, max_size=25)
)


@given(MATRICES)
@settings(max_examples=60)
def test_alpha_equals_the_reference_package(rows: list[list[int]]) -> None:
    matrix = np.array(rows).T
    found = agreement(from_matrix(matrix, list(FOUR_WAY)), replicates=20, with_pairs=False).alpha
    paired = matrix[:, (matrix >= 0).sum(axis=0) >= 2]
    if np.unique(paired[paired >= 0]).size < 2:
        assert found.value is None
        assert found.note
        return
    reference = krippendorff.alpha(np.where(matrix < 0, np.nan, matrix), value_domain=[0, 1, 2, 3], level_of_measurement="nominal")
    assert found.value == pytest.approx(reference, abs=1e-12)


@given(MATRICES, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_names_and_order_do_not_matter(rows: list[list[int]], random: object) -> None:
    """Renaming annotators, shuffling items and swapping a with b everywhere changes no coefficient."""
    matrix = np.array(rows).T
    shuffle = np.random.default_rng(len(rows))
    changed = matrix[shuffle.permutation(matrix.shape[0])][:, shuffle.permutation(matrix.shape[1])]
    changed = np.where((changed == 0) | (changed == 1), 1 - changed, changed)
    one, two = (agreement(from_matrix(m, list(FOUR_WAY)), replicates=20) for m in (matrix, changed))
    for name in ("raw", "alpha", "fleiss", "ac1"):
        before, after = getattr(one, name), getattr(two, name)
        assert before.value == pytest.approx(after.value, abs=1e-12) if before.value is not None else after.value is None
        assert (before.n_items, before.n_labels) == (after.n_items, after.n_labels)
    kappas = [sorted(-9.0 if p.kappa.value is None else round(p.kappa.value, 9) for p in found.pairs) for found in (one, two)]
    assert kappas[0] == kappas[1]


@given(st.lists(st.tuples(st.integers(-1, 3), st.booleans()), max_size=50))
@settings(max_examples=30)
def test_sides_undone(shown: list[tuple[int, bool]]) -> None:
    """The same opinions shown on other sides come to the same labels; undoing twice is doing nothing."""
    category, swapped = np.array([c for c, _ in shown], dtype=np.int64), np.array([s for _, s in shown], dtype=bool)
    undone = in_pair_order(category, swapped)
    assert (in_pair_order(undone, swapped) == category).all()
    assert (undone[category >= 2] == category[category >= 2]).all()
    assert (undone[swapped & (category == 0)] == 1).all()
    assert (undone[category == -1] == -1).all()


def test_two_way_is_four_way_without_ties() -> None:
    matrix = np.array([[0, 1, 2, 0, 3, 1], [0, 1, 0, 1, 3, -1], [0, 0, 2, 0, 1, 1]])
    two = agreement(decisive(from_matrix(matrix, list(FOUR_WAY))))
    by_hand = agreement(from_matrix(np.where(matrix > 1, -1, matrix), ["a", "b"]))
    assert two == by_hand
    assert two.categories == ("a", "b")


def test_the_last_of_several_labels_counts() -> None:
    """Annotator 1 changed their mind on item 0."""
    found = label_table([0, 0, 1, 0, 1], [0, 1, 0, 1, 1], [0, 1, 1, 0, 1])
    assert value(agreement(found).raw) == 1.0
    assert found.row.tolist() == [0, 3, 2, 4]


def test_fleiss_leaves_out_other_overlaps_and_says_so() -> None:
    found = agreement(from_counts([(3, 0), (2, 1), (0, 3), (1, 1), (1, 0), (0, 4)])).fleiss
    assert (found.n_items, found.n_labels, found.n_left_out) == (3, 9, 2)
    assert "items with 3 labels only; 2 with another number" in found.note
    assert value(found) == pytest.approx((7 / 9 - 41 / 81) / (1 - 41 / 81))


# --- undefined, in words ----------------------------------------------------------------------------------------------------


def corrected(table: LabelTable) -> list[Coefficient]:
    found = agreement(table)
    return [found.alpha, found.fleiss, found.ac1, *(pair.kappa for pair in found.pairs)]


def test_unanimous_is_undefined() -> None:
    table = from_counts([(0, 0, 2, 0)] * 8)
    for coefficient in corrected(table):
        assert coefficient.value is coefficient.low is coefficient.high is None
        assert "everybody always answered “2”" in coefficient.note
    raw = agreement(table).raw
    assert (raw.value, raw.high, raw.note) == (1.0, 1.0, NO_DISAGREEMENT)
    assert raw.low == pytest.approx(8 / (8 + 1.959964**2), abs=1e-6)  # Wilson's lower bound of 8 of 8


@pytest.mark.parametrize(
    ("item", "annotator", "category", "why"),
    [
        ([], [], [], NO_LABELS),
        ([0, 1, 2], [0, 1, 0], [-1, -1, -1], NO_LABELS),
        ([0, 1, 2], [4, 4, 4], [0, 1, 0], ONE_PERSON),
        ([0, 1, 2], [0, 1, 0], [0, 1, 0], NO_OVERLAP),
        ([0, 0], [0, 1], [0, -1], ONE_PERSON),
    ],
)
def test_nothing_to_compare(item: list[int], annotator: list[int], category: list[int], why: str) -> None:
    found = agreement(label_table(item, annotator, category))
    for coefficient in (found.raw, found.alpha, found.fleiss, found.ac1):
        assert coefficient.value is None
        assert coefficient.note == why
    assert found.pairs == ()


def test_cohen_without_common_items() -> None:
    assert cohen_kappa([0, -1], [-1, 1]) == Coefficient(None, note=NO_OVERLAP)
    assert cohen_kappa([-1], [-1]) == Coefficient(None, note=NO_LABELS)


def test_one_item_has_no_interval() -> None:
    found = agreement(from_counts([(1, 1)]))
    assert (found.raw.value, found.raw.low, found.raw.note) == (0.0, None, ONE_ITEM)


def test_perfect_agreement_is_not_certain() -> None:
    """Both answers were used and nobody ever disagreed: 1.0, but ten items rule out little."""
    found = agreement(from_counts([(2, 0), (0, 2)] * 5)).alpha
    assert (found.value, found.high, found.note) == (1.0, 1.0, NO_DISAGREEMENT)
    assert found.low is not None
    assert found.low == pytest.approx(1 - 2 * 3.8415 / 13.8415, abs=1e-4)


def test_codes_are_checked() -> None:
    for bad in (([0], [0, 1], [0, 1]), ([0, 0], [0, 1], [0, 4]), ([-1, 0], [0, 1], [0, 1]), ([2**61, 0], [0, 50], [0, 1])):
        with pytest.raises(BadInput):
            label_table(*bad)
    with pytest.raises(BadInput):
        label_table([0], [0], [0], ["only"])


# --- simulations ------------------------------------------------------------------------------------------------------------


def opinions(rng: np.random.Generator, items: int, people: int, honest: float) -> np.ndarray:
    """(people, items): everybody sees the item's truth with probability `honest`, else guesses one of four."""
    truth = rng.choice(4, size=items, p=[0.4, 0.3, 0.2, 0.1])
    guess = rng.choice(4, size=(people, items), p=[0.4, 0.3, 0.2, 0.1])
    return np.where(rng.random((people, items)) < honest, truth, guess)


@pytest.mark.parametrize(("items", "honest"), [(60, 0.8), (200, 0.5)])
def test_intervals_cover_the_truth(items: int, honest: float) -> None:
    """Two people who both see the truth agree beyond chance with probability honest^2: that is what alpha and kappa estimate."""
    rng = np.random.default_rng(5)
    rounds, covered = 200, {"alpha": 0, "fleiss": 0, "kappa": 0, "raw": 0}
    by_chance = 0.4**2 + 0.3**2 + 0.2**2 + 0.1**2
    for _ in range(rounds):
        matrix = opinions(rng, items, 3, honest)
        found = agreement(from_matrix(matrix, list(FOUR_WAY)), replicates=200)
        truth = honest**2
        for name, coefficient, true in (
            ("alpha", found.alpha, truth),
            ("fleiss", found.fleiss, truth),
            ("kappa", found.pairs[0].kappa, truth),
            ("raw", found.raw, truth + (1 - truth) * by_chance),
        ):
            assert coefficient.low is not None
            assert coefficient.high is not None
            covered[name] += coefficient.low <= true <= coefficient.high
    shares = {name: n / rounds for name, n in covered.items()}
    assert all(0.905 <= share <= 0.985 for share in shares.values()), shares


def test_adaptive_overlap_biases_all_labels_but_not_the_first_two() -> None:
    """Stop at two when they agree, go to five when not: alpha over everything is too high, over the first two it is right."""
    rng = np.random.default_rng(11)
    matrix = opinions(rng, 40_000, 5, 0.7)
    stopped = matrix[0] == matrix[1]
    matrix[2:, stopped] = -1
    annotator, item = np.indices(matrix.shape)
    table = label_table(item.ravel(), annotator.ravel(), matrix.ravel())
    everything, first_two = agreement(table, with_pairs=False).alpha, agreement(first_labels(table, 2), with_pairs=False).alpha
    assert everything.low is not None
    assert everything.low > 0.49 + 0.03
    assert first_two.low is not None
    assert first_two.high is not None
    assert first_two.low < 0.49 < first_two.high
    assert (first_two.n_items, first_two.n_labels) == (40_000, 80_000)


def test_first_labels_are_first_in_time() -> None:
    table = label_table([7, 7, 3, 7, 3], [2, 1, 0, 0, 1], [0, 1, 2, 3, 0])
    first = first_labels(table, 2)
    assert sorted(first.row.tolist()) == [0, 1, 2, 4]


def test_a_million_labels_equal_a_hundred_copies_of_a_few() -> None:
    """Resampling count patterns instead of items: the interval of many items is that of few, narrower by sqrt(copies)."""
    rng = np.random.default_rng(3)
    matrix = opinions(rng, 2_000, 5, 0.6)
    few = agreement(from_matrix(matrix, list(FOUR_WAY)))
    many = agreement(from_matrix(np.tile(matrix, 100), list(FOUR_WAY)))
    assert (many.n_labels, many.n_items) == (1_000_000, 200_000)
    for name in ("raw", "alpha", "fleiss", "ac1"):
        small, large = getattr(few, name), getattr(many, name)
        assert large.value == pytest.approx(small.value, abs=2e-4)
        assert (small.high - small.low) / (large.high - large.low) == pytest.approx(10, rel=0.2)
    assert len(many.pairs) == 10
    assert math.isclose(value(many.pairs[0].kappa), value(few.pairs[0].kappa), abs_tol=1e-9)


@given(MATRICES)
@settings(max_examples=30)
def test_a_report_is_plain_json(rows: list[list[int]]) -> None:
    """It goes into manifests and tables: no NaN, no infinity, no numpy number."""
    table = from_matrix(np.array(rows).T, list(FOUR_WAY))
    for found in (agreement(table, replicates=20), agreement(decisive(table), replicates=20)):
        json.dumps(asdict(found), allow_nan=False)
