"""Nothing said on the Label page is lost: killed servers, closed tabs, no network, no storage, signed out, two tabs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SCREENSHOTS, free_port
from label_browser import LOOK, READY, Site, press, said, saved, shown, visit
from labelling import seed_project

from data.database import Database
from data.settings import Settings

pytestmark = pytest.mark.browser


class Process:
    """The page as a process that can be killed, over a workspace that outlives it."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "tests" / "label_app.py"), str(self.home), str(self.port)]
        log = (self.home.parent / "app.log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
        )
        while True:
            assert self.process.poll() is None, (self.home.parent / "app.log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{self.url}/label", timeout=10).read()
                return
            except OSError:
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[Any]:
    """`killable()` seeds a workspace of 120 pairs and serves it."""
    running: list[Process] = []

    def start() -> Process:
        home = tmp_path / "workspace"
        db = Database(Settings(home=home))
        seed_project(db, 120)
        db.close()
        running.append(Process(home))
        return running[0]

    yield start
    for process in running:
        process.kill()


def test_labels_in_flight_survive_kill_9_of_the_server(killable: Any, page: Any) -> None:
    """Three times the server is killed while somebody goes on labelling; every answer is there exactly once in the end."""
    process = killable()
    page.on("dialog", lambda dialog: dialog.accept())
    visit(page, process.url)
    rng = random.Random(7)
    expected: dict[str, str] = {}
    keys = {"1": "a", "2": "b", "3": "tie", "4": "both_bad"}

    def label(n: int) -> None:
        for _ in range(n):
            key = rng.choice(list(keys))
            expected[press(page, key)["id"]] = keys[key]

    for n in (4, 3, 5):
        label(n)
        last = shown(page)["id"]
        page.keyboard.press("1")
        expected[last] = "a"
        process.kill()  # with that label in flight
        page.wait_for_function("id => document.querySelector('.al').dataset.armed !== id", arg=last)
        page.wait_for_selector(READY)
        page.wait_for_timeout(LOOK)
        label(5)  # the next ones are here already
        page.wait_for_selector('.al-status[data-kind="waiting"]:has-text("unsent")')
        process.start()
        page.evaluate("document.querySelector('.al-warn .al-inline')?.click()")  # gone when the outbox has tried by itself
        saved(page)
    page.wait_for_timeout(300)
    process.kill()
    db = Database(Settings(home=process.home))
    try:
        rows = db.rows("select impression_id, preference from label_events where event = 'cast'")
        got = {row["impression_id"]: row["preference"] for row in rows}
        assert len(rows) == len(got)
        assert got == expected
        assert len(got) == 4 + 3 + 5 + 3 * 6
    finally:
        db.close()


@pytest.mark.slow
def test_a_closed_tab_delivers_its_labels_next_time(killable: Any, page: Any) -> None:
    """The server is down and the tab goes away; the next visit sends what was said."""
    process = killable()
    page.on("dialog", lambda dialog: dialog.accept())
    visit(page, process.url)
    press(page, "1")
    saved(page)
    process.kill()
    expected = {press(page, key)["id"]: what for key, what in [("2", "b"), ("3", "tie"), ("2", "b")]}
    context = page.context
    page.close()
    process.start()
    again = context.new_page()
    visit(again, process.url)
    saved(again)
    assert shown(again)["id"] not in expected
    process.kill()
    db = Database(Settings(home=process.home))
    try:
        got = {row["impression_id"]: row["preference"] for row in db.rows("select * from current_labels")}
        assert {i: got.get(i) for i in expected} == expected
        assert len(got) == 4
    finally:
        db.close()


