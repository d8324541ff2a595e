"""The human bias card: annotators with a known bias are found with the stated power, fair ones are left in peace."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from data.errors import BadInput
from labeling.bias import N_LEFT, N_LEFT_PROJECT, NO_GOLD, NO_LABELS, NO_REPEATS, bias_report
from labeling.bias_card import LEFT, N_SLOPE, RIGHT, SKIP, BiasCard, Gold, LabelColumns, Repeats
from labeling.logistic import PRIOR_SD, fit
from labeling.looks import SAME_LENGTH, SAME_MARKDOWN, TOO_FEW, scaled

Ints = np.ndarray


def shown(rng: np.random.Generator, n: int, people: int = 1) -> LabelColumns:
    """n pairs on screen, nothing decided: lengths like real answers', a little Markdown."""
    return LabelColumns(
        annotator=np.arange(n) % people,
        item=np.arange(n),
        preference=np.full(n, SKIP),
        length_left=rng.lognormal(6, 0.8, n).astype(np.int64),
        length_right=rng.lognormal(6, 0.8, n).astype(np.int64),
        markdown_left=rng.poisson(2, n),
        markdown_right=rng.poisson(2, n),
        dwell_ms=np.zeros(n, dtype=np.int64),
    )


def decide(
    rng: np.random.Generator,
    labels: LabelColumns,
    side: float = 0.0,
    length: float = 0.0,
    markdown: float = 0.0,
    quality: Ints | float = 0.0,
) -> LabelColumns:
    """Everybody chooses left with the log-odds side + length * difference + markdown * difference + quality (left minus right)."""
    odds = side + quality + length * scaled(labels.length_left - labels.length_right)
    odds = odds + markdown * scaled(labels.markdown_left - labels.markdown_right)
    return replace(labels, preference=np.where(rng.random(labels.item.size) < expit(odds), LEFT, RIGHT))


def card(labels: LabelColumns, repeats: Repeats | None = None, gold: Gold | None = None) -> BiasCard:
    return bias_report(labels, repeats, gold).project


# --- what must be found -----------------------------------------------------------------------------------------------------


def test_always_left() -> None:
    """One model is far better and sides are drawn by lot: always-left gives each model half, and the card says so."""
    rng = np.random.default_rng(1)
    n = 400
    better_is_left = rng.random(n) < 0.5
    readers = decide(rng, shown(rng, n, 2), quality=np.where(better_is_left, 2.0, -2.0))
    lazy = readers.annotator == 1
    labels = replace(readers, preference=np.where(lazy, LEFT, readers.preference))
    chose_better = (labels.preference == LEFT) == better_is_left
    assert abs(chose_better[lazy].mean() - 0.5) < 3 * np.sqrt(0.25 / lazy.sum())
    assert chose_better[~lazy].mean() > 0.8
    swapped_again = Repeats(np.repeat([0, 1], 30), np.tile([0, 1], 30), np.r_[np.tile([0, 1], 15), np.tile([1, 0], 15)])
    reader, clicker = bias_report(labels, swapped_again).annotators
    assert reader.flags == ()
    assert (clicker.left.value, clicker.left.n, clicker.flips.value) == (1.0, 200, 1.0)
    assert clicker.left.low is not None
    assert clicker.left.low > 0.98
    assert [flag.split(" ")[0] for flag in clicker.flags] == ["Chose", "Changed"]
    assert clicker.flags[0].startswith("Chose A (left) in 100 % (98 % to 100 %) of 200 labels")


def test_length_bias_is_found_with_the_stated_power() -> None:
    """0.25 log-odds per typical difference in N_SLOPE labels: found four times in five."""
    rng = np.random.default_rng(2)
    cards = [card(decide(rng, shown(rng, N_SLOPE), length=0.25)) for _ in range(200)]
    found = np.mean([any(flag.startswith("Favours longer answers") for flag in c.flags) for c in cards])
    assert 0.73 <= found <= 0.87
    assert np.mean([c.length.value for c in cards]) == pytest.approx(0.25, abs=0.02)
    assert all(c.length.n == c.n_decisive == N_SLOPE for c in cards)


def test_a_leaning_to_one_side_is_found_with_the_stated_power() -> None:
    rng = np.random.default_rng(3)
    blank = shown(rng, N_LEFT)
    found = [card(replace(blank, preference=np.where(rng.random(N_LEFT) < 0.6, LEFT, RIGHT))) for _ in range(200)]
    assert 0.7 <= np.mean([any(flag.startswith("Chose A (left)") for flag in c.flags) for c in found]) <= 0.87


