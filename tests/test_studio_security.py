"""The middleware: headers on everything, no foreign pages, no foreign names for this machine, an identity from the first on."""

from __future__ import annotations

import re
from pathlib import Path
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
from studio.security import CONTENT_SECURITY_POLICY, SecurityMiddleware

JSON = {"content-type": "application/json"}


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"cookies": request.cookies, "method": request.method})


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(iter([b"one", b"two"]), media_type="text/event-stream")


def client(tmp_path: Path, base: str = "http://127.0.0.1:7860", **settings: Any) -> TestClient:
    routes = [
        Route("/", echo, methods=["GET", "POST"]),
        Route("/api/label", echo, methods=["GET", "POST"]),
        Route("/gradio_api/upload", echo, methods=["POST"]),
        Route("/stream", stream),
    ]
    chosen = Settings(home=tmp_path, **settings)
    app = Starlette(routes=routes, middleware=[Middleware(SecurityMiddleware, settings=chosen)])
    return TestClient(app, base_url=base)


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


def test_the_very_first_request_has_an_identity(tmp_path: Path) -> None:
    browser = client(tmp_path, visitor=True)
    first = browser.get("/", headers={"cookie": "other=1"})
    token = first.json()["cookies"][VISITOR_COOKIE]
    assert VISITOR_TOKEN.fullmatch(token)
    assert first.json()["cookies"]["other"] == "1"
    cookie = first.headers["set-cookie"]
    assert cookie.startswith(f"{VISITOR_COOKIE}={token}; ")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    again = browser.get("/")
    assert again.json()["cookies"][VISITOR_COOKIE] == token
    assert "set-cookie" not in again.headers


def test_two_browsers_are_two_visitors(tmp_path: Path) -> None:
    tokens = {client(tmp_path, visitor=True).get("/").json()["cookies"][VISITOR_COOKIE] for _ in range(20)}
    assert len(tokens) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)


def test_over_https_the_cookie_works_in_a_frame(tmp_path: Path) -> None:
    browser = client(tmp_path, base="http://me.hf.space", host="0.0.0.0", visitor=True)
    cookie = browser.get("/", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    assert "SameSite=None; Secure; Partitioned" in cookie


@pytest.mark.parametrize("bad", ["", "short", "Z" * 32, "g" * 33 + "; drop", "'; select 1", "0" * 200])
def test_a_made_up_cookie_is_replaced(tmp_path: Path, bad: str) -> None:
    response = client(tmp_path, visitor=True).get("/", headers={"cookie": f"a=b; {VISITOR_COOKIE}={bad}"})
    token = response.json()["cookies"][VISITOR_COOKIE]
    assert VISITOR_TOKEN.fullmatch(token)
    assert "set-cookie" in response.headers
    assert response.json()["cookies"]["a"] == "b"


def test_an_answer_that_sets_the_cookie_is_not_cached(tmp_path: Path) -> None:
    assert client(tmp_path, visitor=True).get("/").headers["cache-control"] == "no-store"


def test_in_local_mode_there_is_no_cookie(tmp_path: Path) -> None:
    response = client(tmp_path).get("/")
    assert response.json()["cookies"] == {}
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(("path", "visitor", "status"), [("/x", True, 413), ("/x", False, 404), ("/gradio_api/upload", True, 200)])
def test_a_visitor_sends_no_huge_form(tmp_path: Path, path: str, visitor: bool, status: int) -> None:
    answer = client(tmp_path, visitor=visitor).post(path, content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == status
