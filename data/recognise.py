"""Which layout a file has, from its first rows.

The order of the questions matters: the most telling columns are looked at first (`chosen`/`rejected` before `prompt`). A wrong
guess does no harm: the preview shows it and nothing is stored before somebody agreed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.columns import ColumnMap, LabelColumn, LayoutName, names
from data.errors import BadInput
from data.normalise import annotator_id, said
from data.transcripts import RowError, conversation, from_text, is_transcript

PROMPT = ("prompt", "instruction", "question", "query", "user_prompt", "text", "input", "content", "problem", "goal")
SYSTEM = ("system", "system_prompt", "system_message")
CONTEXT = ("input", "context")
FOLLOW_UP = ("follow_up", "follow_ups")
REFERENCE = ("reference", "answer", "output", "reference_answer", "expected", "target", "canonical_solution", "solution")
CATEGORY = ("cluster", "category", "topic", "motivation_app")
EXTERNAL_ID = ("question_id", "uid", "task_id", "external_id", "prompt_id", "id", "key", "idx", "index")
COMPLETION = ("completion", "response", "assistant")
CHOSEN = ("chosen", "chosen_response", "chosen_answer")
REJECTED = ("rejected", "rejected_response", "rejected_answer")
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog")
TWO_ANSWERS = (
    ("response1", "response2"), ("response_1", "response_2"), ("output_1", "output_2"), ("output1", "output2"),
    ("response_a", "response_b"), ("answer_a", "answer_b"), ("answer1", "answer2"), ("completion_a", "completion_b"),
)  # fmt: skip
TWO_MODELS = (("model_a", "model_b"), ("generator_1", "generator_2"), ("model1", "model2"), ("model_1", "model_2"))
LABELS = ("label", "preference", "winner", "annotator")


class Found(NamedTuple):
    """`notes` tell what was left out or cannot be known."""

    mapping: ColumnMap
    notes: tuple[str, ...] = ()


class _Sample:
    """The first rows; columns are found whatever their case."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.columns = list(dict.fromkeys(str(column) for row in rows for column in row))
        self._lower = {column.lower(): column for column in reversed(self.columns)}

    def find(self, wanted: Iterable[str], but: Iterable[str] = ()) -> str:
        """The first of the wanted columns that is there, '' when none is."""
        return next((self._lower[name] for name in wanted if name in self._lower and self._lower[name] not in but), "")

    def both(self, couples: Iterable[tuple[str, str]]) -> tuple[str, str]:
        return next(((self._lower[a], self._lower[b]) for a, b in couples if a in self._lower and b in self._lower), ("", ""))

    def prompt(self, but: Iterable[str] = ()) -> str:
        """The column of prompts. One with nothing but numbers, such as the ids of prompts in another file, comes last."""
        found = [column for column in (self.find((name,), but) for name in PROMPT) if column]
        return next((column for column in found if not self.all(column, _is_number)), found[0] if found else "")

    def values(self, column: str) -> list[Any]:
        return [row[column] for row in self.rows if row.get(column) is not None] if column else []

    def all(self, column: str, test: Callable[[Any], bool]) -> bool:
        values = self.values(column)
        return bool(values) and all(test(value) for value in values)

    def common(self, prompt: str, **more: str) -> dict[str, Any]:
        """The columns that any layout may have beside its own."""
        used = {prompt, *more.values()}
        found: dict[str, Any] = {"prompt": prompt, **more}
        for field, wanted in (("system", SYSTEM), ("category", CATEGORY), ("external_id", EXTERNAL_ID)):
            found[field] = self.find(wanted, but=used)
        return found


def _doubted(found: Found, sample: _Sample) -> Found:
    """With a note where the prompts are numbers."""
    if not sample.all(found.mapping.prompt, _is_number):
        return found
    note = f"“{found.mapping.prompt}” holds nothing but numbers: they may be the ids of prompts that stand in another file."
    return Found(found.mapping, (*found.notes, note))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (
        isinstance(value, str) and value.strip().removeprefix("-").replace(".", "", 1).isdecimal()
    )


def recognise(rows: Sequence[Mapping[str, Any]], name: str) -> Found:
    """The mapping for these rows; BadInput naming the columns when none of them can be the prompt."""
    sample = _Sample(rows)
    if not sample.columns:
        raise BadInput(f"{name} has rows without any column; give every row a prompt.")
    for look in _LOOKS:
        found = look(sample, name)
        if found is not None:
            return _doubted(found, sample)
    raise BadInput(
        f"{name} has no column that could be the prompt: it has {names(sample.columns)}, and what is looked for is prompt, "
        "instruction, question, messages, turns, or chosen and rejected; rename one of them or choose the columns yourself."
    )


def _answers_without_questions(sample: _Sample, name: str) -> Found | None:
    if sample.find(("choices",)) and sample.find(("question_id",)) and not sample.find((*PROMPT, "turns")):
        raise BadInput(
            f"{name} holds a model's answers to MT-Bench questions but not the questions; import question.jsonl instead."
        )
    return None


def _own_labels(sample: _Sample, name: str) -> Found | None:
    left, label, who = sample.find(("response_a",)), sample.find(("preference",)), sample.find(("annotator",))
    prompt = sample.find(("prompt",))
    if not (left and label and who and prompt):
        return None
    more = sample.common(prompt, left=left, right=sample.find(("response_b",)), label=label, annotator=who)
    more |= {"left_model": sample.find(("model_a",)), "right_model": sample.find(("model_b",))}
    return Found(ColumnMap("labels", follow_up=sample.find(FOLLOW_UP), **more))


