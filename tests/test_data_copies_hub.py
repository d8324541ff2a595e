"""Copies in a data set of the hub: over a real connection, within the limits that the hub sets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import close_session, constants

from data import hub_client
from data.copies_hub import HubPlace
from data.errors import WorkspaceError

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent


HUB_CHILD = """
import sys
from pathlib import Path
from data import projects
from data.copies import Copier, recover
from data.copies_hub import HubPlace
from data.database import Database
from data.settings import Settings
home, new = (Settings(home=Path(folder)) for folder in sys.argv[1:])
place = HubPlace("hf://datasets/someone/labels")
db = Database(home)
copier = Copier(home, db, place)
for name in ("first", "second"):
    projects.create(db, name)
    if not copier.copy():
        sys.exit(copier.status.problem)
db.close()
new.home.mkdir()
assert recover(new, place).bytes > 0
print([p.name for p in projects.visible(Database(new))])
"""


def _with_hub(url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    online = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_test"}
    return subprocess.run(
        [sys.executable, "-c", HUB_CHILD, str(tmp_path / "home"), str(tmp_path / "new")],
        env={**os.environ, **online, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_hub_data_set_brings_everything_back(tmp_path: Path) -> None:
    """The real client library, over real HTTP, to a hub on this machine."""
    server = HubServer("someone/labels", {})
    try:
        done = _with_hub(server.url, tmp_path)
    finally:
        server.close()
    assert done.stdout.strip() == "['first', 'second']", done.stderr
    assert len([name for name in server.files if name.startswith("journal/0001-")]) == 2


def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(tmp_path: Path) -> None:
    done = _with_hub("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 1
    assert "check its name, HF_TOKEN and the network." in done.stderr, done.stderr
    with pytest.raises(WorkspaceError, match="no data set"):
        HubPlace("hf://datasets/labels")


def test_a_hub_that_falls_silent_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and never answers; its library would wait for ever, and the app's end with it."""
    monkeypatch.setattr(hub_client, "SILENT_S", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = HubPlace("hf://datasets/someone/labels")
    close_session()
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            place._api.endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(WorkspaceError, match="timed out"):
                place.sizes()
    finally:
        close_session()  # the next one is patient again


def test_the_hub_is_asked_for_no_more_commits_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody labels without a pause for three hours: every few seconds at first, and in no hour more than 128 times."""
    now = [0.0]
    place = HubPlace("hf://datasets/someone/labels", clock=lambda: now[0])
    made: list[float] = []
    monkeypatch.setattr(place._api, "create_commit", lambda *_, **__: made.append(now[0]))
    while now[0] < 3 * 3600:
        place.put({f"journal/{len(made)}": b"x"})
        now[0] += place.every_s
    assert made[20] == 100.0
    assert max(sum(start <= at < start + 3600 for at in made) for start in made) <= 128
    assert made[-1] - made[-2] == pytest.approx(36, abs=1)
    now[0] += 3600
    assert place.every_s == 5.0
