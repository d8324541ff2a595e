"""The project's prompts, with search, and one prompt's answers when it is picked."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr

from data import completions, prompts
from data.records import Project, Prompt, Split
from studio.context import Studio
from studio.frame import PRIVATE, block, guarded
from studio.render import Answer, Column, Html, answers, count, empty, esc, quote, shorten, table

ROWS = 25
IN_ROW = 160  # characters of a prompt: two lines
SPLITS = [("All", "all"), ("For training", "train"), ("Held out", "held_out")]
SPLIT_NAMES = {"train": "training", "held_out": "held out"}
PICK = """
element.addEventListener('click', e => {
  const a = e.target.closest('[data-prompt]');
  if (!a) return;
  e.preventDefault();
  trigger('pick', {prompt: a.dataset.prompt});
});
"""


class PromptsTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        with gr.Row(equal_height=True):
            self.search = gr.Textbox(
                "", label="Search", placeholder="words in a prompt", max_length=200, min_width=260, elem_id="prompts-search"
            )
            self.split = gr.Radio(SPLITS, value="all", label="Which", min_width=280)
        self.rows = block(elem_id="prompts-rows", js_on_load=PICK)
        with gr.Row():
            self.back = gr.Button("Previous", size="md", scale=0, min_width=110, interactive=False)
            self.on = gr.Button("Next", size="md", scale=0, min_width=110, interactive=False)
        self.at = gr.Number(0, visible=False, precision=0)
        self.shown = [self.rows, self.back, self.on, self.at]
        look = [self.search, self.split, self.at]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        gr.on([self.search.change, self.split.input], guarded(self.find), look, self.shown, trigger_mode="always_last", **quiet)
        self.on.click(guarded(self.further), look, self.shown, **quiet)
        self.back.click(guarded(self.nearer), look, self.shown, **quiet)
        self.rows.pick(guarded(self.show), look, self.rows, **quiet)

    # --- handlers ---

    def load(self, project: Project) -> list[Any]:
        return self._page(project, "", "all", 0)

    def find(self, search: str, split: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), search, split, 0)

    def further(self, search: str, split: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), search, split, int(at) + ROWS)

    def nearer(self, search: str, split: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), search, split, int(at) - ROWS)

    def show(self, event: gr.EventData, request: gr.Request, search: str, split: str, at: float) -> Any:
        """The same rows with a prompt's answers under it; picking it again closes it."""
        return self._page(self._project(request), search, split, int(at), str(event._data.get("prompt", "")))[0]

    # --- what is shown ---

    def _project(self, request: gr.Request) -> Project:
        return self._studio.project(self._studio.viewer(request))

    def _page(self, project: Project, search: str, split: str, at: int, opened: str = "") -> list[Any]:
        wanted = cast(Split, split) if split in ("train", "held_out") else None
        total = prompts.count(self._studio.db, project.project_id, wanted, search)
        at = max(0, min(at, (total - 1) // ROWS * ROWS if total else 0))
        found = prompts.of_project(self._studio.db, project.project_id, wanted, ROWS, at, search)
        if not found:
            nothing = (
                empty("No prompt matches.")
                if search or wanted
                else empty("There are no prompts yet.", "data?tab=import", "Import some")
            )
            return [nothing, gr.Button(visible=False), gr.Button(visible=False), 0]
        answered: dict[str, int] = {}
        for completion in completions.of_prompts(self._studio.db, [p.prompt_id for p in found]):
            answered[completion.prompt_id] = answered.get(completion.prompt_id, 0) + 1
        columns = [Column("Prompt", "clip"), Column("Kind", "tight", wide=True), Column("For", "tight"), Column("Answers", "num")]
        rows = [(_link(p, opened), p.category, SPLIT_NAMES[p.split], f"{answered.get(p.prompt_id, 0):,}") for p in found]
        below = {i: self._draw(p) for i, p in enumerate(found) if p.prompt_id == opened}
        place = f'<p class="st-sub">{at + 1:,}–{at + len(found):,} of {count(total, "prompt")}</p>'
        more = total > ROWS
        return [
            Html(table(columns, rows, label="Prompts", below=below) + place),
            gr.Button(visible=more, interactive=at > 0),
            gr.Button(visible=more, interactive=at + len(found) < total),
            at,
        ]

    def _draw(self, prompt: Prompt) -> Html:
        found = completions.of_prompts(self._studio.db, [prompt.prompt_id])
        whole = len(prompt.messages) == 1 and shorten(prompt.text, IN_ROW) == prompt.text.strip()  # it stands in its row already
        turns = "" if whole else "".join(quote(m.content, "" if m.role == "user" else m.role) for m in prompt.messages)
        later = "".join(quote(text, "then") for text in prompt.follow_up)
        known = quote(prompt.reference, "Reference answer") if prompt.reference else ""
        said = answers([Answer(c.model or "imported", c.text) for c in found]) if found else empty("Nobody has answered it yet.")
        return Html(f'<div class="st-open">{turns}{later}{known}{said}</div>')


def _link(prompt: Prompt, opened: str) -> Html:
    """Picking the open one again sends no id, which closes it."""
    is_open = prompt.prompt_id == opened
    return Html(
        f'<a href="#" class="st-plain" data-prompt="{"" if is_open else esc(prompt.prompt_id)}" '
        f'aria-expanded="{str(is_open).lower()}">{esc(shorten(prompt.text, IN_ROW))}</a>'
    )
