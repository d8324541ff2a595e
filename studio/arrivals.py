"""New visitors: how many come from one address, and how long each has been away.

A visitor is whoever sends a cookie of the right form, and cookies can be made up: without a bound one person could take every
place. So an address (of IPv6 its /64) opens so many projects an hour and a day. A project lives for a day, so the second number is
how many of all places one address can hold. Kept in memory: a restart forgives. Not safe from threads by itself: `Visitors` asks
under its lock.
"""

from __future__ import annotations

import ipaddress
import time

from data.errors import LimitReached
from studio.attempts import network
from studio.pace import Pace

NEW_AN_HOUR, NEW_A_DAY = 40, 80  # of one address: a class behind one connection, not half of all places
ALL_NEW_AN_HOUR = 400  # of all addresses together: each costs a project's worth of rows
IDLE_S = 1800.0
FROM_HERE = (
    "Too many new visitors come from your network at the moment; come back in an hour, or run the studio on your own machine."
)
FROM_ALL = "Too many new visitors come at the moment; come back in an hour, or run the studio on your own machine."


class Arrivals:
    """`behind_proxy`: every request is handed on by a proxy, so that an address inside this network may be everybody's."""

    def __init__(self, behind_proxy: bool = False) -> None:
        self._behind_proxy = behind_proxy
        self._hour, self._day, self._all = Pace(NEW_AN_HOUR, 3600), Pace(NEW_A_DAY, 24 * 3600), Pace(ALL_NEW_AN_HOUR, 3600)
        self._started = time.monotonic()
        self._seen: dict[str, float] = {}

    def admit(self, address: str) -> None:
        """Count a new visitor; LimitReached when their address, or all together, have had their share."""
        shares = [(self._all, "everybody", FROM_ALL)]
        if self._tells(address):
            name = network(address)
            shares = [(self._hour, name, FROM_HERE), (self._day, name, FROM_HERE), *shares]
        for pace, who, words in shares:  # all before any is counted: whoever is refused has used up nothing
            if not pace.has_room(who):
                raise LimitReached(words)
        for pace, who, _ in shares:
            pace.take(who)

    def seen(self, owner: str) -> None:
        self._seen[owner] = time.monotonic()

    def forget(self, owner: str) -> None:
        self._seen.pop(owner, None)

    def last(self, owner: str) -> float:
        """When this visitor's last request came, on the monotonic clock: at the start of the app where none has come since."""
        return self._seen.get(owner, self._started)

    def _tells(self, address: str) -> bool:
        """Whether an address is one visitor's or their network's, and not that of a proxy which does not say for whom it asks."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return not ip.is_loopback and not (self._behind_proxy and ip.is_private)
