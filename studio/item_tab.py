"""Items to decide about: a list, the two answers side by side without their models, an answer with a reason, and a way back.

Disagreements and gold are the same work on different lists, so this is one tab that is handed what to list and what to store
(`Work`; `studio/item_work.py` has both).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gradio as gr

from data import items
from data.errors import BadInput
from data.records import Outcome, Project
from studio import pair_view
from studio import quality_words as words
from studio.context import Studio
from studio.flagged_tab import PICK, prompt_texts
from studio.frame import PRIVATE, block, guarded
from studio.render import Column, Html, count, esc, shorten, table
from studio.sheet import csv_link

ROWS = 20


class Row(NamedTuple):
    """An item in the list: two cells of words, and what is drawn under the pair when it is open."""

    item_id: str
    prompt_id: str
    says: str
    more: str
    below: Html = Html("")


class Work(Protocol):
    """`views`: (label, name) of the lists; `do`, `undo`: what the buttons say."""

    name: str
    title: str
    views: Sequence[tuple[str, str]]
    headings: tuple[str, str]
    do: str
    undo: str
    reason: str
    searchable: bool

    def find(self, project: Project, view: str, search: str) -> list[Row]:
        """All that are in a list, in order."""

    def nothing(self, project: Project, view: str) -> Html:
        """What stands where the list would be."""

    def is_decided(self, project: Project, item_id: str) -> bool: ...

    def decide(self, project: Project, item_id: str, outcome: Outcome, reason: str, actor: str) -> str:
        """Stores it; what was done, in words."""

    def take_back(self, project: Project, item_id: str, reason: str, actor: str) -> str: ...


class ItemTab:
    def __init__(self, studio: Studio, work: Work) -> None:
        self._studio, self._work = studio, work

    def build(self) -> None:
        work = self._work
        block(f'<p class="st-sub">{esc(work.title)}</p>')
        with gr.Row(elem_classes="st-filter"):
            self.view = gr.Radio(list(work.views), value=work.views[0][1], label="Items", elem_id=f"{work.name}-view")
            self.search = gr.Textbox(
                "",
                label="Search",
                placeholder="words in a prompt",
                max_length=200,
                visible=work.searchable,
                elem_id=f"{work.name}-search",
            )
        self.rows = block(elem_id=f"quality-{work.name}", js_on_load=PICK)
        with gr.Row():
            self.back = gr.Button("Previous", size="md", scale=0, min_width=110, visible=False)
            self.on = gr.Button("Next", size="md", scale=0, min_width=110, visible=False)
        with gr.Column(elem_classes="st-panel", visible=False, elem_id=f"{work.name}-decide") as self.panel:
            self.outcome = gr.Radio([], label="The right answer", elem_id=f"{work.name}-outcome")
            with gr.Row(elem_classes="st-ends"):
                self.reason = gr.Textbox("", label=work.reason, max_length=2_000, min_width=260, elem_id=f"{work.name}-reason")
                self.undo = gr.Button(work.undo, scale=0, min_width=150, elem_id=f"{work.name}-undo")
                self.do = gr.Button(work.do, variant="primary", scale=0, min_width=150, elem_id=f"{work.name}-do")
        self.at = gr.Number(0, visible=False, precision=0)
        self.picked = gr.Textbox("", visible=False)
        self.shown = [self.rows, self.back, self.on, self.panel, self.outcome, self.undo, self.at, self.picked]
        place = [self.view, self.search, self.at]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        gr.on(
            [self.view.input, self.search.submit, self.search.blur],
            guarded(self.find),
            [self.view, self.search],
            self.shown,
            **quiet,
        )
        self.on.click(guarded(self.further), place, self.shown, **quiet)
        self.back.click(guarded(self.nearer), place, self.shown, **quiet)
        self.rows.pick(guarded(self.open), place, self.shown, **quiet)
        done = [*self.shown, self.reason]
        self.do.click(guarded(self.decide), [*place, self.picked, self.outcome, self.reason], done, **PRIVATE)
        self.undo.click(guarded(self.take_back), [*place, self.picked, self.reason], done, **PRIVATE)

    # --- handlers ---

    @property
    def loaded(self) -> list[Any]:
        return [self.view, self.search, *self.shown]

    def load(self, project: Project) -> list[Any]:
        first = self._work.views[0][1]
        return [first, "", *self._page(project, first, "", 0)]

    def find(self, view: str, search: str, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), view, search, 0)

    def further(self, view: str, search: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), view, search, int(at) + ROWS)

    def nearer(self, view: str, search: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), view, search, int(at) - ROWS)

    def open(self, event: gr.EventData, request: gr.Request, view: str, search: str, at: float) -> list[Any]:
        wanted = str(event._data.get("id", ""))
        return self._page(self._project(request), view, search, int(at), wanted)

    def decide(
        self, view: str, search: str, at: float, picked: str, outcome: str | None, reason: str, request: gr.Request
    ) -> list[Any]:
        project = self._project(request)
        if outcome not in items.OUTCOMES[project.task]:
            raise BadInput("Choose the right answer first.")
        said = self._work.decide(project, picked, outcome, reason.strip(), self._studio.viewer(request).annotator_id)
        gr.Info(said, title="Done")
        return [*self._page(project, view, search, int(at)), ""]

    def take_back(self, view: str, search: str, at: float, picked: str, reason: str, request: gr.Request) -> list[Any]:
        project = self._project(request)
        said = self._work.take_back(project, picked, reason.strip(), self._studio.viewer(request).annotator_id)
        gr.Info(said, title="Done")
        return [*self._page(project, view, search, int(at)), ""]

    # --- what is shown ---

    def _project(self, request: gr.Request) -> Project:
        return self._studio.project(self._studio.require(request, "researcher"))

    def _page(self, project: Project, view: str, search: str, at: int, opened: str = "") -> list[Any]:
        if view not in {name for _, name in self._work.views}:
            raise BadInput("Choose a list.")
        every = self._work.find(project, view, search.strip())
        at = max(0, min(at, (len(every) - 1) // ROWS * ROWS if every else 0))
        found = every[at : at + ROWS]
        is_open = opened in {row.item_id for row in found}
        decided = is_open and self._work.is_decided(project, opened)
        outcomes = [(words.OUTCOME_NAMES[outcome].capitalize(), outcome) for outcome in items.OUTCOMES[project.task]]
        more = len(every) > ROWS
        return [
            self._draw(project, view, every, at, opened),
            gr.Button(visible=more, interactive=at > 0),
            gr.Button(visible=more, interactive=at + ROWS < len(every)),
            gr.update(visible=is_open),
            gr.Radio(outcomes, value=None),
            gr.Button(visible=decided),
            at,
            opened if is_open else "",
        ]

    def _draw(self, project: Project, view: str, every: list[Row], at: int, opened: str) -> Html:
        found = every[at : at + ROWS]
        if not found:
            return self._work.nothing(project, view)
        texts = prompt_texts(self._studio, [row.prompt_id for row in found])
        one, other = self._work.headings
        columns = [Column("Prompt", "clip"), Column(one), Column(other, wide=True)]
        rows = [(_link(row, opened, texts.get(row.prompt_id, "")), row.says, row.more) for row in found]
        below = {
            i: Html(f"{pair_view.of_item(self._studio.db, project.task, row.item_id)}{row.below}")
            for i, row in enumerate(found)
            if row.item_id == opened
        }
        raw = [(row.item_id, row.prompt_id, row.says, row.more) for row in every]
        link = csv_link(f"{self._work.name}-{view}", ["item_id", "prompt_id", one.lower(), other.lower()], raw)
        place = f'<p class="st-sub st-sheet-head">{at + 1:,}–{at + len(found):,} of {count(len(every), "item")}{link}</p>'
        return Html(table(columns, rows, label=self._work.name.capitalize(), below=below) + place)


def _link(row: Row, opened: str, text: str) -> Html:
    return Html(
        f'<a href="#" class="st-plain" data-pick="{"" if row.item_id == opened else esc(row.item_id)}" '
        f'aria-expanded="{str(row.item_id == opened).lower()}">'
        f"{esc(shorten(text))}</a>"
    )
