"""The model worker: a child process that keeps models in memory and answers JSON lines (`training/wire.py`) on stdin and stdout.

    python -m training.serve [--log FILE] [--bases 2]

A process of its own, because the web process must start in seconds and never import torch, and because ending it is the only sure
way to give a model's memory back. One base with its adapters is what a comparison of runs needs; a second stays beside it so that
two different bases can stream side by side, and goes when memory is short. Requests take turns, one forward each, so streams run at
the same time and a cancel is heard within a step. What goes wrong in a request is its answer; the worker lives on. It ends when
stdin does, so it cannot outlive the app. Libraries that print write to the log: the answers have a descriptor of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from data.engine import GenRequest, Message, ModelSpec
from data.errors import EngineError, StudioError
from training import wire

FREE_SHARE = 0.25  # of the memory: with less of it free, only one base is kept


@dataclass
class Job:
    """A request under way: `turns` yields the lines it brings, one forward at a time; `over` when they are the last."""

    id: str
    turns: Iterator[list[bytes]]
    call: Any = None
    over: bool = False


class Worker:
    """Reads requests in one thread, answers them in another: `run` is the second and uses the models alone."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, max_bases: int = 2) -> None:
        self.source, self.sink, self.max_bases = source, sink, max_bases
        self.engines: OrderedDict[ModelSpec, Any] = OrderedDict()  # by spec without adapter, the one used last at the end
        self.jobs: dict[str, Job] = {}
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self.under_way: set[str] = set()  # ids read and not yet answered
        self.cancelled: set[str] = set()
        self.doing = ""
        self._writing = threading.Lock()

    # --- the reading thread -----------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """What must be answered while a model loads or a forward runs is answered here."""
        try:
            while raw := self.source.readline(wire.MAX_LINE):
                self._answer(raw)
        finally:  # however it ends, in a failure of its own too: a worker that has gone deaf would look alive for ever
            os._exit(0)  # the app is gone: nothing here is worth a tidy end, and a model may be loading in the other thread

    def _answer(self, raw: bytes) -> None:
        id = None
        try:
            message = self._parsed(raw)
            if message is not None:
                id = message["id"]
                self._hear(message)
        except Exception as error:  # one line that cannot be met, for want of memory perhaps, is answered as such
            self.say(id=id, type="error", message=_words(error))

    def _hear(self, message: dict[str, Any]) -> None:
        if message["op"] == "ping":
            self.say(id=message["id"], type="done", value="pong")
        elif message["op"] == "status":
            self.say(id=message["id"], type="done", value=self.status())
        elif message["op"] == "cancel":
            self._cancel(message)
        else:
            self.under_way.add(message["id"])
            self.waiting.put(message)

    def _parsed(self, raw: bytes) -> dict[str, Any] | None:
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("id"), str) or not isinstance(message.get("op"), str):
            self.say(id=None, type="error", message="That line is no request: a JSON object with an id and an op is needed.")
            return None
        return message

    def _cancel(self, message: dict[str, Any]) -> None:
        target = str(message.get("target", ""))
        if target in self.under_way:
            self.cancelled.add(target)
        job = self.jobs.get(target)
        if job is not None and job.call is not None:
            job.call.cancel()
        self.say(id=message["id"], type="done")

    def say(self, **said: Any) -> None:
        self.write([wire.line(**said)])

    def write(self, lines: list[bytes]) -> None:
        try:
            with self._writing:
                self.sink.write(b"".join(lines))
                self.sink.flush()
        except BrokenPipeError:
            os._exit(0)  # nobody is listening any more

    def status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "models": [{"base": spec.base, "quantize": spec.quantize} for spec in list(self.engines)],
            "memory_mb": self._memory_mb(),
            "busy": len(self.jobs) + self.waiting.qsize() + bool(self.doing),
            "doing": self.doing,
        }

    def _memory_mb(self) -> float:
        held = psutil.Process().memory_info().rss
        if self.engines:  # else torch may be half imported by the other thread
            import torch

            held += torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
        return round(held / 2**20, 1)

    # --- the working thread -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """For ever: take what came in, give every job one turn."""
        while True:
            while not self.jobs or not self.waiting.empty():
                self._start(self.waiting.get())
            for job in list(self.jobs.values()):
                try:
                    lines = next(job.turns)
                    if job.over:
                        self._forget(job.id)  # before it is said: who hears the last line may ask for the status
                    self.write(lines)
                except Exception as error:  # whatever happens in a request must not end the others
                    self._forget(job.id)
                    self.say(id=job.id, type="error", message=_words(error))

    def _start(self, message: dict[str, Any]) -> None:
        job = Job(message["id"], iter(()))
        self.jobs[job.id] = job
        job.turns = self._turns(job, message)

    def _forget(self, id: str) -> None:
        del self.jobs[id]
        self.under_way.discard(id)
        self.cancelled.discard(id)

    def _turns(self, job: Job, message: dict[str, Any]) -> Iterator[list[bytes]]:
        op = message["op"]
        if op not in ("open", "generate", "stream", "label_logprobs", "count_tokens"):
            raise EngineError(f"The model worker knows no operation {op!r}.")
        if job.id in self.cancelled and op == "open":
            raise EngineError("It was cancelled.")
        spec = ModelSpec.from_json(message["spec"])
        engine = self._engine(spec)
        adapter = spec.adapter
        last: dict[str, Any] = {}
        if op == "open":
            engine.adapter(adapter)
            last = {"context": engine.context, "memory_mb": self._memory_mb()}
        elif op == "count_tokens":
            last = {"tokens": engine.count_tokens([Message(m["role"], m["content"]) for m in message["messages"]])}
        else:
            yield from self._forwards(job, engine, adapter, message)
        job.over = True
        yield [wire.line(id=job.id, type="done", value=last)]

    def _forwards(self, job: Job, engine: Any, adapter: str, message: dict[str, Any]) -> Iterator[list[bytes]]:
        from training.local_engine import Call

        call = job.call = Call()
        if job.id in self.cancelled:  # before there was something to tell it to
            call.cancel()
        if message["op"] == "label_logprobs":
            asks = [_with_adapter(wire.label_request_from_json(raw), adapter) for raw in message["requests"]]
            turns = engine.labelling(asks, call)
        else:
            requests = [_with_adapter(GenRequest.from_json(raw), adapter) for raw in message["requests"]]
            turns = engine.generation(requests, call, streaming=message["op"] == "stream")
        for turn in turns:
            yield [_line(job.id, event) for event in turn]

    def _engine(self, spec: ModelSpec) -> Any:
        """The resident engine of the spec's base, loaded when it is not there; idle ones make room for it."""
        if spec.kind != "local":
            raise EngineError("The model worker only holds local models.")
        base = replace(spec, adapter="")
        if base not in self.engines:
            self.doing = f"loading {base.base}"
            print(time.strftime("%H:%M:%S"), self.doing, flush=True)
            try:
                from training.local_engine import LocalEngine  # takes seconds the first time

                self._make_room()
                self.engines[base] = LocalEngine(base)
            finally:
                self.doing = ""
        self.engines.move_to_end(base)
        return self.engines[base]

    def _make_room(self) -> None:
        """Close what was used longest ago, but nothing that a job is using."""
        for base in list(self.engines):
            memory = psutil.virtual_memory()
            crowded = len(self.engines) >= self.max_bases or memory.available < FREE_SHARE * memory.total
            if crowded and not self.engines[base].busy:
                self.engines.pop(base).close()


