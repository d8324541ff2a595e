"""Looking back on the Label page: undo, the last answers, changing one of them."""

from __future__ import annotations

from typing import Any

import pytest
from label_browser import LOOK, Site, press, said, saved, shown, visit
from labelling import seed_project

from data import labels
from data.database import Database

pytestmark = pytest.mark.browser


def test_undo_takes_back_and_brings_the_same_pair_with_the_same_sides(site: Site, page: Any) -> None:
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
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
    assert said(site.db, project.project_id) == {first["id"]: "a", second["id"]: "tie", third["id"]: "a"}
    history = [e.event for e in labels.history(site.db, second["id"])]
    assert history == ["cast", "retracted", "cast"]


def test_undo_reaches_back_over_a_reload(site: Site, page: Any) -> None:
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
    first, second = press(page, "1"), press(page, "2")
    saved(page)
    visit(page, site.url)
    for expected in (second, first):
        page.keyboard.press("Backspace")
        page.wait_for_selector(f'.al[data-armed="{expected["id"]}"]')
        assert shown(page) == expected
    page.keyboard.press("u")
    page.wait_for_function("document.querySelector('.al-said').textContent.includes('nothing to undo')")
    saved(page)
    assert said(site.db, project.project_id) == {}


# --- the last answers ---


def events(db: Database, impression_id: str) -> list[str]:
    return [f"{e.event} {e.preference}".strip() for e in labels.history(db, impression_id)]


def look_at(page: Any, impression_id: str) -> None:
    page.locator(f'.al-card[data-id="{impression_id}"]').click()
    page.wait_for_selector(f'.al[data-armed="{impression_id}"]')
    page.wait_for_timeout(LOOK)


def back_at(page: Any, impression_id: str) -> None:
    page.wait_for_selector(f'.al[data-armed="{impression_id}"]')
    page.wait_for_timeout(LOOK)


def test_an_earlier_answer_is_changed_and_one_is_back_where_one_was(site: Site, page: Any) -> None:
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
    first, second, third = press(page, "1"), press(page, "3"), press(page, "s")
    fourth = shown(page)
    look_at(page, first["id"])
    assert shown(page) == first  # the same sides
    assert page.locator(".al-vote[data-was]").get_attribute("data-action") == "a"
    assert "A is better" in page.locator(".al-changing").inner_text()
    page.keyboard.press("2")
    back_at(page, fourth["id"])
    assert shown(page) == fourth
    assert not page.locator(".al-changing").is_visible()
    page.locator(f'.al-card[data-id="{first["id"]}"] strong', has_text="B").wait_for()
    look_at(page, third["id"])  # a skipped one is answered
    page.keyboard.press("4")
    back_at(page, fourth["id"])
    saved(page)
    assert page.locator(".al-count strong").inner_text() == "3"
    assert events(site.db, first["id"]) == ["cast a", "revised b"]
    assert events(site.db, third["id"]) == ["cast skip", "revised both_bad"]
    assert said(site.db, project.project_id) == {first["id"]: "b", second["id"]: "tie", third["id"]: "both_bad"}


def test_looking_again_changes_nothing_by_itself(site: Site, page: Any) -> None:
    """Escape, the button, undo and the same answer again leave it as it was; from one to the next one comes back to the start."""
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
    first, second = press(page, "1"), press(page, "2")
    third = shown(page)
    ways = [
        lambda: page.keyboard.press("Escape"),
        lambda: page.get_by_role("button", name="Leave it as it was").click(),
        lambda: page.keyboard.press("u"),
        lambda: page.keyboard.press("1"),
    ]
    for leave in ways:
        look_at(page, second["id"])
        look_at(page, first["id"])
        leave()
        back_at(page, third["id"])
    saved(page)
    assert events(site.db, first["id"]) == ["cast a"]
    assert events(site.db, second["id"]) == ["cast b"]


def test_undo_takes_a_change_back_before_it_takes_answers_back(site: Site, page: Any) -> None:
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
    first, second = press(page, "1"), press(page, "2")
    third = shown(page)
    look_at(page, first["id"])
    page.keyboard.press("3")
    back_at(page, third["id"])
    page.keyboard.press("u")
    page.locator(".al-said", has_text="Changed back to: A is better").wait_for()
    assert shown(page) == third
    page.keyboard.press("u")
    back_at(page, second["id"])
    saved(page)
    assert events(site.db, first["id"]) == ["cast a", "revised tie", "revised a"]
    assert events(site.db, second["id"]) == ["cast b", "retracted"]
    assert said(site.db, project.project_id) == {first["id"]: "a"}


def test_answers_of_an_earlier_visit_are_there_to_change(site: Site, page: Any) -> None:
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
    first, second = press(page, "1"), press(page, "4")
    saved(page)
    visit(page, site.url)
    page.locator(".al-card").nth(1).wait_for()
    assert [card.get_attribute("data-id") for card in page.locator(".al-card").all()] == [second["id"], first["id"]]
    here = shown(page)
    look_at(page, first["id"])
    assert shown(page) == first
    page.keyboard.press("2")
    back_at(page, here["id"])
    saved(page)
    assert events(site.db, first["id"]) == ["cast a", "revised b"]
    page.keyboard.press("h")
    assert not page.locator(".al-strip").is_visible()
    visit(page, site.url)  # as it was left
    assert not page.locator(".al-strip").is_visible()


def test_twenty_are_shown_and_undo_reaches_further(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    visit(page, site.url)
    answered = [press(page, "2")["id"] for _ in range(23)]
    page.locator(f".al-card[data-id='{answered[-1]}']").wait_for()  # drawn when the next pair has been painted
    assert [card.get_attribute("data-id") for card in page.locator(".al-card").all()] == answered[:2:-1]
    for impression in reversed(answered):
        page.keyboard.press("u")
        page.wait_for_selector(f'.al[data-armed="{impression}"]')
    saved(page)
    assert said(site.db, project.project_id) == {}


def test_changes_made_offline_arrive_in_order(site: Site, page: Any) -> None:
    project = seed_project(site.db, 12)
    site.open(project)
    visit(page, site.url)
    page.context.set_offline(True)
    first, _ = press(page, "1"), press(page, "2")
    third = shown(page)
    look_at(page, first["id"])
    page.keyboard.press("2")
    back_at(page, third["id"])
    page.keyboard.press("u")
    page.locator(".al-said", has_text="Changed back").wait_for()
    page.locator('.al-status[data-kind="waiting"]', has_text="4 unsent").wait_for()
    page.context.set_offline(False)
    saved(page)
    assert events(site.db, first["id"]) == ["cast a", "revised b", "revised a"]
