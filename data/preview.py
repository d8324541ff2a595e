"""What a file would bring, before anything is written: its layout in words, its first rows as they would be stored, what is wrong
with it and what is worth knowing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data.checkers import demo_world
from data.columns import LAYOUTS, ColumnMap, LayoutName
from data.normalise import Item
from data.readers import Format
from data.records import content_id
from data.words import count

SAMPLE_ROWS = 5
MAX_PROBLEMS = 1_000
LONG_PROMPT = 8_000  # characters: about 2,000 tokens, the context of small models
NAMED = 5
SPEAKER = re.compile(r"(?:^|\s)(?:Human|Assistant):")


class Problem(NamedTuple):
    """`line` counts from 1 as an editor does; in a Parquet file it is the row."""

    line: int
    reason: str


@dataclass
class Problems:
    """The first 1,000 are kept, all are counted."""

    kept: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.kept) < MAX_PROBLEMS:
            self.kept.append(Problem(line, reason))


@dataclass(frozen=True)
class Preview:
    """`rows` were looked at, `good` of them can be imported; `complete` is False when the file goes on behind them."""

    name: str
    format: Format
    mapping: ColumnMap
    description: tuple[str, ...]
    columns: tuple[str, ...]
    sample: tuple[Item, ...]
    rows: int
    good: int
    prompts: int
    answers: int
    labels: int
    characters: int  # of what would be stored
    complete: bool
    total_rows: int | None  # of the whole file, where the file itself says it
    problems: tuple[Problem, ...]
    problem_count: int
    warnings: tuple[str, ...]

    @property
    def kind(self) -> LayoutName:
        return self.mapping.layout

    @property
    def kind_words(self) -> str:
        return LAYOUTS[self.mapping.layout]

    @property
    def summary(self) -> str:
        checked = count(self.rows, "row") if self.complete else f"first {count(self.rows, 'row')} checked"
        bad = f", {self.problem_count:,} cannot be used" if self.problem_count else ""
        found = f"{count(self.prompts, 'prompt')}, {count(self.answers, 'answer')}, {count(self.labels, 'label')}"
        return f"{checked}: {found}{bad}."


class Look:
    """What a preview gathers."""

    def __init__(self, mapping: ColumnMap) -> None:
        self.mapping = mapping
        self.problems = Problems()
        self.sample: list[Item] = []
        self.prompts: set[str] = set()
        self.rows = self.good = self.answers = self.labels = self.known_world = self.characters = 0
        self._seen: set[str] = set()
        self._same: list[int] = []  # the lines of such rows
        self._doubled: list[int] = []
        self._empty: list[int] = []
        self._long: list[int] = []
        self._turns: list[int] = []

    def take(self, line: int, made: Sequence[Item]) -> None:
        self.rows += 1
        self.good += bool(made)
        for item in made:
            self._item(line, item)

    def _item(self, line: int, item: Item) -> None:
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(item)
        prompt = content_id([m._asdict() for m in item.messages], list(item.follow_up))
        self.prompts.add(prompt)
        whole = content_id(prompt, item.answers, item.votes)
        if whole in self._seen:
            self._doubled.append(line)
        self._seen.add(whole)
        self.answers += len(item.answers)
        self.characters += item.characters
        pair = len(item.answers) == 2
        same = pair and item.answers[0].text.strip() == item.answers[1].text.strip()
        self.labels += 0 if same else len(item.votes)
        if same:
            self._same.append(line)
        if any(not answer.text.strip() for answer in item.answers):
            self._empty.append(line)
        if any(SPEAKER.search(answer.text) for answer in item.answers):
            self._turns.append(line)
        if sum(len(m.content) for m in item.messages) > LONG_PROMPT:
            self._long.append(line)
        asked = item.messages[-1].content
        self.known_world += len(asked) < LONG_PROMPT and demo_world.covers(asked)

    def warnings(self) -> Iterator[str]:
        for lines, what, so in (
            (self._same, "two answers that are the same", "they make no pair, and no preference is stored"),
            (self._doubled, "nothing but what stands higher up", "they are stored once"),
            (self._empty, "an empty answer", "it is kept as a model's silence"),
            (self._turns, "“Human:” or “Assistant:” in an answer", "it may be more than one turn"),
            (self._long, f"a prompt of more than {LONG_PROMPT:,} characters", "it may not fit a small model's context"),
        ):
            if lines:
                named = ", ".join(map(str, lines[:NAMED])) + (" …" if len(lines) > NAMED else "")
                yield f"Rows with {what}: {len(lines):,} (line {named}); {so}."
        if self.good and self.known_world < len(self._seen) / 2:
            yield (
                "The demo model knows only its own small world and will babble on these prompts: "
                "choose a model from the hub or an endpoint for them."
            )
