"""What a run that asks models needs around them: engines one at a time, a stop that is heard within a step, and progress."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from data.endpoint import EndpointEngine
from data.engine import Engine, ModelSpec
from data.rundir import RunDir, Stopped
from training.engines import open_engine


class Engines:
    """At most one engine at a time, kept while the next stage wants the same base; `loading` adds up the seconds it took."""

    def __init__(self) -> None:
        self.open_base: ModelSpec | None = None
        self.engine: Engine | None = None
        self.loading = 0.0
        self.notes: list[str] = []  # what the endpoints asked want a reader to know

    def get(self, base: ModelSpec) -> Engine:
        if self.engine is None or base != self.open_base:
            self.close()
            started = time.monotonic()
            self.engine, self.open_base = open_engine(base, os.environ.get(base.key_env, "")), base
            self.loading += time.monotonic() - started
        return self.engine

    def cancel(self) -> None:
        if self.engine is not None:
            self.engine.cancel()

    def close(self) -> None:
        if isinstance(self.engine, EndpointEngine):
            self.notes += [note for note in self.engine.notes() if note not in self.notes]
        if self.engine is not None:
            self.engine.close()
        self.engine = self.open_base = None

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def base_of(spec: ModelSpec) -> ModelSpec:
    """What two specs must share to be answered by one engine; the adapter travels with each request."""
    return replace(spec, adapter="")


def adapter_of(spec: ModelSpec) -> str | None:
    return spec.adapter if spec.kind == "local" else None


@contextmanager
def cancel_on_stop(run: RunDir, engines: Engines) -> Iterator[None]:
    """Watch for the stop file from a thread, so that a long batch ends within a step and not at its end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if run.stop_requested:
                engines.cancel()  # again and again: the next call may only just have begun

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - started, 2)


class Meter:
    """Progress events at most twice a second, and the last one always; ends the run when it was asked to stop."""

    def __init__(self, run: RunDir, unit: str) -> None:
        self.run, self.unit, self.started, self.said = run, unit, time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        if self.run.stop_requested:
            raise Stopped
        if done == total or time.monotonic() - self.said > 0.5:
            self.said = time.monotonic()
            self.run.progress(done, total, self.unit, self.started)
