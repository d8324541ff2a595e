"""Imports Gradio in two thirds of the time; for the app to call before anything else imports it.

For each of its components Gradio writes a type stub beside the source, at every import: eighty sources are read, parsed and held
against the stubs that are there. It leaves out classes that have no source file, so for as long as it is imported none has.
"""

from __future__ import annotations

import inspect
from unittest.mock import patch


def import_gradio() -> None:
    with patch.object(inspect, "getfile", side_effect=OSError):
        import gradio  # noqa: F401
