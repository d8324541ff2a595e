"""Win rates: published numbers, laws that hold for any input, and intervals that cover what they promise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.verdicts import Reading, combine, label_share
from evals.winrate import ALL_SAME, NO_ROWS, ONE_PROMPT, difference, share, win_rate

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.5, 1.0, 0.3, 0.91, math.nan])), min_size=1, max_size=60)


# --- published numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "published", "se", "discrete"),
    [
        ("claude-2.1", 15.733506736409938, 1.120315865445773, 14.409937888198757),
        ("vicuna-7b-v1.5", 4.797493939167703, 0.6655960676971918, 4.53416149068323),
        ("alpaca-7b", 2.591450540223603, 0.4870855382635108, 2.298136645962733),
    ],
)
def test_alpaca_eval_leaderboard(shared_data: Path, model: str, published: float, se: float, discrete: float) -> None:
    rows = [json.loads(line) for line in (shared_data / "alpaca_eval/annotations" / f"{model}.jsonl").read_text().splitlines()]
    soft = [row["preference"] - 1 for row in rows]
    found = share(soft, [row["index"] for row in rows])
    assert found.value is not None
    assert found.se is not None
    assert 100 * found.value == pytest.approx(published, abs=1e-7)
    assert 100 * found.se == pytest.approx(se, abs=1e-7)
    hard = [0.5 if p == 0.5 else float(p > 0.5) for p in soft]
    found = share(hard, [row["index"] for row in rows])
    assert found.value is not None
    assert 100 * found.value == pytest.approx(discrete, abs=1e-9)


@pytest.mark.parametrize("model", ["claude-2.1", "vicuna-7b-v1.5", "alpaca-7b"])
def test_alpaca_eval_preference_from_its_log_probs(shared_data: Path, model: str) -> None:
    """2 - P("m"), or 1 + P("m") where the two were shown the other way round (which the file does not tell)."""
    checked = 0
    for line in (shared_data / "alpaca_eval/annotations" / f"{model}.jsonl").read_text().splitlines():
        row = json.loads(line)
        seen = {top["token"]: top["logprob"] for top in row["top_logprobs"] or []}
        found = label_share([seen.get("m", -math.inf), seen.get("M", -math.inf)])
        assert found is not None
        if found.mass > 0:
            either = (2 - found.first, 1 + found.first)
            assert min(abs(p - row["preference"]) for p in either) < 1e-9
            checked += 1
    assert checked > 790


@pytest.mark.parametrize("part", ["natural", "adversarial_neighbor", "adversarial_gptinst"])
@pytest.mark.parametrize("judge", ["GPT-4", "ChatGPT"])
def test_llmbar_statistics(shared_data: Path, part: str, judge: str) -> None:
    """Accuracy (mean of two orders), both orders right, and positional agreement equal the published statistics."""
    folder = shared_data / "llmbar" / part / judge
    published = json.loads((folder / "statistics.json").read_text())
    accuracy, both, flips, items = [], [], [], []
    for item, row in enumerate(json.loads((folder / "result.json").read_text())):
        orders = row["results"][0]
        first, second = orders["swap = False"]["winner"], orders["swap = True"]["winner"]
        verdict = combine(Reading(float(first == "1")), Reading(float(second == "2")))
        gold = "a" if row["label"] == 1 else "b"
        accuracy += [float((p > 0.5) == (gold == "a")) for p in (verdict.p_ab, verdict.p_ba) if p is not None]
        items += [item, item]
        both.append(float(verdict.verdict == gold))
        flips.append(verdict.flipped)
    assert percent(share(accuracy, items).value) == pytest.approx(float(published["correct_average"].rstrip("%")), abs=1e-9)
    assert percent(share(both, range(len(both))).value) == pytest.approx(stated(published["correct_both"]), abs=1e-9)
    flip_rate = win_rate([0.5] * len(both), range(len(both)), flipped=flips).flip_rate.value
    assert 100 - percent(flip_rate) == pytest.approx(stated(published["equal"]), abs=1e-9)


def test_llmbar_table(shared_data: Path) -> None:
    """The figures of the paper's table, so that the test above cannot pass on a file that says something else."""
    stats = {
        (part, judge): json.loads((shared_data / "llmbar" / part / judge / "statistics.json").read_text())
        for part in ("natural", "adversarial_neighbor")
        for judge in ("GPT-4", "ChatGPT")
    }
    shown = {key: (float(s["correct_average"].rstrip("%")), stated(s["equal"])) for key, s in stats.items()}
    assert shown["natural", "GPT-4"] == pytest.approx((95.5, 95.0))
    assert shown["adversarial_neighbor", "GPT-4"] == pytest.approx((78.73, 93.28), abs=0.01)
    assert shown["natural", "ChatGPT"] == pytest.approx((81.5, 71.0))
    assert shown["adversarial_neighbor", "ChatGPT"] == pytest.approx((19.4, 71.6), abs=0.05)


