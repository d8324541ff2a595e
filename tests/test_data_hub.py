"""Fetching from the hub: as a real child process, against a server on the loopback interface, and with no hub in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from data import hub, hub_push, importers, projects, prompts
from data.errors import RunError
from data.rundir import RunDir, sha256_of

ROOT = Path(__file__).resolve().parent.parent
ROWS = 1_300  # of the 2,000 there are


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(2_000)]
    files = {
        "README.md": b"---\nlicense: mit\n---\nSums.",
        "train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "sums.py": b"raise SystemExit('code of a data set was run')",
    }
    started = HubServer("somebody/adding", files)
    yield started
    started.close()


def fetch(folder: Path, env: dict[str, str] | None = None, **args: Any) -> tuple[RunDir, subprocess.CompletedProcess[str]]:
    run = RunDir.create(folder, {"run_id": folder.name, "kind": "hub_import", "module": "data.hub", "args": args})
    offline = {"HF_HOME": str(folder.parent / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "data.hub", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **offline, **(env or {})}, capture_output=True, text=True)
    return run, done


def the(run: RunDir, kind: str) -> dict[str, Any]:
    return [event for event in run.tail().events if event["type"] == kind][-1]


@pytest.mark.model
def test_a_data_set_is_fetched_and_imported_from_the_run_folder(settings: Any, db: Any, server: HubServer) -> None:
    online = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    run, done = fetch(settings.runs_dir / "one", online, dataset="somebody/adding", rows=ROWS)
    assert done.returncode == 0, done.stderr
    result = the(run, "result")
    assert result["file"] == "runs/one/somebody--adding-train.parquet"
    assert result["rows"] == ROWS
    assert result["sha256"] == sha256_of(settings.home / result["file"])
    assert the(run, "progress")["done"] == ROWS
    assert "limit of 1,300 rows" in the(run, "log")["text"]
    assert the(run, "status")["status"] == "finished"
    preview = importers.read(settings, Path(result["file"]))
    assert (preview.format, preview.kind, preview.good) == ("parquet", "prompts", ROWS)
    project = projects.create(db, "Sums")
    report = importers.load(db, project.project_id, Path(result["file"]))
    assert report.prompts_added == ROWS
    first = prompts.of_project(db, project.project_id, limit=1)[0]
    assert (first.text, first.reference, first.source) == ("What is 0 plus 0?", "0", "somebody--adding-train.parquet")


@pytest.mark.model
def test_what_the_hub_does_not_have_is_said_in_one_sentence(settings: Any, server: HubServer) -> None:
    online = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    run, done = fetch(settings.runs_dir / "missing", online, dataset="somebody/adding", split="test")
    assert done.returncode == 1
    assert the(run, "error")["message"] == "somebody/adding has no split test; choose one of train."
    assert the(run, "status")["status"] == "failed"
    assert not list(run.path.glob("*.parquet"))


class DatasetNotFoundError(Exception):
    """Named as the library's own, which is known by its name: `data/hub.py` must not import it to look."""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."),
            "The hub has no public data set a/b",
        ),
        (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "a/b is gated"),
        (ConnectionError("Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)"), "The hub cannot be reached"),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['main', 'socratic']"),
            "one of main, socratic.",
        ),
        (ValueError("BuilderConfig 'french' not found. Available: ['default']"), "no configuration french; choose one of default."),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "needs code of its own"),
        (KeyError("x" * 1000), "could not be fetched (KeyError"),
    ],
)
def test_the_hubs_errors_in_words(error: Exception, sentence: str) -> None:
    """The messages are those of datasets 5.2."""
    words = str(hub.explain(error, hub.Wanted("a/b", config="french")))
    assert sentence in words
    assert "\n" not in words
    assert len(words) < 400


def test_errors_that_lead_to_each_other_are_read_once() -> None:
    """As when one is raised again from what went wrong while it was tried again: a circle would be followed for ever."""
    first, second = ValueError("first"), ConnectionError("second")
    first.__cause__, second.__cause__ = second, first
    assert "The hub cannot be reached" in str(hub.explain(first, hub.Wanted("a/b")))
    assert "The hub cannot be reached" in str(hub_push.explain(first, "a/b"))


@pytest.mark.model
def test_without_the_hub_the_run_fails_in_words_and_no_local_folder_is_read(settings: Any, tmp_path: Path) -> None:
    """`datasets` would prefer it to the hub; the run works in the project's folder, where such a folder could lie."""
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    (tmp_path / "openai" / "gsm8k" / "train.jsonl").write_text('{"prompt": "local secret"}\n')
    run = RunDir.create(settings.runs_dir / "local", {"args": {"dataset": "openai/gsm8k"}})
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "data.hub", str(run.path)], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 1
    message = the(run, "error")["message"]
    assert message.startswith("The hub cannot be reached, so openai/gsm8k was not fetched")
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["../etc", "/etc/passwd", "gsm8k", "a/b/c", "json", "owner/na me", "", "owner/..", "http://x/y", "buckets/x", 7]
)
def test_only_names_of_the_hub_are_fetched(name: object) -> None:
    with pytest.raises(RunError):
        hub.read_args({"dataset": name})


@pytest.mark.parametrize(
    "args", [{}, {"dataset": "a/b", "split": "../x"}, {"dataset": "a/b", "rows": 0}, {"dataset": "a/b", "token": "x"}]
)
def test_other_arguments_are_checked_too(args: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        hub.read_args(args)
