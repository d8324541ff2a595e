"""The client of the model worker where the worker is not what it should be: deaf, cut short, out of memory. Nobody waits for ever.

The worker is a few lines that stand in for it; with a real one: `test_studio_inference.py`.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data.errors import EngineError
from studio import worker
from studio.worker import WorkerClient, _Life
from training import wire

pytestmark = pytest.mark.app

DEAF = "import time; time.sleep(600)"
ANSWERING = """
import json, sys
for raw in sys.stdin.buffer:
    asked = json.loads(raw)
    kind = {"say": "piece", "cannot": "error"}.get(asked["op"], "done")
    id = None if asked["op"] == "cannot" else asked["id"]
    print(json.dumps({"id": id, "type": kind, "message": "That line is no request."}), flush=True)
"""


class StandIn(WorkerClient):
    """A client whose worker runs `code`."""

    code = ANSWERING

    def _start(self) -> _Life:
        life = _Life(subprocess.Popen([sys.executable, "-c", self.code], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        life.begin()
        return life


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(worker, "GRACE_S", 0.1)
    made = StandIn(tmp_path / "worker.log")
    yield made
    made.end()


def answers(client: WorkerClient, op: str, **body: Any) -> list[str]:
    return [said["type"] for said in client.ask(op, body, client.new_id())]


def test_a_worker_that_does_not_read_keeps_nobody_from_ending_it(client: StandIn) -> None:
    client.code = DEAF
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(answers, client, "generate", text="x" * 2**20)  # more than a pipe holds
        while client._life is None or not client._life.waiting:
            pass
        client.cancel("r1")
        with pytest.raises(worker.queue.Empty):
            next(client.ask("status", {}, client.new_id(), timeout=0.05))
        client.end()
        with pytest.raises(EngineError, match="unloaded to make room"):
            asking.result()
    assert client.pid == 0


def test_a_generator_left_half_way_may_be_collected_anywhere(client: StandIn) -> None:
    """In the very lines that note another request, too, and by the same thread: a lock held there would never be free."""

    class Collecting(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            leave()
            gc.collect()
            super().__setitem__(key, value)

        def pop(self, key: str, *instead: Any) -> Any:
            left.append(key)
            return super().pop(key, *instead)

    def leave() -> None:
        while abandoned:
            itself = [abandoned.pop()]
            itself.append(itself)  # only the collector finds out that nobody has it

    left: list[str] = []
    abandoned: list[Any] = [client.ask("say", {}, "abandoned")]
    assert next(abandoned[0])["type"] == "piece"
    assert client._life is not None
    client._life.waiting = Collecting(client._life.waiting)
    assert answers(client, "ping") == ["done"]
    assert left[0] == "abandoned"


def test_a_line_that_the_worker_could_not_read_is_said_to_all_who_wait(client: StandIn) -> None:
    waiting = client.ask("say", {}, client.new_id())
    next(waiting)
    with pytest.raises(EngineError, match="no request"):
        answers(client, "cannot")
    with pytest.raises(EngineError, match="no request"):
        next(waiting)
    assert answers(client, "ping") == ["done"]


def test_what_is_longer_than_a_line_may_be_is_refused_in_words(client: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker would read it as two lines, neither of which is a request."""
    monkeypatch.setattr(wire, "MAX_LINE", 1000)
    with pytest.raises(EngineError, match="ask for less"):
        answers(client, "generate", text="x" * 1000)
    assert client.pid == 0
    assert answers(client, "ping", text="x" * 900) == ["done"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_its_answers_cannot_be_read_everybody_is_told_and_another_is_started(
    client: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(raw: bytes) -> Any:
        raise MemoryError

    answers(client, "ping")
    before = client.pid
    with monkeypatch.context() as short:
        short.setattr(worker.json, "loads", loads)
        with pytest.raises(EngineError, match="ended in the middle"):
            answers(client, "ping")
    assert answers(client, "ping") == ["done"]
    assert client.pid not in (0, before)


def test_a_worker_that_there_is_no_thread_for_is_none(client: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Refused(threading.Thread):
        def start(self) -> None:
            if self.name == "model-worker-sort":
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(worker.threading, "Thread", Refused)
    begun = subprocess.Popen([sys.executable, "-c", DEAF], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    monkeypatch.setattr(worker.subprocess, "Popen", lambda *_, **__: started.append(begun) or begun)
    with pytest.raises(EngineError, match="cannot be started"):
        next(WorkerClient(client._log).ask("ping", {}, "r1"))
    assert started == [begun]
    assert begun.poll() is not None, "nobody would hear it, and its memory would be gone"
