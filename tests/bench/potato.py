"""Potato, the peer of `make bench-label`: its pairwise task in an environment of its own, driven by key in a real browser.

It is set up as fast as its documentation allows: review mode with no delay, so that a vote goes on by itself. Each vote there is a
page load, so the moment of the key press is kept in the tab's session storage and compared with the clock of the page that
comes next, once its item is on the screen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import free_port

PACKAGE = "potato-annotation==2.12.1"
CONFIG = {
    "annotation_task_name": "Pairwise",
    "task_dir": ".",
    "output_annotation_dir": "annotation_output",
    "output_annotation_format": "json",
    "data_files": ["items.jsonl"],
    "item_properties": {"id_key": "id", "text_key": "text"},
    "user_config": {"allow_all_users": True, "users": []},
    "require_password": False,
    "authentication": {"method": "in_memory"},
    "alert_time_each_instance": 10_000_000,
    "annotation_schemes": [
        {
            "annotation_type": "pairwise",
            "name": "preference",
            "description": "Which answer is better?",
            "mode": "binary",
            "items_key": "text",
            "allow_tie": True,
        }
    ],
    "list_as_text": {"text_list_prefix_type": "alphabet", "horizontal": True},
    "review_mode": {"enabled": True, "auto_advance": True, "delay_ms": 0},
    "site_dir": "default",
}
PROBE = """
(() => {
  const at = () => performance.timeOrigin + performance.now();
  const shown = () => {
    const main = document.querySelector("#main-content");
    return main && main.offsetParent ? document.querySelector("#instance_id")?.value || "" : "";
  };
  addEventListener("keydown", (event) => {
    if (event.key === "1") sessionStorage.setItem("pressed", JSON.stringify([at(), shown()]));
  }, true);
  const look = () => {
    const id = shown();
    const [pressed, was] = JSON.parse(sessionStorage.getItem("pressed") || "[0, null]");
    if (!id || id === was) return requestAnimationFrame(look);
    requestAnimationFrame(() => {
      const painted = new MessageChannel();
      painted.port1.onmessage = () => { window.painted = { id, took: at() - pressed }; };
      painted.port2.postMessage(0);
    });
  };
  requestAnimationFrame(look);
})();
"""


def install(home: Path) -> Path:
    """The peer's own environment under `<home>/peers`, made once; its program."""
    folder = home / "peers" / "potato"
    program = folder / "bin" / "potato"
    if not program.exists():
        print(f"installing {PACKAGE} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", PACKAGE], check=True)
    return program


@contextmanager
def serving(program: Path, folder: Path, pairs: list[tuple[str, str]]) -> Iterator[str]:
    """Potato on these pairs of texts; its address."""
    folder.mkdir(parents=True)
    rows = [json.dumps({"id": f"item{i}", "text": list(pair)}) for i, pair in enumerate(pairs)]
    (folder / "items.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "config.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")  # JSON is YAML
    port = free_port()
    command = [str(program), "start", "config.yaml", "-p", str(port), "--host", "127.0.0.1"]
    with (folder / "potato.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise RuntimeError((folder / "potato.log").read_text()[-3000:])
        yield url
    finally:
        process.terminate()
        process.wait()


class Annotator:
    """One signed-in browser tab."""

    def __init__(self, browser: Any, url: str, delay_ms: float = 0.0) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.context.set_default_timeout(120_000)
        self.context.add_init_script(PROBE)
        self.page = self.context.new_page()
        if delay_ms:
            session = self.context.new_cdp_session(self.page)
            everything = {"offline": False, "latency": delay_ms, "downloadThroughput": -1, "uploadThroughput": -1}
            session.send("Network.emulateNetworkConditions", everything)
        self.page.goto(url)
        self.page.fill("input[name=email]", "annotator")
        self.page.keyboard.press("Enter")
        self._shown()

    def vote(self) -> float:
        """One key press; milliseconds until the next pair was painted."""
        before = self._shown()["id"]
        self.page.keyboard.press("1")
        self.page.wait_for_function("before => window.painted && window.painted.id !== before", arg=before)
        return float(self._shown()["took"])

    def close(self) -> None:
        self.context.close()

    def _shown(self) -> dict[str, Any]:
        self.page.wait_for_function("window.painted")
        shown: dict[str, Any] = self.page.evaluate("window.painted")
        return shown
