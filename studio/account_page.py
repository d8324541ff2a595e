"""One's own account: what I have labelled, my projects, my password, and "delete my data"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from data import accounts, forget
from data.errors import BadInput, NotAllowed, StudioError
from data.records import Account, Project
from studio.attempts import Attempts
from studio.auth import ANNOTATOR_LINKS
from studio.context import Studio, Viewer
from studio.frame import LINKS, PEOPLE_LINKS, Link
from studio.plain.page import Body, card, draw, field, form, form_of, go, head, hidden, said, submit, up
from studio.render import Column, Html, esc, table
from studio.sessions import Sessions, is_https
from studio.sign_in import new_password_fields

WORDS = "delete my data"
Handler = Callable[[Request, Viewer, Mapping[str, str]], Response]


class Mine(NamedTuple):
    """What this person has labelled in one project."""

    project: Project
    labels: int
    skipped: int
    today: int


def links_for(viewer: Viewer) -> tuple[Link, ...]:
    return ANNOTATOR_LINKS if viewer.role == "annotator" else (*LINKS, *PEOPLE_LINKS)


class AccountPage:
    def __init__(self, studio: Studio, sessions: Sessions, attempts: Attempts) -> None:
        self._studio, self._sessions, self._attempts = studio, sessions, attempts

    def routes(self) -> list[BaseRoute]:
        does: dict[str, Handler] = {
            "/account/open": self.open,
            "/account/password": self.password,
            "/account/sign-out-everywhere": self.everywhere,
            "/account/delete": self.delete,
        }
        posts = [Route(path, self._posted(handler), methods=["POST"]) for path, handler in does.items()]
        return [Route("/account", self.show, methods=["GET"]), *posts]

    async def show(self, request: Request) -> Response:
        viewer = await run_in_threadpool(self._studio.viewer, request)
        return await run_in_threadpool(self._page, request, viewer)

    def _posted(self, handler: Handler) -> Callable[[Request], object]:
        """A form's handler with its fields read and its errors shown above the page."""

        async def handle(request: Request) -> Response:
            typed, problem = await form_of(request)
            try:
                viewer = await run_in_threadpool(self._studio.viewer, request)
            except NotAllowed:
                return go(request, "sign-in")
            if not problem:
                try:
                    return await run_in_threadpool(handler, request, viewer, typed)
                except StudioError as error:
                    problem = str(error)
            return await run_in_threadpool(self._page, request, viewer, problem)

        return handle

    # --- handlers ---

    def open(self, request: Request, viewer: Viewer, typed: Mapping[str, str]) -> Response:
        self._studio.open_project(viewer, typed.get("project", ""))
        return go(request, "label")

    def password(self, request: Request, viewer: Viewer, typed: Mapping[str, str]) -> Response:
        since = self._check_password(request, viewer, typed).sessions_from
        if typed.get("password") != typed.get("again"):
            raise BadInput("The two new passwords differ; type the same one twice.")
        accounts.change_password(self._studio.db, viewer.annotator_id, typed.get("password", ""), since)
        return self._signed_in_again(request, viewer, "The password is changed; every other browser is signed out.")

    def everywhere(self, request: Request, viewer: Viewer, typed: Mapping[str, str]) -> Response:
        session = self._sessions.of(request.cookies)
        if session is None:
            return go(request, "sign-in")
        accounts.end_sessions(self._studio.db, viewer.annotator_id, session.known.account.sessions_from)
        return self._signed_in_again(request, viewer, "Every other browser is signed out.")

    def _signed_in_again(self, request: Request, viewer: Viewer, done: str) -> Response:
        response = self._page(request, viewer, done=done)
        response.headers.append("set-cookie", self._sessions.cookie(viewer.annotator_id, is_https(request.scope)))
        return response

    def delete(self, request: Request, viewer: Viewer, typed: Mapping[str, str]) -> Response:
        if " ".join(typed.get("words", "").lower().split()) != WORDS:
            raise BadInput(f"Nothing was deleted: type “{WORDS}” to confirm it.")
        if accounts.get(self._studio.db, viewer.annotator_id).password_hash:
            self._check_password(request, viewer, typed)
        forget.person(self._studio.db, viewer.annotator_id)
        says = "Your account, name, notes and pseudonym are gone. Your labels stay, as nobody's."
        body = Html(f'{head("Your data is deleted", says)}<p><a class="st-cta quiet" href="../sign-in">Sign in</a></p>')
        response = draw(request, Body("Deleted", body))
        response.headers.append("set-cookie", self._sessions.no_cookie(is_https(request.scope)))
        return response

    def _check_password(self, request: Request, viewer: Viewer, typed: Mapping[str, str]) -> Account:
        """As slow to guess here as on the sign-in page: a browser left open is not the password."""
        login = accounts.get(self._studio.db, viewer.annotator_id).login
        address = request.client.host if request.client else ""
        if wait := self._attempts.begin(login, address):
            raise NotAllowed(f"Too many tries; wait {wait} seconds, then try again.")
        account = accounts.check(self._studio.db, login, typed.get("old", ""))
        if account is None:
            raise NotAllowed("The present password is not right; nothing was changed.")
        self._attempts.right(login, address)
        return account

    # --- what is shown ---

    def _page(self, request: Request, viewer: Viewer, problem: str = "", done: str = "") -> Response:
        root = up(request)
        account = accounts.get(self._studio.db, viewer.annotator_id)
        out = form(f"{root}sign-out", submit("Sign out", "quiet"))
        body = Html(
            f"{head(viewer.name, f'Signed in as {viewer.role}.')}{said(problem, done)}"
            f"{_progress(self._mine(viewer), root)}{card('This browser', out)}"
            f"{_password(root) if account.password_hash else ''}{_delete(root, bool(account.password_hash))}"
        )
        return draw(request, Body("Account", body), links_for(viewer), "account", status=400 if problem else 200)

    def _mine(self, viewer: Viewer) -> list[Mine]:
        sql = """select project_id, count(*) filter (preference != 'skip') as labels,
                        count(*) filter (preference = 'skip') as skipped,
                        count(*) filter (created_at >= date_trunc('day', now())) as today
                 from current_labels where annotator_id = ? group by project_id"""
        found = {row["project_id"]: row for row in self._studio.db.rows(sql, [viewer.annotator_id])}
        shown = self._studio.projects(viewer)
        if viewer.role != "annotator":
            shown = [project for project in shown if project.project_id in found]
        none = {"labels": 0, "skipped": 0, "today": 0}
        rows = [(project, found.get(project.project_id, none)) for project in shown]
        return [Mine(project, row["labels"], row["skipped"], row["today"]) for project, row in rows]


