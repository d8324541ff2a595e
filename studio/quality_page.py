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
from studio.flagged_tab import FlaggedTab
from studio.frame import PRIVATE, Top, block, guarded, heading, query
from studio.item_tab import ItemTab
from studio.item_work import Disagreements, GoldItems
from studio.render import Html

REPORTS = {"overview": "Overview", "agreement": "Agreement", "bias": "Bias"}


class QualityPage:
    title, path = "Quality", "quality"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._reports = Reports(studio.db)
        self.flagged = FlaggedTab(studio)
        self.disagreements = ItemTab(studio, Disagreements(studio))
        self.gold = ItemTab(studio, GoldItems(studio))

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading("Quality", "How far the labels can be trusted: who labelled what, how people agree, and what sways them.")
        self._outputs: dict[str, list[Any]] = {}
        with gr.Tabs(selected="overview") as tabs:
            for name, title in REPORTS.items():
                with gr.Tab(title, id=name) as tab:
                    self._outputs[name] = [block(elem_id=f"quality-{name}")]
                self._fill(tab, name)
            for name, title, lists in (
                ("flagged", "Flagged", self.flagged),
                ("disagreements", "Disagreements", self.disagreements),
                ("gold", "Known items", self.gold),
            ):
                with gr.Tab(title, id=name) as tab:
                    lists.build()
                self._outputs[name] = lists.loaded
                self._fill(tab, name)
        demo.load(guarded(self.load), outputs=[self.top.html, tabs], show_progress="hidden", **PRIVATE)

    def _fill(self, tab: gr.Tab, name: str) -> None:
        """A tab is filled when it is opened, which the browser also says of the first one as the page comes up. Were it filled once
        more by `load`, that would take back what somebody has chosen in it meanwhile."""
        tab.select(guarded(getattr(self, f"open_{name}")), None, self._outputs[name], show_progress="hidden", **PRIVATE)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.require(request, "researcher")
        project = self._studio.project(viewer)
        wanted = query(request, "tab")
        tab = wanted if wanted in self._outputs else "overview"
        return [self.top.show(viewer, project), gr.Tabs(selected=tab)]

    def open_overview(self, request: gr.Request) -> list[Any]:
        return self._show("overview", self._project(request))

    def open_agreement(self, request: gr.Request) -> list[Any]:
        return self._show("agreement", self._project(request))

    def open_bias(self, request: gr.Request) -> list[Any]:
        return self._show("bias", self._project(request))

    def open_flagged(self, request: gr.Request) -> list[Any]:
        return self._show("flagged", self._project(request))

    def open_disagreements(self, request: gr.Request) -> list[Any]:
        return self._show("disagreements", self._project(request))

    def open_gold(self, request: gr.Request) -> list[Any]:
        return self._show("gold", self._project(request))

    # --- what is shown ---

    def _project(self, request: gr.Request) -> Project:
        return self._studio.project(self._studio.require(request, "researcher"))

    def _show(self, tab: str, project: Project) -> list[Any]:
        lists: dict[str, FlaggedTab | ItemTab] = {"flagged": self.flagged, "disagreements": self.disagreements, "gold": self.gold}
        return lists[tab].load(project) if tab in lists else [self._draw(tab, project)]

    def _draw(self, tab: str, project: Project) -> Html:
        names = self._names(project)
        if tab == "agreement":
            return quality_agreement.agreement(
                self._reports.agreement(project), project, names, self._reports.labels(project).people
            )
        if tab == "bias":
            if project.task == "binary":
                return quality_bias.of_singles(self._reports.binary_cards(project), names)
            return quality_bias.of_pairs(self._reports.cards(project), names)
        return quality_overview.overview(self._reports.overview(project), project, names)

    def _names(self, project: Project) -> quality_overview.Names:
        return quality_overview.Names(people.names(self._studio.db), Pseudonyms(self._studio.db, project.project_id).of)
