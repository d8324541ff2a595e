"""Who reaches which address: every route, event and file of the running app, by role, over real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from itsdangerous import URLSafeSerializer
from labelling import MODEL_NAME, RUN_ID
from people_app import PASSWORD, PeopleApp, people_app

from data import accounts, invitations, members, secret_key
from studio import sign_in
from studio.auth import AuthMiddleware
from studio.label_page.assets import PREFIX
from studio.plain import page as plain_page
from studio.sessions import Sessions

pytestmark = pytest.mark.app

# Written out again, so that a longer list in the code is a failure here.
OPEN = frozenset({"/sign-in", "/theme.css", "/gradio_api/startup-events"})
OPEN_BELOW = ("/assets/studio/", "/join/", "/new-password/", "/sign-in/")
ANNOTATOR = frozenset({"/label", "/sign-out", "/account", "/api/label"})
ANNOTATOR_BELOW = ("/api/label/", "/assets/label/", "/account/")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with people_app(tmp_path_factory.mktemp("auth") / "workspace") as running:
        yield running


@pytest.fixture
def ann(app: PeopleApp) -> Iterator[httpx.Client]:
    with app.client("ann") as client:
        yield client


def paths_of(routes: list[Any], base: str = "") -> set[str]:
    """Every address the app answers, its parameters filled in."""
    found: set[str] = set()
    for route in routes:
        path = base + str(getattr(route, "path", ""))
        found.add(re.sub(r"\{[^}]+\}", "x", path) or "/")
        inside = getattr(route, "original_router", route)  # a router that FastAPI has included; its routes have their whole path
        found |= paths_of(getattr(inside, "routes", None) or [], path)
    return found


def is_on_a_list(path: str) -> bool:
    return path in OPEN | ANNOTATOR or path.startswith(OPEN_BELOW + ANNOTATOR_BELOW)


def raw(app: PeopleApp, path: str, cookie: str, method: str = "GET") -> int:
    """The status of a request whose address is sent exactly as it is written here."""
    connection = http.client.HTTPConnection(app.url.removeprefix("http://"), timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("cookie", cookie)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def cookie_of(client: httpx.Client) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


def before(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, act: Callable[[], object]) -> None:
    """Somebody else does `act` while a request waits for what `name` is to bring."""
    whole = getattr(place, name)

    async def meanwhile(request: Any) -> Any:
        act()
        return await whole(request)

    monkeypatch.setattr(place, name, meanwhile)


# --- the allow-list ---


def test_an_annotator_gets_403_from_every_route_that_is_not_on_the_list(app: PeopleApp, ann: httpx.Client) -> None:
    paths = paths_of(app.routes)
    assert {
        "/",
        "/config",
        "/gradio_api/queue/join",
        "/gradio_api/upload",
        "/data",
        "/people",
        "/again",
        "/gradio_api/run/x",
    } <= paths
    assert {"/runs-compare", "/charts/x.csv", "/charts/x.svg"} <= paths
    assert len(paths) > 60
    passed = []
    for path in sorted(paths - {p for p in paths if is_on_a_list(p)}):
        for method in METHODS:
            said = ann.request(method, path, headers={"content-type": "application/json"})  # what is none is refused before
            if said.status_code != 403:
                passed.append((method, path, said.status_code))
    # addresses that nobody has, Gradio's own extras, are refused before it is asked who wants them
    assert [found for found in passed if found[2] != 404] == []
    with app.client("ada") as ada:
        assert {ada.request(method, path).status_code for method, path, _ in passed} <= {404}


def test_an_annotator_starts_no_event_of_any_page(app: PeopleApp, ann: httpx.Client) -> None:
    before = app.studio.db.rows("select * from projects order by project_id")
    assert len(app.demo.fns) > 50
    for index, fn in app.demo.fns.items():
        event = {"fn_index": index, "data": [None] * len(fn.inputs), "session_hash": "x"}
        assert ann.post("/gradio_api/queue/join", json=event).status_code == 403
        for name in {fn.api_name, str(index), "predict"}:
            for how in ("run", "api"):
                assert ann.post(f"/gradio_api/{how}/{name}", json=event).status_code == 403
    assert ann.get("/gradio_api/queue/data", params={"session_hash": "x"}).status_code == 403
    assert app.studio.db.rows("select * from projects order by project_id") == before


def test_an_annotator_reaches_no_file_and_leaves_none(app: PeopleApp, ann: httpx.Client) -> None:
    home = app.studio.settings.home
    for path in (home / "studio.duckdb", home / "secret.key", home / "journal" / "0001.jsonl", "/etc/passwd", "app.py"):
        assert ann.get(f"/gradio_api/file={path}").status_code == 403
        assert ann.get(f"/gradio_api/file/{path}").status_code == 403
    assert ann.post("/gradio_api/upload", files={"files": ("a.txt", b"x")}).status_code == 403
    for path in ("/config", "/config/", "/gradio_api/info", "/gradio_api/app_id", "/static/img/logo.svg", "/download/x", "/logout"):
        assert ann.get(path).status_code == 403
    assert ann.post("/login", data={"username": "x", "password": "y"}).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "//config", "/config/", "/./config", "/label/../config", "/label/%2e%2e/config", "/%63onfig", "/label/", "/LABEL",
        "/label%2f..%2fconfig", "/gradio_api/startup-events/../info", "/api/label/../../config", "/api/labels", "/account/../data",
        "/label;x", "/theme.css/../config", "/assets/label/../../config", "/label?/../config", "/?page=label", "/data%00",
    ],
)  # fmt: skip
def test_another_spelling_gets_an_annotator_no_further(app: PeopleApp, ann: httpx.Client, path: str) -> None:
    status = raw(app, path, cookie_of(ann))
    assert status in ((200,) if path.startswith("/label?") else (400, 403, 404)), status
    if status == 404:  # below an address of the list, where nothing is
        assert raw(app, path, cookie_of(app.client("ada"))) == 404


@pytest.mark.parametrize(
    "begins", ["/assets/studio/x", "/assets/label/x", "/join", "/sign-in", "/new-password", "/theme.css", "/account"]
)
@pytest.mark.parametrize(
    "climbs", ["/../config", "/..%2fconfig", "/%2e%2e/config", "//config", "/./../config", "/..\\config", "/x/../../config"]
)
def test_no_open_address_is_a_way_up(app: PeopleApp, ann: httpx.Client, begins: str, climbs: str) -> None:
    """Whatever would follow such a path further in is not asked."""
    assert raw(app, begins + climbs, "") in (303, 400, 401, 404)
    assert raw(app, begins + climbs, cookie_of(ann)) in (400, 403, 404)


def test_an_annotators_pages_work_and_tell_of_nothing_else(app: PeopleApp, ann: httpx.Client) -> None:
    label = ann.get("/label")
    assert label.status_code == 200
    assert f"{PREFIX}/label.js" in label.text
    assert ann.get(f"/{PREFIX}/label.js").status_code == 200
    for page in (label, ann.get("/account"), ann.get("/data"), app.client().get("/sign-in")):
        for word in ("gradio_config", MODEL_NAME, RUN_ID, "Another project", "rita", "demo-model"):
            assert word not in page.text, (page.url, word)
        assert re.findall(r"<script(?![^>]* src=)", page.text) == []
        assert "unsafe-eval" not in page.headers["content-security-policy"]
    for asset in re.findall(r'(?:href|src)="\./([^"]+\.(?:css|js|svg))"', label.text):
        assert ann.get(f"/{asset}").status_code == 200, asset
    assert ann.get("/api/label/batch?n=3").status_code == 200
    refused = ann.get("/data", headers={"accept": "text/html"})
    assert refused.status_code == 403
    assert "Go to the Label page" in refused.text


def test_whoever_is_not_signed_in_gets_the_sign_in_page_or_401(app: PeopleApp) -> None:
    with app.client() as nobody:
        for path in sorted(p for p in paths_of(app.routes) if p not in OPEN and not p.startswith(OPEN_BELOW)):
            got = nobody.get(path)
            assert got.status_code in (303, 401, 404), path
            assert got.status_code != 303 or got.headers["location"].lstrip("./").startswith("sign-in"), path
            assert nobody.post(path, json={}).status_code in (401, 404, 415), path
        assert nobody.get("/data?tab=import").headers["location"] == "./sign-in?next=data%3Ftab%3Dimport"
        assert nobody.get("/api/label/batch").status_code == 401
        assert "sign-in" in nobody.get("/api/label/batch").json()["error"]
        for index in app.demo.fns:
            said = nobody.post("/gradio_api/queue/join", json={"fn_index": index, "data": [], "session_hash": "x"})
            assert said.status_code == 401


@pytest.mark.parametrize(("login", "passes"), [("", False), ("ann", False), ("rita", True)])
def test_a_web_socket_is_for_researchers_alone(app: PeopleApp, login: str, passes: bool) -> None:
    """The middleware alone: neither Gradio nor the server it comes with has any today."""
    reached, said = [], []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    with app.client(login) as client:
        headers = [(b"cookie", cookie_of(client).encode())]
    with ThreadPoolExecutor(1) as thread:  # a browser that other tests keep open has a loop going in this one
        for path in ("/gradio_api/stream/x", "/label/x"):
            scope = {"type": "websocket", "path": path, "headers": headers, "query_string": b""}
            thread.submit(asyncio.run, AuthMiddleware(inside, app.studio.sessions)(scope, receive, send)).result()
    assert (len(reached), said) == ((2, []) if passes else (0, ["websocket.close"] * 2))


# --- researchers and admins ---


def test_a_researcher_reaches_everything_but_the_people(app: PeopleApp) -> None:
    with app.client("rita") as rita:
        for path in ("/", "/data", "/models", "/label", "/train", "/runs", "/compare", "/config", "/people", "/account"):
            assert rita.get(path).status_code == 200, path
        assert "gradio_config" in rita.get("/label").text
        for what in ("role", "add", "remove", "disable", "enable", "password"):
            said = rita.post(f"/people/admin/{what}", data={"person": app.people["rita"].annotator_id, "role": "admin"})
            assert said.status_code == 403, what
        page = rita.get("/people").text
        assert not re.search(r"\bada\b", page)  # within an id it is chance
        assert "Switch off" not in page
        made = rita.post("/people/invite", data={"role": "admin", "project": app.project.project_id})
        assert "Researchers invite annotators" in made.text
        made = rita.post("/people/invite", data={"role": "annotator", "project": app.project.project_id})
        token = re.findall(r"/join/([\w-]+)", made.text)[0]
        assert invitations.find(app.studio.db, token).role == "annotator"


def test_a_backup_is_an_admins(app: PeopleApp) -> None:
    """The event itself, as Gradio's queue runs it for whoever asks."""
    [index] = [i for i, fn in app.demo.fns.items() if getattr(fn.fn, "__name__", "") == "back_up"]
    said = {}
    for login in ("rita", "ada"):
        with app.client(login) as client:
            session = uuid.uuid4().hex
            event = {"fn_index": index, "data": [], "session_hash": session, "event_data": None}
            assert client.post("/gradio_api/queue/join", json=event).status_code == 200
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
                said[login] = "".join(stream.iter_text())
        made = list(app.studio.settings.export_dir.glob("alignment-studio-*.zip"))
        assert len(made) == (1 if login == "ada" else 0)
    assert "for an admin" in said["rita"]


