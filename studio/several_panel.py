"""Up to three settings with the values to try, what they make, and how long it takes: for the Train page and for running again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.frame import Choice, block
from studio.several import MAX_RUNS, MAX_SETTINGS, Setting, settings_of


class SeveralPanel:
    """Build inside a layout; `read` what was typed, `offer` a method's settings."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def build(self) -> None:
        self.names: list[Choice] = []
        self.values: list[gr.Textbox] = []
        for number in range(MAX_SETTINGS):
            with gr.Row(elem_classes="st-several"):
                self.names.append(
                    gr.Dropdown(
                        [], value=None, label=f"Setting {number + 1}", min_width=200, elem_id=f"{self._prefix}-name-{number}"
                    )
                )
                self.values.append(
                    gr.Textbox(
                        "",
                        label="Value, or several with commas",
                        placeholder="0.1, 0.5, 1" if number == 0 else "",
                        max_length=300,
                        min_width=200,
                        elem_id=f"{self._prefix}-values-{number}",
                    )
                )
        self.says = block(
            f'<p class="st-sub">Every combination is a run of its own, at most {MAX_RUNS}.</p>', elem_id=f"{self._prefix}-says"
        )

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [*self.names, *self.values]

    @property
    def changed(self) -> list[Any]:
        """Events after which what it says is to be said anew."""
        return [*(each.input for each in self.names), *(each.submit for each in self.values), *(each.blur for each in self.values)]

    def offer(self, method: str, taken: Sequence[str | None] = ()) -> list[Any]:
        """Updates of the dropdowns for a method; what was chosen stays where the method has it."""
        choices = settings_of(method)
        known = {name for _, name in choices}
        taken = [*taken, *[None] * MAX_SETTINGS][:MAX_SETTINGS]
        usual = [name for _, name in choices[:MAX_SETTINGS]]
        return [gr.Dropdown(choices, value=name if name in known else usual[number]) for number, name in enumerate(taken)]

    @staticmethod
    def read(values: Sequence[Any]) -> list[Setting]:
        """The settings from the values of `inputs`."""
        names, typed = values[:MAX_SETTINGS], values[MAX_SETTINGS : 2 * MAX_SETTINGS]
        return [Setting(str(name or ""), str(text or "")) for name, text in zip(names, typed, strict=True)]