def test_markdown_and_short_answers() -> None:
    rng = np.random.default_rng(4)
    found = card(decide(rng, shown(rng, 3000), length=-0.6, markdown=0.5))
    assert [flag.split(":")[0] for flag in found.flags] == ["Avoids longer answers", "Favours more Markdown"]
    assert found.length.value == pytest.approx(-0.6, abs=0.15)
    assert found.markdown.value == pytest.approx(0.5, abs=0.15)
    assert found.longer.high is not None
    assert found.longer.high < 0.5


def test_one_person_is_shown_beside_the_project() -> None:
    rng = np.random.default_rng(5)
    labels = shown(rng, 8000, 4)
    labels = decide(rng, labels, length=0.1)
    biased = labels.annotator == 2
    labels = replace(labels, preference=np.where(biased, decide(rng, labels, length=1.5).preference, labels.preference))
    report = bias_report(labels)
    (flag,) = report.annotators[2].flags
    assert flag.startswith("Favours longer answers: +1.")
    assert f"the whole project {report.project.length.value:+.2f}" in flag
    assert "may be better" in flag


def test_gold_and_flips() -> None:
    rng = np.random.default_rng(6)
    gold = Gold(np.repeat([0, 1, 2], 40), np.r_[np.ones(40), rng.random(40) < 0.4, np.r_[np.ones(34), np.zeros(6)]].astype(bool))
    repeats = Repeats(np.array([0, 0, 0, 0]), np.array([0, 1, 2, 4]), np.array([0, 0, 1, 1]))
    report = bias_report(shown(rng, 0), repeats, gold)
    good, bad, fair = report.annotators
    assert (good.gold.value, good.flags, fair.flags) == (1.0, (), ())
    assert bad.flags[0].startswith("Right on ")
    assert "of 40 known items; at least 80 % is expected" in bad.flags[0]
    assert (good.flips.value, good.flips.n) == (0.5, 2)  # ties and skips decide nothing
    assert (bad.flips.value, bad.flips.note) == (None, NO_REPEATS)


# --- who must be left in peace ----------------------------------------------------------------------------------------------


def test_fair_annotators_are_flagged_at_the_nominal_rate() -> None:
    """Of 1,000 fair people, each alone, about 5 % have p < 0.05; over a project of 20 Holm leaves about 5 % of projects."""
    rng = np.random.default_rng(7)
    alone: dict[str, list[bool]] = {"left": [], "length": [], "markdown": []}
    projects: dict[str, list[bool]] = {"left": [], "length": [], "markdown": []}
    for _ in range(50):
        people = bias_report(decide(rng, shown(rng, 20 * 150, 20), quality=rng.normal(0, 1.5, 3000))).annotators
        for name in alone:
            found = [getattr(person, name) for person in people]
            alone[name] += [measure.p < 0.05 for measure in found]
            projects[name].append(any(measure.p_adjusted < 0.05 for measure in found))
    for name in alone:
        assert len(alone[name]) == 1000
        assert 0.025 <= np.mean(alone[name]) <= 0.07, name
        assert np.mean(projects[name]) <= 0.13, name  # 50 projects: 5 % and two and a half standard errors


def test_two_people_on_one_pair_are_not_two_pieces_of_evidence() -> None:
    """Six people label each pair and see the same quality: clustered by pair the false alarms stay rare, by label they do not."""
    rng = np.random.default_rng(8)
    alarms = {"clustered": 0, "naive": 0}
    for _ in range(100):
        pairs = shown(rng, 60)
        spread = replace(pairs, **{f: np.repeat(getattr(pairs, f), 6) for f in pairs.__dataclass_fields__})
        spread = replace(spread, annotator=np.tile(np.arange(6), 60))
        labels = decide(rng, spread, quality=np.repeat(rng.normal(0, 3, 60), 6))
        for name, item in (("clustered", labels.item), ("naive", np.arange(360))):
            p = card(replace(labels, item=item)).length.p
            assert p is not None
            alarms[name] += p < 0.05
    assert alarms["clustered"] / 100 <= 0.12
    assert alarms["naive"] / 100 >= 0.2


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(9)
    covered = {"side": 0, "length": 0, "markdown": 0}
    truth = {"side": 0.3, "length": 0.5, "markdown": -0.2}
    for _ in range(200):
        found = card(decide(rng, shown(rng, 300), **truth))
        for name, true in truth.items():
            effect = getattr(found, name)
            covered[name] += effect.low <= true <= effect.high
    assert all(0.91 <= n / 200 <= 0.985 for n in covered.values()), covered


