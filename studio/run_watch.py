"""The part of the Runs page that watches a training run: the verdict, the charts and the sample answers.

The page builds it, adds `outputs` to what it shows, and asks `show` for their values. What was zoomed into is kept in the page
(`look`), so that a second tab has its own. A run's charts are sent anew only when something was added to them: `seen` says what
the browser has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from data.errors import NotFound
from data.records import Run
from labeling import snapshots
from studio.context import Studio
from studio.frame import block
from studio.run_chart_notes import notes_of
from studio.run_charts import charts, read_look
from studio.run_history import History
from studio.run_samples import samples
from studio.run_verdict import Verdict, shown, verdict
from training.methods import is_training

SCRIPT = Path(__file__).with_name("run_charts.js").read_text(encoding="utf-8")
ENDED = ("finished", "failed", "stopped", "lost")


class RunWatch:
    """Build `build_verdict` where the run's head is and `build` below it."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build_verdict(self) -> None:
        self.verdict = block(elem_id="run-verdict")

    def build(self) -> None:
        self.charts = block(elem_id="run-charts", js_on_load=SCRIPT)
        self.samples = block(elem_id="run-samples")
        self.look = gr.Textbox("", visible=False)
        self.seen = gr.Textbox("", visible=False)

    @property
    def outputs(self) -> list[Any]:
        return [self.verdict, self.charts, self.samples, self.seen]

    @property
    def inputs(self) -> list[Any]:
        return [self.look, self.seen]

    def show(self, run: Run, raw_look: str = "", seen: str = "") -> list[Any]:
        """Values of `outputs`."""
        metrics = self._studio.metrics.of(run.run_id)
        told = self._studio.metrics.samples(run.run_id)
        found = judged(self._studio, run)
        now = json.dumps([run.run_id, len(metrics), metrics[-1].get("at") if metrics else "", len(told), raw_look])
        if seen == now:
            return [shown(found, run.status in ENDED), gr.skip(), gr.skip(), gr.skip()]
        drawn = charts(metrics, read_look(raw_look), f"runs={run.run_id}", notes_of(run.kind, _settings(run), metrics))
        return [shown(found, run.status in ENDED), drawn, samples(told), now]

    def nothing(self) -> list[Any]:
        return ["", "", "", ""]


def judged(studio: Studio, run: Run) -> Verdict | None:
    """The verdict on a training run as far as it has come, None for any other kind of run."""
    if not is_training(run.kind):
        return None
    metrics = studio.metrics.of(run.run_id)
    return verdict(History(run.kind, metrics, _settings(run), held_out_rows(studio, run), run.status in ENDED))


def _settings(run: Run) -> Mapping[str, Any]:
    return run.config.get("args", {}).get("train", {})


def held_out_rows(studio: Studio, run: Run) -> int:
    """How many rows it is tested on: what the run says at its end, until then what was frozen for it; 0 where nobody knows."""
    if run.result.get("held_out_rows") is not None:
        return int(run.result["held_out_rows"])
    try:
        return int(snapshots.get(studio.db, run.snapshot_id).manifest["rows"]["held_out"])
    except (NotFound, KeyError, TypeError):
        return 0
