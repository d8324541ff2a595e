"""The queue: one run a device, in an order that people change and that outlives the server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_studio import CHILD, VIEWER, ended, started, studio_with_runs, wait

from data import people, projects, runs
from data.database import Database
from data.errors import NotAllowed, NotFound
from data.records import Project, Run, now
from data.settings import Settings
from studio import run_queue
from studio.context import Studio
from studio.jobs import Jobs
from studio.run_controls import RunControls, queue_table
from studio.run_queue import ALL, ANY, due, moved

pytestmark = pytest.mark.app


def run(run_id: str, status: str = "queued", device: str = ANY, kind: str = "dpo", place: float = 0.0) -> Run:
    return Run(
        run_id, "p", "", kind, run_id, "m", status, device, {}, "", 0, 0.0, 0, {}, {}, "", now(), place=place  # type: ignore[arg-type]
    )  # fmt: skip


def begin(active: list[Run], devices: list[str], leaving: tuple[str, ...] = ()) -> dict[str, str]:
    return {each.run.run_id: each.device for each in due(active, devices, leaving)}


# --- which begins, and where ---


def test_one_device_takes_one_run_in_order() -> None:
    assert begin([run("a"), run("b")], ["cpu"]) == {"a": "cpu"}
    assert begin([run("x", "running", "cpu"), run("a")], ["cpu"]) == {}
    assert begin([run("x", "running", "cpu"), run("a")], ["cpu"], leaving=("x",)) == {"a": "cpu"}


def test_several_gpus_are_filled_one_by_one() -> None:
    gpus = ["cuda:0", "cuda:1", "cuda:2"]
    waiting = [run("x", "running", "cuda:1"), run("a"), run("b"), run("c")]
    assert begin(waiting, gpus) == {"a": "cuda:0", "b": "cuda:2"}
    assert begin([run("a", device="cuda:1"), run("b")], gpus) == {"a": "cuda:1", "b": "cuda:0"}, "who names one gets that one"


def test_what_waits_for_the_network_takes_no_gpu() -> None:
    assert begin([run("a", kind="hub_model"), run("b")], ["cuda:0"]) == {"a": "cpu", "b": "cuda:0"}
    assert begin([run("a", kind="hub_push"), run("b")], ["cpu"]) == {"a": "cpu"}


def test_who_wants_all_gpus_is_passed_by_nobody() -> None:
    gpus = ["cuda:0", "cuda:1"]
    waiting = [run("x", "running", "cuda:0"), run("all", device=ALL), run("b")]
    assert begin(waiting, gpus) == {}, "one is free, but it is kept"
    assert begin([run("all", device=ALL), run("b")], gpus) == {"all": ALL}
    assert begin([run("all", "running", ALL), run("b")], gpus) == {}
    assert begin([run("b"), run("all", device=ALL), run("c")], gpus) == {"b": "cuda:0"}


@given(st.lists(st.sampled_from([ANY, ALL, "cuda:0", "cuda:1"]), max_size=8), st.integers(1, 3))
def test_no_device_is_given_twice(wanted: list[str], n: int) -> None:
    devices = [f"cuda:{i}" for i in range(n)]
    given_out = [each.device for each in due([run(str(i), device=d) for i, d in enumerate(wanted)], devices)]
    assert len(set(given_out)) == len(given_out)
    assert ALL not in given_out or not set(given_out) & set(devices)


def test_a_run_sees_only_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-77")
    names = run_queue.gpus()
    assert run_queue.devices_of(names) == ["cuda:0", "cuda:1"]
    assert run_queue.visible("cuda:1", names) == {"CUDA_VISIBLE_DEVICES": "GPU-77"}
    for device, among in ((ALL, names), ("cpu", names), ("cuda:0", ["0"]), ("cpu", [])):
        assert run_queue.visible(device, among) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run_queue.gpus() == []
    assert run_queue.devices_of([]) == ["cpu"]


def test_the_driver_is_asked_for_gpus_without_loading_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "0\n1\n", ""))
    assert run_queue.gpus() == ["0", "1"]

    def none(*args: Any, **options: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", none)
    assert run_queue.gpus() == []


# --- the order ---


def order(active: list[Run], run_id: str, where: Any) -> list[str]:
    changed = moved(active, run_id, where)
    after = [replace(each, place=changed.get(each.run_id, each.place)) for each in active]
    return [each.run_id for each in sorted(after, key=lambda each: each.place) if each.status == "queued"]


def test_moving_up_down_and_first() -> None:
    waiting = [run("r", "running", place=1), *(run(name, place=place) for name, place in zip("abcd", (3, 4, 9, 12), strict=True))]
    assert order(waiting, "c", "up") == ["a", "c", "b", "d"]
    assert order(waiting, "b", "down") == ["a", "c", "b", "d"]
    assert order(waiting, "d", "first") == ["d", "a", "b", "c"]
    assert order(waiting, "a", "up") == order(waiting, "d", "down") == ["a", "b", "c", "d"], "there is no further"
    assert moved(waiting, "r", "first") == {}, "one that runs is not in the queue"


def test_runs_of_before_places_were_kept_can_be_moved() -> None:
    assert order([run("a"), run("b"), run("c")], "c", "up") == ["a", "c", "b"]


# --- with real runs ---


@pytest.fixture
def studio(settings: Settings, db: Database) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        yield opened


@pytest.fixture
def project(studio: Studio) -> Project:
    made = projects.create(studio.db, "P")
    people.set_open_project(studio.db, "local", made.project_id)
    return made


def start(studio: Studio, project: Project, name: str, **args: Any) -> Run:
    return studio.jobs.start("generate", CHILD, name, project.project_id, {"args": args})


def release(studio: Studio, one: Run) -> None:
    (studio.settings.runs_dir / one.run_id / "go").touch()


def test_a_moved_run_begins_first_also_after_a_restart(studio: Studio, project: Project) -> None:
    holding = start(studio, project, "holding", steps=2, wait_at=1)
    wait(studio.db, holding.run_id, started)
    a, b, c = (start(studio, project, name) for name in "abc")
    studio.jobs.move(c.run_id, "first")
    studio.jobs.move(a.run_id, "down")
    assert [each.name for each in runs.active(studio.db)] == ["holding", "c", "b", "a"]
    studio.jobs.stop(b.run_id)
    assert runs.get(studio.db, b.run_id).status == "stopped"
    studio.jobs.close()
    again = Jobs(studio.settings, studio.db, poll_s=0.05)
    again.reconcile()
    d = again.start("generate", CHILD, "d", project.project_id, {"args": {}})
    assert [each.name for each in runs.active(studio.db)][-1] == "d", "who comes last stands last"
    release(studio, holding)
    begun = [wait(studio.db, each.run_id, ended).started_at for each in (c, a, d)]
    assert None not in begun
    assert begun == sorted(begun)  # type: ignore[type-var]
    again.close()


def test_a_run_that_fails_holds_up_nobody(studio: Studio, project: Project) -> None:
    bad, good = start(studio, project, "bad", ending="fail"), start(studio, project, "good")
    assert wait(studio.db, good.run_id, ended).status == "finished"
    assert runs.get(studio.db, bad.run_id).status == "failed"


def test_two_gpus_run_two_and_each_is_told_its_own(settings: Settings, db: Database) -> None:
    with studio_with_runs(settings, db, gpus=["3", "5"]) as studio:
        project = projects.create(db, "P")
        three = [start(studio, project, name, steps=2, wait_at=1) for name in "abc"]
        first, second = (wait(db, each.run_id, started) for each in three[:2])
        assert (first.device, second.device) == ("cuda:0", "cuda:1")
        assert runs.get(db, three[2].run_id).status == "queued"
        release(studio, second)
        third = wait(db, three[2].run_id, started)
        assert third.device == "cuda:1"
        for each in (first, third):
            release(studio, each)
        seen = [wait(db, each.run_id, ended).result["gpu"] for each in three]
        assert seen == ["3", "5", "5"]


# --- what the page does ---


def test_the_pages_buttons_move_and_take_out(studio: Studio, project: Project) -> None:
    holding = start(studio, project, "holding", steps=2, wait_at=1)
    wait(studio.db, holding.run_id, started)
    a, b = (start(studio, project, name) for name in "ab")
    controls = RunControls(studio)
    controls.move(VIEWER, b.run_id, "up")
    assert [each.name for each in runs.active(studio.db)] == ["holding", "b", "a"]
    controls.move(VIEWER, holding.run_id, "out")
    assert runs.get(studio.db, holding.run_id).status == "running", "only what waits can be taken out"
    controls.move(VIEWER, a.run_id, "out")
    assert runs.get(studio.db, a.run_id).status == "stopped"
    with pytest.raises(NotFound):
        controls.move(VIEWER, "another's", "first")
    with pytest.raises(NotAllowed, match="wait in the order"):
        controls.move(VIEWER._replace(is_visitor=True), b.run_id, "up")
    release(studio, holding)


def test_the_queue_shows_places_among_all_but_only_ones_own_runs() -> None:
    shown = queue_table([run("r", "running"), run("other"), run("<b>mine"), run("last")], {"<b>mine", "last", "r"})
    assert "&lt;b&gt;mine" in shown
    assert "<b>mine" not in shown
    assert "1 run of other projects" in shown
    assert shown.count('data-do="out"') == 2
    assert shown.count('aria-disabled="true"') == 1, "the last one cannot go down"
    assert shown.index(">2<") < shown.index(">3<")
    assert queue_table([run("r", "running")], {"r"}) == ""
    assert 'data-do="up"' not in queue_table([run("a")], {"a"}, can_move=False)
