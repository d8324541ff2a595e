"""What runs have reported, for their charts: each run folder's events are read once, by byte offset, and kept in memory.

The folder stays the truth: after a restart the next look reads it again from the start.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.rundir import RunDir

KEPT_RUNS = 20
KEPT_SAMPLES = 500
KEPT_EVENTS = 10_000  # of a run; more are thinned out, which no chart shows


@dataclass
class _Seen:
    offset: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Metrics:
    """Reads `metrics`, `sample` and `log` events of run folders; safe from any thread."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, run_id: str) -> list[dict[str, Any]]:
        """The run's metrics events so far, oldest first. `run_id` must be one that the database knows."""
        with self._lock:
            return list(self._update(run_id).metrics)

    def whole(self, run_id: str) -> list[dict[str, Any]]:
        """The same without any thinning, read anew: for a file."""
        seen = _Seen()
        _take(seen, RunDir(self._runs_dir / run_id).tail().events)
        return seen.metrics

    def samples(self, run_id: str) -> list[dict[str, Any]]:
        """What the model in training answered at which step, oldest first."""
        with self._lock:
            return list(self._update(run_id).samples)

    def notes(self, run_id: str) -> list[str]:
        """What the run said in words, oldest first."""
        with self._lock:
            return list(self._update(run_id).log)

    def _update(self, run_id: str) -> _Seen:
        seen = self._seen.setdefault(run_id, _Seen())
        self._seen.move_to_end(run_id)
        while len(self._seen) > KEPT_RUNS:
            self._seen.popitem(last=False)
        tail = RunDir(self._runs_dir / run_id).tail(seen.offset)
        seen.offset = tail.offset
        _take(seen, tail.events)
        if len(seen.metrics) > KEPT_EVENTS:  # of the steps every other one; held-out figures and the places of a resume are few
            seen.metrics = [event for i, event in enumerate(seen.metrics) if i % 2 == 0 or "loss" not in event]
        del seen.samples[:-KEPT_SAMPLES]
        del seen.log[:-200]
        return seen


def _take(seen: _Seen, events: list[dict[str, Any]]) -> None:
    for event in events:
        if event.get("type") == "metrics" and event.get("resumed"):
            # What follows was computed again; the event itself stays, so that the charts can mark the place.
            seen.metrics = [*(old for old in seen.metrics if _step(old) <= _step(event)), event]
            seen.samples = [old for old in seen.samples if _step(old) <= _step(event)]
        elif event.get("type") == "metrics":
            seen.metrics.append(event)
        elif event.get("type") == "sample":
            seen.samples.append(event)
        elif event.get("type") == "log" and isinstance(event.get("text"), str):
            seen.log.append(event["text"])


def _step(event: dict[str, Any]) -> float:
    step = event.get("step")
    return float(step) if isinstance(step, int | float) else 0.0
