"""Visitors: each has a project of their own for a day, with limits, and cannot see or touch anybody else's.

The handlers are called as the browser calls them, with ids of the other visitor's rows where a hostile browser would put them.
"""

from __future__ import annotations

import gzip
import inspect
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import gradio as gr
import pytest
from conftest import ROOT
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from data import completions, import_folder, models, projects, prompts, runs
from data.engine import Message, ModelSpec
from data.errors import BadInput, LimitReached, NotFound, StudioError, WorkspaceError
from data.import_folder import folder_of
from data.records import Model, Project, Run, now
from data.settings import Settings
from studio import visitors
from studio.compare_page import ComparePage
from studio.context import VISITOR_COOKIE, Studio, Viewer, open_studio
from studio.data_page import DataPage
from studio.frame import guarded
from studio.home_page import HomePage
from studio.models_page import ModelsPage
from studio.offers import Offers
from studio.offers import routes as offer_routes
from studio.runs_page import RunsPage
from studio.security import SecurityMiddleware
from studio.side_by_side import Asked, ask
from studio.train_page import TrainPage
from studio.visitors import RunSize

pytestmark = pytest.mark.app

ANNA, BERT = "a" * 32, "b" * 32


class Request(NamedTuple):
    """As much of a request as handlers use."""

    cookies: dict[str, str]
    query_params: dict[str, str] = {}


def request(token: str, **query: str) -> Any:
    return Request({VISITOR_COOKIE: token}, query)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with open_studio(Settings(home=tmp_path / "workspace", visitor=True)) as opened:
        yield opened


def viewer(studio: Studio, token: str) -> Viewer:
    return studio.viewer(request(token))


def adapter(studio: Studio, token: str, name: str = "adapter") -> Model:
    who = viewer(studio, token)
    spec = ModelSpec("local", base="nowhere", adapter="nowhere").to_json()
    made = models.new(name, "adapter", spec, studio.project(who).project_id, who.owner)
    return models.add(studio.db, made)


def run_of(studio: Studio, token: str, kind: Any = "dpo", **fields: Any) -> Run:
    """A row and a folder of a run that has ended."""
    who = viewer(studio, token)
    row: dict[str, Any] = {
        "run_id": f"run{token[:4]}{kind}",
        "project_id": studio.project(who).project_id,
        "owner": who.owner,
        "kind": kind,
        "name": f"secret run of {token[:4]}",
        "module": "training.dpo",
        "status": "finished",
        "device": "cpu",
        "config": {},
        "snapshot_id": "",
        "pid": 0,
        "pid_created": 0.0,
        "event_offset": 0,
        "progress": {},
        "result": {"rows": 3},
        "error": "",
        "queued_at": now(),
    }
    made = runs.add(studio.db, Run(**{**row, **fields}))
    folder = studio.settings.runs_dir / made.run_id
    folder.mkdir()
    (folder / "stdout.log").write_text(f"secret log of {token[:4]}")
    return made


def answered(who: Viewer, project: Project, model: Model, **fields: Any) -> Asked:
    """A question on the Compare page whose two answers are there."""
    request = ask("hi", "", 0.8, 16, 1)
    return Asked(who.owner, project.project_id, "hi", request, (model, model), ("one", "two"), **{"whole": True, **fields})


def shown(value: Any) -> str:
    """Everything a handler sends to the browser, as one text."""
    if isinstance(value, gr.components.Component | gr.blocks.Block):
        return json.dumps(value.get_config(), default=str)
    if isinstance(value, list | tuple):
        return "".join(shown(v) for v in value)
    return json.dumps(value, default=str)


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


P = TypeVar("P")


def build(page: P) -> P:
    """The page with its components."""
    with gr.Blocks() as demo:
        page.build(demo)  # type: ignore[attr-defined]
    return page


def call(handler: Callable[..., Any], *args: Any) -> Any:
    """What the handler sends, or the error that its guard would tell in words."""
    said = handler(*args)
    return list(said) if inspect.isgenerator(said) else said


# --- nobody sees another's rows ---


