"""A table with a "CSV" link: what stands on the page, as a file, without a request to the server.

The file is in the link itself (a data address), so it is exactly what was drawn, needs no handler, and nobody else can fetch it.
For tables with a row a person or a measure; a list that may have a million is written by `studio/csv_file.py` when asked for.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from studio import csv_file
from studio.render import Column, Html, esc, table


class Sheet(NamedTuple):
    """`rows` are drawn; `raw` goes into the file, under `names`: plain numbers and words, more columns than a page has room for."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    names: Sequence[str]
    raw: Sequence[Sequence[object]]
    most: int = 0  # rows drawn, 0 = all; the file has all of them


def draw(sheet: Sheet, file: str, says: str = "") -> Html:
    """Title, link and table; `file` is the file's name without its ending."""
    shown = sheet.rows[: sheet.most] if sheet.most else sheet.rows
    rest = len(sheet.rows) - len(shown)
    more = f'<p class="st-sub">{rest:,} more rows are in the CSV.</p>' if rest else ""
    return Html(
        f'<section class="st-sheet"><div class="st-sheet-head"><h2 class="st-h2">{esc(sheet.title)}</h2>'
        f"{csv_link(file, sheet.names, sheet.raw)}</div>"
        f"{f'<p class=st-sub>{esc(says)}</p>' if says else ''}{table(sheet.columns, shown, label=sheet.title)}{more}</section>"
    )


def csv_link(file: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    out = io.StringIO()
    csv_file.write(out, names, rows)
    packed = base64.b64encode(("\ufeff" + out.getvalue()).encode()).decode()
    return Html(f'<a class="st-csv" download="{esc(file)}.csv" href="data:text/csv;charset=utf-8;base64,{packed}">CSV</a>')
