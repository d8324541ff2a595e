"""Items to decide about: a list, the two answers side by side without their models, an answer with a reason, and a way back.

Disagreements and gold are the same work on different lists, so this is one tab that is handed what to list and what to store
(`Work`; `studio/item_work.py` has both).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import gradio as gr

from data import items
from data.errors import BadInput
from data.records import Outcome, Project
from studio import csv_file, pair_view
from studio import quality_words as words
from studio.context import Studio
from studio.flagged_tab import PICK, place, prompt_texts
from studio.frame import PRIVATE, block, goes_to, guarded
from studio.render import Column, Html, esc, shorten, table

ROWS = 20


class Row(NamedTuple):
    """An item, one `among` so many: two cells of words, what is drawn under the pair when it is open, and what a file has of it."""

    item_id: str
    prompt_id: str
    among: int
    says: str
    more: str
    raw: Sequence[object]
    below: Html = Html("")


class Work(Protocol):
    """`views`: (label, name) of the lists; `raw`: by view, what a file calls a row's `raw`; `do`, `undo`: what the buttons say."""

    name: str
    title: str
    views: Sequence[tuple[str, str]]
    headings: tuple[str, str]
    raw: Mapping[str, Sequence[str]]
    do: str
    undo: str
    reason: str
    searchable: bool

    def find(self, project: Project, view: str, search: str, limit: int | None = None, offset: int = 0) -> Iterator[Row]:
        """What is in a list, in order: all of it without a `limit`. Reading on must not wait for a write."""

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
        self.where = gr.Textbox("", visible=False)  # of the CSV that was made
        self.shown = [self.rows, self.back, self.on, self.panel, self.outcome, self.undo, self.at, self.picked]
        look = [self.view, self.search]
        here = [*look, self.at]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        gr.on(
            [self.view.input, self.search.submit, self.search.blur],
            guarded(self.find),
            look,
            self.shown,
            **quiet,
        )
        self.on.click(guarded(self.further), here, self.shown, **quiet)
        self.back.click(guarded(self.nearer), here, self.shown, **quiet)
        self.rows.pick(guarded(self.open), here, self.shown, **quiet)
        goes_to(self.rows.csv(guarded(self.make_csv), look, self.where, **quiet), self.where)
        done = [*self.shown, self.reason]
        self.do.click(guarded(self.decide), [*here, self.picked, self.outcome, self.reason], done, **PRIVATE)
        self.undo.click(guarded(self.take_back), [*here, self.picked, self.reason], done, **PRIVATE)

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

    def make_csv(self, view: str, search: str, request: gr.Request) -> str:
        """A file of the whole list; the address to fetch it from."""
        viewer, project = self._studio.require(request, "researcher"), self._project(request)
        found = self._work.find(project, self._known(view), search.strip())
        rows = ((row.item_id, row.prompt_id, *row.raw) for row in found)
        names = ["item_id", "prompt_id", *self._work.raw[view]]
        return csv_file.offer(self._studio, viewer, project, f"{self._work.name}-{view}", names, rows)

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

    def _known(self, view: str) -> str:
        if view not in {name for _, name in self._work.views}:
            raise BadInput("Choose a list.")
        return view

    def _page(self, project: Project, view: str, search: str, at: int, opened: str = "") -> list[Any]:
        for start in (at, at - ROWS, 0):  # the last one of a page may have been decided just now
            at = max(0, start)
            found = list(self._work.find(project, self._known(view), search.strip(), ROWS, at))
            if found or not at:
                break
        total = found[0].among if found else 0
        is_open = opened in {row.item_id for row in found}
        decided = is_open and self._work.is_decided(project, opened)
        outcomes = [(words.OUTCOME_NAMES[outcome].capitalize(), outcome) for outcome in items.OUTCOMES[project.task]]
        more = total > ROWS
        return [
            self._draw(project, view, found, at, opened),
            gr.Button(visible=more, interactive=at > 0),
            gr.Button(visible=more, interactive=at + ROWS < total),
            gr.update(visible=is_open),
            gr.Radio(outcomes, value=None),
            gr.Button(visible=decided),
            at,
            opened if is_open else "",
        ]

    def _draw(self, project: Project, view: str, found: list[Row], at: int, opened: str) -> Html:
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
        said = place(at, len(found), found[0].among, "item")
        return Html(table(columns, rows, label=self._work.name.capitalize(), below=below) + said)


def _link(row: Row, opened: str, text: str) -> Html:
    return Html(
        f'<a href="#" class="st-plain" data-pick="{"" if row.item_id == opened else esc(row.item_id)}" '
        f'aria-expanded="{str(row.item_id == opened).lower()}">'
        f"{esc(shorten(text))}</a>"
    )
