"""The middleware: headers on everything, no foreign pages, no foreign names for this machine, an identity from the first on."""

from __future__ import annotations

import html
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from data.settings import Settings
from studio.context import VISITOR_COOKIE, VISITOR_TOKEN
from studio.proxy import ProxyMiddleware
from studio.security import CONTENT_SECURITY_POLICY, UNUSED, UPLOADS_AN_HOUR, SecurityMiddleware

JSON = {"content-type": "application/json"}


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"cookies": request.cookies, "method": request.method})


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(iter([b"one", b"two"]), media_type="text/event-stream")


def client(tmp_path: Path, base: str = "http://127.0.0.1:7860", peer: str = "127.0.0.1", **settings: Any) -> TestClient:
    routes = [
        Route("/", echo, methods=["GET", "POST"]),
        Route("/api/label", echo, methods=["GET", "POST"]),
        Route("/gradio_api/upload", echo, methods=["POST"]),
        Route("/gradio_api/upload/", echo, methods=["POST"]),
        Route("/stream", stream),
    ]
    chosen = Settings(home=tmp_path, **settings)
    proxy = Middleware(ProxyMiddleware, proxies=chosen.proxies)
    app = Starlette(routes=routes, middleware=[proxy, Middleware(SecurityMiddleware, settings=chosen)])
    return TestClient(app, base_url=base, client=(peer, 50000))


# --- headers ---


@pytest.mark.parametrize("path", ["/", "/api/label", "/stream", "/no-such-page"])
def test_every_answer_carries_the_policy(tmp_path: Path, path: str) -> None:
    headers = client(tmp_path).get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "set-cookie" not in headers


def test_a_refusal_carries_it_too(tmp_path: Path) -> None:
    response = client(tmp_path).post("/", headers={"origin": "https://evil.example"})
    assert response.status_code == 403
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "another web site" in response.json()["error"]


def test_the_policy_lets_nothing_out() -> None:
    rules = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))
    for name in ("default-src", "connect-src", "img-src", "font-src", "style-src", "script-src", "form-action", "base-uri"):
        assert "http" not in rules[name]
        assert "*" not in rules[name]
    assert rules["object-src"] == "'none'"


# --- where a request comes from ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:7861"}, 403),  # another app on this machine
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:7860.evil.example"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/api/label", "/gradio_api/upload", "/"])
def test_only_our_own_pages_may_change_something(tmp_path: Path, path: str, headers: dict[str, str], status: int) -> None:
    assert client(tmp_path).post(path, headers=JSON | headers, content="[]").status_code == status


def test_reading_is_not_checked_for_its_origin(tmp_path: Path) -> None:
    assert client(tmp_path).get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_our_routes_take_only_json(tmp_path: Path, kind: str) -> None:
    response = client(tmp_path).post("/api/label", headers={"content-type": kind}, content="[]")
    assert response.status_code == 415
    assert client(tmp_path).post("/gradio_api/upload", headers={"content-type": kind}, content="x").status_code == 200


def test_behind_a_proxy_that_changes_the_host(tmp_path: Path) -> None:
    behind = client(tmp_path, base="http://10.1.2.3:7860", host="0.0.0.0", visitor=True)
    headers = JSON | {
        "origin": "https://me-studio.hf.space",
        "x-forwarded-host": "me-studio.hf.space",
        "x-forwarded-proto": "https",
    }
    assert behind.post("/api/label", headers=headers, content="[]").status_code == 200


