"""Which labels, and how several people's become rows: the same few controls for an export and for a training run."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from data import people
from data.database import Database
from data.errors import BadInput
from data.records import Flag, Project
from data.votes import Filters, Rules
from studio import quality_words as words
from studio.frame import Choice

AGGREGATIONS = [
    ("One row an item, by majority", "majority"),
    ("The same, weighted by how many agree", "weighted"),
    ("One row for each person's vote", "every"),
]
TIES = [("Leave them out", "drop"), ("Both are good answers", "good")]
FLAGS = [(words.FLAG_NAMES[flag].capitalize(), flag) for flag in get_args(Flag)]


class LabelChoice:
    """Build inside a layout; `load` gives the components' values, `read` what they hold."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.components: list[Any] = []

    def build(self) -> None:
        name = self._name
        self.components = [
            gr.Radio(AGGREGATIONS, value="majority", label="Where several people labelled", elem_id=f"{name}-aggregation"),
            gr.Radio(
                TIES, value="drop", label="Answers of a tie", elem_id=f"{name}-ties",
                info="For good and bad answers; no preference.",
            ),
            gr.Dropdown(
                FLAGS, value=[], multiselect=True, label="Leave out labels that are", elem_id=f"{name}-flags",
                info="None chosen: flagged labels count like others.",
            ),
            Choice([], multiselect=True, label="Only labels of", elem_id=f"{name}-who", info="None chosen: everybody's."),
            gr.Textbox("", label="From", placeholder="2026-01-31", max_length=10, elem_id=f"{name}-from"),
            gr.Textbox("", label="To", placeholder="2026-12-31", max_length=10, elem_id=f"{name}-to"),
            gr.Checkbox(True, label="Imported labels too", elem_id=f"{name}-imported"),
            gr.Checkbox(True, label="Simulated labels too", elem_id=f"{name}-simulated"),
        ]  # fmt: skip

    def load(self, db: Database, project: Project) -> list[Any]:
        names = people.names(db)
        sql = "select distinct annotator_id from label_events where project_id = ? order by annotator_id"
        whom = [(names.get(r["annotator_id"]) or r["annotator_id"], r["annotator_id"]) for r in db.rows(sql, [project.project_id])]
        return ["majority", "drop", [], gr.Dropdown(whom, value=[]), "", "", True, True]

    @staticmethod
    def read(values: tuple[Any, ...]) -> tuple[Filters, Rules]:
        """BadInput for what is not on offer; days are looked at by whoever uses them."""
        if len(values) != 8:
            raise BadInput("The page sent too little; reload it.")
        aggregation, ties, flags, who, first, last, imported, simulated = values
        filters = Filters(
            simulated=bool(simulated),
            imported=bool(imported),
            annotators=tuple(str(each) for each in who or ()),
            without_flags=tuple(flags or ()),
            first_day=str(first or ""),
            last_day=str(last or ""),
        )
        return filters, Rules(aggregation, ties)
