"""The contract of whatever writes text: a local model, the model worker or an OpenAI-compatible server.

Pages, generation, synthesis and judges speak to an `Engine` and never ask what is behind it. Only plain values cross this border:
a request can travel as one JSON line to another process.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled", "error"]


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class ModelSpec:
    """What to open: a local base (with an adapter or none), or a model behind an OpenAI-compatible endpoint.

    `key_env` names the environment variable that holds the endpoint's key; the key itself is never part of a spec.
    """

    kind: Literal["local", "endpoint"]
    base: str = ""  # local: folder or hub id; endpoint: the model name the server knows
    adapter: str = ""  # local only: folder with adapter_config.json; "" = the base alone
    quantize: bool = False  # local only: load the base in NF4
    url: str = ""  # endpoint only: https://host/v1
    key_env: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: dict[str, Any]) -> ModelSpec:
        return ModelSpec(**raw)


@dataclass(frozen=True)
class GenRequest:
    """One completion to sample. `sample_index` is part of the key: without it a cache returns n identical candidates."""

    messages: tuple[Message, ...]
    max_new_tokens: int = 256
    temperature: float = 0.8  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = off
    seed: int = 0
    sample_index: int = 0
    adapter: str | None = None  # None = the spec's own; "" = the bare base; else an adapter folder over the same base
    stop: tuple[str, ...] = field(default=())

    def key(self, model_key: str = "") -> str:
        """Stable cache key: sha256 over the model's key and every field."""
        body = json.dumps([model_key, asdict(self)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        raw = asdict(self)
        raw["messages"] = [m._asdict() for m in self.messages]
        return raw

    @staticmethod
    def from_json(raw: dict[str, Any]) -> GenRequest:
        raw = dict(raw)
        raw["messages"] = tuple(Message(m["role"], m["content"]) for m in raw["messages"])
        raw["stop"] = tuple(raw.get("stop", ()))
        return GenRequest(**raw)


@dataclass(frozen=True)
class GenResult:
    """What came back for `requests[index]`. With finish_reason "error", `error` says why in words and `text` is what there was."""

    index: int
    text: str
    finish_reason: FinishReason
    tokens: int = 0
    error: str = ""


def storable(text: str) -> str:
    """A model can write half a character, which neither a file nor the database takes."""
    return re.sub("[\ud800-\udfff\x00]", "\ufffd", text)


@dataclass(frozen=True)
class LabelRequest:
    """Ask for the log-probabilities of `labels` as the first token of the assistant's reply."""

    messages: tuple[Message, ...]
    labels: tuple[str, ...] = ("A", "B")
    adapter: str | None = None


@dataclass(frozen=True)
class LabelResult:
    """`logprobs[i]` belongs to `labels[i]` (all spellings summed: "A", " A"); natural log, -inf when unseen among
    the server's top tokens.

    `text` is the raw reply where the engine had to fall back to sampling (`logprobs` is then empty) or the greedy first token.
    """

    index: int
    logprobs: tuple[float, ...]
    text: str = ""
    error: str = ""


class Engine(Protocol):
    """Whatever writes text. Not thread-safe unless it says so; `cancel()` may be called from any thread."""

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        """Yield one result per request as each is done, in any order. A failed request yields an error result."""
        ...

    def stream(self, request: GenRequest) -> Iterator[str]:
        """Yield pieces of text as they are written; raises EngineError."""
        ...

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        """Yield one result per request, in any order."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered prompt; raises EngineError where the engine cannot know (most endpoints)."""
        ...

    def cancel(self) -> None:
        """End the current call soon; results not yet written come back as finish_reason "cancelled"."""
        ...

    def close(self) -> None:
        """Free the model's memory or the connection."""
        ...
