"""The client's end of the model worker's pipes: starts the child, sends lines, sorts the answers by request.

One thread a life of the child reads its lines and puts each into its request's own queue, so any number of handlers can wait at
once. When the child dies, everybody who waited for it is told why, and the next request starts another.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import EngineError
from training import wire

ROOT = Path(__file__).resolve().parent.parent
DIED = "The model worker ended in the middle of this (perhaps the memory was full); ask again and it starts anew."
UNLOADED = "The model was unloaded to make room; ask again and it is loaded anew."
GRACE_S = 5.0

Line = dict[str, Any]


@dataclass
class _Life:
    """One child process. `waiting` maps request ids to their queues; `over` is set, under the lock, when its stdout has ended."""

    process: subprocess.Popen[bytes]
    waiting: dict[str, queue.SimpleQueue[Line]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    last_words: str = DIED
    over: bool = False

    def send(self, line: bytes) -> None:
        """A worker that is gone is noticed by the thread that reads from it, which then tells everybody."""
        with suppress(BrokenPipeError, ValueError), self.lock:
            assert self.process.stdin is not None
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def sort(self) -> None:
        """Until its stdout ends: each line to the request it belongs to."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            try:
                said = json.loads(raw)
            except ValueError:  # half a line: it was killed while it wrote
                continue
            mine = self.waiting.get(str(said.get("id")))
            if mine is not None:
                mine.put(said)
        self.process.wait()
        with self.lock:
            self.over = True
            for mine in self.waiting.values():
                mine.put({"type": "error", "message": self.last_words})


class WorkerClient:
    """Thread-safe. Nothing runs until the first `ask`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._life: _Life | None = None
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    @property
    def pid(self) -> int:
        """0 while no worker runs."""
        life = self._life
        return life.process.pid if life is not None and not life.over else 0

    def new_id(self) -> str:
        return f"r{next(self._ids)}"

    def ask(self, op: str, body: Line, id: str, timeout: float | None = None) -> Iterator[Line]:
        """The worker's answers to one request up to the last, which is of type "done"; abandoned half-way it is cancelled.

        EngineError for an error line and for a worker that died; queue.Empty when a line takes longer than `timeout`.
        """
        life = self._living()
        mine: queue.SimpleQueue[Line] = queue.SimpleQueue()
        with life.lock:
            if life.over:
                raise EngineError(life.last_words)
            life.waiting[id] = mine
        over = False
        try:
            life.send(wire.line(id=id, op=op, **body))
            while not over:
                said = mine.get(timeout=timeout)
                over = said["type"] in ("done", "error")
                if said["type"] == "error":
                    raise EngineError(str(said["message"]))
                yield said
        finally:
            with life.lock:
                life.waiting.pop(id, None)
            if not over:
                self.cancel(id)

    def cancel(self, id: str) -> None:
        """Ask for the end of a request; its answers still come, the last one soon."""
        life = self._life
        if life is not None:
            life.send(wire.line(id=self.new_id(), op="cancel", target=id))

    def status(self) -> Line | None:
        """What the worker says of itself, at once, also while a model loads; None when it does not run. Starts nothing."""
        if not self.pid:
            return None
        try:
            return next(iter(self.ask("status", {}, self.new_id(), timeout=2.0)))["value"]
        except (EngineError, queue.Empty):
            return {} if self.pid else None

    def end(self) -> None:
        """Close its stdin, at which it ends; kill it when it does not. All of its memory is free when this returns."""
        with self._lock:
            life, self._life = self._life, None
        if life is None:
            return
        life.last_words = UNLOADED
        with suppress(OSError), life.lock:
            assert life.process.stdin is not None
            life.process.stdin.close()
        try:
            life.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            life.process.kill()
            life.process.wait()

    def _living(self) -> _Life:
        with self._lock:
            if self._life is None or self._life.over or self._life.process.poll() is not None:
                self._life = self._start()
            return self._life

    def _start(self) -> _Life:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "training.serve", "--log", str(self._log)],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the app; the worker ends when its stdin does
            )
        except OSError as error:
            raise EngineError("The model worker cannot be started; is there memory left, and is the workspace writable?") from error
        life = _Life(process)
        threading.Thread(target=life.sort, name="model-worker-reader", daemon=True).start()
        return life
