"""The app as a user starts it: what it refuses in one sentence, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import free_port

from app import check_address, parse
from data.errors import WorkspaceError
from data.settings import Settings

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent


def start(*flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the app until it ends by itself, which it only does when it refuses."""
    return subprocess.run(
        [sys.executable, "app.py", *flags], cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line it says; fails when there is a traceback or more than a line."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_network_address_is_refused_without_accounts(tmp_path: Path) -> None:
    said = refused(start("--host", "0.0.0.0", "--no-accounts", "--home", str(tmp_path / "w")))
    assert "Without accounts" in said
    assert "--visitor" in said
    assert not (tmp_path / "w").exists()


def test_a_network_address_means_that_people_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert parse(["--host", "0.0.0.0"]).accounts
    assert parse(["--host", "0.0.0.0", "--visitor"]).accounts is None
    assert parse([]).accounts is None  # decided by whether the workspace has accounts
    assert parse(["--accounts"]).accounts
    monkeypatch.setenv("STUDIO_ACCOUNTS", "1")
    assert parse([]).accounts


def test_visitors_have_no_accounts(tmp_path: Path) -> None:
    said = refused(start("--visitor", "--accounts", "--home", str(tmp_path / "w")))
    assert "either --visitor or --accounts" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_addresses_are_fine(host: str) -> None:
    check_address(Settings(home=Path("nowhere"), host=host, port=free_port()))


def test_a_visitor_app_may_be_open_to_the_network() -> None:
    check_address(Settings(home=Path("nowhere"), host="0.0.0.0", port=free_port(), visitor=True))


def test_a_space_is_a_visitor_app_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    settings = parse([])
    assert settings.visitor
    assert settings.host == "0.0.0.0"


def test_on_a_space_people_sign_in_where_its_owner_asks_for_it_and_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    monkeypatch.setenv("STUDIO_ACCOUNTS", "1")
    assert parse([]).visitor  # nobody could sign in
    monkeypatch.setenv("OAUTH_CLIENT_ID", "x")
    settings = parse([])
    assert (settings.visitor, settings.accounts) == (False, True)


def test_a_port_in_use_says_how_to_choose_another(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        said = refused(start("--port", str(s.getsockname()[1]), "--home", str(tmp_path / "w")))
    assert "--port" in said
    assert "in use" in said


@pytest.mark.parametrize("port", [0, 70_000, -1])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(WorkspaceError, match="no port"):
        check_address(Settings(home=Path("nowhere"), port=port))


def test_a_workspace_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("not a folder")
    assert "not a folder" in refused(start("--home", str(tmp_path / "w")))


def test_a_running_app_keeps_its_workspace_to_itself_and_ends_in_order(serve_app: Callable[..., Any]) -> None:
    """One start for three checks: a start takes seconds."""
    app = serve_app()
    for path in (app.home / "studio.duckdb", app.home / "journal", ROOT / "app.py", Path("/etc/passwd")):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{app.url}/gradio_api/file={path}")
        assert refusal.value.code in (403, 404)
    said = refused(start("--home", str(app.home), "--port", str(free_port())))
    assert "open in another app" in said
    assert "--home" in said
    assert urllib.request.urlopen(app.url).status == 200  # the first one is none the worse
    assert_ends_in_order(app, signal.SIGTERM)


def assert_ends_in_order(app: Any, sign: signal.Signals) -> None:
    app.process.send_signal(sign)
    assert app.process.wait() == 0
    assert "Traceback" not in app.log.read_text()
    assert not (app.home / "studio.duckdb.wal").exists()  # the database was closed, not cut off


ENDED_AT_EACH_LINE = """
import os, signal, sys, threading
from app import until_ended

for wanted in range(1, 13):
    wait, lines = until_ended(), []

    def interrupt(frame, event, _):
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == wanted:
                signal.raise_signal(signal.SIGTERM)
        return interrupt

    in_the_middle = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    in_the_middle.start()
    sys.settrace(interrupt)
    wait()
    sys.settrace(None)
    in_the_middle.join()
print("ended")
"""


def test_a_signal_that_comes_just_as_the_wait_begins_ends_it() -> None:
    """In whatever line of it; and one that comes later does."""
    done = subprocess.run([sys.executable, "-c", ENDED_AT_EACH_LINE], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "ended\n", done.stderr


@pytest.mark.browser  # no browser: but three starts
def test_the_first_admin_comes_in_through_the_link_on_the_terminal(serve_app: Callable[..., Any]) -> None:
    """One link a start while there is no admin; afterwards people sign in without being asked to by a flag, and stay signed in."""
    app = serve_app("--accounts")

    def link(number: int) -> str:
        """The link of the start with this number; it is printed once the pages can be reached."""
        while len(said := re.findall(r"/join/([\w-]+)", log := app.log.read_text())) < number:
            assert app.process.poll() is None, log
            assert "admins invite them" not in log, "an app that has an admin prints no link"
            time.sleep(0.05)
        return str(said[number - 1])

    first = link(1)
    assert_ends_in_order(app, signal.SIGINT)  # Ctrl-C, as whoever reads that terminal would
    app.flags = ("--accounts", "--public-name", "studio.example")
    app.start()
    second = link(2)
    assert second != first
    assert "https://studio.example/join/" in app.log.read_text()
    form = {"login": "ada", "password": "correct horse battery", "again": "correct horse battery"}
    assert httpx.post(f"{app.url}/join/{first}", data=form).status_code == 404
    behind_proxy = {"host": "studio.example", "x-forwarded-proto": "https"}
    joined = httpx.post(f"{app.url}/join/{second}", data=form, headers=behind_proxy)
    assert joined.status_code == 303
    assert "Secure" in joined.headers["set-cookie"]
    assert httpx.get(app.url, headers={"host": "rebound.example"}).status_code == 421
    app.kill()
    app.flags = ()
    app.start()
    assert app.log.read_text().count("/join/") == 2
    cookie = joined.headers["set-cookie"].split(";")[0]
    assert httpx.get(app.url).status_code == 303
    assert httpx.get(app.url, headers={"cookie": cookie}).status_code == 200
