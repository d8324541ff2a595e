"""Slows guessing down: who has tried too often waits, in growing steps, and is told how long.

Counted for each login (so that one account cannot be guessed at from many addresses) and for each address (so that one
address cannot try many accounts). A try is counted before the password is looked at, and taken back when it was right, so
that a thousand tries at once are a thousand tries. The longest wait for a login is a minute: long enough to make guessing
hopeless, short enough that nobody can keep the owner out for long. Memory is bounded: the longest unseen is forgotten.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

KEPT = 10_000
FORGET_AFTER_S = 3600.0


class Rule(NamedTuple):
    """`free` tries, then a wait that doubles from two seconds up to `longest_s`."""

    free: int
    longest_s: float


LOGIN = Rule(5, 60.0)
ADDRESS = Rule(20, 600.0)


@dataclass
class _Counted:
    tries: int = 0
    last: float = 0.0
    until: float = 0.0


class Attempts:
    """Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = KEPT) -> None:
        self._clock, self._kept = clock, kept
        self._counted: OrderedDict[str, _Counted] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, login: str, address: str) -> int:
        """Count a try; 0 = go on, else the seconds to wait, and this try is not looked at."""
        with self._lock:
            now = self._clock()
            both = [(self._of(key, now), rule) for key, rule in self._keys(login, address)]
            wait = max(counted.until - now for counted, _ in both)
            if wait > 0:
                return math.ceil(wait)
            for counted, rule in both:
                counted.tries, counted.last = counted.tries + 1, now
                if counted.tries >= rule.free:
                    counted.until = now + min(rule.longest_s, 2.0 ** min(counted.tries - rule.free + 1, 20))
            return 0

    def right(self, login: str, address: str) -> None:
        """The try was right: the login starts afresh, the address has one try less against it."""
        with self._lock:
            (of_login, _), (of_address, _) = self._keys(login, address)
            self._counted.pop(of_login, None)
            counted = self._counted.get(of_address)
            if counted is not None:
                counted.tries, counted.until = max(0, counted.tries - 1), 0.0

    def __len__(self) -> int:
        return len(self._counted)

    def _keys(self, login: str, address: str) -> tuple[tuple[str, Rule], tuple[str, Rule]]:
        return (f"login\0{login.strip().lower()[:80]}", LOGIN), (f"address\0{network(address)}", ADDRESS)

    def _of(self, key: str, now: float) -> _Counted:
        counted = self._counted.pop(key, None)
        if counted is None or now - max(counted.last, counted.until) > FORGET_AFTER_S:
            counted = _Counted()
        self._counted[key] = counted
        while len(self._counted) > self._kept:
            self._counted.popitem(last=False)
        return counted


def network(address: str) -> str:
    """An IPv6 address counts with its /64, all of which one person has."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:80]
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
