"""Quality: how far the labels can be trusted. Coverage, agreement, biases; labels to look at, items to decide, known items.

For researchers; a visitor sees their own project. Each tab is computed when it is opened, from the columns that
`labeling.label_report` reads in one pass; `quality?tab=overview|agreement|bias|flagged|disagreements|gold` opens one.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from data import people
from data.pseudonyms import Pseudonyms
from data.records import Project
from labeling.label_report import Reports
from studio import quality_agreement, quality_bias, quality_overview
from studio.context import Studio
from studio.frame import PRIVATE, Top, block, guarded, heading, query
from studio.render import Html, empty

TABS = {"overview": "Overview", "agreement": "Agreement", "bias": "Bias"}


class QualityPage:
    title, path = "Quality", "quality"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._reports = Reports(studio.db)

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading("Quality", "How far the labels can be trusted: who labelled what, how people agree, and what sways them.")
        shown: list[Any] = []
        with gr.Tabs(selected="overview") as tabs:
            for name, title in TABS.items():
                with gr.Tab(title, id=name) as tab:
                    shown.append(block(elem_id=f"quality-{name}"))
                tab.select(guarded(getattr(self, name)), None, shown[-1], show_progress="hidden", **PRIVATE)
        demo.load(guarded(self.load), outputs=[self.top.html, tabs, *shown], show_progress="hidden", **PRIVATE)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.require(request, "researcher")
        project = self._studio.project(viewer)
        wanted = query(request, "tab")
        tab = wanted if wanted in TABS else "overview"
        found = [self._draw(name, project) if name == tab else gr.skip() for name in TABS]
        return [self.top.show(viewer, project), gr.Tabs(selected=tab), *found]

    def overview(self, request: gr.Request) -> Html:
        return self._draw("overview", self._project(request))

    def agreement(self, request: gr.Request) -> Html:
        return self._draw("agreement", self._project(request))

    def bias(self, request: gr.Request) -> Html:
        return self._draw("bias", self._project(request))

    # --- what is shown ---

    def _project(self, request: gr.Request) -> Project:
        return self._studio.project(self._studio.require(request, "researcher"))

    def _draw(self, tab: str, project: Project) -> Html:
        names = self._names(project)
        if tab == "agreement":
            return quality_agreement.agreement(
                self._reports.agreement(project), project, names, self._reports.labels(project).people
            )
        if tab == "bias":
            if project.task == "binary":
                return empty("Answers are shown one at a time here, so there is no side, length or style to choose by.")
            return quality_bias.bias(self._reports.cards(project), names)
        return quality_overview.overview(self._reports.overview(project), project, names)

    def _names(self, project: Project) -> quality_overview.Names:
        return quality_overview.Names(people.names(self._studio.db), Pseudonyms(self._studio.db, project.project_id).of)
