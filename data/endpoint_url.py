"""Whether an endpoint's URL and key can be used at all; said before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from data.errors import EngineError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class FatalError(EngineError):
    """The next request would fail in the same way."""


def checked_url(url: str) -> httpx.URL:
    try:
        urlsplit(url.strip())  # stricter about brackets
        parsed = httpx.URL(url.strip())
        netloc = parsed.netloc.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise FatalError("The endpoint's URL cannot be read; write it like https://host/v1.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or not netloc:
        raise FatalError("The endpoint's URL must begin with http:// or https:// and name a host, like https://host/v1.")
    if parsed.userinfo:
        raise FatalError("The endpoint's URL holds a user name or password; leave it out and give the key apart.")
    return parsed.copy_with(fragment=None)


def checked_key(key: str) -> str:
    key = key.strip()
    if not all("!" <= c <= "~" for c in key):
        raise FatalError("The key holds spaces or characters that no key has; copy it again.")
    return key