# --- laws -------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 4))
@settings(max_examples=25)
def test_swapping_all_sides_mirrors_the_card(seed: int, n: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    labels = shown(rng, n, people)
    labels = replace(labels, preference=rng.integers(0, 5, n), dwell_ms=rng.integers(0, 9999, n))
    mirrored = LabelColumns(
        labels.annotator,
        labels.item,
        np.where(labels.preference <= RIGHT, 1 - labels.preference, labels.preference),
        labels.length_right,
        labels.length_left,
        labels.markdown_right,
        labels.markdown_left,
        labels.dwell_ms,
    )
    one, two = bias_report(labels), bias_report(mirrored)
    for before, after in zip((one.project, *one.annotators), (two.project, *two.annotators), strict=True):
        assert (before.tie, before.both_bad, before.longer, before.seconds) == (
            after.tie,
            after.both_bad,
            after.longer,
            after.seconds,
        )
        if before.left.value is None:
            assert after.left.value is None
            continue
        assert before.left.value == pytest.approx(1 - after.left.value)
        assert before.left.p == pytest.approx(after.left.p)
        for name, sign in (("side", -1), ("length", 1), ("markdown", 1)):
            was, now = getattr(before, name), getattr(after, name)
            assert was.note == now.note
            if was.value is not None:
                assert was.value == pytest.approx(sign * now.value, abs=1e-6)
                assert was.se == pytest.approx(now.se, abs=1e-6)


def test_the_project_is_the_sum_of_its_people() -> None:
    rng = np.random.default_rng(10)
    labels = shown(rng, 900, 3)
    labels = replace(labels, preference=rng.integers(0, 5, 900), dwell_ms=rng.integers(0, 60_000, 900))
    report = bias_report(labels)
    for name in ("n_labels", "n_decisive", "n_skips"):
        assert getattr(report.project, name) == sum(getattr(person, name) for person in report.annotators)
    assert report.project.annotator is None
    assert [person.annotator for person in report.annotators] == [0, 1, 2]
    for person in report.annotators:
        own = labels.dwell_ms[(labels.annotator == person.annotator) & (labels.dwell_ms > 0)] / 1000
        assert person.seconds.median == pytest.approx(np.median(own))
        assert (person.seconds.low_quartile, person.seconds.high_quartile) == pytest.approx(tuple(np.quantile(own, [0.25, 0.75])))
        mine = labels.preference[labels.annotator == person.annotator]
        assert person.tie.value == pytest.approx(np.mean(mine[mine != SKIP] == 2))
        assert person.left.value == pytest.approx(np.mean(mine[mine <= RIGHT] == LEFT))


@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.sampled_from([0.0, 1.0, 30.0]))
@settings(max_examples=25)
def test_the_regression_equals_a_general_optimiser(seed: int, n: int, steep: float) -> None:
    """Also where the answers are separated (steep = 30), where plain Newton runs away."""
    rng = np.random.default_rng(seed)
    x = np.stack([np.ones(n), rng.normal(size=n), rng.normal(size=n)])
    y = (rng.random(n) < expit(steep * x[1])).astype(float)

    def loss(beta: np.ndarray) -> float:
        eta = beta @ x
        return float(np.sum(np.logaddexp(0, eta) - y * eta) + beta @ beta / (2 * PRIOR_SD**2))

    reference = minimize(loss, np.zeros(3), tol=1e-10)
    assert fit(x, y).coefficients == pytest.approx(reference.x, abs=2e-4)


@pytest.mark.parametrize("start", [(0.0, 12.0, 0.0), (-8.0, -20.0, 8.0), (30.0, 0.0, 0.0)])
def test_where_the_search_starts_does_not_matter(start: tuple[float, ...]) -> None:
    """A person's fit starts at the project's coefficients, which may be the opposite of theirs: a full Newton step runs away."""
    rng = np.random.default_rng(16)
    x = np.stack([np.ones(300), rng.normal(size=300), rng.normal(size=300)])
    y = (rng.random(300) < expit(-2 * x[1])).astype(float)
    assert fit(x, y, np.array(start)).coefficients == pytest.approx(fit(x, y).coefficients, abs=1e-6)