def test_pages_show_a_visitor_nothing_of_another(studio: Studio) -> None:
    adapter(studio, BERT, "secret adapter")
    run_of(studio, BERT)
    his = studio.project(viewer(studio, BERT))
    prompts.add(studio.db, [prompts.new(his.project_id, [Message("user", "secret prompt")])])
    pages = (HomePage, DataPage, ModelsPage, TrainPage, RunsPage, ComparePage)
    for page in [build(page(studio)) for page in pages]:
        load = page.show if isinstance(page, HomePage) else page.load
        sent = shown(call(load, request(ANNA)))
        assert "secret" not in sent, page.title
        assert his.project_id not in sent, page.title
        if not isinstance(page, DataPage):  # his prompt is on its last page of prompts
            assert "secret" in shown(call(load, request(BERT))), page.title


def test_anothers_run_cannot_be_watched_or_stopped(studio: Studio) -> None:
    his = run_of(studio, BERT)
    page = build(RunsPage(studio))
    for handler in (page.end, page.compare_it, page.resume, page.end_group):
        with pytest.raises(StudioError, match="does not exist"):
            call(handler, his.run_id, request(ANNA))
    with pytest.raises(StudioError, match="does not exist"):
        call(page.refresh, his.run_id, "", "", request(ANNA))
    for to in ("first", "out"):
        with pytest.raises(StudioError, match="does not exist"):
            page.controls.move(studio.viewer(request(ANNA)), his.run_id, to)
    with pytest.raises(StudioError, match="does not exist"):
        call(page.load, request(ANNA, run=his.run_id))
    assert "secret log" in shown(call(page.refresh, his.run_id, "", "", request(BERT)))


def test_anothers_comparison_cannot_be_read(studio: Studio) -> None:
    his = run_of(studio, BERT, "compare")
    tab = ComparePage(studio).results
    with gr.Blocks():
        tab.build()
    for handler, args in ((tab.choose, ()), (tab.first, ("all", 0)), (tab.next, ("all", 0))):
        with pytest.raises(StudioError, match="does not exist"):
            call(handler, his.run_id, *args, request(ANNA))


def test_anothers_model_cannot_be_used_renamed_or_removed(studio: Studio) -> None:
    his = adapter(studio, BERT)
    page, train = build(ModelsPage(studio)), build(TrainPage(studio))
    compare, data = build(ComparePage(studio)), build(DataPage(studio))
    anna = request(ANNA)
    with pytest.raises(StudioError, match="not in the list"):
        call(page.ask, anna, his.model_id, "hello")
    with pytest.raises(StudioError, match="not in the list"):
        call(compare.ask.ask, anna, [his.model_id], "hello", "", 0.8, 64, True)
    for handler, args in (
        (page.rename_model, (his.model_id, "mine now", anna)),
        (page.remove_model, (his.model_id, anna)),
        (train.choose, (anna, "dpo", his.model_id, "", "")),
        (train.start, (anna, "dpo", his.model_id, "run")),
        (data.generate.start, (his.model_id, 2, "all", 5, 0.8, 1, 64, "", anna)),
        (compare.judge.start, (his.model_id, "demo-model", "rules", "all", 5, 1, 0.8, 64, anna)),
    ):
        with pytest.raises(StudioError, match="not in the list"):
            call(handler, *args)
    assert models.get(studio.db, his.model_id).name == "adapter"
    assert models.get(studio.db, his.model_id).removed_at is None


def test_anothers_prompt_cannot_be_opened(studio: Studio) -> None:
    his = prompts.of_project(studio.db, studio.project(viewer(studio, BERT)).project_id, limit=1)[0]
    stored = completions.add(studio.db, [completions.new(his, "a secret answer", "imported", "someone")])
    assert stored == 1
    tab = DataPage(studio).prompts
    event = gr.EventData(None, {"prompt": his.prompt_id})
    assert "a secret answer" in shown(call(tab.show, event, request(BERT), "", "all", 0))
    assert "a secret answer" not in shown(call(tab.show, event, request(ANNA), "", "all", 0))


