"""Signing in and out, joining through an invitation, choosing a new password through a link.

Plain forms that post to themselves; where they come from is checked for all of the app in `studio/security.py`. A wrong
password and an unknown name get the same answer after the same time, and too many tries a wait (`studio/attempts.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from data import accounts, invitations, projects
from data.errors import BadInput, NotFound, StudioError
from data.records import Account, Invitation
from studio.attempts import Attempts
from studio.context import Studio
from studio.hf_sign_in import HfSignIn
from studio.plain.page import Body, card, draw, field, form, go, head, hidden, next_page, read_form, said, submit
from studio.render import Html
from studio.sessions import Sessions, is_https, moment

WRONG = "This name and password do not belong together; check both, or ask an admin for a link to choose a new password."
ROLE_WORDS = {
    "annotator": "You are invited to label",
    "researcher": "You are invited as a researcher",
    "admin": "You are invited as an admin",
}
USED = "This link is no longer good: it was used or is too old. Ask for a new one."
HASHING_AT_A_TIME = 4
T = TypeVar("T")
log = logging.getLogger("studio.sign_in")


def setup_link(studio: Studio, address: str) -> str:
    """While nobody can sign in as admin, the link that makes the first one's account, printed where only whoever runs the studio
    sees it; '' otherwise."""
    if accounts.has_admin(studio.db):
        return ""
    return f"{address}/join/{invitations.make_first_admin(studio.db)}"


class SignIn:
    """Handlers of the pages that are open to everybody."""

    def __init__(self, studio: Studio, sessions: Sessions) -> None:
        self._studio, self._sessions = studio, sessions
        self.attempts = Attempts()
        self._turns = CapacityLimiter(HASHING_AT_A_TIME)
        self.elsewhere = HfSignIn.from_environment(studio, sessions)

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/sign-in", self.sign_in, methods=["GET", "POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
            Route("/join/{token}", self.join, methods=["GET", "POST"]),
            Route("/new-password/{token}", self.new_password, methods=["GET", "POST"]),
            *(self.elsewhere.routes() if self.elsewhere else []),
        ]

    async def _in_turn(self, fn: Callable[..., T], *args: Any) -> T:
        """In a thread, a few at a time: hashing is slow, and a flood of sign-ins must not take the threads that labels need."""
        return await to_thread.run_sync(fn, *args, limiter=self._turns)

    # --- signing in and out ---

    async def sign_in(self, request: Request) -> Response:
        wanted = next_page(request.query_params.get("next", ""))
        if request.method != "POST":
            if await run_in_threadpool(self._sessions.of, request.cookies):
                return go(request, wanted)
            return self._sign_in_page(request, wanted)
        try:
            typed = await read_form(request)
        except BadInput as error:
            return self._sign_in_page(request, wanted, str(error), 400)
        wanted = next_page(typed.get("next", ""))
        if self.elsewhere:
            return self._sign_in_page(request, wanted, "Sign in with Hugging Face here.", 403)
        return await self._in_turn(self._check, request, typed, wanted)

    def _check(self, request: Request, typed: Mapping[str, str], wanted: str) -> Response:
        login, address = typed.get("login", ""), request.client.host if request.client else ""
        wait = self.attempts.begin(login, address)
        if wait:
            says = f"Too many tries; wait {wait} seconds, then try again."
            response = self._sign_in_page(request, wanted, says, 429, login)
            response.headers["retry-after"] = str(wait)
            return response
        begun = moment()
        account = accounts.check(self._studio.db, login, typed.get("password", ""))
        if account is None:
            log.info("a sign-in was refused")
            return self._sign_in_page(request, wanted, WRONG, 403, login)
        self.attempts.right(login, address)
        return self.welcome(request, account, wanted, begun)

    def welcome(self, request: Request, account: Account, wanted: str = "", signed_at: int = 0) -> Response:
        """Signed in: on to the page that was wanted, or the one their role begins with."""
        known = self._sessions.directory.find(account.annotator_id)
        first = "label" if known and known.role == "annotator" else ""
        return go(request, wanted or first, self._sessions.cookie(account.annotator_id, is_https(request.scope), signed_at))

    async def sign_out(self, request: Request) -> Response:
        return go(request, "sign-in", self._sessions.no_cookie(is_https(request.scope)))

    def _sign_in_page(self, request: Request, wanted: str, problem: str = "", status: int = 200, login: str = "") -> Response:
        if self.elsewhere:
            inside = self.elsewhere.button(request, next=wanted)
        else:
            inside = form(
                "sign-in",
                hidden("next", wanted),
                field("login", "Sign-in name", value=login, autocomplete="username", autocapitalize="none", spellcheck="false"),
                field("password", "Password", "password", autocomplete="current-password"),
                submit("Sign in"),
                label="Sign in",
            )
        under = '<p class="st-sub">No account? Ask an admin of this studio for an invitation link.</p>'
        body = Html(f"{head('Sign in')}{said(problem)}<section class='st-card'>{inside}</section>{under}")
        return draw(request, Body("Sign in", body), status=status)

    # --- joining ---

    async def join(self, request: Request) -> Response:
        token = request.path_params["token"]
        try:
            invitation = await run_in_threadpool(invitations.find, self._studio.db, token)
        except NotFound as error:
            return self._dead_link(request, str(error))
        if request.method != "POST":
            return await run_in_threadpool(self._join_page, request, invitation)
        try:
            typed = await read_form(request)
            session = await run_in_threadpool(self._sessions.of, request.cookies)
            if session and "as_me" in typed:
                await run_in_threadpool(invitations.accept_as, self._studio.db, token, session.known.account.annotator_id)
                return go(request, "account")
            if self.elsewhere:
                raise BadInput("Sign in with Hugging Face here.")
            account = await self._in_turn(self._accept, token, typed)
        except StudioError as error:
            return await run_in_threadpool(self._join_page, request, invitation, str(error), 400)
        return await run_in_threadpool(self.welcome, request, account)

    def _accept(self, token: str, typed: Mapping[str, str]) -> Account:
        if typed.get("password") != typed.get("again"):
            raise BadInput("The two passwords differ; type the same one twice.")
        return invitations.accept(self._studio.db, token, typed.get("login", ""), typed.get("password", ""))

    def _join_page(self, request: Request, invitation: Invitation, problem: str = "", status: int = 200) -> Response:
        title = ROLE_WORDS[invitation.role]
        if invitation.project_id:
            title += f" in “{projects.get(self._studio.db, invitation.project_id).name}”"
        token = request.path_params["token"]
        session = self._sessions.of(request.cookies)
        if session:
            says = f"You are signed in as {session.known.name}. To make another account, open the link in a private window."
            inside = form(token, hidden("as_me", "1"), submit("Join"), label="Join")
        elif self.elsewhere:
            says, inside = "", self.elsewhere.button(request, invitation=token)
        else:
            says = "Choose how you sign in from now on. Exports show a made-up name instead of yours."
            inside = _new_account_form(token)
        body = Html(f"{head(title, says)}{said(problem)}<section class='st-card'>{inside}</section>")
        return draw(request, Body("Join", body), status=status)

    # --- a new password ---

    async def new_password(self, request: Request) -> Response:
        token = request.path_params["token"]
        known = await run_in_threadpool(self._sessions.whose_new_password, token)
        if known is None or self.elsewhere:
            return self._dead_link(request, USED)
        if request.method != "POST":
            return _new_password_page(request, known.account)
        try:
            typed = await read_form(request)
            if typed.get("password") != typed.get("again"):
                raise BadInput("The two passwords differ; type the same one twice.")
            person, since = known.account.annotator_id, known.account.sessions_from
            await self._in_turn(accounts.change_password, self._studio.db, person, typed.get("password", ""), since)
        except NotFound:
            return self._dead_link(request, USED)
        except StudioError as error:
            return _new_password_page(request, known.account, str(error), 400)
        return await run_in_threadpool(self.welcome, request, known.account)

    def _dead_link(self, request: Request, says: str) -> Response:
        body = Html(f'{head("This link does not work", says)}<p><a class="st-cta quiet" href="../sign-in">Sign in</a></p>')
        return draw(request, Body("Link", body), status=404)


def new_password_fields(label: str = "Password") -> str:
    info = f"At least {accounts.MIN_PASSWORD} characters."
    return field("password", label, "password", info, autocomplete="new-password") + field(
        "again", "The same again", "password", autocomplete="new-password"
    )


def _new_account_form(token: str) -> Html:
    return form(
        token,
        field("login", "Sign-in name", autocomplete="username", autocapitalize="none", spellcheck="false", maxlength="60"),
        new_password_fields(),
        submit("Make the account"),
        label="Make the account",
    )


def _new_password_page(request: Request, account: Account, problem: str = "", status: int = 200) -> Response:
    inside = form(request.path_params["token"], new_password_fields(), submit("Save the password"), label="New password")
    says = f"For {account.login}. Every other browser is signed out."
    body = Html(f"{head('Choose a new password', says)}{said(problem)}{card('New password', inside)}")
    return draw(request, Body("New password", body), status=status)