def stated(sentence: str) -> float:
    return float(sentence.split("=")[1].strip().rstrip("%"))


def percent(value: float | None) -> float:
    assert value is not None
    return 100 * value


def test_wilson_of_a_textbook_share() -> None:
    """81 of 263, independent: Newcombe 1998 has the score interval 0.2553-0.3662; t for the normal quantile hardly widens it."""
    found = share([1.0] * 81 + [0.0] * 182, range(263))
    assert found.value == pytest.approx(81 / 263)
    assert found.low == pytest.approx(0.2553, abs=5e-4)
    assert found.high == pytest.approx(0.3662, abs=5e-4)


# --- laws -----------------------------------------------------------------------------------------------------------------


@given(ROWS)
def test_swapped_sides_mirror_the_win_rate(rows: list[tuple[int, float]]) -> None:
    prompts, outcomes = [p for p, _ in rows], np.array([y for _, y in rows])
    one, other = win_rate(outcomes, prompts), win_rate(1 - outcomes, prompts)
    assert (one.n_unscored, one.n_prompts, one.tie_rate) == (other.n_unscored, other.n_prompts, other.tie_rate)
    if one.win_rate.value is None:
        assert other.win_rate.value is None
        return
    assert one.win_rate.value == pytest.approx(1 - other.win_rate.value)  # type: ignore[operator]
    if one.win_rate.low is not None:
        assert one.win_rate.low == pytest.approx(1 - other.win_rate.high, abs=1e-9)  # type: ignore[operator]
        assert one.win_rate.high == pytest.approx(1 - other.win_rate.low, abs=1e-9)  # type: ignore[operator]


@given(ROWS)
def test_an_interval_holds_its_share_and_has_a_width(rows: list[tuple[int, float]]) -> None:
    prompts, outcomes = [p for p, _ in rows], [y for _, y in rows]
    found = share(outcomes, prompts)
    scored = [y for y in outcomes if not math.isnan(y)]
    assert found.n == len(scored)
    if not scored:
        assert (found.value, found.note) == (None, NO_ROWS)
    elif found.n_prompts == 1:
        assert (found.low, found.high, found.note) == (None, None, ONE_PROMPT)
    else:
        assert found.value == pytest.approx(np.mean(scored))
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 1
        assert found.high - found.low > 1e-6


