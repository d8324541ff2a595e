"""What is shown instead of a page: a small page of our own for a person, a sentence as JSON for a program.

A browser that opens an address asks for HTML; everything else (our scripts, Gradio's, other programs) gets JSON. Gradio's own
refusals go through here too: their text is made for developers and names files, functions and values.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

MACHINES = ("/api/", "/gradio_api/")  # addresses that no person opens
NO_PAGE = "There is no page at this address"
NOT_DONE = "This did not work"
_WORDS = {
    404: "There is nothing at this address.",
    405: "This cannot be done at this address.",
    413: "This is too large to be sent at once.",
    503: "The app is busy right now; try again in a moment.",
}
_ELSE = "The app could not make sense of this; reload the page and try again."
_FAULT = "Something went wrong in the app itself; what it was doing is in the app's log. Nothing stored is lost."
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title} · Alignment Studio</title><style>
body {{ margin: 0; min-height: 100dvh; display: grid; place-items: center; color: light-dark(#1c1f26, #e8e9ed);
  background: light-dark(#fbfbfc, #15171c); font: 16px/1.55 system-ui, sans-serif }}
main {{ max-width: 34rem; padding: 2rem 1.5rem }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem }}
p {{ color: light-dark(#5b6270, #a4a9b5); margin: 0 0 1.5rem; overflow-wrap: anywhere }}
a {{ color: light-dark(#0f766e, #5eead4); font-weight: 600 }}
</style></head><body><main><h1>{title}</h1><p>{says}</p><a href="{home}">Go to Home</a></main></body></html>
"""


class Shown(NamedTuple):
    """An answer's body and its content type."""

    body: bytes
    media_type: str


def shown(scope: Scope, status: int, says: str) -> Shown:
    """The sentence as whoever sent this request can read it."""
    root = str(scope.get("root_path", "")).rstrip("/")
    path = str(scope["path"]).removeprefix(root)
    person = scope["method"] in ("GET", "HEAD") and not path.startswith(MACHINES)
    if not person or "text/html" not in Headers(scope=scope).get("accept", ""):
        return Shown(json.dumps({"error": says, "detail": says}).encode(), "application/json")
    title, text = (NO_PAGE, "It may have moved, or the link is not complete.") if says == _WORDS[404] else (NOT_DONE, says)
    made = _PAGE.format(title=html.escape(title), says=html.escape(text), home=html.escape(f"{root}/"))
    return Shown(made.encode(), "text/html; charset=utf-8")


async def refused(request: Request, error: Exception) -> Response:
    """For every `HTTPException` and every request that does not validate."""
    if isinstance(error, HTTPException):
        return answer(request, error.status_code, _WORDS.get(error.status_code, _ELSE), error.headers)
    return answer(request, 422, _ELSE)


async def failed(request: Request, error: Exception) -> Response:
    """For what nothing else caught; the server has it in its log."""
    return answer(request, 500, _FAULT)


def answer(request: Request, status: int, says: str, headers: Mapping[str, str] | None = None) -> Response:
    """The sentence, as a page or as JSON."""
    body, media_type = shown(request.scope, status, says)
    return Response(body, status, {**(headers or {}), "cache-control": "no-store"}, media_type)
