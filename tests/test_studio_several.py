"""Several settings at once: what was typed becomes runs that differ in nothing else, and running again is one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import gradio as gr
import pytest
from run_studio import VIEWER, ended, freeze, labelled_project, studio_with_runs, train, wait

from data import runs
from data.database import Database
from data.errors import BadInput, LimitReached
from data.records import Project, Run, now
from data.settings import Settings
from studio import several
from studio.again_page import AgainPage
from studio.context import Studio
from studio.several import Setting, combinations, seconds_of, settings_of
from studio.several_panel import SeveralPanel
from studio.train_page import TrainPage
from training.config import METHODS, DpoConfig, config_class

pytestmark = pytest.mark.app


def made(*typed: tuple[str, str], method: str = "dpo") -> list[dict[str, Any]]:
    return combinations(method, config_class(method)(), [Setting(*each) for each in typed])


# --- from words to settings ---


def test_every_combination_is_one_run() -> None:
    assert made(("beta", "0.1, 0.5"), ("loss", "sigmoid,ipo")) == [
        {"beta": 0.1, "loss": "sigmoid"},
        {"beta": 0.1, "loss": "ipo"},
        {"beta": 0.5, "loss": "sigmoid"},
        {"beta": 0.5, "loss": "ipo"},
    ]
    assert made() == made(("beta", " "), ("", "1")) == [{}], "nothing typed is one run as it was"
    assert made(("beta", "1, 1.0,1")) == [{"beta": 1.0}]
    assert made(("seed", "1, 2")) == [{"seed": 1}, {"seed": 2}]
    assert made(("checkpointing", "on, off")) == [{"checkpointing": True}, {"checkpointing": False}]
    assert made(("learning_rate", "1e-3")) == [{"learning_rate": 1e-3}]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ([("beta", "0.1, x")], r"'x' is no value for Closeness to the start \(beta\): give a number"),
        ([("seed", "1.5")], "'1.5' is no value for Seed: give a whole number"),
        ([("checkpointing", "maybe")], "give on or off"),
        ([("beta", "0.1, 50")], r"Closeness to the start \(beta\) must be at most 10"),
        ([("loss", "sigmoid, nonsense")], "Form of the loss must be one of"),
        ([("margin", "1")], "DPO has no setting 'margin'"),
        ([("beta", "0.1"), ("beta", "0.2")], "chosen twice"),
        ([("beta", "0.1,0.2,0.3,0.4,0.5"), ("seed", "1,2,3,4,5")], "make 25 runs, and at most 24"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(typed: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        made(*typed)


def test_millions_of_combinations_are_counted_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several.itertools, "product", lambda *_: pytest.fail("made"))
    seeds = ",".join(str(n) for n in range(1000))
    with pytest.raises(BadInput, match="make 1,000,000,000 runs"):
        made(("seed", seeds), ("max_steps", seeds), ("log_every", seeds))


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_settings_can_be_chosen_by_name(method: str) -> None:
    names = [name for _, name in settings_of(method)]
    assert len(set(names)) == len(names)
    assert {"learning_rate", "epochs"} <= set(names)
    assert not {"log_every", "backend"} & set(names)
    updates = SeveralPanel("x").offer(method, ["learning_rate", "no such", None])
    assert updates[0].value == "learning_rate"
    assert {update.value for update in updates} <= set(names)


# --- how long ---


def run(kind: str = "dpo", base: str = "b", seconds: float = 20.0, steps: int = 10, status: str = "finished") -> Run:
    config = {"args": {"model": {"base": base}, "train": {"batch_size": 4, "accumulation": 1}}}
    begun = now()
    made = Run("r", "p", "", kind, "n", "m", status, "", config, "", 0, 0.0, 0, {}, {"steps": steps, "seconds": seconds}, "", begun)  # type: ignore[arg-type]
    return replace(made, started_at=begun, ended_at=begun + timedelta(seconds=seconds + 5))


def test_the_time_is_that_of_earlier_runs_of_its_kind() -> None:
    config = DpoConfig(batch_size=8)
    assert seconds_of([run()], "dpo", "b", config, steps=30, n_runs=3) == pytest.approx(0.5 * 30 * 8 + 3 * 5)
    for other in (run(kind="sft"), run(base="c"), run(status="failed"), run(steps=0)):
        assert seconds_of([other], "dpo", "b", config, 30, 3) is None


# --- as runs ---


@pytest.fixture
def studio(settings: Settings, db: Database) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        yield opened


@pytest.fixture
def project(studio: Studio) -> Project:
    return labelled_project(studio)


@pytest.fixture
def first(studio: Studio, project: Project) -> Run:
    return wait(studio.db, train(studio, freeze(studio, project), {"beta": 0.5}).run_id, ended)


class Request:
    def __init__(self, **query: str) -> None:
        self.query_params, self.cookies = query, {}


@pytest.fixture
def page(studio: Studio) -> AgainPage:
    made = AgainPage(studio)
    with gr.Blocks() as demo:
        made.build(demo)
    return made


def test_a_group_shares_everything_but_the_settings_and_stops_together(studio: Studio, first: Run) -> None:
    sets = [{"beta": beta, "learning_rate": rate} for beta in (0.1, 1.0) for rate in (1e-3, 1e-4)]
    begun = several.start(studio, VIEWER, "dpo", sets, first)
    group = runs.of_group(studio.db, begun.group_id)
    assert [each.config["changes"] for each in group] == [
        {"beta": 0.1},
        {"beta": 0.1, "learning_rate": 1e-4},
        {"beta": 1.0},
        {"beta": 1.0, "learning_rate": 1e-4},
    ], "what is as in the first run is no change"
    assert len({(each.snapshot_id, each.config["data"]["sha256"]) for each in [*group, first]}) == 1
    assert group[1].name == "DPO · beta 0.1, learning rate 0.0001"
    studio.jobs.stop_group(begun.group_id)
    done = [wait(studio.db, each.run_id, ended) for each in group]
    assert {each.status for each in done} <= {"stopped", "finished"}
    assert done[-1].status == "stopped"
    assert runs.get(studio.db, first.run_id).status == "finished"


def test_a_grid_that_breaks_off_leaves_nothing_in_the_queue(studio: Studio, first: Run) -> None:
    with pytest.raises(BadInput):
        several.start(studio, VIEWER, "dpo", [{"beta": 0.1}, {"beta": -1.0}], first)
    left = [each for each in runs.of_project(studio.db, first.project_id) if each.run_id != first.run_id]
    assert {wait(studio.db, each.run_id, ended).status for each in left} <= {"stopped", "finished"}
    assert not runs.active(studio.db)


def test_a_visitor_tries_one_thing_at_a_time(studio: Studio, first: Run) -> None:
    with pytest.raises(LimitReached, match="one run at a time"):
        several.start(studio, VIEWER._replace(is_visitor=True), "dpo", [{"beta": 0.1}, {"beta": 0.2}], first)


def test_the_page_runs_it_again_as_it_was_or_with_a_change(studio: Studio, page: AgainPage, first: Run) -> None:
    shown = page.load(Request(run=first.run_id))  # type: ignore[arg-type]
    assert shown[1] == first.run_id
    assert "beta 0.5" in shown[2]
    assert shown[-1].value == "Run it again as it was"
    nothing = ["beta", "learning_rate", "loss", "", "", ""]
    where = page.start(Request(), first.run_id, *nothing)  # type: ignore[arg-type]
    again = runs.get(studio.db, where.split("run=")[1])
    assert (again.config["changes"], again.group_id) == ({}, "")
    told, button = page.say(Request(), first.run_id, "beta", "seed", None, "0.1, 0.2", "1,2", "")  # type: ignore[arg-type]
    assert "4 runs of" in told
    assert button.value == "Start 4 runs"
    told, button = page.say(Request(), first.run_id, "beta", None, None, "x", "", "")  # type: ignore[arg-type]
    assert "no value for Closeness to the start (beta)" in told
    assert not button.interactive
    where = page.start(Request(), first.run_id, "beta", None, None, "0.1", "", "")  # type: ignore[arg-type]
    assert runs.get(studio.db, where.split("run=")[1]).config["changes"] == {"beta": 0.1}


def test_the_page_without_a_run_says_where_to_find_one(page: AgainPage, first: Run) -> None:
    shown = page.load(Request())  # type: ignore[arg-type]
    assert "Choose a training run first" in shown[2]
    assert not shown[-1].interactive


def test_the_train_page_queues_every_combination_over_one_snapshot(studio: Studio, project: Project) -> None:
    page = TrainPage(studio)
    with gr.Blocks() as demo:
        page.build(demo)
    which = [each.value for each in page.which.components]
    held = [*which, [], *(each.value for each in page.form.components)]  # [] leaves no rows out
    split = ["dpo", "demo-model", *held]
    told, label = page.plan(Request(), *split, "beta", "seed", None, "0.5, 1", "1, 2", "")  # type: ignore[arg-type]
    assert "4 runs of" in told
    assert label == "Start 4 runs"
    with pytest.raises(BadInput, match="two values or more"):
        page.start_several(Request(), *split, "beta", "seed", None, "0.5", "", "")  # type: ignore[arg-type]
    assert runs.of_project(studio.db, project.project_id) == []
    where = page.start_several(Request(), *split, "beta", "seed", None, "0.5, 1", "1, 2", "")  # type: ignore[arg-type]
    first = runs.get(studio.db, where.split("run=")[1])
    group = runs.of_group(studio.db, first.group_id)
    studio.jobs.stop_group(first.group_id)
    trained = [(each.config["args"]["train"]["beta"], each.config["args"]["train"]["seed"]) for each in group]
    assert trained == [(0.5, 1), (0.5, 2), (1.0, 1), (1.0, 2)]
    assert {each.snapshot_id for each in group} == {first.snapshot_id} != {""}
    assert {each.module for each in group} == {"training.dpo"}
