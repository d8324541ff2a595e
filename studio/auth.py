"""Who may reach which address, where people sign in: one pure ASGI middleware in front of Gradio's routes and ours.

An allow-list for annotators, and nothing but it: the Label page, its files, what it sends, and their own account. Gradio's
`/config` lists every page's components and its queue runs any event for anybody, so no address of Gradio's is on that list,
and an annotator's Label page is a page of our own that holds nothing but the Label component (`studio/plain/`). Whoever is
not signed in gets the sign-in page, or 401 where no person is looking. What is not HTTP is for researchers alone.

Addresses are compared as they are: one that is spelled in any other way is on no list. What a handler may do for which role
it checks itself as well (`Studio.require`).
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.records import Role
from studio.context import Studio
from studio.frame import Link
from studio.label_page.assets import PREFIX as LABEL_ASSETS
from studio.plain.page import ASSETS, Body, draw, file, head, next_page
from studio.render import Html, esc
from studio.sessions import Session, Sessions, is_https

OPEN = frozenset({"/sign-in", "/theme.css", "/gradio_api/startup-events"})  # without the last one the app would not start
OPEN_BELOW = (ASSETS, "/join/", "/new-password/", "/sign-in/")
ANNOTATOR = frozenset({"/label", "/sign-out", "/account", "/api/label"})
ANNOTATOR_BELOW = ("/api/label/", "/assets/label/", "/account/")
ADMIN_BELOW = ("/people/admin/",)
FOR_PROGRAMS = ("/api/", "/gradio_api/", "/config", "/assets/", "/static/")
ANNOTATOR_LINKS = (Link("Label", "label"), Link("Account", "account"))


def middleware(studio: Studio) -> list[Middleware]:
    """To come after SecurityMiddleware; none where nobody signs in."""
    return [Middleware(AuthMiddleware, sessions=studio.sessions)] if studio.sessions is not None else []


class AuthMiddleware:
    """See the module."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self.app = app
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = _path(scope)
        session = await self._session(scope)
        if scope["type"] != "http":
            if session is not None and _may(session.known.role, path):
                await self.app(scope, receive, send)
            else:
                await _close(receive, send)
            return
        send = self._renewing(scope, session, send)
        answer = None if _is_open(path) else _refusal(Request(scope, receive), path, session)
        await (answer or self.app)(scope, receive, send)

    async def _session(self, scope: Scope) -> Session | None:
        cookies = Request({**scope, "type": "http"}).cookies
        if self.sessions.cookie_name not in cookies:
            return None
        if self.sessions.directory.is_stale:
            return await run_in_threadpool(self.sessions.of, cookies)
        return self.sessions.of(cookies)

    def _renewing(self, scope: Scope, session: Session | None, send: Send) -> Send:
        """A cookie that is a day old is signed anew, unless the answer sets or takes it away itself."""
        if session is None or not session.is_due:
            return send
        cookie = self.sessions.cookie(session.known.account.annotator_id, is_https(scope))

        async def renewed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                ours = f"{self.sessions.cookie_name}="
                if not any(said.startswith(ours) for said in headers.getlist("set-cookie")):
                    headers.append("set-cookie", cookie)
                    headers["cache-control"] = "no-store"
            await send(message)

        return renewed


# --- the lists --------------------------------------------------------------------------------------------------------------


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def _is_open(path: str) -> bool:
    return path in OPEN or (path.startswith(OPEN_BELOW) and _is_plain(path))


def _may(role: Role, path: str) -> bool:
    if role == "annotator":
        return path in ANNOTATOR or (path.startswith(ANNOTATOR_BELOW) and _is_plain(path))
    return role == "admin" or not path.startswith(ADMIN_BELOW)


def _is_plain(path: str) -> bool:
    """Whether it says where it leads: nothing in it climbs out of the part of the list that it begins with."""
    return not any(part in ("", ".", "..") for part in path[1:].split("/")) and "\\" not in path and "\0" not in path


# --- answers ----------------------------------------------------------------------------------------------------------------


def _refusal(request: Request, path: str, session: Session | None) -> Response | None:
    """What to answer instead of passing the request on; None = pass it on."""
    if session is None:
        return _sign_in_first(request, path)
    if not _may(session.known.role, path):
        return _not_yours(request, path, session.known.role)
    if session.known.role == "annotator" and path == "/label":
        return _label_page(request)
    return None


def _sign_in_first(request: Request, path: str) -> Response:
    if request.method not in ("GET", "HEAD") or path.startswith(FOR_PROGRAMS):
        return _json(401, "You are not signed in (any more). Open the sign-in page, then come back; nothing here is lost.")
    wanted = next_page(path.lstrip("/") + (f"?{request.url.query}" if request.url.query else ""))
    root = "../" * path.strip("/").count("/") or "./"
    where = f"{root}sign-in" + (f"?next={quote(wanted, safe='')}" if wanted else "")
    return RedirectResponse(where, status_code=303, headers={"cache-control": "no-store"})


def _not_yours(request: Request, path: str, role: Role) -> Response:
    if request.method not in ("GET", "HEAD") or path.startswith(FOR_PROGRAMS):
        return _json(403, "Your role does not go that far; ask an admin of this studio.")
    root = "../" * path.strip("/").count("/") or "./"
    annotator = role == "annotator"
    where, words = ("label", "Go to the Label page") if annotator else ("", "Go to Home")
    says = "You are here to label; this page is for researchers." if annotator else "This page is for the admins of this studio."
    body = Html(f'{head("Not your page", says)}<p><a class="st-cta" href="{root}{where}">{esc(words)}</a></p>')
    return draw(request, Body("Not your page", body), ANNOTATOR_LINKS if annotator else (), status=403)


def _label_page(request: Request) -> Response:
    """The Label page without Gradio, for whoever may see nothing else."""
    if request.method not in ("GET", "HEAD"):
        return _json(405, "Open this page in a browser.")
    body = Html(
        f'<div id="label-page" data-module="{LABEL_ASSETS}/label.js"></div>'
        f'<script type="module" src="{file("label.js", "./")}"></script>'
        "<noscript>The Label page needs JavaScript; allow it for this address.</noscript>"
    )
    style = Html(f'<link rel="stylesheet" href="./{LABEL_ASSETS}/label.css">')
    return draw(request, Body("Label", body, "label", style), ANNOTATOR_LINKS, "label")


def _json(status: int, message: str) -> Response:
    return JSONResponse({"error": message, "detail": message}, status_code=status, headers={"cache-control": "no-store"})


async def _close(receive: Receive, send: Send) -> None:
    """Refuse a web socket before it is accepted."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})
