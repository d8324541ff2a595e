"""One ASGI middleware in front of everything, Gradio's own routes included: response headers, foreign pages, DNS rebinding,
visitors' cookie.

It is pure ASGI because Gradio streams. It goes in before the start: `launch(app_kwargs={"middleware":
[Middleware(SecurityMiddleware, settings=settings)]})`. What each part is for:

* The content security policy keeps a page from loading or sending anything elsewhere, so that even a hole in a renderer leaks
  nothing. Gradio's templates need 'unsafe-eval'.
* A request that changes something must come from our own page: a browser says where it comes from in `Origin` and
  `Sec-Fetch-Site`, and our own routes take only JSON, which a foreign page cannot send without asking first. Programs send
  neither header and are let through.
* On a loopback address the `Host` must be a loopback name, or any web site could point its own name at 127.0.0.1 and read this
  app.
* In visitor mode each browser is sent a random identity. It counts from the next request on, when the browser has shown that it
  keeps it: the first one, of a page, has nothing of anybody's in it. Uploads are counted here, before Gradio takes them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.settings import Settings
from studio.context import NO_COOKIE, VISITOR_COOKIE, VISITOR_TOKEN
from studio.error_page import shown
from studio.pace import Pace
from studio.sessions import is_https

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self' https://huggingface.co"
)
OWN_ROUTES = "/api/"
UPLOAD = "/gradio_api/upload"
MAX_VISITOR_BODY = 1024 * 1024
FORM = 64 * 1024  # what a form says around the file in it
UPLOADS_AN_HOUR = 20  # of one visitor; a file that does not arrive counts
ALL_UPLOADS_AN_HOUR = 1_000  # cookies can be made up
# Gradio's own extras, none of which a page here uses: they write files, read forms of any size or tell of other visitors.
UNUSED = (
    "/monitoring", "/gradio_api/call", "/gradio_api/component_server", "/gradio_api/custom_component", "/gradio_api/deep_link",
    "/gradio_api/process_recording", "/gradio_api/profiling", "/gradio_api/proxy=", "/gradio_api/run-history", "/gradio_api/runs",
    "/gradio_api/stream", "/gradio_api/undo-vibe-edit", "/gradio_api/vibe",
)  # fmt: skip
VISITOR_COOKIE_SECONDS = 2 * 24 * 3600  # a visitor's project lives for a day
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Refused(Exception):
    """The request is answered here; the message is the sentence to show."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SecurityMiddleware:
    """See the module. `trusted_hosts`: further names under which a loopback app may be reached (a local reverse proxy)."""

    def __init__(self, app: ASGIApp, settings: Settings, trusted_hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.settings = settings
        self.trusted_hosts = trusted_hosts
        self._uploads, self._all_uploads = Pace(UPLOADS_AN_HOUR, 3600), Pace(ALL_UPLOADS_AN_HOUR, 3600)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        new = self.settings.visitor and not _visitor_token(headers)
        cookie = _introduction(scope) if new else ""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                _set_headers(message, cookie)
            await send(message)

        try:
            self._check(scope, headers)
        except Refused as refused:
            await _answer(scope, refused, secured)
            return
        await self.app(scope, receive, secured)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refused, with the sentence to show."""
        path = _path(scope)
        if self.settings.is_loopback:
            _check_host(headers, self.trusted_hosts | {self.settings.host})
        if path.startswith(UNUSED):
            raise Refused(404, "There is nothing at this address.")
        if scope["method"] in _SAFE_METHODS:
            return
        _check_origin(headers)
        if path.startswith(OWN_ROUTES):
            _check_json(headers)
        if self.settings.visitor:
            upload = path.rstrip("/") == UPLOAD
            _check_length(headers, MAX_VISITOR_BODY + (FORM if upload else 0))
            if upload:
                self._check_upload(headers)

    def _check_upload(self, headers: Headers) -> None:
        token = _visitor_token(headers)
        if not token:
            raise Refused(403, NO_COOKIE)
        if not self._uploads.take(hashlib.sha256(token.encode()).hexdigest()):
            raise Refused(429, f"A visitor uploads at most {UPLOADS_AN_HOUR} files an hour; go on later, or type prompts in.")
        if not self._all_uploads.take("everybody"):
            raise Refused(429, "Too many files are being uploaded at the moment; try again in an hour, or type prompts in.")


def _path(scope: MutableMapping[str, Any]) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


# --- where a request comes from -------------------------------------------------------------------------------------


def _host_of(authority: str) -> str:
    """The host of `host:port`, lower case, without brackets; '' when it cannot be read."""
    try:
        return (urlsplit(f"//{authority.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_host(headers: Headers, known: frozenset[str]) -> None:
    host = _host_of(headers.get("host", ""))
    if not _is_loopback(host) and host not in known:
        raise Refused(421, "This app answers only on this machine's own address; open it as http://127.0.0.1 with its port.")


def _check_origin(headers: Headers) -> None:
    """A browser's request must come from a page of the very address that it is sent to."""
    refused = Refused(403, "This request comes from another web site, so it was not carried out.")
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise refused
    origin = headers.get("origin")
    if origin is None:
        return
    if "://" not in origin:  # "null": a sandboxed frame or a file
        raise refused
    # A proxy may change the Host; a foreign page can set neither of the two.
    ours = {headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower()} - {""}
    if origin.split("://", 1)[1].lower() not in ours:
        raise refused


def _check_json(headers: Headers) -> None:
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refused(415, "Send this request as application/json.")


def _check_length(headers: Headers, most: int) -> None:
    """A visitor's form holds a few prompts: boxes have their limits in the browser alone, so that a program could send any."""
    length = headers.get("content-length", "")
    if not length.isdecimal() and headers.get("transfer-encoding"):
        raise Refused(411, "Say how long this request is (Content-Length).")
    if length.isdecimal() and int(length) > most:
        raise Refused(413, f"A visitor sends at most {MAX_VISITOR_BODY // 1024} KB at once.")


# --- visitors -------------------------------------------------------------------------------------------------------


def _visitor_token(headers: Headers) -> str:
    token = cookie_parser(headers.get("cookie", "")).get(VISITOR_COOKIE, "")
    return token if VISITOR_TOKEN.fullmatch(token) else ""


def _introduction(scope: Scope) -> str:
    """A new visitor's Set-Cookie value.

    The cookie must also work in the frame a Space is shown in, which only `None; Secure; Partitioned` does, over https.
    """
    token = secrets.token_hex(16)
    site = "SameSite=None; Secure; Partitioned" if is_https(scope) else "SameSite=Lax"
    return f"{VISITOR_COOKIE}={token}; Path=/; Max-Age={VISITOR_COOKIE_SECONDS}; HttpOnly; {site}"


# --- answers --------------------------------------------------------------------------------------------------------


def _set_headers(message: Message, cookie: str) -> None:
    headers = MutableHeaders(scope=message)
    headers.setdefault("content-security-policy", CONTENT_SECURITY_POLICY)  # a page of our own may be stricter
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "same-origin"
    if cookie:
        headers.append("set-cookie", cookie)
        headers["cache-control"] = "no-store"  # a shared cache must not hand one visitor's cookie to the next


async def _answer(scope: Scope, refused: Refused, send: Send) -> None:
    body, media_type = shown(scope, refused.status, str(refused))
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
