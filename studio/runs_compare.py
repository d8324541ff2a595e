"""Compare runs: two to six training runs over one another: curves, settings that differ, how each ended, who won.

What is compared stands in the address (`runs-compare?runs=ID,ID`), so that it can be kept or sent. Only runs of the open project;
one that is not there any more is left out and said.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from data import runs
from data.errors import NotFound
from data.records import Run
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, Top, block, guarded, heading, query
from studio.render import Column, Html, ago, badge, empty, esc, note, shorten, table
from studio.run_charts import MOST_RUNS, overlaid, read_look
from studio.run_differences import Seen, differences, ends, own_names, wins
from studio.run_watch import ENDED, SCRIPT, held_out_rows, judged
from training.methods import is_training

SHOWN, COMPARISONS = 50, 200
CHOOSE = """
element.addEventListener('change', e => {
  if (!e.target.matches('input[data-run]')) return;
  const runs = [...element.querySelectorAll('input[data-run]')].filter(box => box.checked).map(box => box.dataset.run);
  const kept = JSON.parse(element.querySelector('[data-order]').dataset.order).filter(run => runs.includes(run));
  const order = [...kept, ...runs.filter(run => !kept.includes(run))].join(',');
  history.replaceState(null, '', './runs-compare' + (order ? '?runs=' + encodeURIComponent(order) : ''));
  trigger('choose', {runs: order});
});
// Drawn anew in place: a box keeps what was clicked, though it may stand for another run now.
watch('value', () => element.querySelectorAll('input[data-run]').forEach(box => { box.checked = box.hasAttribute('checked'); }));
"""


class RunsComparePage:
    title, path = "Compare runs", "runs-compare"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, "runs")
        heading(
            "Compare runs",
            "Training runs over one another: curves, what was set differently, how each ended. The address can be sent.",
        )
        self.list = block(elem_id="compare-list", js_on_load=CHOOSE)
        self.ends = block(elem_id="compare-ends")
        self.charts = block(elem_id="compare-charts", js_on_load=SCRIPT)
        self.tables = block(elem_id="compare-tables")
        self.chosen, self.look, self.seen = (gr.Textbox("", visible=False) for _ in range(3))
        self.timer = gr.Timer(2.0, active=False)
        shown = [self.list, self.ends, self.charts, self.tables, self.seen, self.timer]
        shared: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        demo.load(guarded(self.load), outputs=[self.top.html, self.chosen, *shown], **shared)
        self.list.choose(guarded(self.choose), self.look, [self.chosen, *shown], **shared)
        self.charts.look(guarded(self.zoom), self.chosen, [self.look, *shown], **shared)
        self.timer.tick(guarded(self.refresh), [self.chosen, self.look, self.seen], shown, **shared)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        chosen = query(request, "runs")[:1000]
        return [self.top.show(viewer, self._studio.project(viewer)), chosen, *self._show(viewer, chosen)]

    def choose(self, look: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        chosen = str(event._data.get("runs", ""))[:1000]
        return [chosen, *self._show(self._studio.viewer(request), chosen, look)]

    def zoom(self, chosen: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        look = str(event._data.get("look", ""))[:200]
        return [look, *self._show(self._studio.viewer(request), chosen, look)]

    def refresh(self, chosen: str, look: str, seen: str, request: gr.Request) -> list[Any]:
        return self._show(self._studio.viewer(request), chosen, look, seen)

    # --- what is shown ---

    def _show(self, viewer: Viewer, raw: str, look: str = "", seen: str = "") -> list[Any]:
        project = self._studio.project(viewer)
        every = runs.of_project(self._studio.db, project.project_id, limit=COMPARISONS)
        trained = [run for run in every if is_training(run.kind)][:SHOWN]
        if not trained:
            return [empty("There is no training run yet.", "train", "Train on your labels"), "", "", "", "", gr.Timer(active=False)]
        asked = list(dict.fromkeys(part for part in raw.split(",") if part))
        found, missing = self._chosen(viewer, asked)
        chosen = found[:MOST_RUNS]
        going = any(run.status not in ENDED for run in chosen)
        points = {name: self._studio.metrics.of(run_id) for run_id, name in own_names(chosen).items()}
        now = json.dumps([[r.run_id, r.status, len(p)] for r, p in zip(chosen, points.values(), strict=True)] + [look])
        if seen == now:
            return [*[gr.skip()] * 5, gr.Timer(active=going)]
        warned = _warned(missing, len(found))
        side = [
            Seen(run, name, judged(self._studio, run), held_out_rows(self._studio, run))
            for run, name in zip(chosen, points, strict=True)
        ]
        return [
            _list(trained, chosen, warned),
            _section("How each ended", ends(side)) if side else "",
            overlaid(points, read_look(look), f"runs={','.join(run.run_id for run in chosen)}") if side else "",
            _tables(side, [run for run in every if run.kind == "compare"]),
            now,
            gr.Timer(active=going),
        ]

    def _chosen(self, viewer: Viewer, asked: list[str]) -> tuple[list[Run], int]:
        """Training runs of the open project in the order asked for, and how many of those asked for are none."""
        found: list[Run] = []
        for run_id in asked:
            try:
                run = self._studio.run(viewer, run_id)
            except NotFound:
                continue
            if is_training(run.kind):
                found.append(run)
        return found, len(asked) - len(found)


def _warned(missing: int, found: int) -> Html:
    if missing:
        return note("A run of this address is not in the open project (any more) and is left out.", "warn")
    if found > MOST_RUNS:
        return note(f"{MOST_RUNS} runs at most; the first ones are shown.", "warn")
    return Html("")


def _list(trained: list[Run], chosen: list[Run], warned: Html) -> Html:
    """All training runs with a box each; what is compared has its colour."""
    colours = {run.run_id: number for number, run in enumerate(chosen)}
    listed = [*trained, *(run for run in chosen if run.run_id not in {r.run_id for r in trained})]
    columns = [Column("Run"), Column("Status", "tight"), Column("Started", "num", wide=True)]
    rows = [[_box(run, colours), badge(run.status), ago(run.started_at or run.queued_at)] for run in listed]
    if len(chosen) < 2:
        says = f"Choose 2 to {MOST_RUNS} runs." if not chosen else "Choose one more."
    else:
        says = f"{len(chosen)} runs chosen."
    order = esc(json.dumps([run.run_id for run in chosen]))
    boxes = table(columns, rows, label="Training runs")
    return Html(f'{warned}<p class="st-sub" data-order="{order}">{says}</p><div class="st-choose">{boxes}</div>')


def _box(run: Run, colours: dict[str, int]) -> Html:
    number = colours.get(run.run_id)
    state = " checked" if number is not None else " disabled" if len(colours) >= MOST_RUNS else ""
    colour = f' class="st-swatch k{number}"' if number is not None else ""
    box = f'<input type="checkbox" data-run="{esc(run.run_id)}"{state}>'
    return Html(f'<label class="st-pick">{box}<span{colour}>{esc(shorten(run.name, 90))}</span></label>')


def _tables(side: list[Seen], comparisons: list[Run]) -> Html:
    if len(side) < 2:
        return Html("")
    return Html(_section("What was set differently", differences(side)) + _section("Win rates", wins(side, comparisons)))


def _section(title: str, inner: Html) -> Html:
    return Html(f'<section class="st-section"><h2 class="st-h2">{esc(title)}</h2>{inner}</section>') if inner else Html("")
