"""One row of a file, read by a mapping, as what the studio stores: a prompt, its answers and what people said of them.

Pure; RowError says why a row cannot be used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from data.columns import ColumnMap, LayoutName
from data.engine import Message
from data.source import MAX_LINE
from data.transcripts import (
    RowError,
    Shared,
    clean,
    conversation,
    ends_with_user,
    from_text,
    from_transcript,
    is_transcript,
    share,
    share_text,
    split_answer,
)

Said = Literal["first", "second", "tie", "both_bad", "skip", "good", "bad"]
Row = Mapping[str, Any]
MAX_ANNOTATOR = 60


class Answer(NamedTuple):
    text: str
    model: str = ""


class Vote(NamedTuple):
    """`first` and `second` mean the item's answers in their order; `good` and `bad` its only answer. `key` tells two labels of the
    same person on the same answers apart."""

    annotator_id: str
    said: Said
    simulated: bool = False
    key: str = ""


@dataclass(frozen=True)
class Item:
    """`as_shown`: the first answer really stood on the left; else nobody knows and the sides are drawn."""

    messages: tuple[Message, ...]
    follow_up: tuple[str, ...] = ()
    reference: str = ""
    category: str = ""
    external_id: str = ""
    answers: tuple[Answer, ...] = ()
    votes: tuple[Vote, ...] = ()
    as_shown: bool = False

    @property
    def characters(self) -> int:
        """Of everything that would be stored."""
        texts = [*(m.content for m in self.messages), *self.follow_up, *(a.text for a in self.answers)]
        return sum(map(len, texts)) + len(self.reference) + len(self.category) + len(self.external_id)


def items(row: Row, mapping: ColumnMap) -> list[Item]:
    """What the row holds: one item, or one per instance of a seed task."""
    category, external_id = _optional(row, mapping.category), _optional(row, mapping.external_id)
    return [replace(item, category=category, external_id=external_id) for item in _READERS[mapping.layout](row, mapping)]


# --- layouts -----------------------------------------------------------------------------------------------------------------


def _prompts(row: Row, m: ColumnMap) -> list[Item]:
    follow_up = tuple(_text(turn, "a follow-up") for turn in _list(row, m.follow_up)) if m.follow_up else ()
    return [Item(_prompt(row, m), follow_up=follow_up, reference=_optional(row, m.reference))]


def _messages(row: Row, m: ColumnMap) -> list[Item]:
    turns = conversation(_present(row, m.prompt))
    if turns is None:
        raise RowError(f"{m.prompt!r} is not a list of messages")
    prompt, answer = split_answer(_with_system(row, m, turns))
    return [_demonstration(prompt, answer, m)] if answer is not None else [Item(prompt, reference=_optional(row, m.reference))]


def _turns(row: Row, m: ColumnMap) -> list[Item]:
    turns = [_text(turn.get("content") if isinstance(turn, Mapping) else turn, "a turn") for turn in _list(row, m.prompt)]
    if not turns:
        raise RowError("the question has no turns")
    prompt = ends_with_user(_with_system(row, m, (Message("user", turns[0]),)))
    return [Item(prompt, follow_up=tuple(turns[1:]), reference=_optional(row, m.reference))]


def _seed_tasks(row: Row, m: ColumnMap) -> list[Item]:
    made = []
    instances = _list(row, m.completion)
    asked = _text(row.get(m.prompt), "the instruction")
    if len(asked) * len(instances) > MAX_LINE:
        raise RowError(f"its {len(instances):,} instances would repeat the instruction to more than {MAX_LINE >> 20} MB")
    for instance in instances:
        if not isinstance(instance, Mapping):
            raise RowError("an instance is not an object with input and output")
        context = _optional(instance, "input")
        prompt = ends_with_user((Message("user", _joined(asked, context)),))
        made.append(Item(prompt, reference=_optional(instance, "output")))
    if not made:
        raise RowError("the task has no instances")
    return made


def _demonstrations(row: Row, m: ColumnMap) -> list[Item]:
    return [_demonstration(_prompt(row, m), _answer(row, m.completion), m)]


def _texts(row: Row, m: ColumnMap) -> list[Item]:
    turns = from_text(_text(row.get(m.prompt), "the text"))
    if turns is None:
        raise RowError("the text does not mark where the question ends and the answer begins")
    prompt, answer = split_answer(turns)
    if answer is None:
        raise RowError("the dialogue does not end with an answer")
    return [_demonstration(prompt, answer, m)]


def _preference(row: Row, m: ColumnMap) -> list[Item]:
    shared = _shared(row, m)
    answers = (Answer(shared.chosen, _optional(row, m.left_model)), Answer(shared.rejected, _optional(row, m.right_model)))
    vote = Vote("imported:hh" if m.layout == "transcripts" else "imported:dpo", "first")
    prompt = _with_system(row, m, shared.prompt)
    return [Item(prompt, reference=_optional(row, m.reference), answers=answers, votes=(vote,))]


def _binary(row: Row, m: ColumnMap) -> list[Item]:
    answer = Answer(_answer(row, m.completion), _optional(row, m.left_model))
    said: Said = "good" if _truth(row.get(m.label), m.label) else "bad"
    return [Item(_prompt(row, m), reference=_optional(row, m.reference), answers=(answer,), votes=(Vote("imported:kto", said),))]


def _pairs(row: Row, m: ColumnMap) -> list[Item]:
    models = _optional(row, m.model_pair).split("_")
    if len(models) != 2:
        models = [_optional(row, m.left_model), _optional(row, m.right_model)]
    answers = (Answer(_answer(row, m.left), models[0]), Answer(_answer(row, m.right), models[1]))
    votes = tuple(Vote(person.annotator_id, said(row.get(person.column), person.column)) for person in m.people)
    return [Item(_prompt(row, m), reference=_optional(row, m.reference), answers=answers, votes=votes)]


def _labels(row: Row, m: ColumnMap) -> list[Item]:
    verdict = said(row.get(m.label), m.label)
    binary = not m.right or _optional(row, "task") == "binary" or verdict in ("good", "bad")
    answers = [Answer(_answer(row, m.left), _optional(row, m.left_model))]
    if not binary:
        answers.append(Answer(_answer(row, m.right), _optional(row, m.right_model)))
    if (verdict in ("good", "bad")) != binary and verdict != "skip":
        raise RowError(f"{verdict!r} is no label for {'one answer' if binary else 'two answers'}")
    simulated = row.get("simulated") is not None and _truth(row.get("simulated"), "simulated")
    who = annotator_id(_text(row.get(m.annotator), "the annotator"))
    vote = Vote(who, verdict, simulated, _optional(row, "label_id"))
    follow_up = tuple(_text(turn, "a follow-up") for turn in _list(row, m.follow_up)) if m.follow_up else ()
    return [Item(_prompt(row, m), follow_up=follow_up, answers=tuple(answers), votes=(vote,), as_shown=True)]


_READERS: dict[LayoutName, Callable[[Row, ColumnMap], list[Item]]] = {
    "prompts": _prompts, "messages": _messages, "turns": _turns, "seed_tasks": _seed_tasks, "demonstrations": _demonstrations,
    "text": _texts, "preference": _preference, "transcripts": _preference, "binary": _binary, "pairs": _pairs, "labels": _labels,
}  # fmt: skip


# --- parts of a row ----------------------------------------------------------------------------------------------------------


def _prompt(row: Row, m: ColumnMap) -> tuple[Message, ...]:
    value = _present(row, m.prompt)
    turns = conversation(value)
    if turns is None:
        text = _text(value, "the prompt")
        if is_transcript(text) and text.rstrip().endswith("Assistant:"):
            turns = from_transcript(text)[:-1]
        else:
            turns = (Message("user", _joined(text, _optional(row, m.context))),)
    return ends_with_user(_with_system(row, m, turns))


def _shared(row: Row, m: ColumnMap) -> Shared:
    """Prompt, chosen and rejected, whether the prompt has a column of its own or is what both conversations share."""
    chosen, rejected = _present(row, m.chosen), _present(row, m.rejected)
    if m.layout == "transcripts" or (not m.prompt and is_transcript(chosen) and is_transcript(rejected)):
        return share(from_transcript(_text(chosen, "chosen")), from_transcript(_text(rejected, "rejected")))
    one, other = conversation(chosen), conversation(rejected)
    if (one is None) != (other is None):
        raise RowError("chosen and rejected are not written the same way: one is messages, the other text")
    if one is not None and other is not None and any(turn.role == "user" for turn in one):
        return share(one, other)
    if m.prompt:
        return Shared(_prompt(row, m), _answer(row, m.chosen), _answer(row, m.rejected))
    if one is not None:
        raise RowError("chosen and rejected hold no user's turn, and there is no prompt column")
    return share_text(_text(chosen, "chosen"), _text(rejected, "rejected"))


def _answer(row: Row, column: str) -> str:
    """An answer's text; messages must all be the assistant's. It may be empty: a model's silence can be judged too."""
    value = row.get(column)
    turns = conversation(value)
    if turns is None:
        return _text(value, repr(column))
    if any(turn.role != "assistant" for turn in turns):
        raise RowError(f"{column!r} holds turns that are not the assistant's")
    return "\n\n".join(turn.content for turn in turns)


