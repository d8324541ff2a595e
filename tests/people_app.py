"""A studio where people sign in, for tests: the whole app on a real port of this process, its database at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from conftest import free_port
from labelling import seed_project

from data import accounts, invitations
from data.records import Account, Project, Role
from data.settings import Settings
from studio.context import Studio, open_studio
from studio.ui import build_ui, launch_options

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class PeopleApp:
    """`people`: the accounts by login."""

    url: str
    studio: Studio
    demo: Any
    routes: list[Any]
    project: Project
    other: Project
    people: dict[str, Account]

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
def people_app(home: Path, **settings: Any) -> Iterator[PeopleApp]:
    """ada is admin, rita researcher, ann and ben label one project, cleo another one."""
    with pytest.MonkeyPatch.context() as patch, open_studio(Settings(home, port=free_port(), accounts=True, **settings)) as studio:
        patch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=512, parallelism=1))
        accounts._nobody.cache_clear()
        project, other = seed_project(studio.db), seed_project(studio.db, name="Another project")
        people = {"ada": join(studio, "ada", "admin"), "rita": join(studio, "rita", "researcher")}
        for login, where in (("ann", project), ("ben", project), ("cleo", other)):
            people[login] = join(studio, login, "annotator", where.project_id)
        demo = build_ui(studio)
        app, _, _ = demo.launch(**launch_options(studio))
        try:
            yield PeopleApp(f"http://127.0.0.1:{studio.settings.port}", studio, demo, list(app.routes), project, other, people)
        finally:
            demo.close(verbose=False)
