"""Run again: a training run once more on the very rows it learned from, with a setting changed, several values tried, or nothing.

    /again?run=RUN_ID

Reached from a run on the Runs page. What stays the same is shown; what changes is typed.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from data.errors import BadInput, StudioError
from data.records import Run
from studio import again, several
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, Top, block, goes_to, guarded, heading, query
from studio.render import Html, ago, count, empty, facts, figures, note, run_link
from studio.run_groups import name_said, value_said
from studio.several_panel import SeveralPanel
from training.config import method_named
from training.methods import METHOD_FACTS

EARLIER = ("beta", "learning_rate", "loss", "epochs", "batch_size", "seed")  # settings that are shown


class AgainPage:
    title, path = "Run again", "again"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.panel = SeveralPanel("again")

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, "runs")
        heading("Run again", "The same rows, start and settings, but for what you change here. Left empty, nothing changes.")
        with gr.Column(elem_classes="st-panel"):
            self.same = block(elem_id="again-same")
            self.panel.build()
            with gr.Row():
                self.go = gr.Button("Start", variant="primary", interactive=False, scale=0, min_width=270, elem_id="again-go")
        self.of = gr.Textbox("", visible=False)
        self.where = gr.Textbox("", visible=False)
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        shown = [self.panel.says, self.go]
        demo.load(guarded(self.load), outputs=[self.top.html, self.of, self.same, *self.panel.names, *shown], **quiet)
        gr.on(self.panel.changed, guarded(self.say), [self.of, *self.panel.inputs], shown, **quiet)
        goes_to(self.go.click(guarded(self.start), [self.of, *self.panel.inputs], self.where, **PRIVATE), self.where)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        self._studio.jobs.prepare()
        top, run = self.top.show(viewer, self._studio.project(viewer)), self._run(viewer, query(request, "run"))
        if run is None:
            nothing = empty("Choose a training run first.", "runs", "Go to the runs")
            return [top, "", nothing, *[gr.skip()] * len(self.panel.names), "", gr.Button(interactive=False)]
        return [top, run.run_id, self._same(run), *self.panel.offer(run.kind), *self._says(viewer, run, [])]

    def say(self, request: gr.Request, of: str, *values: Any) -> list[Any]:
        viewer = self._studio.viewer(request)
        run = self._run(viewer, of)
        return self._says(viewer, run, self.panel.read(values)) if run else ["", gr.Button(interactive=False)]

    def start(self, request: gr.Request, of: str, *values: Any) -> str:
        viewer = self._studio.viewer(request)
        run = self._run(viewer, of)
        if run is None:
            raise BadInput(again.NO_TRAINING)
        made = several.combinations(run.kind, again.config_of(run), self.panel.read(values))
        return f"./{run_link(several.start(self._studio, viewer, run.kind, made, run))}"

    # --- what is shown ---

    def _run(self, viewer: Viewer, run_id: str) -> Run | None:
        """The training run that is meant, None where there is none; NotFound for another's."""
        run = self._studio.run(viewer, run_id) if run_id else None
        return run if run is not None and isinstance((run.config.get("args") or {}).get("train"), dict) else None

    def _same(self, run: Run) -> Html:
        settings, data = again.config_of(run).to_json(), run.config.get("data") or {}
        names = [name for name in EARLIER if name in settings]
        said = ", ".join(f"{name_said(name)} {value_said(settings[name])}" for name in names)
        rows = again.train_rows(self._studio, run)
        method = METHOD_FACTS[method_named(run.kind)]
        frozen = f"frozen then ({str(data.get('sha256', ''))[:8]}): newer labels are not in"
        link = Html(f'<a href="./{run_link(run)}">{figures(run.name)}</a>')
        shown: list[tuple[str, object, object]] = [
            ("Of the run", link, f"{run.status}, {ago(run.queued_at)}"),
            ("Method", method.title or run.kind.upper(), said),
            ("Starts from", str(run.config["args"].get("model_name") or "its base model"), ""),
            ("Learns from", count(rows, *method.row), frozen),
        ]
        return facts(shown)

    def _says(self, viewer: Viewer, run: Run, wanted: list[several.Setting]) -> list[Any]:
        """What would be started, or why it cannot be, and the button."""
        try:
            config = again.config_of(run)
            made = several.combinations(run.kind, config, wanted)
            again.parent_of(self._studio, viewer, run)
            again.frozen_file(self._studio, run)
            if len(made) > 1 and viewer.is_visitor:
                raise BadInput(several.ALONE)
        except StudioError as error:
            return [note(str(error), "bad"), gr.Button("Start", interactive=False)]
        base, rows = str(run.config["args"]["model"].get("base", "")), again.train_rows(self._studio, run)
        told = several.preview(self._studio, run.project_id, base, run.kind, config, made, rows)
        label = f"Start {len(made)} runs" if len(made) > 1 else "Run it with this change" if made[0] else "Run it again as it was"
        return [Html(f'<p class="st-sub">{figures(told)}</p>'), gr.Button(label, interactive=True)]
