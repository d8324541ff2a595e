"""What goes wrong while somebody works: each fault ends in one sentence, and nothing stored is lost.

A project archived under a labelling hand, two start clicks at once, models and run folders that are gone, a server that never
stops, and a search for a typed key in everything the app writes or shows.
"""

from __future__ import annotations

import gzip
import inspect
import json
import logging
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import httpx
import psutil
import pytest
from at_once import at_once
from conftest import free_port
from fakes import FakeEngine
from http_app import served
from labelling import prompt, seed_project
from openai_server import OpenAIServer, openai_server
from run_studio import ended as is_over
from run_studio import wait

from data import labels, models, people, projects, prompts, runs
from data.engine import ModelSpec
from data.errors import LimitReached, StudioError
from data.records import Project, Run, now
from data.settings import Settings
from studio.compare_page import ComparePage
from studio.context import VISITOR_COOKIE, Studio, open_studio
from studio.data_page import DataPage
from studio.frame import FAULT, guarded
from studio.models_page import ModelsPage
from studio.runs_page import RunsPage
from studio.side_by_side import MAX_CHARACTERS
from studio.train_page import TrainPage
from studio.visitors import RunSize

pytestmark = pytest.mark.app

SECRET = "sk-typed-key-that-must-be-nowhere-7Qz"


class Request(NamedTuple):
    """As much of a request as handlers use."""

    cookies: dict[str, str] = {}
    query_params: dict[str, str] = {}


HERE: Any = Request()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with open_studio(Settings(home=tmp_path / "workspace")) as opened:
        yield opened


@pytest.fixture
def project(studio: Studio) -> Project:
    made = seed_project(studio.db, 6, name="Under way")
    people.set_open_project(studio.db, "local", made.project_id)
    return made


def build(page: Any) -> Any:
    with gr.Blocks() as demo:
        page.build(demo)
    return page


def call(handler: Callable[..., Any], *args: Any) -> Any:
    said = handler(*args)
    return list(said)[-1] if inspect.isgenerator(said) else said


def is_a_sentence(text: str) -> bool:
    return text.endswith(".") and "Traceback" not in text and FAULT not in text and "Error" not in text


# --- labelling ---


def test_a_project_archived_while_somebody_labels_loses_nothing(db: Any, settings: Settings) -> None:
    going, other = seed_project(db, 6, name="Going"), seed_project(db, 3, name="Other")
    people.ensure(db, "local", "You", "local")
    people.set_open_project(db, "local", going.project_id)
    with served(db, settings) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        items = client.get("/api/label/batch?n=6").json()["items"]
        votes = [{"id": str(uuid.uuid4()), "impression": i["id"], "event": "cast", "preference": "a"} for i in items]
        assert client.post("/api/label", json=votes[:2]).json()["results"][1]["accepted"]
        projects.archive(db, going.project_id)  # in another tab
        late = client.post("/api/label", json=votes).json()["results"]
        assert [one["accepted"] for one in late] == [True] * 6, "what was shown can be answered, what was said stays said"
        assert len(labels.current(db, going.project_id)) == 6
        after = client.get("/api/label/batch?n=6")
        assert after.status_code == 400
        assert "archived" in after.json()["error"]
        assert is_a_sentence(after.json()["error"])
        people.set_open_project(db, "local", other.project_id)
        assert client.get("/api/label/batch?n=6").json()["project"]["name"] == "Other"
        again = client.post("/api/label", json=votes).json()["results"]
        assert [one["accepted"] for one in again] == [True] * 6, "the outbox empties itself, whatever is open now"
    assert len(labels.current(db, going.project_id)) == 6


# --- runs ---


def test_two_start_clicks_of_a_visitor_are_one_run(tmp_path: Path) -> None:
    with open_studio(Settings(home=tmp_path / "workspace", visitor=True)) as studio:
        viewer = studio.viewer(Request({VISITOR_COOKIE: "a" * 32}))
        studio.project(viewer)
        told = []

        def click() -> None:
            try:
                studio.start_run(viewer, "generate", "tests.jobs_child", "one", {"args": {}}, {}, [], RunSize(1))
            except LimitReached as error:
                told.append(str(error))

        at_once([click] * 8)
        assert len(told) == 7
        assert all("one run at a time" in one for one in told)
        assert len(runs.of_project(studio.db, studio.project(viewer).project_id)) == 1
        ended(studio, 1)


def test_two_start_clicks_on_ones_own_machine_are_two_runs_one_after_the_other(studio: Studio, project: Project) -> None:
    viewer = studio.viewer(HERE)
    with ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(
                lambda n: studio.start_run(viewer, "generate", "tests.jobs_child", f"run {n}", {"args": {}}, {}, [], RunSize()),
                range(2),
            )
        )
    assert made[0].run_id != made[1].run_id
    assert {run.status for run in ended(studio, 2)} == {"finished"}