def _chosen_rejected(sample: _Sample, name: str) -> Found | None:
    chosen, rejected = sample.find(CHOSEN), sample.find(REJECTED)
    if not chosen or not rejected:
        return None
    prompt = sample.find(("prompt", "instruction", "question", "query", "input"))
    dialogues = not prompt and sample.all(chosen, is_transcript) and sample.all(rejected, is_transcript)
    layout: LayoutName = "transcripts" if dialogues else "preference"
    more = sample.common(prompt, chosen=chosen, rejected=rejected)
    more |= {"left_model": sample.find(("chosen_model",)), "right_model": sample.find(("rejected_model",))}
    return Found(ColumnMap(layout, **more))


def _two_answers(sample: _Sample, name: str) -> Found | None:
    left, right = sample.both(TWO_ANSWERS)
    prompt = sample.prompt(but=(left, right))
    if not left or not prompt:
        return None
    left_model, right_model = sample.both(TWO_MODELS)
    people, notes = _people(sample, left)
    more = sample.common(prompt, left=left, right=right, left_model=left_model, right_model=right_model)
    more["context"] = sample.find(CONTEXT, but=(prompt,))
    mapping = ColumnMap("pairs", model_pair=sample.find(("cmp_key",)), people=people, **more)
    return Found(mapping, notes)


def _people(sample: _Sample, left: str) -> tuple[tuple[LabelColumn, ...], tuple[str, ...]]:
    """Every column of labels is one person. A column of anything but labels is left out, and said to be."""
    people, notes = [], []
    for column in sample.columns:
        word = column.lower().rstrip("0123456789").rstrip("_-")
        if word not in LABELS or column.lower().endswith("_id"):
            continue
        values = sample.values(column)
        codes, digits = {_code(value, column) for value in values}, {str(value).strip() for value in values}
        if None in codes or ("0" in digits and digits <= {"0", "1"}):
            why = "not labels coded 0, 1 and 2" if None in codes else "coded 0 and 1, so that nobody can say which answer is meant"
            notes.append(f"The column “{column}” is {why}: its values are left out.")
            continue
        people.append(LabelColumn(column, _person(sample, column, left)))
    if not people and not notes:
        notes.append("There are no labels in the file: the answers come in to be labelled here.")
    return tuple(people), tuple(notes)


def _person(sample: _Sample, column: str, left: str) -> str:
    if left == "response1" and column.lower().startswith("annotator"):
        return annotator_id("pandalm-" + column.lower().removeprefix("annotator").strip("_-"))
    if left == "output_1" and column == "label":
        return annotator_id("llmbar")
    return annotator_id(column)


def _code(value: Any, column: str) -> str | None:
    try:
        return said(value, column)
    except RowError:
        return None


def _labelled(sample: _Sample, name: str) -> Found | None:
    prompt, completion, label = sample.prompt(), sample.find(COMPLETION), sample.find(("label",))
    if not (prompt and completion and label):
        return None
    return Found(ColumnMap("binary", **sample.common(prompt, completion=completion, label=label)))


def _demonstrated(sample: _Sample, name: str) -> Found | None:
    completion = sample.find(COMPLETION)
    prompt = sample.prompt(but=(completion,))
    if not prompt or not completion:
        return None
    return Found(
        ColumnMap("demonstrations", context=sample.find(CONTEXT, but=(prompt,)), **sample.common(prompt, completion=completion))
    )


def _conversations(sample: _Sample, name: str) -> Found | None:
    column = sample.find(MESSAGES)
    if not column or not any(_is_conversation(value) for value in sample.values(column)):
        return None
    return Found(ColumnMap("messages", **sample.common(column)))


def _is_conversation(value: Any) -> bool:
    try:
        return conversation(value) is not None
    except RowError:
        return False


def _questions(sample: _Sample, name: str) -> Found | None:
    column = sample.find(("turns",))
    if not column:
        return None
    return Found(ColumnMap("turns", reference=sample.find(("reference",)), **sample.common(column)))


def _tasks(sample: _Sample, name: str) -> Found | None:
    prompt, instances = sample.find(("instruction",)), sample.find(("instances",))
    if not prompt or not instances:
        return None
    return Found(ColumnMap("seed_tasks", **sample.common(prompt, completion=instances)))


def _marked_text(sample: _Sample, name: str) -> Found | None:
    column = sample.find(("text",))
    if not column or sample.find(PROMPT, but=(column,)) or not sample.all(column, _marks_turns):
        return None
    return Found(ColumnMap("text", **sample.common(column)))


def _marks_turns(value: Any) -> bool:
    try:
        turns = from_text(value) if isinstance(value, str) else None
    except RowError:
        return False
    return turns is not None and turns[-1].role == "assistant"


def _prompts(sample: _Sample, name: str) -> Found | None:
    prompt = sample.prompt()
    if not prompt:
        return None
    context = sample.find(CONTEXT, but=(prompt,)) if prompt.lower() == "instruction" else ""
    reference = sample.find(REFERENCE, but=(prompt, context))
    more = sample.common(prompt, context=context, reference=reference)
    return Found(ColumnMap("prompts", follow_up=sample.find(FOLLOW_UP), **more))


_LOOKS = (
    _answers_without_questions, _own_labels, _chosen_rejected, _two_answers, _labelled, _tasks, _conversations, _questions,
    _demonstrated, _marked_text, _prompts,
)  # fmt: skip