def _demonstration(prompt: Sequence[Message], answer: str, m: ColumnMap) -> Item:
    if not answer.strip():
        raise RowError("the answer is empty")
    return Item(tuple(prompt), answers=(Answer(answer),), votes=(Vote("imported:sft", "good"),) if m.as_good else ())


def _with_system(row: Row, m: ColumnMap, turns: Sequence[Message]) -> tuple[Message, ...]:
    system = _optional(row, m.system)
    return (Message("system", system), *turns) if system.strip() and turns and turns[0].role != "system" else tuple(turns)


def _joined(text: str, context: str) -> str:
    return f"{text}\n\n{context}" if context.strip() else text


def _present(row: Row, column: str) -> Any:
    value = row.get(column)
    if value is None:
        raise RowError(f"{column!r} is missing")
    return value


def _text(value: Any, what: str) -> str:
    """Text as it is; numbers and booleans as a table program writes them."""
    if isinstance(value, str):
        return clean(value, what)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise RowError(f"{what} is missing" if value is None else f"{what} is not a number or text but {value}")
    if isinstance(value, bool | int | float):
        return _number(value)
    raise RowError(f"{what} is not text but a {type(value).__name__}")


def _number(value: float) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        raise RowError("a number has too many digits") from None


def _optional(row: Row, column: str) -> str:
    """Text of a column that may be missing; of a list its first text (MT-Bench: the first turn's reference)."""
    value = row.get(column) if column else None
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None or isinstance(value, dict) or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return _text(value, repr(column)) if isinstance(value, str | bool | int | float) else ""


