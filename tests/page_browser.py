"""How a person at a browser uses the pages that Gradio draws: what the tests of these pages share."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from playwright.sync_api import TimeoutError

STILL = 500  # milliseconds without a change: what is going to be drawn has been drawn

# A fixed wait is too short on a busy machine; a page that has stopped changing is ready on any.
LOOK_FOR_CHANGES = """() => {
    window.changedAt = performance.now();
    window.changes ??= new MutationObserver(() => { window.changedAt = performance.now(); });
    window.changes.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
}"""


def settled(page: Any, still: int = STILL) -> None:
    """Wait until nothing has changed on the page for `still` milliseconds; one that never comes to rest fails, as whatever else a
    page does not show."""
    page.evaluate(LOOK_FOR_CHANGES)
    page.wait_for_function("still => performance.now() - window.changedAt >= still", arg=still, polling=50)
    page.evaluate("window.changes.disconnect()")


def open_part(page: Any, section: Any) -> None:
    """Open a closed part of the page; Gradio mounts its controls only then, and one typed into too early forgets it."""
    section.click()
    settled(page)


def hand_over(page: Any, field: str, file: Path, tries: int = 10) -> None:
    """Give a file to the field `field` (a selector) until it shows it: it takes none before its handlers are there."""
    shown = page.locator(f"{field} .file-preview")
    for _ in range(tries):
        page.locator(f"{field} input[type=file]").set_input_files(str(file))
        with contextlib.suppress(TimeoutError):
            return shown.wait_for(timeout=5_000)
    raise AssertionError(f"{field} does not take {file.name}")