@given(ROWS, st.randoms())
def test_the_order_of_the_rows_changes_nothing(rows: list[tuple[int, float]], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = (share([y for _, y in r], [p for p, _ in r]) for r in (rows, mixed))
    for field in ("value", "low", "high", "se"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_copies_of_a_prompts_rows_are_no_evidence(values: list[float]) -> None:
    """The same answer eight times over must not narrow the interval: this is what an interval over rows gets wrong."""
    once = share(values, range(len(values)))
    eight = share(np.repeat(values, 8), np.repeat(range(len(values)), 8))
    assert (eight.low, eight.high) == pytest.approx((once.low, once.high), abs=1e-9)


@given(ROWS, ROWS)
def test_a_difference_changes_its_sign_with_the_sides(x: list[tuple[int, float]], y: list[tuple[int, float]]) -> None:
    one = difference([v for _, v in x], [p for p, _ in x], [v for _, v in y], [p for p, _ in y])
    other = difference([v for _, v in y], [p for p, _ in y], [v for _, v in x], [p for p, _ in x])
    if one.value is None:
        assert other.value is None
    else:
        assert one.value == pytest.approx(-other.value, abs=1e-12)  # type: ignore[operator]
    if one.low is not None and one.value is not None and one.high is not None:
        assert -1 <= one.low <= one.value + 1e-9
        assert one.high - one.low > 1e-6
        assert one.low == pytest.approx(-other.high, abs=1e-9)  # type: ignore[operator]


def test_the_difference_of_a_model_to_itself_is_paired() -> None:
    """The same answers on both sides: rows are far from alike, but no prompt differs, so the interval is narrow and around 0."""
    values, prompts = [0.0, 1.0, 1.0, 0.0] * 25, [i // 4 for i in range(100)]
    found = difference(values, prompts, values, prompts)
    assert (found.value, found.se, found.note) == (0.0, 0.0, ALL_SAME)
    assert found.high == pytest.approx(-found.low)  # type: ignore[operator]
    assert 0 < found.high < 0.16  # type: ignore[operator]


def test_a_paired_difference_by_hand() -> None:
    """Three prompts, one row a side: differences 1, 0, 1 have mean 2/3 and sd 0.577; t on 2 df is 4.303."""
    found = difference([1, 1, 1], "abc", [0, 1, 0], "abc")
    assert found.value == pytest.approx(2 / 3)
    assert found.se == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))
    assert (found.low, found.high) == (pytest.approx(2 / 3 - 4.302653 / 3, abs=1e-5), 1.0)


def test_all_wins_and_all_ties_keep_a_width() -> None:
    wins, ties, few = share([1.0] * 200, range(200)), share([0.5] * 200, range(200)), share([1.0] * 5, range(5))
    assert (wins.high, wins.note) == (1.0, ALL_SAME)
    assert wins.low == pytest.approx(200 / (200 + 1.972**2), abs=1e-4)  # Wilson's lower bound of 200 of 200
    assert (ties.low, ties.high) == (pytest.approx(0.5 - 0.00954, abs=1e-4), pytest.approx(0.5 + 0.00954, abs=1e-4))
    assert few.low is not None
    assert few.low < 0.45


def test_shares_of_a_small_comparison_by_hand() -> None:
    found = win_rate([1, 0.5, math.nan, 0], ["p", "p", "q", "r"], flipped=[0, 1, math.nan, 0], first_slot=[0.5, 1, math.nan, 0.6])
    assert (found.n_comparisons, found.n_unscored, found.n_prompts) == (4, 1, 2)
    assert found.win_rate.value == pytest.approx(0.5)
    assert found.tie_rate.value == pytest.approx(1 / 3)
    assert found.flip_rate.value == pytest.approx(1 / 3)
    assert found.first_slot.value == pytest.approx(0.7)


def test_nonsense_is_refused() -> None:
    for values, prompts in (([1.2], ["p"]), ([-0.1], ["p"]), ([0.5, 0.5], ["p"]), ([[0.5]], ["p"])):
        with pytest.raises(ValueError):
            share(values, prompts)


# --- coverage -------------------------------------------------------------------------------------------------------------


def coverage(prompts: int, samples: int, mean: float, rounds: int = 1000) -> tuple[float, float]:
    """How often the clustered and the row-level interval hold the truth; each prompt has a win rate of its own (beta, ICC 1/3)."""
    rng = np.random.default_rng(1)
    ids = np.repeat(np.arange(prompts), samples)
    hits = np.zeros(2)
    for _ in range(rounds):
        own = rng.beta(2 * mean, 2 * (1 - mean), prompts)
        wins = (rng.random(prompts * samples) < np.repeat(own, samples)).astype(float)
        for i, found in enumerate((share(wins, ids.tolist()), share(wins, range(wins.size)))):
            hits[i] += found.low <= mean <= found.high  # type: ignore[operator]
    return float(hits[0] / rounds), float(hits[1] / rounds)


@pytest.mark.parametrize(("prompts", "mean"), [(200, 0.5), (50, 0.7), (20, 0.85)])
def test_the_clustered_interval_covers_and_the_naive_one_does_not(prompts: int, mean: float) -> None:
    clustered, naive = coverage(prompts, 8, mean)
    assert 0.925 <= clustered <= 0.975  # 95 % +- 3 standard errors of 1,000 rounds and a little more; 5,000 give 0.939-0.954
    assert naive < 0.8


def test_the_paired_interval_of_a_gain_covers() -> None:
    rng, truth, rounds, hits = np.random.default_rng(3), 0.12, 1000, 0
    ids = np.repeat(np.arange(100), 8).tolist()
    for _ in range(rounds):
        own = rng.beta(2, 2, 100) * (1 - truth)
        before, after = (rng.random(800) < np.repeat(p, 8) for p in (own, own + truth))
        found = difference(after.astype(float), ids, before.astype(float), ids)
        hits += found.low <= truth <= found.high  # type: ignore[operator]
    assert 0.925 <= hits / rounds <= 0.975
