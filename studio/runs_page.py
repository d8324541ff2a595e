"""Runs: what goes on, how far it is, and what came of it.

The page only reads: rows from the database, charts and log from the run folder. So a closed tab, a second tab or a restart
changes nothing. The timer ticks only while a run of the project is going. Which run is looked at is in the address, so it
can be kept or sent.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from data import runs
from data.errors import BadInput, NotFound
from data.records import Run
from data.rundir import RunDir
from studio.again import config_of
from studio.choices import outside_world
from studio.comparisons import after_training, start
from studio.context import Studio, Viewer
from studio.elsewhere import Prepared, of_run
from studio.elsewhere_panel import BringBack, ElsewherePanel, Outline
from studio.frame import PRIVATE, Top, block, goes_to, guarded, heading
from studio.render import Column, Html, ago, badge, bar, empty, esc, progress_line, run_link, share_done, shorten, table, took
from studio.run_controls import RunControls
from studio.run_report import after, report
from studio.run_watch import RunWatch
from studio.take_out import TakeOut, same_again
from training.methods import METHOD_FACTS, is_training, makes_adapter, short_name

SHOWN = 50
LOG_BYTES = 12_000
PICK = """
element.addEventListener('click', e => {
  const a = e.target.closest('a[data-run]');
  if (!a || e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
  e.preventDefault();
  history.replaceState(null, '', a.getAttribute('href'));
  trigger('pick', {run: a.dataset.run});
  const panel = document.getElementById('run-panel');  // a list below long charts would seem to do nothing
  if (panel && panel.getBoundingClientRect().top < 0) panel.scrollIntoView();
});
"""
KINDS: dict[str, str] = {
    **{method: f"training ({short_name(method)})" for method in METHOD_FACTS},
    "preflight": "check before training",
    "generate": "answers",
    "compare": "comparison",
    "hub_import": "download",
    "hub_push": "upload",
    "hub_model": "upload",
    "merge": "merging",
    "gguf": "GGUF file",
}


class RunsPage:
    title, path = "Runs", "runs"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.watch = RunWatch(studio)
        self.take_out = TakeOut(studio)
        self.elsewhere = ElsewherePanel(studio, self.outline, self.prepared, "run")
        self.back = BringBack(studio)
        self.controls = RunControls(studio)

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading("Runs", "Training, answering and comparing go on here, also when you close this page.")
        with gr.Column(elem_classes="st-panel", elem_id="run-panel"):
            self.detail = block(elem_id="run-detail")
            self.watch.build_verdict()
            with gr.Row(elem_classes="st-maybe st-center"):
                self.controls.build_buttons()  # going on comes before what can be done with the part that is there
                self.compare = gr.Button(
                    "Compare before and after", variant="primary", visible=False, scale=0, min_width=270, elem_id="run-compare"
                )
                self.stop = gr.Button("Stop", visible=False, size="md", scale=0, min_width=240, elem_id="run-stop")
                self.after = block(elem_id="run-after", scale=1)
            self.controls.build_group(PICK)
        self.watch.build()
        self.take_out.build()
        self.elsewhere.build()
        with gr.Accordion("Log", open=False, visible=False, elem_id="run-log-box") as self.log_box:
            self.log = block(elem_id="run-log")
        self.controls.build_queue()
        self.list = block(elem_id="run-list", js_on_load=PICK)
        self.picked = gr.Textbox("", visible=False)
        self.where = gr.Textbox("", visible=False)
        self.back.build(self.where)
        self.timer = gr.Timer(1.0, active=False)
        live = [
            self.list,
            self.detail,
            self.compare,
            self.stop,
            self.after,
            self.log_box,
            self.log,
            self.timer,
            *self.watch.outputs,
            *self.take_out.outputs,
            *self.controls.outputs,
        ]
        shared: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        loaded = demo.load(guarded(self.load), outputs=[self.top.html, self.picked, *live], **shared)
        chosen = [
            each.pick(guarded(self.pick), outputs=[self.picked, self.watch.look, *live], **shared)
            for each in (self.list, self.controls.group)
        ]
        self.timer.tick(guarded(self.refresh), [self.picked, *self.watch.inputs], live, **shared)
        self.watch.charts.look(guarded(self.look), self.picked, [self.watch.look, *self.watch.outputs], **shared)
        compared = self.compare.click(guarded(self.compare_it), self.picked, [self.where, self.picked, *live], **shared)
        goes_to(compared, self.where)
        self.stop.click(guarded(self.end), self.picked, live, **shared)
        self.take_out.wire(self._chosen, self.picked, self.where)
        self.elsewhere.wire([self.picked], self.where, [loaded, compared, *chosen])
        # "multiple": else a press that comes while the one before is still answered would be dropped
        self.controls.queue.move(guarded(self.move), self.picked, live, trigger_mode="multiple", **shared)
        self.controls.resume.click(guarded(self.resume), self.picked, live, **shared)
        self.controls.stop_group.click(guarded(self.end_group), self.picked, live, **shared)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        run = self._chosen(viewer, str(dict(request.query_params).get("run", "")))
        wanted = run.run_id if run else ""  # what is seen is what the buttons are about, whatever runs come meanwhile
        return [self.top.show(viewer, project), wanted, *self._live(viewer, wanted)]

    def pick(self, event: gr.EventData, request: gr.Request) -> list[Any]:
        wanted = str(event._data.get("run", ""))
        return [wanted, "", *self._live(self._studio.viewer(request), wanted)]

    def refresh(self, picked: str, look: str, seen: str, request: gr.Request) -> list[Any]:
        return self._live(self._studio.viewer(request), picked, look, seen)

    def look(self, picked: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        """Zoom into the charts, or one of them large."""
        run = self._chosen(self._studio.viewer(request), picked)
        look = str(event._data.get("look", ""))[:200]
        return [look, *(self.watch.show(run, look) if run else self.watch.nothing())]

    def end(self, picked: str, request: gr.Request) -> list[Any]:
        """First press: save and stop. Second press: end it now."""
        viewer = self._studio.viewer(request)
        run = self._chosen(viewer, picked)
        if run is not None:
            self._studio.jobs.stop(run.run_id)
        return self._live(viewer, picked)

    def move(self, picked: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        """Change a waiting run's place, or take it out of the queue."""
        viewer = self._studio.viewer(request)
        self.controls.move(viewer, str(event._data.get("run", "")), str(event._data.get("to", "")))
        return self._live(viewer, picked)

    def resume(self, picked: str, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        self.controls.go_on(viewer, self._chosen(viewer, picked))
        return self._live(viewer, picked)

    def end_group(self, picked: str, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        self.controls.end_group(self._chosen(viewer, picked))
        return self._live(viewer, picked)

    def compare_it(self, picked: str, request: gr.Request) -> list[Any]:
        """Start the comparison of before and after and look at it; where the demo model would be asked or would judge what it
        knows nothing of, go to the Compare page, which says so and has the choice."""
        viewer = self._studio.viewer(request)
        run = self._chosen(viewer, picked)
        if run is None:
            raise BadInput("Choose a run first.")
        wanted = after_training(self._studio, viewer, run.run_id)
        if outside_world([wanted.before, wanted.after, wanted.judge], wanted.asked, "", viewer.is_visitor):
            return [f"./compare?run={run.run_id}", *[gr.skip()] * (1 + len(self._live(viewer, picked)))]
        started = start(self._studio, viewer, wanted).run_id
        return ["", started, *self._live(viewer, started)]

    def outline(self, request: gr.Request, picked: str) -> Outline | None:
        """What a run that trains would be elsewhere; None for any other."""
        run = self._chosen(self._studio.viewer(request), picked)
        if run is None or not is_training(run.kind):
            return None
        config = config_of(run)
        return Outline(run.name, run.kind, config.batch_size * config.accumulation)

    def prepared(self, request: gr.Request, picked: str) -> Prepared:
        viewer = self._studio.viewer(request)
        run = self._chosen(viewer, picked)
        if run is None:
            raise BadInput("Choose a run first.")
        return of_run(self._studio, viewer, run)

    # --- what is shown ---

    def _chosen(self, viewer: Viewer, picked: str) -> Run | None:
        """The run that was picked when it is this person's, else the newest."""
        mine = runs.of_project(self._studio.db, self._studio.project(viewer).project_id, limit=SHOWN)
        if picked and picked not in {r.run_id for r in mine}:
            return self._studio.run(viewer, picked)
        return next((r for r in mine if r.run_id == picked), mine[0] if mine else None)

    def _live(self, viewer: Viewer, picked: str, look: str = "", seen: str = "") -> list[Any]:
        project = self._studio.project(viewer)
        mine = runs.of_project(self._studio.db, project.project_id, limit=SHOWN)
        going = any(r.status in ("queued", "running") for r in mine)
        run = self._chosen(viewer, picked)
        if run is None:
            nothing = empty("Nothing has run yet.", "train", "Train on your labels")
            return [
                nothing,
                "",
                gr.update(visible=False),
                gr.update(visible=False),
                "",
                gr.update(visible=False),
                "",
                gr.Timer(active=False),
                *self.watch.nothing(),
                *self.take_out.show(None),
                *self.controls.nothing(),
            ]
        return [
            _list(mine, run),
            self._detail(run),
            gr.update(
                visible=makes_adapter(run.kind) and bool(run.result.get("model_id")),
                variant="primary" if run.status == "finished" else "secondary",
            ),
            self._stop_button(run),
            after(run),
            gr.update(visible=True),
            self._log(run),
            gr.Timer(active=going),
            *self.watch.show(run, look, seen),
            *self.take_out.show(run),
            *self.controls.show(viewer, run, mine),
        ]

    def _folder(self, run: Run) -> RunDir:
        return RunDir(self._studio.settings.runs_dir / run.run_id)

    def _detail(self, run: Run) -> Html:
        line = progress_line(run) or {"queued": "Waits for its turn.", "running": "Getting ready: loading the model."}.get(
            run.status, ""
        )
        if run.status == "running" and self._folder(run).stop_requested:
            line = "Stopping: it saves what it has and ends within a step."
        moving = bar(share_done(run)) if run.status == "running" else ""
        head = (
            f'<div class="st-run-head"><h2 class="st-h2">{esc(run.name)}</h2>{badge(run.status)}</div>'
            f'<p class="st-sub">{esc(KINDS.get(run.kind, run.kind))}, {"started" if run.started_at else "queued"} '
            f"{esc(ago(run.started_at or run.queued_at))}"
            f"{_took(run)}</p>"
        )
        shown = f'<p class="st-sub">{esc(line)}</p>' if run.status in ("queued", "running") else ""
        return Html(
            f"<section>{head}{moving}{shown}{report(run, self._studio.metrics.notes(run.run_id))}{self._again(run)}</section>"
        )

    def _again(self, run: Run) -> Html:
        """Of a run that was started again as it was: whether the same came out."""
        first = str(run.config.get("again_of", ""))
        try:
            return same_again(runs.get(self._studio.db, first), run) if first else Html("")
        except NotFound:
            return Html("")

    def _stop_button(self, run: Run) -> Any:
        if run.status == "queued":
            return gr.update(visible=True, value="Take it out of the queue", variant="secondary")
        if run.status != "running":
            return gr.update(visible=False)
        if self._folder(run).stop_requested:
            return gr.update(visible=True, value="End it now, without saving", variant="stop")
        return gr.update(visible=True, value="Stop and keep what it has", variant="secondary")

    def _log(self, run: Run) -> Html:
        folder = self._folder(run)
        said = "\n".join(self._studio.metrics.notes(run.run_id))  # with the ids that the page leaves out
        text = "\n".join(part for part in (said, folder.log_tail(LOG_BYTES).strip()) if part) or "Nothing has been printed yet."
        command = f"python -m {run.module} {folder.path}" if not run.owner else f"python -m {run.module} RUN_DIR"
        return Html(f'<p class="st-sub">Runs as: {esc(command)}</p><pre class="st-log" tabindex="0">{esc(text)}</pre>')


def _took(run: Run) -> str:
    """Of one that has ended, said of which time it is."""
    if not run.ended_at:
        return ""
    return f", took {esc(took(run))}{' in all, before and after it was resumed' if run.earlier_s else ''}"


def _list(mine: list[Run], chosen: Run) -> Html:
    columns = [
        Column("Run", "clip"),
        Column("What", "tight", wide=True),
        Column("Status", "tight"),
        Column("Took", "num", wide=True),
        Column("Started", "num"),
    ]
    rows = [
        (
            Html(f'<a href="./{run_link(r)}" data-run="{esc(r.run_id)}">{esc(shorten(r.name, 90))}</a>'),
            KINDS.get(r.kind, r.kind),
            badge(r.status),
            took(r),
            ago(r.started_at or r.queued_at),
        )
        for r in mine
    ]
    return table(columns, rows, next((i for i, r in enumerate(mine) if r.run_id == chosen.run_id), -1), "All runs")