def _with_adapter(request: Any, adapter: str) -> Any:
    """None means the spec's own adapter, but the engine was opened on the bare base."""
    return replace(request, adapter=adapter) if request.adapter is None else request


def _line(id: str, event: Any) -> bytes:
    from training.local_engine import Piece

    if isinstance(event, Piece):
        return wire.line(id=id, type="piece", index=event.index, text=event.text)
    return wire.line(id=id, type="result", result=wire.result_to_json(event))


def _words(error: Exception) -> str:
    if isinstance(error, StudioError):
        return str(error)
    traceback.print_exception(error)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "The device has no memory left; choose a smaller model, or unload this one first."
    if isinstance(error, KeyError | TypeError | AttributeError | ValueError):
        return f"The model worker did not understand the request ({type(error).__name__}: {error})."
    return f"The model worker failed ({type(error).__name__}: {error}); its log says more."


def _answers_apart(log: Path | None) -> BinaryIO:
    """A private copy of stdout for the answers; descriptor 1 and 2 go to the log, so no library can write between them."""
    answers = os.fdopen(os.dup(1), "wb")
    sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep models in memory and answer JSON lines on stdin.")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--bases", type=int, default=2)
    flags = parser.parse_args()
    worker = Worker(sys.stdin.buffer, _answers_apart(flags.log), flags.bases)
    threading.Thread(target=worker.read, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
