"""A call to an endpoint that can be cancelled from any thread, even while it waits for the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


class Call:
    """One call in progress. `cancel()` from any thread: waits end at once, open connections are cut."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.RLock()  # the collector cancels what was left half-way, also in a thread that holds this one
        self._open: set[httpx.Response] = set()

    @property
    def cancelled(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)

    def cancel(self) -> None:
        with self._lock:
            if not self.cancelled:
                self._over.set()
            for response in self._open:
                _cut(response)

    @contextmanager
    def reading(self, response: httpx.Response) -> Iterator[None]:
        with self._lock:
            self._open.add(response)
            if self.cancelled:
                _cut(response)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(response)


def _cut(response: httpx.Response) -> None:
    """A thread blocked in recv wakes when the socket is shut down, but not when it is closed."""
    stream = response.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream is not None else None
    try:
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was over already


class Cancelled(Exception):
    """The call was cancelled while this request was under way."""
