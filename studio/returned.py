"""What a run that was trained elsewhere says of itself, as far as pages can take it: figures that are numbers, texts that are text.

Anybody can have written the archive, and what it says is stored, drawn and published with a model later. So nothing is passed
through: each event is made anew from the fields that a run of the studio has. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

_LETTERS = 20_000  # of a text
_METRIC = re.compile(r"[A-Za-z0-9_/@.-]{1,100}")
_VERSION = re.compile(r"[A-Za-z0-9_.+!-]{1,100}")
_NUMBERS = ("steps", "seconds", "first_loss", "rows", "held_out_rows", "right", "resumed_from", "best_step")
_NUMBERS_OF_A_RETRY = ("batch_size", "accumulation")
_FLAGS = ("stopped_early", "memory_ran_out")


def result(event: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a result event. Where the weights lie and what their checksum is, is seen here and not told."""
    kept: dict[str, Any] = {name: event[name] for name in (*_NUMBERS, *_NUMBERS_OF_A_RETRY) if is_number(event.get(name))}
    kept |= {name: event[name] for name in _FLAGS if isinstance(event.get(name), bool)}
    dropped = event.get("dropped")
    if isinstance(dropped, Mapping) and is_number(dropped.get("rows")):
        kept["dropped"] = {"rows": int(dropped["rows"])}
    return kept | {"metrics": _metrics(event.get("metrics"))}


def events(told: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """The events that can be shown, each with its time."""
    for event in told:
        kept = _event(event)
        if kept is not None:
            yield {"at": str(event.get("at"))[:40], "type": event["type"], **kept}


def lines(told: Iterable[Mapping[str, Any]]) -> str:
    """The same as a run folder has them."""
    return "".join(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n" for event in events(told))


def versions(told: Any) -> dict[str, str]:
    """Names of packages and their versions."""
    known = told.items() if isinstance(told, Mapping) else ()
    return {name: version for name, version in list(known)[:50] if _is(_VERSION, name) and _is(_VERSION, version)}


def git(told: Any) -> dict[str, Any]:
    """The commit of the code that trained it."""
    commit = told.get("commit") if isinstance(told, Mapping) else ""
    return {"commit": commit if _is(_VERSION, commit) else "", "dirty": None}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)


def _event(event: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = event.get("type")
    if kind == "metrics" and is_number(event.get("step")):
        resumed = {"resumed": True} if event.get("resumed") is True else {}
        return {"step": int(event["step"]), **_metrics(event, ("step", "resumed")), **resumed}
    if kind == "sample" and is_number(event.get("step")):
        texts = {name: str(event.get(name, ""))[:_LETTERS] for name in ("prompt", "text")}
        split = "held_out" if event.get("split") == "held_out" else "train"
        return {"step": int(event["step"]), "split": split, **texts, "cut": event.get("cut") is True}
    if kind == "log" and isinstance(event.get("text"), str):
        return {"text": event["text"][:_LETTERS]}
    if kind == "status" and event.get("status") in ("queued", "running", "finished", "stopped", "failed"):
        return {"status": event["status"]}
    return None


def _metrics(told: Any, without: tuple[str, ...] = ()) -> dict[str, float | None]:
    """Metrics by their names; null stands for what was no number."""
    items = told.items() if isinstance(told, Mapping) else ()
    return {
        name: value for name, value in items if name not in without and _is(_METRIC, name) and (value is None or is_number(value))
    }


def _is(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
