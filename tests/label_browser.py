"""What the tests of the Label page share: the page served over a real database, and how a person at a browser uses it.

The page is served once for all of them (the fixture `site` in conftest.py); each test opens a project of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from axe_playwright_python.base import AXE_SCRIPT

from data import labels, people
from data.database import Database
from data.records import Project

READY = '.al[data-armed]:not([data-armed=""])'
LOOK = 150  # milliseconds that the page wants an item to be seen before it takes a key


class Site(NamedTuple):
    """The page served from this process, so that a test can look into the same database."""

    url: str
    db: Database
    studio: Any

    def open(self, project: Project) -> None:
        people.ensure(self.db, "local", "You", "local")
        people.set_open_project(self.db, "local", project.project_id)


def visit(page: Any, url: str, theme: str = "light") -> None:
    page.goto(f"{url}/label?__theme={theme}")
    page.wait_for_selector(READY)
    page.wait_for_timeout(LOOK)


def shown(page: Any) -> dict[str, str]:
    texts = page.locator(".al-pane .al-rendered").all_text_contents()
    return {"id": page.get_attribute(".al", "data-armed"), "left": texts[0].strip(), "right": texts[-1].strip()}


def press(page: Any, key: str) -> dict[str, str]:
    """Answer the item on the screen with a key and wait for the next; what was on the screen."""
    seen = shown(page)
    page.keyboard.press(key)
    page.wait_for_function("id => document.querySelector('.al').dataset.armed !== id", arg=seen["id"])
    page.wait_for_selector(f'{READY}, .al[data-state="done"]')
    page.wait_for_timeout(LOOK)
    return seen


def saved(page: Any) -> None:
    page.wait_for_selector('.al-status[data-kind="saved"]')


def posted(page: Any) -> list[dict[str, Any]]:
    """Every label event that the page sends from now on, as it is sent."""
    found: list[dict[str, Any]] = []

    def keep(request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/api/label"):
            found.extend(request.post_data_json)

    page.on("request", keep)
    return found


def violations(page: Any) -> list[str]:
    """What axe finds on the page as it is now that is serious or critical."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['help']}: {node['html'][:160]}" for one in grave for node in one["nodes"]]


def said(db: Database, project_id: str) -> dict[str, str]:
    return {e.impression_id: e.preference for e in labels.current(db, project_id)}