def test_anothers_upload_and_files_outside_cannot_be_imported(studio: Studio, tmp_path: Path) -> None:
    upload = tmp_path / "mine.jsonl"
    upload.write_text('{"prompt": "a secret prompt"}\n')
    kept = import_folder.copy_upload(studio.settings, upload, "mine.jsonl", viewer(studio, BERT).owner)
    tab = DataPage(studio).imports
    with gr.Blocks():
        tab.build()
    meaning = ["prompts", "prompt", *[""] * 9]
    assert "1 prompt" in shown(call(tab.load_file, request(BERT), kept.name, *meaning))
    hostile = [kept.name, str(kept), f"../{kept.parent.name}/{kept.name}", str(studio.settings.db_path), "/etc/passwd", "../../x"]
    for name in hostile:
        with pytest.raises(StudioError):
            call(tab.load_file, request(ANNA), name, *meaning)
        with pytest.raises(StudioError):
            call(tab.chosen, name, request(ANNA))


def test_a_download_goes_to_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("{}")
    offers = Offers()
    token = offers.add(file, file.name, "anna").removeprefix("download/")
    assert offers.get(token, "bert") is None
    assert offers.get("x", "anna") is None
    found = offers.get(token, "anna")
    assert found is not None
    assert found.path == file


def test_a_file_that_is_longer_than_its_preview_is_not_taken_in(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.importers.PREVIEW_ROWS", 3)
    monkeypatch.setattr(
        visitors, "MAX_PROMPTS", projects.counts(studio.db, studio.project(viewer(studio, ANNA)).project_id).prompts + 2
    )
    who = viewer(studio, ANNA)
    folder = folder_of(studio.settings.import_dir, who.owner)
    folder.mkdir(parents=True)
    rows = ["same"] * 4 + [f"another {n}" for n in range(9)]
    (folder / "long.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in rows))
    tab = DataPage(studio).imports
    before = projects.counts(studio.db, studio.project(who).project_id).prompts
    with pytest.raises(LimitReached, match="too many rows"):
        tab.load_file(request(ANNA), "long.jsonl", "prompts", "prompt", *[""] * 9)
    assert projects.counts(studio.db, studio.project(who).project_id).prompts == before


def test_old_downloads_go_with_their_files_only_where_they_are_a_visitors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.offers.KEPT", 2)
    offers = Offers()

    def make(owner: str, number: int) -> str:
        file = tmp_path / f"{owner}-{number}.zip"
        file.write_text("{}")
        return offers.add(file, file.name, owner).removeprefix("download/")

    backup, bert = make("", 0), make("bert", 0)
    for number in range(1, 4):
        make("", number)
        make("anna", number)
    assert offers.get(bert, "bert") is not None  # what others make does not take it away
    assert offers.get(backup, "") is None
    assert (tmp_path / "-0.zip").exists()  # a backup that the page said lies in the export folder
    assert not (tmp_path / "anna-1.zip").exists()
    for _ in range(4):
        again = make("anna", 3)
    assert offers.get(again, "anna") is not None, "the same file, made once more"
    offers.forget("anna")
    assert not list(tmp_path.glob("anna-*")), "whoever has gone leaves no file"
    assert (tmp_path / "bert-0.zip").exists()


def test_a_vote_needs_ones_own_question(studio: Studio) -> None:
    tab = ComparePage(studio).ask
    bert = viewer(studio, BERT)
    his = studio.project(bert)
    model = adapter(studio, BERT)
    token = tab._memory.add(answered(bert, his, model))
    for handler in (tab.vote_a, tab.show_names):
        with pytest.raises(StudioError, match="ask again"):
            call(handler, token, request(ANNA))
    call(tab.vote_a, token, request(BERT))
    call(tab.vote_a, token, request(BERT))  # a second press is the same vote
    assert projects.counts(studio.db, his.project_id).labels == 1


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


# --- what a visitor brings and takes along ---


def fetch(studio: Studio, address: str, token: str) -> Any:
    """A download as a browser with this cookie gets it."""
    app = Starlette(
        routes=[Route("/", lambda _: Response("")), *offer_routes(studio)],
        middleware=[Middleware(SecurityMiddleware, settings=studio.settings)],
    )
    return TestClient(app, base_url="http://127.0.0.1").get(f"/{address}", headers={"cookie": f"{VISITOR_COOKIE}={token}"})


EVERY_LABEL = ("majority", "drop", (), (), "", "", True, True)  # what the export form holds when nothing was chosen


def test_an_export_goes_to_its_visitor_alone_and_goes_with_the_project(studio: Studio) -> None:
    anna, tab = viewer(studio, ANNA), DataPage(studio).export
    made = str(tab.export(request(ANNA), "prompts", "jsonl", True, "", *EVERY_LABEL))
    address = re.search(r"download/[\w-]+", made)
    assert address is not None
    (file,) = list(studio.settings.export_dir.rglob("*.jsonl"))
    assert file.is_relative_to(import_folder.folder_of(studio.settings.export_dir, anna.owner))
    assert anna.owner not in str(file)
    assert fetch(studio, address[0], ANNA).text == file.read_text()
    for other in (BERT, "", "x"):
        refused = fetch(studio, address[0], other)
        assert refused.status_code in (403, 404)
        assert "prompt" not in refused.text
    later = datetime.now(UTC) + visitors.LIFETIME + timedelta(minutes=1)
    assert studio.visitors.remove_old(later) == 1
    assert not list(studio.settings.export_dir.rglob("*.jsonl"))
    assert fetch(studio, address[0], ANNA).status_code == 404
    assert studio.offers.get(address[0].removeprefix("download/"), anna.owner) is None


def parquet(path: Path, texts: Any, **how: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": texts}), path, **how)


def gzipped(path: Path, line: bytes, times: int) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(times):
            file.write(line)


def bombs(folder: Path) -> list[Path]:
    """Files of less than a megabyte that are up to gigabytes of text."""
    import pyarrow as pa

    names = ("many.jsonl.gz", "blank.jsonl.gz", "long.csv.gz", "said.parquet", "packed.parquet", "tasks.jsonl")
    many, blank, long, said, packed, tasks = made = [folder / name for name in names]
    gzipped(many, json.dumps({"prompt": "x" * 10_000}).encode() + b"\n", 2_000)
    gzipped(blank, b" " * 10_000 + b"\n", 2_000)
    gzipped(long, b"prompt\n" + b"x" * 1_000_000, 20)
    parquet(said, pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 300_000])))
    parquet(packed, ["x" * 4_000_000] * 3, compression="zstd", use_dictionary=False)
    row = {"instruction": "x" * 400_000, "instances": [{"input": "", "output": str(n)} for n in range(10_000)]}
    tasks.write_text(json.dumps(row) + "\n" + json.dumps({"instruction": "a", "instances": [{"output": "b"}]}))
    return made


