"""Signing in with Hugging Face, against a real OpenID provider on another port: who gets in, as what, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from oidc_server import CLIENT, SECRET, Provider, provider
from people_app import PASSWORD, PeopleApp, join, people_pages

from data import accounts, invitations


@pytest.fixture(scope="module")
def hub() -> Iterator[Provider]:
    with provider() as running:
        yield running


@pytest.fixture(scope="module")
def app(hub: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENID_PROVIDER_URL", hub.url)
        patch.setenv("OAUTH_CLIENT_ID", CLIENT)
        patch.setenv("OAUTH_CLIENT_SECRET", SECRET)
        patch.setenv("OAUTH_SCOPES", "openid profile")
        patch.setenv("STUDIO_ADMINS", "Ada, Grace")
        with people_pages(tmp_path_factory.mktemp("hf") / "workspace") as running:
            yield running


@pytest.fixture(autouse=True)
def _as_usual(hub: Provider) -> None:
    hub.faults = set()


def arrive(app: PeopleApp, hub: Provider, sub: str, name: str, query: str = "") -> tuple[httpx.Client, httpx.Response]:
    """A browser that goes to the provider and comes back; the last answer before the page it is sent on to."""
    hub.who = {"sub": sub, "preferred_username": name}
    client = httpx.Client(base_url=app.url, timeout=60)
    off = client.get(f"/sign-in/hf{query}")
    assert off.status_code == 302, off.text
    back = client.get(off.headers["location"])
    assert back.status_code == 302
    return client, client.get(back.headers["location"])


def test_a_name_on_the_list_is_an_admin(app: PeopleApp, hub: Provider) -> None:
    client, said = arrive(app, hub, "100", "ada", "?next=people")
    assert (said.status_code, said.headers["location"]) == (303, "../people") or said.headers["location"].endswith("people")
    page = client.get("/people")
    assert page.status_code == 200
    account = accounts.by_login(app.studio.db, "hf:100")
    assert account is not None
    assert account.password_hash == ""
    assert hub.redirects[-1] == f"{app.url}/sign-in/hf/callback"
    again, _ = arrive(app, hub, "100", "ada-has-a-new-name")
    assert again.get("/people").status_code == 200  # the same person, by the id that stays
    assert len([one for one in accounts.everybody(app.studio.db) if one.account.login.startswith("hf:")]) == 1


def test_a_stranger_is_told_whom_to_ask_and_is_not_stored(app: PeopleApp, hub: Provider) -> None:
    before = len(accounts.everybody(app.studio.db))
    client, said = arrive(app, hub, "200", "stranger")
    assert said.status_code == 403
    assert "not invited here yet" in said.text
    assert client.get("/label").status_code == 303
    assert len(accounts.everybody(app.studio.db)) == before


def test_an_invitation_lets_a_stranger_in_once(app: PeopleApp, hub: Provider) -> None:
    token = invitations.make(app.studio.db, "annotator", app.project.project_id, "")
    page = httpx.get(f"{app.url}/join/{token}")
    assert f"../sign-in/hf?invitation={token}" in page.text
    assert "password" not in page.text.lower()
    client, said = arrive(app, hub, "300", "newcomer", f"?invitation={token}")
    assert said.headers["location"].endswith("label")
    assert client.get("/label").status_code == 200
    assert client.get("/data").status_code == 403
    _, refused = arrive(app, hub, "301", "another", f"?invitation={token}")
    assert "no longer good" in refused.text
    second = invitations.make(app.studio.db, "annotator", app.other.project_id, "")
    again, _ = arrive(app, hub, "300", "newcomer", f"?invitation={second}")
    assert app.other.name in again.get("/account").text


def test_somebody_switched_off_stays_out(app: PeopleApp, hub: Provider) -> None:
    arrive(app, hub, "400", "grace")
    account = accounts.by_login(app.studio.db, "hf:400")
    assert account is not None
    accounts.disable(app.studio.db, account.annotator_id)
    client, said = arrive(app, hub, "400", "grace")
    assert "switched off" in said.text
    assert client.get("/label").status_code == 303


@pytest.mark.parametrize("fault", ["state", "nonce", "signature", "audience"])
def test_what_the_provider_did_not_say_is_not_believed(app: PeopleApp, hub: Provider, fault: str) -> None:
    hub.faults = {fault}
    client, said = arrive(app, hub, "100", "ada")
    assert said.status_code == 403
    assert "did not work" in said.text
    assert client.get("/label").status_code == 303


def test_an_answer_nobody_asked_for_or_a_second_time_is_refused(app: PeopleApp, hub: Provider) -> None:
    hub.who = {"sub": "100", "preferred_username": "ada"}
    client = httpx.Client(base_url=app.url, timeout=60)
    back = client.get(client.get("/sign-in/hf").headers["location"]).headers["location"]
    assert httpx.get(back).status_code == 403  # another browser
    assert client.get(back).status_code == 303
    assert client.get(back).status_code == 403
    assert httpx.get(f"{app.url}/sign-in/hf/callback").status_code == 403


def test_passwords_open_nothing_here(app: PeopleApp) -> None:
    join(app.studio, "with-password", "researcher")
    said = httpx.post(f"{app.url}/sign-in", data={"login": "with-password", "password": PASSWORD})
    assert said.status_code == 403
    assert "Sign in with Hugging Face" in httpx.get(f"{app.url}/sign-in").text


def test_a_provider_that_is_away_is_said_in_words(app: PeopleApp, hub: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENID_PROVIDER_URL", "http://127.0.0.1:9")
    from studio.hf_sign_in import HfSignIn

    away = HfSignIn.from_environment(app.studio, app.studio.sessions)  # type: ignore[arg-type]
    assert away is not None
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    said = TestClient(Starlette(routes=away.routes())).get("/sign-in/hf", follow_redirects=False)
    assert said.status_code == 503
    assert "cannot be reached" in said.text
