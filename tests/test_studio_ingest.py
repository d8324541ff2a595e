"""What runs leave: candidates, adapters, comparisons and data sets become rows once, whatever else they wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_studio import CHILD, SPEC, begin, ended, jobs_of, lines_for, questions, wait

from data import completions, judgments, models, projects, prompts, runs
from data.database import Database
from data.engine import Message
from data.errors import WorkspaceError
from data.records import Judgment, Project, Prompt, now
from data.settings import Settings
from studio.jobs import Jobs

pytestmark = pytest.mark.app


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def jobs(settings: Settings, db: Database) -> Iterator[Jobs]:
    with jobs_of(settings, db) as made:
        yield made


@pytest.fixture
def asked(db: Database, project: Project) -> list[Prompt]:
    return questions(db, project)


def test_candidates_show_up_as_they_come(
    jobs: Jobs, db: Database, settings: Settings, project: Project, asked: list[Prompt]
) -> None:
    lines = lines_for(asked, 4)
    run = begin(jobs, project, "generate", steps=12, wait_at=5, completions=lines)
    wait(db, run.run_id, lambda r: completions.counts(db, project.project_id).completions == 5)
    assert not ended(runs.get(db, run.run_id)), "while it still writes"
    (settings.runs_dir / run.run_id / "go").touch()
    assert wait(db, run.run_id, ended).status == "finished"
    counts = completions.counts(db, project.project_id)
    assert (counts.completions, counts.pairs) == (12, 18)
    assert {c.run_id for c in completions.of_run(db, run.run_id)} == {run.run_id}


def test_lines_that_are_no_use_are_counted_and_the_others_kept(
    jobs: Jobs, db: Database, project: Project, asked: list[Prompt]
) -> None:
    other = projects.create(db, "other")
    strange = prompts.new(other.project_id, [Message("user", "not yours")])
    prompts.add(db, [strange])
    good = lines_for(asked[:1], 2)
    bad = [{"completion_id": "half"}, *lines_for([strange], 1), {**good[0], "completion_id": "x", "prompt_id": "gone"}]
    done = wait(db, begin(jobs, project, "generate", steps=5, completions=[bad[0], good[0], bad[1], good[1], bad[2]]).run_id, ended)
    assert done.status == "finished"
    assert done.result["unusable_lines"] == 3
    assert completions.counts(db, project.project_id).completions == 2
    assert completions.counts(db, other.project_id).completions == 0


def test_an_adapter_is_registered_with_its_parent(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    args = {"model": {**SPEC, "adapter": "runs/parent/adapter"}, "model_id": "parent", "adapter": True}
    run = jobs.start("dpo", CHILD, "My  adapter", project.project_id, {"args": args}, owner="v1")
    done = wait(db, run.run_id, ended)
    (model,) = models.visible(db, project.project_id, "v1", "adapter")
    assert (model.name, model.run_id, model.parent_model_id, model.owner) == ("My adapter", run.run_id, "parent", "v1")
    assert model.spec == {**SPEC, "adapter": str(settings.runs_dir / run.run_id / "adapter")}
    assert done.result["model_id"] == model.model_id


@pytest.mark.parametrize("ending", ["fail", "silent"])
def test_a_run_that_did_not_get_there_registers_nothing(jobs: Jobs, db: Database, project: Project, ending: str) -> None:
    wait(db, begin(jobs, project, ending=ending, adapter=True).run_id, ended)
    assert models.visible(db, project.project_id, "", "adapter") == []


def test_a_comparison_leaves_answers_and_verdicts(jobs: Jobs, db: Database, project: Project, asked: list[Prompt]) -> None:
    lines = lines_for(asked[:1], 2)
    a, b = (line["completion_id"] for line in lines)
    found = {"p_ab": 0.2, "p_ba": 0.3, "p": 0.25, "verdict": "b", "flipped": False, "unscored": "", "raw": {"ab": "B"}}
    sides = {"model_a": "base", "model_b": "mine", "completion_a": a, "completion_b": b, "judge": "judge"}
    verdict = Judgment("j1", "", "", asked[0].prompt_id, 0, **sides, **found, created_at=now())  # type: ignore[arg-type]
    written = {k: v for k, v in vars(verdict).items() if k != "created_at"}
    run = begin(jobs, project, "compare", completions=lines, judgments=[written])
    wait(db, run.run_id, ended)
    (stored,) = judgments.of_run(db, run.run_id)
    assert (stored.project_id, stored.p, stored.verdict, stored.raw) == (project.project_id, 0.25, "b", {"ab": "B"})
    assert {c.completion_id for c in completions.of_run(db, run.run_id)} == {a, b}


def test_a_downloaded_data_set_waits_in_the_import_folder(
    jobs: Jobs, db: Database, settings: Settings, project: Project, tmp_path: Path
) -> None:
    """Nothing is taken in before somebody has looked at it."""
    file = tmp_path / "x.parquet"
    file.write_bytes(b"PAR1")
    done = wait(db, begin(jobs, project, "hub_import", parquet=str(file)).run_id, ended)
    assert (settings.import_dir / done.result["file"]).read_bytes() == b"PAR1"
    assert prompts.count(db, project.project_id) == 0


def test_outputs_wait_for_room_on_a_full_disk(
    db: Database, settings: Settings, project: Project, asked: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = completions.add
    full = [True]

    def add(*args: Any, **options: Any) -> int:
        if full[0]:
            raise WorkspaceError("The disk is full.")
        return real(*args, **options)

    monkeypatch.setattr("data.completions.add", add)
    jobs = Jobs(settings, db, poll_s=0.05)
    jobs.reconcile()
    run = begin(jobs, project, "compare", completions=lines_for(asked, 1))
    wait(db, run.run_id, lambda r: r.run_id in jobs._ending)
    assert runs.get(db, run.run_id).status == "running"
    full[0] = False
    jobs.close()
    again = Jobs(settings, db, poll_s=0.05)
    again.reconcile()
    assert wait(db, run.run_id, ended).status == "finished"
    assert completions.counts(db, project.project_id)[:2] == (3, 0)  # a judge's business: nobody is asked to label them
    again.close()


def test_a_moved_workspace_finds_its_adapters(jobs: Jobs, db: Database, settings: Settings, project: Project) -> None:
    run = begin(jobs, project, adapter=True)
    wait(db, run.run_id, ended)
    (model,) = models.visible(db, project.project_id, "", "adapter")
    db.update("models", {"model_id": model.model_id}, spec={**model.spec, "adapter": "/old/place/adapter"})
    jobs.reconcile()
    assert models.get(db, model.model_id).spec == model.spec


def test_a_run_of_all_weights_leaves_a_base_that_moves_with_the_workspace(
    jobs: Jobs, db: Database, settings: Settings, project: Project
) -> None:
    """Also where it lies under an adapter that was trained on from it."""
    first = begin(jobs, project, whole_model=True, model_id="demo")
    wait(db, first.run_id, ended)
    (whole,) = models.visible(db, project.project_id, "", "base")
    place = str(settings.runs_dir / first.run_id / "model")
    assert (whole.run_id, whole.parent_model_id, whole.spec["base"], whole.spec["adapter"]) == (first.run_id, "demo", place, "")
    assert models.is_trained(whole)
    second = jobs.start("dpo", CHILD, "on it", project.project_id, {"args": {"model": whole.spec, "adapter": True}})
    wait(db, second.run_id, ended)
    (adapter,) = models.visible(db, project.project_id, "", "adapter")
    assert adapter.spec["base"] == place
    for model in (whole, adapter):
        db.update("models", {"model_id": model.model_id}, spec={**model.spec, "base": "/old/place/model"})
    jobs.reconcile()
    assert [models.get(db, model.model_id).spec["base"] for model in (whole, adapter)] == [place, place]
