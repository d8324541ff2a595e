"""Grade-school sums (GSM8K) as a grader: is the final number of an answer the reference's?

A reference ends in "#### 42" (the published convention) or is the bare number. An answer is read the same way and, as models
write in other ways too, by what stands in \\boxed{...}, after "the answer is", or last. Numbers are compared as numbers: 70,000
and $70000.00 are one. Answers come from models and are hostile until shown otherwise: only a bounded end of them is looked at,
no pattern can backtrack far, and only the digits 0 to 9 count.

    grade("... #### 18", "She makes 9 * 2 = $18 a day.")     # True
"""

from __future__ import annotations

import re
from collections import deque
from decimal import Decimal, InvalidOperation
from typing import Final

_LONGEST: Final = 8_000  # letters of the end of an answer that are read
_DIGITS: Final = 40  # of one number: no sum of this kind has more
_PLAIN: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER: Final = re.compile(
    rf"(?P<sign>(?<![0-9A-Za-z).])[-\u2212]\s?)?(?:[$€£](?P<minus>[-\u2212])?)?(?P<top>{_PLAIN})(?P<power>[eE][+-]?[0-9]{{1,2}}(?![0-9]))?"
    rf"(?:\s?/\s?(?P<bottom>[0-9]{{1,12}})(?![0-9.]))?"
)
_BOXED: Final = re.compile(r"\\boxed\s?\{([^{}]{0,200})\}")
_SAID: Final = re.compile(r"\banswer(?: is|:| =)(?! not\b)", re.IGNORECASE)
_LATEX: Final = ((r"{,}", ","), (r"\,", ""), (r"\!", ""), (r"\$", "$"), ("\u202f", ""), ("\u00a0", " "))


def covers(reference: str) -> bool:
    """Whether the reference says which number is right."""
    return expected(reference) is not None


def expected(reference: str) -> Decimal | None:
    """The reference's number; None where it is neither "#### number" at the end nor a bare number."""
    _, mark, tail = reference.rpartition("####")
    text = (tail if mark else reference).strip().removesuffix(".").strip()
    found = _NUMBER.fullmatch(_tidy(text)) if len(text) <= _DIGITS else None
    return _value(found) if found else None


def final_number(answer: str) -> Decimal | None:
    """The number an answer ends up with; None where it has none."""
    text = _tidy(answer[-_LONGEST:])
    _, mark, tail = text.rpartition("####")
    if mark:
        return _first(tail)
    if boxed := _BOXED.findall(text):
        return _last(boxed[-1])
    said = [match.end() for match in _SAID.finditer(text)]
    if said and (number := _first(text[said[-1] :].split("\n", 1)[0])) is not None:
        return number
    return _last(text)


def grade(reference: str, answer: str) -> bool:
    """Whether the answer's final number is the reference's; an answer without one is wrong."""
    wanted, found = expected(reference), final_number(answer)
    return wanted is not None and wanted == found


def _tidy(text: str) -> str:
    for written, meant in _LATEX:
        text = text.replace(written, meant)
    return text


def _first(text: str) -> Decimal | None:
    found = _NUMBER.search(text)
    return _value(found) if found else None


def _last(text: str) -> Decimal | None:
    found = deque(_NUMBER.finditer(text), maxlen=1)
    return _value(found[0]) if found else None


def _value(found: re.Match[str]) -> Decimal | None:
    """None for what is no number after all: a division by zero, more digits than any sum has."""
    if len(found["top"]) > _DIGITS:
        return None
    try:
        value = Decimal(found["top"].replace(",", "") + (found["power"] or ""))
        value = value / Decimal(found["bottom"]) if found["bottom"] else value
    except (InvalidOperation, ZeroDivisionError):
        return None
    return -value if found["sign"] or found["minus"] else value
