"""With a judge: two models answer the same prompts, a third says which answer is better, in both orders. One run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import gradio as gr

from data import prompts
from data.errors import BadInput
from data.records import Model, Project, Prompt, Split
from data.rundir import sha256_of
from studio.choices import before_after, covered, is_demo, judges, options, strangers, writers
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, goes_to, guarded
from studio.render import Html, count, note, run_link
from studio.visitors import RunSize

RULES = "rules"  # in place of a judge's id: only the demo world's rules decide
SETS = [("Held-out prompts, never trained on", "held_out"), ("Training prompts", "train"), ("All prompts", "all")]
MAX_PROMPTS = 2_000
PROMPTS, SAMPLES = 60, 2


class JudgeTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        with gr.Column(elem_classes="st-panel"):
            with gr.Row():
                self.a = gr.Dropdown([], label="Before", filterable=False, min_width=200, elem_id="judge-a")
                self.b = gr.Dropdown([], label="After", filterable=False, min_width=200, elem_id="judge-b")
                self.judge = gr.Dropdown([], label="Judge", filterable=False, min_width=200, elem_id="judge-judge")
            with gr.Row():
                self.set = gr.Radio(
                    SETS,
                    value="held_out",
                    label="On which prompts",
                    min_width=300,
                    elem_id="judge-set",
                )
                self.n = gr.Number(
                    PROMPTS,
                    label="How many prompts",
                    precision=0,
                    min_width=130,
                    elem_id="judge-n",
                )
                self.samples = gr.Number(
                    SAMPLES, label="Answers of each model", precision=0, min_width=130, elem_id="judge-samples"
                )
            with gr.Accordion("How they answer", open=False), gr.Row():
                self.temperature = gr.Slider(0, 2, 0.8, step=0.05, label="Temperature")
                self.tokens = gr.Slider(16, 2048, 256, step=16, label="Longest answer, in tokens")
            self.says = block(elem_id="judge-says")
            self.go = gr.Button("Compare them", variant="primary", size="lg", elem_id="judge-go")
        self.where = gr.Textbox(visible=False)
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
        choices = [*options(grading), ("No judge, the demo's rules only", RULES)]
        held_out = prompts.count(self._studio.db, project.project_id, "held_out")
        return [
            gr.Dropdown(options(found), value=chosen.before or None),
            gr.Dropdown(options(found), value=chosen.after or None),
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
            return note("There are no such prompts in this project; choose others, or import some on the Data page.", "warn")
        models = [m for m in self._studio.models(viewer) if m.model_id in (a, b, judge)]
        outside = strangers(chosen)
        if outside and any(is_demo(m) for m in models):
            return note(
                f"{count(outside, 'prompt')} of {len(chosen):,} are outside what the demo model knows: "
                "it can neither answer nor judge them. Choose other models for them.",
                "warn",
            )
        if outside and judge == RULES:
            return note(
                f"The rules know {len(chosen) - outside:,} of these {len(chosen):,} prompts; the others cannot be scored.", "warn"
            )
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
        if before.model_id == after.model_id:
            raise BadInput("Both are the same model; choose two different ones.")
        grader = None if judge == RULES else self._model(viewer, judge, "judge")
        asked = self._prompts(project, which, whole(n, "How many prompts", 1, MAX_PROMPTS))
        if not asked:
            raise BadInput("There are no such prompts in this project; choose others, or import some on the Data page.")
        size = RunSize(len(asked), 2 * whole(samples, "Answers to each", 1, 16))
        args = self._args(before, after, grader, size.samples // 2, temperature, int(tokens), asked)
        chosen = [before, after, *([grader] if grader else [])]
        with tempfile.TemporaryDirectory() as folder:
            file = write_prompts(Path(folder) / "prompts.jsonl", asked)
            data = {"file": file.name, "sha256": sha256_of(file), "rows": len(asked)}
            name = f"{before.name} against {after.name}"
            run = self._studio.start_run(
                viewer, "compare", "evals.compare", name, {"args": args, "data": data}, {file.name: file}, chosen, size
            )
        return f"./{run_link(run)}"

    # --- parts ---

    def _args(
        self, a: Model, b: Model, judge: Model | None, samples: int, temperature: float, tokens: int, asked: Sequence[Prompt]
    ) -> dict[str, Any]:
        keys = self._studio.keys
        return {
            "model_a": keys.spec(a).to_json(),
            "model_b": keys.spec(b).to_json(),
            "name_a": a.name,
            "name_b": b.name,
            "model_id_a": a.model_id,
            "model_id_b": b.model_id,
            "judge": keys.spec(judge).to_json() if judge else None,
            "judge_name": judge.name if judge else "",
            "samples": samples,
            "temperature": float(temperature),
            "max_new_tokens": tokens,
            "grader": "demo_world" if any(covered(p) for p in asked) else "",
        }

    def _model(self, viewer: Viewer, model_id: str | None, role: str) -> Model:
        if not model_id:
            raise BadInput(f"Choose the model {role}." if role != "judge" else "Choose a judge.")
        return self._studio.model(viewer, model_id)

    def _prompts(self, project: Project, which: str, n: int) -> list[Prompt]:
        if which not in ("held_out", "train", "all"):
            raise BadInput("Choose which prompts to compare on.")
        split = None if which == "all" else cast(Split, which)
        return prompts.of_project(self._studio.db, project.project_id, split, limit=max(0, min(n, MAX_PROMPTS)))


def write_prompts(file: Path, asked: Sequence[Prompt]) -> Path:
    """The frozen input of a run that asks prompts: one JSON object a line."""
    rows = ({"prompt_id": p.prompt_id, "messages": [m._asdict() for m in p.messages]} for p in asked)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def whole(value: float | None, name: str, low: int, high: int) -> int:
    if value is None or not low <= value <= high:
        raise BadInput(f"{name} goes from {low:,} to {high:,}.")
    return int(value)
