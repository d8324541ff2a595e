"""The part of the Runs page that takes a trained model out: download, merge, GGUF, hub, and the same run once more.

All of it is a run or a file made on request; nothing here loads a model. A visitor may download and reproduce, the rest reaches
outside their project.
"""

from __future__ import annotations

import secrets
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from data import prompts
from data.errors import BadInput
from data.hub_model import Wanted, files_of, read_args
from data.hub_push import LICENSES
from data.records import Model, Run
from data.rundir import sha256_of
from studio.again import start_again
from studio.comparisons import write_prompts
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, goes_to, guarded
from studio.model_card import card
from studio.render import Html, button, esc, note, run_link
from studio.visitors import RunSize
from training.gguf import OUT_TYPES, VARIABLE, command, find_converter
from training.merge import MAX_PROMPTS
from training.methods import is_training, makes_adapter

MAX_DOWNLOAD = 2_000_000_000  # bytes: more is fetched from the folder, not through a browser
HUB_SAYS = (
    "Pushed with the token in HF_TOKEN (or of `hf auth login`), which is neither stored nor shown. The card is written from the "
    "lineage: what it began with, what each step learned from, agreement, settings, comparisons."
)


def makes_models(run: Run) -> bool:
    """Whether this run has left something to take out."""
    return (is_training(run.kind) or run.kind == "merge") and bool(run.result.get("model_id"))