# --- names for this machine ---


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost:7860", 200),
        ("LOCALHOST", 200),
        ("app.localhost:7860", 200),
        ("[::1]:7860", 200),
        ("evil.example:7860", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:7860", 421),
        ("192.168.1.5:7860", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_a_loopback_app_answers_to_loopback_names_only(tmp_path: Path, host: str, status: int) -> None:
    assert client(tmp_path).get("/", headers={"host": host}).status_code == status


def test_an_app_on_another_address_answers_to_any_name(tmp_path: Path) -> None:
    assert client(tmp_path, host="0.0.0.0", visitor=True).get("/", headers={"host": "me.hf.space"}).status_code == 200


# --- visitors ---


def test_a_browser_is_somebody_once_its_cookie_comes_back(tmp_path: Path) -> None:
    browser = client(tmp_path, visitor=True)
    first = browser.get("/", headers={"cookie": "other=1"})
    assert first.json()["cookies"] == {"other": "1"}
    cookie = first.headers["set-cookie"]
    token = cookie.removeprefix(f"{VISITOR_COOKIE}=").split(";")[0]
    assert VISITOR_TOKEN.fullmatch(token)
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    again = browser.get("/")
    assert again.json()["cookies"][VISITOR_COOKIE] == token
    assert "set-cookie" not in again.headers


def test_two_browsers_are_two_visitors(tmp_path: Path) -> None:
    tokens = {client(tmp_path, visitor=True).get("/").cookies[VISITOR_COOKIE] for _ in range(20)}
    assert len(tokens) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)


def test_over_https_the_cookie_works_in_a_frame(tmp_path: Path) -> None:
    browser = client(tmp_path, base="http://me.hf.space", host="0.0.0.0", visitor=True)
    cookie = browser.get("/", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    assert "SameSite=None; Secure; Partitioned" in cookie


@pytest.mark.parametrize(
    ("peer", "base", "said", "secure"),
    [
        ("203.0.113.9", "http://me.example", ["https"], False),  # made up by the browser's owner: no proxy of ours
        ("203.0.113.9", "https://me.example", ["http"], True),
        ("127.0.0.1", "http://me.example", ["https, http"], False),  # the proxy was asked over http, whatever came with the request
        ("127.0.0.1", "http://me.example", ["https", "http"], False),
        ("127.0.0.1", "http://me.example", ["http, https"], True),
        ("127.0.0.1", "http://me.example", ["https, gopher"], False),
        ("127.0.0.1", "http://me.example", [], False),
    ],
)
def test_https_is_what_the_proxy_says_and_nobody_else(tmp_path: Path, peer: str, base: str, said: list[str], secure: bool) -> None:
    browser = client(tmp_path, base=base, peer=peer, host="0.0.0.0", visitor=True)
    cookie = browser.get("/", headers=[("x-forwarded-proto", entry) for entry in said]).headers["set-cookie"]
    assert ("Secure" in cookie) is secure
    assert ("SameSite=Lax" in cookie) is not secure


@pytest.mark.parametrize("bad", ["", "short", "Z" * 32, "g" * 33 + "; drop", "'; select 1", "0" * 200])
def test_a_made_up_cookie_is_replaced(tmp_path: Path, bad: str) -> None:
    response = client(tmp_path, visitor=True).get("/", headers={"cookie": f"a=b; {VISITOR_COOKIE}={bad}"})
    assert VISITOR_TOKEN.fullmatch(response.cookies[VISITOR_COOKIE])
    assert not VISITOR_TOKEN.fullmatch(response.json()["cookies"].get(VISITOR_COOKIE, ""))
    assert response.json()["cookies"]["a"] == "b"


def test_an_answer_that_sets_the_cookie_is_not_cached(tmp_path: Path) -> None:
    assert client(tmp_path, visitor=True).get("/").headers["cache-control"] == "no-store"


def test_in_local_mode_there_is_no_cookie(tmp_path: Path) -> None:
    response = client(tmp_path).get("/")
    assert response.json()["cookies"] == {}
    assert "set-cookie" not in response.headers


MB = 1024 * 1024
COOKIE = {"cookie": f"{VISITOR_COOKIE}={'a' * 32}"}


@pytest.mark.parametrize(
    ("path", "visitor", "size", "status"),
    [
        ("/x", True, MB + 1, 413),
        ("/x", False, MB + 1, 404),
        ("/gradio_api/upload", True, MB + 1000, 200),  # a file of the size that is allowed, and the form around it
        ("/gradio_api/upload", True, 2 * MB, 413),  # Gradio looks at each file by itself: a form may hold a thousand
        ("/gradio_api/upload/", True, 2 * MB, 413),
        ("/gradio_api/upload", False, 2 * MB, 200),
    ],
)
def test_a_visitor_sends_no_huge_form(tmp_path: Path, path: str, visitor: bool, size: int, status: int) -> None:
    answer = client(tmp_path, visitor=visitor).post(path, content=b"x" * size, headers=COOKIE)
    assert answer.status_code == status


def test_a_visitor_uploads_some_files_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, other = client(tmp_path, visitor=True), {"cookie": f"{VISITOR_COOKIE}={'b' * 32}"}
    said = [app.post("/gradio_api/upload", content=b"x", headers=COOKIE) for _ in range(UPLOADS_AN_HOUR + 1)]
    assert [one.status_code for one in said] == [200] * UPLOADS_AN_HOUR + [429]
    assert f"at most {UPLOADS_AN_HOUR} files an hour" in said[-1].json()["error"]
    assert app.post("/gradio_api/upload", content=b"x", headers=other).status_code == 200
    in_an_hour = time.monotonic() + 3600
    monkeypatch.setattr("studio.pace.time", SimpleNamespace(monotonic=lambda: in_an_hour))
    assert app.post("/gradio_api/upload", content=b"x", headers=COOKIE).status_code == 200


def test_made_up_cookies_do_not_upload_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.security.ALL_UPLOADS_AN_HOUR", 30)
    app = client(tmp_path, visitor=True)
    status = [
        app.post("/gradio_api/upload", content=b"x", headers={"cookie": f"{VISITOR_COOKIE}={n:032x}"}).status_code
        for n in range(40)
    ]
    assert status == [200] * 30 + [429] * 10


def test_what_keeps_no_cookie_uploads_nothing(tmp_path: Path) -> None:
    answer = client(tmp_path, visitor=True).post("/gradio_api/upload", content=b"x")
    assert answer.status_code == 403
    assert "keeps no cookie" in answer.json()["error"]
    assert client(tmp_path).post("/gradio_api/upload", content=b"x").status_code == 200


@pytest.mark.parametrize("path", UNUSED)
def test_what_of_gradio_is_not_used_is_not_there(tmp_path: Path, path: str) -> None:
    for method in ("GET", "POST"):
        assert client(tmp_path).request(method, f"{path}/x").status_code == 404


# --- in words ---


@pytest.mark.parametrize("path", ["/", "/api/label"])
def test_a_person_gets_a_page_and_a_program_gets_json(tmp_path: Path, path: str) -> None:
    foreign = {"host": "evil.example"}
    page = client(tmp_path).get(path, headers=foreign | {"accept": "text/html,*/*;q=0.8"})
    said = client(tmp_path).get(path, headers=foreign)
    assert page.status_code == said.status_code == 421
    assert said.json()["error"].startswith("This app answers only on")
    if path == "/":
        assert page.headers["content-type"].startswith("text/html")
        assert said.json()["error"] in html.unescape(page.text)
        assert 'href="/"' in page.text
    else:
        assert page.json() == said.json()
