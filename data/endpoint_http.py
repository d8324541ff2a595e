"""Speaking HTTP to a server that may be slow, down, overloaded, wrong or hostile.

What comes back is a JSON object or the `data:` lines of an event stream, or else an EngineError in one sentence. Replies are
bounded in bytes and in time; what may pass (429, 5xx, silence) is tried again, what will not pass (refused, unknown host, wrong
key) is not. The key goes to the host of the URL and nowhere else: redirects are not followed, and no error, log or representation
holds it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from data.endpoint_call import Call, Cancelled
from data.endpoint_url import LOOPBACK, FatalError, checked_key, checked_url
from data.errors import EngineError

T = TypeVar("T")
DONE = "[DONE]"  # the key of the last object of a stream that ended in order


@dataclass(frozen=True)
class EndpointLimits:
    """`read_s`: the longest silence, so also the longest wait for one token; `max_wait_s`: the longest Retry-After obeyed."""

    concurrency: int = 8
    attempts: int = 4
    connect_s: float = 10.0
    read_s: float = 120.0
    total_s: float = 600.0
    backoff_s: float = 0.5
    max_wait_s: float = 60.0
    max_bytes: int = 8 * 2**20


class RefusedError(EngineError):
    """The server understood and will not have it (400, 422); `said` is its own message."""

    def __init__(self, words: str, said: str) -> None:
        super().__init__(words)
        self.said = said


class _PassingError(Exception):
    """May go well the next time; `wait_s` is what the server asked for."""

    def __init__(self, words: str, wait_s: float | None = None) -> None:
        super().__init__(words)
        self.words, self.wait_s = words, wait_s


class Http:
    """POSTs to one server. Thread-safe."""

    def __init__(self, url: str, key: str, limits: EndpointLimits) -> None:
        self.url, self.limits, self._key = checked_url(url), limits, checked_key(key)
        self.where = f"{self.url.scheme}://{self.url.netloc.decode('ascii')}"
        self.has_worked = False
        timeout = httpx.Timeout(limits.read_s, connect=limits.connect_s)
        self._client = httpx.Client(
            timeout=timeout,
            limits=httpx.Limits(max_connections=limits.concurrency + 4),
            follow_redirects=False,
            trust_env=self.url.host not in LOOPBACK,  # a proxy for the internet must not swallow localhost
        )

    @property
    def exposes_key(self) -> bool:
        """Whether the key travels unencrypted beyond this machine."""
        return bool(self._key) and self.url.scheme == "http" and self.url.host not in LOOPBACK

    def close(self) -> None:
        self._client.close()

    def post(self, path: str, body: dict[str, Any], call: Call) -> dict[str, Any]:
        """The reply's JSON object; EngineError in words, Cancelled."""

        def send(until: float) -> dict[str, Any]:
            with self._words(call):
                response = self._open(path, body, call, until)
                with closing(response), call.reading(response):
                    return self._object(b"".join(self._chunks(response, until, self.limits.max_bytes)), response)

        return self._retrying(send, call)

    def events(self, path: str, body: dict[str, Any], call: Call, max_bytes: int) -> Iterator[dict[str, Any]]:
        """The objects of an event stream as they come; a server that answers in one piece yields one.

        It is tried again only while nothing has come yet.
        """
        until = time.monotonic() + self.limits.total_s

        def open_stream(_: float) -> httpx.Response:
            with self._words(call):
                return self._open(path, body, call, until)

        response = self._retrying(open_stream, call)
        try:
            with closing(response), call.reading(response), self._words(call):
                yield from self._events(response, until, max_bytes)
        except _PassingError as error:
            raise EngineError(error.words) from error

    # --- attempts ---------------------------------------------------------------------------------------------------------------

    def _retrying(self, send: Callable[[float], T], call: Call) -> T:
        """`send` gets the moment at which everything must be over. The last failure is raised in words."""
        until = time.monotonic() + self.limits.total_s
        for tries in range(1, self.limits.attempts + 1):
            if call.cancelled:
                raise Cancelled
            try:
                return send(until)
            except _PassingError as error:
                pause = self._backoff(tries) if error.wait_s is None else error.wait_s
                if tries == self.limits.attempts or pause > self.limits.max_wait_s or time.monotonic() + pause > until:
                    raise EngineError(self._gave_up(error, tries, pause)) from error
            call.wait(pause)
        raise EngineError(f"{self.where} was not asked: no attempts are allowed.")

    def _backoff(self, tries: int) -> float:
        return float(min(8.0, self.limits.backoff_s * 2 ** (tries - 1)) * random.uniform(0.7, 1.3))

    def _gave_up(self, error: _PassingError, tries: int, pause: float) -> str:
        if error.wait_s is not None and pause > self.limits.max_wait_s:
            return f"{error.words} It asks to be left alone for {pause:.0f} seconds; try again later."
        return f"{error.words} It was tried {tries} times." if tries > 1 else error.words

    def _open(self, path: str, body: dict[str, Any], call: Call, until: float) -> httpx.Response:
        """An answer with status 200, its body still to be read and its closing left to the caller."""
        url = self.url.copy_with(path=self.url.path.rstrip("/") + path)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        response = self._client.send(self._client.build_request("POST", url, json=body, headers=headers), stream=True)
        try:
            with call.reading(response):
                self._check(response, until)
        except BaseException:
            response.close()
            raise
        self.has_worked = True
        return response

    def _check(self, response: httpx.Response, until: float) -> None:
        status = response.status_code
        if status == 200:
            return
        if 300 <= status < 400:
            raise FatalError(f"{self.where} sends requests on to {_origin(response)}; use that address itself if you trust it.")
        said = self._said(b"".join(self._chunks(response, until, 65_536, cut=True)))
        words = f" It says: {said}" if said else ""
        words += "" if not words or words[-1] in ".!?…" else "."
        if status in (401, 403):
            has = "refused the key" if self._key else "wants a key"
            raise FatalError(f"{self.where} {has} ({status}); enter a key that is valid there.")
        if status == 404:
            raise FatalError(
                f"{self.where} has no such address or model (404); check the model's name and that the URL ends in /v1.{words}"
            )
        if status in (408, 409, 425, 429) or status >= 500:
            kind = "has too many requests" if status == 429 else "failed"
            raise _PassingError(f"{self.where} {kind} ({status}).{words}", _retry_after(response))
        raise RefusedError(f"{self.where} refused the request ({status}).{words}", said)

    @contextmanager
    def _words(self, call: Call) -> Iterator[None]:
        """httpx's exceptions as ours. Their own texts are not passed on where they could quote a header."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise _PassingError(f"{self.where} cannot be reached within {self.limits.connect_s:g} seconds.") from error
        except httpx.ConnectError as error:
            self._not_connected(error)
        except httpx.TimeoutException as error:
            self._unless_cancelled(call)
            raise _PassingError(f"{self.where} was silent for {self.limits.read_s:g} seconds.") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            self._unless_cancelled(call)
            raise _PassingError(f"{self.where} broke the connection off.") from error
        except httpx.DecodingError as error:
            raise EngineError(f"{self.where} answered with damaged data.") from error
        except httpx.HTTPError as error:
            raise FatalError(f"{self.where} cannot be asked ({type(error).__name__}); check the URL.") from error

    def _not_connected(self, error: httpx.ConnectError) -> None:
        text = str(error)
        if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
            raise FatalError(f"{self.where} could not prove its identity (TLS); check the URL and its certificate.") from error
        if any(sign in text for sign in ("Name or service", "getaddrinfo", "name resolution", "nodename", "No address")):
            raise FatalError(f"The host {self.url.host} cannot be found; check the URL and the network.") from error
        words = f"Nothing answers at {self.where}; start the server there or correct the URL."
        if self.has_worked:  # it was there a moment ago: perhaps it is being restarted
            raise _PassingError(words) from error
        raise FatalError(words) from error

    def _unless_cancelled(self, call: Call) -> None:
        if call.cancelled:
            raise Cancelled

    # --- reading ----------------------------------------------------------------------------------------------------------------

    def _chunks(self, response: httpx.Response, until: float, max_bytes: int, cut: bool = False) -> Iterator[bytes]:
        """The body, bounded; with `cut` what is too long is dropped in silence."""
        seen = 0
        for chunk in response.iter_bytes():
            seen += len(chunk)
            if seen > max_bytes:
                if cut:
                    return
                raise EngineError(f"{self.where} sent more than was asked for and did not stop; its answer was dropped.")
            if time.monotonic() > until:
                raise EngineError(f"{self.where} was not done within {self.limits.total_s:g} seconds.")
            yield chunk

    def _object(self, raw: bytes, response: httpx.Response) -> dict[str, Any]:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            if "html" in response.headers.get("content-type", "") or raw.lstrip()[:1] == b"<":
                raise EngineError(
                    f"{self.where} answered with a web page; the URL is probably wrong (does it end in /v1?)."
                ) from error
            raise EngineError(f"{self.where} answered with something that is no JSON, or with half of it.") from error
        if not isinstance(value, dict):
            raise EngineError(f"{self.where} answered with something that is no completion.")
        if value.get("error") and not value.get("choices"):
            raise EngineError(f"{self.where} failed. It says: {self._said(raw)}")
        return value

    def _events(self, response: httpx.Response, until: float, max_bytes: int) -> Iterator[dict[str, Any]]:
        if "event-stream" not in response.headers.get("content-type", ""):
            yield self._object(b"".join(self._chunks(response, until, self.limits.max_bytes)), response)
            yield {DONE: True}
            return
        for line in _lines(self._chunks(response, until, max_bytes)):
            if not line.startswith(b"data:"):
                continue  # comments, event names and the empty lines between events
            data = line[5:].strip()
            if data == b"[DONE]":
                yield {DONE: True}
                return
            yield self._object(data, response)

    def _said(self, raw: bytes) -> str:
        """The server's own message, short, on one line and without the key; '' where it says nothing readable."""
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return ""
        for name in ("error", "message", "detail"):
            if isinstance(value, dict) and value.get(name):
                value = value[name]
        text = value if isinstance(value, str) else json.dumps(value)
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if self._key:
            text = text.replace(self._key, "***")
        return text[:200] + ("…" if len(text) > 200 else "")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines; a line that dribbles in byte by byte is joined once, not at every byte."""
    parts: list[bytes] = []
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield b"".join([*parts, line])
            parts = []
        parts.append(rest)
    yield b"".join(parts)


def _origin(response: httpx.Response) -> str:
    """Where a redirect points, without its path and query, which could carry secrets."""
    parts = urlsplit(response.headers.get("location", ""))
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another address on the same host"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of the header; None where there is none that can be read."""
    raw = response.headers.get("retry-after", "").strip()
    if raw.replace(".", "", 1).isdigit():
        return float(raw)
    try:
        at = parsedate_to_datetime(raw)
    except (TypeError, ValueError, IndexError):
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp())
