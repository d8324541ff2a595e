"""What was read before another thread acted is not acted upon after: each test puts the other thread's act exactly in between."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from run_studio import CHILD, VIEWER, ended
from visiting import ANNA, request, visited

from data import models, projects, prompts, runs
from data.database import Database
from data.engine import ModelSpec
from data.errors import BadInput, LimitReached, NotFound
from data.journal import Change
from data.records import Project, Run
from data.resume import seal
from data.rundir import RunDir
from data.settings import Settings
from labeling import preferences
from labeling.assignment import Assignment
from labeling.preferences import Vote
from studio import processes, run_launch, visitors
from studio.again import go_on
from studio.api import LabelApi
from studio.context import Studio
from studio.endpoint_keys import EndpointKeys
from studio.import_tab import ImportTab
from studio.jobs import Jobs
from studio.visitors import MAX_PROMPTS, RunSize

pytestmark = pytest.mark.app


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P", owner="visitor-1")


@pytest.fixture
def jobs(settings: Settings, db: Database) -> Jobs:
    """Looks at its runs when the test says so, and never by itself."""
    made = Jobs(settings, db, grace_s=0.0)
    made._go = lambda: None  # type: ignore[method-assign]
    return made


def begin(jobs: Jobs, project: Project) -> Run:
    return jobs.start("sft", CHILD, "A run", project.project_id, {"args": {"model": ModelSpec("local", "nowhere").to_json()}})


def once(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, act: Callable[[], object], first: bool = False) -> None:
    """`act` happens when `name` is called next: right after what it does, or before it (`first`)."""
    whole, done = getattr(place, name), list[bool]()

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        due = not done
        done.append(True)
        if due and first:
            act()
        result = whole(*args, **kwargs)
        if due and not first:
            act()
        return result

    monkeypatch.setattr(place, name, meanwhile)


# --- runs -------------------------------------------------------------------------------------------------------------------


def test_a_second_restore_during_the_look_after_the_first_starts_nothing(
    jobs: Jobs, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, brought = begin(jobs, project), list[Run]()
    launched = list[str]()
    monkeypatch.setattr(run_launch, "launch", lambda run, *_: launched.append(run.run_id))

    def restored_again() -> None:
        brought.append(begin(jobs, project))
        jobs._committed([Change("schema", baseline=True)])

    once(monkeypatch, jobs, "_refuse", restored_again)
    jobs._committed([Change("schema", baseline=True)])
    jobs._look()
    jobs._look()
    assert launched == []
    assert [runs.get(db, run.run_id).status for run in (first, *brought)] == ["failed", "failed"]


def test_a_run_that_was_ended_by_force_is_left_alone_when_it_goes_on(
    jobs: Jobs, db: Database, settings: Settings, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second press met the very end of the run: nothing of it is left for the process that goes on."""
    run, signals = begin(jobs, project), list[int]()
    folder = RunDir(settings.runs_dir / run.run_id)
    (folder.path / "stdout.log").touch()
    runs.update(db, run.run_id, status="running")
    folder.request_stop()

    def end(process: Any, path: Path, signal: int) -> bool:
        signals.append(signal)
        jobs._see_off(run.run_id)
        return True

    monkeypatch.setattr(processes, "end", end)
    jobs.stop(run.run_id)
    assert ended(runs.get(db, run.run_id))
    jobs.resume(run.run_id)
    monkeypatch.setattr(run_launch, "launch", lambda *_: type("Child", (), {"pid": 1, "poll": lambda _: None})())
    monkeypatch.setattr(processes, "is_alive", lambda *_: True)
    jobs._look()
    assert runs.get(db, run.run_id).status == "running"
    jobs._look()
    assert len(signals) == 1, "the first process was ended, and no other"


def test_a_run_whose_project_goes_while_it_is_started_is_none(
    jobs: Jobs, db: Database, settings: Settings, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, run_launch, "fill", lambda: projects.destroy(db, project.project_id))
    with pytest.raises(NotFound, match="project does not exist any more"):
        begin(jobs, project)
    assert db.rows("select run_id from runs") == []
    assert list(settings.runs_dir.iterdir()) == []


