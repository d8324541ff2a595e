"""Puts `calm.js`, which keeps Gradio from stirring a page without need, at the beginning of every Gradio page. What
`launch(head=...)` is given comes after Gradio's own modules have run, and they have taken hold of `requestAnimationFrame` by then;
so it goes into the template from which the pages are made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2
from gradio import routes

_SCRIPT = Path(__file__).with_name("calm.js").read_text(encoding="utf-8")
_HEAD = f"<head><script>{{% raw %}}{_SCRIPT}{{% endraw %}}</script>"


class _CalmTemplates(jinja2.BaseLoader):
    def __init__(self, gradios: jinja2.BaseLoader) -> None:
        self._gradios = gradios

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        source, name, is_fresh = self._gradios.get_source(environment, template)
        return source.replace("<head>", _HEAD, 1), name, is_fresh


def calm_pages() -> None:
    """From now on, in this process; a second call changes nothing."""
    templates = routes.templates.env
    if templates.loader is not None and not isinstance(templates.loader, _CalmTemplates):
        templates.loader = _CalmTemplates(templates.loader)