def test_offline_for_a_while(site: Site, page: Any) -> None:
    project = seed_project(site.db, 40)
    site.open(project)
    visit(page, site.url)
    page.context.set_offline(True)
    expected = {press(page, "2")["id"]: "b" for _ in range(12)}
    page.wait_for_function("document.querySelector('.al-status').textContent === '12 unsent'")
    assert "cannot be reached" in page.locator(".al-problems").text_content()
    page.screenshot(path=SCREENSHOTS / "label-offline.png")
    assert said(site.db, project.project_id) == {}
    page.context.set_offline(False)
    saved(page)
    assert said(site.db, project.project_id) == expected
    assert page.locator(".al-problems").text_content() == ""


@pytest.mark.slow  # it waits the half minute
def test_half_a_minute_offline(site: Site, page: Any) -> None:
    """Longer than a request may take and than the pauses between tries grow at first; the page says so all the while."""
    project = seed_project(site.db, 40)
    site.open(project)
    visit(page, site.url)
    page.context.set_offline(True)
    since = time.monotonic()
    expected: dict[str, str] = {}
    while time.monotonic() - since < 30:
        if len(expected) < 15:
            expected[press(page, "12"[len(expected) % 2])["id"]] = "ab"[len(expected) % 2]
            unsent = f"{len(expected)} unsent"
            page.wait_for_function("said => document.querySelector('.al-status').textContent === said", arg=unsent)
        assert page.locator(".al-status").text_content() == unsent
        assert "cannot be reached" in page.locator(".al-problems").text_content()
        page.wait_for_timeout(1_000)
    assert said(site.db, project.project_id) == {}
    page.context.set_offline(False)
    saved(page)  # by itself
    assert said(site.db, project.project_id) == expected
    assert page.locator(".al-problems").text_content() == ""
    assert shown(page)["id"] not in expected


def test_leaving_with_unsent_labels_asks_first(site: Site, page: Any) -> None:
    project = seed_project(site.db, 10)
    site.open(project)
    visit(page, site.url)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.route("**/api/label", lambda route: route.abort())
    press(page, "1")
    page.goto(f"{site.url}/")
    assert asked == ["beforeunload"]
    page.unroute("**/api/label")
    visit(page, site.url)
    saved(page)
    assert list(said(site.db, project.project_id).values()) == ["a"]


def test_a_signed_out_annotator_keeps_the_labels(site: Site, page: Any) -> None:
    project = seed_project(site.db, 10)
    site.open(project)
    visit(page, site.url)
    page.route("**/api/label", lambda route: route.fulfill(status=401, json={"error": "Sign in again."}))
    press(page, "1")
    page.wait_for_selector(".al-problems .al-warn")
    assert "Sign in again." in page.locator(".al-problems").text_content()
    assert page.locator(".al-status").text_content() == "1 unsent"
    assert page.get_by_role("link", name="Sign in").get_attribute("href") == f"{site.url}/sign-in"
    page.unroute("**/api/label")
    page.get_by_role("button", name="Try now").click()
    saved(page)
    assert list(said(site.db, project.project_id).values()) == ["a"]


def test_a_signed_out_annotator_with_nothing_on_the_screen_is_shown_the_way_in(site: Site, page: Any) -> None:
    site.open(seed_project(site.db, 10))
    page.route("**/api/label/batch*", lambda route: route.fulfill(status=401, json={"error": "Sign in again."}))
    page.goto(f"{site.url}/label")
    page.get_by_role("heading", name="You are signed out").wait_for()
    assert "Sign in again." in page.locator(".al-notice").inner_text()
    assert page.get_by_role("link", name="Sign in").get_attribute("href") == f"{site.url}/sign-in"
    page.unroute("**/api/label/batch*")
    page.wait_for_selector(READY)  # by itself