def _progress(mine: list[Mine], root: str) -> Html:
    if not mine:
        return card("My labels", says="None yet. Projects you are added to appear here.")
    columns = [
        Column("Project", "clip"),
        Column("Labels", "num"),
        Column("Today", "num"),
        Column("Skipped", "num", wide=True),
        Column(""),
    ]
    rows = [
        (
            one.project.name,
            f"{one.labels:,}",
            f"{one.today:,}",
            f"{one.skipped:,}",
            form(
                f"{root}account/open",
                hidden("project", one.project.project_id),
                submit("Label", "quiet", aria_label=f"Label {one.project.name}"),
            ),
        )
        for one in mine
    ]
    return card("My labels", table(columns, rows, label="My labels"))


def _password(root: str) -> Html:
    inside = form(
        f"{root}account/password",
        field("old", "Present password", "password", autocomplete="current-password"),
        new_password_fields("New password"),
        submit("Change the password", "quiet"),
        label="Change the password",
    )
    everywhere = form(f"{root}account/sign-out-everywhere", submit("Sign out everywhere else", "quiet"))
    return card("Password", f"<details><summary>Change it</summary>{inside}</details>", everywhere)


def _delete(root: str, has_password: bool) -> Html:
    old = (
        '<div class="pl-field"><label for="delete-old">Password</label>'
        '<input id="delete-old" name="old" type="password" required autocomplete="current-password"></div>'
        if has_password
        else ""
    )
    inside = form(
        f"{root}account/delete",
        field("words", f"Type “{WORDS}” to confirm", autocomplete="off", spellcheck="false"),
        old,
        submit("Delete my data for good", "danger"),
        label="Delete my data",
    )
    points = (
        "Your account, name, notes and the key of your pseudonym are destroyed, in the database and in its journal.",
        "Your labels stay, without a trace of whose they were.",
        "Exports and backups made before are files elsewhere and stay as they are.",
        "In a large workspace it takes a minute or two, and new labels wait that long; none is lost.",
        "It cannot be undone.",
    )
    listed = "".join(f"<li>{esc(point)}</li>" for point in points)
    return card("Delete my data", f'<details><summary>What this does</summary><ul class="pl-list">{listed}</ul>{inside}</details>')
