"""Verdicts on training runs: real runs of the demo model whose end is known, and made-up ones for what it does not do."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_studio_render import HOSTILE, Seen
from watch_seed import HISTORIES, recorded

from data.records import Snapshot, now, to_row
from studio.run_history import History
from studio.run_verdict import Kind, Verdict, at_worst, interval, shown, verdict
from studio.run_watch import held_out_rows

GOLDEN: dict[str, Kind] = {
    "dpo_collapsed": "collapsed",  # beta 0.1: 57 points lost
    "dpo_good": "healthy",  # the recipe: 13 gained
    "dpo_beta1": "healthy",  # without imitation: 10 gained
    "dpo_no_change": "no change",  # a step size of 1e-6
    "dpo_overfit": "overfit",  # 20 pairs, 40 epochs: 14 points lost
    "sft_good": "healthy",  # the recipe: 18 gained
    "sft_overfit": "overfit",  # 12 epochs at a step size of 4e-3: 8 gained where the recipe gains 18
    "kto_good": "healthy",  # the recipe: 20 gained
    "kto_low_beta": "drifted",  # beta 0.1: 5 gained, which may be none (-3 to + 12)
    "orpo_good": "healthy",  # the recipe: 21 gained
}


def history(name: str, steps: int = 0) -> History:
    told = recorded(name)
    metrics = [event for event in told.metrics if not steps or event["step"] <= steps]
    return History(told.method, metrics, told.settings, told.held_out, ended=not steps)


def made(
    method: str = "dpo", held_out: int = 100, ended: bool = True, settings: dict[str, Any] | None = None, **series: Any
) -> History:
    """A history of these figures, one a step."""
    steps = max(len(values) for values in series.values())
    names = {key.replace("__", "/"): values for key, values in series.items()}
    metrics = [{"step": i + 1, **{key: values[i] for key, values in names.items() if i < len(values)}} for i in range(steps)]
    return History(method, metrics, {"learning_rate": 1e-3, "beta": 0.1, **(settings or {})}, held_out, ended)


def judged(h: History) -> Verdict:
    found = verdict(h)
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(file.stem for file in HISTORIES.glob("*.json")))
def test_real_runs_are_judged_as_they_turned_out(name: str) -> None:
    assert judged(history(name)).kind == GOLDEN[name]


def test_a_model_that_learns_from_its_own_answers_is_told_by_its_reward() -> None:
    """Its loss is about 0 whatever it learns, and a few steps say nothing."""
    rising = [0.1 + 0.02 * i + 0.01 * (i % 2) for i in range(24)]
    found = judged(made("rloo", reward=rising, loss=[1e-9] * 24, eval_loss=[0.0] * 24, eval_reward=[0.0, 0.37]))
    assert found.kind == "healthy"
    assert found.why == "The reward on held-out prompts went from 0.00 to 0.37."
    short = judged(made("rloo", reward=[-0.05, -0.13, -0.26, 0.2], eval_loss=[0.0], eval_reward=[-0.02]))
    assert (short.kind, short.title) == ("no change", "Cannot be told yet")
    assert "After 4 steps nothing can be told" in short.why


def test_a_reward_model_is_not_sent_to_a_comparison_that_it_cannot_have() -> None:
    found = judged(made("reward", eval_accuracy=[0.5, 0.9], loss=[0.69, 0.3], eval_loss=[0.69, 0.4]))
    assert (found.kind, found.do) == ("healthy", "Let it grade a training (RLOO).")


def test_with_early_stopping_the_adapter_that_is_kept_is_judged() -> None:
    """Rows learned by heart after the best step are not in the adapter that is saved; a loss that is no number ends the run."""
    overfit = history("dpo_overfit")
    stops = {**overfit.settings, "early_stop": 3}
    kept = judged(replace(overfit, settings=stops))
    assert kept.kind != "overfit"
    best = min(m["eval_loss"] for m in overfit.metrics if "eval_loss" in m)
    assert f"{best:.3f}" in kept.why or kept.kind == "no change"
    assert judged(replace(overfit, settings=stops, ended=False)).kind == "overfit", "it is told while it goes on"
    broken = [*overfit.metrics, {"step": 10_000, "loss": None}]
    assert judged(replace(overfit, settings=stops, metrics=broken)).kind == "diverged"


def test_the_collapse_is_told_while_it_goes_on_with_what_to_do() -> None:
    """A gain in the held-out accuracy and a falling held-out loss must not hide it."""
    said = [judged(history("dpo_collapsed", steps)).kind for steps in (5, 24, 72, 96)]
    assert said == ["too early", "healthy", "collapsed", "collapsed"]
    found = judged(history("dpo_collapsed"))
    assert "from −1.6 to −14.1" in found.why
    assert "raise beta (now 0.1)" in found.do
    assert "sft_weight, now 0" in found.do


def test_twenty_held_out_pairs_know_an_accuracy_to_22_points() -> None:
    assert round(at_worst(20)) == 22
    low, high = interval(0.5, 20)
    assert (round(low, 3), round(high, 3)) == (0.299, 0.701)  # Wilson's, as R's prop.test gives it without correction
    found = judged(history("dpo_no_change"))
    assert "20 held-out pairs" in found.why
    assert "± 22 points" in found.why


@pytest.mark.parametrize(("accuracy", "held_out", "kind"), [(0.6, 20, "no change"), (0.6, 200, "healthy"), (0.2, 100, "worse")])
def test_what_an_accuracy_is_worth_depends_on_how_many_rows_gave_it(accuracy: float, held_out: int, kind: str) -> None:
    series = {"loss": [0.69, 0.5, 0.4], "eval_loss": [0.6, 0.55, 0.5], "eval_rewards__accuracies": [0.5, 0.5, accuracy]}
    assert judged(made(held_out=held_out, eval_rewards__margins=[0.1] * 3, **series)).kind == kind


@pytest.mark.parametrize("held_out", [0, 4])
def test_too_few_held_out_pairs_say_so_and_what_to_do(held_out: int) -> None:
    """As after a first training: no certainty, and the way on."""
    tested: dict[str, Any] = {"eval_loss": [0.7, 0.69], "eval_rewards__accuracies": [0.5, 0.75]} if held_out else {}
    found = judged(made(held_out=held_out, loss=[0.69, 0.3], **tested))
    assert (found.title, found.tone) == ("Cannot be told yet", "warn")
    assert ("Of 4 held-out pairs it prefers the good answer in 75 %" if held_out else "No rows were held out") in found.why
    assert found.do.startswith("Compare it with the model before")
    assert f"label about {5 * (50 - held_out)} more" in found.do
    assert "step size" not in found.do
    rising = judged(made("sft", held_out=4, loss=[2.0, 1.0, 0.5, 0.2, 0.1], eval_loss=[1.5, 1.2, 1.3, 1.5]))
    assert "Only 4 held-out rows say so" in rising.why


@pytest.mark.parametrize(("held_out", "words"), [(1, "1 row is too few to tell"), (2, "2 rows are too few to tell")])
def test_one_row_is_too_few_and_two_rows_are(held_out: int, words: str) -> None:
    still = judged(made("sft", held_out=held_out, loss=[1.0, 1.0, 1.0], eval_loss=[1.0, 1.0]))
    assert words in still.why
    rising = judged(made("sft", held_out=held_out, loss=[2.0, 1.0, 0.5, 0.2, 0.1], eval_loss=[1.5, 1.2, 1.3, 1.5]))
    assert f"Only {'1 held-out row says' if held_out == 1 else '2 held-out rows say'} so" in rising.why


def test_a_model_that_did_not_move_is_no_worse_for_its_ties() -> None:
    still = made(eval_rewards__accuracies=[0.0, 0.0], eval_rewards__margins=[0.0, 0.0], eval_loss=[0.69, 0.69], loss=[0.69, 0.69])
    assert judged(still).kind == "no change"


@pytest.mark.parametrize("broken", [None, math.nan, math.inf])
def test_a_loss_that_is_no_number_comes_before_everything_else(broken: float | None) -> None:
    found = judged(made(loss=[0.69, 0.5, broken]))
    assert (found.kind, found.tone) == ("diverged", "bad")
    assert "step 3" in found.why
    assert "0.001" in found.do


def test_a_first_loss_that_is_not_ln_2_is_a_wrong_start() -> None:
    assert judged(made(loss=[0.55], rewards__margins=[0.4])).kind == "wrong start"
    assert judged(made(loss=[0.55], rewards__margins=[0.0])).kind == "wrong start"
    assert judged(made(loss=[1.4], rewards__margins=[0.0], settings={"sft_weight": 1.0})).kind != "wrong start"
    assert judged(made(loss=[1.0], rewards__margins=[0.0], settings={"loss": "hinge"})).kind != "wrong start"


def test_a_held_out_loss_that_rises_from_its_best_is_overfit() -> None:
    rising = made("sft", loss=[2.0, 1.0, 0.5, 0.2, 0.1], eval_loss=[1.5, 1.2, 1.3, 1.5])
    found = judged(rising)
    assert found.kind == "overfit"
    assert "best at step 2 (1.200)" in found.why
    assert judged(made("sft", loss=[2.0, 1.0, 0.5], eval_loss=[1.5, 1.2, 1.21])).kind == "healthy"  # a twentieth is noise


def test_a_fall_of_the_good_answers_within_what_published_runs_show_is_no_collapse() -> None:
    usual = {
        "eval_logps__chosen": [-280.0, -380.0],
        "eval_rewards__chosen": [0.0, -1.0],
        "eval_loss": [0.6, 0.5],
        "loss": [0.69, 0.5],
    }
    zephyr = made(settings={"beta": 0.01}, eval_rewards__accuracies=[0.7, 0.74], held_out=2000, **usual)
    assert judged(zephyr).kind == "healthy"
    doubled = made(settings={"beta": 0.01}, eval_logps__chosen=[-280.0, -600.0], eval_rewards__chosen=[0.0, -3.2], loss=[0.69, 0.4])
    assert judged(doubled).kind == "collapsed"


def test_imitation_that_learns_nothing_is_told() -> None:
    assert judged(made("sft", loss=[1.5, 1.5, 1.5], eval_loss=[1.5, 1.49])).kind == "no change"
    assert judged(made("sft", held_out=0, loss=[1.5, 1.0, 0.5])).title == "Cannot be told yet"


@pytest.mark.parametrize(
    ("series", "title"),
    [
        ({"kl": [0.0, 0.5, 3.0]}, "Drifted far from its start"),
        ({"completions__mean_length": [20.0, 25.0, 90.0]}, "Answers explode in length"),
        ({"completions__clipped_ratio": [0.0, 0.1, 0.9]}, "Answers no longer end"),
        ({"reward_std": [0.0, 0.0, 0.0], "reward": [1.0] * 10}, "Nothing to learn from"),
        ({"reward": [0.1, 0.5, 0.2, 0.4, 0.3, 0.3, 0.4, 0.2, 0.5, 0.1]}, "No detectable change"),
        ({"reward": [0.1, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.81]}, "Healthy"),
    ],
)
def test_a_policy_that_games_its_reward_is_told(series: dict[str, list[float]], title: str) -> None:
    assert judged(made("grpo", loss=[0.0, 0.0, 0.0], **series)).title == title


def test_nothing_is_said_of_nothing_and_what_is_said_is_no_markup() -> None:
    assert verdict(History("dpo", [], {})) is None
    assert shown(None, True) == ""
    drawn = shown(replace(judged(history("dpo_good")), title=HOSTILE, why=HOSTILE, do=HOSTILE), True)
    assert Seen(drawn).handlers == []
    assert "so far" not in shown(judged(history("dpo_good")), True)
    assert "Healthy so far." in shown(judged(history("dpo_good", 48)), False)


def test_held_out_rows_are_known_from_what_was_frozen_until_the_run_says_them(db: Any) -> None:
    frozen = Snapshot("s1", "p", "preference", "s.parquet", "0", 100, {"rows": {"train": 80, "held_out": 20}}, now())
    db.insert("snapshots", [to_row(frozen)])
    studio: Any = SimpleNamespace(db=db)
    for snapshot, result, rows in (("s1", {}, 20), ("s1", {"held_out_rows": 17}, 17), ("gone", {}, 0), ("", {}, 0)):
        run: Any = SimpleNamespace(snapshot_id=snapshot, result=result)
        assert held_out_rows(studio, run) == rows
