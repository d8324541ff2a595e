"""How a project is labelled: guidelines, what people may say, how many labels, checks, and what comes next.

Every setting counts from the moment it is saved, also for people who are labelling just now; what was said stays as it was said.
The form is drawn from one list of fields (`FIELDS`), each with one plain sentence; `data/projects.change` says what cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import gradio as gr

from data import completions, projects
from data.errors import BadInput
from data.records import Project, ProjectSettings
from studio.context import Studio
from studio.frame import PRIVATE, Top, block, guarded, heading
from studio.render import Html, button, count, safe_text

MAX_GUIDELINES = 20_000
POLICIES = [
    ("By lot, every kind of prompt alike", "stratified_random"),
    ("Close calls first: where a judge was torn", "close_call"),
    ("Where judge and people differ", "judge_disagreement"),
]
PERCENTS = frozenset({"full_overlap", "gold_rate", "repeat_rate", "random_share"})
LINES = frozenset({"reasons", "leak_phrases"})


class Field(NamedTuple):
    """One setting: its name in ProjectSettings, its label and what it means in one sentence."""

    name: str
    label: str
    says: str


SAYS = (
    Field("strength", "Ask how clearly", "A second key says whether it was clearly or slightly better."),
    Field("notes", "Allow notes", "People may write a sentence about a label."),
    Field("reasons", "Reasons to choose from", "One a line, such as “more correct”; up to nine get a key."),
)
NUMBERS = (
    Field("overlap", "Labels an item", "How many people label each item; two or more let you measure agreement."),
    Field("adaptive", "Fewer where people agree", "Two labels that agree are enough; where people differ, more are asked."),
    Field("max_overlap", "At most", "Labels an item gets while people differ."),
    Field("full_overlap", "Items that always get the most (%)", "A fixed share, so that agreement is measured without favour."),
    Field("target", "Labels wanted", "A number to work towards; 0 means every item."),
)
CHECKS = (
    Field("gold_rate", "Known items (%)", "Share of what a person sees whose right answer you know; nobody can tell which."),
    Field("repeat_rate", "Repeated items (%)", "Share that a person sees again, sides swapped, to see whether the answer stays."),
    Field(
        "leak_phrases",
        "Phrases that give a model away",
        "One a line; answers with one are flagged. “I am ChatGPT” and the like are known.",
    ),
)
ORDER = (
    Field("policy", "What comes next", "By lot is right when in doubt; the others need a comparison with a judge."),
    Field("random_share", "By lot all the same (%)", "Part of what is shown stays random, so that the labels speak for the whole."),
    Field("sources", "Whose answers", "Only pairs of these models are labelled; none chosen means all."),
)
FIELDS = (*SAYS, *NUMBERS, *CHECKS, *ORDER)


class ProjectPage:
    title, path = "Labelling", "project"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.parts: dict[str, Any] = {}

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading("How this project is labelled", "What you save here counts from then on; labels that were given stay as they are.")
        self.about = block(elem_id="project-about")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320), gr.Column(elem_classes="st-panel"):
                block('<h2 class="st-h2">Guidelines</h2>')
                self.guidelines = gr.Textbox(
                    "", label="What makes an answer good?", info="Markdown; shown beside every pair.", lines=10,
                    max_length=MAX_GUIDELINES, elem_id="project-guidelines",
                )  # fmt: skip
                block('<h3 class="st-h3">As people see it</h3>')
                self.preview = block(elem_id="project-preview")
            with gr.Column(min_width=320):
                self._section("What people say", SAYS)
                self._section("How many labels", NUMBERS)
        with gr.Row(equal_height=False):
            self._section("Checks", CHECKS)
            self._section("What comes next", ORDER)
        self.save = gr.Button("Save", variant="primary", elem_id="project-save")
        fields = [self.parts[field.name] for field in FIELDS]
        shown = [self.top.html, self.about, self.guidelines, self.preview, *fields]
        demo.load(guarded(self.load), outputs=shown, show_progress="hidden", **PRIVATE)
        self.guidelines.change(
            guarded(self.look), self.guidelines, self.preview, show_progress="hidden", trigger_mode="always_last", **PRIVATE
        )
        self.parts["adaptive"].change(
            guarded(self.adapt), self.parts["adaptive"], [self.parts["max_overlap"], self.parts["full_overlap"]],
            show_progress="hidden", **PRIVATE,
        )  # fmt: skip
        self.save.click(guarded(self.store), [self.guidelines, *fields], shown, **PRIVATE)

    def _section(self, title: str, fields: Sequence[Field]) -> None:
        with gr.Column(elem_classes="st-panel", min_width=320):
            block(f'<h2 class="st-h2">{title}</h2>')
            for field in fields:
                self.parts[field.name] = _component(field)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.require(request, "researcher")
        project = self._studio.project(viewer)
        return [
            self.top.show(viewer, project),
            _about(project),
            project.guidelines,
            _preview(project.guidelines),
            *self._values(project),
        ]

    def look(self, guidelines: str) -> Html:
        return _preview(guidelines[:MAX_GUIDELINES])

    def adapt(self, adaptive: bool) -> list[Any]:
        return [gr.update(visible=bool(adaptive)), gr.update(visible=bool(adaptive))]

    def store(self, request: gr.Request, guidelines: str, *values: Any) -> list[Any]:
        project = self._studio.project(self._studio.require(request, "researcher"))
        settings = _read(dict(zip((field.name for field in FIELDS), values, strict=True)), project)
        projects.change(self._studio.db, project.project_id, settings, guidelines.strip())
        gr.Info("Saved. It counts from now on.", title="Done")
        return self.load(request)

    # --- what is shown ---

    def _values(self, project: Project) -> list[Any]:
        held = asdict(project.settings)
        models = completions.counts(self._studio.db, project.project_id).models
        out: list[Any] = []
        for field in FIELDS:
            value = held[field.name]
            if field.name == "sources":
                choices = sorted({*models, *value} - {""})
                out.append(gr.update(choices=choices, value=list(value), visible=bool(choices)))
            elif field.name in ("max_overlap", "full_overlap"):
                shown = round(100 * value) if field.name in PERCENTS else value
                out.append(gr.update(value=shown, visible=project.settings.adaptive))
            elif field.name in PERCENTS:
                out.append(round(100 * value))
            else:
                out.append("\n".join(value) if field.name in LINES else value)
        return out


def _component(field: Field) -> Any:
    more: dict[str, Any] = {"label": field.label, "info": field.says, "elem_id": f"project-{field.name}"}
    if field.name in ("strength", "notes", "adaptive"):
        return gr.Checkbox(False, **more)
    if field.name in LINES:
        return gr.Textbox("", lines=3, max_length=20_000, **more)
    if field.name == "policy":
        return gr.Radio(POLICIES, value="stratified_random", **more)
    if field.name == "sources":
        return gr.Dropdown([], multiselect=True, allow_custom_value=True, **more)
    if field.name in PERCENTS:
        low, high = (25, 100) if field.name == "random_share" else (0, 100 if field.name == "full_overlap" else 50)
        return gr.Slider(low, high, value=low, step=1, buttons=[], **more)
    if field.name == "target":
        return gr.Number(0, precision=0, minimum=0, **more)
    return gr.Slider(1, projects.MAX_OVERLAP, value=1, step=1, buttons=[], **more)


def _read(values: dict[str, Any], project: Project) -> ProjectSettings:
    """What the form holds as settings; BadInput in words for what cannot be."""
    read: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            raise BadInput(f"“{next(f.label for f in FIELDS if f.name == name)}” is empty; fill it in.")
        if name in LINES:
            read[name] = tuple(line.strip() for line in str(value).splitlines() if line.strip())
        elif name in PERCENTS:
            read[name] = float(value) / 100
        elif name == "sources":
            read[name] = tuple(value)
        else:
            read[name] = int(value) if name in ("overlap", "max_overlap", "target") else value
    read["max_overlap"] = max(read["max_overlap"], read["overlap"])
    return replace(project.settings, **read)


def _about(project: Project) -> Html:
    task = "Two answers side by side" if project.task == "pairwise" else "One answer at a time"
    links = button("See how the labels are", "quality", quiet=True) + button("Label", "label", quiet=True)
    return Html(
        f'<p class="st-sub">{task}; {count(project.settings.overlap, "label")} an item.</p><div class="st-actions">{links}</div>'
    )


def _preview(guidelines: str) -> Html:
    if not guidelines.strip():
        return Html('<p class="st-sub">Nothing yet: people will judge by their own lights.</p>')
    return Html(f'<div class="st-answer"><div class="text">{safe_text(guidelines)}</div></div>')
