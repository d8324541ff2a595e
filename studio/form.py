"""The training form, drawn from the dataclasses that are the only list of knobs (`training/config.py`).

One set of components serves every method: those a method does not have are hidden. What everybody may want to change stands
open, the rest in a closed section. What comes back is plain values; the dataclass checks them and says in words what is wrong.

A recipe's values are only a proposal: what a person has changed stays when another method or model is chosen. The page keeps
the proposal beside the form (`proposal`), so that an edit can be told from a value that nobody touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from data.checkers import CHECKERS
from data.errors import BadInput
from studio.frame import Choice
from training import reporting
from training.config import METHODS, TrainConfig, config_class, from_json
from training.knobs import Knob, check, knobs

OPEN = ("reward", "tuning", "epochs")  # everything else has a default that few need to change
NAMES = {
    "epochs": "Rounds over the data (epochs)",
    "learning_rate": "Step size (learning rate)",
    "batch_size": "Rows a step (batch size)",
    "lora_rank": "Adapter width (LoRA rank)",
    "lora_alpha": "Adapter scale (LoRA alpha)",
    "tuning": "What is trained (tuning)",
    "beta": "Closeness to the start (beta)",
    "loss": "Form of the loss",
    "margin": "Lead to reach (gamma)",
    "packing": "Several rows in one sequence (packing)",
    "backend": "What computes the steps (backend)",
    "sft_weight": "Weight of imitation (SFT)",
    "max_length": "Longest row, in tokens",
    "max_steps": "Step limit",
    "max_grad_norm": "Gradient limit",
    "log_every": "Steps between points",
    "sample_prompts": "Prompts to watch",
    "report_to": "Also report to",
    "accumulation": "Batches a step (accumulation)",
    "schedule": "Fall of the step size",
    "warmup_share": "Warm-up share",
    "weight_decay": "Weight decay",
    "eval_every": "Steps between evaluations",
    "early_stop": "Patience before stopping early",
    "save_every": "Steps between checkpoints",
    "checkpointing": "Save memory (checkpointing)",
    "reward": "What grades the answers",
    "center": "Pull of the scores to zero",
    "num_generations": "Answers to each prompt",
    "max_completion_length": "Longest answer, in tokens",
    "temperature": "Spread of the answers (temperature)",
    "num_iterations": "Steps on each batch of answers",
    "normalize_advantages": "Even out the advantages",
}


REWARDS = [(checker.title, name) for name, checker in CHECKERS.items()]  # until a page knows what fits its prompts


def label_of(knob: Knob) -> str:
    return NAMES.get(knob.name, knob.name.replace("_", " ").capitalize())


class Form:
    """The knobs of all methods as components: build inside a layout, `show` a method's, `read` them back."""

    def __init__(self) -> None:
        every = [knob for method in METHODS for knob in knobs(config_class(method))]
        first = {knob.name: knob for knob in reversed(every)}  # the first method's where several have one of that name
        order = dict.fromkeys(knob.name for knob in every)
        groups = {"basic": 1, "advanced": 2}
        self._knobs = sorted(
            (first[name] for name in order), key=lambda k: OPEN.index(k.name) if k.name in OPEN else len(OPEN) + groups[k.group]
        )
        self.components: list[gr.components.Component] = []

    def build_open(self, method: str) -> None:
        """The few knobs that always stand open; comes before `build_closed`."""
        self._components([knob for knob in self._knobs if knob.name in OPEN], method)

    def build_closed(self, method: str) -> None:
        """The others behind one click, the rarely needed ones last."""
        rest = [knob for knob in self._knobs if knob.name not in OPEN]
        with gr.Accordion("Settings", open=False, elem_classes="st-settings", elem_id="knobs"):
            for group, title in (("basic", ""), ("advanced", "Rarely needed")):
                if title:
                    gr.HTML(f'<h3 class="st-h3">{title}</h3>', apply_default_css=False, padding=False)
                with gr.Row(elem_classes="st-knobs"):
                    self._components([knob for knob in rest if knob.group == group], method)

    def _components(self, chosen: Sequence[Knob], method: str) -> None:
        mine = {knob.name for knob in knobs(config_class(method))}
        self.components += [component(knob, knob.name in mine) for knob in chosen]

    def named(self, name: str) -> gr.components.Component:
        """The component of a knob."""
        return next(shown for knob, shown in zip(self._knobs, self.components, strict=True) if knob.name == name)

    def edits(self, proposal: str, values: Sequence[Any]) -> dict[str, Any]:
        """What a person has changed: what is not as proposed, and what was changed before another method was chosen."""
        given = json.loads(proposal) if proposal else {"proposed": {}, "edited": []}
        now = {knob.name: value for knob, value in zip(self._knobs, values, strict=True)}
        shown = {name: now[name] for name in given["proposed"] if name in now}
        return {name: value for name, value in shown.items() if name in given["edited"] or value != given["proposed"][name]}

    @staticmethod
    def proposal(config: TrainConfig, edits: Mapping[str, Any]) -> str:
        """What is put into the form, for `edits` to be told from it later."""
        return json.dumps({"proposed": config.to_json(), "edited": sorted(edits)})

    def show(
        self,
        config: TrainConfig,
        method: str,
        edits: Mapping[str, Any] | None = None,
        rewards: Sequence[tuple[str, str]] = tuple(REWARDS),
    ) -> list[Any]:
        """An update for every component: the method's knobs with the config's values or the `edits`, the others hidden; those of
        an adapter where there is none. `rewards`: what can grade here, by title and value."""
        values = config.to_json() | dict(edits or {})
        if not rewards and "reward" in values:
            values["reward"] = None  # nothing can grade here
        unused = {"lora_rank", "lora_alpha"} if values["tuning"] == "full" else set()
        mine = {knob.name: knob for knob in knobs(config_class(method)) if knob.name not in unused}
        return [
            gr.update(visible=True, value=values[knob.name], info=mine[knob.name].help, **_choices(mine[knob.name], rewards))
            if knob.name in mine
            else gr.update(visible=False)
            for knob in self._knobs
        ]

    @staticmethod
    def fitting(method: str, edits: Mapping[str, Any], rewards: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """The edits that this method has a choice for: another method's word would be none of the dropdown's."""
        offered: dict[str, Any] = {knob.name: knob.choices for knob in knobs(config_class(method)) if knob.choices}
        offered["reward"] = dict(rewards).values()
        return {name: value for name, value in edits.items() if name not in offered or value in offered[name]}

    def put(self, changes: Mapping[str, Any]) -> list[Any]:
        """An update for every component: the `changes` as if a person had made them, the others as they are."""
        return [gr.update(value=changes[knob.name]) if knob.name in changes else gr.skip() for knob in self._knobs]

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
            check(knob, raw[knob.name], label_of(knob))
        return from_json(method, raw)


def component(knob: Knob, visible: bool) -> gr.components.Component:
    """The control of one knob, with its name and help."""
    shared: dict[str, Any] = {"label": label_of(knob), "info": knob.help, "elem_id": f"knob-{knob.name}", "visible": visible}
    if knob.kind == "bool":
        return gr.Checkbox(value=knob.default, min_width=200, **shared)
    if knob.choices or knob.name == "reward":
        return Choice(**_choices(knob, REWARDS), value=knob.default, filterable=False, min_width=200, **shared)
    if knob.kind == "str":
        return gr.Textbox(value=knob.default, max_length=200, min_width=200, **shared)
    # No minimum and maximum here: Gradio's message about them names no field, the dataclass's does.
    return gr.Number(
        value=knob.default, precision=0 if knob.kind == "int" else None, step=knob.step or 1e-6, min_width=200, **shared
    )


def _choices(knob: Knob, rewards: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The words to choose from, which may be fewer for another method; nothing where a value is typed."""
    if knob.name == "reward":
        return {"choices": list(rewards)}
    here = reporting.installed() if knob.name == "report_to" else knob.choices
    choices = [(_choice(knob, number), word) for number, word in enumerate(knob.choices) if word in here]
    return {"choices": choices} if choices else {}


def _choice(knob: Knob, number: int) -> str:
    name = knob.choices[number].replace("_", " ")
    return f"{name}: {knob.meanings[number]}" if knob.meanings else name


def _plain(knob: Knob, value: Any) -> Any:
    """Numbers as the dataclass wants them; what is none stays as it is, for the dataclass to say so."""
    if knob.kind == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    if knob.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