class TakeOut:
    """Build it below a run; `show` gives the values of `outputs`."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        local = not self._studio.settings.visitor
        with gr.Accordion("Take it out, or do it again", open=False, visible=False, elem_id="take-out") as self.box:
            with gr.Row(elem_classes="st-maybe"):
                self.again = gr.Button("Reproduce this run", size="md", scale=0, min_width=220, elem_id="take-again")
                self.download = gr.Button("Download the adapter", size="md", scale=0, min_width=220, elem_id="take-download")
                self.merge = gr.Button("Merge into one model", size="md", scale=0, min_width=220, elem_id="take-merge")
                self.gguf = gr.Button("Write a GGUF file", size="md", scale=0, min_width=220, elem_id="take-gguf")
            self.says = block(elem_id="take-says")
            with gr.Accordion("Put it on the Hugging Face hub", open=False, visible=local, elem_id="take-hub"):
                block(f'<p class="st-sub">{esc(HUB_SAYS)}</p>')
                with gr.Row(elem_classes="st-knobs"):
                    self.repository = gr.Textbox(
                        "", label="Repository", placeholder="your-name/my-adapter", max_length=200, elem_id="take-name"
                    )
                    self.license = gr.Dropdown(list(LICENSES), value="other", label="Licence", elem_id="take-license")
                    self.private = gr.Checkbox(True, label="Private", info="Only you and whom you let in can see it.")
                self.push = gr.Button("Push", scale=0, min_width=140, elem_id="take-push")

    @property
    def outputs(self) -> list[Any]:
        return [self.box, self.again, self.download, self.merge, self.gguf, self.says]

    def show(self, run: Run | None) -> list[Any]:
        """For the run that is looked at; hidden where it has left nothing."""
        if run is None or not makes_models(run):
            return [gr.update(visible=False), *[gr.skip()] * (len(self.outputs) - 1)]
        adapter, local = bool(run.result.get("adapter")), not self._studio.settings.visitor
        found = local and not adapter and run.kind != "reward" and find_converter() is not None
        return [
            gr.update(visible=True),
            gr.update(visible=is_training(run.kind)),
            gr.update(value="Download the adapter" if adapter else "Download the model"),
            gr.update(visible=adapter and local and makes_adapter(run.kind)),  # a reward model has nothing to merge into
            gr.update(visible=found),
            self._says(run, adapter, found) if local else "",
        ]

    def _says(self, run: Run, adapter: bool, found: bool) -> Html:
        folder = self._folder(run)
        lies = f'<p class="st-sub">It lies in <code>{esc(str(folder))}</code>.</p>'
        if run.kind == "reward":  # it writes nothing, so there is nothing to merge or to convert
            return Html(lies)
        if adapter:
            return Html(f'{lies}<p class="st-sub">For llama.cpp and what builds on it, merge it into one model first.</p>')
        if found:
            return Html(lies)
        return Html(
            f'{lies}<p class="st-sub">A GGUF file for llama.cpp: in a checkout of llama.cpp, or here once {VARIABLE} names one:</p>'
            f'<pre class="st-log" tabindex="0">{esc(command(str(folder), OUT_TYPES[0]))}</pre>'
        )

    def wire(self, chosen: Callable[[Viewer, str], Run | None], picked: gr.Textbox, where: gr.Textbox) -> None:
        """`chosen` finds the run that is looked at; what starts a run leads to it through `where`."""
        self._chosen = chosen
        shared: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        hub = [picked, self.repository, self.license, self.private]
        for press, inputs, handler in (
            (self.again, [picked], self.on_again),
            (self.merge, [picked], self.on_merge),
            (self.gguf, [picked], self.on_gguf),
            (self.push, hub, self.on_push),
        ):
            goes_to(press.click(guarded(handler), inputs, where, **shared), where)
        self.download.click(guarded(self.on_download), picked, self.says, **shared)

    def on_again(self, picked: str, request: gr.Request) -> str:
        return self._go(self.reproduce, picked, request)

    def on_merge(self, picked: str, request: gr.Request) -> str:
        return self._go(self.start_merge, picked, request)

    def on_gguf(self, picked: str, request: gr.Request) -> str:
        return self._go(self.start_gguf, picked, request)

    def on_push(self, picked: str, repository: str, license: str, private: bool, request: gr.Request) -> str:
        return self._go(self.start_push, picked, request, repository, license, private)

    def on_download(self, picked: str, request: gr.Request) -> Html:
        viewer = self._studio.viewer(request)
        return self.offer(viewer, self._run(viewer, picked))

    def _go(self, act: Callable[..., Run], picked: str, request: gr.Request, *more: Any) -> str:
        viewer = self._studio.require(request, "researcher")
        return f"./{run_link(act(viewer, self._run(viewer, picked), *more))}"

    def _run(self, viewer: Viewer, picked: str) -> Run:
        run = self._chosen(viewer, picked)
        if run is None or not makes_models(run):
            raise BadInput("Choose a run that has left a model.")
        return run

    # --- what the buttons do ---

    def reproduce(self, viewer: Viewer, run: Run) -> Run:
        """The same settings, rows, versions and seed once more; the report of the new run says whether the same came out."""
        return start_again(self._studio, viewer, run, name=f"{run.name} (again)"[:120])

    def offer(self, viewer: Viewer, run: Run) -> Html:
        """A zip of what is published of the folder, made now."""
        folder = self._folder(run)
        files = files_of(folder)
        size = sum(file.stat().st_size for file in files)
        if not files:
            raise BadInput("The weights of this run are not there any more.")
        if size > MAX_DOWNLOAD:
            return note(f"{size / 1e9:.1f} GB are too much for a browser; copy the folder {folder} instead.", "warn")
        target = self._studio.settings.export_dir / f"{run.run_id[:8]}-{folder.name}.zip"
        readme = folder / "README.md"
        part = target.with_name(f".{secrets.token_hex(4)}-{target.name}.part")  # another tab may be making or fetching the same
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:  # weights do not get smaller
                for file in [*files, *([readme] if readme.is_file() else [])]:
                    archive.write(file, file.name)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        link = self._studio.offers.add(target, target.name, viewer.owner)
        return Html(f'<div class="st-actions">{button(f"Download {target.name} ({size / 1e6:.1f} MB)", link)}</div>')

    def start_merge(self, viewer: Viewer, run: Run) -> Run:
        """One model out of base and adapter; its answers to held-out prompts are compared with theirs."""
        model = self._allowed(viewer, run)
        project = self._studio.project(viewer)
        asked = prompts.of_project(self._studio.db, project.project_id, "held_out", MAX_PROMPTS)
        with tempfile.TemporaryDirectory() as scratch:
            file = write_prompts(Path(scratch) / "prompts.jsonl", asked)
            config = {
                "args": {"model": model.spec, "model_id": model.model_id, "model_name": model.name},
                "data": {"file": file.name, "sha256": sha256_of(file), "rows": len(asked)},
            }
            name, size = f"{model.name}, merged", RunSize(len(asked), 2)
            return self._studio.start_run(viewer, "merge", "training.merge", name, config, {file.name: file}, [model], size)

    def start_gguf(self, viewer: Viewer, run: Run) -> Run:
        model = self._allowed(viewer, run)
        config = {"args": {"model": model.spec, "model_id": model.model_id, "outtype": OUT_TYPES[0]}}
        return self._studio.start_run(viewer, "gguf", "training.gguf", f"{model.name} as GGUF", config, {}, [model], RunSize())

    def start_push(self, viewer: Viewer, run: Run, repository: str, license: str, private: bool) -> Run:
        model = self._allowed(viewer, run)
        wanted = Wanted(repository.strip(), str(self._folder(run)), license, bool(private))
        args = read_args(vars(wanted))  # in words before a run is made of it
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "README.md"
            file.write_text(card(self._studio, run, wanted.license), encoding="utf-8")
            name = f"{model.name} to {args.repository}"
            return self._studio.start_run(
                viewer, "hub_model", "data.hub_model", name, {"args": vars(wanted)}, {file.name: file}, [model], RunSize()
            )

    def _allowed(self, viewer: Viewer, run: Run) -> Model:
        if viewer.is_visitor:
            raise BadInput("A visitor cannot do this; run the studio on your own machine for that.")
        return self._studio.model(viewer, str(run.result.get("model_id", "")))

    def _folder(self, run: Run) -> Path:
        return self._studio.settings.runs_dir / run.run_id / ("adapter" if run.result.get("adapter") else "model")


def checksum(run: Run) -> str:
    """Of the weights that the run has left, an adapter's or a whole model's; '' where it tells none."""
    return str(run.result.get("adapter_sha256") or run.result.get("model_sha256") or "")


def same_again(first: Run, again: Run) -> Html:
    """What a reproduction came to: the same weights bit for bit, or what was different about it."""
    before, now = checksum(first), checksum(again)
    if again.config.get("changes") or not now:
        return Html("")
    if now == before:
        return note(f"Reproduced: the weights are those of “{first.name}”, bit for bit.", "good", run_link(first), "See it")
    if not before:
        return note(f"“{first.name}” has no checksum of its weights, so the two cannot be compared.", "warn")
    had, has = first.config.get("versions") or {}, again.config.get("versions") or {}
    moved = [f"{name} {had.get(name, 'missing')} → {has[name]}" for name in has if had.get(name) != has[name]]
    if first.device != again.device:
        moved.append(f"device {first.device} → {again.device}")
    if (first.config.get("git") or {}).get("commit") != (again.config.get("git") or {}).get("commit"):
        moved.append("the studio's own code")
    unknown = "Nothing that is recorded was different; a GPU's arithmetic is not the same twice."
    why = f"Different: {', '.join(moved)}." if moved else unknown
    return note(f"The weights are not those of “{first.name}”. {why}", "warn", run_link(first), "See it")
