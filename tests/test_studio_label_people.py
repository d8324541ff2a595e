"""The Label page where people sign in: what an annotator's page holds, signed out in the middle, somebody else at the browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import LOOK, READY, press, saved, violations, visit
from people_app import PASSWORD, PeopleApp, people_pages

from data import impressions, labels

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    """Annotators ann and ben of one project, cleo of another; no Gradio, as for every annotator."""
    with people_pages(tmp_path_factory.mktemp("label-people") / "workspace") as running:
        yield running


def sign_in(page: Any, people: PeopleApp, login: str) -> None:
    page.context.clear_cookies()
    said = page.request.post(f"{people.url}/sign-in", form={"login": login, "password": PASSWORD}, max_redirects=0)
    assert said.status == 303


def labelled_by(people: PeopleApp, login: str) -> dict[str, str]:
    who = people.people[login].annotator_id
    found = [e for project in (people.project, people.other) for e in labels.current(people.studio.db, project.project_id)]
    return {e.impression_id: e.preference for e in found if e.annotator_id == who}


def test_an_annotators_page_leads_nowhere_else(people: PeopleApp, page: Any) -> None:
    sign_in(page, people, "cleo")
    visit(page, people.url)
    assert violations(page) == []
    expected = {}
    for key in "1234" * 2:
        expected[press(page, key)["id"]] = {"1": "a", "2": "b", "3": "tie", "4": "both_bad"}[key]
    while page.locator(READY).count():
        expected[press(page, "1")["id"]] = "a"
    page.wait_for_selector('.al[data-state="done"]')
    saved(page)
    page.screenshot(path=SCREENSHOTS / "label-annotator-done.png")
    assert labelled_by(people, "cleo") == expected
    assert len(expected) == 10
    assert page.locator(".al a").count() == 0
    assert page.get_by_role("button", name="Undo the last one").is_visible()


def test_signed_out_in_the_middle_and_in_again(people: PeopleApp, page: Any) -> None:
    sign_in(page, people, "ann")
    visit(page, people.url)
    expected = {press(page, "1")["id"]: "a"}
    saved(page)
    page.context.clear_cookies()
    expected[press(page, "2")["id"]] = "b"
    page.locator(".al-warn", has_text="1 label unsent").wait_for()
    assert page.get_by_role("link", name="Sign in").get_attribute("href") == f"{people.url}/sign-in"
    sign_in(page, people, "ann")
    page.get_by_role("button", name="Try now").click()
    saved(page)
    assert labelled_by(people, "ann") == expected


def test_labels_wait_for_their_owner_while_somebody_else_is_signed_in(people: PeopleApp, page: Any) -> None:
    sign_in(page, people, "ann")
    visit(page, people.url)
    before = labelled_by(people, "ann")
    page.context.set_offline(True)
    mine = press(page, "3")["id"]
    page.context.clear_cookies()
    page.context.set_offline(False)
    ann = people.people["ann"].annotator_id
    shown = impressions.of_annotator(people.studio.db, ann, people.project.project_id)
    people.studio.assignment.release(ann, [one.impression_id for one in shown])
    sign_in(page, people, "ben")
    page.locator(".al-warn", has_text="takes you for somebody else now").wait_for()
    assert labelled_by(people, "ben") == {}
    page.wait_for_selector(READY)  # this is ben's page from now on
    page.wait_for_timeout(LOOK)
    bens = press(page, "2")["id"]
    saved(page)
    sign_in(page, people, "ann")
    visit(page, people.url)
    saved(page)
    assert labelled_by(people, "ben") == {bens: "b"}
    assert labelled_by(people, "ann") == {**before, mine: "tie"}
