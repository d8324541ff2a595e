"""CSV files: written as their rows come, so that a million take no more memory than a hundred, and offered to whoever asked.

People stand in them by pseudonym, and what a spreadsheet would run as a formula gets an apostrophe.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TextIO

import gradio as gr

from data import home
from data.export_write import new_file
from data.import_folder import folder_of
from data.readers import escape
from data.records import Project
from studio.context import Studio, Viewer

LONG = 20_000  # rows that take longer than one waits without a word


def offer(
    studio: Studio, viewer: Viewer, project: Project, what: str, names: Sequence[str], rows: Iterable[Sequence[object]]
) -> str:
    """A file of all these rows, `what` in its name; the address to fetch it from."""
    folder, path = folder_of(studio.settings.export_dir, project.owner), None
    try:
        path = new_file(folder, project.name, what, "csv")
        with path.open("w", encoding="utf-8-sig", newline="") as out:
            write(out, names, _announced(rows))
    except BaseException as error:
        with suppress(OSError):
            if path is not None:
                path.unlink()  # half a list is none, and takes the room that is short
        if isinstance(error, OSError):
            raise home.words(error, studio.settings) from error
        raise
    return studio.offers.add(path, path.name, viewer.owner)


def _announced(rows: Iterable[Sequence[object]]) -> Iterator[Sequence[object]]:
    for n, row in enumerate(rows):
        if n == LONG:
            gr.Info("The file is being written; the download begins by itself.", title="CSV")
        yield row


def write(out: TextIO, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([cell if cell is None or isinstance(cell, int | float) else escape(str(cell)) for cell in row] for row in rows)
