"""The Label page in a real browser. What counts is what is in the database afterwards, never what the page says.

What else the page must do stands beside this: test_studio_label_keys, _history, _lost, _hostile, _reading, _looks.
"""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import LOOK, READY, Site, press, said, saved, shown, visit
from labelling import completion, prompt, seed_project

from data import completions, impressions, labels, prompts

pytestmark = pytest.mark.browser


def test_twenty_pairs_with_the_keyboard_are_in_the_database_as_they_were_shown(site: Site, page: Any) -> None:
    project = seed_project(site.db, 40)
    site.open(project)
    visit(page, site.url)
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
    stored = {e.impression_id: e for e in labels.current(site.db, project.project_id)}
    assert {i: e.preference for i, e in stored.items()} == {i: preference for i, (preference, _) in expected.items()}
    assert len(stored) == 20
    for i, (preference, seen) in expected.items():
        chosen = {"a": seen["left"], "b": seen["right"]}.get(preference)
        text = completions.get(site.db, stored[i].chosen_completion_id).text if stored[i].chosen_completion_id else None
        assert text == chosen
        assert stored[i].dwell_ms >= 120
        assert stored[i].client_at is not None


def test_binary_with_j_and_k(site: Site, page: Any) -> None:
    project = seed_project(site.db, 8, n_completions=2, task="binary")
    site.open(project)
    visit(page, site.url)
    assert page.locator(".al-pane").count() == 1
    expected = {
        press(page, key)["id"]: what for key, what in [("j", "good"), ("k", "bad"), ("s", "skip"), ("1", "good"), ("2", "bad")]
    }
    saved(page)
    assert said(site.db, project.project_id) == expected
    page.keyboard.press("a")  # a key of the other task
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert len(said(site.db, project.project_id)) == 5
    page.screenshot(path=SCREENSHOTS / "label-binary.png")


def test_the_buttons_do_the_same_and_show_their_keys(site: Site, page: Any) -> None:
    project = seed_project(site.db, 6)
    site.open(project)
    visit(page, site.url)
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
    assert said(site.db, project.project_id) == expected


def test_a_reload_brings_back_what_was_on_the_screen(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    visit(page, site.url)
    press(page, "1")
    saved(page)
    before = shown(page)
    visit(page, site.url)
    assert shown(page) == before
    assert len(impressions.of_annotator(site.db, "local", project.project_id)) <= 30


def test_nothing_to_label_leads_to_generating_and_all_done_to_training(site: Site, page: Any) -> None:
    project = seed_project(site.db, 0)
    site.open(project)
    page.goto(f"{site.url}/label")
    page.wait_for_selector('.al[data-state="empty"]')
    page.screenshot(path=SCREENSHOTS / "label-empty.png")
    assert page.get_by_role("link", name="Generate answers").get_attribute("href").endswith("/data?tab=generate")
    p = prompt(project, "A prompt that comes later")
    prompts.add(site.db, [p])
    completions.add(site.db, [completion(p, "one", 0), completion(p, "two", 1)])
    page.wait_for_selector(READY)  # by itself
    page.wait_for_timeout(LOOK)
    page.keyboard.press("1")
    page.wait_for_selector('.al[data-state="done"]')
    page.screenshot(path=SCREENSHOTS / "label-done.png")
    assert page.get_by_role("link", name="Train on these labels").get_attribute("href").endswith("/train")
    page.get_by_role("button", name="Undo the last one").click()
    page.wait_for_selector(READY)
