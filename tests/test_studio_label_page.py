"""The Label page in a real browser. What counts is what is in the database afterwards, never what the page says.

Screenshots (light, dark, phone) go to tests/screenshots/.
"""

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
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, SCREENSHOTS, free_port
from hostile import CORPUS
from labelling import MODEL_NAME, RUN_ID, completion, prompt, seed_project, seed_texts

from data import completions, impressions, labels, people, prompts
from data.database import Database
from data.records import Project
from data.settings import Settings

pytestmark = pytest.mark.browser

READY = '.al[data-armed]:not([data-armed=""])'
FORBIDDEN = ["script", "iframe", "img", "form", "a[href]", "object", "style", "link", "[id]", "[onerror]", "[onload]"]
LOOK = 150  # milliseconds that the page wants an item to be seen before it takes a key


class App(NamedTuple):
    url: str
    db: Database
    studio: Any

    def open(self, project: Project) -> None:
        people.ensure(self.db, "local", "You", "local")
        people.set_open_project(self.db, "local", project.project_id)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The page served from this process, so that a test can look into the same database."""
    from label_app import launch, studio_without_runs

    settings = Settings(home=tmp_path_factory.mktemp("label") / "workspace", port=free_port())
    db = Database(settings)
    studio = studio_without_runs(settings, db)
    demo = launch(studio)
    yield App(f"http://127.0.0.1:{settings.port}", db, studio)
    demo.close()
    db.close()


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


def said(db: Database, project_id: str) -> dict[str, str]:
    return {e.impression_id: e.preference for e in labels.current(db, project_id)}


# --- labelling ---


def test_twenty_pairs_with_the_keyboard_are_in_the_database_as_they_were_shown(app: App, page: Any) -> None:
    project = seed_project(app.db, 40)
    app.open(project)
    visit(page, app.url)
    keys = {
        "1": "a",
        "a": "a",
        "ArrowLeft": "a",
        "2": "b",
        "b": "b",
        "ArrowRight": "b",
        "3": "tie",
        "t": "tie",
        "4": "both_bad",
        "x": "both_bad",
    }
    expected = {}
    for key in [*keys, *keys]:
        seen = press(page, key.upper() if key in "abtx" and len(expected) > 10 else key)
        expected[seen["id"]] = (keys[key], seen)
    saved(page)
    assert page.locator(".al-count").text_content().startswith("20 of ")
    stored = {e.impression_id: e for e in labels.current(app.db, project.project_id)}
    assert {i: e.preference for i, e in stored.items()} == {i: preference for i, (preference, _) in expected.items()}
    assert len(stored) == 20
    for i, (preference, seen) in expected.items():
        chosen = {"a": seen["left"], "b": seen["right"]}.get(preference)
        text = completions.get(app.db, stored[i].chosen_completion_id).text if stored[i].chosen_completion_id else None
        assert text == chosen
        assert stored[i].dwell_ms >= 120
        assert stored[i].client_at is not None


def test_binary_with_j_and_k(app: App, page: Any) -> None:
    project = seed_project(app.db, 8, n_completions=2, task="binary")
    app.open(project)
    visit(page, app.url)
    assert page.locator(".al-pane").count() == 1
    expected = {
        press(page, key)["id"]: what for key, what in [("j", "good"), ("k", "bad"), ("s", "skip"), ("1", "good"), ("2", "bad")]
    }
    saved(page)
    assert said(app.db, project.project_id) == expected
    page.keyboard.press("a")  # a key of the other task
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert len(said(app.db, project.project_id)) == 5
    page.screenshot(path=SCREENSHOTS / "label-binary.png")


def test_the_buttons_do_the_same_and_show_their_keys(app: App, page: Any) -> None:
    project = seed_project(app.db, 6)
    app.open(project)
    visit(page, app.url)
    expected = {}
    for name, preference in [
        ("A is better", "a"),
        ("B is better", "b"),
        ("Tie", "tie"),
        ("Both bad", "both_bad"),
        ("Skip", "skip"),
    ]:
        seen = shown(page)
        button = page.get_by_role("button", name=name)
        assert button.locator("kbd").count() >= 1
        assert button.get_attribute("aria-keyshortcuts")
        button.dblclick()  # the second click is for the next pair, which nobody has read
        expected[seen["id"]] = preference
        page.wait_for_selector(READY)
        page.wait_for_timeout(LOOK)
    saved(page)
    assert said(app.db, project.project_id) == expected


def test_undo_takes_back_and_brings_the_same_pair_with_the_same_sides(app: App, page: Any) -> None:
    project = seed_project(app.db, 12)
    app.open(project)
    visit(page, app.url)
    first, second, third = press(page, "1"), press(page, "2"), press(page, "s")
    fourth = shown(page)
    for expected in (third, second):
        page.keyboard.press("u")
        page.wait_for_selector(f'.al[data-armed="{expected["id"]}"]')
        assert shown(page) == expected
    assert page.locator(".al-vote[data-was]").get_attribute("data-action") == "b"
    page.wait_for_timeout(LOOK)
    assert press(page, "3")["id"] == second["id"]
    assert shown(page)["id"] == third["id"]
    press(page, "1")
    assert shown(page)["id"] == fourth["id"]
    saved(page)
    assert said(app.db, project.project_id) == {first["id"]: "a", second["id"]: "tie", third["id"]: "a"}
    history = [e.event for e in labels.history(app.db, second["id"])]
    assert history == ["cast", "retracted", "cast"]


def test_undo_reaches_back_over_a_reload(app: App, page: Any) -> None:
    project = seed_project(app.db, 12)
    app.open(project)
    visit(page, app.url)
    first, second = press(page, "1"), press(page, "2")
    saved(page)
    visit(page, app.url)
    for expected in (second, first):
        page.keyboard.press("Backspace")
        page.wait_for_selector(f'.al[data-armed="{expected["id"]}"]')
        assert shown(page) == expected
    page.keyboard.press("u")
    page.wait_for_function("document.querySelector('.al-said').textContent.includes('nothing to undo')")
    saved(page)
    assert said(app.db, project.project_id) == {}


def test_a_reload_brings_back_what_was_on_the_screen(app: App, page: Any) -> None:
    project = seed_project(app.db, 30)
    app.open(project)
    visit(page, app.url)
    press(page, "1")
    saved(page)
    before = shown(page)
    visit(page, app.url)
    assert shown(page) == before
    assert len(impressions.of_annotator(app.db, "local", project.project_id)) <= 30


# --- keys that must do nothing ---


def test_a_held_key_is_one_answer(app: App, page: Any) -> None:
    project = seed_project(app.db, 30)
    app.open(project)
    visit(page, app.url)
    for _ in range(15):
        page.keyboard.down("1")  # without an up in between the browser marks it as a repeat
        page.wait_for_timeout(60)
    page.keyboard.up("1")
    saved(page)
    assert list(said(app.db, project.project_id).values()) == ["a"]


def test_no_key_counts_before_the_pair_is_painted(app: App, page: Any) -> None:
    project = seed_project(app.db, 30)
    app.open(project)
    visit(page, app.url)
    page.evaluate("""() => { for (const key of ["1", "2", "3", "1", "2"])
        document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); }""")
    page.wait_for_timeout(500)
    saved(page)
    assert list(said(app.db, project.project_id).values()) == ["a"]


@pytest.mark.parametrize("tag", ["input", "textarea", "div contenteditable", "select"])
def test_keys_are_dead_while_typing(app: App, page: Any, tag: str) -> None:
    project = seed_project(app.db, 5)
    app.open(project)
    visit(page, app.url)
    page.evaluate("tag => document.body.insertAdjacentHTML('afterbegin', `<${tag} id=typing></${tag.split(' ')[0]}>`)", tag)
    page.focus("#typing")
    page.keyboard.type("1ab2stxu")
    page.keyboard.press("Backspace")
    page.wait_for_timeout(300)
    assert app.db.value("select count(*) from label_events where project_id = ?", [project.project_id]) == 0


def test_keys_are_dead_with_modifiers_and_under_help(app: App, page: Any) -> None:
    project = seed_project(app.db, 5)
    app.open(project)
    visit(page, app.url)
    for combination in ("Control+1", "Alt+ArrowLeft", "Meta+a", "Control+x"):
        page.keyboard.press(combination)
    page.wait_for_timeout(200)
    visit(page, app.url)  # Alt+ArrowLeft may have gone back
    page.keyboard.press("?")
    page.wait_for_selector("dialog.al-help[open]")
    page.keyboard.press("1")
    page.screenshot(path=SCREENSHOTS / "label-keys.png")
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert app.db.value("select count(*) from label_events where project_id = ?", [project.project_id]) == 0


# --- nothing is lost ---


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


def test_offline_for_a_while(app: App, page: Any) -> None:
    project = seed_project(app.db, 40)
    app.open(project)
    visit(page, app.url)
    page.context.set_offline(True)
    expected = {press(page, "2")["id"]: "b" for _ in range(12)}
    page.wait_for_function("document.querySelector('.al-status').textContent === '12 unsent'")
    assert "cannot be reached" in page.locator(".al-problems").text_content()
    page.screenshot(path=SCREENSHOTS / "label-offline.png")
    assert said(app.db, project.project_id) == {}
    page.context.set_offline(False)
    saved(page)
    assert said(app.db, project.project_id) == expected
    assert page.locator(".al-problems").text_content() == ""


def test_leaving_with_unsent_labels_asks_first(app: App, page: Any) -> None:
    project = seed_project(app.db, 10)
    app.open(project)
    visit(page, app.url)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.route("**/api/label", lambda route: route.abort())
    press(page, "1")
    page.goto(f"{app.url}/")
    assert asked == ["beforeunload"]
    page.unroute("**/api/label")
    visit(page, app.url)
    saved(page)
    assert list(said(app.db, project.project_id).values()) == ["a"]


def test_a_signed_out_annotator_keeps_the_labels(app: App, page: Any) -> None:
    project = seed_project(app.db, 10)
    app.open(project)
    visit(page, app.url)
    page.route("**/api/label", lambda route: route.fulfill(status=401, json={"error": "Sign in again."}))
    press(page, "1")
    page.wait_for_selector(".al-problems .al-warn")
    assert "Sign in again." in page.locator(".al-problems").text_content()
    assert page.locator(".al-status").text_content() == "1 unsent"
    page.unroute("**/api/label")
    page.locator(".al-warn .al-inline").click()
    saved(page)
    assert list(said(app.db, project.project_id).values()) == ["a"]


def test_a_label_that_can_never_be_stored_is_shown_with_its_reason(app: App, page: Any) -> None:
    """One bad entry among good ones: the good ones arrive, the bad one is listed until somebody has seen it."""
    project = seed_project(app.db, 10)
    app.open(project)
    visit(page, app.url)
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
    assert list(said(app.db, project.project_id).values()) == ["a"]
    visit(page, app.url)
    page.get_by_role("button", name="Remove this list").click()
    assert page.locator(".al-problems").text_content() == ""


def test_two_tabs_of_one_person_share_the_work(app: App, page: Any) -> None:
    project = seed_project(app.db, 15)
    app.open(project)
    visit(page, app.url)
    other = page.context.new_page()
    visit(other, app.url)
    assert shown(page) == shown(other)
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
    assert said(app.db, project.project_id) == expected
    assert app.db.value("select count(*) from label_events where project_id = ?", [project.project_id]) == 15
    page.wait_for_selector('.al[data-state="done"]')
    other.wait_for_selector('.al[data-state="done"]')


def test_without_storage_labels_still_arrive(app: App, page: Any) -> None:
    project = seed_project(app.db, 10)
    app.open(project)
    page.add_init_script(
        """Object.defineProperty(window, "localStorage", {get() { throw new DOMException("no", "SecurityError"); }});"""
    )
    page.add_init_script("Object.defineProperty(navigator, 'locks', {value: undefined}); crypto.randomUUID = undefined;")
    visit(page, app.url)
    expected = {press(page, "2")["id"]: "b" for _ in range(5)}
    saved(page)
    assert said(app.db, project.project_id) == expected


# --- hostile text, blindness ---


def test_the_hostile_corpus_runs_nothing_loads_nothing_and_keeps_the_layout(app: App, page: Any) -> None:
    names = sorted(CORPUS)
    texts = [(CORPUS[n] if CORPUS[n].strip() else n, CORPUS[n], CORPUS[names[k - 1]] + " ") for k, n in enumerate(names)]
    project = seed_texts(app.db, [(t[0] + f"\n\n({k})", t[1], t[2]) for k, t in enumerate(texts)], system=CORPUS["handlers"])
    app.open(project)
    foreign: list[str] = []
    trouble: list[str] = []
    page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((app.url, "data:", "blob:")) else None)
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("popup", lambda popup: trouble.append(popup.url))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    visit(page, app.url)
    for k in range(len(names)):
        page.evaluate("document.querySelectorAll('.al-more').forEach(d => d.open = true)")
        page.wait_for_timeout(50)
        seen = page.evaluate(
            """forbidden => ({
            pwned: window.__pwned,
            wide: document.documentElement.scrollWidth - innerWidth,
            bar: document.querySelector('.al-votes').getBoundingClientRect().toJSON(),
            top: document.elementFromPoint(innerWidth / 2, document.querySelector('.al-votes').getBoundingClientRect().top + 20)
                .closest('.al-dock') !== null,
            forbidden: [...document.querySelectorAll(forbidden.map(what => '.al-item ' + what))].map(e => e.outerHTML),
        })""",
            FORBIDDEN,
        )
        assert seen["pwned"] is None
        assert seen["wide"] <= 0
        assert seen["top"], "the vote bar is covered"
        assert seen["bar"]["bottom"] <= 800
        assert seen["forbidden"] == []
        if k % 3 == 0:
            page.keyboard.press("r")
            page.wait_for_timeout(30)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            page.keyboard.press("r")
        if k + 1 < len(names):
            press(page, "s")
    assert foreign == []
    assert trouble == []


def test_nothing_that_reaches_the_browser_says_who_wrote_an_answer(app: App, page: Any) -> None:
    project = seed_project(app.db, 30)
    app.open(project)
    seen: list[str] = []

    def keep(response: Any) -> None:
        if "font" not in response.headers.get("content-type", ""):
            seen.append(f"{response.url} {response.headers} {response.text()}")

    page.on("response", keep)
    visit(page, app.url)
    for key in ("1", "2", "3", "4", "s"):
        press(page, key)
    page.keyboard.press("u")
    page.wait_for_timeout(LOOK)
    saved(page)
    visit(page, app.url)
    page.keyboard.press("u")
    page.wait_for_timeout(500)
    seen.append(page.content())
    seen.append(page.evaluate("JSON.stringify(localStorage)"))
    secrets = {MODEL_NAME, RUN_ID}
    for table in ("completion", "prompt", "pair"):
        secrets |= {
            r["id"] for r in app.db.rows(f"select {table}_id as id from {table}s where project_id = ?", [project.project_id])
        }
    assert len(secrets) > 100
    assert len(seen) > 10
    assert [s for s in secrets for text in seen if s in text] == []


# --- how it looks ---


@pytest.fixture
def showcase(app: App) -> Project:
    guidelines = (
        "Choose the answer that is **right**, does exactly what was asked and is polite.\n\n- Prefer the shorter of two good ones."
    )
    project = seed_project(app.db, 0, guidelines=guidelines, name="Helpful assistant")
    turns = (
        "Solve $x^2 - 5x + 6 = 0$ and show how you found the roots.",
        "We factor:\n\n$$x^2 - 5x + 6 = (x-2)(x-3)$$\n\n"
        "A product is zero when **one factor** is zero, so\n\n1. $x_1 = 2$\n2. $x_2 = 3$",
        "The formula gives\n\n\\[\nx = \\frac{-b \\pm \\sqrt{b^2-4ac}}{2a}\n\\]\n\n"
        "| root | value |\n|---|---|\n| $x_1$ | 3 |\n| $x_2$ | 2 |\n\n"
        "```python\nfor x in (2, 3):\n    assert x**2 - 5 * x + 6 == 0\n```\n\n"
        "See [this page](https://example.com/roots) and ![a plot](https://example.com/p.png).",
    )
    p = prompt(project, turns[0], system="You are a careful tutor.")
    prompts.add(app.db, [p])
    completions.add(app.db, [completion(p, turns[1], 0), completion(p, turns[2], 1)])
    app.open(project)
    return project


@pytest.mark.parametrize(
    ("name", "theme", "width", "height"), [("light", "light", 1280, 800), ("dark", "dark", 1280, 800), ("phone", "light", 390, 844)]
)
def test_it_looks_right(app: App, chromium: Any, showcase: Project, name: str, theme: str, width: int, height: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(60_000)
    page = context.new_page()
    visit(page, app.url, theme)
    page.wait_for_selector(".katex")
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"label-{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    bar = page.locator(".al-votes").bounding_box()
    assert bar["y"] + bar["height"] <= height
    for button in page.locator(".al-vote").all():
        assert button.bounding_box()["height"] >= (44 if width < 500 else 36)
    panes = [pane.bounding_box() for pane in page.locator(".al-pane").all()]
    if width > 500:
        assert panes[0]["y"] == panes[1]["y"]
        assert abs(panes[0]["width"] - panes[1]["width"]) < 1
        assert abs(panes[0]["height"] - panes[1]["height"]) < 1
    else:
        assert (
            height - 1 <= page.locator(".al-dock").bounding_box()["y"] + page.locator(".al-dock").bounding_box()["height"] <= height
        )
        assert panes[1]["y"] > panes[0]["y"] + panes[0]["height"]
    page.keyboard.press("r")
    assert page.locator(".al-pane .al-raw").first.is_visible()
    assert not page.locator(".al-pane .al-rendered").first.is_visible()
    page.screenshot(path=SCREENSHOTS / f"label-{name}-raw.png")
    context.close()


def test_nothing_to_label_leads_to_generating_and_all_done_to_training(app: App, page: Any) -> None:
    project = seed_project(app.db, 0)
    app.open(project)
    page.goto(f"{app.url}/label")
    page.wait_for_selector('.al[data-state="empty"]')
    page.screenshot(path=SCREENSHOTS / "label-empty.png")
    assert page.get_by_role("link", name="Generate answers").get_attribute("href").endswith("/data?tab=generate")
    p = prompt(project, "A prompt that comes later")
    prompts.add(app.db, [p])
    completions.add(app.db, [completion(p, "one", 0), completion(p, "two", 1)])
    page.wait_for_selector(READY)  # by itself
    page.wait_for_timeout(LOOK)
    page.keyboard.press("1")
    page.wait_for_selector('.al[data-state="done"]')
    page.screenshot(path=SCREENSHOTS / "label-done.png")
    assert page.get_by_role("link", name="Train on these labels").get_attribute("href").endswith("/train")
    page.get_by_role("button", name="Undo the last one").click()
    page.wait_for_selector(READY)
