"""How the Label page looks in light, dark and on a phone, and whether axe finds it usable; screenshots in tests/screenshots/."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import READY, Site, press, violations, visit
from labelling import completion, prompt, seed_project, seed_texts

from data import completions, prompts
from data.records import Project

pytestmark = pytest.mark.browser


@pytest.fixture
def showcase(site: Site) -> Project:
    guidelines = (
        "Choose the answer that is **right**, does exactly what was asked and is polite.\n\n- Prefer the shorter of two good ones."
    )
    project = seed_project(site.db, 0, guidelines=guidelines, name="Helpful assistant")
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
    prompts.add(site.db, [p])
    completions.add(site.db, [completion(p, turns[1], 0), completion(p, turns[2], 1)])
    site.open(project)
    return project


@pytest.mark.parametrize(
    ("name", "theme", "width", "height"), [("light", "light", 1280, 800), ("dark", "dark", 1280, 800), ("phone", "light", 390, 844)]
)
def test_it_looks_right(site: Site, chromium: Any, showcase: Project, name: str, theme: str, width: int, height: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(60_000)
    page = context.new_page()
    visit(page, site.url, theme)
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
        assert panes[1]["y"] == panes[0]["y"]  # beside it, one swipe away
        assert panes[1]["x"] >= panes[0]["x"] + panes[0]["width"]
        assert panes[0]["width"] > 0.9 * width
    page.keyboard.press("r")
    assert page.locator(".al-pane .al-raw").first.is_visible()
    assert not page.locator(".al-pane .al-rendered").first.is_visible()
    page.screenshot(path=SCREENSHOTS / f"label-{name}-raw.png")
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state(site: Site, page: Any, showcase: Project, theme: str) -> None:
    found: dict[str, list[str]] = {}
    visit(page, site.url, theme)
    page.wait_for_selector(".katex")
    found["ready"] = violations(page)
    page.keyboard.press("r")
    found["raw"] = violations(page)
    page.keyboard.press("r")
    page.keyboard.press("?")
    page.wait_for_selector("dialog.al-help[open]")
    found["help"] = violations(page)
    page.locator('.al-change[data-action="tie"]').click()
    page.keyboard.press("1")
    found["help, key refused"] = violations(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    press(page, "1")
    page.wait_for_selector('.al[data-state="done"]')
    found["done"] = violations(page)
    page.locator(".al-card").first.click()
    page.wait_for_selector(READY)
    found["an earlier answer"] = violations(page)
    page.screenshot(path=SCREENSHOTS / f"label-again-{theme}.png")
    site.open(seed_project(site.db, 8))
    visit(page, site.url, theme)
    press(page, "1")
    found["history open, differences marked"] = violations(page)
    page.screenshot(path=SCREENSHOTS / f"label-history-{theme}.png")
    page.context.set_offline(True)
    press(page, "2")
    page.wait_for_selector(".al-warn")
    found["offline"] = violations(page)
    page.context.set_offline(False)
    page.wait_for_selector('.al-status[data-kind="saved"]')
    site.open(seed_project(site.db, 4, task="binary"))
    visit(page, site.url, theme)
    found["binary"] = violations(page)
    site.open(seed_project(site.db, 0))
    page.goto(f"{site.url}/label?__theme={theme}")
    page.wait_for_selector('.al[data-state="empty"]')
    found["empty"] = violations(page)
    assert not page.locator(".al-count").is_visible()
    assert {state: what for state, what in found.items() if what} == {}


def test_each_vote_button_lies_under_its_answer(site: Site, page: Any) -> None:
    site.open(seed_project(site.db, 4))
    visit(page, site.url)
    for side in "ab":
        pane = page.locator(f'.al-pane[data-side="{side}"]').bounding_box()
        vote = page.locator(f'.al-vote[data-action="{side}"]').bounding_box()
        assert vote["x"] >= pane["x"] - 1
        assert vote["x"] + vote["width"] <= pane["x"] + pane["width"] + 1
    names = [vote.get_attribute("data-action") for vote in page.locator(".al-vote").all()]
    assert names == ["a", "tie", "both_bad", "b", "skip", "undo"]


@pytest.mark.parametrize(("name", "theme", "width"), [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 390)])
def test_awkward_texts_keep_the_layout(site: Site, chromium: Any, name: str, theme: str, width: int) -> None:
    """Long words, right-to-left text, wide tables, long lines of code."""
    wide = (
        "| "
        + " | ".join(f"column {i}" for i in range(14))
        + " |\n"
        + "|---" * 14
        + "|\n"
        + "| "
        + " | ".join("12345" * 2 for _ in range(14))
        + " |"
    )
    code = "```python\n" + "x = " + " + ".join(f"value_{i}" for i in range(60)) + "\nprint(x)\n```"
    arabic = "هذه إجابة طويلة باللغة العربية، وفيها رقم 42 وكلمة English في الوسط. " * 4
    site.open(
        seed_texts(
            site.db,
            [
                (
                    "اكتب شيئا، and " + "w" * 150,
                    f"{arabic}\n\n{wide}",
                    f"{'Donaudampfschiff' * 20}\n\n{code}\n\n$$\\sum_{{i=0}}^n i^2$$",
                )
            ],
        )
    )
    context = chromium.new_context(viewport={"width": width, "height": 844 if width < 500 else 800})
    context.set_default_timeout(60_000)
    page = context.new_page()
    visit(page, site.url, theme)
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"label-awkward-{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    for pane in page.locator(".al-scroll").all():
        assert pane.evaluate("text => text.scrollWidth - text.clientWidth") <= 0
    context.close()
