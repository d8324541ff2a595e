"""Our routes and middleware on a real server in this process, without Gradio: for tests that need real HTTP and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asgi_server import bound, port_of, serving
from label_app import studio_without_runs
from starlette.applications import Starlette
from starlette.middleware import Middleware

from data.settings import Settings
from studio import api
from studio.security import SecurityMiddleware


@contextmanager
def served(db: Any, settings: Settings) -> Iterator[tuple[str, Any]]:
    """(url, studio) while the routes are served."""
    studio = studio_without_runs(settings, db)
    app = Starlette(routes=api.routes(studio), middleware=[Middleware(SecurityMiddleware, settings=settings)])
    held = bound()
    with serving(app, held):
        yield f"http://127.0.0.1:{port_of(held)}", studio
