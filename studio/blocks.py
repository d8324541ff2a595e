"""Gradio's Blocks, which are put together in a tenth of the time and answer an event that cannot be read with a sentence of ours.

After each page Gradio describes all pages so far and makes a web server for them; only the last of these is ever used.

Values that no page of ours sends (a file's path where a word belongs, a word where a number does) fail before a handler is
called, and Gradio would tell the browser so in its own words: paths, class names, the choices of a list.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import gradio as gr
from gradio.routes import App

from studio.frame import NOT_DONE, TOAST_S

UNREADABLE = "The app could not read what the page sent; reload the page and try again."
log = logging.getLogger("studio")


class StudioBlocks(gr.Blocks):
    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*args, **kwargs)
        except Exception as error:
            log.warning("an event could not be read: %s: %s", type(error).__name__, str(error)[:500])
            raise gr.Error(UNREADABLE, duration=TOAST_S, title=NOT_DONE, print_exception=False) from error


@contextmanager
def unserved() -> Iterator[None]:
    """Pages are added without a description and a server after each; `queue()` and `launch()` make both, so call one afterwards."""
    with patch.object(App, "create_app"), patch.object(StudioBlocks, "get_config_file", return_value={}):
        yield
