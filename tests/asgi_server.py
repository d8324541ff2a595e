"""An ASGI app on a real port of this process: one that cannot be served fails its test, which would else wait for it for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


def bound() -> socket.socket:
    """A socket on a port of this machine that nobody else can take before `serving` listens on it."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def port_of(held: socket.socket) -> int:
    return int(held.getsockname()[1])


@contextmanager
def serving(app: Any, held: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([held],), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it had begun"
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
        held.close()
