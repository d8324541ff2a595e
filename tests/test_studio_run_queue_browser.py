"""The queue's buttons in a real browser, by keyboard: what counts is the order that is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from conftest import free_port
from run_studio import CHILD, labelled_project, started, studio_with_runs, wait

from data import runs
from data.database import Database
from data.records import Run
from data.settings import Settings
from studio.context import Studio

pytestmark = pytest.mark.browser
JUST_MOVED = 400  # milliseconds after which rows that have changed places take clicks again

MOVED_AND_CLICKED = """async () => {
    const [first, second] = document.querySelectorAll('#run-queue tbody tr');
    first.before(second);
    await Promise.resolve();
    second.querySelector('button[data-do=out]').dispatchEvent(new MouseEvent('click', {bubbles: true, detail: 1}));
}"""


class Served(NamedTuple):
    url: str
    studio: Studio
    waiting: list[Run]


@pytest.fixture
def served(settings: Settings, db: Database) -> Iterator[Served]:
    """A run that holds the device, and three that wait."""
    from studio.ui import build_ui, launch_options

    own = Settings(home=settings.home, port=free_port())
    with studio_with_runs(own, db) as studio:
        project = labelled_project(studio, 2)
        first = studio.jobs.start("generate", CHILD, "holds", project.project_id, {"args": {"steps": 2, "wait_at": 1}})
        wait(db, first.run_id, started)
        waiting = [studio.jobs.start("generate", CHILD, name, project.project_id, {"args": {}}) for name in ("one", "two", "three")]
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield Served(f"http://127.0.0.1:{own.port}", studio, waiting)
        demo.close(verbose=False)


def order(served: Served) -> list[str]:
    return [run.name for run in runs.active(served.studio.db) if run.status == "queued"]


def listening(page: Any) -> None:
    """Wait until the list takes clicks: it is drawn before its script runs."""
    page.wait_for_function("document.querySelector('#run-queue[data-listens], #run-queue [data-listens]') !== null")


def until(page: Any, served: Served, names: list[str]) -> None:
    """Wait until the stored order is this, and the page's."""
    page.wait_for_function(
        "names => [...document.querySelectorAll('#run-queue td a')].map(a => a.innerText).join() === names", arg=",".join(names)
    )
    assert order(served) == names


def test_a_run_is_moved_and_taken_out_with_the_keyboard(served: Served, page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{served.url}/runs")
    up = page.get_by_role("button", name="Up: three")
    up.wait_for()
    listening(page)
    up.focus()
    page.keyboard.press("Enter")
    until(page, served, ["one", "three", "two"])
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Up: three", "the focus goes with the run"
    page.keyboard.press("Enter")
    until(page, served, ["three", "one", "two"])
    page.wait_for_timeout(JUST_MOVED)
    page.get_by_role("button", name="Next in turn: two").click()
    until(page, served, ["two", "three", "one"])
    page.wait_for_timeout(JUST_MOVED)
    page.get_by_role("button", name="Take out of the queue: three").click()
    until(page, served, ["two", "one"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_row_that_moves_under_the_pointer_takes_no_click(served: Served, page: Any) -> None:
    page.goto(f"{served.url}/runs")
    until(page, served, ["one", "two", "three"])
    listening(page)
    page.evaluate(MOVED_AND_CLICKED)
    page.wait_for_timeout(JUST_MOVED)
    assert order(served) == ["one", "two", "three"]
    page.reload()
    listening(page)
    page.get_by_role("button", name="Take out of the queue: two").click()
    until(page, served, ["one", "three"])
