"""Numbers in sentences: the one place that decides between "1 label" and "1,204 labels", and for the minus sign."""

from __future__ import annotations


def count(n: int, one: str, many: str = "") -> str:
    """ "1 label", "1,204 labels"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def number(value: float, form: str) -> str:
    """`value` in Python's `form`, "−3" with a minus sign where Python writes a hyphen; nothing is never below nothing."""
    shown = format(value, f"{form[0]}z{form[1:]}" if form[0] == "+" else f"z{form}")
    return f"−{shown[1:]}" if shown.startswith("-") else shown
