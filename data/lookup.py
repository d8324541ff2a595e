"""Few rows by their ids, beside millions: DuckDB goes through a key's index when the ids stand in the statement one by one, and
through the whole column when they come as a list; of many ids the list is the quicker."""

from __future__ import annotations

from collections.abc import Sequence

FEW = 200


def among(ids: Sequence[str]) -> tuple[str, list[object]]:
    """What to write after `in`, and what to bind to it. At least one id."""
    if len(ids) <= FEW:
        return f"({', '.join('?' * len(ids))})", list(ids)
    return "(select unnest(?::varchar[]))", [list(ids)]
