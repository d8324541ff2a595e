"""Signing in with Hugging Face, on a Space whose owner switched it on (`hf_oauth: true` and STUDIO_ACCOUNTS=1).

The Space's environment names the provider and the client (OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET, OAUTH_SCOPES,
OPENID_PROVIDER_URL); Authlib does the protocol: discovery, code with PKCE and state, the signature of the id token. Nothing of
it is kept but the provider's own id of the person (names can change hands) and their name. Signing in there makes no account
here: that takes an invitation, or a name on STUDIO_ADMINS.
"""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import httpx2  # what Authlib speaks through
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from data import accounts, invitations
from data.errors import BadInput, NotAllowed, StudioError
from data.records import Account
from studio.plain.page import Body, draw, go, head, next_page, up
from studio.render import Html, esc
from studio.sessions import Sessions, is_https

if TYPE_CHECKING:
    from studio.context import Studio

START, BACK = "/sign-in/hf", "/sign-in/hf/callback"
MINUTES = 10  # to come back in
log = logging.getLogger("studio.sign_in")


class Provider(NamedTuple):
    """Where people sign in, and as whom the studio asks."""

    url: str
    client_id: str
    client_secret: str
    scopes: str
    admins: frozenset[str]  # names, lower case
    public_host: str  # of the Space, '' elsewhere


def provider() -> Provider | None:
    """What the environment says, None where nobody can sign in this way."""
    env = os.environ
    if not env.get("OAUTH_CLIENT_ID") or not env.get("OAUTH_CLIENT_SECRET") or not env.get("OPENID_PROVIDER_URL"):
        return None
    return Provider(
        env["OPENID_PROVIDER_URL"].rstrip("/"),
        env["OAUTH_CLIENT_ID"],
        env["OAUTH_CLIENT_SECRET"],
        env.get("OAUTH_SCOPES") or "openid profile",
        frozenset(name.strip().lower() for name in env.get("STUDIO_ADMINS", "").split(",") if name.strip()),
        env.get("SPACE_HOST", "").split(",")[0].strip(),
    )


class HfSignIn:
    """Two routes: off to the provider, and back."""

    def __init__(self, studio: Studio, sessions: Sessions, at: Provider) -> None:
        from authlib.integrations.starlette_client import OAuth

        self._studio, self._sessions, self._at = studio, sessions, at
        self._client = OAuth().register(
            name="huggingface",
            client_id=at.client_id,
            client_secret=at.client_secret,
            client_kwargs={"scope": at.scopes, "code_challenge_method": "S256"},
            server_metadata_url=f"{at.url}/.well-known/openid-configuration",
        )

    @classmethod
    def from_environment(cls, studio: Studio, sessions: Sessions) -> HfSignIn | None:
        at = provider()
        return cls(studio, sessions, at) if at else None

    def routes(self) -> list[BaseRoute]:
        """With a cookie of their own, which holds the state of the exchange and is gone after it."""
        kept = Middleware(
            SessionMiddleware,
            secret_key=hashlib.sha256(b"elsewhere\0" + self._sessions.key).hexdigest(),
            session_cookie=f"{self._sessions.cookie_name}_hf",
            max_age=MINUTES * 60,
            same_site="lax",
            https_only=bool(self._at.public_host),
        )
        return [
            Route(START, self.start, methods=["GET"], middleware=[kept]),
            Route(BACK, self.back, methods=["GET"], middleware=[kept]),
        ]

    def button(self, request: Request, **carried: str) -> Html:
        """Opens a tab of its own where the studio is shown in a frame, which gets no cookie of ours."""
        query = urlencode({name: value for name, value in carried.items() if value})
        href = f"{up(request)}sign-in/hf{'?' if query else ''}{query}"
        where = ' target="_blank" rel="opener"' if self._at.public_host else ""
        return Html(f'<a class="st-cta" href="{esc(href)}"{where}>Sign in with Hugging Face</a>')

    async def start(self, request: Request) -> Response:
        request.session.clear()
        request.session["next"] = next_page(request.query_params.get("next", ""))
        request.session["invitation"] = request.query_params.get("invitation", "")[:100]
        try:
            answer: Response = await self._client.authorize_redirect(request, self._redirect_uri(request))
            return answer
        except (httpx2.HTTPError, ValueError) as error:
            log.warning("the sign-in provider cannot be reached: %s", error)
            return _failed(request, "Hugging Face cannot be reached right now; try again in a minute.", 503)

    async def back(self, request: Request) -> Response:
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        wanted, invitation = request.session.get("next", ""), request.session.get("invitation", "")
        try:
            token = await self._client.authorize_access_token(request)
            person = dict(token.get("userinfo") or await self._client.userinfo(token=token))
        except (AuthlibBaseError, JoseError, httpx2.HTTPError, ValueError, KeyError) as error:
            log.warning("signing in with the provider did not work: %s", error)
            return _failed(request, "Signing in did not work; go back to the sign-in page and try again.", 403)
        finally:
            request.session.clear()
        try:
            account = await run_in_threadpool(self._account, person, invitation)
        except StudioError as error:
            return _failed(request, str(error), 403)
        first = "label" if await run_in_threadpool(self._is_annotator, account) else ""
        return go(request, wanted or first, self._sessions.cookie(account.annotator_id, is_https(request.scope)))

    def _redirect_uri(self, request: Request) -> str:
        if self._at.public_host:
            return f"https://{self._at.public_host}{BACK}"
        scheme = "https" if is_https(request.scope) else "http"
        return f"{scheme}://{request.headers.get('host', '')}{request.scope.get('root_path', '')}{BACK}"

    def _is_annotator(self, account: Account) -> bool:
        known = self._sessions.directory.find(account.annotator_id)
        return known is not None and known.role == "annotator"

    def _account(self, person: dict[str, Any], invitation: str) -> Account:
        """This person's account here, made now if an invitation or STUDIO_ADMINS says so."""
        subject, name = person.get("sub"), person.get("preferred_username") or person.get("name")
        if not isinstance(subject, str) or not subject or not isinstance(name, str) or not name:
            raise BadInput("Hugging Face did not say who you are; try again.")
        db, login, is_admin = self._studio.db, f"hf:{subject[:200]}", name.lower() in self._at.admins
        account = accounts.by_login(db, login)
        if account is None and is_admin:
            account = db.write(lambda cursor: accounts.add(cursor, login, "", "admin", name[:100]))
        elif account is None and invitation:
            account = invitations.accept_elsewhere(db, invitation, login, name[:100])
        elif account is None:
            raise NotAllowed(f"You are {name} on Hugging Face, but not invited here yet: ask whoever runs this studio for a link.")
        elif invitation and account.disabled_at is None:
            invitations.accept_as(db, invitation, account.annotator_id)
        if account.disabled_at is not None:
            raise NotAllowed("This account is switched off; ask whoever runs this studio.")
        if is_admin:
            accounts.set_role(db, account.annotator_id, "admin")
        return account


def _failed(request: Request, says: str, status: int) -> Response:
    body = Html(f'{head("Not signed in", says)}<p><a class="st-cta quiet" href="{up(request)}sign-in">Sign in</a></p>')
    return draw(request, Body("Not signed in", body), status=status)
