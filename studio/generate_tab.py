"""Generate answers: which model, which prompts, how many different answers to each. One run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import gradio as gr

from data import prompts
from data.errors import BadInput
from data.models import is_trained
from data.records import Project, Prompt, Split
from data.rundir import sha256_of
from studio.choices import before_after, is_demo, options, outside_world, strangers, writers
from studio.comparisons import write_prompts
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, choice, goes_to, guarded
from studio.judge_tab import whole
from studio.render import Html, count, empty, note, run_link
from studio.visitors import MAX_RUN_PROMPTS, RunSize

SETS = [
    ("Prompts without answers, newest first", "new"),
    ("Training prompts", "train"),
    ("Held-out prompts", "held_out"),
    ("All prompts", "all"),
]
MAX_PROMPTS = 100_000
ANSWERS = 4
LOOK_AT = 200  # prompts, to see whether they are of the demo model's world


class GenerateTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        with gr.Column(elem_classes="st-panel"):
            with gr.Row():
                self.model = choice(label="Model", min_width=240, scale=2, elem_id="gen-model")
                self.n = gr.Number(ANSWERS, label="Different answers to each", precision=0, min_width=170, elem_id="gen-n")
                self.limit = gr.Number(60, label="At most this many prompts", precision=0, min_width=170, elem_id="gen-limit")
            self.set = gr.Radio(SETS, value="new", label="For which prompts", elem_id="gen-set")
            with gr.Accordion("How it answers", open=False), gr.Row():
                self.temperature = gr.Slider(
                    0, 2, 0.8, step=0.05, label="Temperature", info="Higher: more different answers.", min_width=200
                )
                self.top_p = gr.Slider(
                    0.05, 1, 1, step=0.05, label="Top p", info="Only the likeliest words that make up this share.", min_width=200
                )
                self.tokens = gr.Slider(16, 2048, 256, step=16, label="Longest answer, in tokens", min_width=200)
                self.system = gr.Textbox("", label="System message", max_length=20_000, info="Leave empty for none.", min_width=300)
            self.says = block(elem_id="gen-says")
            with gr.Row():
                self.go = gr.Button("Generate", variant="primary", size="lg", scale=0, min_width=220, elem_id="gen-go")
        self.where = gr.Textbox("", visible=False)
        self.shown = [self.model, self.set, self.says]
        watched = [self.model, self.set, self.limit]
        gr.on([c.change for c in watched], guarded(self.check), watched, self.says, show_progress="hidden", **PRIVATE)
        inputs = [self.model, self.n, self.set, self.limit, self.temperature, self.top_p, self.tokens, self.system]
        goes_to(self.go.click(guarded(self.start), inputs, self.where, **PRIVATE), self.where)

    # --- handlers ---

    def load(self, viewer: Viewer, project: Project, run_id: str, only: str = "") -> list[Any]:
        """The model that `run_id` trained, else the first; what it is to answer: the `only` set, or training prompts for a new
        model. Prompts of the real world go to a model that knows more than the demo's, where there is one."""
        found = writers(self._studio, viewer)
        new = self._prompts(project, "new", LOOK_AT)
        which = "new" if new and (only == "new" or not run_id) else "train"
        trained = before_after(found, run_id).after if run_id else ""
        bases = [m.model_id for m in found if not is_trained(m)] or [m.model_id for m in found]
        chosen = trained or next(iter(bases), None)
        if which == "new" and strangers(new) and any(is_demo(m) for m in found if m.model_id == chosen):
            chosen = next((m.model_id for m in found if not is_demo(m)), chosen)
        says = empty("There is no model yet.", "models", "Add one") if not found else ""
        return [gr.Dropdown(options(self._studio, found), value=chosen), which, says]

    def check(self, model_id: str | None, which: str, limit: float | None, request: gr.Request) -> Html:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        chosen = self._prompts(project, which, int(limit or 0))
        if not chosen:
            return note("There are no such prompts; choose others, or import some.", "warn")
        model = next((m for m in self._studio.models(viewer) if m.model_id == model_id), None)
        return outside_world([model], chosen, "it will babble", viewer.is_visitor)

    def start(
        self,
        model_id: str | None,
        n: float | None,
        which: str,
        limit: float | None,
        temperature: float,
        top_p: float,
        tokens: float,
        system: str,
        request: gr.Request,
    ) -> str:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        if not model_id:
            raise BadInput("Choose a model; add one on the Models page if there is none.")
        model = self._studio.model(viewer, model_id)
        chosen = self._prompts(project, which, whole(limit, "The number of prompts", 1, MAX_PROMPTS))
        if not chosen:
            raise BadInput("There are no such prompts; choose others, or import some.")
        answers = whole(n, "Answers to each prompt", 1, 32)
        args = {
            "model": self._studio.keys.spec(model).to_json(),
            "model_id": model.model_id,
            "model_name": model.name,
            "n": answers,
            "temperature": float(temperature),
            "top_p": float(top_p),
            "max_new_tokens": int(tokens),
            "system": system.strip(),
        }
        with tempfile.TemporaryDirectory() as folder:
            file = write_prompts(Path(folder) / "prompts.jsonl", chosen)
            data = {"file": file.name, "sha256": sha256_of(file), "rows": len(chosen)}
            name = f"{model.name}: {count(answers, 'answer')} to {count(len(chosen), 'prompt')}"
            run = self._studio.start_run(
                viewer,
                "generate",
                "labeling.generate",
                name,
                {"args": args, "data": data},
                {file.name: file},
                [model],
                RunSize(len(chosen), answers),
            )
        return f"./{run_link(run)}"

    # --- parts ---

    def _prompts(self, project: Project, which: str, limit: int) -> list[Prompt]:
        if which not in ("new", "train", "held_out", "all"):
            raise BadInput("Choose for which prompts.")
        limit = max(0, min(limit, MAX_RUN_PROMPTS if project.owner else MAX_PROMPTS))
        if which == "new":
            return prompts.unanswered(self._studio.db, project.project_id, limit)
        split = None if which == "all" else cast(Split, which)
        return prompts.of_project(self._studio.db, project.project_id, split, limit)
