"""The small JSON files of a model's folder. It comes from anywhere, so nothing of what they hold is taken for granted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 16 * 2**20  # thousands of labels or added tokens are a few MB


def read_object(file: Path) -> dict[str, Any]:
    """What config.json and its like hold. OSError when the file cannot be read, ValueError in words when it is no such thing."""
    with file.open("rb") as source:
        content = source.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{file.name} is far too large")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is no JSON") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return found


def names_kind(architectures: object, ending: str) -> bool:
    """Whether what a config.json says of its architectures, a list of names or one alone, has one that ends so."""
    names = architectures if isinstance(architectures, list | tuple) else [architectures]
    return any(isinstance(name, str) and name.endswith(ending) for name in names)
