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


def markdown_sql(text: str) -> str:
    """`Style.markdown` as an SQL expression over the column `text`: a million answers are counted without leaving the database.

    The same patterns in RE2's words. Python's know letters and blanks of all alphabets, RE2's those of ASCII; where that makes a
    difference (a letter like e-acute that touches `__`) the count may differ by one.
    """
    fenced = "(?ms)^[ \\t]{0,3}```.*?(?:^[ \\t]{0,3}```[^\\n]*\\n?|\\z)|^[ \\t]{0,3}~~~.*?(?:^[ \\t]{0,3}~~~[^\\n]*\\n?|\\z)"
    has_fence = f"(contains({text}, '```') or contains({text}, '~~~'))"
    prose = f"if({has_fence}, regexp_replace({text}, '{fenced}', '', 'g'), {text})"
    bold = "\\*\\*[^*\\s][^*\\n]*\\*\\*|\\b__[^_\\s][^_\\n]*__\\b"

    def n(pattern: str, where: str, inside: str = prose) -> str:
        return f"if({where}, len(regexp_extract_all({inside}, '{pattern}')), 0)"

    return " + ".join(
        (
            n(f"(?m){_HEADER.pattern}", f"contains({text}, '#')"),
            n(bold, f"contains({text}, '**') or contains({text}, '__')"),
            n(f"(?m){_LIST.pattern}", "true"),
            n(_INLINE_CODE.pattern, f"contains({text}, '`')"),
            n(fenced, has_fence, text),
        )
    )
