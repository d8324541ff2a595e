"""The web process: it starts in seconds, stays small, and never imports what belongs to the child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.app

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "plotly", "sklearn", "matplotlib")

BUILD = """
import json, sys
from pathlib import Path
from data.settings import Settings
from studio.context import open_studio

said = {}
for visitor in (False, True):
    with open_studio(Settings(home=Path(sys.argv[1]) / str(visitor), visitor=visitor)) as studio:
        from studio.gradio_import import import_gradio

        import_gradio()
        from gradio.routes import App
        from studio.ui import build_ui, launch_options

        servers = []
        made = App.create_app
        App.create_app = lambda *args, **kwargs: servers.append(made(*args, **kwargs)) or servers[-1]
        demo = build_ui(studio)
        App.create_app = made
        launch_options(studio)
        said[str(visitor)] = {
            "open": [d["targets"] for d in demo.config["dependencies"] if d["api_visibility"] != "private"],
            "pages": {path: len(page["components"]) for path, page in demo.config["page"].items()},
            "servers": len(servers),
        }
print(json.dumps({"modules": sorted(sys.modules), "apps": said}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process holds that has built the whole UI, for one person and for visitors."""
    command = [sys.executable, "-c", BUILD, str(tmp_path_factory.mktemp("startup"))]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_the_web_process_imports_nothing_heavy(built: dict[str, Any]) -> None:
    loaded = set(built["modules"])
    assert "gradio" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("visitor", ["False", "True"])
def test_every_page_is_there_and_small(built: dict[str, Any], visitor: str) -> None:
    pages = built["apps"][visitor]["pages"]
    assert set(pages) == {"", "data", "models", "label", "quality", "project", "train", "runs", "runs-compare", "again", "compare"}
    assert max(pages.values()) <= 130, pages
    assert built["apps"][visitor]["servers"] == 1  # each takes a fifth of a second, and a page more would be one more


@pytest.mark.parametrize("visitor", ["False", "True"])
def test_no_event_is_an_interface_for_programs(built: dict[str, Any], visitor: str) -> None:
    assert built["apps"][visitor]["open"] == []
