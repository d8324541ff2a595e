"""Files made for one person to download: an export, a backup.

Gradio would copy such a file into its own cache and serve it to anybody who knows the path; the workspace is closed to it
anyway. Here a file lies in the export folder, is known by a random token, and goes only to the person it was made for. Old
ones are deleted as new ones come.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from data.errors import StudioError
from studio.error_page import answer

if TYPE_CHECKING:
    from studio.context import Studio

KEPT = 50


class Offer(NamedTuple):
    path: Path
    name: str  # under which the browser saves it
    owner: str


class Offers:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._offers: OrderedDict[str, Offer] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, path: Path, name: str, owner: str) -> str:
        """The address, relative to the app's root, under which `owner` gets the file."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._offers[token] = Offer(path, name, owner)
            mine = [old for old, offer in self._offers.items() if offer.owner == owner]
            self._drop(mine[: len(mine) - KEPT] if len(mine) > KEPT else [])
        return f"download/{token}"

    def forget(self, owner: str) -> None:
        """Nothing that was made for them can be fetched any more."""
        with self._lock:
            self._drop([token for token, offer in self._offers.items() if owner and offer.owner == owner])

    def _drop(self, tokens: list[str]) -> None:
        """A visitor's files are for downloading and go too, unless they were made anew; one's own exports and backups stay in the
        export folder."""
        gone = [self._offers.pop(token) for token in tokens]
        kept = {offer.path for offer in self._offers.values()}
        for offer in gone:
            if offer.owner and offer.path not in kept:
                offer.path.unlink(missing_ok=True)

    def get(self, token: str, owner: str) -> Offer | None:
        with self._lock:
            offer = self._offers.get(token)
        return offer if offer is not None and offer.owner == owner and offer.path.is_file() else None


def routes(studio: Studio) -> list[BaseRoute]:
    """To be handed to `launch(app_kwargs={"routes": ...})`."""

    async def download(request: Request) -> Response:
        try:
            viewer = await run_in_threadpool(studio.viewer, request)
        except StudioError as error:
            return answer(request, 403, str(error))
        offer = studio.offers.get(request.path_params["token"], viewer.owner)
        if offer is None:
            return answer(request, 404, "This file is no longer here; make it again on the Data page.")
        return FileResponse(offer.path, filename=offer.name, headers={"cache-control": "no-store"})

    return [Route("/download/{token}", download, methods=["GET"])]
