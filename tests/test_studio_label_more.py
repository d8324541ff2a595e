"""What a project asks on the Label page beyond a choice (strength, reasons, a note), and how items stay reserved meanwhile."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import LOOK, Site, posted, press, said, saved, shown, violations, visit
from labelling import join, seed_project

from data import labels, projects
from data.records import LabelEvent, Project, ProjectSettings
from labeling import preferences
from studio import label_api_out

pytestmark = pytest.mark.browser

QUIET = {"gold_rate": 0.0, "repeat_rate": 0.0}


def project_with(site: Site, n: int = 12, task: Any = "pairwise", **settings: Any) -> Project:
    project = seed_project(site.db, n, task=task)
    projects.change(site.db, project.project_id, ProjectSettings(**{**QUIET, **settings}))
    site.open(project)
    return project


def stored(site: Site, project: Project) -> dict[str, LabelEvent]:
    return {event.impression_id: event for event in labels.current(site.db, project.project_id)}


def second_key(page: Any, key: str) -> None:
    page.locator(".al-second").wait_for()
    page.wait_for_timeout(LOOK)
    page.keyboard.press(key)


def go_on(page: Any, seen: dict[str, str]) -> str:
    """The next item is there; the id of the one before."""
    page.wait_for_function(
        "id => { const now = document.querySelector('.al').dataset.armed; return now && now !== id; }", arg=seen["id"]
    )
    page.wait_for_timeout(LOOK)
    return seen["id"]


def test_strength_is_one_more_key_and_only_where_a_side_was_chosen(site: Site, page: Any) -> None:
    project = project_with(site, strength=True)
    visit(page, site.url)
    expected = {}
    for first, second, preference, strength in [("1", "1", "a", "slightly"), ("2", "2", "b", "clearly"), ("1", "Enter", "a", "")]:
        seen = shown(page)
        page.keyboard.press(first)
        second_key(page, second)
        expected[go_on(page, seen)] = (preference, strength)
    expected[press(page, "3")["id"]] = ("tie", "")  # nothing to ask
    seen = shown(page)
    page.keyboard.press("2")
    page.locator(".al-second").wait_for()
    assert violations(page) == []
    page.screenshot(path=SCREENSHOTS / "label-strength.png")
    second_key(page, "Escape")  # it was to be the other one
    assert shown(page) == seen
    page.keyboard.press("1")
    page.locator(".al-second").wait_for()
    page.get_by_role("button", name="Clearly better").click()
    expected[go_on(page, seen)] = ("a", "clearly")
    saved(page)
    assert {i: (e.preference, e.strength) for i, e in stored(site, project).items()} == expected


def test_a_key_that_bounces_is_no_second_key(site: Site, page: Any) -> None:
    project = project_with(site, strength=True)
    visit(page, site.url)
    page.evaluate("""() => { for (const key of ["1", "1", "2"])
        document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); }""")
    page.wait_for_timeout(LOOK)
    assert page.locator(".al-second").is_visible()
    assert stored(site, project) == {}


def test_reasons_and_a_note_go_with_the_answer(site: Site, page: Any) -> None:
    project = project_with(site, reasons=("More correct", "Shorter", "More polite"), notes=True)
    visit(page, site.url)
    assert page.locator(".al-note-field").is_hidden()
    page.keyboard.press("n")
    page.keyboard.type("1 + 1, a note with keys in it")
    page.keyboard.press("Escape")
    seen = shown(page)
    page.keyboard.press("1")
    page.locator(".al-second").wait_for()
    keys = [chip.locator("kbd").inner_text().lower() for chip in page.locator(".al-second .al-chip").all()[:3]]
    assert keys == ["m", "s", "o"]  # the first letter of each that is free
    for key in ("s", "o", "m", "o"):
        second_key(page, key)
    page.screenshot(path=SCREENSHOTS / "label-reasons.png")
    assert violations(page) == []
    second_key(page, "Enter")
    first = go_on(page, seen)
    assert page.locator(".al-note-field").is_hidden()  # the next item has none
    second = press(page, "s")["id"]  # a skip needs no reasons
    saved(page)
    events = stored(site, project)
    assert events[first].reasons == ("More correct", "Shorter")
    assert events[first].note == "1 + 1, a note with keys in it"
    assert (events[second].preference, events[second].reasons, events[second].note) == ("skip", (), "")


def test_a_change_of_the_reasons_alone_is_a_change(site: Site, page: Any) -> None:
    """An answer of an earlier visit comes with its reasons and its note."""
    project = project_with(site, reasons=("Correct", "Short"), notes=True)
    visit(page, site.url)
    seen = shown(page)
    page.keyboard.press("n")
    page.keyboard.type("why")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("2")
    second_key(page, "c")
    second_key(page, "Enter")
    first = go_on(page, seen)
    saved(page)
    visit(page, site.url)
    page.locator(f'.al-card[data-id="{first}"]').click()
    page.wait_for_selector(f'.al[data-armed="{first}"]')
    page.wait_for_timeout(LOOK)
    assert page.locator(".al-note-box").input_value() == "why"
    page.keyboard.press("2")
    assert page.locator('.al-chip[aria-pressed="true"]').all_inner_texts()[0].startswith("Correct")
    second_key(page, "s")
    second_key(page, "Enter")
    page.wait_for_selector(f'.al[data-armed]:not([data-armed="{first}"]):not([data-armed=""])')
    saved(page)
    event = stored(site, project)[first]
    assert (event.event, event.preference, event.reasons, event.note) == ("revised", "b", ("Correct", "Short"), "why")


def test_nothing_is_asked_where_the_project_asks_nothing(site: Site, page: Any) -> None:
    project = project_with(site, task="binary")
    visit(page, site.url)
    expected = {press(page, key)["id"]: what for key, what in [("j", "good"), ("k", "bad")]}
    page.keyboard.press("n")
    assert page.locator(".al-note-field").is_hidden()
    assert page.get_by_role("button", name="Note").count() == 0
    saved(page)
    assert said(site.db, project.project_id) == expected


def test_a_heartbeat_keeps_the_items_and_drops_what_another_completed(
    site: Site, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second here. The item on the screen stays even then, and its answer is kept as one more than needed."""
    monkeypatch.setattr(label_api_out, "HEARTBEAT_SECONDS", 1)
    project = project_with(site, 6)
    visit(page, site.url)
    with page.expect_request("**/api/label/heartbeat") as beat:
        pass
    held = beat.value.post_data_json["ids"]
    assert held[0] == shown(page)["id"]
    assert len(held) == 6
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.wait_for_timeout(1200)
    page.route("**/api/label/heartbeat", lambda route: route.abort())  # nothing renews them from here on
    site.studio.assignment.release("local", held[:3])
    join(site.db, "other")
    served = site.studio.assignment.serve("other", project.project_id, 3)
    votes = [preferences.Vote(str(uuid.uuid4()), one.impression.impression_id, "cast", "a") for one in served]
    outcomes = preferences.record(site.db, "other", votes, assignment=site.studio.assignment)
    assert [outcome.reason for outcome in outcomes] == ["", "", ""]
    page.unroute("**/api/label/heartbeat")
    with page.expect_response("**/api/label/heartbeat") as answer:
        page.evaluate("delete document.hidden")
    assert set(held[:3]) <= set(answer.value.json()["lost"])  # and what is the other's share of the rest
    assert shown(page)["id"] == held[0]
    answered = [press(page, "2")["id"] for _ in range(4)]
    page.wait_for_selector('.al[data-state="done"]')
    saved(page)
    assert answered[0] == held[0]
    assert sorted(answered) == sorted([held[0], *held[3:]])
    mine = {i: e for i, e in stored(site, project).items() if e.annotator_id == "local"}
    assert set(mine) == set(answered)
    assert "extra" in mine[held[0]].flags
    assert "extra" not in mine[held[3]].flags


