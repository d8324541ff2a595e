"""How much one visitor may do at a time or in an hour, so that nobody keeps the shared parts of the app to themselves.

Kept in memory: a restart forgives. Both are safe from any thread, and hold nothing of those who have been away for long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import LimitReached

TIDY_ABOVE = 1_000  # names; then those who did nothing lately are forgotten


class Pace:
    """`most` times in `seconds`, for each name."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def has_room(self, who: str) -> bool:
        """Whether `take` would do it; nothing is counted."""
        with self._lock:
            lately = time.monotonic() - self._seconds
            return sum(at > lately for at in self._times.get(who, ())) < self._most

    def take(self, who: str) -> bool:
        """Whether `who` may do it once more now; then it is counted."""
        with self._lock:
            now = time.monotonic()
            if len(self._times) > TIDY_ABOVE:
                self._times = {name: times for name, times in self._times.items() if now - times[-1] < self._seconds}
            times = self._times.get(who, deque())
            while times and now - times[0] >= self._seconds:
                times.popleft()
            if len(times) >= self._most:
                return False
            times.append(now)
            self._times[who] = times
            return True


class Slots:
    """`most` at the same time, for each name. A slot that nobody gave back (a browser that went away) is free after `seconds`."""

    def __init__(self, most: int, seconds: float, says: str) -> None:
        self._most, self._seconds, self._says = most, seconds, says
        self._held: dict[str, dict[object, float]] = {}
        self._given_back: deque[tuple[str, object]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, who: str) -> Iterator[None]:
        """LimitReached, with the sentence, when all of `who`'s slots are taken; '' has any number."""
        if not who:
            yield
            return
        ticket = object()
        with self._lock:
            self._take_back()
            now = time.monotonic()
            mine = {held: since for held, since in self._held.get(who, {}).items() if now - since < self._seconds}
            if len(mine) >= self._most:
                raise LimitReached(self._says)
            self._held[who] = {**mine, ticket: now}
        try:
            yield
        finally:  # without the lock: the garbage collector may come here, in a thread that holds it
            self._given_back.append((who, ticket))

    def _take_back(self) -> None:
        while self._given_back:
            who, ticket = self._given_back.popleft()
            self._held.get(who, {}).pop(ticket, None)
            if not self._held.get(who):
                self._held.pop(who, None)
