"""A studio where people sign in, for tests: on a real port of this process, its database at hand.

`people_app` is the whole app; `people_pages` only our own routes and middleware, which starts in no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from asgi_server import bound, port_of, serving
from conftest import free_port
from label_app import studio_without_runs
from labelling import seed_project
from starlette.applications import Starlette
from starlette.middleware import Middleware

from data import accounts, invitations
from data.database import Database
from data.records import Account, Project, Role
from data.settings import Settings
from studio import api, auth
from studio.context import Studio, open_studio
from studio.security import SecurityMiddleware
from studio.ui import build_ui, launch_options, people_routes

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class PeopleApp:
    """`people`: the accounts by login; `demo`: Gradio's part, None where it is not served."""

    url: str
    studio: Studio
    project: Project
    other: Project
    people: dict[str, Account]
    demo: Any = None
    routes: tuple[Any, ...] = ()

    def client(self, login: str = "") -> httpx.Client:
        """A browser's worth of cookies; signed in as `login`, with the real form."""
        cookies = httpx.Cookies()
        if login:
            said = httpx.post(f"{self.url}/sign-in", data={"login": login, "password": PASSWORD}, timeout=60)
            assert said.status_code == 303, said.text
            cookies = said.cookies
        return httpx.Client(base_url=self.url, timeout=60, cookies=cookies)


def join(studio: Studio, login: str, role: Role, project_id: str = "") -> Account:
    return invitations.accept(studio.db, invitations.make(studio.db, role, project_id, "test"), login, PASSWORD)


@contextmanager
def people_app(home: Path) -> Iterator[PeopleApp]:
    """ada is admin, rita researcher, ann and ben label one project, cleo another one."""
    with cheap_hashes(), open_studio(Settings(home, port=free_port(), accounts=True)) as studio:
        seeded = _seed(studio)
        demo = build_ui(studio)
        app, _, _ = demo.launch(**launch_options(studio))
        try:
            yield PeopleApp(f"http://127.0.0.1:{studio.settings.port}", studio, *seeded, demo, tuple(app.routes))
        finally:
            demo.close(verbose=False)


@contextmanager
def people_pages(home: Path) -> Iterator[PeopleApp]:
    """The same people; nothing of Gradio's is there."""
    held = bound()
    settings = Settings(home, port=port_of(held), accounts=True)
    db = Database(settings)
    studio = studio_without_runs(settings, db)
    guards = [Middleware(SecurityMiddleware, settings=settings), *auth.middleware(studio)]
    app = Starlette(routes=[*api.routes(studio), *people_routes(studio)], middleware=guards)
    try:
        with cheap_hashes():
            seeded = _seed(studio)
            with serving(app, held):
                yield PeopleApp(f"http://127.0.0.1:{settings.port}", studio, *seeded)
    finally:
        db.close()


@contextmanager
def cheap_hashes() -> Iterator[None]:
    """The same hash at a hundredth of the cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=512, parallelism=1))
        accounts._nobody.cache_clear()
        yield
    accounts._nobody.cache_clear()


def _seed(studio: Studio) -> tuple[Project, Project, dict[str, Account]]:
    project, other = seed_project(studio.db), seed_project(studio.db, name="Another project")
    people = {"ada": join(studio, "ada", "admin"), "rita": join(studio, "rita", "researcher")}
    for login, where in (("ann", project), ("ben", project), ("cleo", other)):
        people[login] = join(studio, login, "annotator", where.project_id)
    return project, other, people
