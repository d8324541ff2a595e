"""The pages in a real browser, served from this process so that a test can look into the same database.

What counts is what is stored, never what a page says it did. The loop with a model is in `test_loop_browser.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import SCREENSHOTS, free_port
from fakes import FakeEngine
from labelling import completion, prompt, seed_project
from openai_server import openai_server
from page_browser import hand_over, open_part, settled
from run_studio import ended, wait

from data import completions, importers, models, people, projects, prompts
from data.database import Database
from data.engine import ModelSpec
from data.records import Project
from data.settings import Settings
from studio.context import Studio, open_studio
from studio.import_tab import CHANGEABLE

pytestmark = pytest.mark.browser

PAGES = ("", "data", "models", "label", "quality", "train", "runs", "compare")
SECRET = "sk-very-secret-key-of-the-endpoint"


class App(NamedTuple):
    url: str
    studio: Studio

    @property
    def db(self) -> Database:
        return self.studio.db

    def open(self, project: Project) -> None:
        people.set_open_project(self.db, "local", project.project_id)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    settings = Settings(home=tmp_path_factory.mktemp("pages") / "workspace", port=free_port())
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield App(f"http://127.0.0.1:{settings.port}", studio)
        demo.close(verbose=False)


@pytest.fixture
def own(app: App, request: pytest.FixtureRequest) -> Project:
    """An empty project of the test's own, open."""
    project = projects.create(app.db, request.node.name[:60])
    app.open(project)
    return project


def visit(page: Any, app: App, path: str) -> None:
    """Open a page and wait until its handlers have filled it."""
    page.goto(f"{app.url}/{path}")
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")


def says(page: Any, text: str) -> None:
    """Wait for a sentence, wherever it is shown."""
    page.get_by_text(text).first.wait_for()


# --- every page ---


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_sound(app: App, page: Any, path: str) -> None:
    """It opens without a fault, asks no other host, names its controls, and on a phone it scrolls in one direction only."""
    faults: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" and "AbortError" not in said.text else None)
    page.on("response", lambda answer: faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda asked: hosts.add(asked.url.split("/")[2]) if asked.url.startswith("http") else None)
    visit(page, app, path)
    settled(page)
    assert faults == []
    assert hosts == {app.url.removeprefix("http://")}
    assert page.locator(".st-nav [aria-current=page]").inner_text().lower() == (path or "home")
    if path != "label":  # whose own tests look at it with axe
        assert page.locator("h1").count() == 1
        assert page.evaluate(NAMELESS) == []
    on_a_phone(page)


@pytest.mark.parametrize("path", ["data?tab=import", "data?tab=generate", "data?tab=export", "compare?tab=chat"])
def test_a_tab_fits_a_phone(app: App, page: Any, path: str) -> None:
    visit(page, app, path)
    on_a_phone(page)


NAMELESS = """() => [...document.querySelectorAll('input, textarea, select, button, [role=combobox]')]
    .filter(e => e.offsetParent !== null && e.type !== 'file')
    .filter(e => !(e.ariaLabel || e.title || e.innerText?.trim() || e.closest('fieldset')
        || [...(e.labels || [])].some(l => l.innerText.trim())))
    .map(e => e.outerHTML.slice(0, 160))"""


STOPWATCH_TAKEN_BACK = """() => new Promise((done) => {
    let began = 0, ran = false;
    const number = requestAnimationFrame(() => { ran = (performance.now() - began) / 1e3 > 0; });
    cancelAnimationFrame(number);
    setTimeout(() => done(number < 0 && !ran), 300);
})"""


def on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("path", ["label", "project"])
def test_a_page_comes_to_rest(app: App, page: Any, path: str) -> None:
    """And then asks for no more frames, as Gradio's forgotten stopwatches do, sixty times a second."""
    page.add_init_script(
        "window.asked_at = 0; const real = requestAnimationFrame;"
        "window.requestAnimationFrame = (drawn) => { window.asked_at = performance.now(); return real(drawn); };"
    )
    visit(page, app, path)
    page.wait_for_function("performance.now() - window.asked_at > 500", polling=100)
    assert page.evaluate(STOPWATCH_TAKEN_BACK), "or one with a frame's number would take back the frame"


# --- home ---


