"""Keys of endpoint profiles: read from a named environment variable or held in memory; never stored, logged or shown."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from dataclasses import replace

from data.engine import ModelSpec
from data.records import Model


class EndpointKeys:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._held: dict[str, str] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"EndpointKeys({len(self._held)} held)"

    def hold(self, model_id: str, secret: str) -> None:
        """Keep a typed key until the app ends; '' forgets it."""
        with self._lock:
            if secret.strip():
                self._held[model_id] = secret.strip()
            else:
                self._held.pop(model_id, None)

    def forget(self, model_id: str) -> None:
        with self._lock:
            self._held.pop(model_id, None)

    def of(self, model: Model) -> str:
        """The key to send, '' when there is none. A typed key wins over the environment."""
        with self._lock:
            held = self._held.get(model.model_id, "")
        return held or os.environ.get(str(model.spec.get("key_env", "")), "")

    def where(self, model: Model) -> str:
        """In words, for a page: where the key comes from, never the key."""
        with self._lock:
            held = model.model_id in self._held
        name = str(model.spec.get("key_env", ""))
        if held:
            return "typed in, kept until the app stops"
        if name:
            return f"from ${name}" if os.environ.get(name) else f"${name} is not set"
        return "none"

    def spec(self, model: Model) -> ModelSpec:
        """The model's spec for a child process: a typed key is named by a variable that `env` fills."""
        spec = ModelSpec.from_json(model.spec)
        with self._lock:
            held = model.model_id in self._held
        return replace(spec, key_env=_variable(model)) if held else spec

    def env(self, chosen: Iterable[Model]) -> dict[str, str]:
        """Environment of a run that uses `chosen`: the typed keys, which reach the child this way and no other."""
        with self._lock:
            return {_variable(m): self._held[m.model_id] for m in chosen if m.model_id in self._held}


def _variable(model: Model) -> str:
    return "STUDIO_KEY_" + re.sub(r"[^A-Za-z0-9]", "_", model.model_id).upper()
