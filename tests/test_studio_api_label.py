"""The label routes beyond storing a label: heartbeat, a project's options, history, gold and repeats in silence, archiving."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from http_app import served
from labelling import MODEL_NAME, RUN_ID, seed_project

from data import gold, labels, people, projects
from data.records import ProjectSettings
from data.settings import Settings
from labeling.assignment import Progress
from labeling.track import Consistency
from studio import label_api_in, label_api_out

pytestmark = pytest.mark.app

OPTIONS = ProjectSettings(strength=True, reasons=("clearer", "more correct"), notes=True)


@pytest.fixture
def app(db: Any, settings: Settings) -> Iterator[Any]:
    """(client, project, studio) with 60 pairs to label."""
    project = seed_project(db, 60)
    projects.change(db, project.project_id, OPTIONS)
    with served(db, settings) as (url, studio), httpx.Client(base_url=url, timeout=60) as client:
        yield client, project, studio


def cast(item: dict[str, Any], preference: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "impression": item["id"], "event": "cast", "preference": preference, **more}


def batch(client: httpx.Client, n: int = 5) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"/api/label/batch?n={n}").json()["items"]
    return items


def test_a_batch_says_what_may_be_said_and_how_long_a_place_is_kept(app: Any) -> None:
    client, *_ = app
    body = client.get("/api/label/batch?n=5").json()
    assert body["options"] == {"strength": True, "reasons": ["clearer", "more correct"], "notes": True}
    assert (body["lease_seconds"], body["heartbeat_seconds"]) == (120, 20)
    assert body["progress"]["today"] == 0
    assert body["progress"]["consistency"] == {"share": None, "n": 0}


def test_a_heartbeat_says_which_places_are_kept(app: Any, db: Any) -> None:
    client, project, studio = app
    ids = [i["id"] for i in batch(client, 6)]
    assert client.post("/api/label/heartbeat", json={"ids": [*ids, "unknown"]}).json() == {"kept": ids, "lost": ["unknown"]}
    client.post("/api/label/release", json={"ids": ids[:2]})
    taken = {s.impression.pair_id for s in studio.assignment.serve("bea", project.project_id, 100)}
    assert len(taken) >= 27, "half of what is left, since two are at work"
    lost = client.post("/api/label/heartbeat", json={"ids": ids}).json()["lost"]
    mine = {row["impression_id"]: row["pair_id"] for row in db.rows("select * from impressions where annotator_id = 'local'")}
    assert lost == [i for i in ids if mine[i] in taken]
    assert set(lost) <= set(ids[:2]), "what was not released stays"


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"ids": 5}', b'{"ids": [1]}', b'{"ids": ["\\ud800"]}', b"nonsense"])
def test_a_heartbeat_that_is_none(app: Any, body: bytes) -> None:
    client, *_ = app
    answer = client.post("/api/label/heartbeat", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")


def test_strength_reasons_and_reading_are_stored(app: Any, db: Any) -> None:
    client, project, _ = app
    item = batch(client, 1)[0]
    said = cast(item, "b", strength="clearly", reasons=["clearer"], note="short", read_share=0.5, dwell_ms=60_000)
    assert client.post("/api/label", json=[said]).json()["results"][0]["accepted"]
    [label] = labels.current(db, project.project_id)
    assert (label.strength, label.reasons, label.note, label.read_share) == ("clearly", ("clearer",), "short", 0.5)
    assert label.flags == ("unread",)
    [past] = client.get("/api/label/history").json()["labels"]
    assert {key: past[key] for key in ("preference", "strength", "reasons", "note")} == {
        "preference": "b",
        "strength": "clearly",
        "reasons": ["clearer"],
        "note": "short",
    }
    assert past["at"] == label.created_at.isoformat()
    assert past["item"] == item


def test_what_is_no_strength_reason_or_share_is_refused_in_words(app: Any, db: Any) -> None:
    client, *_ = app
    item = batch(client, 1)[0]
    odd: list[dict[str, Any]] = [
        {"strength": "very"},
        {"strength": 1},
        {"reasons": ["not in the list"]},
        {"reasons": "clearer"},
        {"reasons": [["clearer"]]},
        {"reasons": ["clearer"] * 100},
        {"read_share": 1.5},
        {"read_share": -0.1},
        {"read_share": "all"},
        {"read_share": True},
    ]
    results = client.post("/api/label", json=[cast(item, **more) for more in odd]).json()["results"]
    assert [r["accepted"] for r in results] == [False] * len(odd)
    assert all(r["reason"].endswith(".") for r in results)
    assert db.value("select count(*) from label_events") == 0


def test_a_whole_visit_tells_nothing(db: Any, settings: Settings) -> None:
    """Items, gold, repeats, labels, undo, changes, heartbeats, history, errors, archiving: no payload holds an id or a name of what
    wrote the answers, of the pair, or what kind of item it is, and a gold or repeated item looks like any other."""
    project = seed_project(db, 120)
    rules = ProjectSettings(gold_rate=0.25, repeat_rate=0.25)
    projects.change(db, project.project_id, replace(rules, overlap=2, max_overlap=3))
    for row in db.rows("select pair_id from pairs order by pair_id limit 15"):
        gold.add(db, project.project_id, row["pair_id"], "first", "researcher")
    texts: list[str] = []
    items: list[dict[str, Any]] = []
    with served(db, settings) as (url, _), httpx.Client(base_url=url, timeout=60) as client:

        def keep(answer: httpx.Response) -> Any:
            texts.extend([answer.text, str(answer.headers)])
            return answer.json()

        for _ in range(10):
            new = keep(client.get("/api/label/batch?n=12"))["items"]
            keep(client.post("/api/label/heartbeat", json={"ids": [i["id"] for i in new]}))
            keep(client.post("/api/label", json=[cast(i, "b", dwell_ms=9000) for i in new]))
            items += new
        keep(client.post("/api/label", json=[{**cast(i, ""), "event": "retracted"} for i in items[:40]]))
        keep(client.post("/api/label", json=[{**cast(i, "a"), "event": "revised"} for i in items[40:80]]))
        keep(client.get("/api/label/history"))
        keep(client.post("/api/label", json=[cast({"id": "unknown"}), {"nonsense": 1}, 5]))
        keep(client.post("/api/label/release", json={"ids": [items[0]["id"]]}))
        keep(client.get("/api/label/batch?n=wrong"))
        projects.archive(db, project.project_id)
        keep(client.get("/api/label/batch"))
    kinds = {row["kind"]: row["n"] for row in db.rows("select kind, count(*) as n from impressions group by kind")}
    assert kinds["gold"] >= 5
    assert kinds["repeat"] >= 5
    assert [set(item) for item in items] == [{"id", "task", "turns", "left", "right"}] * len(items)
    secrets = {MODEL_NAME, RUN_ID, project.project_id, "gold", "repeat", "stratified"}
    for table, column in [
        ("completions", "completion_id"),
        ("prompts", "prompt_id"),
        ("pairs", "pair_id"),
        ("gold", "gold_id"),
        ("label_events", "chosen_completion_id"),
    ]:
        secrets |= {row[column] for row in db.rows(f"select distinct {column} from {table}")} - {""}
    everything = "\n".join(texts).lower()
    assert [s for s in secrets if s.lower() in everything] == []


def test_consistency_is_told_to_the_annotator_alone(db: Any, settings: Settings) -> None:
    project = seed_project(db, 80)
    projects.change(db, project.project_id, ProjectSettings(repeat_rate=0.4, gold_rate=0))
    with served(db, settings) as (url, studio), httpx.Client(base_url=url, timeout=60) as client:
        progress: dict[str, Any] = {}
        for _ in range(6):
            votes = [cast(i, "a", dwell_ms=9000) for i in batch(client, 15)]  # always the left one: never the same one again
            progress = client.post("/api/label", json=votes).json()["progress"]
        assert progress["consistency"]["n"] > 5
        assert progress["consistency"]["share"] == 0
        assert progress["today"] == progress["mine"] == 90
        assert studio.assignment.progress("bea", project.project_id).consistency.n == 0


def test_a_projects_target_is_the_target(app: Any, db: Any) -> None:
    client, project, _ = app
    projects.change(db, project.project_id, ProjectSettings(target=25))
    client.post("/api/label", json=[cast(i) for i in batch(client, 4)])
    progress = client.get("/api/label/batch?n=5").json()["progress"]
    assert (progress["target"], progress["complete"], progress["total"]) == (25, 4, 60)


def test_what_was_shown_of_an_archived_project_is_still_stored(app: Any, db: Any) -> None:
    client, project, _ = app
    items = batch(client, 3)
    projects.archive(db, project.project_id)
    refused = client.get("/api/label/batch?n=5")
    assert refused.status_code == 400
    assert "is archived" in refused.json()["error"]
    body = client.post("/api/label", json=[cast(i) for i in items]).json()
    assert [r["accepted"] for r in body["results"]] == [True] * 3
    assert labels.counts(db, project.project_id).labels == 3
    assert len(client.get("/api/label/history").json()["labels"]) == 3


def test_after_an_archived_project_comes_the_next(app: Any, db: Any) -> None:
    client, project, _ = app
    items = batch(client, 3)
    other = seed_project(db, 4, name="Another one")
    projects.archive(db, project.project_id)
    assert client.post("/api/label", json=[cast(items[0])]).json()["results"][0]["accepted"]
    assert "Next comes “Another one”" in client.get("/api/label/batch?n=5").json()["error"]
    assert client.get("/api/label/batch?n=5").json()["project"]["name"] == "Another one"
    assert people.open_project(db, "local") == other.project_id
    assert client.post("/api/label", json=[cast(items[1])]).json()["results"][0]["accepted"]
    assert labels.counts(db, project.project_id).labels == 2


def test_what_an_annotator_is_told_moves_alike_for_every_kind() -> None:
    """A repeat or a gold item completes nothing and leaves as much to do; a normal one does. Nobody may tell them apart."""
    before = Progress(
        mine=10, skipped=1, today=4, complete=7, total=90, first_rank=30, left=60, labels=12, consistency=Consistency(0.5, 6)
    )
    labelled = before._replace(mine=11, today=5)
    normal = labelled._replace(complete=8, left=59, labels=13)
    repeat = labelled._replace(consistency=Consistency(0.57, 7))
    assert label_api_out.own_progress(normal) == label_api_out.own_progress(repeat) == label_api_out.own_progress(labelled)
    assert label_api_out.own_progress(normal) != label_api_out.own_progress(before)


def test_a_share_that_is_no_share_is_refused_in_words() -> None:
    for share in ("1e999", "-1", "NaN", "1" + "0" * 400, "true", '"1"'):
        one = json.loads('{"id": "x", "impression": "i", "event": "cast", "preference": "a", "read_share": ' + share + "}")
        read = label_api_in.vote(one)
        assert isinstance(read, label_api_in.Unreadable)
        assert "read_share" in read.reason
