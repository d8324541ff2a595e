"""Which column of a file means what: the mapping that recognition finds, a person may change, and every row is read by; and the
same in plain words for the preview."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from data.errors import BadInput

LayoutName = Literal[
    "prompts", "messages", "turns", "seed_tasks", "demonstrations", "text", "preference", "transcripts", "binary", "pairs", "labels"
]
LAYOUTS: dict[LayoutName, str] = {
    "prompts": "a list of prompts",
    "messages": "conversations as lists of messages",
    "turns": "a question file with turns (MT-Bench, Arena-Hard)",
    "seed_tasks": "seed tasks with instances (Self-Instruct, Alpaca)",
    "demonstrations": "prompts with an answer to imitate (TRL: SFT)",
    "text": "whole dialogues as text (TRL: SFT)",
    "preference": "chosen and rejected answers (TRL: DPO)",
    "transcripts": "chosen and rejected dialogues as text (HH)",
    "binary": "answers labelled good or bad (TRL: KTO)",
    "pairs": "two answers side by side, with people's labels or none",
    "labels": "labels exported from this studio",
}
_NEEDS: dict[LayoutName, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "messages": ("prompt",),
    "turns": ("prompt",),
    "seed_tasks": ("prompt", "completion"),
    "demonstrations": ("prompt", "completion"),
    "text": ("prompt",),
    "preference": ("chosen", "rejected"),
    "transcripts": ("chosen", "rejected"),
    "binary": ("prompt", "completion", "label"),
    "pairs": ("prompt", "left", "right"),
    "labels": ("prompt", "left", "label", "annotator"),
}


@dataclass(frozen=True)
class LabelColumn:
    """One person's labels: 1 or a = the first answer, 2 or b = the second, 0 or tie = neither is better."""

    column: str
    annotator_id: str


@dataclass(frozen=True)
class ColumnMap:
    """Columns by what they hold, '' where there is none. `prompt` may hold text or messages in every layout.

    `as_good`: a demonstration counts as a label “good”, so that SFT and KTO can learn from it.
    """

    layout: LayoutName
    prompt: str = ""
    system: str = ""
    context: str = ""  # appended to the prompt after a blank line
    follow_up: str = ""
    reference: str = ""
    category: str = ""
    external_id: str = ""
    completion: str = ""
    label: str = ""
    chosen: str = ""
    rejected: str = ""
    left: str = ""
    right: str = ""
    left_model: str = ""
    right_model: str = ""
    model_pair: str = ""  # both models' names in one cell, joined by "_"
    annotator: str = ""
    people: tuple[LabelColumn, ...] = ()
    as_good: bool = True

    def used(self) -> dict[str, str]:
        """Field -> column, for the fields that name one."""
        texts = {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in ("layout", "people", "as_good")}
        return {name: column for name, column in texts.items() if column}

    def check(self, columns: set[str]) -> ColumnMap:
        """Itself; BadInput when a column it needs is not named or not in the file."""
        if self.layout not in LAYOUTS:
            raise BadInput(f"{self.layout!r} is no layout; choose one of {', '.join(LAYOUTS)}.")
        for need in _NEEDS[self.layout]:
            if not getattr(self, need):
                raise BadInput(
                    f"Say which column holds the {need.replace('_', ' ')}: {LAYOUTS[self.layout]} cannot be read without."
                )
        for column in [*self.used().values(), *(person.column for person in self.people)]:
            if column not in columns:
                raise BadInput(f"The file has no column {column!r}; it has {names(sorted(columns))}.")
        return self

    def with_columns(self, **columns: str) -> ColumnMap:
        return replace(self, **columns)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: dict[str, Any]) -> ColumnMap:
        return ColumnMap(**{**raw, "people": tuple(LabelColumn(**person) for person in raw.get("people", ()))})


def names(columns: list[str], limit: int = 12) -> str:
    """Column names for a sentence."""
    shown = ", ".join(repr(column[:40]) for column in columns[:limit])
    return f"{shown} and {len(columns) - limit} more" if len(columns) > limit else shown or "none"


def describe(m: ColumnMap) -> tuple[str, ...]:
    """The mapping in words, one sentence a line."""
    lines = [f"Read as {LAYOUTS[m.layout]}.", *_MAIN[m.layout](m)]
    if m.context:
        lines.append(f"“{m.context}” is added to the prompt after a blank line.")
    if m.system:
        lines.append(f"“{m.system}” becomes the system message.")
    if m.follow_up:
        lines.append(f"“{m.follow_up}” holds later turns, shown and exported with the prompt; models are asked the prompt alone.")
    if m.reference:
        lines.append(f"“{m.reference}” is kept as the reference answer.")
    kept = [f"“{column}” as the {name}" for column, name in ((m.category, "category"), (m.external_id, "outside id")) if column]
    return (*lines, *([f"Kept beside it: {', '.join(kept)}."] if kept else []))


def _told_labels(m: ColumnMap) -> list[str]:
    people = ", ".join(f"“{person.column}” ({person.annotator_id})" for person in m.people)
    count = f"{len(m.people)} {'person' if len(m.people) == 1 else 'people'}"
    said_by = [f"Labels of {count}: {people}; 1 is the first answer, 2 the second, 0 a tie."]
    return [f"“{m.prompt}” is the prompt, “{m.left}” and “{m.right}” are its two answers.", *(said_by if m.people else [])]


def _told_good(m: ColumnMap) -> str:
    return " as a label “good” by imported:sft" if m.as_good else ", without a label"


_MAIN: dict[LayoutName, Callable[[ColumnMap], list[str]]] = {
    "prompts": lambda m: [f"“{m.prompt}” is the prompt."],
    "messages": lambda m: [
        f"“{m.prompt}” holds the conversation; where it ends with the assistant, that turn is taken as the answer{_told_good(m)}."
    ],
    "turns": lambda m: [
        f"“{m.prompt}”: the first turn is the prompt, a second one is kept as a follow-up beside it: "
        "shown and exported with it, but models are asked the first turn alone."
    ],
    "seed_tasks": lambda m: [
        f"“{m.prompt}” with the input of each of “{m.completion}” is the prompt; its output is kept as the reference answer."
    ],
    "demonstrations": lambda m: [f"“{m.prompt}” is the prompt, “{m.completion}” its answer, taken{_told_good(m)}."],
    "text": lambda m: [f"“{m.prompt}” is split at its marks into prompt and answer; the answer is taken{_told_good(m)}."],
    "preference": lambda m: [
        f"“{m.prompt}” is the prompt." if m.prompt else "The prompt is what both answers begin with.",
        f"“{m.chosen}” is preferred to “{m.rejected}” (label by imported:dpo).",
    ],
    "transcripts": lambda m: [
        f"The turns that “{m.chosen}” and “{m.rejected}” share are the prompt; the last answer of “{m.chosen}” is preferred "
        "(label by imported:hh)."
    ],
    "binary": lambda m: [
        f"“{m.prompt}” is the prompt, “{m.completion}” its answer, “{m.label}” whether it is good (by imported:kto)."
    ],
    "pairs": _told_labels,
    "labels": lambda m: [
        f"“{m.left}” and “{m.right}” are the answers as they were shown, “{m.label}” is what “{m.annotator}” said."
    ],
}