def test_copies_of_a_label_add_nothing_when_clustered() -> None:
    """Every row five times under one item code: the standard errors stay those of one copy, up to the prior."""
    rng = np.random.default_rng(11)
    labels = decide(rng, shown(rng, 2000), length=0.4)
    copies = replace(labels, **{f: np.repeat(getattr(labels, f), 5) for f in labels.__dataclass_fields__})
    once, often = card(labels), card(copies)
    assert often.length.se == pytest.approx(once.length.se, rel=0.02)
    assert often.length.value == pytest.approx(once.length.value, abs=0.005)


def test_one_giant_text_moves_nothing() -> None:
    rng = np.random.default_rng(12)
    labels = decide(rng, shown(rng, 1000), length=0.5)
    giant = labels.length_left.copy()
    giant[0] = 50_000_000
    before, after = card(labels).length, card(replace(labels, length_left=giant)).length
    assert after.value == pytest.approx(before.value, abs=0.05)


# --- nothing to say, said in words ------------------------------------------------------------------------------------------


def test_no_labels() -> None:
    report = bias_report(shown(np.random.default_rng(0), 0))
    assert report.annotators == ()
    empty = report.project
    assert (empty.n_labels, empty.left.value, empty.left.note, empty.flags) == (0, None, NO_LABELS, ())
    assert (empty.flips.note, empty.gold.note, empty.seconds.median) == (NO_REPEATS, NO_GOLD, None)
    assert empty.side.note == empty.length.note == empty.markdown.note == TOO_FEW
    assert (empty.left.n_needed, empty.length.n_needed) == (N_LEFT_PROJECT, N_SLOPE)


def test_pairs_that_look_alike() -> None:
    rng = np.random.default_rng(13)
    labels = decide(rng, shown(rng, 100))
    same = replace(labels, length_left=labels.length_right, markdown_left=labels.markdown_right)
    found = card(same)
    assert (found.length.value, found.length.note) == (None, SAME_LENGTH)
    assert (found.markdown.value, found.markdown.note) == (None, SAME_MARKDOWN)
    assert found.side.value is not None
    assert found.longer.value is None


def test_many_people_on_few_pairs_say_nothing_about_looks() -> None:
    """100 people and 5 pairs: plenty of labels, but five pieces of evidence."""
    rng = np.random.default_rng(15)
    pairs = shown(rng, 5)
    labels = replace(pairs, **{f: np.repeat(getattr(pairs, f), 100) for f in pairs.__dataclass_fields__})
    labels = replace(
        labels, annotator=np.tile(np.arange(100), 5), preference=np.where(labels.length_left > labels.length_right, LEFT, RIGHT)
    )
    report = bias_report(labels)
    assert (report.project.length.value, report.project.length.note, report.project.length.n) == (None, TOO_FEW, 500)
    assert len(report.annotators) == 100
    assert not any(person.flags for person in report.annotators)


def test_always_the_longer_answer_has_finite_coefficients() -> None:
    rng = np.random.default_rng(14)
    labels = shown(rng, 200)
    found = card(replace(labels, preference=np.where(labels.length_left > labels.length_right, LEFT, RIGHT)))
    assert found.length.value is not None
    assert found.length.high is not None
    assert 2 < found.length.value < found.length.high < 20
    assert found.longer.value == 1.0


def test_columns_are_checked() -> None:
    labels = shown(np.random.default_rng(0), 3)
    none = np.zeros(0, dtype=np.int64)
    for bad in (
        replace(labels, item=none),
        replace(labels, preference=np.array([0, 5, 1])),
        replace(labels, annotator=np.array([0, -1, 1])),
        replace(labels, item=np.array([0, -1, 1])),
    ):
        with pytest.raises(BadInput):
            bias_report(bad)
    with pytest.raises(BadInput):
        bias_report(labels, Repeats(np.array([0]), none, none))
    with pytest.raises(BadInput):
        bias_report(labels, Repeats(np.array([0]), np.array([9]), np.array([0])))
    with pytest.raises(BadInput):
        bias_report(labels, gold=Gold(np.array([-1]), np.array([True])))


@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
@settings(max_examples=25)
def test_a_card_is_plain_json(seed: int, n: int) -> None:
    """It goes into manifests and tables: no NaN, no infinity, no numpy number."""
    rng = np.random.default_rng(seed)
    labels = replace(shown(rng, n, 2), preference=rng.integers(0, 5, n), dwell_ms=rng.integers(0, 3, n))
    twice = Repeats(rng.integers(0, 4, n), rng.integers(0, 5, n), rng.integers(0, 5, n))
    json.dumps(asdict(bias_report(labels, twice, Gold(rng.integers(0, 4, n), rng.random(n) < 0.5))), allow_nan=False)
