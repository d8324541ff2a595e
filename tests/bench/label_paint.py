"""From a key press on the Label page to the next pair painted, in a real browser.

    .venv/bin/python -m tests.bench.label_paint [--votes 200] [--port 7989]

`make bench-label` calls `measure_key_to_paint` while a run trains, and for answers of 50,000 characters with nothing beside; alone,
this seeds a workspace, serves the page and prints both round trips, and the same for the long answers.

A key's time is the browser's own time stamp of the press. Painted is when a message that was posted in the animation frame
after the next item was put into the document arrives: the frame has been produced then. `starved` counts presses after which
no next item was there. The round trip is the browser's network emulation, on every request.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.bench.table import Row, publish
from tests.conftest import CHROMIUM_ARGS, browser_path

ROOT = Path(__file__).resolve().parents[2]
LOOK_MS = 130  # the page takes no key for a pair that nobody can have read
WARM_UP = 10
MEDIAN_MS, P95_MS = 20, 50  # the bars
LONG, LONG_ANSWERS = 50_000, ", answers of 50,000 characters"

# Every press and every item put into the document, with the time at which the item was on the screen.
WATCH = """() => {
    window.__paint = {pressed: 0, waits: [], starved: 0};
    const seen = window.__paint;
    addEventListener("keydown", (event) => { seen.pressed = event.timeStamp; }, true);
    const stage = document.querySelector(".al-stage");
    new MutationObserver(() => {
        const pressed = seen.pressed;
        if (!pressed) return;
        if (!stage.querySelector(".al-item")) { seen.starved += 1; seen.pressed = 0; return; }
        seen.pressed = 0;
        requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => seen.waits.push(performance.now() - pressed);
            channel.port2.postMessage(0);
        });
    }).observe(stage, {childList: true});
}"""


def measure_key_to_paint(url: str, delay_ms: float, votes: int = 200) -> dict[str, float]:
    """`votes` answers by key at `url` (the app's address; its open project must hold that many pairs).

    {votes, delay_ms, p50, p95, max, starved}, in milliseconds.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=CHROMIUM_ARGS)
        measured = measure_in(browser, url, delay_ms, votes)
        browser.close()
    return measured


def measure_in(browser: Any, url: str, delay_ms: float, votes: int) -> dict[str, float]:
    """The same in a new tab of an open browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(120_000)
    _slow_down(page, delay_ms)
    page.goto(f"{url}/label")
    _wait_for_next(page, "")
    page.evaluate(WATCH)
    for n in range(votes + WARM_UP):
        if n == WARM_UP:
            page.evaluate("window.__paint.waits = []; window.__paint.starved = 0")
        here = page.get_attribute(".al", "data-armed") or ""
        page.keyboard.press("1" if n % 2 else "2")
        _wait_for_next(page, here)
    page.wait_for_selector('.al-status[data-kind="saved"]')
    seen = page.evaluate("window.__paint")
    context.close()
    waits = sorted(seen["waits"])
    if len(waits) + seen["starved"] < votes:
        raise RuntimeError(f"only {len(waits)} of {votes} answers were followed by a pair")
    p95 = statistics.quantiles(waits, n=20, method="inclusive")[18]
    middle = statistics.median(waits)
    return {"votes": votes, "delay_ms": delay_ms, "p50": middle, "p95": p95, "max": waits[-1], "starved": seen["starved"]}


def _slow_down(page: Any, delay_ms: float) -> None:
    if not delay_ms:
        return
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    limits = {"offline": False, "latency": delay_ms, "downloadThroughput": -1, "uploadThroughput": -1}
    client.send("Network.emulateNetworkConditions", limits)


def _wait_for_next(page: Any, before: str) -> None:
    page.wait_for_function(
        "id => { const armed = document.querySelector('.al')?.dataset.armed; return armed && armed !== id; }", arg=before
    )
    page.wait_for_timeout(LOOK_MS)


def rows(measured: dict[str, float], what: str = "") -> list[Row]:
    """A measurement as rows of the bench's table."""
    name = f"key to next pair painted{what}, {measured['delay_ms']:g} ms round trip"
    return [
        Row(f"{name}, median", round(measured["p50"], 1), "ms", bar=f"<= {MEDIAN_MS}", met=measured["p50"] <= MEDIAN_MS),
        Row(f"{name}, p95", round(measured["p95"], 1), "ms", bar=f"<= {P95_MS}", met=measured["p95"] <= P95_MS),
        Row(f"{name}, starved", measured["starved"], "", bar="0", met=measured["starved"] == 0),
    ]


def seed(home: Path, pairs: int, characters: int) -> None:
    """A workspace whose open project has that many pairs, of answers at least that long."""
    from data import completions, people, projects, prompts
    from data.database import Database
    from data.engine import Message
    from data.settings import Settings

    db = Database(Settings(home=home))
    project = projects.create(db, "Painted")
    asked = [
        prompts.new(project.project_id, [Message("user", f"Question number {i}: what is {i} + {i + 1}?")]) for i in range(pairs)
    ]
    prompts.add(db, asked)
    line = "A line of an answer with **bold** words and `code` in it, to be read.\n\n"
    filler = line * (characters // len(line))
    texts = [(p, f"Answer {k} to number {i}.\n\n{filler}" + "More. " * k) for i, p in enumerate(asked) for k in range(2)]
    completions.add(db, [completions.new(p, text, "generated", "model", sample_index=k % 2) for k, (p, text) in enumerate(texts)])
    people.ensure(db, "local", "You", "local")
    people.set_open_project(db, "local", project.project_id)
    db.close()


# --- alone ----------------------------------------------------------------------------------------------------------------


@contextmanager
def _served(home: Path, port: int) -> Iterator[str]:
    command = [sys.executable, "tests/label_app.py", str(home), str(port)]
    with (home.parent / "app.log").open("ab") as log:
        app = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"})
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if app.poll() is not None:
                raise RuntimeError((home.parent / "app.log").read_text()[-2000:])
            try:
                urllib.request.urlopen(f"{url}/label", timeout=10).read()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        app.terminate()
        app.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Key press to next pair painted on the Label page.")
    parser.add_argument("--votes", type=int, default=200)
    parser.add_argument("--port", type=int, default=7989)
    args = parser.parse_args()
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for what, characters, delays in (("", 0, (0, 80)), (LONG_ANSWERS, LONG, (0,))):
            home = Path(folder) / f"{characters}" / "workspace"
            home.parent.mkdir()
            seed(home, (args.votes + WARM_UP) * len(delays) + 40, characters)
            with _served(home, args.port) as url:
                for delay in delays:
                    found += rows(measure_key_to_paint(url, delay, args.votes), what)
    return 0 if publish("label_paint", found, ("playwright", "gradio")) else 1


if __name__ == "__main__":
    sys.exit(main())
