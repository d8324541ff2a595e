"""How long an answer is and how much Markdown it uses: the two looks that sway people and judges most.

Counted on the raw text, so that nothing needs to be rendered. What counts as Markdown follows the style control of Chatbot Arena
(headers, bold, list items) plus code: fenced blocks and inline spans. Text inside a fenced block is code, not style. Every pattern
is bounded by the end of its line, so a hostile text of a megabyte takes milliseconds. Count once a completion, not once a label.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r"^[ \t]{0,3}(?:```|~~~)")
_HEADER = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_LIST = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\s][^*\n]*\*\*|(?<!\w)__[^_\s][^_\n]*__(?!\w)")
_INLINE_CODE = re.compile(r"`[^`\n]+`")


class Style(NamedTuple):
    """`length` in characters; the rest are counts."""

    length: int
    headers: int = 0
    bold: int = 0
    lists: int = 0
    code: int = 0

    @property
    def markdown(self) -> int:
        return self.headers + self.bold + self.lists + self.code


def style_of(text: str) -> Style:
    prose, blocks = _without_fenced(text) if "```" in text or "~~~" in text else (text, 0)
    return Style(
        length=len(text),
        headers=len(_HEADER.findall(prose)) if "#" in prose else 0,
        bold=len(_BOLD.findall(prose)) if "**" in prose or "__" in prose else 0,
        lists=len(_LIST.findall(prose)),
        code=blocks + (len(_INLINE_CODE.findall(prose)) if "`" in prose else 0),
    )


def _without_fenced(text: str) -> tuple[str, int]:
    """The lines outside fenced blocks, and the number of blocks; an unclosed block goes to the end."""
    kept, blocks, inside = [], 0, ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if not fence:
            if not inside:
                kept.append(line)
        elif not inside:
            inside, blocks = fence[0].strip(), blocks + 1
        elif inside == fence[0].strip():
            inside = ""
    return "\n".join(kept), blocks
