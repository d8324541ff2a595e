"""Models for the pages: the model worker for local ones, plain HTTP for endpoints; never torch in this process.

    model = inference.open(spec, key)                   # an Engine; a local model is in memory when this returns
    for piece in inference.stream(spec, request, key):  # the same without a handle; so are generate, label_logprobs, count_tokens

Safe to use from any number of threads at once, and two streams run at the same time. The worker starts with the first request, and
anew when it died. Closing a generator half-way (a tab was closed) cancels its request. `key` is an endpoint's; left empty it comes
from the environment variable that the spec names.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from data.endpoint import EndpointEngine
from data.engine import Engine, GenRequest, GenResult, LabelRequest, LabelResult, Message, ModelSpec
from data.errors import EngineError
from data.settings import Settings
from studio.worker import WorkerClient
from training import wire


@dataclass(frozen=True)
class InferenceStatus:
    """What the worker holds, for a page. `models` are bases (folder or hub id); `doing`: in words, what keeps it from answering."""

    running: bool = False
    models: tuple[str, ...] = ()
    memory_mb: float = 0.0
    busy: int = 0
    doing: str = ""
    pid: int = 0


class WorkerModel:
    """A local spec as the worker answers for it: an Engine for many threads; `cancel` ends this handle's calls alone."""

    def __init__(self, client: WorkerClient, spec: ModelSpec) -> None:
        self.spec = spec
        self._client = client
        self._under_way: set[str] = set()  # without a lock, as in `studio/worker.py`

    def open(self) -> dict[str, Any]:
        """Load the base and the adapter; what the worker says of them: context, memory_mb."""
        return dict(self._value(self._ask("open", {})))

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        for said in self._ask("generate", {"requests": [r.to_json() for r in requests]}):
            if said["type"] == "result":
                yield GenResult(**said["result"])

    def stream(self, request: GenRequest) -> Iterator[str]:
        for said in self._ask("stream", {"requests": [request.to_json()]}):
            if said["type"] == "piece":
                yield str(said["text"])
            elif said["type"] == "result" and said["result"]["finish_reason"] == "error":
                raise EngineError(str(said["result"]["error"]))

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        for said in self._ask("label_logprobs", {"requests": [wire.label_request_to_json(r) for r in requests]}):
            if said["type"] == "result":
                yield wire.label_result_from_json(said["result"])

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return int(self._value(self._ask("count_tokens", {"messages": [m._asdict() for m in messages]}))["tokens"])

    def cancel(self) -> None:
        for id in self._under_way.copy():
            self._client.cancel(id)

    def close(self) -> None:
        """The base stays in the worker for the next one."""
        self.cancel()

    def _ask(self, op: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        id = self._client.new_id()
        self._under_way.add(id)
        try:
            yield from self._client.ask(op, {"spec": self.spec.to_json(), **body}, id)
        finally:
            self._under_way.discard(id)

    def _value(self, answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
        return next(dict(said["value"]) for said in answers if said["type"] == "done")


class Inference:
    """Thread-safe. `close()` when the app ends; the worker also ends by itself when this process does."""

    def __init__(self, settings: Settings) -> None:
        self._client = WorkerClient(settings.home / "worker.log")
        self._models: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._seen = InferenceStatus()

    def open(self, spec: ModelSpec, key: str = "") -> Engine:
        """An engine for `spec`, ready to answer; EngineError in words when its model cannot be used."""
        model = self._engine(spec, key)
        if isinstance(model, WorkerModel):
            model.open()
        return model

    def generate(self, spec: ModelSpec, requests: Sequence[GenRequest], key: str = "") -> Iterator[GenResult]:
        with self._opened(spec, key) as model:
            yield from model.generate(requests)

    def stream(self, spec: ModelSpec, request: GenRequest, key: str = "") -> Iterator[str]:
        with self._opened(spec, key) as model:
            yield from model.stream(request)

    def label_logprobs(self, spec: ModelSpec, requests: Sequence[LabelRequest], key: str = "") -> Iterator[LabelResult]:
        with self._opened(spec, key) as model:
            yield from model.label_logprobs(requests)

    def count_tokens(self, spec: ModelSpec, messages: Sequence[Message], key: str = "") -> int:
        with self._opened(spec, key) as model:
            return model.count_tokens(messages)

    def cancel(self) -> None:
        """Everything under way, whoever asked for it."""
        with self._lock:
            models = list(self._models)
        for model in models:
            model.cancel()

    def unload(self) -> None:
        """End the worker, which frees all of its memory; whoever waits for it is told so."""
        self._client.end()

    def close(self) -> None:
        self.cancel()
        self.unload()

    def status(self) -> InferenceStatus:
        """At once, also while a model loads; it starts nothing."""
        said = self._client.status()
        if said is None:
            return InferenceStatus()
        if not said:  # too busy to answer at once
            seen, pid = self._seen, self._client.pid
            return (
                replace(seen, doing=seen.doing or "busy") if seen.pid == pid else InferenceStatus(True, doing="starting", pid=pid)
            )
        models = tuple(str(model["base"]) for model in said["models"])
        self._seen = InferenceStatus(
            True, models, float(said["memory_mb"]), int(said["busy"]), str(said["doing"]), int(said["pid"])
        )
        return self._seen

    def _engine(self, spec: ModelSpec, key: str) -> Engine:
        model: Engine
        if spec.kind == "endpoint":
            model = EndpointEngine(spec, key or os.environ.get(spec.key_env, ""))
        else:
            model = WorkerModel(self._client, spec)
        with self._lock:
            self._models.add(model)
        return model

    @contextmanager
    def _opened(self, spec: ModelSpec, key: str) -> Iterator[Engine]:
        model = self._engine(spec, key)
        try:
            yield model
        finally:
            model.close()
