"""Run it elsewhere: a section of the Train and Runs pages that takes a training run past one device.

It shows the exact command or file for accelerate, Ray, Slurm, SkyPilot or Hugging Face Jobs as the choices change, starts the run
on this machine where that can be done, and makes the file to carry. `BringBack` takes in what was trained elsewhere. What a run
is, is the page's to say: it hands in `outline` (cheap, for what is shown) and `prepare` (freezes rows where that is needed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from data.errors import BadInput, NotAllowed
from studio.bring_back import bring_back
from studio.context import Studio, Viewer
from studio.elsewhere import HERE, Prepared, pack_up, start_here
from studio.frame import PRIVATE, block, goes_to, guarded
from studio.render import Html, button, count, esc, note, run_link
from training.config import method_named
from training.launch import Kind, Launch, Preset
from training.launch_files import GPUS, Place, recipe, slug
from training.methods import METHOD_FACTS, module_of

WAYS: list[tuple[str, Kind]] = [
    ("accelerate", "accelerate"),
    ("Ray", "ray"),
    ("Slurm", "slurm"),
    ("SkyPilot", "skypilot"),
    ("Hugging Face Jobs", "hf_jobs"),
]
PRESETS: list[tuple[str, Preset]] = [
    ("Whole copies (DDP)", "ddp"),
    ("Cut up (FSDP)", "fsdp"),
    ("Optimiser cut up (ZeRO-2)", "zero2"),
    ("All cut up (ZeRO-3)", "zero3"),
]
CHOICES = 7  # components above the commands
NOT_FOR_VISITORS = "A visitor's runs stay on this machine; run the studio on your own for more devices."
SCRIPT = Path(__file__).with_name("elsewhere.js").read_text(encoding="utf-8")


class Outline(NamedTuple):
    """What the commands need to know of a run. `batch`: rows a step on one device."""

    name: str
    method: str
    batch: int


class ElsewherePanel:
    """Call `build` where the section belongs and `wire` once the page's own components are there.

    `outline(request, *inputs)` is None where there is nothing to train; `prepare(request, *inputs)` is a run ready to start.
    """

    def __init__(self, studio: Studio, outline: Callable[..., Outline | None], prepare: Callable[..., Prepared], page: str) -> None:
        self._studio, self._outline, self._prepare, self._page = studio, outline, prepare, page

    def build(self) -> None:
        devices = max(2, len(self._studio.jobs.gpus)) if self._studio.jobs else 2
        with gr.Accordion(
            "On several devices, or elsewhere",
            open=False,
            visible=False,
            elem_id=f"{self._page}-elsewhere",
            elem_classes="st-settings",
        ) as self.box:
            self.way = gr.Radio(WAYS, value="accelerate", label="Start it with", elem_id=f"{self._page}-way")
            with gr.Row(elem_classes="st-knobs"):
                self.preset = gr.Dropdown(PRESETS, value="ddp", label="How the model is spread", elem_id=f"{self._page}-preset")
                self.devices = gr.Number(
                    devices, label="Devices a machine", precision=0, minimum=1, elem_id=f"{self._page}-devices"
                )
                self.nodes = gr.Number(1, label="Machines", precision=0, minimum=1, elem_id=f"{self._page}-nodes")
                self.gpu = gr.Dropdown(list(GPUS), value="A100", label="GPU", visible=False, elem_id=f"{self._page}-gpu")
                self.hours = gr.Number(
                    4, label="Hours at most", precision=0, minimum=1, visible=False, elem_id=f"{self._page}-hours"
                )
                self.bucket = gr.Textbox(
                    "", label="Bucket on the hub", placeholder="your-name/some-name", max_length=200, visible=False,
                    elem_id=f"{self._page}-bucket",
                )  # fmt: skip
            self.shown = block(elem_id=f"{self._page}-commands", js_on_load=SCRIPT)
            with gr.Row():
                self.start = gr.Button(
                    "Start on this machine", variant="primary", scale=0, min_width=220, elem_id=f"{self._page}-here"
                )
                self.pack = gr.Button("Make the file to carry", scale=0, min_width=220, elem_id=f"{self._page}-carry")
            self.made = block(elem_id=f"{self._page}-carried")

    def wire(self, inputs: Sequence[Any], where: gr.Textbox, after: Sequence[Any]) -> None:
        """`inputs`: what `outline` and `prepare` are given; `where`: the page's box for addresses to go to; `after`: the page's
        events (what `demo.load` and its like return) after which another run may be meant."""
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        choices = [self.way, self.preset, self.devices, self.nodes, self.gpu, self.hours, self.bucket]
        outputs = [
            self.box,
            self.preset,
            self.nodes,
            self.gpu,
            self.hours,
            self.bucket,
            self.shown,
            self.start,
            self.pack,
            self.made,
        ]
        redraw: list[Any] = [guarded(self.show), [*choices, *inputs], outputs]
        gr.on([each.change for each in choices], *redraw, **quiet)
        for event in after:
            event.then(*redraw, **quiet)
        goes_to(self.start.click(guarded(self.begin), [*choices, *inputs], where, **PRIVATE), where)
        self.pack.click(guarded(self.carry), [*choices, *inputs], self.made, **PRIVATE)

    # --- handlers ---

    def show(self, request: gr.Request, *values: Any) -> list[Any]:
        way = values[0]
        ready, here = True, False
        try:
            outline = None if self._studio.viewer(request).is_visitor else self._outline(request, *values[CHOICES:])
            if outline is None:
                return [gr.update(visible=False), *[gr.skip()] * 5, "", gr.skip(), gr.skip(), ""]
            launch, place = _choice(values[:CHOICES], outline)
            drawn = _drawn(launch, place, outline, self._page)
            here = launch.kind in HERE and launch.nodes == 1
        except BadInput as error:
            drawn, ready = note(str(error), "warn"), False
        return [
            gr.update(visible=True),
            gr.update(visible=way != "ray"),
            gr.update(visible=way != "hf_jobs"),
            gr.update(visible=way in ("skypilot", "hf_jobs")),
            gr.update(visible=way in ("slurm", "hf_jobs")),
            gr.update(visible=way == "hf_jobs"),
            drawn,
            gr.update(visible=way in HERE, interactive=ready and here),
            gr.update(interactive=ready),
            "",
        ]

    def begin(self, request: gr.Request, *values: Any) -> str:
        """Start it here, and go and watch."""
        viewer, prepared, launch, _ = self._ready(request, values)
        return f"./{run_link(start_here(self._studio, viewer, prepared, launch))}"

    def carry(self, request: gr.Request, *values: Any) -> Html:
        viewer, prepared, launch, place = self._ready(request, values)
        path = pack_up(self._studio, viewer, prepared, place, launch)
        link = self._studio.offers.add(path, path.name, viewer.owner)
        said = note(f"The run, its rows and the code that trains it: {path.stat().st_size / 2**20:,.1f} MB.", "good")
        return Html(f'{said}<div class="st-actions">{button(f"Download {path.name}", link)}</div>')

    def _ready(self, request: gr.Request, values: Sequence[Any]) -> tuple[Viewer, Prepared, Launch, Place]:
        viewer = self._studio.require(request, "researcher")
        if viewer.is_visitor:
            raise NotAllowed(NOT_FOR_VISITORS)
        inputs = values[CHOICES:]
        outline = self._outline(request, *inputs)
        if outline is None:
            raise BadInput("Choose a training run first.")
        launch, place = _choice(values[:CHOICES], outline)
        return viewer, self._prepare(request, *inputs), launch, place


class BringBack:
    """A run that was carried away and has ended: its folder, packed."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self, where: gr.Textbox) -> None:
        if self._studio.settings.visitor:
            return
        with gr.Accordion("Bring back a run that was trained elsewhere", open=False, elem_id="bring-back"):
            block(
                '<p class="st-sub">The run folder as .tar.gz or .zip, packed as the README.txt beside it says. '
                "It becomes a run of this project, and what it trained a model with its lineage.</p>"
            )
            self.file = gr.File(label="The packed run folder", file_types=[".gz", ".tgz", ".zip"], height=120, elem_id="back-file")
            with gr.Row():
                self.go = gr.Button("Bring it back", variant="primary", scale=0, min_width=180, elem_id="back-go")
            goes_to(self.go.click(guarded(self.take), self.file, where, **PRIVATE), where)

    def take(self, upload: str | None, request: gr.Request) -> str:
        viewer = self._studio.require(request, "researcher")
        if viewer.is_visitor:
            raise NotAllowed(NOT_FOR_VISITORS)
        if not upload:
            raise BadInput("Choose the packed run folder first.")
        return f"./{run_link(bring_back(self._studio, viewer, Path(upload)))}"


