"""The part of the Runs page that changes runs: the queue and its order, runs that belong together, going on after a stop.

The page builds it, adds `outputs` to what it shows, and asks `show` for their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from data import runs
from data.errors import BadInput, NotAllowed
from data.records import Run
from studio import again
from studio.context import Studio, Viewer
from studio.frame import block
from studio.render import Column, Html, count, esc, run_link, shorten, table
from studio.run_groups import group_table
from studio.run_queue import Move
from studio.run_watch import held_out_rows

SCRIPT = Path(__file__).with_name("run_queue.js").read_text(encoding="utf-8")
MOVES: tuple[Move, ...] = get_args(Move)
OUT = "out"
NOT_THEIRS = "Visitors wait in the order in which they came; wait for your turn."


class RunControls:
    """Build `build_buttons` among the run's buttons, `build_group` under its outcome and `build_queue` above the list."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build_buttons(self) -> None:
        self.resume = gr.Button("Resume", variant="primary", visible=False, size="md", scale=0, min_width=200, elem_id="run-resume")

    def build_group(self, pick: str) -> None:
        """`pick` is the script that makes a link to a run choose it."""
        self.group = block(elem_id="run-group", js_on_load=pick)
        self.stop_group = gr.Button("Stop all of them", visible=False, size="md", scale=0, min_width=200, elem_id="run-stop-group")

    def build_queue(self) -> None:
        self.queue = block(elem_id="run-queue", js_on_load=SCRIPT)

    @property
    def outputs(self) -> list[Any]:
        return [self.resume, self.group, self.stop_group, self.queue]

    def show(self, viewer: Viewer, run: Run, mine: Sequence[Run]) -> list[Any]:
        """Values of `outputs`; `mine` are the project's runs."""
        at = again.checkpoint_of(self._studio, run)
        group = runs.of_group(self._studio.db, run.group_id)
        left = sum(each.status in ("queued", "running") for each in group)
        return [
            gr.update(visible=at is not None, value=f"Resume from step {at.step:,}" if at else ""),
            group_table(group, held_out_rows(self._studio, run), run.run_id) if len(group) > 1 else "",
            gr.update(visible=len(group) > 1 and left > 0, value=f"Stop all {left}" if left > 1 else "Stop the last one"),
            queue_table(runs.active(self._studio.db), {each.run_id for each in mine}, can_move=not viewer.is_visitor),
        ]

    def nothing(self) -> list[Any]:
        return [gr.update(visible=False), "", gr.update(visible=False), ""]

    # --- what is done ---

    def move(self, viewer: Viewer, run_id: str, to: str) -> None:
        """Move a waiting run of this person in the queue, or take it out."""
        run = self._studio.run(viewer, run_id)
        if to == OUT:
            if run.status == "queued":
                self._studio.jobs.stop(run.run_id)
            return
        if viewer.is_visitor:
            raise NotAllowed(NOT_THEIRS)
        for where in MOVES:
            if where == to:
                self._studio.jobs.move(run.run_id, where)

    def go_on(self, viewer: Viewer, run: Run | None) -> None:
        if run is None:
            raise BadInput("Choose a run first.")
        again.go_on(self._studio, viewer, run)

    def end_group(self, run: Run | None) -> None:
        if run is not None and run.group_id:
            self._studio.jobs.stop_group(run.group_id)


def queue_table(active: Sequence[Run], mine: set[str], can_move: bool = True) -> Html:
    """The runs of this project that wait, with their places in the one queue; '' when none does."""
    waiting = [run for run in active if run.status == "queued"]
    own = [(place, run) for place, run in enumerate(waiting, 1) if run.run_id in mine]
    if not own:
        return Html("")
    rows = [
        (place, Html(f'<a href="./{run_link(run)}">{esc(shorten(run.name, 90))}</a>'), _buttons(run, place, len(waiting), can_move))
        for place, run in own
    ]
    columns = [Column("#", "num"), Column("Waits", "clip"), Column("", "tight")]
    others = len(waiting) - len(own)
    more = f'<p class="st-sub">{esc(count(others, "run"))} of other projects wait in the same queue.</p>' if others else ""
    return Html(f'<h2 class="st-h2 st-above">Queue</h2>{table(columns, rows, label="Queue")}{more}')


def _buttons(run: Run, place: int, last: int, can_move: bool) -> Html:
    moves = (("first", "⤒", "Next in turn", place == 1), ("up", "↑", "Up", place == 1), ("down", "↓", "Down", place == last))
    shown = [_button(run, to, sign, says, off) for to, sign, says, off in moves] if can_move else []
    return Html(f'<div class="st-moves">{"".join(shown)}{_button(run, OUT, "✕", "Take out of the queue", False)}</div>')


def _button(run: Run, to: str, sign: str, says: str, off: bool) -> str:
    off_now = ' aria-disabled="true"' if off else ""
    return (
        f'<button type="button" class="st-move" data-do="{to}" data-run="{esc(run.run_id)}" title="{says}" '
        f'aria-label="{says}: {esc(run.name)}"{off_now}>{sign}</button>'
    )
