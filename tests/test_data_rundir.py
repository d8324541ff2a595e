"""A child that is asked to stop: at once while it loads, in its own time once there is something to save."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data.rundir import Meter, RunDir, Stopped, cancel_on_stop

ROOT = Path(__file__).resolve().parent.parent
CHILD = """
import sys, threading, time
from data.rundir import RunDir, run_child

def main(run: RunDir):
    with run.loading("nothing was saved") as say:
        say("reading a large file")
        {loading}
    (run.path / "loaded").touch()
    {saving}
    return {{"answer": 42}}

run_child(main)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", {})


def start(run: RunDir, loading: str = "pass", saving: str = "pass") -> subprocess.Popen[bytes]:
    code = CHILD.format(loading=loading, saving=saving)
    with (run.path / "stdout.log").open("ab") as out:
        return subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT, stdout=out, stderr=out)


def until(run: RunDir, child: subprocess.Popen[bytes], unit: str = "", file: str = "") -> None:
    while not (file and (run.path / file).exists()) and not any(e.get("unit") == unit for e in run.tail().events if unit):
        assert child.poll() is None, run.log_tail()
        time.sleep(0.01)


def said(run: RunDir, type: str, key: str) -> list[str]:
    return [event[key] for event in run.tail().events if event["type"] == type]


@pytest.mark.parametrize(
    "blocked",
    [
        "time.sleep(3600)",
        "threading.Event().wait()",
        "exec('try:\\n while True: time.sleep(3600)\\nexcept Exception: pass')",
    ],
)
def test_a_child_that_hears_nothing_while_it_loads_is_ended_at_once(run: RunDir, blocked: str) -> None:
    child = start(run, loading=blocked)
    until(run, child, unit="reading a large file")
    run.request_stop()
    assert child.wait() == 0
    assert said(run, "status", "status") == ["running", "stopped"]
    assert said(run, "log", "text") == ["Stopped while reading a large file; nothing was saved."]
    assert not (run.path / "loaded").exists()


def test_a_full_disk_keeps_nobody_from_stopping(run: RunDir) -> None:
    """What can no longer be written down is no reason to load on."""
    full = "def event(self, *_, **__): raise OSError(28, 'No space left on device')\n        RunDir.event = event"
    child = start(run, loading=f"{full}\n        (run.path / 'full').touch()\n        time.sleep(3600)")
    until(run, child, file="full")
    run.request_stop()
    assert child.wait() == 0


@pytest.mark.parametrize("blocked", ["time.sleep(3600)", "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"])
def test_sigterm_while_it_loads_is_the_same_orderly_stop(run: RunDir, blocked: str) -> None:
    """Inside a library too, which lets no handler of the main thread run."""
    child = start(run, loading=blocked)
    until(run, child, unit="reading a large file")
    child.terminate()
    assert child.wait() == 0
    assert said(run, "status", "status") == ["running", "stopped"]


def test_once_there_is_something_to_save_a_stop_ends_nothing_by_force(run: RunDir) -> None:
    """Five looks of the watching thread pass between the stop and the child's own end."""
    saving = "\n    ".join(
        ["while not run.stop_requested: time.sleep(0.01)", "time.sleep(1)", "(run.path / 'saved').write_text('whole')"]
    )
    child = start(run, saving=saving)
    until(run, child, file="loaded")
    run.request_stop()
    assert child.wait() == 0
    assert (run.path / "saved").read_text() == "whole"
    assert said(run, "status", "status") == ["running", "stopped"]
    assert said(run, "result", "answer") == [42]


def test_a_failure_while_it_loads_is_said_in_words_and_no_stop(run: RunDir) -> None:
    assert start(run, loading="raise ValueError('no such file')").wait() == 1
    assert said(run, "error", "message") == ["ValueError: no such file"]
    assert said(run, "status", "status") == ["running", "failed"]


def test_a_run_in_this_process_stops_at_the_next_call(run: RunDir) -> None:
    seen: list[int] = []

    def check() -> None:
        with run.loading("nothing was saved") as say:
            for number in range(100):
                say("checking rows", number, 100)
                seen.append(number)
                if number == 41:
                    run.request_stop()

    with pytest.raises(Stopped, match=r"^Stopped while checking rows; nothing was saved\.$"):
        check()
    assert seen == list(range(42))
    with pytest.raises(Stopped), run.loading("nothing was saved"):
        pass


def test_progress_while_loading_is_a_line_for_the_page_and_not_one_a_row(run: RunDir) -> None:
    with run.loading("nothing was saved") as say:
        say("loading the base model")
        for number in range(10_000):
            say("checking rows", number, 10_000)
    events = [(e["unit"], e["done"], e["total"], e["loading"]) for e in run.tail().events]
    assert events[:2] == [("loading the base model", 0, 0, True), ("checking rows", 0, 10_000, True)]
    assert len(events) < 10


def test_cancel_on_stop_calls_again_until_the_block_ends(run: RunDir) -> None:
    called = threading.Semaphore(0)
    with cancel_on_stop(run, called.release):
        run.request_stop()
        assert called.acquire()
        assert called.acquire()
    assert not [t for t in threading.enumerate() if t.name == "stop-watch"]


def test_a_meter_says_the_last_one_and_stops(run: RunDir) -> None:
    meter = Meter(run, "verdicts")
    for done in range(1, 101):
        meter(done, 100)
    assert [e["done"] for e in run.tail().events][-1] == 100
    run.request_stop()
    with pytest.raises(Stopped):
        meter(1, 2)


def test_the_watching_thread_ends_with_the_process(run: RunDir) -> None:
    assert start(run).wait() == 0
    assert said(run, "status", "status") == ["running", "finished"]
    assert os.listdir(run.path)
