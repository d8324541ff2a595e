"""Pushing a trained model to the hub: a real child process, a server on the loopback interface, and no hub in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import HubServer
from safetensors.numpy import save_file

from data.errors import RunError
from data.hub_model import files_of, published, read_args
from data.rundir import RunDir

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
NAME = "somebody/adapter"
CARD = "---\nlicense: mit\n---\n# Nice\n"


@pytest.fixture
def server() -> Iterator[HubServer]:
    started = HubServer(NAME, {}, "models")
    yield started
    started.close()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder with what is published and what is not."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({"a": np.ones((2, 3), np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/somebody/secret/llama", "r": 16}')
    for private in ("studio.json", "optimizer.pt", "notes.pkl", ".env"):
        (folder / private).write_text("secret")
    (folder / "link.json").symlink_to(folder / ".env")
    return folder


def push(path: Path, env: dict[str, str], **args: Any) -> tuple[RunDir, subprocess.CompletedProcess[str]]:
    run = RunDir.create(path, {"run_id": "push", "kind": "hub_model", "module": "data.hub_model", "args": args})
    (path / "README.md").write_text(CARD)
    env = {**os.environ, "HF_HOME": str(path.parent / "hf"), "HF_TOKEN": "hf_secret_of_the_test", **env}
    done = subprocess.run([sys.executable, "-m", "data.hub_model", str(path)], cwd=ROOT, env=env, capture_output=True, text=True)
    return run, done


def the(run: RunDir, kind: str) -> dict[str, Any]:
    return [event for event in run.tail().events if event["type"] == kind][-1]


def test_an_adapter_goes_up_with_its_card_and_nothing_else(tmp_path: Path, adapter: Path, server: HubServer) -> None:
    online = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    run, done = push(tmp_path / "run", online, repository=NAME, folder=str(adapter), license="mit", private=True)
    assert done.returncode == 0, done.stderr
    assert set(server.files) == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert server.files["README.md"].decode() == CARD
    assert server.files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    told = json.loads(server.files["adapter_config.json"])
    assert told == {"base_model_name_or_path": "llama", "r": 16}, "no path of this machine"
    assert the(run, "result")["repository"] == NAME
    assert "hf_secret_of_the_test" not in run.log_tail() + done.stdout + done.stderr


def test_what_should_be_private_does_not_go_where_everybody_sees_it(tmp_path: Path, adapter: Path) -> None:
    """The hub leaves a repository that exists as it is, whatever is asked."""
    server = HubServer(NAME, {}, "models", private=False)
    online = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    run, done = push(tmp_path / "run", online, repository=NAME, folder=str(adapter), license="mit", private=True)
    server.close()
    assert done.returncode == 1
    assert the(run, "error")["message"] == (
        f"{NAME} is on the hub already and everybody can see it; choose another name, or untick Private."
    )
    assert server.files == {}


@pytest.mark.parametrize("base", ["meta-llama/Llama-3.2-1B", "data/demo/model", ""])
def test_a_base_that_is_no_place_on_this_machine_stays_as_it_is(tmp_path: Path, base: str) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": base}))
    assert published(file) == str(file)


def test_without_a_network_the_card_stays_and_that_is_said(tmp_path: Path, adapter: Path) -> None:
    run, done = push(tmp_path / "run", {"HF_HUB_OFFLINE": "1"}, repository=NAME, folder=str(adapter))
    assert done.returncode == 1
    assert the(run, "error")["message"].startswith(f"The hub cannot be reached, so nothing was pushed to {NAME}")
    assert (run.path / "README.md").read_text() == CARD


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"repository": "../etc/passwd"},
        {"repository": "no-owner"},
        {"repository": NAME, "license": "mit\nprivate: false"},
        {"repository": NAME, "private": "yes"},
        {"repository": NAME, "token": "x"},
        {"repository": NAME, "folder": "/nowhere"},
    ],
)
def test_arguments_are_checked(adapter: Path, args: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        read_args({"folder": str(adapter), **args} if args else {})


def test_a_folder_without_safetensors_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_text("pickled")
    assert files_of(tmp_path) == files_of(tmp_path / "gone") == []