def test_an_admin_sees_to_people(app: PeopleApp) -> None:
    with app.client("ada") as ada:
        made = ada.post("/people/invite", data={"role": "annotator", "project": app.project.project_id})
        link = re.findall(r'value="(http://[^"]+/join/[\w-]+)"', made.text)[0]
        with app.client() as dan:
            assert app.project.name in dan.get(link).text
            joined = dan.post(link, data={"login": "dan", "password": PASSWORD, "again": PASSWORD})
            assert joined.status_code == 303
            assert dan.get("/label").status_code == 200
            again = dan.post(link, data={"login": "dan2", "password": PASSWORD, "again": PASSWORD})
            assert again.status_code == 404
            who = {"person": next(o for o in accounts.everybody(app.studio.db) if o.account.login == "dan").account.annotator_id}
            assert app.other.name not in dan.get("/account").text
            ada.post("/people/admin/add", data=who | {"project": app.other.project_id})
            assert app.other.name in dan.get("/account").text
            ada.post("/people/admin/remove", data=who | {"project": app.project.project_id})
            assert app.project.name not in dan.get("/account").text
            assert dan.get("/data").status_code == 403
            ada.post("/people/admin/role", data=who | {"role": "researcher"})
            assert dan.get("/data").status_code == 200
            ada.post("/people/admin/disable", data=who)
            assert dan.get("/data").status_code == 303
            assert dan.get("/api/label/batch").status_code == 401
        assert "dan" in ada.get("/people").text
        refused = ada.post("/people/admin/disable", data={"person": app.people["ada"].annotator_id})
        assert "only admin" in refused.text


