"""The training form, drawn from the dataclasses that are the only list of knobs (`training/config.py`).

One set of components serves every method: those a method does not have are hidden. Basic knobs are open, the others in a
closed section. What comes back is plain values; the dataclass checks them and says in words what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from data.errors import BadInput
from training.config import METHODS, Knob, TrainConfig, config_class, from_json, knobs

NAMES = {
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "quantize": "QLoRA (4-bit base)",
    "sft_weight": "SFT weight",
    "max_grad_norm": "Longest gradient",
    "log_every": "Steps between points",
    "accumulation": "Gradient accumulation",
    "warmup_share": "Warm-up share",
    "checkpointing": "Gradient checkpointing",
}


def label_of(knob: Knob) -> str:
    return NAMES.get(knob.name, knob.name.replace("_", " ").capitalize())


class Form:
    """The knobs of all methods as components: build inside a layout, `show` a method's, `read` them back."""

    def __init__(self) -> None:
        every = [knob for method in METHODS for knob in knobs(config_class(method))]
        first = {knob.name: knob for knob in reversed(every)}  # the first method's where several have one of that name
        order = dict.fromkeys(knob.name for knob in every)
        self._knobs = sorted((first[name] for name in order), key=lambda knob: knob.group != "basic")
        self.components: list[gr.components.Component] = []

    def build(self, method: str) -> None:
        """Basic knobs in rows, then the rest behind one click; those of `method` are shown."""
        mine = {knob.name for knob in knobs(config_class(method))}
        basic = [knob for knob in self._knobs if knob.group == "basic"]
        self._row(basic, mine)
        with gr.Accordion("More settings", open=False, elem_id="knobs-more"):
            self._row(self._knobs[len(basic) :], mine)

    def _row(self, chosen: Sequence[Knob], mine: set[str]) -> None:
        with gr.Row(elem_classes="st-knobs"):
            for knob in chosen:
                self.components.append(component(knob, knob.name in mine))

    def show(self, config: TrainConfig, method: str) -> list[Any]:
        """An update for every component: the method's knobs with the config's values, the others hidden."""
        values, mine = config.to_json(), {knob.name: knob for knob in knobs(config_class(method))}
        return [
            gr.update(visible=True, value=values[knob.name], info=mine[knob.name].help)
            if knob.name in mine
            else gr.update(visible=False)
            for knob in self._knobs
        ]

    def read(self, method: str, values: Sequence[Any]) -> TrainConfig:
        """The method's config from the components' values; BadInput in words."""
        mine = {knob.name: knob for knob in knobs(config_class(method))}
        raw: dict[str, Any] = {}
        for shown, value in zip(self._knobs, values, strict=True):
            knob = mine.get(shown.name)
            if knob is None:
                continue
            if value is None:
                raise BadInput(f"{label_of(knob)} is empty; give it a value.")
            raw[knob.name] = _plain(knob, value)
        return from_json(method, raw)


def component(knob: Knob, visible: bool) -> gr.components.Component:
    """The control of one knob, with its name and help."""
    shared: dict[str, Any] = {"label": label_of(knob), "info": knob.help, "elem_id": f"knob-{knob.name}", "visible": visible}
    if knob.kind == "bool":
        return gr.Checkbox(value=knob.default, min_width=200, **shared)
    if knob.choices:
        choices = [(c.replace("_", " "), c) for c in knob.choices]
        return gr.Dropdown(choices, value=knob.default, filterable=False, min_width=200, **shared)
    if knob.kind == "str":
        return gr.Textbox(value=knob.default, max_length=200, min_width=200, **shared)
    # No minimum and maximum here: Gradio's message about them names no field, the dataclass's does.
    return gr.Number(
        value=knob.default, precision=0 if knob.kind == "int" else None, step=knob.step or 1e-6, min_width=200, **shared
    )


def _plain(knob: Knob, value: Any) -> Any:
    """Numbers as the dataclass wants them; what is none stays as it is, for the dataclass to say so."""
    if knob.kind == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    if knob.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
