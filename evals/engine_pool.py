"""The engines of a run that asks several models: one at a time, and a stop is heard while one is loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from data.endpoint import EndpointEngine
from data.engine import Engine, ModelSpec
from data.rundir import RunDir
from training.engines import open_engine


class Engines:
    """At most one engine at a time, kept while the next stage wants the same base; `loading` adds up the seconds it took."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.open_base: ModelSpec | None = None
        self.engine: Engine | None = None
        self.loading = 0.0
        self.notes: list[str] = []  # what the endpoints asked want a reader to know

    def get(self, base: ModelSpec) -> Engine:
        if self.engine is None or base != self.open_base:
            self.close()
            started = time.monotonic()
            with self.run.loading("what was written so far was kept") as say:
                say("loading a model" if base.kind == "local" else "opening an endpoint")
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
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - started, 2)
