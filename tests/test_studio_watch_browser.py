"""Watching and comparing runs in a real browser, over runs whose events are already there or are written while it looks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from conftest import free_port
from hostile import CORPUS
from page_browser import settled
from watch_seed import add_run, recorded

from data import projects
from data.records import Project, Run, now
from data.rundir import RunDir
from data.settings import Settings
from studio.context import Studio, open_studio

pytestmark = pytest.mark.browser
SVG = "#run-charts svg[data-lines]"
LOSS = "#run-charts figure[data-chart=loss]"


class App(NamedTuple):
    url: str
    studio: Studio
    project: Project


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    settings = Settings(home=tmp_path_factory.mktemp("watch") / "workspace", port=free_port())
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        project = projects.visible(studio.db)[0]
        other = projects.create(studio.db, "Another project")
        for run_id, history in (("collapsed", "dpo_collapsed"), ("good", "dpo_good"), ("beta1", "dpo_beta1")):
            add_run(studio, project, run_id, history)
        add_run(studio, project, "live", "dpo_good", "running", steps=40)
        add_run(studio, other, "elsewhere", "dpo_good", name="A secret name")
        seed_comparison(studio, project)
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield App(f"http://127.0.0.1:{settings.port}", studio, project)
        demo.close(verbose=False)


def seed_comparison(studio: Studio, project: Project) -> None:
    from data import runs

    rate = {"value": 0.63, "low": 0.57, "high": 0.69, "n": 120, "n_prompts": 60, "se": 0.03, "note": ""}
    result = {
        "name_a": "Demo model",
        "name_b": "DPO good",
        "judge_name": "Judge",
        "n_prompts": 60,
        "n_comparisons": 120,
        "n_unscored": 0,
    }
    place = ("won", project.project_id, "", "compare", "won", "evals.compare", "finished", "cpu")
    config = {"args": {"model_id_a": "base", "model_id_b": "m-good"}}
    runs.add(studio.db, Run(*place, config, "", 0, 0.0, 0, {}, {**result, "win_rate": rate}, "", now(), now(), now()))  # type: ignore[arg-type]


@pytest.fixture
def faults(page: Any) -> list[str]:
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    return found


def visit(page: Any, app: App, path: str, wait: str = SVG) -> None:
    page.goto(f"{app.url}/{path}")
    page.locator(wait).first.wait_for()


def read(page: Any, chart: str = LOSS) -> str:
    return " ".join(page.locator(f"{chart} .st-keys").inner_text().split()) + " | " + page.locator(f"{chart} .st-at").inner_text()


def at_step(page: Any, step: int) -> tuple[float, float]:
    """Where the step is on the loss chart, in the window."""
    return tuple(  # type: ignore[return-value]
        page.evaluate(
            """step => { const svg = document.querySelector('#run-charts svg[data-lines]'), f = JSON.parse(svg.dataset.frame);
            const box = svg.getBoundingClientRect(), [width] = f.size;
            const x = f.left + (step - f.x[0]) / (f.x[1] - f.x[0]) * (width - f.left - f.right);
            return [box.left + x / width * box.width, box.top + box.height / 2]; }""",
            step,
        )
    )


def test_values_are_read_off_exactly_on_all_charts_zoomed_and_saved(app: App, page: Any, faults: list[str]) -> None:
    visit(page, app, "runs?run=good")
    told = {event["step"]: event for event in recorded("dpo_good").metrics if event.get("loss") is not None}
    held_out = {event["step"]: event for event in recorded("dpo_good").metrics if "eval_loss" in event}
    page.mouse.move(*at_step(page, 30))
    assert read(page) == f"training {told[30]['loss']:.4g} held out {held_out[24]['eval_loss']:.4g} @24 | step 30"
    margin = read(page, "#run-charts figure[data-chart=reward-margin]")
    assert margin.startswith(f"training {told[30]['rewards/margins']:.4g} ")
    page.mouse.move(5, 5)
    assert read(page).endswith("| step 72")

    page.locator(SVG).first.focus()  # the same by keyboard
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert read(page).endswith("| step 70")  # the last is the first that the key finds

    left, right = at_step(page, 20), at_step(page, 50)
    page.mouse.move(*left)
    page.mouse.down()
    page.mouse.move(*right, steps=3)
    page.mouse.up()
    page.get_by_text("Steps 20 to 50").wait_for()
    assert page.evaluate("JSON.parse(document.querySelector('#run-charts svg[data-frame]').dataset.frame).x") == [20, 50]
    page.get_by_role("button", name="Show all steps").click()
    page.get_by_text("Steps 20 to 50").wait_for(state="detached")

    page.locator(f"{LOSS} .st-enlarge").click()
    page.locator(f"{LOSS}.large").wait_for()
    with page.expect_download() as png:
        page.get_by_text("Save as PNG").click()
    assert png.value.suggested_filename == "loss.png"
    assert png.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as numbers:
        page.get_by_text("All numbers (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(numbers.value.path().read_text())))
    assert {float(row["loss"]) for row in rows if row["step"] == "30" and row["loss"]} == {told[30]["loss"]}
    page.locator(SVG).first.press("Escape")
    page.locator(f"{LOSS}:not(.large)").wait_for()
    assert faults == []


def test_a_run_that_goes_on_is_drawn_in_place_with_pointer_and_page_where_they_were(app: App, page: Any, faults: list[str]) -> None:
    visit(page, app, "runs?run=live")
    page.locator("#run-detail", has_text="about 41 s left").wait_for()
    page.locator(SVG).first.scroll_into_view_if_needed()
    page.mouse.move(*at_step(page, 20))
    before = read(page)
    scrolled = page.evaluate("window.kept = document.querySelector('#run-charts svg[data-lines]'); scrollY")
    folder = RunDir(app.studio.settings.runs_dir / "live")
    for step in range(41, 61):
        folder.event("metrics", step=step, loss=0.25)
    page.wait_for_function("JSON.parse(document.querySelector('#run-charts svg[data-frame]').dataset.frame).x[1] === 60")
    assert page.evaluate("window.kept === document.querySelector('#run-charts svg[data-lines]')")
    assert page.evaluate("scrollY") == scrolled
    assert read(page).endswith(before.split("|")[1].strip())  # still the step that the pointer chose

    folder.event("metrics", step=40, resumed=True)  # taken up again from a checkpoint: one curve
    folder.event("metrics", step=41, loss=0.5)
    page.wait_for_function("JSON.parse(document.querySelector('#run-charts svg[data-frame]').dataset.frame).x[1] === 41")
    assert page.locator(f"{LOSS} .mark").count() == 1
    assert faults == []


def test_verdict_and_answers_stand_in_words_and_nothing_in_them_runs(app: App, page: Any, faults: list[str]) -> None:
    visit(page, app, "runs?run=collapsed")
    said = page.locator("#run-verdict").inner_text()
    assert "Collapsed." in said
    assert "raise beta (now 0.1)" in said
    answers = page.locator("#run-samples .st-sample")
    assert answers.count() == 4
    assert "Before" in answers.first.inner_text()
    assert "After step 120" in answers.first.inner_text()
    answers.first.get_by_text("1 in between").click()
    answers.first.get_by_text("After step 60").wait_for()
    folder = RunDir(app.studio.settings.runs_dir / "collapsed")
    for name in ("script", "handlers", "overlay", "remote images", "template"):
        folder.event("sample", step=0, split="held_out", prompt=CORPUS[name], text=CORPUS[name])
    settled(page)  # what a reload cuts off is a fault in the browser's log
    page.reload()
    page.locator("#run-samples .st-sample").nth(8).wait_for()
    assert page.evaluate("window.__pwned") is None
    assert page.evaluate("document.querySelectorAll('#run-samples :is(img, script, iframe, style)').length") == 0
    assert faults == []


def test_runs_are_compared_by_an_address_that_can_be_sent(app: App, page: Any, faults: list[str]) -> None:
    visit(page, app, "runs-compare", "#compare-list input")
    assert "A secret name" not in page.locator("#compare-list").inner_text()
    for run in ("good", "collapsed"):
        page.locator(f"#compare-list input[data-run={run}]").check()
        page.locator(f"#compare-ends a[href$='run={run}']").wait_for()
    assert page.url.endswith("runs-compare?runs=good%2Ccollapsed")
    for _ in range(2):  # as it was clicked together, and as somebody who is sent the address sees it
        page.locator("#compare-charts svg[data-lines]").first.wait_for()
        lines = page.evaluate(
            "JSON.parse(document.querySelector('#compare-charts svg[data-lines]').dataset.lines).map(l => l.name)"
        )
        assert lines == ["DPO good", "DPO collapsed"]
        settings = page.get_by_role("table", name="Settings that differ")
        assert [row.split("\t") for row in settings.inner_text().splitlines()[1:]] == [
            ["Rounds over the data (epochs)", "3", "5"],
            ["Closeness to the start (beta)", "1", "0.1"],
            ["Weight of imitation (SFT)", "1", "0"],
        ]
        ended = page.get_by_role("table", name="How each run ended").inner_text()
        assert "Healthy" in ended
        assert "Collapsed" in ended
        assert "63 % (57–69 %)" in page.get_by_role("table", name="Win rates").inner_text()
        page.goto(page.url)
    page.locator("#compare-list input[data-run=good]").uncheck()
    page.get_by_text("Choose one more.").wait_for()
    assert faults == []


def test_runs_of_another_project_are_neither_shown_nor_saved(app: App, page: Any) -> None:
    visit(page, app, "runs-compare?runs=good,elsewhere", "#compare-ends table")
    page.get_by_text("is left out").wait_for()
    assert "A secret name" not in page.locator("body").inner_text()
    for name in ("all.csv", "loss.csv", "loss.svg"):
        assert page.request.get(f"{app.url}/charts/{name}?runs=good,elsewhere").status == 404
        assert page.request.get(f"{app.url}/charts/{name}?runs=good").status == 200
    for wrong in ("loss.svg", "loss.svg?runs=", "nothing.svg?runs=good", "loss.svg?runs=" + ",".join(f"r{i}" for i in range(9))):
        assert page.request.get(f"{app.url}/charts/{wrong}").status == 400
