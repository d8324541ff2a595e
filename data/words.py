"""Numbers in sentences: the one place that decides between "1 label" and "1,204 labels"."""

from __future__ import annotations


def count(n: int, one: str, many: str = "") -> str:
    """ "1 label", "1,204 labels"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
