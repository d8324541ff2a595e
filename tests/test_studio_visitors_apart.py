"""No visitor sees or touches what is another's.

The handlers are called as the browser calls them, with ids of the other visitor's rows where a hostile browser would put them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from visiting import ANNA, BERT, adapter, answered, build, call, request, run_of, shown, viewer, visited

from data import completions, import_folder, models, projects, prompts
from data.engine import Message
from data.errors import StudioError
from studio.compare_page import ComparePage
from studio.context import Studio
from studio.data_page import DataPage
from studio.home_page import HomePage
from studio.models_page import ModelsPage
from studio.runs_page import RunsPage
from studio.train_page import TrainPage

pytestmark = pytest.mark.app


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with visited(tmp_path) as opened:
        yield opened


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