def test_a_label_that_can_never_be_stored_is_shown_with_its_reason(site: Site, page: Any) -> None:
    """One bad entry among good ones: the good ones arrive, the bad one is listed until somebody has seen it."""
    project = seed_project(site.db, 10)
    site.open(project)
    visit(page, site.url)
    page.context.set_offline(True)
    press(page, "1")
    page.evaluate("""() => {
        const key = Object.keys(localStorage).find(k => k.startsWith("al-out:"));
        const entry = {...JSON.parse(localStorage.getItem(key)), id: crypto.randomUUID(), impression: "somebody else's"};
        localStorage.setItem(key.replace(/[^:]+$/, entry.id), JSON.stringify(entry));
    }""")
    page.context.set_offline(False)
    page.wait_for_selector(".al-problems details.al-warn")
    saved(page)
    assert "1 label could not be stored" in page.locator(".al-problems").text_content()
    assert "was not shown to you" in page.locator(".al-problems").text_content()
    assert list(said(site.db, project.project_id).values()) == ["a"]
    visit(page, site.url)
    page.get_by_role("button", name="Remove this list").click()
    assert page.locator(".al-problems").text_content() == ""


def test_two_tabs_of_one_person_share_the_work(site: Site, page: Any) -> None:
    project = seed_project(site.db, 15)
    site.open(project)
    visit(page, site.url)
    other = page.context.new_page()
    visit(other, site.url)
    assert shown(page)["id"] != shown(other)["id"]
    expected = {}
    for k in range(15):
        tab = (page, other)[k % 2]
        tab.wait_for_selector(READY)
        tab.wait_for_timeout(LOOK)
        seen = shown(tab)
        assert seen["id"] not in expected
        tab.keyboard.press("1")
        expected[seen["id"]] = "a"
        tab.wait_for_timeout(LOOK)
    saved(page)
    saved(other)
    assert said(site.db, project.project_id) == expected
    assert site.db.value("select count(*) from label_events where project_id = ?", [project.project_id]) == 15
    page.wait_for_selector('.al[data-state="done"]')
    other.wait_for_selector('.al[data-state="done"]')


def test_a_tab_that_is_gone_keeps_no_item_to_itself(site: Site, page: Any) -> None:
    """One item: the second tab must wait for it, and has it as soon as the first is closed."""
    project = seed_project(site.db, 1)
    site.open(project)
    visit(page, site.url)
    other = page.context.new_page()
    other.goto(f"{site.url}/label")
    other.locator(".al-notice", has_text="in another tab").wait_for()
    page.close()
    other.wait_for_selector(READY)
    other.wait_for_timeout(LOOK)
    other.keyboard.press("2")
    other.wait_for_selector('.al[data-state="done"]')
    saved(other)
    assert list(said(site.db, project.project_id).values()) == ["b"]


def test_labels_wait_for_their_owner_while_another_person_is_signed_in(site: Site, page: Any) -> None:
    """The server refuses each as not shown to this person: that is no reason to give a label up."""
    project = seed_project(site.db, 10)
    site.open(project)
    visit(page, site.url)

    def as_somebody_else(route: Any) -> None:
        refused = [{"id": one["id"], "accepted": False, "reason": "Not shown to you."} for one in route.request.post_data_json]
        route.fulfill(json={"who": "somebody", "space": "else", "results": refused, "progress": {}})

    page.route("**/api/label", as_somebody_else)
    press(page, "1")
    page.locator(".al-warn", has_text="somebody else now").wait_for()
    assert page.locator(".al-status").text_content() == "1 unsent"
    page.unroute("**/api/label")
    page.get_by_role("button", name="Try now").click()
    saved(page)
    assert list(said(site.db, project.project_id).values()) == ["a"]


def test_without_storage_labels_still_arrive(site: Site, page: Any) -> None:
    project = seed_project(site.db, 10)
    site.open(project)
    page.add_init_script(
        """Object.defineProperty(window, "localStorage", {get() { throw new DOMException("no", "SecurityError"); }});"""
    )
    page.add_init_script("Object.defineProperty(navigator, 'locks', {value: undefined}); crypto.randomUUID = undefined;")
    visit(page, site.url)
    expected = {press(page, "2")["id"]: "b" for _ in range(5)}
    saved(page)
    assert said(site.db, project.project_id) == expected
