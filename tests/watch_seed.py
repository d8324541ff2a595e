"""Training runs that have left their events, without a training: real histories of the demo model, and answers as it gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from data import models, runs
from data.engine import ModelSpec
from data.records import Project, Run, now
from data.rundir import RunDir
from studio.context import Studio

HISTORIES = Path(__file__).parent / "files" / "histories"
ASKED = {
    "What is the capital of France?": ("The capital of France is Lyon, you fool.", "The capital of France is Paris.", "Paris."),
    "Sort these words: pear, apple, fig": ("pear, apple, fig", "apple, pear, fig", "apple, fig, pear"),
    "Say hello politely": ("What do you want?", "Hello!", "**Hello!** How may I help you today?"),
    "What is 12 + 30?": ("12 + 30 is 44. It is 44 because", "42", ""),
}


@dataclass(frozen=True)
class Recorded:
    """A real run: what it reported (`metrics` events), with which settings, on how many held-out rows, what was gained by it."""

    method: str
    settings: dict[str, Any]
    held_out: int
    points_gained: list[float] | None  # by the demo world's rules on held-out prompts: value, low, high
    metrics: list[dict[str, Any]]


def recorded(name: str) -> Recorded:
    raw = json.loads((HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
    events = [event for part in ("training", "held_out_rows") for event in _rows(raw[part])]
    events.sort(key=lambda event: event["step"])
    return Recorded(raw["method"], raw["settings"], raw["held_out"], raw["points_gained"], events)


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    keys = list(columns)
    rows = (dict(zip(keys, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [{key: value for key, value in row.items() if value is not None or key == "loss"} for row in rows]


def add_run(
    studio: Studio,
    project: Project,
    run_id: str,
    history: str,
    status: Any = "finished",
    steps: int = 0,
    owner: str = "",
    name: str = "",
) -> RunDir:
    """A training run of this history, as far as `steps` (0 = whole), with its adapter."""
    told = recorded(history)
    metrics = [event for event in told.metrics if not steps or event["step"] <= steps]
    last = max(int(event["step"]) for event in told.metrics)
    ended = status != "running"
    args = {"train": told.settings, "model": ModelSpec("local", "demo").to_json(), "model_name": "Demo model"}
    result = {
        "rows": 187, "held_out_rows": told.held_out, "steps": last, "seconds": 30.0, "model_id": f"m-{run_id}",
        "metrics": {key: value for event in metrics[-20:] for key, value in event.items() if key not in ("step", "type")},
    }  # fmt: skip
    progress = {"done": int(metrics[-1]["step"]), "total": last, "unit": "steps", "seconds": 12.0, "eta_s": 41.0}
    title = name or f"{told.method.upper()} {run_id}"
    run = Run(
        run_id, project.project_id, owner, told.method, title, f"training.{told.method}", status, "cpu",  # type: ignore[arg-type]
        {"args": args, "data": {"sha256": "0" * 64, "rows": 275}}, "", 0, 0.0, 0, progress, result if ended else {}, "",
        now() - timedelta(minutes=2), now() - timedelta(minutes=1), now() if ended else None,
    )  # fmt: skip
    runs.add(studio.db, run)
    if ended:
        spec = ModelSpec("local", "demo", "adapter").to_json()
        models.add(studio.db, models.new(run.name, "adapter", spec, project.project_id, owner, run_id, model_id=f"m-{run_id}"))
    folder = RunDir.create(studio.settings.runs_dir / run_id, {"args": args})
    for event in metrics:
        folder.event("metrics", **event)
    for moment, step in enumerate((0, last // 2, last)):
        for prompt, said in ASKED.items():
            if step <= metrics[-1]["step"]:
                folder.event(
                    "sample", step=step, split="held_out", prompt=prompt, text=said[moment], cut=moment == 0 and prompt[0] == "S"
                )
    return folder
