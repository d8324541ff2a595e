"""The label page's JavaScript, CSS and the bundled KaTeX, under a path that holds their hash.

So a browser keeps them for good and asks for new ones after an upgrade, and the modules' relative imports stay within one
version. Only the files found here at import are served, by name: there is no path to walk.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

FOLDER = Path(__file__).parent
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".woff2": "font/woff2"}


class Asset(NamedTuple):
    body: bytes
    media_type: str


def _read() -> dict[str, Asset]:
    files = sorted(f for f in FOLDER.rglob("*") if f.suffix in TYPES)
    return {f.relative_to(FOLDER).as_posix(): Asset(f.read_bytes(), TYPES[f.suffix]) for f in files}


ASSETS = _read()
VERSION = hashlib.sha256(b"".join(name.encode() + asset.body for name, asset in ASSETS.items())).hexdigest()[:12]
PREFIX = f"assets/label/{VERSION}"


async def serve(request: Request) -> Response:
    asset = ASSETS.get(request.path_params["path"])
    if asset is None:
        return PlainTextResponse("There is no such file.", status_code=404)
    current = request.path_params["version"] == VERSION
    cache = "public, max-age=31536000, immutable" if current else "no-store"
    return Response(asset.body, media_type=asset.media_type, headers={"cache-control": cache})


ROUTE = Route("/assets/label/{version}/{path:path}", serve, methods=["GET"])