def test_an_admins_link_lets_somebody_choose_a_new_password_once(app: PeopleApp) -> None:
    with app.client("ada") as ada, app.client("cleo") as cleo, app.client() as elsewhere:
        made = ada.post("/people/admin/password", data={"person": app.people["cleo"].annotator_id})
        link = re.findall(r'value="(http://[^"]+/new-password/[^"]+)"', made.text)[0]
        chosen = {"password": "a quite new one", "again": "a quite new one"}
        assert "differ" in elsewhere.post(link, data=chosen | {"again": "x"}).text
        assert elsewhere.post(link, data=chosen).status_code == 303
        assert elsewhere.get("/label").status_code == 200
        assert cleo.get("/label").status_code == 303  # the earlier session is over
        assert elsewhere.post(link, data=chosen).status_code == 404
        assert elsewhere.post(link + "x", data=chosen).status_code == 404
    accounts.change_password(app.studio.db, app.people["cleo"].annotator_id, PASSWORD)


# --- what was checked before something changed ---


def test_a_link_that_is_used_while_another_form_of_it_comes_in_is_used(app: PeopleApp, monkeypatch: pytest.MonkeyPatch) -> None:
    cleo = app.people["cleo"].annotator_id
    assert app.studio.sessions is not None
    token = app.studio.sessions.new_password_token(accounts.get(app.studio.db, cleo))
    before(monkeypatch, sign_in, "read_form", lambda: accounts.change_password(app.studio.db, cleo, PASSWORD))
    late = {"password": "of whoever was late", "again": "of whoever was late"}
    said = httpx.post(f"{app.url}/new-password/{token}", data=late)
    assert "no longer good" in said.text
    assert "set-cookie" not in said.headers
    assert accounts.check(app.studio.db, "cleo", PASSWORD) is not None


