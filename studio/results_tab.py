"""Results: what a comparison found, and the single answers it was found on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from data import completions, judgments, prompts, runs
from data.errors import NotFound
from data.records import Judgment, Project, Run
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, choice, guarded
from studio.render import Answer, Html, ago, answers, empty, figures, percent, quote, shorten
from studio.run_report import report

FILTERS: list[tuple[str, str]] = [
    ("All", "all"),
    ("After is better", "b"),
    ("Before is better", "a"),
    ("Ties", "tie"),
    ("Judge changed its mind with the order", "flipped"),
    ("Judge against the rules", "against"),
    ("Not scored", "unscored"),
]
_KEEP: dict[str, Callable[[Judgment], bool]] = {
    "all": lambda j: True,
    "a": lambda j: j.verdict == "a",
    "b": lambda j: j.verdict == "b",
    "tie": lambda j: j.verdict == "tie",
    "flipped": lambda j: bool(j.flipped),
    "against": lambda j: j.rule_a is not None and j.rule_a != j.rule_b and j.verdict == ("b" if j.rule_a else "a"),
    "unscored": lambda j: bool(j.unscored),
}


class ResultsTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        self.which = choice(label="Comparison", elem_id="results-which")
        self.found = block(elem_id="results-found")
        with gr.Column(visible=False, elem_id="results-examples") as self.examples:
            with gr.Row(elem_classes="st-ends"):
                self.filter = gr.Dropdown(
                    FILTERS, value="all", label="Examples", filterable=False, min_width=120, elem_id="results-filter"
                )
                self.back = gr.Button("Previous", size="md", scale=0, min_width=90)
                self.on = gr.Button("Next", size="md", scale=0, min_width=90, elem_id="results-next")
            self.example = block(elem_id="results-example")
        self.at = gr.Number(0, visible=False, precision=0)
        self.shown = [self.which, self.found, self.examples, self.example, self.at]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        self.which.input(guarded(self.choose), self.which, self.shown[1:], **quiet)
        one = [self.which, self.filter, self.at]
        self.filter.input(guarded(self.first), one, [self.example, self.at], **quiet)
        self.on.click(guarded(self.next), one, [self.example, self.at], **quiet)
        self.back.click(guarded(self.previous), one, [self.example, self.at], **quiet)

    # --- handlers ---

    def load(self, viewer: Viewer, project: Project, run_id: str) -> list[Any]:
        mine = [r for r in runs.of_project(self._studio.db, project.project_id) if r.kind == "compare" and r.result]
        chosen = next((r for r in mine if r.run_id == run_id), mine[0] if mine else None)
        choices = [(f"{shorten(r.name, 80)} · {ago(r.ended_at or r.queued_at)}", r.run_id) for r in mine]
        box = gr.Dropdown(choices, value=chosen.run_id if chosen else None, visible=bool(mine))
        if chosen is None:
            return [
                box,
                empty("Nothing has been compared yet: start a comparison under “With a judge”."),
                gr.update(visible=False),
                "",
                0,
            ]
        return [box, *self._show(chosen)]

    def choose(self, run_id: str, request: gr.Request) -> list[Any]:
        return self._show(self._run(request, run_id))

    def first(self, run_id: str, which: str, at: float, request: gr.Request) -> list[Any]:
        return self._example(self._run(request, run_id), which, 0)

    def next(self, run_id: str, which: str, at: float, request: gr.Request) -> list[Any]:
        return self._example(self._run(request, run_id), which, int(at) + 1)

    def previous(self, run_id: str, which: str, at: float, request: gr.Request) -> list[Any]:
        return self._example(self._run(request, run_id), which, int(at) - 1)

    # --- what is shown ---

    def _run(self, request: gr.Request, run_id: str) -> Run:
        run = self._studio.run(self._studio.viewer(request), run_id)
        if run.kind != "compare":
            raise NotFound("This run is no comparison; choose another one.")
        return run

    def _show(self, run: Run) -> list[Any]:
        card = Html(f'<section class="st-card">{report(run, link=False)}</section>')
        example, at = self._example(run, "all", 0)
        return [card, gr.update(visible=True), example, at]

    def _example(self, run: Run, which: str, at: int) -> list[Any]:
        """Example number `at` of those that the filter keeps, going round at both ends."""
        kept = [j for j in judgments.of_run(self._studio.db, run.run_id) if _KEEP.get(which, _KEEP["all"])(j)]
        if not kept:
            return [empty("There are none of these."), 0]
        at %= len(kept)
        return [self._draw(kept[at], at, len(kept)), at]

    def _draw(self, j: Judgment, at: int, total: int) -> Html:
        texts = {c.completion_id: c.text for c in completions.get_many(self._studio.db, [j.completion_a, j.completion_b])}
        asked = prompts.get(self._studio.db, j.prompt_id)
        both = [
            Answer(j.model_a, texts.get(j.completion_a, ""), _rule(j.rule_a)),
            Answer(j.model_b, texts.get(j.completion_b, ""), _rule(j.rule_b)),
        ]
        return Html(
            f'<div class="st-card"><p class="st-sub">Example {at + 1:,} of {total:,}</p>'
            f'{quote(asked.text)}{answers(both)}<p class="st-judged">{figures(_verdict(j))}</p></div>'
        )


def _rule(good: bool | None) -> str:
    return "" if good is None else "right, by the rules" if good else "wrong, by the rules"


def _verdict(j: Judgment) -> str:
    if j.unscored:
        return f"Not scored: {j.unscored}."
    said = {"a": f"{j.model_a} is better", "b": f"{j.model_b} is better", "tie": "a tie"}[j.verdict or "tie"]
    orders = ""
    if j.p_ab is not None and j.p_ba is not None:
        orders = f" It gives {j.model_b} {percent(1 - j.p_ab)} when shown second, {percent(1 - j.p_ba)} when shown first."
    return f"{j.judge}: {said}.{orders}{' It changed its mind with the order.' if j.flipped else ''}"
