"""A JSON file of any size as a stream of rows: a list of objects, or an object that holds one.

The standard parser wants the whole file in memory. Here it is given a growing window instead: each element is parsed at the
window's start, and the window slides on. Only an element that is cut by the window's end is parsed twice.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from data.errors import BadInput
from data.source import CHUNK, MAX_LINE, Source, check_start, not_utf8

ROW_KEYS = frozenset(
    {"messages", "conversations", "conversation", "chosen", "rejected", "prompt", "completion", "turns", "instances", "choices"}
)  # lists that are part of a row
NOT_ROWS = frozenset({"features", "columns", "schema"})  # lists of objects that describe the rows
MAX_KEYS = 200
SPACE = " \t\r\n"
HINT = "mend the file (one JSON object a line is the safest) and import it again"


class Element(NamedTuple):
    line: int
    value: Any
    size: int = 0


def elements(source: Source) -> Iterator[Element]:
    """The rows of `[{...}, ...]`, of the first list of objects inside `{...}`, or the object itself when it is one row."""
    window = _Window(source)
    start = window.peek()
    if start == "[":
        yield from window.list_items()
        window.expect("]")
        if window.peek():
            raise BadInput(f"{source.name} goes on after its list ends on line {window.line}; {HINT}.")
    elif start == "{":
        yield from _inside_object(window)
    elif start:
        raise BadInput(f"{source.name} is neither a JSON list nor JSON lines: line {window.line} starts with {start!r}; {HINT}.")
    else:
        raise BadInput(f"{source.name} is empty; choose a file with at least one row.")


def _inside_object(window: _Window) -> Iterator[Element]:
    first_line, seen = window.line, {}
    window.expect("{")
    while window.peek() != "}":
        key = window.value()
        window.expect(":")
        if isinstance(key, str) and key not in ROW_KEYS | NOT_ROWS and window.peek() == "[" and window.opens_objects():
            yield from window.list_items()
            return
        seen[key] = window.value()
        if len(seen) > MAX_KEYS:
            raise BadInput(f"{window.name} is one JSON object with very many keys and no list of rows; write the rows as a list.")
        if window.peek() != "}":
            window.expect(",")
    if any(isinstance(value, dict) for value in seen.values()) and not any(isinstance(value, str) for value in seen.values()):
        raise BadInput(f"{window.name} is a JSON object without a list of rows inside; write the rows as a list of objects.")
    yield Element(first_line, seen)


class _Window:
    """Decoded text from the current place on, and the number of the line it is in."""

    def __init__(self, source: Source) -> None:
        self.name, self.line = source.name, 1
        self.size = 0  # characters of the last value
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._parser = json.JSONDecoder()
        self._text, self._at, self._end = "", 0, False
        self._lines_read = 1  # the line that the end of the window is in
        self._more(first=True)

    def _more(self, first: bool = False) -> bool:
        """Read on; False at the end of the file. The window doubles, so that a long element is not parsed once a chunk."""
        if self._end:
            return False
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > MAX_LINE:
            raise BadInput(
                f"{self.name}: what starts on line {self.line} is not valid JSON or a single row of more than "
                f"{MAX_LINE >> 20} MB; {HINT}."
            )
        block = self._source.stream.read(max(CHUNK, len(self._text)))
        if first:
            check_start(block[:4], self.name)
        self._end = not block
        try:
            self._text += self._decoder.decode(block, final=self._end)
        except UnicodeDecodeError as error:
            line = self._lines_read + error.object[: error.start].count(b"\n")
            raise not_utf8(self.name, line, error) from error
        self._lines_read += block.count(b"\n")
        return not self._end

    def peek(self) -> str:
        """The next character that is no space, '' at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in SPACE:
                at += 1
            self._go(at)
            if at < len(text):
                return text[at]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        if self.peek() != character:
            found = repr(self._text[self._at : self._at + 20]) if self.peek() else "the end of the file"
            raise BadInput(f"{self.name} is not valid JSON: line {self.line} should go on with {character!r}, not {found}; {HINT}.")
        self._go(self._at + 1)

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise BadInput(f"{self.name}: the JSON on line {self.line} is nested too deeply to be data; {HINT}.") from error
            except ValueError as error:
                if self._more():
                    continue
                raise BadInput(
                    f"{self.name} is cut off or not valid JSON from line {self.line} on ({_why(error)}); {HINT}."
                ) from error
            if end < len(self._text) or not self._more():  # a number at the window's end may go on behind it
                self.size = end - self._at
                self._go(end)
                return value

    def opens_objects(self) -> bool:
        """At a `[`: whether the list's first element is an object."""
        while len(self._text) - self._at < 2 or not self._text[self._at + 1 :].lstrip(SPACE):
            if not self._more():
                return False
        return self._text[self._at + 1 :].lstrip(SPACE).startswith("{")

    def list_items(self) -> Iterator[Element]:
        self.expect("[")
        if self.peek() == "]":
            return
        while True:
            self.peek()
            line = self.line
            value = self.value()
            yield Element(line, value, self.size)
            if self.peek() == "]":
                return
            self.expect(",")

    def _go(self, at: int) -> None:
        self.line += self._text.count("\n", self._at, at)
        self._at = at


def _why(error: ValueError) -> str:
    return error.msg.lower() if isinstance(error, json.JSONDecodeError) else "a number with too many digits"
