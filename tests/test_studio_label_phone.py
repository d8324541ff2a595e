"""The Label page on a phone: one answer at a time, a swipe between them, votes by thumb and never by accident."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import LOOK, READY, Site, posted, said, saved, shown, violations, visit
from labelling import seed_project, seed_texts

pytestmark = pytest.mark.browser


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def swipe(page: Any, x: float, y: float, dx: float, dy: float = 0) -> None:
    """A finger's way over the screen, as the browser's own input events."""
    client = page.context.new_cdp_session(page)
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 9):
        point = {"x": x + dx * step / 8, "y": y + dy * step / 8}
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        page.wait_for_timeout(12)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    client.detach()
    page.wait_for_timeout(600)  # the snap


def on_screen(page: Any) -> str:
    """The answer that the page says is on the screen, after a look at whether it is."""
    named = page.locator('.al-which-one[aria-pressed="true"]').all_inner_texts()
    script = """() => [...document.querySelectorAll(".al-pane")].filter((pane) => {
        const box = pane.getBoundingClientRect();
        return box.left >= 0 && box.right <= innerWidth + 1;
    }).map((pane) => pane.getAttribute("aria-label"))"""
    assert page.evaluate(script) == named
    return str(named[0])


def test_a_swipe_turns_to_the_other_answer_and_votes_nothing(site: Site, phone: Any) -> None:
    project = seed_project(site.db, 8)
    site.open(project)
    visit(phone, site.url)
    seen = shown(phone)
    pane = phone.locator(".al-pane").first.bounding_box()
    middle = pane["y"] + pane["height"] / 2
    assert on_screen(phone) == "Answer A"
    swipe(phone, 320, middle, -260)
    assert on_screen(phone) == "Answer B"
    phone.screenshot(path=SCREENSHOTS / "label-phone-b.png")
    swipe(phone, 60, middle, 260)
    assert on_screen(phone) == "Answer A"
    bar = phone.locator('.al-vote[data-action="b"]').bounding_box()
    swipe(phone, bar["x"] + 120, bar["y"] + 20, -200)  # over the vote buttons
    swipe(phone, bar["x"] + 40, bar["y"] + 20, 0, -300)
    phone.locator(".al-which-one", has_text="Answer B").tap()
    phone.wait_for_timeout(600)
    assert on_screen(phone) == "Answer B"
    assert shown(phone) == seen
    assert said(site.db, project.project_id) == {}
    phone.get_by_role("button", name="B is better").tap()
    phone.wait_for_function("id => document.querySelector('.al').dataset.armed !== id", arg=seen["id"])
    phone.wait_for_selector(READY)
    assert on_screen(phone) == "Answer A"  # each pair begins with A
    saved(phone)
    assert said(site.db, project.project_id) == {seen["id"]: "b"}


def test_an_answer_that_was_never_turned_to_is_unread(site: Site, phone: Any) -> None:
    site.open(seed_texts(site.db, [(f"Which {i}?", f"This {i}", f"The other {i}") for i in range(2)]))
    visit(phone, site.url)
    sent = posted(phone)
    phone.get_by_role("button", name="A is better").tap()
    phone.wait_for_function("document.querySelector('.al-said').textContent !== ''")
    phone.wait_for_selector(READY)
    phone.wait_for_timeout(LOOK)
    phone.locator(".al-which-one", has_text="Answer B").tap()
    phone.wait_for_timeout(600)
    phone.get_by_role("button", name="A is better").tap()
    saved(phone)
    phone.wait_for_selector('.al[data-state="done"]')
    assert [event["read_share"] for event in sent] == [0, 1]


@pytest.mark.slow
def test_a_long_answer_is_read_above_the_vote_bar(site: Site, phone: Any) -> None:
    """Its own end can be scrolled to, and the bar stays in place all the while."""
    long = "\n\n".join(f"Paragraph {i} of an answer that goes on for a while." for i in range(60))
    site.open(seed_texts(site.db, [("Say much", long, long.upper())]))
    visit(phone, site.url)
    assert phone.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    for _ in range(14):
        swipe(phone, 200, 560, 0, -420)
    seen = phone.evaluate(
        """() => {
            const dock = document.querySelector(".al-dock").getBoundingClientRect();
            const last = document.querySelector('.al-pane[data-side="a"] .al-rendered').lastElementChild.getBoundingClientRect();
            return {dock: dock.bottom, end: last.bottom - dock.top};
        }"""
    )
    assert abs(seen["dock"] - 844) <= 1
    assert seen["end"] <= 0
    phone.screenshot(path=SCREENSHOTS / "label-phone-long.png")


def test_nothing_serious_for_axe_on_a_phone(site: Site, phone: Any) -> None:
    site.open(seed_project(site.db, 4))
    visit(phone, site.url)
    assert violations(phone) == []
    phone.get_by_role("button", name="History").tap()
    phone.locator(".al-strip").wait_for()
    assert violations(phone) == []
    phone.screenshot(path=SCREENSHOTS / "label-phone-history.png")
