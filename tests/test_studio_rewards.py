"""What grades a run's answers: offered where it fits, resolved where every run starts, shown where models are listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pyarrow.parquet as pq
import pytest

from data import models, projects, prompts, runs
from data.checkers import CHECKERS
from data.engine import Message, ModelSpec
from data.errors import BadInput, LimitReached
from data.records import Model, Project, Run, now
from data.settings import Settings
from labeling import snapshots
from studio import ingest
from studio.choices import before_after, judges, options, reward_models, rewards, writers
from studio.context import Studio, Viewer, open_studio
from studio.form import Form
from studio.models_page import ModelsPage
from studio.rewards import own_tokens
from studio.run_report import held_out_right, training
from studio.train_page import TrainPage
from studio.visitors import MAX_OWN_TOKENS, RunSize
from training.config import DpoConfig, RlooConfig, run_args, sampled_tokens, steps_of
from training.defaults import recipe
from training.methods import METHOD_FACTS

pytestmark = pytest.mark.app

LOCAL = ModelSpec("local", base="nowhere")


class Request:
    """As much of a request as handlers use."""

    cookies: dict[str, str] = {}
    query_params: dict[str, str] = {}
    headers: dict[str, str] = {}


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with open_studio(Settings(home=tmp_path / "workspace")) as opened:
        yield opened


@pytest.fixture
def viewer(studio: Studio) -> Viewer:
    return studio.viewer(Request())  # type: ignore[arg-type]


def reward_model(studio: Studio, project: Project, name: str = "What people like") -> Model:
    spec = ModelSpec("local", base="nowhere", adapter="nowhere/adapter")
    return models.add(studio.db, models.new(name, "reward", spec.to_json(), project.project_id))


def ended(kind: str, result: dict[str, Any], **fields: Any) -> Run:
    """A run's row as it is after the run."""
    row = Run("r1", "p", "", kind, kind, f"training.{kind}", "finished", "cpu", {}, "", 0, 0.0, 0, {}, result, "", now())  # type: ignore[arg-type]
    return replace(row, **fields)


def started(studio: Studio, viewer: Viewer, monkeypatch: pytest.MonkeyPatch, config: Any, size: RunSize = RunSize()) -> Any:
    """What the queue is handed when a run with this config starts."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(studio.jobs, "start", lambda *args, **kwargs: seen.update(config=args[4], **kwargs))
    args = run_args(LOCAL, config) | {"reward_model": {"kind": "stale"}}
    studio.start_run(viewer, "rloo", "training.rloo", "x", {"args": args}, {}, [], size)
    return seen["config"]["args"]


def test_only_what_fits_the_prompts_is_offered(studio: Studio, viewer: Viewer) -> None:
    project = projects.create(studio.db, "sums", "pairwise")
    assert rewards(studio, viewer, project) == []
    asked = [Message("user", f"How many are {n} and {n}?") for n in range(20)]
    prompts.add(studio.db, [prompts.new(project.project_id, [m], reference=f"#### {n}") for n, m in enumerate(asked)])
    assert rewards(studio, viewer, project) == [(CHECKERS["gsm8k"].title, "gsm8k")]
    demo = studio.project(viewer)
    made = reward_model(studio, demo)
    assert rewards(studio, viewer, demo) == [
        ("What people like · reward model", made.model_id), (CHECKERS["demo_world"].title, "demo_world"),
    ]  # fmt: skip


def test_rlhf_is_graded_by_what_people_prefer_and_what_can_be_checked_by_rules(studio: Studio, viewer: Viewer) -> None:
    """The Train page's proposals; labels are no choice for methods that learn from rewards."""
    page = TrainPage(studio)
    with gr.Blocks() as demo:
        page.build(demo)
    made = reward_model(studio, studio.project(viewer))

    def chosen(method: str) -> tuple[str, bool, str]:
        held = [*(each.value for each in page.which.components), [], *(each.value for each in page.form.components)]
        fits, which, _, _, _, _, proposal, *_ = page.choose(Request(), method, "demo-model", "", "", *held)  # type: ignore[arg-type]
        graded = json.loads(proposal)["proposed"].get("reward", "")
        return str(fits), which.visible, graded

    request = Request()
    request.query_params = {"method": "rloo"}
    assert page.load(request)[1] == "rloo"  # type: ignore[arg-type]
    for method, shown, graded in (("dpo", True, ""), ("rloo", False, made.model_id), ("grpo", False, "demo_world")):
        fits, visible, reward = chosen(method)
        assert METHOD_FACTS[method].fits in fits
        assert (visible, reward) == (shown, graded), method