READ = r"""
import re, sys
from pathlib import Path
from data import importers
from data.errors import StudioError
from data.settings import Settings
for name in sys.argv[3:]:
    try:
        print(name, [p.reason for p in importers.read(Settings(Path(sys.argv[1])), Path(name), limit=int(sys.argv[2])).problems])
    except StudioError as error:
        print(name, error)
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_early(studio: Studio, tmp_path: Path) -> None:
    """Each ends in a sentence before more of it is in memory than a visitor may bring."""
    tab = DataPage(studio).imports
    with gr.Blocks():
        tab.build()
    before = projects.counts(studio.db, studio.project(viewer(studio, ANNA)).project_id)
    made = bombs(tmp_path)
    for file in made:
        assert file.stat().st_size < studio.settings.max_upload_bytes, file
        (studio.settings.import_dir / file.name).write_bytes(file.read_bytes())
    with pytest.raises(LimitReached, match="unpacks to more than 16 MB"):
        call(tab.uploaded, str(made[0]), request(ANNA))
    args = [sys.executable, "-c", READ, str(studio.settings.home), str(visitors.MAX_UNPACKED), *(file.name for file in made)]
    *said, memory = subprocess.run(args, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    words = ["unpacks to more than 16 MB"] * 4 + ["is packed with ZSTD", "would repeat the instruction"]
    for line, expected in zip(said, words, strict=True):
        assert expected in line, line
    assert int(memory) < 300 * 1024, "of which pyarrow and the interpreter are half"
    assert projects.counts(studio.db, studio.project(viewer(studio, ANNA)).project_id) == before


def test_texts_of_a_visitor_have_an_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    who, tab = viewer(studio, ANNA), DataPage(studio).imports
    project = studio.project(who)
    monkeypatch.setattr(visitors, "MAX_CHARACTERS", studio.visitors._characters(project) + 1_000)
    tab.add_typed("x" * 900, request(ANNA))
    with pytest.raises(LimitReached, match="characters of prompts and answers"):
        tab.add_typed("y" * 900, request(ANNA))
    folder = folder_of(studio.settings.import_dir, who.owner)
    folder.mkdir(parents=True)
    (folder / "long.jsonl").write_text(json.dumps({"prompt": "short", "completion": "z" * 2_000}))
    with pytest.raises(LimitReached, match="characters of prompts and answers"):
        tab.load_file(request(ANNA), "long.jsonl", "demonstrations", "prompt", "", "completion", *[""] * 7)
    tab.add_typed("short", request(ANNA))


def test_a_visitors_older_uploads_go(studio: Studio, tmp_path: Path) -> None:
    tab = DataPage(studio).imports
    with gr.Blocks():
        tab.build()
    for number in range(visitors.MAX_UPLOADS_KEPT + 3):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(json.dumps({"prompt": f"prompt {number}"}))
        call(tab.uploaded, str(file), request(ANNA))
    kept = folder_of(studio.settings.import_dir, viewer(studio, ANNA).owner)
    assert sorted(path.name for path in kept.iterdir()) == [f"{number}.jsonl" for number in range(3, 8)]


def test_a_visitor_is_never_told_a_path(studio: Studio) -> None:
    tab = DataPage(studio).imports
    for name in ("x.jsonl", "../x.jsonl", str(studio.settings.db_path), "/etc/passwd", "a\0b", "x" * 5_000):
        with pytest.raises(StudioError) as told:
            call(tab.chosen, name, request(ANNA))
        assert "/" not in str(told.value), name


# --- shared parts ---


def test_a_visitor_has_some_answers_at_a_time(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one visitor leave the others' alone; a stopped one is free at once, one that hangs is free in the end."""
    going = threading.Event()

    def endless(*_: Any) -> list[Callable[[], Iterator[str]]]:
        def pieces() -> Iterator[str]:
            while not going.is_set():
                yield "x"
                going.wait(0.02)

        return [pieces]

    monkeypatch.setattr("studio.ask_tab.streams", endless)
    monkeypatch.setattr("studio.models_page.streams", endless)
    compare, page = build(ComparePage(studio)).ask, build(ModelsPage(studio))

    def ask_one(token: str) -> Iterator[Any]:
        answer = compare.ask(request(token), ["demo-model"], "hello", "", 0.8, 64, True)
        next(answer)
        next(answer)
        return answer

    first, _second = ask_one(ANNA), ask_one(ANNA)
    with pytest.raises(LimitReached, match="still being answered"):
        ask_one(ANNA)
    with pytest.raises(LimitReached, match="still being answered"):
        list(page.ask(request(ANNA), "demo-model", "hello"))
    ask_one(BERT).close()  # type: ignore[attr-defined]
    first.close()  # type: ignore[attr-defined]
    third = ask_one(ANNA)
    much_later = time.monotonic() + visitors.STREAM_S
    monkeypatch.setattr("studio.pace.time.monotonic", lambda: much_later)
    ask_one(ANNA).close()  # type: ignore[attr-defined]
    going.set()
    list(third)


