"""Pages that the server draws by itself, without Gradio: signing in, one's account, the people, and an annotator's Label page.

They work without JavaScript, share the theme's variables and `studio.css` with Gradio's pages, and load three small files of
their own under a path that holds their hash. No inline script, and a content security policy that allows none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from data.errors import BadInput
from studio.frame import Link, header
from studio.render import Html, esc, note
from studio.theme.theme import CSS

FOLDER = Path(__file__).parent
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
MAX_FORM = 16 * 1024
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self' https://huggingface.co"
)
_FILES = {file.name: file.read_bytes() for file in [*sorted(FOLDER.iterdir()), CSS] if file.suffix in TYPES}
_VERSION = hashlib.sha256(b"".join(name.encode() + body for name, body in _FILES.items())).hexdigest()[:12]
ASSETS = "/assets/studio/"
_NEXT = re.compile(r"[a-z]{1,20}(\?[A-Za-z0-9_=&.-]{0,200})?")  # a page of ours and nothing else: no host, no slash


class Body(NamedTuple):
    """What makes a page: its title, its HTML, and how wide it may be."""

    title: str
    html: Html
    kind: str = "narrow"  # narrow: one column of forms; wide: tables; label: the Label page
    extra_head: Html = Html("")


def up(request: Request) -> str:
    """The app's root, relative to this request's page, whatever proxy is in front."""
    return "../" * request.url.path.removeprefix(str(request.scope.get("root_path", ""))).strip("/").count("/") or "./"


def draw(request: Request, body: Body, links: tuple[Link, ...] = (), here: str = "", status: int = 200) -> HTMLResponse:
    """`links`: the pages this person may open; `here`: the path of this one."""
    root = up(request)
    files = f"{root}assets/studio/{_VERSION}/"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{esc(body.title)} · Alignment Studio</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="{files}icon.svg"><link rel="stylesheet" href="{root}theme.css">'
        f'<link rel="stylesheet" href="{files}studio.css"><link rel="stylesheet" href="{files}plain.css">'
        f'<script src="{files}theme.js"></script>{body.extra_head}</head>'
        f'<body><div class="gradio-container pl pl-{body.kind}">{header(links, here, root=root)}'
        f"<main>{body.html}</main></div></body></html>"
    )
    headers = {"cache-control": "no-store", "content-security-policy": CONTENT_SECURITY_POLICY}
    return HTMLResponse(page, status_code=status, headers=headers)


def go(request: Request, where: str, *cookies: str) -> Response:
    """Open another page of ours after a form; `where` is relative to the app's root."""
    response = RedirectResponse(up(request) + where, status_code=303, headers={"cache-control": "no-store"})
    for cookie in cookies:
        response.headers.append("set-cookie", cookie)
    return response


def next_page(wanted: str) -> str:
    """The page to go on to, '' for whatever is none of ours."""
    return wanted if _NEXT.fullmatch(wanted) else ""


async def read_form(request: Request) -> Mapping[str, str]:
    """The form's fields; BadInput when it is none or too long."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadInput("Send this form from its own page.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                raise BadInput("This form is too long.")
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50))
    except (ClientDisconnect, ValueError):
        raise BadInput("This form could not be read; send it again.") from None


async def form_of(request: Request) -> tuple[Mapping[str, str], str]:
    """What `read_form` gives, or nothing and what is wrong with it. To be awaited before it is looked who asks: a form may be sent
    as slowly as one likes, and meanwhile somebody may have lost the right to send it."""
    try:
        return await read_form(request), ""
    except BadInput as error:
        return {}, str(error)


# --- pieces of a form -------------------------------------------------------------------------------------------------------


def form(action: str, *parts: str, label: str = "") -> Html:
    """`action` is relative to the page."""
    name = f' aria-label="{esc(label)}"' if label else ""
    return Html(f'<form method="post" action="{esc(action)}" class="pl-form"{name}>{"".join(parts)}</form>')


def field(name: str, label: str, kind: str = "text", info: str = "", value: str = "", **more: str) -> Html:
    """A labelled input. `more`: further attributes, `_` for `-`."""
    extra = "".join(f' {key.replace("_", "-")}="{esc(said)}"' for key, said in more.items())
    described = f' aria-describedby="{name}-info"' if info else ""
    under = f'<span class="pl-info" id="{name}-info">{esc(info)}</span>' if info else ""
    box = f'<input id="{name}" name="{name}" type="{kind}" value="{esc(value)}" required{described}{extra}>'
    return Html(f'<div class="pl-field"><label for="{name}">{esc(label)}</label>{box}{under}</div>')


def select(name: str, label: str, options: list[tuple[str, str]], chosen: str = "", hidden_label: bool = False) -> Html:
    """`options`: (value, words)."""
    inside = "".join(f'<option value="{esc(v)}"{" selected" if v == chosen else ""}>{esc(w)}</option>' for v, w in options)
    if hidden_label:
        return Html(f'<select name="{name}" aria-label="{esc(label)}">{inside}</select>')
    return Html(
        f'<div class="pl-field"><label for="{name}">{esc(label)}</label><select id="{name}" name="{name}">{inside}</select></div>'
    )


def hidden(name: str, value: str) -> Html:
    return Html(f'<input type="hidden" name="{name}" value="{esc(value)}">')


def submit(text: str, kind: str = "primary", **more: str) -> Html:
    """`kind`: primary, quiet or danger."""
    extra = "".join(f' {key.replace("_", "-")}="{esc(said)}"' for key, said in more.items())
    return Html(f'<button type="submit" class="pl-button {kind}"{extra}>{esc(text)}</button>')


def card(title: str, *parts: str, says: str = "", level: int = 2) -> Html:
    intro = f'<p class="st-sub">{esc(says)}</p>' if says else ""
    return Html(f'<section class="st-card"><h{level} class="st-h2">{esc(title)}</h{level}>{intro}{"".join(parts)}</section>')


def head(title: str, says: str = "") -> Html:
    under = f"<p>{esc(says)}</p>" if says else ""
    return Html(f'<div class="st-head"><h1>{esc(title)}</h1>{under}</div>')


def said(problem: str = "", done: str = "") -> Html:
    """What came of the last form, above everything else."""
    return Html(f'<div class="pl-said">{note(problem, "bad")}{note(done, "good")}</div>') if problem or done else Html("")


# --- the files --------------------------------------------------------------------------------------------------------------


async def _serve(request: Request) -> Response:
    body = _FILES.get(request.path_params["name"])
    if body is None:
        return PlainTextResponse("There is no such file.", status_code=404)
    current = request.path_params["version"] == _VERSION
    cache = "public, max-age=31536000, immutable" if current else "no-store"
    kind = TYPES[Path(request.path_params["name"]).suffix]
    return Response(body, media_type=kind, headers={"cache-control": cache})


ROUTE = Route(ASSETS + "{version}/{name}", _serve, methods=["GET"])


def file(name: str, root: str) -> str:
    """The address of one of the files."""
    return f"{root}assets/studio/{_VERSION}/{name}"
