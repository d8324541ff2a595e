"""Compare: ask models side by side, blind; let a judge compare two of them on many prompts; look at what it judged.

The three tabs are classes of their own (`AskTab`, `JudgeTab`, `ResultsTab`); the address says which one opens and with which
models: `compare?run=<training run>` sets before and after, `compare?result=<compare run>` opens a result, `compare?tab=results`
the newest one.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ask_tab import AskTab
from studio.context import Studio
from studio.frame import PRIVATE, Top, guarded, heading, query
from studio.judge_tab import JudgeTab
from studio.results_tab import ResultsTab

TABS = {"chat": "ask", "judge": "judge", "results": "results"}  # as an address names them


class ComparePage:
    title, path = "Compare", "compare"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.ask, self.judge, self.results = AskTab(studio), JudgeTab(studio), ResultsTab(studio)

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading(
            "Compare", "Is it better? See for yourself without knowing which is which, or let a judge decide over many prompts."
        )
        with gr.Tabs(selected="ask") as tabs:
            with gr.Tab("Side by side", id="ask"):
                self.ask.build()
            with gr.Tab("With a judge", id="judge"):
                self.judge.build()
            with gr.Tab("Results", id="results"):
                self.results.build()
        shown = [self.top.html, tabs, *self.ask.shown, *self.judge.shown, *self.results.shown]
        demo.load(guarded(self.load), outputs=shown, show_progress="hidden", **PRIVATE)

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        run_id, result_id, tab = query(request, "run"), query(request, "result"), query(request, "tab")
        asked = TABS.get(tab, "judge" if run_id else "ask")
        return [
            self.top.show(viewer, project),
            gr.Tabs(selected="results" if result_id else asked),
            *self.ask.load(viewer, project, run_id),
            *self.judge.load(viewer, project, run_id),
            *self.results.load(viewer, project, result_id),
        ]
