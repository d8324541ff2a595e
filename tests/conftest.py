"""Fixtures shared by all tests: a workspace of its own, a real database, a real browser and the app as a real process."""

from __future__ import annotations

import atexit
import gc
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# No test may depend on how busy the machine is.
hypothesis.settings.register_profile("studio", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("studio")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("STUDIO_WARM_START", "0")  # a test that wants one asks for it
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing is compiled; else bitsandbytes loads the compiler into each process
os.environ.pop("SPACE_ID", None)

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
SCREENSHOTS = ROOT / "tests" / "screenshots"
STORED = "local_storage,indexeddb,file_systems,service_workers,cache_storage"  # all would be the GPU's cache too, if that answers
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file of which no test is wanted is not even imported: torch and gradio take longer than the fast tests together."""
    left_out = re.findall(r"not (\w+)", config.option.markexpr)
    if collection_path.suffix != ".py" or not left_out:
        return None
    marked = re.search(r"^pytestmark = (\[[^\]]*\]|.*$)", collection_path.read_text(encoding="utf-8"), re.MULTILINE)
    return True if marked and any(re.search(rf"mark\.{mark}\b", marked[1]) for mark in left_out) else None


gc.disable()  # what is imported stays


def pytest_collection_finish() -> None:
    """The collector, which trainers call by hand, need not go through all of torch each time."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # pytest collects several times at its end


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    from data.settings import Settings

    return Settings(home=tmp_path / "workspace")


@pytest.fixture(scope="session")
def empty_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that was opened and closed once: its copy opens in half the time that making the tables takes."""
    from data.database import Database
    from data.settings import Settings

    home = tmp_path_factory.mktemp("empty") / "workspace"
    Database(Settings(home=home)).close()
    return home


@pytest.fixture
def db(settings: Any, empty_workspace: Path) -> Iterator[Any]:
    from data.database import Database

    if not settings.home.exists():
        shutil.copytree(empty_workspace, settings.home)
    database = Database(settings)
    yield database
    database.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not here")
    return SHARED_DATA


def browser_path() -> str | None:
    """The system's Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A Playwright browser over the system's Chromium: its shell without windows, where there is one, takes half the time."""
    path = shutil.which("chromium-headless-shell") or browser_path()
    if path is None:
        pytest.skip("no Chromium on PATH: `apt-get install chromium`, then run the browser tests again")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visitor(chromium: Any) -> Iterator[Any]:
    """A browser context with a page of its own; what a page once fetched is not fetched again, as in a person's browser."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    context.new_page()
    yield context
    context.close()


@pytest.fixture
def page(visitor: Any) -> Iterator[Any]:
    """A page in a browser that remembers nothing of the test before: no cookie, nothing stored, no permission."""
    stays = visitor.pages[0]
    seen: set[str] = set()

    def watch(opened: Any) -> None:
        opened.on("framenavigated", lambda frame: seen.add(frame.url))

    visitor.on("page", watch)
    yield visitor.new_page()
    visitor.remove_listener("page", watch)
    visitor.set_offline(False)
    visitor.clear_permissions()
    for opened in visitor.pages:
        if opened is not stays:
            opened.close()
    visitor.clear_cookies()
    client = visitor.new_cdp_session(stays)
    for origin in {"/".join(url.split("/")[:3]) for url in seen if url.startswith("http")}:
        client.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": STORED})
    client.detach()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Label page served from this process, once for all its tests; each opens a project of its own (`label_browser.Site`)."""
    from label_app import launch, studio_without_runs
    from label_browser import Site

    from data.database import Database
    from data.settings import Settings

    settings = Settings(home=tmp_path_factory.mktemp("label") / "workspace", port=free_port())
    db = Database(settings)
    studio = studio_without_runs(settings, db)
    demo = launch(studio)
    yield Site(f"http://127.0.0.1:{settings.port}", db, studio)
    demo.close()
    db.close()


class AppProcess:
    """The app in a process of its own, as a user starts it. `kill()` is SIGKILL; `start()` again: same workspace, same port."""

    def __init__(self, home: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.home = home
        self.flags = flags
        self.port = free_port()
        self.env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.log = self.home.parent / f"{self.home.name}-app.log"
        with self.log.open("ab") as out:
            before = out.tell()
            self.process = subprocess.Popen(
                [sys.executable, "app.py", "--home", str(self.home), "--port", str(self.port), *self.flags],
                cwd=ROOT,
                env=self.env,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            while b"Alignment Studio is on" not in self.log.read_bytes()[before:]:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the app ended: {self.log.read_text()[-3000:]}")
                time.sleep(0.1)
            urllib.request.urlopen(self.url).read()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


@pytest.fixture
def serve_app(tmp_path: Path) -> Iterator[Callable[..., AppProcess]]:
    """`serve_app("--visitor")` starts the app on a free port over a new workspace."""
    running: list[AppProcess] = []

    def start(*flags: str, home: Path | None = None, env: dict[str, str] | None = None) -> AppProcess:
        app = AppProcess(home or tmp_path / "served", *flags, env=env)
        running.append(app)
        return app

    yield start
    for app in running:
        app.stop()


# Below those that the system itself gives to outgoing connections: one of these would be given away before a server has it.
PORTS = iter(random.SystemRandom().sample(range(10_000, 32_768), 5_000))


def free_port() -> int:
    """A port of this machine that nobody has, and that is given to no other test."""
    for port in PORTS:
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")
