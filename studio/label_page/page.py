"""The Label page: one component whose own JavaScript does the labelling (`label.js` beside this file says how).

Gradio renders an empty element and loads our module; from there on the page speaks to `studio/api.py` and no Gradio event is
involved, because those drop, delay and misfile clicks.
"""

from __future__ import annotations

import gradio as gr

from studio.context import Studio
from studio.frame import Top
from studio.label_page.assets import PREFIX

# The page lies beside the app's other pages, so the app's address is everything before its last part, whatever proxy is in front.
_MOUNT = f"""
const root = new URL("./", document.baseURI.split("?")[0]).href;
const style = document.createElement("link");
style.rel = "stylesheet";
style.href = root + "{PREFIX}/label.css";
const styled = new Promise((done) => {{ style.onload = style.onerror = done; }});
if (document.querySelector(`link[href="${{style.href}}"]`)) style.onload();
else document.head.append(style);
Promise.all([import(root + "{PREFIX}/label.js"), styled]).then(
  ([page]) => page.mount(element),
  () => {{ element.textContent = "The Label page could not be loaded; reload it."; }},
);
"""


class LabelPage:
    """Blind labelling with the keyboard."""

    title = "Label"
    path = "label"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self, demo: gr.Blocks) -> None:
        Top(self._studio, self.path)
        build_label_page(self._studio)


def build_label_page(studio: Studio) -> gr.HTML:
    """The component alone."""
    return gr.HTML("", html_template="", js_on_load=_MOUNT, apply_default_css=False, padding=False, elem_id="label-page")