def test_another_methods_word_does_not_stick_in_the_form(studio: Studio, viewer: Viewer) -> None:
    """A loss or a grader that this method does not know would stand in a dropdown without it, which the browser cannot send."""
    page = TrainPage(studio)
    with gr.Blocks() as demo:
        page.build(demo)
    which = [*(each.value for each in page.which.components), []]
    at = 7 + [knob.name for knob in page.form._knobs].index("loss")
    knobs = [each.value for each in page.form.components]
    proposal = Form.proposal(DpoConfig(), {})
    changed = [{"loss": "hinge", "tuning": "full"}.get(k.name, v) for k, v in zip(page.form._knobs, knobs, strict=True)]
    shown = page.choose(Request(), "grpo", "demo-model", "", proposal, *which, *changed)  # type: ignore[arg-type]
    assert shown[at]["value"] in [word for _, word in shown[at]["choices"]]
    values = {knob.name: update.get("value") for knob, update in zip(page.form._knobs, shown[7:], strict=True)}
    assert (values["tuning"], values["loss"]) == ("full", "dapo"), "what both methods know stays"
    empty = page.form.show(RlooConfig(), "rloo", {}, [])
    assert {knob.name: update.get("value") for knob, update in zip(page.form._knobs, empty, strict=True)}["reward"] is None
    back = [None if knob.name == "reward" else value for knob, value in zip(page.form._knobs, knobs, strict=True)]
    page.choose(Request(), "dpo", "demo-model", "", Form.proposal(RlooConfig(), {}), *which, *back)  # type: ignore[arg-type]


def test_a_merged_copy_comes_after_what_was_trained(studio: Studio, viewer: Viewer) -> None:
    """Compare takes the first of them for "after": the copy says what its adapter says."""
    project = studio.project(viewer)
    runs.add(studio.db, ended("dpo", {}, run_id="run-1", project_id=project.project_id))
    runs.add(studio.db, ended("merge", {}, run_id="run-2", project_id=project.project_id))
    adapter = models.add(studio.db, models.new("tuned", "adapter", LOCAL.to_json(), project.project_id, run_id="run-1"))
    merged = models.new("tuned, merged", "base", LOCAL.to_json(), project.project_id, "", "run-2", adapter.model_id)
    models.add(studio.db, merged)
    assert [m.name for m in writers(studio, viewer)][:2] == ["tuned", "tuned, merged"]
    listed = dict(re.findall(r'<tr class="">.*?>(tuned[^<]*)</td>.*?st-tag">([^<]*)<', ModelsPage(studio)._lists(viewer)[0]))
    assert listed == {"tuned": "trained here", "tuned, merged": "merged"}
    assert before_after(writers(studio, viewer), "").after == adapter.model_id
    assert [name for name, _ in options(studio, writers(studio, viewer))][:2] == ["tuned · trained here", "tuned, merged"]


def test_a_stopped_run_says_of_how_many_steps(studio: Studio, viewer: Viewer) -> None:
    result = {"rows": 80, "steps": 39, "seconds": 4.0, "metrics": {}}
    config = {"args": {"train": DpoConfig(epochs=40.0).to_json()}}
    run = ended("dpo", result, status="stopped", config=config)
    assert "39 of 400" in training(run)
    assert "of 400" not in training(replace(run, status="finished"))
    assert "39" in training(replace(run, config={"args": {"train": {"no such": 1}}}))
    asked = replace(run, kind="rloo", config={"args": {"train": {"reward": "demo_world"}}}, result={"rows": 300})
    assert "300 prompts" in training(asked)


def test_a_reward_model_scores_and_does_nothing_else(studio: Studio, viewer: Viewer) -> None:
    made = reward_model(studio, studio.project(viewer))
    assert made not in writers(studio, viewer)
    assert made not in judges(studio, viewer)
    table, pick, edit = ModelsPage(studio)._lists(viewer)
    assert "reward model" in table
    assert made.model_id not in [value for _, value in pick.choices]
    assert made.model_id in [value for _, value in edit.choices]


