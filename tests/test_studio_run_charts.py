"""Curves of runs: what was reported is drawn and said exactly, what is no number is not, files hold every point."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_studio_render import HOSTILE, Seen
from watch_seed import recorded

from data.errors import BadInput
from studio.plots import COLOURS, MAX_POINTS, smooth, thin, ticks
from studio.run_chart_notes import notes_of
from studio.run_charts import CHARTS, Look, as_csv, as_svg, chart_named, charts, overlaid, read_look

METRICS: list[dict[str, Any]] = [
    {"step": 1, "loss": 0.7, "rewards/margins": 0.0, "rewards/accuracies": 0.5},
    {"step": 2, "loss": None, "rewards/margins": math.nan, "rewards/accuracies": HOSTILE},
    {"step": 3, "loss": 0.2, "rewards/margins": 1.5, "rewards/accuracies": 1.0},
    {"step": 3, "eval_loss": 0.4123456},
]
LONG = [{"step": step, "loss": 1 / step + 0.1 * (step % 2)} for step in range(1, 1001)]


def drawn_lines(drawn: str) -> list[list[dict[str, Any]]]:
    return [json.loads(unescape(raw)) for raw in re.findall(r'data-lines="([^"]*)"', drawn)]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_enclose_the_values(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert found[0] <= low + 1e-6 * width
    assert found[-1] >= low + width - 1e-6 * width
    assert 2 <= len(found) <= 9
    steps = {round(b - a, 6) for a, b in itertools.pairwise(found)}
    assert max(steps) - min(steps) < 1e-3 * width + 1e-5


def test_one_value_has_ticks_too() -> None:
    assert ticks(0.5, 0.5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0.0, 0.0) == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert ticks(1e-6, 1e-6)[0] < 1e-6 < ticks(1e-6, 1e-6)[-1] <= 2e-6  # a learning rate is not drawn as nothing


def test_a_learning_rate_has_ticks_of_its_own_size() -> None:
    assert ticks(0.0, 5e-7) == [0.0, 2e-07, 4e-07, 6e-07]


@given(st.integers(1, 5000))
def test_thinning_keeps_both_ends(n: int) -> None:
    points = [(float(i), 0.0) for i in range(n)]
    kept = thin(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert len(kept) == min(n, MAX_POINTS)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=200))
def test_a_smoothed_line_stays_within_what_was_measured(values: list[float]) -> None:
    smoothed = smooth([(float(i), value) for i, value in enumerate(values)])
    assert [x for x, _ in smoothed] == [float(i) for i in range(len(values))]
    assert min(values) - 1e-9 <= min(y for _, y in smoothed)
    assert max(y for _, y in smoothed) <= max(values) + 1e-9
    assert smoothed[0][1] == pytest.approx(values[0])


def test_charts_draw_what_was_reported_and_skip_what_is_no_number() -> None:
    drawn = charts(METRICS)
    assert re.findall(r"aria-label=\"([^\"]*step[^\"]*)\"", drawn) == [
        "Loss, step 3: training 0.2, held out 0.4123",
        "Prefers the good answer, step 3: 100.0 %",
        "Reward margin, step 3: 1.5",
    ]
    assert drawn_lines(drawn)[0] == [
        {"name": "training", "points": [[1.0, 0.7], [3.0, 0.2]]},
        {"name": "held out", "points": [[3.0, 0.412346]]},
    ]
    assert "nan" not in drawn.lower().replace("name", "")
    assert Seen(drawn).handlers == []


def test_nothing_is_drawn_before_the_first_step() -> None:
    assert charts([]) == overlaid({"a": []}) == ""


def test_every_chart_is_drawn_for_the_metrics_it_knows() -> None:
    metrics = [{"step": step, **{line.key: 0.5 for chart in CHARTS for line in chart.lines}} for step in (1, 2)]
    drawn = charts(metrics)
    names = [chart.name for chart in CHARTS]
    first = sorted(names, key=lambda name: name != "reward")  # what learns from rewards is looked at for its reward
    assert re.findall(r'data-chart="([^"]*)"', drawn) == first != names
    without = charts([{key: value for key, value in point.items() if key != "reward"} for point in metrics])
    assert re.findall(r'data-chart="([^"]*)"', without)[0] == names[0] == "loss"


def test_all_charts_share_their_steps() -> None:
    drawn = charts([{"step": 1, "loss": 1.0}, {"step": 90, "loss": 0.5}, {"step": 50, "eval_rewards/accuracies": 0.5}])
    frames = [json.loads(unescape(raw)) for raw in re.findall(r'data-frame="([^"]*)"', drawn)]
    assert [frame["x"] for frame in frames] == [[0.0, 90.0], [0.0, 90.0]]


def test_a_noisy_line_is_smoothed_over_its_faint_points_and_held_out_figures_never_are() -> None:
    drawn = charts([*LONG, *({"step": step, "eval_loss": 0.3} for step in range(10, 1000, 10))])
    assert drawn.count('class="raw k0"') == 1
    assert 'class="raw k1"' not in drawn


def test_zooming_brings_the_thinned_points_back() -> None:
    whole, part = drawn_lines(charts(LONG))[0][0], drawn_lines(charts(LONG, Look((100.0, 200.0))))[0][0]
    assert len(whole["points"]) == MAX_POINTS
    assert [x for x, _ in part["points"]] == [float(x) for x in range(100, 201)]


def test_one_chart_can_stand_large_with_its_files() -> None:
    drawn = charts(METRICS, Look(large="loss"), "runs=r1")
    assert drawn.count('class="st-chart large"') == 1
    for link in ("./charts/loss.csv?runs=r1", "./charts/loss.svg?runs=r1", "./charts/all.csv?runs=r1"):
        assert f'href="{link}"' in drawn


def test_a_run_leads_to_a_comparison_and_a_comparison_not_to_itself() -> None:
    link = 'href="./runs-compare?runs=r1"'
    assert link in charts(METRICS, files="runs=r1")
    assert link not in overlaid({"First": METRICS}, files="runs=r1")


@pytest.mark.parametrize(
    ("raw", "look"),
    [
        ("", Look()),
        ('{"span": [5, 20], "large": "loss"}', Look((5.0, 20.0), "loss")),
        ('{"span": null, "large": ""}', Look()),
        ('{"span": [20, 5]}', Look()),
        ('{"span": [1, "x"]}', Look()),
        ('{"span": [NaN, 3]}', Look()),
        ('{"span": 3}', Look()),
        ("[]", Look()),
        ("{", Look()),
    ],
)
def test_what_a_browser_says_of_its_look_is_the_whole_when_it_makes_no_sense(raw: str, look: Look) -> None:
    assert read_look(raw) == look


def test_a_resumed_run_has_a_mark_where_it_was_taken_up() -> None:
    drawn = charts([{"step": 1, "loss": 1.0}, {"step": 2, "resumed": True}, {"step": 3, "loss": 0.5}])
    assert drawn.count('class="mark"') == 1
    assert 'class="mark"' not in charts([{"step": 0, "resumed": True}, {"step": 3, "loss": 0.5}])


# --- several runs -----------------------------------------------------------------------------------------------------------------


def test_runs_are_laid_over_one_another_in_colours_of_their_own() -> None:
    drawn = overlaid({"one": METRICS, HOSTILE: METRICS, "nothing yet": []})
    lines = drawn_lines(drawn)[0]
    assert [line["name"] for line in lines] == ["one", HOSTILE]
    assert Seen(drawn).handlers == []
    assert len({f"k{number}" for number in range(len(COLOURS)) if f'polyline class="k{number}"' in drawn}) == 2


def test_what_only_one_of_the_runs_reports_is_named_and_not_drawn() -> None:
    pairs = [{"step": 1, "loss": 0.7, "logps/chosen": -3.0, "logps/rejected": -4.0}]
    drawn = overlaid({"one": pairs, "other": [{"step": 1, "loss": 0.4}], HOSTILE: [{"step": 1, "loss": 0.4, "kl": 0.1}]})
    assert re.findall(r'data-chart="([^"]*)"', drawn) == ["loss-of-runs-1"]
    said = unescape(re.sub("<[^>]+>", "", drawn[drawn.index("st-left-out") :]))
    assert "2 charts are left out" in said  # as many as are named
    assert said.endswith(f"one: Log-probability in training; {HOSTILE}: Distance from the start (KL).")
    assert Seen(drawn).handlers == []
    alone = overlaid({"one": pairs, "nothing yet": []})
    assert len(re.findall("data-chart=", alone)) == 3, "one run with figures is shown as it is"
    assert "left out" not in alone


# --- what a newcomer would take for a fault -------------------------------------------------------------------------------------


def test_ties_are_no_preference_for_the_bad_answer() -> None:
    """Before the first step that moves it the model is its own reference: all margins are exactly 0."""
    told = recorded("dpo_good").metrics
    assert [point["rewards/accuracies"] for point in told[:3]] == [0.0, 0.0, 0.25], "TRL's figure, which counts a tie as wrong"
    accuracy = drawn_lines(charts([{key: value for key, value in point.items() if "loss" not in key} for point in told]))[0][0]
    assert accuracy["points"][0] == [3.0, 0.25]
    said = notes_of("dpo", {}, told)
    assert said == {
        "reward-accuracy": "Drawn from step 3: until then it is the model before the run, which prefers neither answer."
    }
    assert said["reward-accuracy"] in unescape(re.sub("<[^>]+>", "", charts(told, said=said)))
    worse = [{"step": 1, "rewards/accuracies": 0.0, "rewards/margins": -0.2}]
    assert drawn_lines(charts(worse))[0][0]["points"] == [[1.0, 0.0]], "one that does prefer the bad answers is drawn"
    assert notes_of("dpo", {}, worse) == {}


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("dpo", {"loss": "sigmoid", "sft_weight": 1.0}, "This is DPO's loss plus SFT's; DPO's part begins at 0.693 (ln\u00a02)."),
        (
            "dpo",
            {"loss": "sigmoid", "sft_weight": 0.5},
            "This is DPO's loss plus 0.5 × SFT's; DPO's part begins at 0.693 (ln\u00a02).",
        ),
        ("dpo", {"loss": "ipo", "sft_weight": 0.5}, "This is DPO's loss plus 0.5 × SFT's."),
        ("dpo", {"loss": "sigmoid", "sft_weight": 0.0}, None),
        ("simpo", {"sft_weight": 2.0}, "This is SimPO's loss plus 2 × SFT's."),
        ("sft", {}, None),
    ],
)
def test_a_loss_that_is_a_sum_says_so(method: str, settings: dict[str, Any], says: str | None) -> None:
    assert notes_of(method, settings, METRICS).get("loss") == says


# --- files ------------------------------------------------------------------------------------------------------------------------


def test_the_csv_holds_every_point_and_nothing_that_a_spreadsheet_would_run() -> None:
    rows = list(csv.reader(io.StringIO(as_csv({"=cmd()": LONG, "b": METRICS}))))
    assert rows[0] == ["run", "step", "loss", "rewards/margins", "rewards/accuracies", "eval_loss"]
    assert len(rows) == 1 + 1000 + 3  # the step without a number has no row
    assert rows[1] == ["'=cmd()", "1", "1.1", "", "", ""]
    assert rows[-1] == ["b", "3", "", "", "", "0.4123456"]
    assert next(csv.reader(io.StringIO(as_csv({"b": METRICS}, ["eval_loss"])))) == ["run", "step", "eval_loss"]


def test_the_svg_is_a_picture_of_its_own() -> None:
    picture = as_svg(chart_named("loss"), {"one": METRICS, HOSTILE: LONG})
    tree = ElementTree.fromstring(picture)
    assert tree.tag.endswith("svg")
    assert {element.tag.split("}")[1] for element in tree.iter()} <= {
        "svg",
        "style",
        "rect",
        "text",
        "g",
        "line",
        "polyline",
        "circle",
    }
    assert HOSTILE in "".join(tree.itertext())
    assert "var(" not in picture
    with pytest.raises(BadInput):
        as_svg(chart_named("kl"), {"one": METRICS})
    with pytest.raises(BadInput):
        chart_named("../../etc/passwd")
