"""A comparison's numbers from its judgments, and what the sentences say of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from data.records import Judgment
from evals.compare_result import CompareResult, headline, in_percent, mirrored, summary, tally
from evals.verdicts import Reading, combine
from evals.winrate import Estimate


def judgment(
    prompt: int, p_ab: float | None, p_ba: float | None, rules: tuple[bool, bool] | None = None, reason: str = ""
) -> Judgment:
    found = combine(Reading(p_ab), Reading(None if p_ba is None else 1 - p_ba))
    return Judgment(
        f"j{prompt}", "r", "proj", f"p{prompt}", 0, "A", "B", "ca", "cb", "J", p_ab, p_ba,
        found.p, found.verdict, found.flipped, reason,
        datetime.now(UTC), {}, *(rules or (None, None)),
    )  # fmt: skip


def test_a_tally_by_hand() -> None:
    rows = [
        judgment(1, 0.1, 0.2, (False, True)),  # b, rightly
        judgment(1, 0.9, 0.3, (False, True)),  # flipped: half right
        judgment(2, 0.8, 0.9, (False, True)),  # a, wrongly
        judgment(2, 0.3, 0.1, (True, True)),  # b, the rules say tie
        judgment(3, None, 0.1, (False, False), "first order: no"),
    ]
    found = tally(rows, "A", "B", "J")
    assert found.win_rate.value == pytest.approx((1 + 0.5 + 0 + 1) / 4)  # type: ignore[union-attr]
    assert found.soft_win_rate.value == pytest.approx(1 - (0.15 + 0.6 + 0.85 + 0.2) / 4)  # type: ignore[union-attr]
    assert (found.tie_rate.value, found.flip_rate.value) == (0.25, 0.25)  # type: ignore[union-attr]
    assert found.first_slot.value == pytest.approx(((0.1 + 0.8) + (0.9 + 0.7) + (0.8 + 0.1) + (0.3 + 0.9)) / 8)  # type: ignore[union-attr]
    assert (found.n_comparisons, found.n_unscored, found.n_prompts) == (5, 1, 3)
    assert found.unscored_reasons == {"first order: no": 1}
    assert (found.accuracy_a.value, found.accuracy_b.value) == (pytest.approx(1 / 5), pytest.approx(4 / 5))  # type: ignore[union-attr]
    assert found.accuracy_gain.value == pytest.approx(3 / 5)  # type: ignore[union-attr]
    assert found.rule_win_rate.value == pytest.approx((1 + 1 + 1 + 0.5 + 0.5) / 5)  # type: ignore[union-attr]
    assert found.judge_accuracy.value == pytest.approx((1 + 0.5 + 0) / 3)  # type: ignore[union-attr]


def test_exchanging_the_models_mirrors_everything() -> None:
    rows = [judgment(i, (i * 37 % 101) / 100, (i * 53 % 101) / 100, (i % 2 == 0, i % 3 == 0)) for i in range(40)]
    swapped = [judgment(i, 1 - r.p_ba, 1 - r.p_ab, (bool(r.rule_b), bool(r.rule_a))) for i, r in enumerate(rows)]  # type: ignore[operator]
    one, other = tally(rows, "A", "B", "J"), tally(swapped, "B", "A", "J")
    for name in ("win_rate", "soft_win_rate", "rule_win_rate"):
        x, y = getattr(one, name), mirrored(getattr(other, name))
        assert (x.value, x.low, x.high) == pytest.approx((y.value, y.low, y.high))
    assert one.accuracy_gain.value == pytest.approx(-other.accuracy_gain.value)  # type: ignore[union-attr, operator]
    assert one.judge_accuracy.value == pytest.approx(other.judge_accuracy.value)  # type: ignore[union-attr]
    assert one.flip_rate.value == pytest.approx(other.flip_rate.value)  # type: ignore[union-attr]


def test_a_result_survives_its_json() -> None:
    rows = [judgment(i, 0.2, 0.4, (False, True)) for i in range(4)]
    found = replace(tally(rows, "A", "B", "J"), warnings=("Careful.",), seconds={"judge": 1.5}, verdict="x")
    event = json.loads(json.dumps({"type": "result", "at": "now", **found.to_json()}, allow_nan=False))
    assert CompareResult.from_json(event) == found


def at(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 0.03, 1600, 200)


def test_the_headline_says_who_and_how_sure() -> None:
    blank = CompareResult("Base", "Tuned", "Judge", 200, 1600, 0)
    said = {
        name: headline(replace(blank, win_rate=found))
        for name, found in {
            "better": at(0.63, 0.57, 0.69),
            "worse": at(0.37, 0.31, 0.43),
            "neither": at(0.52, 0.46, 0.58),
            "nearly": at(0.55, 0.501, 0.6),
            "one": Estimate(0.75, n=8, n_prompts=1),
            "mute": Estimate(None),
        }.items()
    }
    assert said == {
        "better": "Tuned is preferred to Base in 63 % (95 % interval 57–69 %) of 1,600 comparisons over 200 prompts.",
        "worse": "Base is preferred to Tuned in 63 % (95 % interval 57–69 %) of 1,600 comparisons over 200 prompts.",
        "neither": "No detectable difference: Tuned is preferred to Base in 52 % (95 % interval 46–58 %) of 1,600 comparisons "
        "over 200 prompts.",
        "nearly": "Tuned is preferred to Base in 55 % (95 % interval 50.1–60 %) of 1,600 comparisons over 200 prompts.",
        "one": "Tuned is preferred to Base in 75 % of 8 comparisons over 1 prompt. One prompt is too few for an interval.",
        "mute": "The judge gave no verdict in any of the 1,600 comparisons.",
    }


def test_the_summary_speaks_of_ties_rules_judge_and_what_was_left_out() -> None:
    rows = [judgment(i, 0.9 if i % 4 else 0.2, 0.2, (False, i % 5 > 0)) for i in range(60)] + [
        judgment(99, None, None, reason="mute")
    ]
    said = "\n".join(summary(replace(tally(rows, "A", "B", "J"), warnings=("Careful.",))))
    assert "Ties, which count half: 75 %" in said
    assert "leaning to the answer shown first" in said
    assert "By the rules B answers well in 80 %" in said
    assert "+80 points (95 % interval" in said
    assert "the judge sides with them in" in said
    worse = summary(tally([judgment(i, 0.9, 0.2, (i > 1, False)) for i in range(4)], "A", "B", "J"))
    assert any("−50 points (95 % interval −" in sentence for sentence in worse), "a minus sign, no hyphen"
    assert "1 of 61 comparisons could not be scored and count for nobody: mute (1)." in said
    assert said.endswith("Careful.")
    assert summary(tally([judgment(1, None, None, (True, True))], "A", "B", ""))[0].startswith("By the rules B answers well in")
    assert summary(tally([judgment(1, None, None)], "A", "B", ""))[0].startswith("Nobody has judged these answers")
    assert summary(tally([], "A", "B", "J"))[0] == "The judge gave no verdict in any of the 0 comparisons."


def test_percent_never_hides_the_side_of_a_half() -> None:
    assert in_percent(at(0.4996, 0.496, 0.503)) == "50 % (95 % interval 49.6–50.3 %)"
    assert in_percent(at(0.997, 0.98, 1.0)) == "99.7 % (95 % interval 98–100 %)"
