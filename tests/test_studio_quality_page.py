"""The Quality page in a real browser over a project that several people labelled, one of whom always took the left answer.

What a button does is looked up in the database, never on the page.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from conftest import SCREENSHOTS, free_port
from labelling import MODEL_NAME, seed_project
from quality_seed import seed_labelled

from data import people
from data.database import Database
from data.records import Project
from data.settings import Settings
from studio.context import Studio, open_studio

pytestmark = pytest.mark.browser

TABS = ("overview", "agreement", "bias")


class App(NamedTuple):
    url: str
    studio: Studio
    project: Project  # the one that several people labelled

    @property
    def db(self) -> Database:
        return self.studio.db

    def open(self, project: Project) -> None:
        people.set_open_project(self.db, "local", project.project_id)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    settings = Settings(home=tmp_path_factory.mktemp("quality") / "workspace", port=free_port())
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        project = seed_labelled(studio.db)
        people.ensure(studio.db, "local", "You", "local")
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield App(f"http://127.0.0.1:{settings.port}", studio, project)
        demo.close(verbose=False)


@pytest.fixture(autouse=True)
def opened(app: App) -> None:
    app.open(app.project)


def visit(page: Any, app: App, tab: str, theme: str = "light") -> None:
    page.goto(f"{app.url}/quality?tab={tab}&__theme={theme}")
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
    page.locator(f"#quality-{tab} :is(.st-stack, .st-empty)").first.wait_for()


def sheet(page: Any, title: str) -> list[list[str]]:
    """What a table's CSV link holds."""
    link = page.locator(f'section.st-sheet:has(h2:text-is("{title}")) a.st-csv').get_attribute("href")
    text = base64.b64decode(link.split("base64,")[1]).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("tab", TABS)
def test_each_tab_looks_right_in_light_dark_and_on_a_phone(app: App, page: Any, tab: str) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" and "AbortError" not in said.text else None)
    SCREENSHOTS.mkdir(exist_ok=True)
    for theme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        page.set_viewport_size({"width": width, "height": 800})
        visit(page, app, tab, theme)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SCREENSHOTS / f"quality-{tab}-{theme}-{width}.png", full_page=True)
    assert faults == []
    assert MODEL_NAME not in page.content()


def test_everybody_is_counted_and_the_csv_names_nobody(app: App, page: Any) -> None:
    visit(page, app, "overview")
    shown = page.locator('table[aria-label="Annotators"]').inner_text()
    assert all(name in shown for name in ("Ada", "Ben", "Cleo", "Lefty"))
    head, *rows = sheet(page, "Annotators")
    stored = app.db.value(
        "select count(*) from current_labels where project_id = ? and preference != 'skip'", [app.project.project_id]
    )
    assert sum(int(row[head.index("labels")]) for row in rows) == stored
    assert not re.search("Ada|Ben|Cleo|Lefty|ada|lefty", str(rows))


def test_agreement_has_an_interval_and_the_ceiling_beside_it(app: App, page: Any) -> None:
    visit(page, app, "agreement")
    assert re.fullmatch(r"0\.\d\d \(0\.\d\d to 0\.\d\d\)", page.locator(".st-headline .st-big").inner_text())
    assert "AlpacaFarm" in page.locator("#quality-agreement").inner_text()
    head, *rows = sheet(page, "Coefficients, with 95 % intervals")
    assert {(row[0], row[1]) for row in rows} == {
        (name, view)
        for name in ("Krippendorff's alpha", "Raw agreement", "Fleiss' kappa", "Gwet's AC1")
        for view in ("all answers", "only a or b")
    }
    assert all(row[head.index("low")] and row[head.index("high")] for row in rows)
    assert len(sheet(page, "Every two annotators")) == 1 + 6


def test_the_one_who_takes_the_left_is_named(app: App, page: Any) -> None:
    visit(page, app, "bias")
    warned = page.locator("#quality-bias .st-note.warn").all_inner_texts()
    assert any(text.startswith("Lefty: Chose the left answer") for text in warned)
    assert not any(text.startswith(("Ada", "Ben", "Cleo")) and "left" in text for text in warned)
    head, *rows = sheet(page, "Bias card of the project")
    measured = {row[0]: row for row in rows}
    assert all(measured[name][head.index("low")] for name in ("left", "length", "markdown", "longer", "flips", "tie", "gold"))


def test_a_tab_is_filled_when_it_is_opened(app: App, page: Any) -> None:
    visit(page, app, "overview")
    assert page.locator("#quality-agreement .st-stack").count() == 0
    page.get_by_role("tab", name="Agreement").click()
    page.locator("#quality-agreement .st-headline").wait_for()


def test_nothing_to_measure_is_said_with_what_to_do(app: App, page: Any) -> None:
    project = seed_project(app.db, 3, name="Nobody yet")
    app.open(project)
    visit(page, app, "overview")
    assert "Nobody has labelled yet" in page.locator("#quality-overview").inner_text()
    assert page.locator("#quality-overview a").get_attribute("href").endswith("label")
    visit(page, app, "agreement")
    assert "Agreement needs labels" in page.locator("#quality-agreement").inner_text()
