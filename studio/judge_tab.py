"""With a judge: two models answer the same prompts, a third says which answer is better, in both orders. One run."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr

from data import prompts
from data.errors import BadInput
from data.records import Model, Project, Prompt, Split
from studio.choices import before_after, is_demo, judges, options, outside_world, strangers, writers
from studio.comparisons import NO_PROMPTS, PROMPTS, SAMPLES, Comparison, start
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, choice, goes_to, guarded
from studio.render import Html, count, note, run_link

RULES = "rules"  # in place of a judge's id: only the demo world's rules decide
SETS = [("Held out, never trained on", "held_out"), ("For training", "train"), ("All", "all")]
MAX_PROMPTS = 2_000


class JudgeTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        with gr.Column(elem_classes="st-panel"):
            with gr.Row():
                self.a = choice(label="Before", min_width=200, elem_id="judge-a")
                self.b = choice(label="After", min_width=200, elem_id="judge-b")
                self.judge = choice(label="Judge", min_width=200, elem_id="judge-judge")
            with gr.Row():
                self.set = gr.Radio(
                    SETS,
                    value="held_out",
                    label="On which prompts",
                    min_width=300,
                    scale=3,
                    elem_id="judge-set",
                )
                self.n = gr.Number(
                    PROMPTS,
                    label="How many prompts",
                    precision=0,
                    min_width=130,
                    elem_id="judge-n",
                )
                self.samples = gr.Number(SAMPLES, label="Answers each", precision=0, min_width=130, elem_id="judge-samples")
            with gr.Accordion("How they answer", open=False), gr.Row():
                self.temperature = gr.Slider(0, 2, 0.8, step=0.05, label="Temperature")
                self.tokens = gr.Slider(16, 2048, 256, step=16, label="Longest answer, in tokens")
            self.says = block(elem_id="judge-says")
            with gr.Row():
                self.go = gr.Button("Compare them", variant="primary", size="lg", scale=0, min_width=220, elem_id="judge-go")
        self.where = gr.Textbox("", visible=False)
        self.shown = [self.a, self.b, self.judge, self.says, self.n]
        watched = [self.a, self.b, self.judge, self.set, self.n]
        gr.on([c.change for c in watched], guarded(self.check), watched, self.says, show_progress="hidden", **PRIVATE)
        inputs = [self.a, self.b, self.judge, self.set, self.n, self.samples, self.temperature, self.tokens]
        started = self.go.click(guarded(self.start), inputs, self.where, **PRIVATE)
        goes_to(started, self.where)

    # --- handlers ---

    def load(self, viewer: Viewer, project: Project, run_id: str) -> list[Any]:
        found, grading = writers(self._studio, viewer), judges(self._studio, viewer)
        chosen = before_after(found, run_id)
        held_out = prompts.count(self._studio.db, project.project_id, "held_out")
        if strangers(self._prompts(project, "held_out", PROMPTS)):
            grading.sort(key=is_demo)  # a judge that knows these prompts first, where there is one
        choices = [*options(self._studio, grading), ("No judge, the demo's rules only", RULES)]
        return [
            gr.Dropdown(options(self._studio, found), value=chosen.before or None),
            gr.Dropdown(options(self._studio, found), value=chosen.after or None),
            gr.Dropdown(choices, value=choices[0][1]),
            "",
            min(PROMPTS, held_out) or PROMPTS,
        ]

    def check(self, a: str | None, b: str | None, judge: str | None, which: str, n: float | None, request: gr.Request) -> Html:
        """What to know before starting: models outside their world, too few prompts."""
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        chosen = self._prompts(project, which, int(n or 0))
        if not chosen:
            return note(NO_PROMPTS, "warn")
        models = [m for m in self._studio.models(viewer) if m.model_id in (a, b, judge)]
        if warning := outside_world(models, chosen, "it can neither answer nor judge them", viewer.is_visitor):
            return warning
        if judge == RULES and (outside := strangers(chosen)):
            known = f"The rules know {len(chosen) - outside:,} of these {len(chosen):,} prompts"
            return note(f"{known}; the others cannot be scored.", "warn")
        if len(chosen) < 20:
            return note(f"{count(len(chosen), 'prompt')} will give a wide interval: 50 or more tell more.", "warn")
        return Html("")

    def start(
        self,
        a: str | None,
        b: str | None,
        judge: str | None,
        which: str,
        n: float | None,
        samples: float | None,
        temperature: float,
        tokens: float,
        request: gr.Request,
    ) -> str:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        before, after = self._model(viewer, a, "before"), self._model(viewer, b, "after")
        grader = None if judge == RULES else self._model(viewer, judge, "judge")
        asked = self._prompts(project, which, whole(n, "How many prompts", 1, MAX_PROMPTS))
        each = whole(samples, "Answers each", 1, 16)
        wanted = Comparison(before, after, grader, tuple(asked), each, float(temperature), int(tokens))
        return f"./{run_link(start(self._studio, viewer, wanted))}"

    # --- parts ---

    def _model(self, viewer: Viewer, model_id: str | None, role: str) -> Model:
        if not model_id:
            raise BadInput(f"Choose the model {role}." if role != "judge" else "Choose a judge.")
        return self._studio.model(viewer, model_id)

    def _prompts(self, project: Project, which: str, n: int) -> list[Prompt]:
        if which not in ("held_out", "train", "all"):
            raise BadInput("Choose which prompts to compare on.")
        split = None if which == "all" else cast(Split, which)
        return prompts.of_project(self._studio.db, project.project_id, split, limit=max(0, min(n, MAX_PROMPTS)))


def whole(value: float | None, name: str, low: int, high: int) -> int:
    if value is None or not low <= value <= high:
        raise BadInput(f"{name} goes from {low:,} to {high:,}.")
    return int(value)
