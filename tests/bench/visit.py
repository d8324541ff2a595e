"""How soon a visitor of the demo has something to show: `make bench-visit`.

The app as it runs on a Space (`--visitor`), a browser that has never been there, and somebody who follows the one button that each
page offers and answers at once: from opening the address to the first label that is stored, and to the first trained adapter after
twenty. What people think in between comes on top.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from studio.next_step import ENOUGH_LABELS
from tests.bench.table import Row, below, publish
from tests.conftest import CHROMIUM_ARGS, AppProcess, browser_path

ARMED = '.al[data-armed]:not([data-armed=""])'
LOOK_MS = 150  # the page wants an item to be seen before it takes a key
ENDED = "document.querySelector('#run-detail .st-badge')?.className.match(/finished|failed|lost|stopped/)"
PACKAGES = ("gradio", "torch", "trl", "playwright")


def label(page: Any, key: str) -> None:
    page.locator(ARMED).wait_for()
    page.wait_for_timeout(LOOK_MS)
    before = page.locator(".al").get_attribute("data-armed")
    page.keyboard.press(key)
    page.wait_for_function("before => document.querySelector('.al')?.dataset.armed !== before", arg=before)


def go_on(page: Any) -> None:
    """Press what Home offers next."""
    page.locator(".st-next .st-cta:not(.quiet)").click()


def visit(url: str, browser: Any) -> list[Row]:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(120_000)
    started = time.perf_counter()
    page.goto(url)
    go_on(page)
    label(page, "1")
    page.wait_for_selector('.al-status[data-kind="saved"]')
    first_label = time.perf_counter() - started
    for number in range(1, ENOUGH_LABELS):
        label(page, "12"[number % 2])
    page.wait_for_selector('.al-status[data-kind="saved"]')
    page.goto(url)
    go_on(page)
    page.locator("#train-go:not([disabled])").click()
    page.wait_for_url("**/runs?run=*")
    page.wait_for_function(ENDED)
    adapter = time.perf_counter() - started
    page.locator("#run-compare").wait_for()  # there is a model to compare
    return [
        below("a visitor's first label, from opening the address", first_label, 10, "s"),
        below(
            f"a visitor's first trained adapter, {ENOUGH_LABELS} labels and no thinking, from opening the address",
            adapter,
            300,
            "s",
        ),
    ]


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("STUDIO_HOME")) as folder, sync_playwright() as playwright:
        app = AppProcess(Path(folder) / "home", "--visitor")
        try:
            browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_ARGS)
            rows = visit(app.url, browser)
            browser.close()
        finally:
            app.stop()
    return 0 if publish("visit", rows, PACKAGES) else 1


if __name__ == "__main__":
    sys.exit(main())
