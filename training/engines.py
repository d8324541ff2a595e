"""Whatever a spec names, opened as an engine: the one place that chooses between a local model and an endpoint.

Free of torch until a local model is really opened, so anyone may import it.
"""

from __future__ import annotations

import os

from data.endpoint import EndpointEngine
from data.engine import Engine, ModelSpec
from data.errors import EngineError


def open_engine(spec: ModelSpec, key: str = "") -> Engine:
    """The engine of `spec`, ready to answer; a local model is loaded here. EngineError in words where that is impossible.

    `key` is the endpoint's; left empty it comes from the environment variable that the spec names.
    """
    if spec.kind == "local":
        from training.local_engine import LocalEngine

        return LocalEngine(spec)
    if spec.kind != "endpoint":
        raise EngineError(f"A model of kind {spec.kind!r} cannot be opened; choose a local model or an endpoint.")
    return EndpointEngine(spec, key or os.environ.get(spec.key_env, ""))
