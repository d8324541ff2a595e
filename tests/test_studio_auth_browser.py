"""Signing in, joining, labelling and inviting as people do it: in a real browser, light and dark, wide and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from label_browser import LOOK, READY, press, saved, violations
from people_app import PASSWORD, PeopleApp, people_app

from data import accounts, invitations

pytestmark = pytest.mark.browser
REFUSED = "400 (Bad Request)"  # what a browser notes of a form that comes back with a sentence
WINDOWS = {"light": (1280, 800), "dark": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with people_app(tmp_path_factory.mktemp("browser") / "workspace") as running:
        yield running


@pytest.fixture
def visit(chromium: Any, app: PeopleApp) -> Iterator[Callable[..., Any]]:
    """`visit("ann", "phone")`: a page signed in through the form; what the browser complains about fails the test."""
    contexts, complaints = [], []

    def start(login: str = "", window: str = "light") -> Any:
        width, height = WINDOWS[window]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if window == "dark" else "light", base_url=app.url
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" and REFUSED not in said.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if login:
            page.goto("/sign-in")
            page.get_by_label("Sign-in name").fill(login)
            page.get_by_label("Password").fill(PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url(lambda url: "sign-in" not in url)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("window", WINDOWS)
def test_every_page_is_usable_in_light_in_dark_and_on_a_phone(app: PeopleApp, visit: Callable[..., Any], window: str) -> None:
    token = invitations.make(app.studio.db, "annotator", app.project.project_id, "")
    for login, paths in (("", ("sign-in", f"join/{token}")), ("ann", ("account",)), ("ada", ("people", "account"))):
        page = visit(login, window)
        for path in paths:
            page.goto(f"/{path}")
            for part in page.query_selector_all("main details"):
                part.evaluate("part => { part.open = true; }")
            assert violations(page) == [], (path, window)
            assert fits(page), (path, window)
            assert page.locator("h1").count() == 1
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 150) == (window == "dark"), dark


def test_an_annotator_joins_and_labels_with_the_keyboard(app: PeopleApp, visit: Callable[..., Any]) -> None:
    # nobody else labels there: what another browser has prefetched is reserved for it
    token = invitations.make(app.studio.db, "annotator", app.other.project_id, "")
    page = visit()
    page.goto(f"/join/{token}")
    for label, said in (("Sign-in name", "dora"), ("Password", PASSWORD), ("The same again", PASSWORD)):
        page.get_by_label(label, exact=True).fill(said)
    page.get_by_role("button", name="Make the account").click()
    page.wait_for_url("**/label")
    page.wait_for_selector(READY)
    page.wait_for_timeout(LOOK)
    press(page, "1")
    saved(page)
    dora = accounts.by_login(app.studio.db, "dora")
    assert dora is not None
    sql = "select count(*) from current_labels where annotator_id = ? and preference = 'a'"
    while not app.studio.db.value(sql, [dora.annotator_id]):  # the page says so before it has sent
        assert not page.locator(".al-problems .al-warn").count(), "it was refused"
        page.wait_for_timeout(50)
    page.get_by_role("link", name="Account").click()
    page.wait_for_url("**/account")
    page.locator("table").get_by_text(app.other.name).wait_for()
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_url("**/sign-in")
    page.goto("/label")
    assert page.url.endswith("/sign-in?next=label")


def test_a_link_leads_back_to_where_one_wanted_to_go(app: PeopleApp, visit: Callable[..., Any]) -> None:
    page = visit()
    page.goto("/data?tab=import")
    page.get_by_label("Sign-in name").fill("rita")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/data?tab=import")
    page.get_by_role("link", name="People").wait_for()


def test_an_admin_makes_a_link_and_copies_it(app: PeopleApp, visit: Callable[..., Any]) -> None:
    page = visit("ada")
    page.goto("/people")
    page.get_by_label("As", exact=True).select_option("researcher")
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("Link", exact=True).input_value()
    page.get_by_role("button", name="Copy").click()
    page.get_by_text(re.compile("Copied|Press Ctrl")).wait_for()
    other = visit()
    other.goto(link)
    assert other.get_by_text("invited as a researcher").is_visible()


def test_delete_my_data_asks_for_words_and_says_what_is_gone(app: PeopleApp, visit: Callable[..., Any]) -> None:
    page = visit("cleo")
    page.goto("/account")
    page.get_by_text("What this does").click()
    page.get_by_label("to confirm").fill("yes")
    page.locator("#delete-old").fill(PASSWORD)
    page.get_by_role("button", name="Delete my data for good").click()
    page.get_by_text("Nothing was deleted").wait_for()
    page.get_by_text("What this does").click()
    page.get_by_label("to confirm").fill("Delete my  data")
    page.locator("#delete-old").fill(PASSWORD)
    page.get_by_role("button", name="Delete my data for good").click()
    page.get_by_text("Your data is deleted").wait_for()
    assert accounts.by_login(app.studio.db, "cleo") is None
    page.goto("/label")
    assert "sign-in" in page.url
