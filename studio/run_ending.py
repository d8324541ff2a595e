"""How a run ended: what it said itself and, where it said nothing, what its process and its last words tell."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from data.records import Run, RunStatus
from data.resume import last_life
from data.rundir import FINAL_STATUS, RunDir, signal_name


class Ending(NamedTuple):
    """How a run ended, from its events and what is known of its process."""

    status: RunStatus
    error: str = ""
    result: dict[str, Any] = {}
    at: datetime | None = None


def ending_of(folder: RunDir, code: Callable[[], int | None]) -> Ending:
    """From all events since its last start: a server that died may have taken some in and not acted on them. `code` tells the exit
    code, None where nobody knows it; it is only asked where the run said nothing."""
    status, error, result, at = "", "", {}, None
    for event in last_life(folder.tail(0).events):
        if event.get("type") == "status" and event.get("status") in FINAL_STATUS:
            status, at = str(event["status"]), _time(event)
        elif event.get("type") == "error":
            error = str(event.get("message", ""))
        elif event.get("type") == "result":
            result = body(event)
    if status:
        return Ending(status, error, result, at)  # type: ignore[arg-type]
    if folder.stop_requested:
        return Ending("stopped", error or "The run was ended before it could save what it had.", result)
    return Ending("lost", error or _silence(folder, code()), result)


def part_seconds(run: Run, folder: RunDir) -> float:
    """How long a run that has ended took since its last start; to its last word, where its end was noticed later."""
    if run.started_at is None or run.ended_at is None:
        return 0.0
    said = [at for event in last_life(folder.tail(0).events) if (at := _time(event)) is not None]
    return max(0.0, (min([run.ended_at, *said[-1:]]) - run.started_at).total_seconds())


def body(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says, without when and of which type it is."""
    return {key: value for key, value in event.items() if key not in ("at", "type")}


def _silence(folder: RunDir, code: int | None) -> str:
    if code == -signal.SIGKILL:
        why = "was killed by the system, most likely because memory ran out: choose a smaller model or batch, then start it again"
    elif code is not None and code < 0:
        why = f"crashed ({signal_name(-code)}); start it again, with a smaller model or batch if memory is short"
    else:
        why = "ended without a word (killed for memory, or the machine was restarted); start it again"
    last = [line for line in folder.log_tail(4000).splitlines() if line.strip()][-3:]
    return f"The run's process {why}." + (f" Its last words: {' / '.join(last)}"[:600] if last else "")


def _time(event: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(event.get("at")))
    except ValueError:
        return None
    return at if at.tzinfo else None
