"""Visitors: each has a project of their own for a day, with limits, and one address cannot take the places of all others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from visiting import ANNA, BERT, Client, Request, adapter, answered, build, call, request, run_of, shown, viewer, visited

from data import import_folder, models, projects
from data.engine import ModelSpec
from data.errors import LimitReached, NotFound, StudioError, WorkspaceError
from data.records import Project
from studio import arrivals, demo_project, visitors
from studio.arrivals import Arrivals
from studio.compare_page import ComparePage
from studio.context import VISITOR_COOKIE, Studio
from studio.data_page import DataPage
from studio.frame import guarded
from studio.home_page import HomePage
from studio.models_page import ModelsPage
from studio.proxy import ANYBODY
from studio.visitors import RunSize

pytestmark = pytest.mark.app


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with visited(tmp_path) as opened:
        yield opened


# --- who is who ---


def test_without_a_cookie_there_is_nothing_to_see(studio: Studio) -> None:
    for cookies in ({}, {VISITOR_COOKIE: ""}, {VISITOR_COOKIE: "local"}, {VISITOR_COOKIE: "../x"}, {VISITOR_COOKIE: "A" * 32}):
        with pytest.raises(WorkspaceError, match="cookie"):
            studio.viewer(Request(cookies))


def test_the_cookie_is_in_no_row(studio: Studio) -> None:
    who = viewer(studio, ANNA)
    studio.project(who)
    assert ANNA not in who.owner
    assert who.annotator_id == who.owner
    journal = b"".join(file.read_bytes() for file in studio.settings.journal_dir.iterdir())
    assert ANNA.encode() not in journal


def test_each_visitor_gets_a_project_of_their_own(studio: Studio) -> None:
    anna, bert = viewer(studio, ANNA), viewer(studio, BERT)
    hers, his = studio.project(anna), studio.project(bert)
    assert hers.project_id != his.project_id
    assert (hers.owner, his.owner) == (anna.owner, bert.owner)
    assert studio.projects(anna) == [hers]
    assert studio.project(anna) == hers  # the same one at the next visit
    counted = projects.counts(studio.db, hers.project_id)
    assert 0 < counted.prompts <= visitors.MAX_PROMPTS


def test_a_visitor_cannot_open_anothers_project(studio: Studio) -> None:
    his = studio.project(viewer(studio, BERT))
    with pytest.raises(NotFound):
        studio.open_project(viewer(studio, ANNA), his.project_id)
    with pytest.raises(StudioError, match="does not exist"):
        call(HomePage(studio).open, his.project_id, request(ANNA))


# --- limits ---


def test_what_a_visitor_cannot_do(studio: Studio) -> None:
    home, page, data = build(HomePage(studio)), build(ModelsPage(studio)), build(DataPage(studio))
    anna = request(ANNA)
    for handler, args in (
        (home.create, ("more", "pairwise", "", anna)),
        (home.archive, (anna,)),
        (home.rename, ("mine", anna)),
        (page.add_local, ("Qwen/Qwen3-0.6B", "base", False, anna)),
        (page.add_local, ("/etc", "base", False, anna)),
        (page.test_endpoint, ("x", "http://127.0.0.1:1/v1", "m", "", "", anna)),
        (page.save_endpoint, ("x", "http://127.0.0.1:1/v1", "m", "key", "", anna)),
        (page.remove_model, ("demo-model", anna)),
        (data.imports.fetch_hub, ("owner/name", "train", anna)),
        (data.export.back_up, (anna,)),
        (data.export.put_back, (None, "x.zip", True, anna)),
    ):
        with pytest.raises(StudioError, match=r"[Vv]isitor|belongs to the app|not in the list"):
            call(handler, *args)
    assert projects.visible(studio.db, "") == []


def test_an_endpoint_is_never_offered_to_a_visitor(studio: Studio) -> None:
    spec = ModelSpec("endpoint", base="m", url="http://127.0.0.1:1/v1", key_env="SECRET").to_json()
    endpoint = models.add(studio.db, models.new("server", "endpoint", spec))
    judge = models.add(studio.db, models.new("judge server", "judge", spec))
    offered = [m.model_id for m in studio.models(viewer(studio, ANNA))]
    assert endpoint.model_id not in offered
    assert judge.model_id not in offered


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (RunSize(prompts=visitors.MAX_RUN_PROMPTS + 1), "prompts"),
        (RunSize(prompts=1, samples=visitors.MAX_SAMPLES + 1), "answers"),
        (RunSize(steps=visitors.MAX_STEPS + 1), "steps"),
    ],
)
def test_a_run_of_more_than_demo_size_is_refused(studio: Studio, size: RunSize, says: str) -> None:
    project = studio.project(viewer(studio, ANNA))
    with pytest.raises(LimitReached, match=says):
        studio.visitors.check_run(project, [], size)


def test_one_run_at_a_time(studio: Studio) -> None:
    run_of(studio, ANNA, status="queued", result={})
    with pytest.raises(LimitReached, match="one run"):
        studio.visitors.check_run(studio.project(viewer(studio, ANNA)), [], RunSize())
    studio.visitors.check_run(studio.project(viewer(studio, BERT)), [], RunSize())


def test_prompts_are_limited(studio: Studio) -> None:
    tab = DataPage(studio).imports
    many = "\n".join(f"prompt number {n}" for n in range(visitors.MAX_PROMPTS))
    with pytest.raises(StudioError, match="at most"):
        call(tab.add_typed, many, request(ANNA))
    assert "2 prompts" in shown(call(tab.add_typed, "one prompt\nanother\n\none prompt", request(ANNA)))


def test_there_is_an_end_to_visitors(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "MAX_VISITORS", 1)
    studio.project(viewer(studio, ANNA))
    with pytest.raises(LimitReached, match="too many visitors"):
        studio.project(viewer(studio, BERT))


# --- many visitors ---


def come(studio: Studio, number: int, address: str) -> Project:
    """A visitor whose cookie somebody has made up, in the form of ours."""
    cookie = {VISITOR_COOKIE: f"{number:032x}"}
    return studio.project(studio.viewer(Request(cookie, client=Client(address))))


def flood(studio: Studio, address: str, first: int = 0) -> int:
    """How many projects one address opens with a cookie of its own each before it is refused."""
    for number in range(first, first + visitors.MAX_VISITORS):
        try:
            come(studio, number, address)
        except LimitReached:
            return number - first
    raise AssertionError("one address has taken every place")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projects without prompts, as a hundred are opened."""
    monkeypatch.setattr(demo_project, "create", lambda db, owner, _: projects.create(db, "Demo", owner=owner, is_demo=True))


