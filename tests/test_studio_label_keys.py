"""Keys of the Label page: when they must do nothing, and other keys than those it comes with."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import LOOK, Site, press, said, saved, shown, visit
from labelling import seed_project

pytestmark = pytest.mark.browser


def test_a_held_key_is_one_answer(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    visit(page, site.url)
    for _ in range(15):
        page.keyboard.down("1")  # without an up in between the browser marks it as a repeat
        page.wait_for_timeout(60)
    page.keyboard.up("1")
    saved(page)
    assert list(said(site.db, project.project_id).values()) == ["a"]


def test_no_key_counts_before_the_pair_is_painted(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    visit(page, site.url)
    page.evaluate("""() => { for (const key of ["1", "2", "3", "1", "2"])
        document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); }""")
    page.wait_for_timeout(500)
    saved(page)
    assert list(said(site.db, project.project_id).values()) == ["a"]


def test_f_reports_an_item_with_the_answer_and_it_can_be_taken_back(site: Site, page: Any) -> None:
    project = seed_project(site.db, 5)
    site.open(project)
    visit(page, site.url)

    def flags() -> dict[str, bool]:
        sql = "select impression_id, contains(flags, 'reported') as it from current_labels where project_id = ?"
        return {row["impression_id"]: row["it"] for row in site.db.rows(sql, [project.project_id])}

    button = page.locator('[data-tool="report"]')
    page.keyboard.press("f")
    assert button.get_attribute("aria-pressed") == "true"
    first = press(page, "1")["id"]
    assert button.get_attribute("aria-pressed") == "false", "the next item is another"
    second = press(page, "s")["id"]
    saved(page)
    assert flags() == {first: True, second: False}
    visit(page, site.url)  # what the server knows of it
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.wait_for_function("id => document.querySelector('.al').dataset.armed === id", arg=first)
    assert button.get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(LOOK)
    page.keyboard.press("f")
    press(page, "2")
    saved(page)
    assert flags()[first] is False


@pytest.mark.parametrize("tag", ["input", "textarea", "div contenteditable", "select"])
def test_keys_are_dead_while_typing(site: Site, page: Any, tag: str) -> None:
    project = seed_project(site.db, 5)
    site.open(project)
    visit(page, site.url)
    page.evaluate("tag => document.body.insertAdjacentHTML('afterbegin', `<${tag} id=typing></${tag.split(' ')[0]}>`)", tag)
    page.focus("#typing")
    page.keyboard.type("1ab2stxu")
    page.keyboard.press("Backspace")
    page.wait_for_timeout(300)
    assert site.db.value("select count(*) from label_events where project_id = ?", [project.project_id]) == 0


def test_keys_are_dead_with_modifiers_and_under_help(site: Site, page: Any) -> None:
    project = seed_project(site.db, 5)
    site.open(project)
    visit(page, site.url)
    for combination in ("Control+1", "Alt+ArrowLeft", "Meta+a", "Control+x"):
        page.keyboard.press(combination)
    page.wait_for_timeout(200)
    visit(page, site.url)  # Alt+ArrowLeft may have gone back
    page.keyboard.press("?")
    page.wait_for_selector("dialog.al-help[open]")
    page.keyboard.press("1")
    page.screenshot(path=SCREENSHOTS / "label-keys.png")
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert site.db.value("select count(*) from label_events where project_id = ?", [project.project_id]) == 0


def test_enter_held_on_a_button_is_one_answer(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    visit(page, site.url)
    page.get_by_role("button", name="Tie").focus()
    for _ in range(12):
        page.keyboard.down("Enter")
        page.wait_for_timeout(60)
    page.keyboard.up("Enter")
    saved(page)
    assert list(said(site.db, project.project_id).values()) == ["tie"]


# --- other keys ---


def change(page: Any, action: str, key: str) -> str:
    """Ask for another key in the help; what it says to that."""
    if page.locator(".al-help em").is_visible():
        page.keyboard.press("Escape")
    page.locator(f'.al-change[data-action="{action}"]').click()
    page.locator(".al-help em").wait_for()
    page.keyboard.press(key)
    return str(page.locator(".al-help-problem").inner_text())


def test_keys_can_be_changed_and_conflicts_are_refused(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    visit(page, site.url)
    other = page.context.new_page()
    visit(other, site.url)
    page.bring_to_front()
    page.keyboard.press("?")
    assert change(page, "tie", "q") == ""
    assert "is the key for “B is better” already" in change(page, "both_bad", "ArrowRight")
    page.keyboard.press("Escape")  # gives up waiting, leaves the help open
    assert page.locator("dialog.al-help").get_attribute("open") is not None
    assert "needed to move about" in change(page, "skip", "Tab")
    assert "cannot be used" in change(page, "skip", "F5")
    page.screenshot(path=SCREENSHOTS / "label-keys-changed.png")
    page.keyboard.press("Escape")
    assert change(page, "skip", "3") == ""  # free, now that a tie is Q
    page.keyboard.press("Escape")
    assert page.locator('.al-vote[data-action="tie"] kbd').all_inner_texts() == ["Q"]
    expected = {press(page, key)["id"]: what for key, what in [("q", "tie"), ("Q", "tie"), ("3", "skip"), ("x", "both_bad")]}
    here = shown(page)["id"]
    for gone in ("t", "s"):
        page.keyboard.press(gone)
    page.wait_for_timeout(LOOK)
    assert shown(page)["id"] == here
    other.bring_to_front()
    other.wait_for_timeout(LOOK)
    expected[press(other, "q")["id"]] = "tie"
    saved(page)
    saved(other)
    assert said(site.db, project.project_id) == expected


def test_changed_keys_stay_and_go_back(site: Site, page: Any) -> None:
    project = seed_project(site.db, 10)
    site.open(project)
    visit(page, site.url)
    page.keyboard.press("?")
    assert change(page, "a", "ArrowUp") == ""
    visit(page, site.url)
    assert page.locator('.al-vote[data-action="a"] kbd').all_inner_texts() == ["↑"]
    page.keyboard.press("1")
    page.wait_for_timeout(LOOK)
    first = press(page, "ArrowUp")["id"]
    page.keyboard.press("?")
    page.get_by_role("button", name="All keys as they came").click()
    page.get_by_role("button", name="Close").click()
    assert page.locator('.al-vote[data-action="a"] kbd').all_inner_texts() == ["1", "←"]
    second = press(page, "1")["id"]
    saved(page)
    assert said(site.db, project.project_id) == {first: "a", second: "a"}
