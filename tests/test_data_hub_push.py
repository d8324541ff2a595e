"""Pushing to the hub: as a real child process, against a server on the loopback interface, and with no hub in reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import HubServer
from quality_seed import seed_labelled

from data import projects
from data.database import Database
from data.errors import RunError
from data.hub_push import Wanted, card, read_args
from data.records import Snapshot
from data.rundir import RunDir
from data.settings import Settings
from data.votes import Filters
from labeling import snapshots

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
NAME = "somebody/preferences"


@pytest.fixture
def server() -> Iterator[HubServer]:
    started = HubServer(NAME, {})
    yield started
    started.close()


@pytest.fixture
def frozen(db: Database, settings: Settings) -> Snapshot:
    project = seed_labelled(db, 40)
    projects.rename(db, project.project_id, "Nice | <b>answers</b>")
    return snapshots.freeze(db, settings, project.project_id, "preference", filters=Filters(without_flags=("too_fast",)))


def push(settings: Settings, frozen: Snapshot, env: dict[str, str], **args: Any) -> tuple[RunDir, subprocess.CompletedProcess[str]]:
    folder = settings.runs_dir / "push"
    data = {"file": "data.parquet", "sha256": frozen.sha256, "rows": frozen.rows}
    run = RunDir.create(folder, {"run_id": "push", "kind": "hub_push", "module": "data.hub_push", "args": args, "data": data})
    shutil.copy(snapshots.file_of(settings, frozen), folder / "data.parquet")
    (folder / "manifest.json").write_text(json.dumps(frozen.manifest))
    env = {**os.environ, "HF_HOME": str(settings.home / "hf"), "HF_TOKEN": "hf_secret_of_the_test", **env}
    done = subprocess.run([sys.executable, "-m", "data.hub_push", str(folder)], cwd=ROOT, env=env, capture_output=True, text=True)
    return run, done


def the(run: RunDir, kind: str) -> dict[str, Any]:
    return [event for event in run.tail().events if event["type"] == kind][-1]


def test_a_snapshot_goes_up_with_its_splits_and_a_card(settings: Settings, frozen: Snapshot, server: HubServer) -> None:
    online = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    run, done = push(settings, frozen, online, dataset=NAME, license="cc-by-4.0", private=True)
    assert done.returncode == 0, done.stderr
    assert set(server.files) == {"train.parquet", "test.parquet", "README.md", "manifest.json"}
    assert the(run, "result")["splits"] == frozen.manifest["rows"]
    whole = pq.read_table(run.path / "data.parquet").to_pylist()
    for stored, split in (("train", "train"), ("held_out", "test")):
        sent = pq.read_table(run.path / f"{split}.parquet").to_pylist()
        assert (run.path / f"{split}.parquet").read_bytes() == server.files[f"{split}.parquet"]
        assert sent == [{k: v for k, v in row.items() if k != "split"} for row in whole if row["split"] == stored]
    head = yaml.safe_load(server.files["README.md"].decode().split("---")[1])
    assert (head["license"], head["pretty_name"]) == ("cc-by-4.0", "Nice | <b>answers</b>")
    assert [each["split"] for each in head["configs"][0]["data_files"]] == ["train", "test"]
    text = server.files["README.md"].decode()
    assert "<b>" not in text.split("---\n")[2]
    assert f"| train | {frozen.manifest['rows']['train']} |" in text
    assert "Krippendorff's alpha: 0." in text
    assert frozen.sha256 in text
    assert "left out by choice" in text
    everything = text + json.dumps(frozen.manifest) + run.log_tail() + done.stdout + done.stderr
    assert not any(word in everything for word in ("hf_secret_of_the_test", "Lefty", "lefty"))


def test_without_a_network_nothing_is_lost_and_that_is_said(settings: Settings, frozen: Snapshot) -> None:
    run, done = push(settings, frozen, {"HF_HUB_OFFLINE": "1"}, dataset=NAME)
    assert done.returncode == 1
    assert the(run, "error")["message"].startswith(f"The hub cannot be reached, so nothing was pushed to {NAME}")
    assert {file.name for file in run.path.glob("*.parquet")} == {"data.parquet", "train.parquet", "test.parquet"}
    assert (run.path / "README.md").is_file()


def test_a_set_that_is_not_theirs_is_said(settings: Settings, frozen: Snapshot, server: HubServer) -> None:
    run, done = push(settings, frozen, {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}, dataset="somebody/else")
    assert done.returncode == 1
    assert "somebody/else could not be pushed" in the(run, "error")["message"]


def test_a_changed_file_is_not_pushed(settings: Settings, frozen: Snapshot, server: HubServer) -> None:
    run = RunDir.create(settings.runs_dir / "changed", {"args": {"dataset": NAME}, "data": {"sha256": frozen.sha256}})
    (run.path / "data.parquet").write_bytes(b"something else")
    from data.hub_push import main

    with pytest.raises(RunError):
        main(run)
    assert server.files == {}


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"dataset": "../etc/passwd"},
        {"dataset": "no-owner"},
        {"dataset": NAME, "license": "mit\nprivate: false"},
        {"dataset": NAME, "private": "yes"},
        {"dataset": NAME, "token": "x"},
    ],
)
def test_arguments_are_checked(args: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        read_args(args)


def test_a_card_says_undefined_in_words(frozen: Snapshot) -> None:
    manifest = {**frozen.manifest}
    manifest["agreement"] = {
        name: {"value": None, "low": None, "high": None, "note": "only one person"} for name in ("alpha", "raw", "ac1")
    }
    del manifest["bias_card"]
    assert "Krippendorff's alpha: undefined: only one person" in card(manifest, {"train": 3}, Wanted(NAME))
