"""The client's end of the model worker's pipes: starts the child, sends lines, sorts the answers by request.

Two threads a life of the child: one reads its lines and puts each into its request's own queue, so any number of handlers can wait
at once; one writes to it, so that nobody waits for a child that does not read. When the child dies, everybody who waited for it is
told why, and the next request starts another.

No lock is held where a request begins or ends: a generator that was left half-way is closed by the garbage collector, in whatever
thread and line it comes, also in one of these. Single operations on dicts and SimpleQueues need none.
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
TOO_MUCH = f"That is more than the model worker takes at once ({wire.MAX_LINE >> 20} MB); ask for less."
GRACE_S = 5.0
END = b""  # of what is written to a worker

Line = dict[str, Any]


@dataclass
class _Life:
    """One child process. `waiting` maps request ids to their queues; `over` is set when its stdout has ended."""

    process: subprocess.Popen[bytes]
    waiting: dict[str, queue.SimpleQueue[Line]] = field(default_factory=dict)
    outbox: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    last_words: str = DIED
    over: bool = False

    def begin(self) -> None:
        try:
            for work in (self.write, self.sort):
                threading.Thread(target=work, name=f"model-worker-{work.__name__}", daemon=True).start()
        except RuntimeError:  # no memory for a thread: nobody would hear it
            self.outbox.put(END)
            self.process.kill()
            self.process.wait()
            raise

    def write(self) -> None:
        """Until a line is empty. A worker that is gone is noticed by the thread that reads from it, which then tells everybody."""
        assert self.process.stdin is not None
        with suppress(OSError), self.process.stdin:
            while line := memoryview(self.outbox.get()):
                while line:
                    line = line[os.write(self.process.stdin.fileno(), line) :]

    def sort(self) -> None:
        """Until its stdout ends: each line to the request it belongs to, and one that belongs to nobody to all."""
        assert self.process.stdout is not None
        try:
            for raw in self.process.stdout:
                with suppress(ValueError, TypeError):  # half a line: it was killed while it wrote
                    self._hear(json.loads(raw))
        finally:  # for whatever reason: nobody would hear from it any more
            self.process.kill()
            self.process.wait()
            self.outbox.put(END)
            self.over = True  # before they are told: who begins to wait after that sees it
            self._tell_all({"type": "error", "message": self.last_words})

    def _hear(self, said: Line) -> None:
        if said["id"] is None:  # a line that it could not read: whose it was is not known, and they would wait for ever
            self._tell_all(said)
        elif (mine := self.waiting.get(said["id"])) is not None:
            mine.put(said)

    def _tell_all(self, said: Line) -> None:
        with suppress(KeyError):
            while True:
                self.waiting.popitem()[1].put(said)


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
        line = wire.line(id=id, op=op, **body)
        if len(line) > wire.MAX_LINE:
            raise EngineError(TOO_MUCH)
        life = self._living()
        mine: queue.SimpleQueue[Line] = queue.SimpleQueue()
        life.waiting[id] = mine
        over = False
        try:
            if life.over:
                over = True
                raise EngineError(life.last_words)
            life.outbox.put(line)
            while not over:
                said = mine.get(timeout=timeout)
                over = (
                    said["type"] in ("done", "error") and said.get("id") == id
                )  # what is said to all ends no request in the worker
                if said["type"] == "error":
                    raise EngineError(str(said["message"]))
                yield said
        finally:
            life.waiting.pop(id, None)
            if not over:
                self.cancel(id)

    def cancel(self, id: str) -> None:
        """Ask for the end of a request; its answers still come, the last one soon."""
        life = self._life
        if life is not None:
            life.outbox.put(wire.line(id=self.new_id(), op="cancel", target=id))

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
        life.outbox.put(END)
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
            life = _Life(process)
            life.begin()
        except (OSError, RuntimeError) as error:
            raise EngineError("The model worker cannot be started; is there memory left, and is the workspace writable?") from error
        return life