def ended(studio: Studio, number: int) -> list[Run]:
    """Wait until the runs, so many of them, are over."""
    found = [runs.get(studio.db, row["run_id"]) for row in studio.db.rows("select run_id from runs")]
    assert len(found) == number
    return [wait(studio.db, run.run_id, is_over) for run in found]


def add_run(studio: Studio, project: Project, run_id: str, kind: Any, status: Any, result: dict[str, Any]) -> Run:
    place = (run_id, project.project_id, "", kind, f"run {run_id}", "training.dpo", status, "cpu", {"args": {}}, "", 0, 0.0, 0)
    return runs.add(studio.db, Run(*place, {}, result, "", now(), now(), now()))


@pytest.mark.parametrize("kind", ["dpo", "generate", "compare", "hub_import"])
def test_a_run_whose_folder_was_deleted_is_still_shown(studio: Studio, project: Project, kind: Any) -> None:
    run = add_run(studio, project, "gone", kind, "finished", {})
    page = build(RunsPage(studio))
    with pytest.MonkeyPatch.context() as strict:
        strict.setattr("studio.frame.in_words", lambda error: (_ for _ in ()).throw(error))
        for shown in (
            guarded(page.load)(Request({}, {"run": run.run_id})),
            guarded(page.refresh)(run.run_id, "", "", HERE),
            guarded(page.end)(run.run_id, HERE),
        ):
            assert "run gone" in str(shown)
    with pytest.raises(StudioError) as told:
        page.compare_it(run.run_id, HERE)
    assert is_a_sentence(str(told.value))
    assert runs.get(studio.db, "gone").name == "run gone"


# --- models that are gone ---


def gone(studio: Studio, project: Project) -> dict[str, str]:
    """Model ids by what is missing of them."""
    from studio.demo_project import MODEL

    empty = studio.settings.runs_dir / "empty"
    empty.mkdir()
    specs = {
        "adapter folder": ModelSpec("local", str(MODEL), str(studio.settings.runs_dir / "deleted" / "adapter")),
        "adapter files": ModelSpec("local", str(MODEL), str(empty)),
        "base folder": ModelSpec("local", str(studio.settings.home / "deleted-base"), ""),
    }
    kinds: dict[str, Any] = {"base folder": "base"}
    added = {
        what: models.add(
            studio.db, models.new(what, kinds.get(what, "adapter"), spec.to_json(), project.project_id, run_id="deleted")
        )
        for what, spec in specs.items()
    }
    return {what: model.model_id for what, model in added.items()}


def test_an_address_opens_its_tab_of_compare(studio: Studio, project: Project) -> None:
    page = build(ComparePage(studio))
    asked: tuple[dict[str, str], ...] = ({}, {"tab": "chat"}, {"tab": "judge"}, {"tab": "results"}, {"tab": "odd"}, {"run": "x"})
    opened = [page.load(Request(query_params=query))[1].selected for query in asked]
    assert opened == ["ask", "ask", "judge", "results", "ask", "judge"]


@pytest.mark.model
def test_models_whose_files_are_gone_say_so_side_by_side(studio: Studio, project: Project) -> None:
    ids = gone(studio, project)
    compare, page = build(ComparePage(studio)), build(ModelsPage(studio))
    *_, last = compare.ask.ask(HERE, list(ids.values()), "hello", "", 0.0, 16, False)
    shown = str(last[0])
    for what in ids:
        assert f"{what}: " in shown, shown
    assert shown.count("st-note") == 3
    assert FAULT not in shown
    assert "Traceback" not in shown
    assert last[3]["visible"] is False, "there is nothing to vote on"
    *_, one = page.ask(HERE, ids["adapter folder"], "hello")
    assert "st-note" in str(one[0])
    assert projects.counts(studio.db, project.project_id).labels == 0


# --- a server without end ---


@pytest.fixture
def endless(studio: Studio, project: Project) -> Iterator[tuple[OpenAIServer, str]]:
    with openai_server(FakeEngine("x")) as server:
        spec = ModelSpec("endpoint", base="m", url=server.url("endless")).to_json()
        yield server, models.add(studio.db, models.new("Endless", "endpoint", spec)).model_id


def reading_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if "(read)" in t.name]


def test_an_answer_without_end_is_ended_and_said_to_be(studio: Studio, endless: tuple[OpenAIServer, str]) -> None:
    *_, last = build(ComparePage(studio)).ask.ask(HERE, [endless[1]], "hello", "", 0.0, 16, True)
    assert "did not stop" in str(last[0])
    assert len(str(last[0])) < MAX_CHARACTERS * 3
    assert quiet()


def test_an_answer_without_end_can_be_stopped(studio: Studio, endless: tuple[OpenAIServer, str]) -> None:
    asking = build(ComparePage(studio)).ask.ask(HERE, [endless[1]], "hello", "", 0.0, 16, True)
    for _ in range(3):
        next(asking)
    asking.close()  # what Gradio does at a press of Stop, and when the tab is closed
    assert quiet()