def _choice(chosen: Sequence[Any], outline: Outline) -> tuple[Launch, Place]:
    """What was chosen; a Number field that was emptied holds None, which the dataclass refuses in words."""
    way, preset, devices, nodes, gpu, hours, bucket = chosen
    launch = Launch(way, "ddp" if way == "ray" else preset, devices, 1 if way == "hf_jobs" else nodes)
    return launch, Place(slug(outline.name), module_of(method_named(outline.method)), gpu, hours, bucket.strip())


def _drawn(launch: Launch, place: Place, outline: Outline, page: str) -> Html:
    """The command and the file, each with its buttons, and how many rows make a step."""
    made = recipe(place, launch)
    rows, one = outline.batch * launch.processes, "answer" if METHOD_FACTS[method_named(outline.method)].samples else "row"
    each = f"{count(outline.batch, one)} on each of {count(launch.processes, 'device')} make {count(rows, one)} a step"
    where = "To type, in the carried folder:"
    parts = [f'<p class="st-sub">{esc(each)}.</p>', _text(where, made.commands, f"{page}-command")]
    if made.name:
        parts.append(_text(made.name, made.text, f"{page}-file", made.name))
    return Html("".join(parts))


def _text(title: str, text: str, key: str, file: str = "") -> str:
    save = f'<button type="button" class="st-mini" data-text="{key}" data-file="{esc(file)}">Download</button>' if file else ""
    return (
        f'<div class="st-command"><div class="st-command-head"><span>{esc(title)}</span>'
        f'<button type="button" class="st-mini" data-text="{key}">Copy</button>{save}</div>'
        f'<pre class="st-log" id="{key}" tabindex="0">{esc(text)}</pre></div>'
    )
