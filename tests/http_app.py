"""Our routes and middleware on a real server in this process, without Gradio: for tests that need real HTTP and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from conftest import free_port
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
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}", studio
    finally:
        server.should_exit = True
        thread.join()