def test_a_small_share_of_the_rest_is_filled_up_before_it_is_used_up(site: Site, page: Any) -> None:
    """Two people share eight items, so this page may hold a few at a time; it never stands without one."""
    project = project_with(site, 8)
    join(site.db, "other")
    site.studio.assignment.serve("other", project.project_id, 1)
    visit(page, site.url)
    page.evaluate(
        """() => {
            window.__states = [];
            const root = document.querySelector(".al");
            new MutationObserver(() => window.__states.push(root.dataset.state)).observe(root, {attributeFilter: ["data-state"]});
        }"""
    )
    pending: set[Any] = set()
    page.on("request", lambda request: pending.add(request) if "/api/label/batch" in request.url else None)
    for over in ("requestfinished", "requestfailed"):  # the page gives one up that takes too long, and asks again
        page.on(over, lambda request: pending.discard(request))
    for _ in range(6):
        press(page, "1")
        saved(page)
        while pending:  # nobody labels faster than the page is answered
            page.wait_for_timeout(20)
    assert set(page.evaluate("window.__states")) <= {"ready"}


def test_own_work_is_told_quietly(site: Site, page: Any) -> None:
    project_with(site, 4)
    visit(page, site.url)
    press(page, "1")
    saved(page)
    page.locator(".al-mine", has_text="1 today").wait_for()
    sent = posted(page)
    press(page, "2")
    saved(page)
    assert sent[0]["read_share"] == 1
    assert "strength" in sent[0]