def test_a_forged_prompt_of_any_length_is_refused(studio: Studio) -> None:
    tab = build(ComparePage(studio)).ask
    for prompt, system in (("x" * 20_001, ""), ("x", "x" * 20_001)):
        with pytest.raises(StudioError, match="at most 20,000"):
            call(tab.ask, request(ANNA), ["demo-model"], prompt, system, 0.8, 64, True)


def test_a_vote_that_could_not_be_stored_can_be_given_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, anna = ComparePage(studio).ask, viewer(studio, ANNA)
    project, model = studio.project(anna), adapter(studio, ANNA)
    token = tab._memory.add(answered(anna, project, model))
    with monkeypatch.context() as broken:
        broken.setattr("studio.ask_tab.preferences.cast", lambda *_: (_ for _ in ()).throw(WorkspaceError("The disk is full.")))
        with pytest.raises(WorkspaceError, match="full"):
            tab.vote_a(token, request(ANNA))
    assert projects.counts(studio.db, project.project_id).labels == 0
    with ThreadPoolExecutor(8) as pool:  # two presses at once, or eight, are one vote
        list(pool.map(lambda _: tab.vote_a(token, request(ANNA)), range(8)))
    assert projects.counts(studio.db, project.project_id).labels == 1
    tab.vote_b(token, request(ANNA))
    assert [row["preference"] for row in studio.db.rows("select preference from label_events")] == ["a"]