def _list(row: Row, column: str) -> list[Any]:
    """A list, also when a cell holds it as JSON."""
    value = _present(row, column)
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            raise RowError(f"{column!r} is not a list") from None
    if not isinstance(value, list):
        raise RowError(f"{column!r} is not a list")
    return value


_SAID: dict[str, Said] = {
    "1": "first", "a": "first", "left": "first", "first": "first", "model_a": "first",
    "2": "second", "b": "second", "right": "second", "second": "second", "model_b": "second",
    "0": "tie", "tie": "tie", "draw": "tie", "both_bad": "both_bad", "tie (bothbad)": "both_bad", "skip": "skip",
    "good": "good", "bad": "bad",
}  # fmt: skip


def said(value: Any, column: str) -> Said:
    """A label as a file codes it: 0, 1, 2 or words."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{column!r} is no label ({value if value is None else type(value).__name__})")
    word = str(value).strip().lower().removesuffix(".0")
    if word not in _SAID:
        raise RowError(f"{column!r} is {word[:30]!r}; a label is 0 or tie, 1 or a, 2 or b")
    return _SAID[word]


def _truth(value: Any, column: str) -> bool:
    word = str(value).strip().lower().removesuffix(".0") if isinstance(value, str | bool | int | float) else ""
    if word in ("true", "1", "yes", "good", "desirable"):
        return True
    if word in ("false", "0", "no", "bad", "undesirable", "-1"):
        return False
    raise RowError(f"{column!r} is {word[:30]!r}; a label is true or false" if word else f"{column!r} is missing")


def annotator_id(name: str) -> str:
    """A person who comes with a file is kept apart from everybody here by the prefix."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower().removeprefix("imported:")).strip("-")[:MAX_ANNOTATOR]
    if not slug:
        raise RowError("the annotator has no name")
    return f"imported:{slug}"
