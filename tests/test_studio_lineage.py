"""The tree of models: who came from whom, on which data, with which settings, and what it gained, none of it made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from run_studio import VIEWER, ended, freeze, labelled_project, studio_with_runs, train, wait

from data import models, runs
from data.database import Database
from data.records import Model, Project, Run, now
from data.settings import Settings
from evals.compare_result import CompareResult
from evals.winrate import Estimate
from studio.context import Studio
from studio.lineage import Node, draw, tree

pytestmark = pytest.mark.app


@pytest.fixture
def studio(settings: Settings, db: Database) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        yield opened


@pytest.fixture
def project(studio: Studio) -> Project:
    return labelled_project(studio)


def trained(studio: Studio, project: Project, parent: str = "demo-model", method: str = "dpo", **knobs: Any) -> Model:
    """A finished run's adapter over `parent`."""
    run = train(studio, freeze(studio, project), knobs, method, adapter=True, model_id=parent)
    done = wait(studio.db, run.run_id, ended)
    return models.get(studio.db, done.result["model_id"])


def compared(studio: Studio, project: Project, before: str, after: str, rate: float) -> Run:
    """A finished comparison, as its run leaves it."""
    estimate = Estimate(rate, rate - 0.1, rate + 0.1, 0.05, 60, 60)
    result = CompareResult("before", "after", "Demo judge", 60, 60, 0, win_rate=estimate).to_json()
    args = {"model_id_a": before, "model_id_b": after}
    return runs.add(
        studio.db,
        Run(
            f"compare-{before[:4]}-{after[:4]}", project.project_id, "", "compare", "c", "evals.compare", "finished", "cpu",
            {"args": args}, "", 0, 0.0, 0, {}, result, "", now(),
        ),
    )  # fmt: skip


def test_adapters_hang_under_what_they_were_trained_from(studio: Studio, project: Project) -> None:
    one = trained(studio, project, beta=0.25)
    trained(studio, project, parent=one.model_id, beta=0.125)
    (base,) = tree(studio, VIEWER)
    assert base.model.model_id == "demo-model"
    (first,) = base.children
    (second,) = first.children
    assert (first.model.model_id, second.model.parent_model_id) == (one.model_id, one.model_id)
    drawn = draw([base])
    assert drawn.count("<ul") == 3
    assert drawn.index("beta 0.25") < drawn.index("beta 0.125")
    sha = str(first.run.config["data"]["sha256"])[:8] if first.run else "?"
    assert f"(snapshot {sha})" in drawn
    assert "agreement is not known" in drawn, "one person labelled"
    assert drawn.count("Not compared yet") == 2


def test_the_comparison_with_the_parent_comes_before_any_other(studio: Studio, project: Project) -> None:
    one = trained(studio, project)
    two = trained(studio, project, parent=one.model_id)
    compared(studio, project, "demo-model", two.model_id, 0.9)
    assert "Win rate 90 % (95 %: 80–100 %) against before, by Demo judge on 60 prompts" in _plain(draw(tree(studio, VIEWER)))
    compared(studio, project, one.model_id, two.model_id, 0.6)
    drawn = _plain(draw(tree(studio, VIEWER)))
    assert "Win rate 60 % (95 %: 50–70 %) against its parent, by Demo judge on 60 prompts" in drawn
    assert "90 %" not in drawn


def test_a_parent_that_was_removed_still_stands_above_its_children(studio: Studio, project: Project) -> None:
    one = trained(studio, project)
    trained(studio, project, parent=one.model_id)
    models.remove(studio.db, one.model_id)
    drawn = draw(tree(studio, VIEWER))
    assert ">removed<" in drawn
    assert drawn.count("<li>") == 3


def test_agreement_is_that_of_the_snapshot(studio: Studio, project: Project) -> None:
    trained(studio, project)
    ((base),) = tree(studio, VIEWER)
    (node,) = base.children
    assert node.snapshot is not None
    alpha = {"value": 0.71, "low": 0.6, "high": 0.8}
    manifest = node.snapshot.manifest | {"agreement": {"alpha": alpha, "annotators": 3}}
    drawn = draw([replace(base, children=(replace(node, snapshot=replace(node.snapshot, manifest=manifest)),))])
    assert "3 people agree to alpha 0.71 (95 %: 0.60–0.80)" in _plain(drawn)


def test_only_what_people_labelled_tells_of_people(studio: Studio, project: Project) -> None:
    trained(studio, project)
    ((base),) = tree(studio, VIEWER)
    (node,) = base.children
    assert node.snapshot is not None
    assert node.run is not None
    manifest = node.snapshot.manifest | {"labels": {"people": 0, "imported": 0, "simulated": 12}}
    simulated = draw([replace(base, children=(replace(node, snapshot=replace(node.snapshot, manifest=manifest)),))])
    assert "; every label is simulated, none is a person's." in simulated
    args = node.run.config["args"] | {"train": {"reward": "reward:x"}, "reward_name": "Reward <b> model"}
    graded = replace(node, run=replace(node.run, kind="rloo", config=node.run.config | {"args": args}))
    drawn = _plain(draw([replace(base, children=(graded,))]))
    assert "prompts (snapshot " in drawn
    assert "), its own answers to them graded by Reward &lt;b&gt; model.</p>" in drawn
    args = node.run.config["args"] | {"train": {"reward": "demo_world"}}
    graded = replace(node, run=replace(node.run, kind="grpo", config=node.run.config | {"args": args}))
    assert "graded by the demo world&#x27;s rules." in draw([replace(base, children=(graded,))])
    for said in (simulated, drawn):
        assert "one person" not in said
        assert "agree" not in said


def test_nothing_trained_is_no_tree_and_names_are_only_text(studio: Studio, project: Project) -> None:
    assert tree(studio, VIEWER) == []
    assert draw([]) == ""
    base = models.new("<b>base</b>", "base", {})
    child = models.new("<script>", "adapter", {}, run_id="r", parent_model_id=base.model_id)
    drawn = draw([Node(base, None, None, (), (Node(child, None, None, (), ()),))])
    assert "<b>" not in drawn
    assert "<script>" not in drawn


def _plain(drawn: str) -> str:
    return drawn.replace('<span class="st-fig">', "").replace("</span>", "")
