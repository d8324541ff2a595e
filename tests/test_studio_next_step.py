"""Home's one thing to do next, as it follows from a project's rows, and the training form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from labelling import prompt, seed_project

from data import completions, projects, prompts, runs
from data.database import Database
from data.engine import Message
from data.errors import BadInput
from data.projects import Counts
from data.records import Run, RunKind, now
from data.settings import Settings
from studio.form import Form
from studio.next_step import ENOUGH_LABELS, Overview, may_be_all_labelled, next_of, overview, steps_of
from training.config import METHODS, DpoConfig, SftConfig, TrainConfig, config_class
from training.config import steps_of as training_steps
from training.defaults import recipe

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(kind: RunKind, status: str = "finished", minute: int = 0) -> Run:
    at = START + timedelta(minutes=minute)
    return Run(f"{kind}{minute}", "p", "", kind, kind.upper(), "m", status, "cpu", {}, "", 0, 0.0, 0, {}, {}, "", at)  # type: ignore[arg-type]


def seen(active: Run | None = None, adapter: Run | None = None, compared: bool = False, **counted: int) -> Overview:
    zero, waiting = dict.fromkeys(Counts._fields, 0), counted.pop("waiting", 0)
    return Overview(Counts(**{**zero, **counted}), [], active, adapter, compared, waiting)


PROMPTS = {"prompts": 50, "held_out": 10}
PAIRS = {**PROMPTS, "completions": 80, "pairs": 120}


@pytest.mark.parametrize(
    ("overview", "place", "link"),
    [
        (seen(), "prompts", "data?tab=import"),
        (seen(**PROMPTS), "candidates", "data?tab=generate"),
        (seen(run("generate", "running"), **PROMPTS), "candidates", "runs?run=generate0"),
        (seen(**PAIRS), "labels", "label"),
        (seen(**PAIRS, labels=5, decided=4), "labels", "label"),
        (seen(**PAIRS, labels=30, decided=ENOUGH_LABELS), "train", "train"),
        (seen(run("dpo", "queued"), **PAIRS, labels=30, decided=30), "train", "runs?run=dpo0"),
        (seen(None, run("dpo"), **PAIRS, labels=30, decided=30, adapters=1), "compare", "compare?run=dpo0"),
        (seen(None, run("dpo"), True, **PAIRS, labels=30, decided=30, adapters=1), "candidates", "data?tab=generate&run=dpo0"),
        (seen(**PAIRS, waiting=7), "candidates", "data?tab=generate&for=new"),
        (
            seen(None, run("dpo"), True, **PAIRS, labels=30, decided=30, adapters=1, waiting=7),
            "candidates",
            "data?tab=generate&for=new&run=dpo0",
        ),
    ],
)
def test_the_next_thing_follows_from_what_is_there(overview: Overview, place: str, link: str) -> None:
    found = next_of(overview, "pairwise")
    assert (found.place, found.link) == (place, link)
    steps = steps_of(overview, found.place)
    assert len(steps) == 5
    assert [step.state for step in steps].count("now") == 1


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({}, ("0", "nothing trained yet", "later")),
        ({"adapters": 1}, ("1", "trained model", "done")),
        ({"adapters": 2, "reward_models": 1, "merged": 1}, ("2", "trained models, 1 reward model, 1 merged", "done")),
        ({"reward_models": 2}, ("0", "none that answers yet, 2 reward models", "later")),
    ],
)
def test_reward_models_and_merged_ones_are_counted_for_what_they_are(made: dict[str, int], says: tuple[str, str, str]) -> None:
    step = steps_of(seen(**PAIRS, **made), "labels")[3]
    assert (step.number, step.what, step.state) == says


def test_nobody_is_sent_to_label_where_nothing_is_open() -> None:
    few = seen(**PAIRS, labels=120, decided=12)._replace(all_labelled=True)
    assert (next_of(few, "pairwise").link, next_of(few, "pairwise").others) == ("data?tab=generate", (("Train now", "train"),))
    for more in (
        seen(**PAIRS, labels=120, decided=110),
        seen(None, run("dpo"), True, **PAIRS, labels=120, decided=110, adapters=1),
        seen(run("dpo", "running"), **PAIRS, labels=120, decided=110),
    ):
        assert "label" in [link for _, link in next_of(more, "pairwise").others]
        assert "label" not in [link for _, link in next_of(more._replace(all_labelled=True), "pairwise").others]
    assert may_be_all_labelled(few.counts, "pairwise")
    assert not may_be_all_labelled(seen(**PAIRS, labels=119, decided=12).counts, "pairwise")
    assert not may_be_all_labelled(seen(**PROMPTS).counts, "pairwise")


def test_in_a_binary_project_single_answers_are_enough() -> None:
    one_each = seen(**PROMPTS, completions=50)
    assert next_of(one_each, "binary").place == "labels"
    assert next_of(one_each, "pairwise").place == "candidates"


def test_what_would_be_next_stands_beside_new_prompts() -> None:
    found = next_of(seen(None, run("dpo"), **PAIRS, labels=30, decided=30, adapters=1, waiting=1), "pairwise")
    assert found.title == "1 new prompt without an answer"
    assert found.others == (("Compare before and after", "compare?run=dpo0"),)


def test_the_time_of_a_training_is_told_of_the_demo_only() -> None:
    real = seen(**PAIRS, labels=30, decided=30)
    assert "minute" not in next_of(real, "pairwise").text
    assert "about a minute" in next_of(real._replace(is_demo=True), "pairwise").text


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(Settings(home=tmp_path / "home"))
    yield db
    db.close()


def test_home_sees_what_was_imported_after_the_last_answers(db: Database) -> None:
    project = seed_project(db, n_prompts=4)
    assert overview(db, project).waiting == 0
    prompts.add(db, [prompt(project, f"new {n}") for n in range(3)])
    assert overview(db, project).waiting == 3
    runs.add(db, replace(run("generate"), project_id=project.project_id, queued_at=now()))
    assert overview(db, project).waiting == 0, "who generated afterwards has chosen to leave them"
    prompts.add(db, [prompt(project, "newer")])
    assert overview(db, project).waiting == 1


@pytest.mark.parametrize(
    ("sides", "low", "high", "lost"),
    [(("base", "new"), 0.24, 0.47, True), (("base", "new"), 0.44, 0.56, False), (("new", "base"), 0.53, 0.76, True),
     (("new", "base"), 0.24, 0.47, False), (("x", "y"), 0.1, 0.2, False)],
)  # fmt: skip
def test_a_model_that_lost_is_not_gone_round_with(
    db: Database, sides: tuple[str, str], low: float, high: float, lost: bool
) -> None:
    project = seed_project(db, 2)
    p = project.project_id
    estimate = {"value": (low + high) / 2, "low": low, "high": high, "n": 30}
    counts = {"n_prompts": 30, "n_comparisons": 30, "n_unscored": 0}
    result = {"name_a": "a", "name_b": "b", "judge_name": "j", "win_rate": estimate, **counts}
    args = {"model_id_a": sides[0], "model_id_b": sides[1]}
    runs.add(db, replace(run("dpo"), project_id=p, result={"model_id": "new"}))
    runs.add(db, replace(run("compare", minute=1), project_id=p, result=result, config={"args": args}))
    found = overview(db, projects.get(db, p))
    assert (found.compared, found.lost) == ("new" in sides, lost), "one of other models says nothing of the newest"
    assert (next_of(found, "pairwise").title == "It got worse") == lost


def test_what_a_judge_compared_is_no_candidate(db: Database) -> None:
    project = seed_project(db, n_prompts=4)
    prompts.add(db, [prompt(project, "only compared")])
    asked = next(p for p in prompts.of_project(db, project.project_id) if p.text == "only compared")
    runs.add(db, replace(run("compare"), project_id=project.project_id))
    completions.add(db, [completions.new(asked, "judged", "generated", "m", run_id="compare0")], to_label=False)
    assert overview(db, project).counts.completions == 8
    assert [p.text for p in prompts.unanswered(db, project.project_id)] == ["only compared"]


def test_the_newest_import_is_answered_first_and_in_its_own_order(db: Database) -> None:
    project = projects.create(db, "Two imports")
    for source, texts in (("old.jsonl", "ab"), ("new.jsonl", "cd")):
        for text in texts:
            prompts.add(db, [prompts.new(project.project_id, [Message("user", text)], source=source)])
    assert [p.text for p in prompts.unanswered(db, project.project_id, 3)] == ["c", "d", "a"]


# --- the form ---


def built() -> Form:
    import gradio as gr

    form = Form()
    with gr.Blocks():
        form.build_open("dpo")
        form.build_closed("dpo")
    return form


@pytest.mark.parametrize("method", METHODS)
def test_what_the_form_shows_is_what_it_reads(method: str) -> None:
    form = built()
    config = recipe(method, 1_000_000_000)
    shown: list[Any] = [update.get("value") for update in form.show(config, method)]
    assert form.read(method, shown) == config


def filled(form: Form, config: TrainConfig, method: str, edits: dict[str, Any]) -> list[Any]:
    return [update.get("value") for update in form.show(config, method, edits)]


def test_what_a_person_changed_outlives_another_method_and_another_model() -> None:
    form = built()
    few = recipe("dpo", 1_000_000, 20)
    values = filled(form, few, "dpo", {})
    assert form.read("dpo", values).epochs == 10, "few labels are gone over more often"
    assert form.edits(form.proposal(few, {}), values) == {}
    names = [knob.name for knob in form._knobs]
    values[names.index("epochs")] = 6
    edits = form.edits(form.proposal(few, {}), values)
    assert edits == {"epochs": 6}
    other = replace(recipe("kto", 1_000_000_000, 40), epochs=6.0)  # by chance what the person wants
    values = filled(form, other, "kto", edits)
    edits = form.edits(form.proposal(other, edits), values)
    assert form.read("kto", values).learning_rate == other.learning_rate
    assert form.read("dpo", filled(form, few, "dpo", edits)).epochs == 6


@pytest.mark.parametrize("method", METHODS)
def test_every_knob_is_on_the_form_and_the_others_methods_are_hidden(method: str) -> None:
    form = built()
    config = config_class(method)()
    visible = [update["visible"] for update in form.show(config, method)]
    assert sum(visible) == len(config.to_json())


def test_a_bad_value_is_told_by_its_name() -> None:
    form = built()
    values: list[Any] = [update.get("value") for update in form.show(DpoConfig(), "dpo")]
    names = [knob.name for knob in form._knobs]
    values[names.index("beta")] = None
    with pytest.raises(BadInput, match=r"\(beta\) is empty"):
        form.read("dpo", values)
    values[names.index("beta")] = -1
    with pytest.raises(BadInput, match=r"Closeness to the start \(beta\) must be at least 0.001, not -1."):
        form.read("dpo", values)
    with pytest.raises(BadInput, match="no training method"):
        form.read("pickle", values)


def test_steps_are_counted_before_the_run() -> None:
    assert training_steps(SftConfig(batch_size=8, accumulation=1, epochs=3.0, max_steps=0), 20) == 9
    assert training_steps(SftConfig(batch_size=8, accumulation=2, epochs=1.0, max_steps=0), 33) == 3
    assert training_steps(SftConfig(max_steps=7), 10_000) == 7
