"""Models: what can write or judge text here, how to add more, and a box to try one.

Bases come from the hub or a folder, adapters from training runs, endpoints are named profiles of OpenAI-compatible servers.
A typed key is held in memory until the app ends and never leaves it; a key from the environment is named, not shown.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Literal

import gradio as gr

from data import models, prompts, runs
from data.errors import BadInput, EngineError
from data.records import Model
from studio import lineage, local_models
from studio.ask_tab import draw_columns
from studio.choices import is_demo, options, outside_world
from studio.context import Studio, Viewer
from studio.endpoint_profile import check_connection, new_profile
from studio.frame import PRIVATE, Top, block, choice, guarded, heading, query
from studio.model_download import Downloads
from studio.render import Column as Col
from studio.render import Html, ago, bar, esc, note, table, tag
from studio.run_report import held_out_right
from studio.side_by_side import Asked, Column, ask, merge, streams

SUGGESTED = ["HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-0.6B"]
PURPOSES: list[tuple[str, Literal["base", "judge"]]] = [("To write answers and be trained", "base"), ("To judge answers", "judge")]


class ModelsPage:
    title, path = "Models", "models"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._downloads = Downloads()

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading("Models", "What can answer or judge in this project. What you train here is added by itself.")
        self.list = block(elem_id="models-list")
        self.family = block(elem_id="models-family")
        with gr.Row(equal_height=False):
            with gr.Column(elem_classes="st-panel", min_width=320):
                self._build_try()
            with gr.Column(elem_classes="st-panel", min_width=320, visible=not self._studio.settings.visitor):
                self._build_add()
        with gr.Accordion("Rename or remove", open=False, elem_id="models-edit"):
            self._build_edit()
        self.timer = gr.Timer(1.0, active=False)  # ticks only while something is being fetched
        lists = [self.list, self.pick, self.edit]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        demo.load(guarded(self.load), outputs=[self.top.html, *lists, self.fetched, self.timer], **quiet)
        demo.load(guarded(self.tree), outputs=self.family, **quiet)
        self.timer.tick(guarded(self.watch), outputs=[*lists, self.fetched, self.timer], **quiet)
        self._wire(lists)

    def _build_try(self) -> None:
        block('<h2 class="st-h2">Try one</h2>')
        self.pick = choice(label="Model", elem_id="try-model")
        self.prompt = gr.Textbox(
            "What is the capital of France?", label="Prompt", lines=2, max_lines=8, max_length=20_000, elem_id="try-prompt"
        )
        with gr.Row():
            self.go = gr.Button("Ask", variant="primary", scale=0, min_width=120, elem_id="try-go")
            self.halt = gr.Button("Stop", visible=False, scale=0, min_width=100)
        self.answer = block(elem_id="try-answer")

    def _build_add(self) -> None:
        block('<h2 class="st-h2">Add one</h2>')
        with gr.Tabs():
            with gr.Tab("Hub or folder"):
                self.hub = gr.Dropdown(
                    SUGGESTED,
                    value=None,
                    allow_custom_value=True,
                    label="Hub name or folder",
                    elem_id="add-hub",
                    info="owner/model from the Hugging Face hub, or the path of a folder on this machine.",
                )
                self.purpose = gr.Radio(PURPOSES, value="base", label="What for")
                self.four_bit = gr.Checkbox(False, label="Load in 4 bits", info="Less memory, a little slower.")
                with gr.Row():
                    self.add = gr.Button("Add it", variant="primary", scale=0, min_width=140, elem_id="add-go")
                self.fetched = block(elem_id="add-progress")
            with gr.Tab("Endpoint"):
                self.end_name = gr.Textbox("", label="Name", max_length=200, placeholder="My vLLM server", elem_id="end-name")
                self.url = gr.Textbox(
                    "",
                    label="Address",
                    placeholder="http://127.0.0.1:8000/v1",
                    max_length=500,
                    info="Any server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama, hosted ones.",
                    elem_id="end-url",
                )
                self.model = gr.Textbox("", label="Model name on that server", max_length=300, elem_id="end-model")
                self.key = gr.Textbox(
                    "",
                    label="Key",
                    type="password",
                    max_length=1000,
                    info="Kept in memory until the app stops, never stored. Leave empty for none.",
                    elem_id="end-key",
                )
                self.key_env = gr.Textbox(
                    "",
                    label="Or the environment variable that holds it",
                    max_length=100,
                    placeholder="OPENAI_API_KEY",
                    elem_id="end-env",
                )
                with gr.Row():
                    self.save = gr.Button("Save", variant="primary", scale=0, min_width=140, elem_id="end-save")
                    self.test = gr.Button("Test the connection", scale=0, min_width=220, elem_id="end-test")
                self.tested = block(elem_id="end-says")

    def _build_edit(self) -> None:
        with gr.Row(equal_height=True):
            self.edit = choice(label="Model", min_width=220)
            self.new_name = gr.Textbox("", label="New name", max_length=200, min_width=220)
        with gr.Row():
            self.rename = gr.Button("Rename", scale=0, min_width=120)
            self.remove = gr.Button("Remove from the list", scale=0, min_width=180)
        block('<p class="st-sub">What it wrote stays. Files of a model are not deleted.</p>')

    def _wire(self, lists: list[Any]) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        asked = gr.on(
            [self.go.click, self.prompt.submit],
            guarded(self.ask),
            [self.pick, self.prompt],
            [self.answer, self.halt],
            concurrency_limit=8,
            **quiet,
        )
        self.halt.click(guarded(self.stopped), None, self.halt, cancels=[asked], **quiet)
        self.add.click(
            guarded(self.add_local),
            [self.hub, self.purpose, self.four_bit],
            [*lists, self.hub, self.fetched, self.timer],
            **PRIVATE,
        )
        profile = [self.end_name, self.url, self.model, self.key, self.key_env]
        self.test.click(guarded(self.test_endpoint), profile, self.tested, **PRIVATE)
        self.save.click(
            guarded(self.save_endpoint),
            profile,
            [*lists, self.end_name, self.url, self.model, self.key, self.key_env, self.tested],
            **PRIVATE,
        )
        self.rename.click(guarded(self.rename_model), [self.edit, self.new_name], [*lists, self.new_name], **PRIVATE)
        self.remove.click(guarded(self.remove_model), self.edit, lists, **PRIVATE)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        return [
            self.top.show(viewer, self._studio.project(viewer)),
            *self._lists(viewer, query(request, "model")),
            *self._progress(viewer),
        ]

    def tree(self, request: gr.Request) -> Html:
        """What was trained from what."""
        drawn = lineage.draw(lineage.tree(self._studio, self._studio.viewer(request)))
        return Html(f'<h2 class="st-h2 st-above">What came from what</h2>{drawn}') if drawn else Html("")

    def watch(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        now = self._downloads.now
        changed = now is None or now.done
        lists = self._lists(viewer) if changed else [gr.skip()] * 3
        return [*lists, *self._progress(viewer)]

    def ask(self, request: gr.Request, model_id: str | None, prompt: str) -> Iterator[list[Any]]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        if not model_id or not prompt.strip():
            raise BadInput("Choose a model and write a prompt first.")
        model = self._studio.model(viewer, model_id)
        self._studio.visitors.check_models(project, [model])
        generation = ask(prompt.strip(), "", 0.8, 256, seed=0)
        asked = Asked(viewer.owner, project.project_id, prompt.strip(), generation, (model,))
        outside = outside_world(
            [model], [prompts.new(project.project_id, generation.messages)], "it will babble", viewer.is_visitor
        )
        yield [Html(draw_columns([model.name], [Column("", False, "")]) + outside), gr.update(visible=True)]
        with self._studio.visitors.streams.hold(viewer.owner):
            for (column,) in merge(streams(self._studio, asked), threading.Event()):
                # Only the end changes the button: a piece that is on its way while Stop is pressed must not bring it back.
                yield [Html(draw_columns([model.name], [column]) + outside), gr.update(visible=False) if column.done else gr.skip()]

    def stopped(self) -> Any:
        return gr.update(visible=False)

    def add_local(self, where: str | None, purpose: Literal["base", "judge"], four_bit: bool, request: gr.Request) -> list[Any]:
        """A folder or a cached hub model is added at once; another hub model is fetched first."""
        viewer = self._researcher(request)
        where = (where or "").strip()
        if not where or purpose not in ("base", "judge"):
            raise BadInput("Give a hub name such as owner/model, or the path of a model's folder.")
        self._studio.models(viewer)
        add = lambda: self._add(viewer, where, purpose, bool(four_bit))  # noqa: E731
        if local_models.folder_of(where) is not None:
            local_models.check_folder(str(local_models.folder_of(where)))
            add()
            return [*self._lists(viewer), None, note(f"{where} is in the list.", "good"), gr.Timer(active=False)]
        self._downloads.start(where, add)
        return [*self._lists(viewer), None, *self._progress(viewer)]

    def test_endpoint(self, name: str, url: str, model: str, key: str, key_env: str, request: gr.Request) -> Iterator[Html]:
        """Says what came of it where the button is: a failure is the answer to the question, not a fault of the page."""
        self._researcher(request)
        yield note("Asking it for a few words …")
        try:
            yield note(self._answers(new_profile(name or "endpoint", url, model, key_env), key), "good")
        except (BadInput, EngineError) as error:
            yield note(str(error), "bad")

    def save_endpoint(self, name: str, url: str, model: str, key: str, key_env: str, request: gr.Request) -> Iterator[list[Any]]:
        """Saved at once, then asked for a few words: one that does not answer yet is kept, and that is said."""
        viewer = self._researcher(request)
        profile = models.add(self._studio.db, new_profile(name, url, model, key_env))
        self._studio.keys.hold(profile.model_id, key)
        saved = f"{profile.name} is saved{_key_in_words(self._studio.keys.where(profile))}."
        yield [*self._lists(viewer), "", "", "", "", "", note(f"{saved} Asking it for a few words …")]
        try:
            said = note(f"{saved} {self._answers(profile, key)}", "good")
        except EngineError as error:
            said = note(f"{saved} But it does not answer now: {error}", "warn")
        yield [*[gr.skip()] * 8, said]

    def rename_model(self, model_id: str | None, name: str, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        models.rename(self._studio.db, self._own(viewer, model_id).model_id, name)
        return [*self._lists(viewer), ""]

    def remove_model(self, model_id: str | None, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        model = self._own(viewer, model_id)
        models.remove(self._studio.db, model.model_id)
        self._studio.keys.forget(model.model_id)
        return self._lists(viewer)

    # --- parts ---

    def _researcher(self, request: gr.Request) -> Viewer:
        viewer = self._studio.viewer(request)
        if viewer.is_visitor:
            raise BadInput("A visitor uses the demo model; run the studio on your own machine for others.")
        return viewer

    def _answers(self, profile: Model, key: str) -> str:
        return check_connection(self._studio.inference, profile, key)

    def _own(self, viewer: Viewer, model_id: str | None) -> Model:
        """A model this person may change: a visitor only their own."""
        if not model_id:
            raise BadInput("Choose a model first.")
        model = self._studio.model(viewer, model_id)
        if model.owner != viewer.owner or (is_demo(model) and not models.is_trained(model)):
            raise BadInput(f"{model.name} belongs to the app and stays as it is.")
        return model

    def _add(self, viewer: Viewer, where: str, purpose: Literal["base", "judge"], four_bit: bool) -> None:
        name = where.rstrip("/").rsplit("/", 1)[-1]
        spec = {
            "kind": "local",
            "base": local_models.base_name(where),
            "adapter": "",
            "quantize": four_bit,
            "url": "",
            "key_env": "",
        }
        models.add(self._studio.db, models.new(name, purpose, spec, owner=viewer.owner))

    def _lists(self, viewer: Viewer, wanted: str = "") -> list[Any]:
        found = self._studio.models(viewer)
        asked = [m for m in found if m.kind != "reward"]
        choices, ids = options(self._studio, asked), [m.model_id for m in asked]
        value = wanted if wanted in ids else (ids[0] if ids else None)
        editable = options(self._studio, [m for m in found if m.owner == viewer.owner and (models.is_trained(m) or not is_demo(m))])
        return [
            self._table(found),
            gr.Dropdown(choices, value=value),
            gr.Dropdown(editable, value=editable[0][1] if editable else None),
        ]

    def _table(self, found: list[Model]) -> Html:
        names, merged = {m.model_id: m.name for m in found}, models.merges(self._studio.db)
        rows = [
            (m.name, tag("merged" if m.run_id in merged else _kind(m)), self._where(m, names), ago(m.created_at)) for m in found
        ]
        if not rows:
            return note("There is no model yet: add one from the hub, from a folder or as an endpoint.", "warn")
        columns = [Col("Name"), Col("Kind", "tight"), Col("Where it is", "clip"), Col("Added", "num", wide=True)]
        return table(columns, rows, label="Models")

    def _where(self, m: Model, names: dict[str, str]) -> str:
        if models.is_trained(m):
            on = "on" if m.spec.get("adapter") else "from"
            return f"{on} {names.get(m.parent_model_id, 'a model that was removed')}{self._right(m)}"
        if m.spec.get("kind") == "endpoint":
            return f"{m.spec['base']} at {m.spec['url']}{_key_in_words(self._studio.keys.where(m))}"
        return "comes with the studio" if is_demo(m) else f"{m.spec['base']}{', in 4 bits' if m.spec.get('quantize') else ''}"

    def _right(self, m: Model) -> str:
        """How often a reward model is right on held-out pairs, '' for what is none or was not tested."""
        if m.kind != "reward" or not m.run_id:
            return ""
        right = held_out_right(runs.get(self._studio.db, m.run_id).result)
        return f", right on {right}" if right else ""

    def _progress(self, viewer: Viewer) -> list[Any]:
        now = self._downloads.now
        if now is None or viewer.is_visitor:
            return ["", gr.Timer(active=False)]
        if now.error:
            return [note(now.error, "bad"), gr.Timer(active=False)]
        if now.done:
            return [note(f"{now.hub_id} is here.", "good"), gr.Timer(active=False)]
        share = now.fetched / now.total if now.total else None
        size = f"{now.fetched / 1e6:,.0f} of {now.total / 1e6:,.0f} MB" if now.total else "asking the hub"
        return [Html(f'{bar(share)}<p class="st-sub">Fetching {esc(now.hub_id)}: {size}</p>'), gr.Timer(active=True)]


def _kind(m: Model) -> str:
    return "reward model" if m.kind == "reward" else "trained here" if models.is_trained(m) else m.kind


def _key_in_words(where: str) -> str:
    """A server without a key is told nothing about keys."""
    return "" if where == "none" else f", key {where}"
