"""Behind a reverse proxy: the last entry of X-Forwarded-For of a proxy that is named, and nothing that came with the request."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from data.settings import Settings, read_settings
from studio import ui
from studio.proxy import ProxyMiddleware

pytestmark = pytest.mark.app
HERE = Settings.proxies


def seen(peer: str, proxies: frozenset[str], *more: tuple[str, str], **headers: str) -> list[str]:
    """Client and scheme of a request from `peer`, as the app has them. `more`: headers that come several times."""

    def told(request: Request) -> JSONResponse:
        return JSONResponse([request.client.host if request.client else "", request.url.scheme])

    app = Starlette(routes=[Route("/", told)], middleware=[Middleware(ProxyMiddleware, proxies=proxies)])
    said: list[str] = (
        TestClient(app, client=(peer, 50000))
        .get("/", headers=[*more, *((name.replace("_", "-"), value) for name, value in headers.items())])
        .json()
    )
    return said


@pytest.mark.parametrize(
    ("peer", "proxies", "forwarded", "client"),
    [
        ("127.0.0.1", HERE, "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", HERE, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", HERE, "198.51.100.1, 127.0.0.1", "127.0.0.1"),  # by its own word the proxy was asked from here
        ("::1", HERE, "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", HERE, "203.0.113.9:4711", "203.0.113.9"),
        ("127.0.0.1", HERE, "203.0.113.9, nonsense", "127.0.0.1"),
        ("127.0.0.1", HERE, "", "127.0.0.1"),
        ("203.0.113.9", HERE, "198.51.100.1", "203.0.113.9"),
        ("203.0.113.9", HERE, "203.0.113.9, 198.51.100.1", "203.0.113.9"),
        ("10.0.3.7", frozenset({"10.0.0.0/8"}), "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.3.7", frozenset({"*"}), "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (
            "10.0.3.7",
            frozenset({"*"}),
            "1.1.1.1, 8.8.8.8, 10.0.9.2, 100.64.0.3",
            "8.8.8.8",
        ),  # through proxies in a row, as on a Space
        ("10.0.3.7", frozenset({"*"}), "8.8.8.8, nonsense", "8.8.8.8"),
        ("10.0.3.7", frozenset({"10.0.0.0/8"}), "8.8.8.8, 10.0.9.2", "10.0.9.2"),
        ("::ffff:10.0.3.7", frozenset({"10.0.0.0/8"}), "203.0.113.9", "203.0.113.9"),  # a server for IPv4 and IPv6 writes it so
        ("::ffff:127.0.0.1", HERE, "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", HERE, "198.51.100.1", "203.0.113.9"),
    ],
)
def test_only_what_a_named_proxy_appended_is_believed(peer: str, proxies: frozenset[str], forwarded: str, client: str) -> None:
    assert seen(peer, proxies, x_forwarded_for=forwarded)[0] == client


def test_https_is_what_a_named_proxy_says() -> None:
    assert seen("127.0.0.1", HERE, x_forwarded_proto="https") == ["127.0.0.1", "https"]
    assert seen("127.0.0.1", HERE, x_forwarded_proto="gopher") == ["127.0.0.1", "http"]
    assert seen("203.0.113.9", HERE, x_forwarded_proto="https") == ["203.0.113.9", "http"]
    assert seen("127.0.0.1", HERE, x_forwarded_proto="https,http")[1] == "http"
    assert seen("127.0.0.1", HERE, x_forwarded_proto="http, https")[1] == "https"
    assert seen("10.0.3.7", frozenset({"*"}), x_forwarded_proto="https,http")[1] == "https", "the page in a Space's frame"
    assert seen("10.0.3.7", frozenset({"*"}), x_forwarded_proto="http")[1] == "http"


def test_two_headers_are_one_list() -> None:
    """What came with the request and what the proxy added may stand in a header each."""
    two = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.9")]
    assert seen("127.0.0.1", HERE, *two) == ["203.0.113.9", "http"]


def test_the_server_beneath_believes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the first entry of all where whoever asks is a proxy."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    monkeypatch.setattr(ui, "people_routes", lambda _: [])
    settings = read_settings(home=str(tmp_path))
    assert settings.proxies == {"*"}
    studio: Any = SimpleNamespace(settings=settings, sessions=None)
    for module in ("api", "offers", "run_files"):
        monkeypatch.setattr(getattr(ui, module), "routes", lambda _: [])
    first = ui.launch_options(studio)["app_kwargs"]["middleware"][0]
    assert (first.cls, first.kwargs) == (ProxyMiddleware, {"proxies": {"*"}})
    assert uvicorn.Config(lambda *_: None).forwarded_allow_ips == os.environ["FORWARDED_ALLOW_IPS"] == ""
    assert read_settings(home=str(tmp_path)).proxies == HERE, "and an app that is started after it has the usual ones"
    monkeypatch.setenv("SPACE_ID", "owner/name")
    assert read_settings(home=str(tmp_path)).proxies == {"*"}, "nothing but its proxy reaches a Space"
