"""Where a request comes from when a reverse proxy hands it on: what that proxy itself wrote down, and nothing before it.

Each proxy appends to `X-Forwarded-For` the address that it was asked from and to `X-Forwarded-Proto` how; whatever stands to the
left of the last entry came with the request and can be made up. So of a proxy that is named (`Settings.proxies`) the last entry is
taken and no other, and of anybody else none: the client and the scheme of a request are what is written here. The server beneath
(uvicorn) would take more, up to the first entry: it is told to trust nobody.

Where nothing but proxies can ask (`*`, as on a Space) they may stand in a row inside a private network, each with an entry of its
own: then it is the last public address, and https where one of them says so. Else all visitors would be one, and their cookies
would not reach a page in a frame.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence, Set

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

ANYBODY = "*"  # whoever asks is the proxy: nothing else can reach this machine, as on a Space


class ProxyMiddleware:
    """To come before all others: what they see as the client is the one that the proxy saw."""

    def __init__(self, app: ASGIApp, proxies: Set[str]) -> None:
        self.app = app
        self._anybody = ANYBODY in proxies
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies if _is_network(proxy)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (client := scope.get("client")):
            scope["client"] = (plain(client[0]), client[1])
        if scope["type"] in ("http", "websocket") and self._is_proxy(scope.get("client")):
            headers = Headers(scope=scope)
            if address := self._client(_entries(headers, "x-forwarded-for")):
                scope["client"] = (address, 0)
            if scheme := self._scheme(_entries(headers, "x-forwarded-proto")):
                scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
        await self.app(scope, receive, send)

    def _client(self, entries: Sequence[str]) -> str:
        """'' where the proxy wrote none that can be read."""
        last = _host(entries[-1])
        if not self._anybody:
            return last
        return next((host for entry in reversed(entries) if _is_public(host := _host(entry))), last)

    def _scheme(self, entries: Sequence[str]) -> str:
        said = "https" if self._anybody and "https" in entries else entries[-1]
        return said if said in ("http", "https") else ""

    def _is_proxy(self, client: tuple[str, int] | None) -> bool:
        if self._anybody or client is None:
            return self._anybody
        try:
            return any(ipaddress.ip_address(client[0]) in network for network in self._networks)
        except ValueError:
            return False


def trust_nobody() -> None:
    """Before the server starts: it reads this variable, which `data/settings.py` has read already."""
    os.environ["FORWARDED_ALLOW_IPS"] = ""


def plain(address: str) -> str:
    """An IPv4 address that a server for both kinds writes as `::ffff:1.2.3.4`, as itself: else all of them are one network."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped) if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped else address


def _entries(headers: Headers, name: str) -> list[str]:
    """At least one, '' without the header; what the proxy itself appended is the last."""
    return [entry.strip() for entry in ",".join(headers.getlist(name)).split(",")]


def _host(entry: str) -> str:
    """The address of an entry: alone, as `1.2.3.4:80` or as `[::1]:80`; '' for what is none."""
    alone = entry[1:].partition("]")[0] if entry.startswith("[") else entry.partition(":")[0] if entry.count(":") == 1 else entry
    return plain(alone) if _is_address(alone) else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_public(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_global


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