def test_home_leads_through_the_loop(app: App, page: Any, own: Project) -> None:
    visit(page, app, "")
    go = page.locator(".st-next .st-cta:not(.quiet)")
    assert go.inner_text() == "Import prompts"
    prompts.add(app.db, [prompt(own, f"Question {n}?") for n in range(6)])
    visit(page, app, "")
    assert go.inner_text() == "Generate answers"
    asked = prompts.of_project(app.db, own.project_id)
    completions.add(app.db, [completion(p, f"answer {k}", k) for p in asked for k in range(2)])
    visit(page, app, "")
    assert go.inner_text() == "Label the first pair"
    assert [step.inner_text() for step in page.locator(".st-step .count").all()] == ["6", "12", "0", "0", "0"]
    go.click()
    page.wait_for_url("**/label")


def test_a_project_is_made_switched_renamed_and_archived(app: App, page: Any) -> None:
    visit(page, app, "")
    open_part(page, page.get_by_role("button", name="Projects"))
    page.locator("#home-name textarea, #home-name input").fill("Kind answers <b>&</b>")
    page.get_by_label("One answer at a time: good or bad?").check()
    page.locator("#home-make").click()
    page.locator("h1", has_text="Kind answers <b>&</b>").wait_for()  # as text: what looks like markup stays text
    made = next(p for p in projects.visible(app.db) if p.name.startswith("Kind"))
    assert made.task == "binary"
    page.get_by_label("New name for it").fill("Kinder answers")
    page.get_by_role("button", name="Rename").click()
    page.locator("h1", has_text="Kinder answers").wait_for()
    page.get_by_role("button", name="Archive").click()
    says(page, "is archived")
    assert projects.get(app.db, made.project_id).archived_at is not None
    page.locator("h1").filter(has_not_text="Kinder answers").wait_for()
    page.get_by_role("button", name="Bring it back").click()
    page.locator("h1", has_text="Kinder answers").wait_for()
    assert projects.get(app.db, made.project_id).archived_at is None


# --- data ---


def test_typed_prompts_are_stored_once(app: App, page: Any, own: Project) -> None:
    visit(page, app, "data?tab=import")
    page.locator("#import-typed textarea").fill("What is love?\n\nWhat is love?\n  And what is not?  ")
    page.locator("#import-add").click()
    says(page, "2 prompts added")
    assert sorted(p.text for p in prompts.of_project(app.db, own.project_id)) == ["And what is not?", "What is love?"]
    page.locator("#import-added a", has_text="Generate answers").click()  # the next step
    page.wait_for_url("**/data?tab=generate&for=new")
    assert page.get_by_label("Prompts without answers, newest first").is_checked()
    page.locator("#gen-says a", has_text="add one on the Models page").wait_for()  # the demo model knows nothing of love


def test_a_file_is_looked_at_before_it_is_taken_in(app: App, page: Any, own: Project, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Q{n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)]
    lines = [*(json.dumps(row) for row in rows), '{"prompt": "broken', json.dumps({"prompt": "no answers"})]
    file.write_text("\n".join(lines) + "\n")
    visit(page, app, "data?tab=import")
    page.locator("#import-upload input[type=file]").set_input_files(str(file))
    says(page, "chosen and rejected answers (TRL: DPO)")
    preview = page.locator("#import-preview").inner_text()
    assert re.search(r"\b4\b", preview), preview  # the line that is broken
    assert re.search(r"\b5\b", preview), preview
    assert projects.counts(app.db, own.project_id).prompts == 0  # only looked at
    page.locator("#import-go").click()
    says(page, "3 prompts, 6 answers and 3 labels added")
    counted = projects.counts(app.db, own.project_id)
    assert (counted.prompts, counted.completions, counted.labels) == (3, 6, 3)
    steps = page.locator("#import-report .st-cta")
    assert steps.all_inner_texts() == ["Train on the labels", "Label the answers", "See the prompts"]
    page.locator("#import-upload input[type=file]").set_input_files(str(file))
    page.locator("#import-go").wait_for()
    page.locator("#import-go").click()
    says(page, "3 rows were there already")
    assert projects.counts(app.db, own.project_id) == counted


