"""Runs side by side in tables, and answers as a model learned: only what differs, numbers with intervals, nothing as markup."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from test_studio_render import HOSTILE
from test_studio_render import Seen as Markup

from data.records import Run
from studio.run_differences import Seen, differences, ends, own_names, wins
from studio.run_samples import samples
from studio.run_verdict import Verdict

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
HEALTHY = Verdict("healthy", "Healthy", "", "")


def run(run_id: str, name: str = "", kind: Any = "dpo", status: Any = "finished", train: Any = None, **result: Any) -> Run:
    config = {"args": {"train": train or {}, "model_name": "Demo model"}, "data": {"sha256": "abc", "rows": 9}}
    place = (run_id, "p", "", kind, name or run_id, "m", status, "cpu", config, "snap1", 0, 0.0, 0)
    return Run(*place, {}, result, "", WHEN, WHEN, WHEN)


def text(drawn: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", drawn).split())


def side(*runs: Run) -> list[Seen]:
    return [Seen(one, one.name, HEALTHY, 20) for one in runs]


def test_only_what_differs_is_shown_and_the_rest_is_counted() -> None:
    one = run("a", train={"beta": 0.1, "seed": 42, "sft_weight": 1.0})
    other = run("b", train={"beta": 1.0, "seed": 42}, kind="kto")
    said = text(differences(side(one, other)))
    assert "Method DPO KTO" in said
    assert "Closeness to the start (beta) 0.1 1" in said
    assert "Weight of imitation (SFT) 1 –" in said  # a setting that the other method has not
    assert "42" not in said
    assert "Demo model" not in said
    assert text(differences(side(one, one))).startswith("All 8 settings are the same")
    assert differences(side(one)) == ""
    before = text(differences(side(run("old", train={"quantize": True}), run("new", train={"tuning": "lora"}))))
    assert "What is trained (tuning) qlora lora" in before, "what a run of before was is said in today's words"
    assert "Quantize" not in before


def test_how_runs_ended_has_an_interval_and_a_status_where_it_is_not_finished() -> None:
    metrics = {"eval_loss": 0.4, "eval_rewards/accuracies": 0.5, "eval_rewards/margins": 1.25}
    said = text(ends(side(run("a", metrics=metrics, steps=1200, seconds=90), run("b", status="stopped"))))
    assert "Healthy 0.400 50 % (30–70 %) 1.25 1,200 1 min 30 s" in said
    assert "b stopped Healthy – – – – –" in said


def test_win_rates_are_those_of_the_models_of_these_runs() -> None:
    estimate = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9, "n_prompts": 9, "se": 0.1, "note": ""}
    told = {"name_a": "base", "name_b": "a", "judge_name": "", "n_prompts": 9, "n_comparisons": 9, "n_unscored": 0}

    def comparison(model: str, status: Any = "finished", **more: Any) -> Run:
        made = run(f"c-{model}-{status}", kind="compare", status=status, **told, **more)
        made.config["args"] |= {"model_id_a": "base", "model_id_b": model}
        return made

    mine = side(run("a", model_id="m-a"), run("b"))
    found = [comparison("m-a", rule_win_rate=estimate, accuracy_gain={**estimate, "value": 0.1, "low": -0.02, "high": 0.22})]
    said = wins(mine, [*found, comparison("m-x", rule_win_rate=estimate), comparison("m-a", "failed")])
    assert text(said).endswith("a against base 70 % (60–80 %) +10 points (−2 to +22) the rules, 9 prompts")
    assert 'href="./compare?result=c-m-a-finished"' in said
    assert "None of these has been compared" in wins(mine, [])


def test_names_that_are_the_same_are_told_apart() -> None:
    assert list(own_names([run("1", "x"), run("2", "x"), run("3", "y"), run("4", "x")]).values()) == ["x", "x (2)", "y", "x (3)"]


def test_nothing_from_outside_is_markup() -> None:
    bad = run("a", HOSTILE, train={"beta": HOSTILE, HOSTILE: 1}, metrics={"eval_loss": HOSTILE}, model_id="m")
    won = run("c", kind="compare", name_a=HOSTILE, name_b=HOSTILE, judge_name=HOSTILE, n_prompts=1, n_comparisons=1, n_unscored=0)
    won.config["args"]["model_id_a"] = "m"
    answers = samples(
        [{"step": 0, "prompt": HOSTILE, "text": HOSTILE}, {"step": "x", "prompt": 3}, {"step": 9, "prompt": "p", "text": ""}]
    )
    for drawn in (differences(side(bad, run("b"))), ends(side(bad)), wins(side(bad), [won]), answers):
        seen = Markup(drawn)
        assert seen.handlers == []
        assert not seen.tags & {"img", "script", "svg", "style"}


def test_answers_are_shown_before_and_now_with_the_moments_between_folded() -> None:
    told = [
        {"step": s, "prompt": "Say hi", "text": t, "split": "held_out"} for s, t in ((0, "no"), (5, "hm"), (9, "hi"), (5, "ha"))
    ]
    said = text(samples(told))
    assert said.endswith("Say hi Before no After step 9 hi 1 in between After step 5 ha")  # a step that was taken again counts once
    assert "does not learn from" in said
    assert "none were held out" in samples([{**told[0], "split": "train"}])
    assert samples([]) == ""
