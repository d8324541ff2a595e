"""Flagged: labels that something speaks against, with the pair as it was shown; leave them out, or let them count again.

Nothing is deleted: leaving out is an event by a named researcher, with a reason, and can be undone here.
"""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from data import people, prompts
from data.errors import BadInput
from data.pseudonyms import Pseudonyms
from data.records import Flag, Project
from labeling import label_list, preferences
from labeling.label_list import Listed, Wanted
from studio import csv_file, pair_view
from studio import quality_words as words
from studio.context import Studio
from studio.frame import PRIVATE, block, choice, goes_to, guarded
from studio.render import Column, Html, ago, count, empty, esc, note, shorten, table

ROWS = 20
FLAGS = [("Any flag", "any"), *((words.FLAG_NAMES[flag], flag) for flag in get_args(Flag)), ("All labels", "all")]
STATES = [("That count", "counts"), ("Left out", "left_out")]
PICK = """
element.addEventListener('click', e => {
  const a = e.target.closest('[data-pick], [data-csv]');
  if (!a) return;
  e.preventDefault();
  if ('csv' in a.dataset) trigger('csv');
  else trigger('pick', {id: a.dataset.pick});
});
"""


class FlaggedTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        with gr.Row(elem_classes="st-filter"):
            self.flag = gr.Dropdown(FLAGS, value="any", label="Flag", min_width=170, elem_id="flagged-flag")
            self.who = choice(label="Annotator", min_width=170, elem_id="flagged-who")
            self.first = gr.Textbox(
                "", label="From", placeholder="2026-01-31", max_length=10, min_width=110, elem_id="flagged-from"
            )
            self.last = gr.Textbox("", label="To", placeholder="2026-12-31", max_length=10, min_width=110, elem_id="flagged-to")
            self.state = gr.Radio(STATES, value="counts", label="Labels", min_width=250, elem_id="flagged-state")
        self.rows = block(elem_id="quality-flagged", js_on_load=PICK)
        with gr.Row():
            self.back = gr.Button("Previous", size="md", scale=0, min_width=110, visible=False)
            self.on = gr.Button("Next", size="md", scale=0, min_width=110, visible=False)
        with gr.Row(elem_classes="st-panel st-ends", visible=False) as self.decide:
            self.reason = gr.Textbox("", label="Reason", max_length=500, placeholder="Why", min_width=260, elem_id="flagged-reason")
            self.one = gr.Button(
                "Leave the opened one out", size="md", scale=0, min_width=230, interactive=False, elem_id="flagged-one"
            )
            self.every = gr.Button("Leave all out", variant="stop", size="md", scale=0, min_width=190, elem_id="flagged-all")
        self.at = gr.Number(0, visible=False, precision=0)
        self.picked = gr.Textbox("", visible=False)
        self.where = gr.Textbox("", visible=False)  # of the CSV that was made
        look = [self.flag, self.who, self.first, self.last, self.state]
        self.shown = [self.rows, self.back, self.on, self.decide, self.one, self.every, self.at, self.picked]
        place = [*look, self.at]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        changed = [
            self.flag.input,
            self.who.input,
            self.first.submit,
            self.last.submit,
            self.first.blur,
            self.last.blur,
            self.state.input,
        ]
        gr.on(changed, guarded(self.find), look, self.shown, trigger_mode="always_last", **quiet)
        self.on.click(guarded(self.further), place, self.shown, **quiet)
        self.back.click(guarded(self.nearer), place, self.shown, **quiet)
        self.rows.pick(guarded(self.open), place, self.shown, **quiet)
        goes_to(self.rows.csv(guarded(self.make_csv), look, self.where, **quiet), self.where)
        done = [*self.shown, self.reason]
        self.one.click(guarded(self.decide_one), [*place, self.picked, self.reason], done, **PRIVATE)
        self.every.click(guarded(self.decide_all), [*look, self.reason], done, **PRIVATE)

    # --- handlers ---

    def load(self, project: Project) -> list[Any]:
        """The annotators to choose from, then the rows."""
        names = people.names(self._studio.db)
        sql = "select distinct annotator_id from label_events where project_id = ? order by annotator_id"
        ids = [row["annotator_id"] for row in self._studio.db.rows(sql, [project.project_id])]
        whom = [("Everybody", ""), *((names.get(i) or i, i) for i in ids)]
        return [gr.Dropdown(whom, value=""), "any", "", "", "counts", *self._page(project, Wanted(), 0)]

    @property
    def loaded(self) -> list[Any]:
        return [self.who, self.flag, self.first, self.last, self.state, *self.shown]

    def find(self, flag: str, who: str | None, first: str, last: str, state: str, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), _wanted(flag, who, first, last, state), 0)

    def further(self, flag: str, who: str | None, first: str, last: str, state: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), _wanted(flag, who, first, last, state), int(at) + ROWS)

    def nearer(self, flag: str, who: str | None, first: str, last: str, state: str, at: float, request: gr.Request) -> list[Any]:
        return self._page(self._project(request), _wanted(flag, who, first, last, state), int(at) - ROWS)

    def open(
        self, event: gr.EventData, request: gr.Request,
        flag: str, who: str | None, first: str, last: str, state: str, at: float,
    ) -> list[Any]:  # fmt: skip
        """The pair under its row; picking it again closes it."""
        wanted = str(event._data.get("id", ""))
        return self._page(self._project(request), _wanted(flag, who, first, last, state), int(at), wanted)

    def decide_one(
        self,
        flag: str,
        who: str | None,
        first: str,
        last: str,
        state: str,
        at: float,
        picked: str,
        reason: str,
        request: gr.Request,
    ) -> list[Any]:
        project = self._project(request)
        if not picked or label_list.get(self._studio.db, project, picked) is None:
            raise BadInput("Open the label first.")
        wanted = _wanted(flag, who, first, last, state)
        self._decide([picked], reason, wanted, request)
        return [*self._page(project, wanted, int(at)), ""]

    def decide_all(
        self, flag: str, who: str | None, first: str, last: str, state: str, reason: str, request: gr.Request
    ) -> list[Any]:
        project, wanted = self._project(request), _wanted(flag, who, first, last, state)
        self._decide(label_list.ids(self._studio.db, project, wanted), reason, wanted, request)
        return [*self._page(project, wanted, 0), ""]

    def make_csv(self, flag: str, who: str | None, first: str, last: str, state: str, request: gr.Request) -> str:
        """A file of every label that matches, people by pseudonym; the address to fetch it from."""
        viewer, project = self._studio.require(request, "researcher"), self._project(request)
        wanted, names = _wanted(flag, who, first, last, state), Pseudonyms(self._studio.db, project.project_id).everybody()
        rows = label_list.lines(self._studio.db, project, wanted, names)
        return csv_file.offer(self._studio, viewer, project, "flagged", label_list.LINE, rows)

    def _decide(self, impression_ids: list[str], reason: str, wanted: Wanted, request: gr.Request) -> None:
        viewer = self._studio.require(request, "researcher")
        if not reason.strip():
            raise BadInput("Write the reason first: it is kept beside the labels.")
        does = preferences.exclude if wanted.state == "counts" else preferences.restore
        n = does(self._studio.db, viewer.annotator_id, impression_ids, reason.strip())
        what = "left out" if wanted.state == "counts" else "let in again"
        gr.Info(f"{count(n, 'label')} {what}.", title="Done")

    # --- what is shown ---

    def _project(self, request: gr.Request) -> Project:
        return self._studio.project(self._studio.require(request, "researcher"))

    def _page(self, project: Project, wanted: Wanted, at: int, opened: str = "") -> list[Any]:
        total = label_list.count(self._studio.db, project, wanted)
        at = max(0, min(at, (total - 1) // ROWS * ROWS if total else 0))
        found = label_list.find(self._studio.db, project, wanted, ROWS, at)
        is_open = opened in {each.impression_id for each in found}
        verb = "Leave" if wanted.state == "counts" else "Let"
        ends = "out" if wanted.state == "counts" else "count again"
        more = total > ROWS
        return [
            self._draw(project, found, wanted, at, total, opened),
            gr.Button(visible=more, interactive=at > 0),
            gr.Button(visible=more, interactive=at + len(found) < total),
            gr.update(visible=bool(found)),
            gr.Button(f"{verb} the opened one {ends}", interactive=is_open),
            gr.Button(f"{verb} all {total:,} {ends}"),
            at,
            opened if is_open else "",
        ]

    def _draw(self, project: Project, found: list[Listed], wanted: Wanted, at: int, total: int, opened: str) -> Html:
        if not found:
            return _nothing(wanted)
        names = people.names(self._studio.db)
        texts = prompt_texts(self._studio, [each.prompt_id for each in found])
        columns = [
            Column("Prompt", "clip"), Column("Said", "tight"), Column("Flags"), Column("Annotator", "tight", wide=True),
            Column("Seconds", "num", wide=True), Column("When", "num", wide=True),
        ]  # fmt: skip
        rows = [
            (
                _link(each, opened, texts.get(each.prompt_id, "")),
                words.PREFERENCE_NAMES[each.preference],
                ", ".join(words.FLAG_NAMES[flag] for flag in each.flags),
                names.get(each.annotator_id) or each.annotator_id,
                f"{each.dwell_ms / 1000:.1f}" if each.dwell_ms else "–",
                ago(each.at),
            )
            for each in found
        ]
        below = {i: self._pair(each, names) for i, each in enumerate(found) if each.impression_id == opened}
        return Html(table(columns, rows, label="Labels", below=below) + place(at, len(found), total, "label"))

    def _pair(self, each: Listed, names: dict[str, str]) -> Html:
        chosen = {"a": each.left, "b": each.right, "good": each.left}.get(each.preference, "")
        sides = [(each.left, "A (left)" if each.right else "The answer"), (each.right, "B (right)")]
        shown = [(c, title, "chosen" if c and c == chosen else "") for c, title in sides]
        told = [f"Note: {each.note}"] if each.note else []
        if each.reason:
            told.append(f"Left out by {names.get(each.actor) or each.actor}: {each.reason}")
        said = "".join(note(text) for text in told)
        return Html(f"{pair_view.of_sides(self._studio.db, each.prompt_id, shown)}{said}")


def place(at: int, shown: int, total: int, noun: str) -> Html:
    """Which of them are shown, and the link to a file of all (`PICK` tells the tab of a click)."""
    return Html(
        f'<p class="st-sub st-sheet-head">{at + 1:,}–{at + shown:,} of {count(total, noun)}'
        f'<a href="#" class="st-csv" data-csv title="All {total:,} as a file">CSV</a></p>'
    )


def _wanted(flag: str, who: str | None, first: str, last: str, state: str) -> Wanted:
    if flag not in {value for _, value in FLAGS} or state not in ("counts", "left_out"):
        raise BadInput("Choose a flag from the list.")
    return Wanted(flag, who or "", label_list.day(first), label_list.day(last), state)  # type: ignore[arg-type]


def _nothing(wanted: Wanted) -> Html:
    if wanted.state == "left_out":
        return empty("No label like this is left out.")
    return empty("No label has a flag." if wanted == Wanted() else "No label matches.")


def prompt_texts(studio: Studio, prompt_ids: list[str]) -> dict[str, str]:
    return {p.prompt_id: p.text for p in prompts.get_many(studio.db, sorted(set(prompt_ids)))}


def _link(each: Listed, opened: str, text: str) -> Html:
    return Html(
        f'<a href="#" class="st-plain" data-pick="{"" if each.impression_id == opened else esc(each.impression_id)}" '
        f'aria-expanded="{str(each.impression_id == opened).lower()}">{esc(shorten(text))}</a>'
    )