def test_a_file_that_is_none_is_refused_in_a_sentence(app: App, page: Any, own: Project, tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("\n")
    visit(page, app, "data?tab=import")
    page.locator("#import-upload input[type=file]").set_input_files(str(file))
    toast = page.locator(".toast-body")
    toast.first.wait_for()
    assert "Traceback" not in toast.first.inner_text()
    assert "empty.jsonl" in toast.first.inner_text()
    leave = "window.dispatchEvent(new Event('beforeunload'))"  # what Gradio says of a page that is being left is not shown
    page.evaluate(leave)
    toast.first.wait_for(state="hidden")
    page.locator("h1").click()  # somebody who is still here is told
    toast.first.wait_for()
    page.evaluate(
        "() => { const real = window.setTimeout;"
        "window.setTimeout = (later, _, ...given) => { window.later ??= () => later(...given); return 0; };"
        f"{leave}; window.setTimeout = real; }}"
    )
    toast.first.wait_for(state="hidden")
    page.evaluate("window.later()")  # and so is who only looks on: the address was that of a file
    toast.first.wait_for()


def test_a_file_above_the_limit_is_refused_before_it_travels(app: App, page: Any, own: Project, tmp_path: Path) -> None:
    file = tmp_path / "big.jsonl"
    with file.open("wb") as f:
        f.truncate(app.studio.settings.max_upload_bytes + 1)  # a hole: it takes no room on the disk
    sent: list[str] = []
    page.on("request", lambda asked: sent.append(asked.url) if "/upload" in asked.url else None)
    visit(page, app, "data?tab=import")
    page.locator("#import-upload input[type=file]").set_input_files(str(file))
    says(page, "big.jsonl has 200 MB")
    assert str(app.studio.settings.import_dir) in page.locator("#import-too-big").inner_text()
    assert sent == []


def test_prompts_are_found_and_opened(app: App, page: Any) -> None:
    project = seed_project(app.db, n_prompts=30, name="Thirty")
    app.open(project)
    visit(page, app, "data")
    page.locator("#prompts-rows", has_text="1–25 of 30 prompts").wait_for()
    page.get_by_role("button", name="Next").click()
    page.locator("#prompts-rows", has_text="26–30 of 30 prompts").wait_for()
    page.locator("#prompts-search textarea, #prompts-search input").fill("number 17:")
    page.locator("#prompts-rows", has_text="1–1 of 1 prompt").wait_for()
    page.locator("#prompts-rows a").click()
    page.locator(".st-open", has_text="Answer 1 to: Question number 17").wait_for()
    page.locator("#prompts-rows a").click()
    page.locator(".st-open").wait_for(state="detached")


def test_an_export_is_made_and_fetched(app: App, page: Any) -> None:
    project = seed_project(app.db, n_prompts=4, name="Exported & more")
    app.open(project)
    visit(page, app, "data?tab=export")
    page.get_by_role("radio", name="Prompts", exact=True).check()
    page.locator("#export-go").click()
    says(page, "4 prompts written")
    with page.expect_download() as download:
        page.locator("#export-made .st-cta").first.click()
    rows = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert sorted(row["prompt"][0]["content"] for row in rows) == sorted(
        p.text for p in prompts.of_project(app.db, project.project_id)
    )
    with page.expect_download() as manifest:
        page.get_by_role("link", name="manifest.json").click()
    told = json.loads(Path(manifest.value.path()).read_text())
    assert told["sha256"] == hashlib.sha256(Path(download.value.path()).read_bytes()).hexdigest()
    assert told["sha256"] in page.locator("#export-made").inner_text()
    page.screenshot(path=SCREENSHOTS / "export-made.png", full_page=True)
    page.get_by_label("Preferences: prompt, chosen, rejected (TRL: DPO)").check()
    page.locator("#export-go").click()
    page.locator(".toast-body", has_text="nothing to export").wait_for()


def test_a_backup_is_made_fetched_and_put_back(app: App, page: Any, tmp_path: Path) -> None:
    project = seed_project(app.db, n_prompts=3, name="Backed up")
    app.open(project)
    visit(page, app, "data?tab=export")
    page.locator("#backup-go").click()
    with page.expect_download() as download:
        page.locator("#backup-made .st-cta").click()
    saved = tmp_path / "backup.zip"
    download.value.save_as(saved)
    assert "studio.duckdb" in zipfile.ZipFile(saved).namelist()
    prompts.add(app.db, [prompt(project, "written after the backup")])
    open_part(page, page.get_by_role("button", name="Put a backup in place of this workspace"))
    hand_over(page, "#restore-file", saved)
    page.locator("#restore-go").click()
    page.locator(".toast-body", has_text="Tick").wait_for()  # not without saying so
    page.get_by_label("Replace what is here").check()
    page.locator("#restore-go").click()
    says(page, "The backup is in place")
    assert prompts.count(app.db, project.project_id) == 3
    visit(page, app, "")
    assert page.locator("h1").inner_text() == "Backed up"


# --- models ---


def test_an_endpoints_key_is_held_and_never_sent_back(app: App, page: Any) -> None:
    sent: list[str] = []
    page.on("response", lambda answer: sent.append(answer.url))
    visit(page, app, "models")
    open_part(page, page.get_by_role("tab", name="Endpoint"))
    page.locator("#end-name input, #end-name textarea").fill("My server")
    page.locator("#end-url input, #end-url textarea").fill("http://127.0.0.1:9/v1")
    page.locator("#end-model input, #end-model textarea").fill("some-model")
    page.locator("#end-key input").fill(SECRET)
    page.locator("#end-test").click()
    page.locator("#end-says .st-note.bad").wait_for()  # nothing answers there: a sentence, where the button is
    page.locator("#end-save").click()
    page.locator("#end-says .st-note.warn", has_text="My server is saved").wait_for()  # all the same
    assert "does not answer now" in page.locator("#end-says").inner_text()
    profile = next(m for m in models.visible(app.db, "", "") if m.name == "My server")
    assert app.studio.keys.of(profile) == SECRET
    assert page.locator("#end-key input").input_value() == ""
    visit(page, app, "models")
    assert SECRET not in page.content()
    assert SECRET not in page.request.get(f"{app.url}/config").text()
    files = [f for f in app.studio.settings.home.rglob("*") if f.is_file()]
    assert [f for f in files if SECRET.encode() in f.read_bytes()] == []
    open_part(page, page.get_by_role("button", name="Rename or remove"))
    page.get_by_role("button", name="Remove from the list").click()
    page.locator("#models-list", has_text="My server").wait_for(state="detached")
    assert app.studio.keys.of(profile) == ""


def test_an_endpoint_answers_imported_prompts(app: App, page: Any, own: Project) -> None:
    """Prompts of one's own and a server: generate as a run, with a typed key that reaches the server and no file."""
    with openai_server(FakeEngine([f"answer {n}" for n in range(40)])) as server:
        spec = ModelSpec("endpoint", base="some-model", url=server.url()).to_json()
        profile = models.add(app.db, models.new("Fake server", "endpoint", spec))
        app.studio.keys.hold(profile.model_id, SECRET)
        prompts.add(app.db, [prompt(own, f"A question of my own, number {n}") for n in range(3)])
        visit(page, app, "data?tab=generate")
        page.locator("#gen-model input").click()
        page.get_by_role("option", name="Fake server").click()
        page.locator("#gen-n input").fill("2")
        page.locator("#gen-go").click()
        page.wait_for_url("**/runs?run=*")
        run = wait(app.db, page.url.partition("run=")[2], ended)
        assert (run.status, run.error) == ("finished", "")
        page.locator("#run-detail .st-badge.finished").wait_for()
        assert {asked.headers.get("Authorization") for asked in server.asked} == {f"Bearer {SECRET}"}
    made = completions.counts(app.db, own.project_id)
    assert (made.completions, made.prompts, made.pairs) == (6, 3, 3)
    assert made.models == ("Fake server",)
    files = [f for f in app.studio.settings.home.rglob("*") if f.is_file()]
    assert [f for f in files if SECRET.encode() in f.read_bytes()] == []


def test_a_server_that_answers_is_saved_with_what_it_said(app: App, page: Any) -> None:
    with openai_server(FakeEngine(["Hello to you"])) as server:
        visit(page, app, "models")
        open_part(page, page.get_by_role("tab", name="Endpoint"))
        page.locator("#end-name input, #end-name textarea").fill("Kind server")
        page.locator("#end-url input, #end-url textarea").fill(server.url())
        page.locator("#end-model input, #end-model textarea").fill("some-model")
        page.locator("#end-save").click()
        page.locator("#end-says .st-note.good", has_text="Hello to you").wait_for()
    assert "key" not in page.locator("#models-list tr", has_text="Kind server").inner_text()  # it has none
    made = next(m for m in models.visible(app.db, "", "") if m.name == "Kind server")
    models.remove(app.db, made.model_id)


@pytest.mark.parametrize(
    ("where", "says_"),
    [("/no/such/folder", "neither a folder"), ("not a name", "neither a folder"), ("someone/some-model", "cannot be reached")],
)
def test_a_model_that_cannot_be_had_is_refused_in_a_sentence(app: App, page: Any, where: str, says_: str) -> None:
    visit(page, app, "models")
    page.locator("#add-hub input").fill(where)
    page.keyboard.press("Enter")
    page.locator("#add-go").click()
    says(page, says_)


# --- train, runs, compare ---

RATE = "#knob-learning_rate input"


def expect_value(page: Any, field: str, is_right: str) -> None:
    """Wait until `value`, what the field holds, is as it should be: a handler on the server puts it there."""
    page.wait_for_function(f"(() => {{ const value = parseFloat(document.querySelector('{field}').value); return {is_right}; }})()")


def test_without_labels_training_says_what_is_missing(app: App, page: Any, own: Project) -> None:
    visit(page, app, "train")
    page.locator("#train-data a", has_text="Label the first answers").wait_for()
    assert page.locator("#train-go").is_disabled()


def test_training_the_demo_model_on_the_real_world_is_not_silent(app: App, page: Any, own: Project, tmp_path: Path) -> None:
    file = app.studio.settings.import_dir / "real.jsonl"
    rows = [{"prompt": f"What of {n} is true?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    importers.load(app.db, own.project_id, Path(file.name))
    visit(page, app, "train")
    page.locator("#train-data .st-note.warn", has_text="outside the demo model's small world").wait_for()
    assert page.locator("#train-data a", has_text="add one on the Models page").get_attribute("href") == "./models"
    assert page.locator("#train-go").is_enabled()  # said, not forbidden


def test_the_form_follows_the_method(app: App, page: Any, own: Project) -> None:
    visit(page, app, "train")
    assert page.locator("#knob-epochs").is_visible()  # what everybody may want to change
    assert not page.locator("#knob-learning_rate").is_visible()
    open_part(page, page.locator("#knobs > button"))
    page.locator("#knob-beta").wait_for()  # the accordion opens over some frames
    page.get_by_label("Imitate good answers (SFT)").check()
    page.locator("#knob-beta").wait_for(state="hidden")
    page.get_by_label("Tell good from bad (KTO)").check()
    page.locator("#knob-beta").wait_for()
    page.locator("#knob-desirable_weight").wait_for()
    assert not page.locator("#knob-label_smoothing").is_visible()


def test_all_weights_and_methods_without_a_reference_can_be_chosen(app: App, page: Any, own: Project) -> None:
    """What is tuned decides the step size that is proposed, and an adapter's knobs go where there is none."""
    visit(page, app, "train")
    open_part(page, page.locator("#knobs > button"))
    page.locator("#knob-lora_rank").wait_for()
    page.locator("#knob-tuning input").click()
    page.get_by_role("option", name="full: all weights").click()
    page.locator("#knob-lora_rank").wait_for(state="hidden")
    expect_value(page, RATE, "value < 1e-3")
    page.get_by_label("Imitate and prefer in one (ORPO)").check()
    expect_value(page, "#knob-beta input", "value === 0.25")
    assert not page.locator("#knob-lora_rank").is_visible(), "the choice stays with another method"
    page.get_by_label("Prefer by a margin (SimPO)").check()
    page.locator("#knob-margin").wait_for()


def test_a_recipe_fills_the_form_and_says_where_it_comes_from(app: App, page: Any, own: Project) -> None:
    visit(page, app, "train")
    open_part(page, page.locator("#knobs > button"))
    page.locator(RATE).fill("0.5")
    page.locator("#train-recipe input").click()
    page.get_by_role("option", name="Zephyr 7B: DPO with QLoRA on one GPU").click()
    expect_value(page, RATE, "value === 5e-6")
    expect_value(page, "#knob-lora_rank input", "value === 128")
    page.locator("#train-recipe", has_text="The Alignment Handbook").wait_for()
    page.get_by_label("Tell good from bad (KTO)").check()  # it has no recipe of its own
    page.locator("#train-recipe").wait_for(state="hidden")
    expect_value(page, RATE, "value === 1e-3")


def test_runs_and_results_say_when_there_is_nothing(app: App, page: Any, own: Project) -> None:
    visit(page, app, "runs")
    says(page, "Nothing has run yet.")
    visit(page, app, "compare")
    open_part(page, page.get_by_role("tab", name="Results"))
    says(page, "Nothing has been compared yet")


def test_a_run_that_is_not_there_is_a_sentence(app: App, page: Any) -> None:
    page.goto(f"{app.url}/runs?run=of-somebody-else")
    page.locator(".toast-body", has_text="no such run").wait_for()


def test_every_mapped_column_can_be_changed() -> None:
    from dataclasses import fields

    from data.columns import ColumnMap

    assert set(CHANGEABLE) <= {f.name for f in fields(ColumnMap)}


def test_the_timer_rests_while_nothing_runs(app: App, page: Any, own: Project) -> None:
    visit(page, app, "runs")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    for _ in range(20):  # what the page asks for as it opens may come late; a timer that ticks would never be silent for so long
        asked.clear()
        page.wait_for_timeout(3500)
        if not asked:
            break
    assert asked == []