def test_a_vote_that_is_not_blind_is_refused_whoever_sends_it(studio: Studio) -> None:
    """The buttons are gone by then, so only a forged event (or one from a second tab) comes this far."""
    tab, anna = ComparePage(studio).ask, viewer(studio, ANNA)
    project, model = studio.project(anna), adapter(studio, ANNA)
    memory, votes = tab._memory, (tab.vote_a, tab.vote_b, tab.vote_tie, tab.vote_bad)
    looked_first = memory.add(answered(anna, project, model))
    assert model.name in shown(call(tab.show_names, looked_first, request(ANNA)))
    for token, says in (
        (looked_first, "would not be blind"),
        (memory.add(answered(anna, project, model, named=True)), "would not be blind"),  # “Hide which is which” was off
        (memory.add(answered(anna, project, model, whole=False)), "until both answers are written"),
    ):
        for vote in votes:
            with pytest.raises(BadInput, match=says):
                call(vote, token, request(ANNA))
    assert projects.counts(studio.db, project.project_id).labels == 0
    blind = memory.add(answered(anna, project, model))
    assert "Answer 1 is better" in shown(call(tab.vote_a, blind, request(ANNA)))
    again = shown([call(tab.vote_b, blind, request(ANNA)), call(tab.show_names, blind, request(ANNA))])
    assert "Answer 1 is better" in again, "what it says is what is stored"
    assert "Answer 2 is better" not in shown(call(tab.vote_b, blind, request(ANNA)))
    assert [row["preference"] for row in studio.db.rows("select preference from label_events")] == ["a"]


@pytest.mark.parametrize("blind", [True, False])
def test_only_a_blind_question_asks_for_a_vote(studio: Studio, monkeypatch: pytest.MonkeyPatch, blind: bool) -> None:
    """From the press of “Ask them” to the forged vote."""
    tab, anna = build(ComparePage(studio)).ask, request(ANNA)
    adapter(studio, ANNA)
    other = next(model.model_id for model in studio.models(viewer(studio, ANNA)) if model.name == "adapter")
    monkeypatch.setattr(studio.visitors, "check_models", lambda *_: None)
    monkeypatch.setattr("studio.ask_tab.streams", lambda *_: [lambda: iter(["one"]), lambda: iter(["two"])])
    tokens: list[str] = []
    for update in tab.ask(anna, ["demo-model", other], "hello", "", 0.8, 64, blind):
        if isinstance(update[2], str):
            tokens.append(update[2])
            with pytest.raises(BadInput):
                call(tab.vote_a, tokens[0], anna)  # nothing is written yet
    assert update[3]["visible"] is blind
    assert ("names are hidden" in shown(update[4])) is not blind
    if blind:
        assert "Stored" in shown(call(tab.vote_a, tokens[0], anna))
    else:
        with pytest.raises(BadInput, match="not be blind"):
            call(tab.vote_a, tokens[0], anna)
    assert studio.db.value("select count(*) from label_events") == int(blind)


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