def quiet() -> bool:
    """Nothing goes on reading from a server; waits for it."""
    while reading_threads():
        time.sleep(0.02)
    return True


@pytest.mark.browser
def test_stop_ends_an_answer_in_the_browser_and_at_the_server(studio: Studio, page: Any) -> None:
    from studio.ui import build_ui, launch_options

    words: list[float] = []

    def slowly() -> None:
        words.append(time.monotonic())
        time.sleep(0.25)

    with openai_server(FakeEngine("more " * 1_000, pause=slowly)) as server:
        spec = ModelSpec("endpoint", base="m", url=server.url()).to_json()
        slow = models.add(studio.db, models.new("Slow", "endpoint", spec))
        object.__setattr__(studio.settings, "port", free_port())
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        try:
            page.goto(f"http://127.0.0.1:{studio.settings.port}/models?model={slow.model_id}")
            page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
            page.locator("#try-go").click()
            page.locator("#try-answer .text.live", has_text="more more").wait_for()
            page.get_by_role("button", name="Stop").click()
            page.get_by_role("button", name="Stop").wait_for(state="hidden")
            assert quiet()
            while time.monotonic() - words[-1] < 1:
                time.sleep(0.1)
        finally:
            demo.close(verbose=False)
        assert len(words) < 200, "of 256 that were asked for"


# --- secrets ---


def holds(blob: bytes) -> bool:
    """Whether the key is in it, also inside of what is packed."""
    if SECRET.encode() in blob:
        return True
    if blob[:2] == b"\x1f\x8b":
        return holds(gzip.decompress(blob))
    return False


@pytest.mark.model
def test_a_typed_key_is_nowhere_but_in_memory(
    studio: Studio, project: Project, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Type a key, test it, save it, generate with it as a run, have the server throw it back, back up; then search everything."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    with openai_server(FakeEngine([f"answer {n}" for n in range(40)])) as server:
        page, data = build(ModelsPage(studio)), build(DataPage(studio))
        for behaviour in ("401", "ok"):
            handlers = (page.test_endpoint, page.save_endpoint)
            shown += [str(call(h, behaviour, server.url(behaviour), "m", SECRET, "", HERE)) for h in handlers]
        saved = {m.name: m for m in models.visible(studio.db, project.project_id, "") if m.name in ("401", "ok")}
        assert {studio.keys.of(m) for m in saved.values()} == {SECRET}
        *_, refused = page.ask(HERE, saved["401"].model_id, "hello")
        shown.append(str(refused))
        assert "st-note" in shown[-1]
        prompts.add(studio.db, [prompt(project, "A question of its own")])
        child, lines = threading.Event(), []
        watching = threading.Thread(target=watch_children, args=(child, lines))
        watching.start()
        try:
            for model in saved.values():
                data.generate.start(model.model_id, 2, "new", 1, 0.8, 1, 64, "", HERE)
            found = ended(studio, 2)
        finally:
            child.set()
            watching.join()
        assert {run.status for run in found} == {"finished", "failed"}, found
        assert f"Bearer {SECRET}" in {asked.headers.get("Authorization") for asked in server.asked}
    assert any("labeling.generate" in line for line in lines), "a child was seen"
    assert [line for line in lines if SECRET in line] == []
    pages = [build(p(studio)) for p in (ModelsPage, RunsPage, ComparePage, DataPage, TrainPage)]
    shown += [json.dumps(p.load(HERE), default=str) for p in pages]
    shown += [str(build(RunsPage(studio)).refresh(run.run_id, "", "", HERE)) for run in found]
    assert [text for text in shown if SECRET in text] == []
    assert SECRET not in caplog.text
    where_is_it(studio, tmp_path)


def watch_children(over: threading.Event, lines: list[str]) -> None:
    """The command lines of this process's children and theirs, as `ps` shows them to anybody."""
    while not over.wait(0.02):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))


def where_is_it(studio: Studio, tmp_path: Path) -> None:
    """Search the database's tables, every file of the workspace, the backup, and the page's configuration."""
    tables = [row["table_name"] for row in studio.db.rows("select table_name from duckdb_tables() where not internal")]
    assert "models" in tables
    for table in tables:
        assert SECRET not in str(studio.db.rows(f"select * from {table}")), table
    backup = studio.db.backup(tmp_path / "backup.zip")
    with zipfile.ZipFile(backup) as archive:
        assert "studio.duckdb" in archive.namelist()
        assert [name for name in archive.namelist() if holds(archive.read(name))] == []
    files = [file for file in studio.settings.home.rglob("*") if file.is_file()]
    assert any(file.name == "stdout.log" for file in files)
    assert [file for file in files if holds(file.read_bytes())] == []
    from studio.ui import build_ui

    assert SECRET not in json.dumps(build_ui(studio).get_config_file(), default=str)
