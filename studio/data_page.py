"""Data: the prompts and their answers, bringing more in, letting models answer, taking everything out again.

Each tab is a class of its own; `data?tab=prompts|import|generate|export` opens one.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.context import Studio
from studio.export_tab import ExportTab
from studio.frame import PRIVATE, Top, guarded, heading, query
from studio.generate_tab import GenerateTab
from studio.import_tab import ImportTab
from studio.prompts_tab import PromptsTab

TABS = ("prompts", "import", "generate", "export")


class DataPage:
    title, path = "Data", "data"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.prompts, self.imports = PromptsTab(studio), ImportTab(studio)
        self.generate, self.export = GenerateTab(studio), ExportTab(studio)

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading("Data", "Prompts, the answers to them, and the labels: bring them in, look at them, take them out.")
        with gr.Tabs(selected="prompts") as tabs:
            with gr.Tab("Prompts", id="prompts"):
                self.prompts.build()
            with gr.Tab("Import", id="import"):
                self.imports.build()
            with gr.Tab("Generate", id="generate"):
                self.generate.build()
            with gr.Tab("Export", id="export"):
                self.export.build()
        shown = [self.top.html, tabs, *self.prompts.shown, *self.imports.shown, *self.generate.shown, *self.export.shown]
        demo.load(guarded(self.load), outputs=shown, show_progress="hidden", **PRIVATE)

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        tab = query(request, "tab")
        return [
            self.top.show(viewer, project),
            gr.Tabs(selected=tab if tab in TABS else "prompts"),
            *self.prompts.load(project),
            *self.imports.load(viewer, query(request, "file")),
            *self.generate.load(viewer, project, query(request, "run"), query(request, "for")),
            *self.export.load(viewer, project),
        ]
