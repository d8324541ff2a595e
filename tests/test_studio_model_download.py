"""A model fetched through the Models page from a hub on the loopback interface, by the real library over real HTTP."""

from __future__ import annotations

import html
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hub_server import HubServer
from page_browser import settled
from run_studio import VIEWER, labelled_project, studio_with_runs

from studio import local_models
from studio.context import Studio
from studio.demo_project import MODEL
from studio.model_download import UNREACHABLE, Download
from studio.models_page import ModelsPage

pytestmark = [
    pytest.mark.app,
    pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="the demo model's weights are not in data/demo/model"),
]
NAME = "someone/small-model"
WEIGHTS = "model.safetensors"
NOBODY = cast(Any, None)  # the request of whoever sits at this machine


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """It holds the demo model and, beside it, what is not to be fetched."""
    from huggingface_hub import constants

    files = {file.name: file.read_bytes() for file in MODEL.iterdir() if file.is_file()}
    server = HubServer(NAME, files | {"pytorch_model.bin": b"a pickle", "modeling.py": b"code"}, "models")
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "DOWNLOAD_CHUNK_SIZE": 2**16,
        "HF_HUB_DOWNLOAD_TIMEOUT": 600,  # what is held back is not asked for again
    }.items():
        monkeypatch.setattr(constants, name, value)
    yield server
    for held in server.held.values():
        held.set()
    server.close()


@pytest.fixture
def studio(settings: Any, db: Any) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        labelled_project(opened, 2)
        yield opened


@pytest.fixture
def form(studio: Studio) -> ModelsPage:
    return ModelsPage(studio)


def add(form: ModelsPage, name: str = NAME) -> None:
    form.add_local(name, "base", False, NOBODY)


def download(form: ModelsPage) -> Download:
    now = form._downloads.now
    assert now is not None
    return now


def says(form: ModelsPage) -> str:
    """The line below the button, as the page's timer asks for it."""
    return html.unescape(re.sub(r"<[^>]*>", "", str(form.watch(NOBODY)[-2])))


def until(form: ModelsPage, there: Callable[[str], bool]) -> str:
    while True:
        failed = bool(download(form).error)  # asked first: it may fail between the two, and then the next line says so
        if there(said := says(form)):
            return said
        assert not failed, said
        time.sleep(0.01)


def is_over(said: str) -> bool:
    return not said.startswith("Fetching")


def listed(studio: Studio) -> list[str]:
    return [model.name for model in studio.models(VIEWER)]


def test_a_model_is_fetched_with_its_progress_and_then_listed(hub: HubServer, form: ModelsPage, studio: Studio) -> None:
    hub.held[WEIGHTS] = threading.Event()
    add(form)
    size = sum((MODEL / name).stat().st_size for name in hub.files if name.endswith((".safetensors", ".json", ".jinja", ".txt")))
    half = (MODEL / WEIGHTS).stat().st_size / 2
    until(form, lambda said: download(form).fetched > size - half - 2**17)  # all but the second half
    now = download(form)
    assert (now.total, now.done, now.error) == (size, False, "")
    assert now.fetched <= size - half
    assert says(form) == f"Fetching {NAME}: {now.fetched / 1e6:,.0f} of {size / 1e6:,.0f} MB"
    assert "small-model" not in listed(studio)
    hub.held[WEIGHTS].set()
    assert until(form, is_over) == f"{NAME} is here."
    assert (download(form).fetched, download(form).done) == (size, True)
    assert not {"pytorch_model.bin", "modeling.py", "README.md"} & set(hub.sent), "no code and no pickle"
    (model,) = [each for each in studio.models(VIEWER) if each.name == "small-model"]
    assert model.spec["base"] == NAME
    folder = local_models.folder_of(NAME)
    assert folder is not None
    assert (folder / WEIGHTS).read_bytes() == (MODEL / WEIGHTS).read_bytes()
    asked = len(hub.sent)
    add(form)  # it is here already
    assert len(hub.sent) == asked


def test_one_that_breaks_off_says_so_and_is_gone_on_with(
    hub: HubServer, form: ModelsPage, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    hub.cut.add(WEIGHTS)
    add(form)
    assert until(form, is_over) == f"{NAME} broke off while it was fetched; try again: the files that are whole are kept."
    assert "small-model" not in listed(studio)
    assert local_models.folder_of(NAME) is None
    hub.cut.clear()
    hub.sent.clear()
    add(form)
    assert until(form, is_over) == f"{NAME} is here."
    assert hub.sent == [WEIGHTS], "what was whole is not fetched again"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda hub: setattr(hub, "name", "someone/else"),
            f"The hub knows no model {NAME} (or it is private); check the spelling.",
        ),
        (lambda hub: setattr(hub, "gated", True), f"{NAME} is gated: accept its terms on the hub and set HF_TOKEN"),
        (lambda hub: hub.files.pop(WEIGHTS), f"{NAME} has no weights in safetensors; choose another model."),
        (lambda hub: hub.files.pop("chat_template.jinja"), f"{NAME} has no chat template"),
        (HubServer.close, UNREACHABLE),
    ],
    ids=["unknown", "gated", "pickles only", "no template", "down"],
)
def test_what_cannot_be_had_is_said_in_a_sentence(
    hub: HubServer, form: ModelsPage, studio: Studio, spoil: Callable[[HubServer], object], sentence: str
) -> None:
    spoil(hub)
    add(form)
    assert sentence in until(form, is_over)
    assert "small-model" not in listed(studio)


def test_parts_that_a_killed_process_left_do_not_count(hub: HubServer, form: ModelsPage, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "models--someone--small-model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.0123abcd.incomplete").write_bytes(b"x" * 2**24)
    add(form)
    until(form, is_over)
    now = download(form)
    assert (now.fetched, now.error) == (now.total, "")


def comes(app: Any, page: Any, where: str, text: str) -> None:
    """Wait for it as long as it takes, but not once the app has ended or says that it cannot be."""
    while not page.locator(where, has_text=text).count():
        assert app.process.poll() is None, app.log.read_text()[-3000:]
        assert page.locator(f"{where} .st-note.bad, .toast-body").all_inner_texts() == []
        page.wait_for_timeout(100)


@pytest.mark.browser
@pytest.mark.model
@pytest.mark.slow(reason="starts the app, a browser and the model worker with its imports")
def test_what_was_fetched_answers(hub: HubServer, serve_app: Callable[..., Any], page: Any, tmp_path: Path) -> None:
    """As a person does it: named on the Models page, fetched, found in the list, asked."""
    app = serve_app(env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")})
    page.goto(f"{app.url}/models")
    field = page.locator("#add-hub input")
    field.wait_for()
    settled(page)
    field.fill(NAME)
    field.press("Enter")
    page.locator("#add-go").click()
    comes(app, page, "#add-progress", f"{NAME} is here.")
    page.locator("#models-list td", has_text="small-model").first.wait_for()
    page.locator("#try-model input").click()
    page.get_by_role("option", name="small-model").click()
    page.locator("#try-prompt textarea").fill("What is the capital of France?")
    page.locator("#try-go").click()
    comes(app, page, "#try-answer", "The capital of France is")
    assert "small-model" in page.locator("#try-answer").inner_text()
