"""Runs that were started together: what differs, which is best, and what may not be said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from data.records import Run, now
from studio.run_groups import ACCURACY, LOSS, best_of, group_table, varied


def run(run_id: str, settings: dict[str, Any], status: str = "finished", **figures: float) -> Run:
    config = {"args": {"train": {"beta": 0.1, "learning_rate": 1e-3, "epochs": 3.0, **settings}}}
    metrics = {{"accuracy": ACCURACY, "loss": LOSS}[name]: value for name, value in figures.items()}
    return Run(
        run_id, "p", "", "dpo", f"Run {run_id}", "m", status, "", config, "", 0, 0.0, 0, {}, {"metrics": metrics}, "", now(),
        group_id="g",
    )  # type: ignore[arg-type]  # fmt: skip


def test_what_differs_is_named_once_in_the_forms_order() -> None:
    group = [run("a", {"epochs": 1.0}), run("b", {"beta": 0.5})]
    assert varied(group) == ["beta", "epochs"]
    assert varied(group[:1]) == []
    assert varied([]) == []


def test_the_best_has_the_highest_held_out_accuracy_whatever_its_loss() -> None:
    group = [run("a", {"beta": 0.1}, accuracy=0.9, loss=0.6), run("b", {"beta": 1.0}, accuracy=0.7, loss=0.2)]
    assert best_of(group, 200).run_id == "a"
    table = group_table(group, 200, "b")
    assert table.index(">best<") < table.index("runs?run=b")
    assert "cannot be held against each other" in table


@pytest.mark.parametrize(("held_out", "chance"), [(20, True), (2000, False)])
def test_a_lead_that_chance_could_make_is_said_to_be_one(held_out: int, chance: bool) -> None:
    found = best_of([run("a", {"beta": 0.1}, accuracy=0.80), run("b", {"beta": 1.0}, accuracy=0.72)], held_out)
    assert found.run_id == "a"
    assert ("may be chance" in found.why) == chance


def test_twenty_pairs_know_an_accuracy_to_22_points() -> None:
    found = best_of([run("a", {}, accuracy=0.5), run("b", {"beta": 1.0}, accuracy=0.4)], 20)
    assert "± 22 points" in found.why


def test_losses_decide_only_where_they_mean_the_same() -> None:
    same = [run("a", {"learning_rate": 1e-3}, loss=0.5), run("b", {"learning_rate": 1e-4}, loss=0.4)]
    assert best_of(same, 20).run_id == "b"
    assert "cannot be held" not in group_table(same, 20, "a")
    assert best_of([replace(each, kind="rloo") for each in same], 20).run_id == "", "its loss measures nothing"
    other = [run("a", {"beta": 0.1}, loss=0.5), run("b", {"beta": 1.0}, loss=0.4)]
    assert best_of(other, 20).run_id == ""


def test_what_has_not_finished_is_neither_best_nor_second() -> None:
    group = [run("a", {}, accuracy=0.6), run("b", {"beta": 1.0}, "stopped", accuracy=0.9), run("c", {"beta": 2.0}, "queued")]
    assert best_of(group, 50).run_id == ""
    shown = group_table(group, 50, "a")
    assert shown.count("–") == 4
    assert ">queued<" in shown
