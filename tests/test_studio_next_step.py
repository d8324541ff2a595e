"""Home's one thing to do next, as it follows from a project's rows, and the training form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from data.errors import BadInput
from data.projects import Counts
from data.records import Run, RunKind
from studio.form import Form
from studio.next_step import ENOUGH_LABELS, Overview, next_of, steps_of
from studio.train_page import steps_of as training_steps
from training.config import METHODS, DpoConfig, SftConfig, config_class, recipe

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(kind: RunKind, status: str = "finished", minute: int = 0) -> Run:
    at = START + timedelta(minutes=minute)
    return Run(f"{kind}{minute}", "p", "", kind, kind.upper(), "m", status, "cpu", {}, "", 0, 0.0, 0, {}, {}, "", at)  # type: ignore[arg-type]


def seen(active: Run | None = None, adapter: Run | None = None, compared: bool = False, **counted: int) -> Overview:
    zero = dict.fromkeys(Counts._fields, 0)
    return Overview(Counts(**{**zero, **counted}), [], active, adapter, compared)


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
    ],
)
def test_the_next_thing_follows_from_what_is_there(overview: Overview, place: str, link: str) -> None:
    found = next_of(overview, "pairwise")
    assert (found.place, found.link) == (place, link)
    steps = steps_of(overview, found.place)
    assert len(steps) == 5
    assert [step.state for step in steps].count("now") == 1


def test_in_a_binary_project_single_answers_are_enough() -> None:
    one_each = seen(**PROMPTS, completions=50)
    assert next_of(one_each, "binary").place == "labels"
    assert next_of(one_each, "pairwise").place == "candidates"


# --- the form ---


def built() -> Form:
    import gradio as gr

    form = Form()
    with gr.Blocks():
        form.build("dpo")
    return form


@pytest.mark.parametrize("method", METHODS)
def test_what_the_form_shows_is_what_it_reads(method: str) -> None:
    form = built()
    config = recipe(method, 1_000_000_000)
    shown: list[Any] = [update.get("value") for update in form.show(config, method)]
    assert form.read(method, shown) == config


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
    with pytest.raises(BadInput, match="Beta is empty"):
        form.read("dpo", values)
    values[names.index("beta")] = -1
    with pytest.raises(BadInput, match="beta must be at least"):
        form.read("dpo", values)
    with pytest.raises(BadInput, match="no training method"):
        form.read("pickle", values)


def test_steps_are_counted_before_the_run() -> None:
    assert training_steps(SftConfig(batch_size=8, accumulation=1, epochs=3.0, max_steps=0), 20) == 9
    assert training_steps(SftConfig(batch_size=8, accumulation=2, epochs=1.0, max_steps=0), 33) == 3
    assert training_steps(SftConfig(max_steps=7), 10_000) == 7