@pytest.mark.usefixtures("bare")
def test_others_come_in_while_one_address_floods(studio: Studio) -> None:
    assert flood(studio, "203.0.113.9") == arrivals.NEW_AN_HOUR
    with pytest.raises(LimitReached, match="from your network"):
        come(studio, 900, "203.0.113.9")
    assert come(studio, 0, "203.0.113.9").owner, "whoever has come already is not sent away"
    for number in range(5):
        assert come(studio, 1000 + number, f"198.51.100.{number}").owner
    assert flood(studio, "2001:db8:1:2::1", 2000) == arrivals.NEW_AN_HOUR
    with pytest.raises(LimitReached, match="from your network"):
        come(studio, 3000, "2001:db8:1:2:ffff::1")  # the same /64 is the same person's


@pytest.mark.usefixtures("bare")
def test_one_address_never_holds_half_of_the_places(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project lives for a day, so hours do not add up."""
    clock, taken = time.monotonic(), 0
    for hour in range(5):
        monkeypatch.setattr("studio.pace.time", SimpleNamespace(monotonic=lambda at=clock + hour * 3601: at))
        taken += flood(studio, "203.0.113.9", taken)
    assert taken == arrivals.NEW_A_DAY < visitors.MAX_VISITORS / 2


@pytest.mark.parametrize(("proxies", "address"), [(("127.0.0.1",), "127.0.0.1"), (("*",), "10.0.3.7"), (("*",), "")])
def test_an_address_that_may_be_everybodys_is_bounded_as_all_are(proxies: tuple[str, ...], address: str) -> None:
    """A proxy that does not say for whom it asks would else shut everybody out."""
    door = Arrivals(behind_proxy=ANYBODY in proxies)
    for _ in range(arrivals.ALL_NEW_AN_HOUR):
        door.admit(address)
    with pytest.raises(LimitReached, match="at the moment"):
        door.admit(address)


def test_whoever_is_refused_has_used_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that comes while too many do has its whole share when there is room again."""
    door, clock = Arrivals(), time.monotonic()
    for _ in range(arrivals.ALL_NEW_AN_HOUR):
        door.admit("")
    for _ in range(arrivals.NEW_A_DAY):
        with pytest.raises(LimitReached, match=arrivals.FROM_ALL[:30]):
            door.admit("203.0.113.9")
    monkeypatch.setattr("studio.pace.time", SimpleNamespace(monotonic=lambda: clock + 3601))
    for _ in range(arrivals.NEW_AN_HOUR):
        door.admit("203.0.113.9")
    with pytest.raises(LimitReached, match="from your network"):
        door.admit("203.0.113.9")


@pytest.mark.usefixtures("bare")
def test_whoever_is_away_longest_without_a_label_makes_room(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "MAX_VISITORS", 3)
    anna, tab = viewer(studio, ANNA), ComparePage(studio).ask
    labelled = studio.project(anna)
    tab.vote_a(tab._memory.add(answered(anna, labelled, adapter(studio, ANNA))), request(ANNA))
    older, newer = (come(studio, number, f"198.51.100.{number}") for number in (1, 2))
    for _ in range(arrivals.NEW_AN_HOUR + 1):
        with pytest.raises(LimitReached, match="too many visitors"):  # nobody is away, and to ask again costs nothing
            come(studio, 3, "198.51.100.3")
    later = time.monotonic() + arrivals.IDLE_S
    monkeypatch.setattr("studio.visitors.time", SimpleNamespace(monotonic=lambda: later))
    monkeypatch.setattr("studio.arrivals.time", SimpleNamespace(monotonic=lambda: later))
    come(studio, 2, "198.51.100.2")  # is back
    assert come(studio, 3, "198.51.100.3").owner
    left = {row["project_id"] for row in studio.db.rows("select project_id from projects where owner != ''")}
    assert older.project_id not in left
    assert {labelled.project_id, newer.project_id} < left
    with pytest.raises(LimitReached, match="too many visitors"):
        come(studio, 4, "198.51.100.4")  # what is labelled stays, and the others are here
    assert studio.visitors.remove_old() == 1, "the journal forgets whoever made room"


# --- the end of a visit ---


def test_after_a_day_everything_of_a_visitor_is_gone(studio: Studio, tmp_path: Path) -> None:
    anna = viewer(studio, ANNA)
    hers, his = studio.project(anna), studio.project(viewer(studio, BERT))
    folder = studio.settings.runs_dir / run_of(studio, ANNA).run_id
    adapter(studio, ANNA)
    upload = tmp_path / "mine.jsonl"
    upload.write_text('{"prompt": "x"}\n')
    kept = import_folder.copy_upload(studio.settings, upload, "mine.jsonl", anna.owner)
    later = datetime.now(UTC) + visitors.LIFETIME + timedelta(minutes=1)
    studio.db.update("projects", {"project_id": his.project_id}, created_at=later)
    assert studio.visitors.remove_old(later) == 1
    for table in ("projects", "prompts", "completions", "pairs", "runs", "models"):
        assert studio.db.value(f"select count(*) from {table} where project_id = ?", [hers.project_id]) == 0, table
    assert not folder.exists()
    assert not kept.exists()
    assert projects.get(studio.db, his.project_id).project_id == his.project_id
    again = studio.project(anna)  # the cookie lives on: a new visit begins
    assert again.project_id != hers.project_id


def test_every_page_says_what_a_visitor_has(studio: Studio) -> None:
    page = build(HomePage(studio))
    assert "removed after a day" in shown(call(page.show, request(ANNA)))


def test_faults_are_told_in_words() -> None:
    def broken() -> None:
        raise KeyError("a detail of the code")

    def refused() -> Iterator[int]:
        yield 1
        raise LimitReached("Five at most.")

    with pytest.warns(UserWarning, match="Something went wrong in the app itself") as told:
        assert guarded(broken)() == gr.skip()
    assert not any("a detail of the code" in str(one.message) for one in told)
    with pytest.warns(UserWarning, match="Five at most"):
        assert list(guarded(refused)()) == [1, gr.skip()]