def test_the_run_is_given_the_reward_model_that_was_chosen(studio: Studio, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reward_model(studio, studio.project(viewer))
    assert started(studio, viewer, monkeypatch, RlooConfig(reward=made.model_id))["reward_model"] == made.spec
    assert "reward_model" not in started(studio, viewer, monkeypatch, RlooConfig()), "rules need none, and a stale one goes"
    base = models.add(studio.db, models.new("a base", "base", LOCAL.to_json()))
    with pytest.raises(BadInput, match="no reward model"):
        started(studio, viewer, monkeypatch, RlooConfig(reward=base.model_id))


def test_another_projects_reward_model_is_not_to_be_had(studio: Studio, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    from data.errors import StudioError

    foreign = reward_model(studio, projects.create(studio.db, "other", "pairwise", owner="somebody else"))
    models_of_it = models.new("theirs", "reward", foreign.spec, foreign.project_id, "somebody else")
    models.add(studio.db, models_of_it)
    with pytest.raises(StudioError):
        started(studio, viewer, monkeypatch, RlooConfig(reward=models_of_it.model_id))


def test_what_a_visitors_run_may_write_has_an_end(studio: Studio) -> None:
    config = recipe("rloo", 2_000_000, 60)
    assert sampled_tokens(config, steps_of(config, 60)) <= MAX_OWN_TOKENS, "the demo's own recipe is within it"
    project = projects.create(studio.db, "visit", "pairwise", owner="v")
    with pytest.raises(LimitReached, match="tokens of answers"):
        studio.visitors.check_run(project, [], RunSize(steps=10, tokens=MAX_OWN_TOKENS + 1))


def test_answers_to_held_out_prompts_count_into_what_a_visitors_run_may_write(studio: Studio) -> None:
    config = recipe("rloo", 2_000_000, 60)
    often = replace(config, eval_every=1, max_steps=300)
    assert sampled_tokens(often, 300, 90) - sampled_tokens(often, 300) == 301 * 90 * often.max_completion_length
    assert sampled_tokens(often, 300, 10_000) == sampled_tokens(often, 300, 128), "the trainer asks no more of them"
    sixty = steps_of(config, 60)
    assert sampled_tokens(config, sixty, 20) <= MAX_OWN_TOKENS, "the demo's own recipe is within it"
    args = run_args(LOCAL, often)
    assert own_tokens(studio, "rloo", {"args": args}, 300, "") == sampled_tokens(often, 300, 128), "none known: as many as can be"


def test_prompts_are_frozen_with_their_references_and_split(studio: Studio, viewer: Viewer) -> None:
    project = projects.create(studio.db, "sums", "pairwise")
    made = [prompts.new(project.project_id, [Message("user", f"How many are {n}?")], reference=f"#### {n}") for n in range(30)]
    prompts.add(studio.db, made)
    frozen = snapshots.freeze(studio.db, studio.settings, project.project_id, "prompts")
    rows = pq.read_table(snapshots.file_of(studio.settings, frozen)).to_pylist()
    assert {(row["prompt_id"], row["reference"], row["split"]) for row in rows} == {
        (p.prompt_id, p.reference, p.split) for p in made
    }
    assert frozen.manifest["rows"]["train"] == sum(p.split == "train" for p in made)
    assert set(rows[0]) == {"prompt", "reference", "prompt_id", "split"}
    assert snapshots.freeze(studio.db, studio.settings, project.project_id, "prompts").snapshot_id == frozen.snapshot_id
    with pytest.raises(BadInput, match="bring 4 or more"):
        snapshots.freeze(studio.db, studio.settings, projects.create(studio.db, "none", "pairwise").project_id, "prompts")


def test_a_reward_run_leaves_a_reward_model_with_its_accuracy(studio: Studio, viewer: Viewer) -> None:
    project = studio.project(viewer)
    result = {"right": 45, "held_out_rows": 50, "rows": 200, "steps": 75, "seconds": 20.0, "metrics": {"loss": 0.2}}
    run = ended("reward", result, name="Likes", project_id=project.project_id, config={"args": run_args(LOCAL, RlooConfig())})
    runs.add(studio.db, run)
    folder = studio.settings.runs_dir / "r1" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    model = models.get(studio.db, ingest.outputs(studio.db, studio.settings, run, "finished")["model_id"])
    assert (model.kind, model.spec["adapter"]) == ("reward", str(folder))
    whole = replace(run, run_id="r2")
    runs.add(studio.db, whole)
    folder = studio.settings.runs_dir / "r2" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    model = models.get(studio.db, ingest.outputs(studio.db, studio.settings, whole, "finished")["model_id"])
    assert (model.kind, model.spec["base"], model.spec["adapter"]) == ("reward", str(folder), "")
    assert reward_models(studio, viewer)[0].model_id == model.model_id
    assert held_out_right(result) == "90 % of 50 held-out pairs (95 %: 79–96 %)"
    assert "79–96 %" in training(run)
    assert "right on 90 % of 50 held-out pairs" in ModelsPage(studio)._lists(viewer)[0]
    assert held_out_right({"held_out_rows": 0, "right": 0}) == held_out_right({"held_out_rows": 9}) == ""