# --- going on, and what is trained on top -----------------------------------------------------------------------------------


class Turn:
    """In place of a lock: whoever had it before this one has just done `act`."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __enter__(self) -> None:
        self._act()

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def studio(settings: Settings, db: Database, jobs: Jobs) -> Studio:
    return Studio(settings, db, jobs, cast(Any, None), Assignment(db), EndpointKeys())


@pytest.fixture
def stopped(studio: Studio) -> Run:
    """It has a checkpoint, and left the model `made`."""
    shared = projects.create(studio.db, "Shared")
    run = studio.jobs.start("dpo", CHILD, "First", shared.project_id, {"args": {"model": ModelSpec("local", "nowhere").to_json()}})
    runs.update(studio.db, run.run_id, status="stopped")
    spec = ModelSpec("local", "nowhere", "nowhere").to_json()
    models.add(studio.db, models.new("First", "adapter", spec, shared.project_id, "", run.run_id, "", "made"))
    checkpoint = studio.settings.runs_dir / run.run_id / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state").write_text("state")
    seal(checkpoint, 2, {})
    return runs.get(studio.db, run.run_id)


def test_a_run_does_not_go_on_under_what_is_trained_on_it_meanwhile(studio: Studio, stopped: Run) -> None:
    def train_on() -> None:
        studio.jobs.start("dpo", CHILD, "On top", stopped.project_id, {"args": {"model_id": "made"}})

    studio.visitors.starting = cast(Any, Turn(train_on))
    with pytest.raises(BadInput, match="has been used"):
        go_on(studio, VIEWER, stopped)
    assert runs.get(studio.db, stopped.run_id).status == "stopped"


def test_nothing_is_trained_on_a_model_whose_run_goes_on_meanwhile(studio: Studio, stopped: Run) -> None:
    (made,) = [model for model in studio.models(VIEWER) if model.model_id == "made"]
    studio.visitors.starting = cast(Any, Turn(lambda: studio.jobs.resume(stopped.run_id)))
    with pytest.raises(NotFound, match="not in the list any more"):
        studio.start_run(VIEWER, "dpo", CHILD, "On top", {"args": {"model_id": "made"}}, {}, [made], RunSize())
    assert [run.run_id for run in runs.active(studio.db)] == [stopped.run_id]


# --- a visitor's limits -----------------------------------------------------------------------------------------------------


def test_what_comes_in_at_the_same_time_does_not_share_the_same_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with visited(tmp_path) as studio:
        page, api, refused = ImportTab(studio), LabelApi(studio), list[str]()
        who = studio.viewer(request(ANNA))
        project = studio.project(who)
        room = MAX_PROMPTS - projects.counts(studio.db, project.project_id).prompts
        shown = [each.impression.impression_id for each in studio.assignment.serve(who.annotator_id, project.project_id, 4)]

        def type_in(word: str) -> None:
            try:
                page.add_typed("\n".join(f"{word} {i}" for i in range(room)), request(ANNA))
            except LimitReached as error:
                refused.append(str(error))

        def label(ids: Sequence[str]) -> None:
            votes = [Vote(str(uuid.uuid4()), impression, "cast", "a") for impression in ids]
            refused.extend(said.reason for said in api._store(who, project, votes) if not said.accepted)

        def both(place: Any, name: str, first: Callable[[], object], second: Callable[[], object]) -> None:
            other = threading.Thread(target=second)

            def meanwhile() -> None:
                other.start()
                other.join(0.3)  # for good where nobody waits for the first one to be stored

            once(monkeypatch, place, name, meanwhile, first=True)
            first()
            other.join()

        both(prompts, "add", lambda: type_in("first"), lambda: type_in("second"))
        assert projects.counts(studio.db, project.project_id).prompts == MAX_PROMPTS
        assert len(refused) == 1
        monkeypatch.setattr(visitors, "MAX_LABEL_EVENTS", 2)
        both(preferences, "record", lambda: label(shown[:2]), lambda: label(shown[2:]))
        assert projects.counts(studio.db, project.project_id).labels == 2
        assert len(refused) == 3