def test_an_old_password_opens_nothing_that_outlives_it(app: PeopleApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was still right when it was looked at, and changed before the answer came."""
    ben, fits = app.people["ben"].annotator_id, accounts._fits

    def meanwhile(password: str, password_hash: str) -> bool:
        right = fits(password, password_hash)
        accounts.change_password(app.studio.db, ben, "another good one")
        return right

    monkeypatch.setattr(accounts, "_fits", meanwhile)
    said = httpx.post(f"{app.url}/sign-in", data={"login": "ben", "password": PASSWORD})
    monkeypatch.setattr(accounts, "_fits", fits)
    assert httpx.get(f"{app.url}/label", cookies=said.cookies).status_code == 303
    accounts.change_password(app.studio.db, ben, PASSWORD)


def test_of_two_who_end_all_other_sessions_at_once_the_second_has_none(app: PeopleApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them has the other's stolen cookie."""
    ben, end = app.people["ben"].annotator_id, accounts.end_sessions

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(accounts, "end_sessions", end)
        end(app.studio.db, ben)
        end(*args)

    with app.client("ben") as second:
        monkeypatch.setattr(accounts, "end_sessions", meanwhile)
        said = second.post("/account/sign-out-everywhere", data={"x": ""})
    assert "set-cookie" not in said.headers
    assert "changed meanwhile" in said.text


@pytest.mark.parametrize(
    ("path", "typed"),
    [("/people/admin/enable", {}), ("/account/sign-out-everywhere", {"x": ""})],
)
def test_a_form_counts_as_of_who_is_signed_in_when_it_has_come_in(
    app: PeopleApp, monkeypatch: pytest.MonkeyPatch, path: str, typed: dict[str, str]
) -> None:
    """One may be sent as slowly as one likes, and the end of a session is not to be waited out."""
    db, ada = app.studio.db, app.people["ada"].annotator_id
    accounts.set_role(db, app.people["rita"].annotator_id, "admin")
    with app.client("ada") as client:
        before(monkeypatch, plain_page, "read_form", lambda: accounts.disable(db, ada))
        said = client.post(path, data=typed | {"person": ada})
    assert accounts.get(db, ada).disabled_at is not None
    assert "set-cookie" not in said.headers
    assert said.status_code in (303, 403)
    accounts.enable(db, ada)
    accounts.set_role(db, app.people["rita"].annotator_id, "researcher")


# --- the cookie ---


def test_a_forged_or_old_cookie_opens_nothing(app: PeopleApp, ann: httpx.Client) -> None:
    sessions = app.studio.sessions
    assert sessions is not None
    [real] = [c.value or "" for c in ann.cookies.jar]
    who, at = app.people["ada"].annotator_id, int(datetime.now(UTC).timestamp() * 1e6)
    key = secret_key.read_or_make(app.studio.settings)

    def signed(key: bytes, salt: str, *content: Any) -> str:
        return str(URLSafeSerializer(key, salt=salt, signer_kwargs={"digest_method": hashlib.sha256}).dumps(list(content)))

    old = int((datetime.now(UTC) - timedelta(days=15)).timestamp() * 1e6)
    forged = {
        "nothing": "",
        "cut": real[:-1],
        "other payload": signed(key, "session", who, at).split(".")[0] + "." + real.split(".")[1],
        "other key": signed(b"0" * 64, "session", who, at),
        "other purpose": signed(key, "new password", who, at),
        "too old": signed(key, "session", app.people["ann"].annotator_id, old),
        "no such person": signed(key, "session", "person-x", at),
        "no list": str(URLSafeSerializer(key, salt="session").dumps("x")),
        "plain": json.dumps([who, at]),
    }
    for name, value in forged.items():
        got = httpx.get(f"{app.url}/label", cookies={sessions.cookie_name: value})
        assert got.status_code == 303, name
    fresh = signed(key, "session", app.people["ann"].annotator_id, at)
    assert httpx.get(f"{app.url}/label", cookies={sessions.cookie_name: fresh}).status_code == 200


def test_a_cookie_is_renewed_after_a_day_and_outlives_a_restart(app: PeopleApp, ann: httpx.Client) -> None:
    sessions = app.studio.sessions
    assert sessions is not None
    key = secret_key.read_or_make(app.studio.settings)
    signer = URLSafeSerializer(key, salt="session", signer_kwargs={"digest_method": hashlib.sha256})
    before = int((datetime.now(UTC) - timedelta(days=2)).timestamp() * 1e6)
    accounts_since = app.studio.db.value("select min(sessions_from) from accounts")
    app.studio.db.update("accounts", {"login": "ben"}, sessions_from=accounts_since - timedelta(days=3))
    value = str(signer.dumps([app.people["ben"].annotator_id, before]))
    got = httpx.get(f"{app.url}/api/label/batch", cookies={sessions.cookie_name: value})
    assert got.status_code == 200
    renewed = got.headers["set-cookie"]
    assert renewed.startswith(f"{sessions.cookie_name}=")
    assert {"HttpOnly", "SameSite=Lax", "Max-Age=1209600", "Path=/"} <= {part.strip() for part in renewed.split(";")}
    assert "Secure" not in renewed
    assert "set-cookie" not in ann.get("/api/label/batch").headers
    again = Sessions(app.studio.settings, app.studio.db)  # what a restart makes
    assert again.of(dict(ann.cookies))


def test_over_https_the_cookie_is_secure(app: PeopleApp) -> None:
    form = {"login": "ann", "password": PASSWORD}
    said = httpx.post(f"{app.url}/sign-in", data=form, headers={"x-forwarded-proto": "https"})
    assert "Secure" in said.headers["set-cookie"]
    said = httpx.post(f"{app.url}/sign-in", data=form, headers={"x-forwarded-proto": "https, http"})
    assert "Secure" not in said.headers["set-cookie"], "its proxy was asked over http"


def test_a_new_password_ends_the_other_sessions(app: PeopleApp) -> None:
    with app.client("ben") as here, app.client("ben") as there:
        form = {"old": PASSWORD, "password": "another good one", "again": "another good one"}
        assert "not right" in here.post("/account/password", data=form | {"old": "wrong"}).text
        assert "differ" in here.post("/account/password", data=form | {"again": "other"}).text
        assert there.get("/label").status_code == 200
        assert "is changed" in here.post("/account/password", data=form).text
        assert here.get("/label").status_code == 200
        assert there.get("/label").status_code == 303
        accounts.change_password(app.studio.db, app.people["ben"].annotator_id, PASSWORD)
    with app.client("ben") as here, app.client("ben") as there:
        here.post("/account/sign-out-everywhere", data={"x": ""})
        assert (here.get("/label").status_code, there.get("/label").status_code) == (200, 303)
        assert here.post("/sign-out").status_code == 303
        assert here.get("/label").status_code == 303


# --- signing in ---


def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(app: PeopleApp) -> None:
    with app.client() as nobody:
        said = [nobody.post("/sign-in", data={"login": login, "password": "wrong one"}) for login in ("rita", "nobody")]
        assert {s.status_code for s in said} == {403}
        assert said[0].text.replace("rita", "") == said[1].text.replace("nobody", "")
        assert "set-cookie" not in said[0].headers


def test_too_many_tries_wait(app: PeopleApp) -> None:
    with app.client() as nobody:
        statuses = []
        for _ in range(7):
            said = nobody.post("/sign-in", data={"login": "victim", "password": "wrong one"})
            statuses.append(said.status_code)
        assert statuses[:5] == [403] * 5
        assert 429 in statuses[5:]
        assert re.search(r"wait \d+ seconds", said.text)
        assert int(said.headers["retry-after"]) >= 1
        assert app.client("rita").get("/data").status_code == 200  # nobody else waits


def test_after_signing_in_one_is_where_one_wanted_to_be(app: PeopleApp) -> None:
    form = {"login": "rita", "password": PASSWORD}
    wanted = {
        "data?tab=import": "./data?tab=import", "": "./", "//evil.example": "./", "https://evil.example": "./",
        "/\\evil.example": "./", "..//evil": "./", "javascript:alert(1)": "./",
    }  # fmt: skip
    for asked, got in wanted.items():
        with app.client() as nobody:
            assert nobody.post("/sign-in", data=form | {"next": asked}).headers["location"] == got


def test_a_foreign_page_can_neither_sign_in_nor_out(app: PeopleApp, ann: httpx.Client) -> None:
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    form = {"login": "ann", "password": PASSWORD}
    assert httpx.post(f"{app.url}/sign-in", data=form, headers=foreign).status_code == 403
    assert ann.post("/sign-out", headers=foreign).status_code == 403
    assert ann.post("/account/delete", data={"words": "delete my data", "old": PASSWORD}, headers=foreign).status_code == 403
    assert ann.get("/label").status_code == 200


@pytest.mark.parametrize("body", [b"login=%ff&password=x", b"\xff\xfe", b"a=1&" * 60, b"x" * 20_000])
def test_a_form_that_is_none_is_refused_in_words(app: PeopleApp, body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert httpx.post(f"{app.url}/sign-in", content=body, headers=kind).status_code in (400, 403)
    assert httpx.post(f"{app.url}/sign-in", content=body, headers={"content-type": "text/plain"}).status_code == 400


# --- two annotators ---


def test_two_annotators_see_nothing_of_each_other(app: PeopleApp) -> None:
    with app.client("ann") as ann, app.client("ben") as ben, app.client("cleo") as cleo:
        mine = ann.get("/api/label/batch?n=3").json()
        theirs = ben.get("/api/label/batch?n=3").json()
        ids = [item["id"] for item in mine["items"]]
        assert not set(ids) & {item["id"] for item in theirs["items"]}
        assert mine["who"] != theirs["who"]
        votes = [{"id": str(uuid.uuid4()), "impression": i, "event": "cast", "preference": "a", "dwell_ms": 3000} for i in ids]
        assert [result["reason"] for result in ann.post("/api/label", json=votes).json()["results"]] == [""] * 3
        assert len(ann.get("/api/label/history").json()["labels"]) == 3
        assert ben.get("/api/label/history").json()["labels"] == []
        assert (ann.get("/api/label/batch").json()["progress"]["mine"], ben.get("/api/label/batch").json()["progress"]["mine"]) == (
            3,
            0,
        )
        forged = [{"id": str(uuid.uuid4()), "impression": i, "event": "revised", "preference": "b", "dwell_ms": 3000} for i in ids]
        for other in (ben, cleo):
            assert not any(result["accepted"] for result in other.post("/api/label", json=forged).json()["results"])
        assert {row["preference"] for row in app.studio.db.rows("select preference from current_labels")} == {"a"}
        assert cleo.get("/api/label/batch").json()["project"]["name"] == app.other.name
        refused = cleo.post("/account/open", data={"project": app.project.project_id})
        assert refused.status_code == 400
        assert cleo.get("/api/label/batch").json()["project"]["name"] == app.other.name


def test_whoever_is_taken_out_of_a_project_is_shown_nothing_of_it(app: PeopleApp) -> None:
    cleo = app.people["cleo"].annotator_id
    with app.client("cleo") as client:
        members.remove(app.studio.db, app.other.project_id, cleo)
        said = client.get("/api/label/batch")
        assert said.status_code == 404
        assert "no project" in said.json()["error"]
        assert app.other.name not in client.get("/account").text
        members.add(app.studio.db, app.other.project_id, cleo)
        assert client.get("/api/label/batch").status_code == 200


def test_whoever_has_an_account_joins_a_second_project_with_it(app: PeopleApp) -> None:
    token = invitations.make(app.studio.db, "annotator", app.other.project_id, "")
    with app.client("ben") as ben:
        page = ben.get(f"/join/{token}")
        assert "signed in as ben" in page.text
        assert 'type="password"' not in page.text
        assert ben.post(f"/join/{token}", data={"as_me": "1"}).headers["location"] == "../account"
        assert app.other.name in ben.get("/account").text
        assert ben.post("/account/open", data={"project": app.other.project_id}).headers["location"] == "../label"
        assert ben.get("/api/label/batch").json()["project"]["name"] == app.other.name
        assert ben.post(f"/join/{token}", data={"as_me": "1"}).status_code == 404
    members.remove(app.studio.db, app.other.project_id, app.people["ben"].annotator_id)


def test_a_link_used_by_nobody_signed_in_cannot_be_taken_as_somebody(app: PeopleApp) -> None:
    token = invitations.make(app.studio.db, "annotator", app.other.project_id, "")
    with app.client() as nobody:
        assert nobody.post(f"/join/{token}", data={"as_me": "1"}).status_code == 400
    assert invitations.find(app.studio.db, token)
