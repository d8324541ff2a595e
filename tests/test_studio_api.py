"""The label routes over real HTTP: acknowledged means committed, bad requests end in words, nothing says who wrote an answer."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from http_app import served
from labelling import MODEL_NAME, RUN_ID, seed_project

from data import labels, people
from data.errors import WorkspaceError
from data.settings import Settings
from labeling import preferences
from studio import api, label_api_in
from studio.context import VISITOR_COOKIE, visitor_of
from studio.label_page import assets

pytestmark = pytest.mark.app


@pytest.fixture
def app(db: Any, settings: Settings) -> Iterator[Any]:
    """(client, project, studio) with 30 pairs to label."""
    project = seed_project(db, 30)
    with served(db, settings) as (url, studio), httpx.Client(base_url=url, timeout=60) as client:
        yield client, project, studio


def cast(item: dict[str, Any], preference: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "impression": item["id"], "event": "cast", "preference": preference, **more}


def batch(client: httpx.Client, n: int = 5) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"/api/label/batch?n={n}").json()["items"]
    return items


# --- items ---


def test_a_batch_is_stored_before_it_is_shown(app: Any, db: Any) -> None:
    client, project, _ = app
    body = client.get("/api/label/batch?n=7").json()
    assert [set(item) for item in body["items"]] == [{"id", "task", "turns", "left", "right"}] * 7
    stored = db.rows("select impression_id, annotator_id, project_id from impressions")
    assert {row["impression_id"] for row in stored} == {item["id"] for item in body["items"]}
    assert {(row["annotator_id"], row["project_id"]) for row in stored} == {("local", project.project_id)}
    assert body["state"] == "ready"
    assert body["project"]["guidelines"] == "<p>Choose the answer that is <strong>right</strong> and short.</p>\n"
    assert (body["progress"]["total"], body["progress"]["target"]) == (30, 20)


def test_what_is_shown_is_the_stored_side(app: Any, db: Any) -> None:
    client, *_ = app
    item = batch(client, 1)[0]
    row = db.row("select * from impressions where impression_id = ?", [item["id"]])
    for side in ("left", "right"):
        text = db.value("select text from completions where completion_id = ?", [row[f"{side}_completion_id"]])
        assert item[side]["raw"] == text


def test_a_reload_brings_the_same_items(app: Any) -> None:
    client, *_ = app
    assert batch(client, 5) == batch(client, 5)


def test_no_answer_of_the_server_names_a_model_run_or_completion(app: Any, db: Any) -> None:
    """A whole visit: items, labels, undo, history, errors. None of it holds an id or a name of what wrote the answers."""
    client, project, _ = app
    texts: list[str] = []

    def keep(response: httpx.Response) -> Any:
        texts.extend([response.text, str(response.headers)])
        return response.json()

    items = keep(client.get("/api/label/batch?n=20"))["items"]
    keep(
        client.post("/api/label", json=[cast(i, p) for i, p in zip(items, ["a", "b", "tie", "both_bad", "skip"] * 4, strict=True)])
    )
    keep(client.post("/api/label", json=[{**cast(items[0], ""), "event": "retracted"}]))
    keep(client.get("/api/label/history"))
    keep(client.post("/api/label", json=[cast({"id": "unknown"}), {"nonsense": 1}, 5]))
    keep(client.post("/api/label/release", json={"ids": [items[0]["id"]]}))
    keep(client.get("/api/label/batch?n=wrong"))
    secrets = {MODEL_NAME, RUN_ID, project.project_id}
    for table, column in [
        ("completions", "completion_id"),
        ("prompts", "prompt_id"),
        ("pairs", "pair_id"),
        ("completions", "model"),
    ]:
        secrets |= {row[column] for row in db.rows(f"select distinct {column} from {table}")}
    everything = "\n".join(texts)
    assert [s for s in secrets if s in everything] == []


def test_large_texts_come_in_several_answers(app: Any, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, *_ = app
    monkeypatch.setattr(api, "MAX_BATCH_CHARACTERS", 1500)
    first = batch(client, 10)
    assert 1 <= len(first) < 10
    client.post("/api/label", json=[cast(i) for i in first])
    assert {i["id"] for i in batch(client, 10)}.isdisjoint({i["id"] for i in first})


def test_states_when_there_is_nothing(db: Any, settings: Settings) -> None:
    seed_project(db, 0)
    with served(db, settings) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/api/label/batch").json()["state"] == "empty"


def test_all_done(app: Any) -> None:
    client, *_ = app
    client.post("/api/label", json=[cast(i) for i in batch(client, 100)])
    body = client.get("/api/label/batch?n=5").json()
    assert (body["state"], body["items"], body["progress"]["complete"]) == ("done", [], 30)


def test_without_any_project_it_says_so(db: Any, settings: Settings) -> None:
    with served(db, settings) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        response = client.get("/api/label/batch")
        assert response.status_code == 404
        assert "no project yet" in response.json()["error"]


# --- labels ---


def test_acknowledged_means_committed(app: Any, db: Any) -> None:
    client, project, _ = app
    items = batch(client, 4)
    votes = [
        cast(i, p, dwell_ms=1234, client_at="2026-05-01T10:00:00Z") for i, p in zip(items, ["a", "b", "tie", "skip"], strict=True)
    ]
    body = client.post("/api/label", json=votes).json()
    assert body["results"] == [{"id": v["id"], "accepted": True, "reason": ""} for v in votes]
    assert (body["progress"]["mine"], body["progress"]["skipped"], body["progress"]["complete"]) == (3, 1, 3)
    stored = {e.event_id: e for e in labels.current(db, project.project_id)}
    assert {v["id"]: v["preference"] for v in votes} == {k: e.preference for k, e in stored.items()}
    assert stored[votes[0]["id"]].dwell_ms == 1234
    assert str(stored[votes[0]["id"]].client_at) == "2026-05-01 10:00:00+00:00"


def test_sending_again_is_acknowledged_and_stored_once(app: Any, db: Any) -> None:
    client, *_ = app
    votes = [cast(i) for i in batch(client, 3)]
    for _ in range(3):
        assert all(r["accepted"] for r in client.post("/api/label", json=votes).json()["results"])
    assert db.value("select count(*) from label_events") == 3


def test_one_result_for_each_whatever_was_sent(app: Any, db: Any) -> None:
    client, *_ = app
    item = batch(client, 1)[0]
    odd: list[Any] = [
        5,
        None,
        {},
        {"id": 7},
        {"id": "x", "impression": item["id"], "event": "cast", "preference": "a"},
        {**cast(item), "preference": 3},
        {**cast(item), "note": {"a": 1}},
        {**cast(item), "dwell_ms": "long"},
        {**cast(item), "dwell_ms": True},
        {**cast(item), "client_at": "yesterday"},
        {**cast(item), "client_at": "2026-05-01T10:00:00"},
        {**cast(item), "event": "excluded", "preference": ""},
        cast({"id": "not mine"}),
        cast(item, "good"),
        cast(item, "b", note="fine", dwell_ms=-5, extra="ignored"),
    ]
    results = client.post("/api/label", json=odd).json()["results"]
    assert [r["accepted"] for r in results] == [False] * (len(odd) - 1) + [True]
    assert all(r["reason"].endswith(".") for r in results[:-1])
    assert db.row("select preference, dwell_ms, note from label_events") == {"preference": "b", "dwell_ms": 0, "note": "fine"}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"1", 400),
        (b"[" + b"0," * 600 + b"0]", 400),
    ],
)
def test_a_body_that_is_no_list_of_labels(app: Any, content: bytes, status: int) -> None:
    client, *_ = app
    response = client.post("/api/label", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.json()["error"].endswith(".")


def test_a_body_that_is_too_large_is_not_read(app: Any) -> None:
    client, *_ = app
    big = json.dumps([{"id": "x", "note": "y" * label_api_in.MAX_BODY}])
    response = client.post("/api/label", content=big, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "larger than 512 KB" in response.json()["error"]


def test_a_foreign_page_cannot_label(app: Any, db: Any) -> None:
    client, *_ = app
    votes = [cast(i) for i in batch(client, 1)]
    assert client.post("/api/label", json=votes, headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post("/api/label", content=json.dumps(votes), headers={"content-type": "text/plain"}).status_code == 415
    assert db.value("select count(*) from label_events") == 0


def test_a_store_that_cannot_write_keeps_the_label_with_the_browser(app: Any, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """503: not acknowledged, and the browser tries again; the same label goes in once there is room."""
    client, *_ = app
    votes = [cast(i) for i in batch(client, 2)]

    def full(*_: object) -> None:
        raise WorkspaceError("The disk is full; free some space.")

    with monkeypatch.context() as broken:
        broken.setattr(preferences.labels, "append_each", full)
        response = client.post("/api/label", json=votes)
        assert (response.status_code, response.json()["error"]) == (503, "The disk is full; free some space.")
    assert all(r["accepted"] for r in client.post("/api/label", json=votes).json()["results"])
    assert db.value("select count(*) from label_events") == 2


def test_a_fault_of_ours_shows_no_traceback(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, *_ = app
    monkeypatch.setattr(preferences.labels, "append_each", lambda *_: 1 / 0)
    response = client.post("/api/label", json=[cast(i) for i in batch(client, 1)])
    assert response.status_code == 500
    assert "division" not in response.text


def test_release_gives_the_items_to_others(app: Any) -> None:
    client, project, studio = app
    ids = [i["id"] for i in batch(client, 30)]
    assert studio.assignment.serve("bea", project.project_id, 30) == []
    assert client.post("/api/label/release", json={"ids": [*ids[:10], "unknown"]}).json() == {"released": 10}
    assert len(studio.assignment.serve("bea", project.project_id, 30)) == 10


def test_history_brings_back_what_was_said(app: Any) -> None:
    client, *_ = app
    items = batch(client, 25)
    client.post("/api/label", json=[cast(i, "b") for i in items])
    past = client.get("/api/label/history").json()["labels"]
    assert [p["item"] for p in past] == list(reversed(items))[:20]
    assert {p["preference"] for p in past} == {"b"}


def test_two_hundred_at_once_from_ten_clients(app: Any, db: Any) -> None:
    """Ten connections send the same 30 labels in batches of different cuts: each is stored once and acknowledged to all."""
    client, *_ = app
    votes = [cast(i) for i in batch(client, 30)]
    acknowledged: list[str] = []

    def send(cut: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as mine:
            for at in range(0, 30, cut):
                body = mine.post("/api/label", json=votes[at : at + cut]).json()
                acknowledged.extend(r["id"] for r in body["results"] if r["accepted"])

    threads = [threading.Thread(target=send, args=(cut,)) for cut in range(1, 11)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(acknowledged) == 300
    assert db.value("select count(*) from label_events") == 30


# --- visitors ---


def test_visitors_do_not_see_each_other(db: Any) -> None:
    settings = Settings(home=db.settings.home, visitor=True)
    with served(db, settings) as (url, _), httpx.Client(base_url=url, timeout=60) as one, httpx.Client(base_url=url) as other:
        own: dict[str, Any] = {}
        for name, client in (("one", one), ("other", other)):
            client.post("/api/label/release", json={"ids": []})  # any request makes the cookie
            visitor = visitor_of(client.cookies[VISITOR_COOKIE])
            people.ensure(db, visitor, "Visitor", "visitor")
            own[name] = seed_project(db, 5, owner=visitor, name=name)
        mine = one.get("/api/label/batch?n=50").json()
        theirs = other.get("/api/label/batch?n=50").json()
        assert (mine["project"]["name"], theirs["project"]["name"]) == ("one", "other")
        assert mine["who"] != theirs["who"]
        refused = other.post("/api/label", json=[cast(mine["items"][0])]).json()["results"][0]
        assert (refused["accepted"], refused["reason"]) == (
            False,
            "This item was not shown to you, so your label for it was not stored.",
        )
        assert other.get("/api/label/history").json()["labels"] == []
        assert one.cookies[VISITOR_COOKIE] not in json.dumps([mine, theirs])


def test_a_visitors_limit_is_a_reason_and_not_an_endless_retry(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio import visitors

    settings = Settings(home=db.settings.home, visitor=True)
    monkeypatch.setattr(visitors, "MAX_LABEL_EVENTS", 2)
    with served(db, settings) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        client.post("/api/label/release", json={"ids": []})
        visitor = visitor_of(client.cookies[VISITOR_COOKIE])
        people.ensure(db, visitor, "Visitor", "visitor")
        seed_project(db, 5, owner=visitor)
        items = batch(client, 5)
        votes = [cast(item) for item in items]
        said = client.post("/api/label", json=votes[:3]).json()["results"]
        assert [one["accepted"] for one in said] == [True, True, False], "what fits is stored, in the order in which it came"
        assert "at most 2 labels" in said[2]["reason"]
        again = client.post("/api/label", json=[votes[3], votes[1], votes[0], votes[1], votes[4]]).json()["results"]
        assert [one["accepted"] for one in again] == [False, True, True, True, False], "what is stored stays acknowledged"
        assert "at most 2 labels" in again[0]["reason"]
        lie = client.post("/api/label", json=[{**votes[0], "preference": "b"}]).json()["results"][0]
        assert "id already" in lie["reason"]
        assert db.value("select count(*) from label_events") == 2


def test_what_keeps_no_cookie_makes_no_project(db: Any) -> None:
    settings = Settings(home=db.settings.home, visitor=True)
    with served(db, settings) as (url, _):
        for path in ("/api/label/batch", "/api/label/history", "/api/label/batch?n=5"):
            answer = httpx.get(f"{url}{path}", timeout=60)
            assert answer.status_code == 503
            assert "keeps no cookie" in answer.json()["error"]
            assert VISITOR_COOKIE in answer.headers["set-cookie"]
        for path, body in (("/api/label", [cast({"id": "x"})]), ("/api/label/release", {"ids": ["x"]})):
            assert httpx.post(f"{url}{path}", json=body, timeout=60).status_code == 503
        assert db.value("select count(*) from projects") == 0
        with httpx.Client(base_url=url, timeout=60) as browser:
            assert browser.get("/api/label/batch").status_code == 503
            assert browser.get("/api/label/batch").status_code == 200
        assert db.value("select count(*) from projects where owner != ''") == 1


# --- assets ---


def test_assets_are_served_by_name_and_kept_for_good(app: Any) -> None:
    client, *_ = app
    response = client.get(f"/{assets.PREFIX}/label.js")
    assert response.headers["content-type"].startswith("text/javascript")
    assert "immutable" in response.headers["cache-control"]
    assert client.get(f"/{assets.PREFIX}/vendor/katex/fonts/KaTeX_Main-Regular.woff2").headers["content-type"] == "font/woff2"
    assert client.get("/assets/label/old-version/label.js").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["", "page.py", "__init__.py", "vendor/katex", "vendor/katex/LICENSE", "..%2f..%2fapp.py", "%2e%2e/api.py"]
)
def test_nothing_else_is_served(app: Any, path: str) -> None:
    client, *_ = app
    assert client.get(f"/{assets.PREFIX}/{path}").status_code == 404


def test_katex_is_whole_and_comes_with_its_licence() -> None:
    css = assets.ASSETS["vendor/katex/katex.min.css"].body.decode()
    fonts = {part.split(")")[0] for part in css.split("url(")[1:] if ".woff2" in part.split(")")[0]}
    assert fonts
    assert all(f"vendor/katex/{font}" in assets.ASSETS for font in fonts)
    assert "MIT" in (assets.FOLDER / "vendor" / "katex" / "LICENSE").read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_at": "0001-01-01T00:00:00+23:59"},
        {"client_at": "9999-12-31T23:59:59-23:59"},
        {"impression": "\ud800"},
        {"event": "\ud800"},
        {"preference": "\ud800"},
        {"id": "\ud800"},
    ],
)
def test_what_can_never_be_stored_holds_up_no_other_label(app: Any, wrong: dict[str, str]) -> None:
    client, *_ = app
    first, second = batch(client, 2)
    body = json.dumps([{**cast(first), **wrong}, cast(second)])
    answer = client.post("/api/label", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert [result["accepted"] for result in answer.json()["results"]] == [False, True]
