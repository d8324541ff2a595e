"""What the model worker and its client say to each other: one JSON object a line, each with the id of the request it belongs to.

    -> {"id", "op": "open" | "generate" | "stream" | "label_logprobs" | "count_tokens" | "cancel" | "status" | "ping", ...}
    <- {"id", "type": "result", "result": {...}}     a GenResult or LabelResult, as each is done
    <- {"id", "type": "piece", "text": "..."}        of a stream
    <- {"id", "type": "done", ...}                   the last line of a request that went well; `value` holds a single answer
    <- {"id", "type": "error", "message": "..."}     the last line of one that did not; without an id where the line was no request

`spec` is a ModelSpec, `requests` a list of GenRequest or LabelRequest, `target` the id of a request to cancel. JSON has no
infinities, so a log-probability of -inf travels as null. Free of torch: the client's process must never import it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from data.engine import GenResult, LabelRequest, LabelResult, Message

MAX_LINE = 64 * 2**20  # bytes of a request; a longer one is cut, and is none


def line(**said: Any) -> bytes:
    """ASCII, so that nothing a model writes (half a character, odd line ends) can break the line."""
    return json.dumps(said, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def label_request_to_json(request: LabelRequest) -> dict[str, Any]:
    return {**asdict(request), "messages": [m._asdict() for m in request.messages], "labels": list(request.labels)}


def label_request_from_json(raw: dict[str, Any]) -> LabelRequest:
    messages = tuple(Message(m["role"], m["content"]) for m in raw["messages"])
    return LabelRequest(messages, tuple(raw["labels"]), raw.get("adapter"))


def result_to_json(result: GenResult | LabelResult) -> dict[str, Any]:
    raw = asdict(result)
    if isinstance(result, LabelResult):
        raw["logprobs"] = [odds if math.isfinite(odds) else None for odds in result.logprobs]
    return raw


def label_result_from_json(raw: dict[str, Any]) -> LabelResult:
    return LabelResult(**{**raw, "logprobs": tuple(-math.inf if odds is None else odds for odds in raw["logprobs"])})
