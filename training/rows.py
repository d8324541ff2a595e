"""A run's frozen rows: read, refused in words or made ready for a trainer.

The file is Parquet in TRL's conversational columns plus `prompt_id` and `split`. What cannot be learned from is
dropped here, counted and shown by the start of a prompt, because TRL would drop or cut it in silence. Free of torch at
import, so that bad data is refused before seconds are spent on loading a model. A tokenizer is handed in; the text is
rendered by its chat template alone, as it is when sampling.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

from data.errors import RunError
from data.records import SnapshotLayout
from data.rundir import RunDir
from data.words import count
from training.chat import TEMPLATE_KWARGS
from training.config import Method
from training.methods import METHOD_FACTS

Row = dict[str, Any]  # one row in TRL's columns: handed to `datasets` as it is

_COLUMNS: dict[SnapshotLayout, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "binary": ("prompt", "completion", "label"),
    "prompts": ("prompt", "reference"),
}
_NEEDS: dict[SnapshotLayout, str] = {
    "sft": "answers to imitate (an SFT snapshot)",
    "preference": "pairs with a preference (a preference snapshot)",
    "binary": "single answers labelled good or bad (a binary snapshot)",
    "prompts": "prompts, with the reference answer where there is one (a snapshot of prompts)",
}
NO_ADAPTER = "no adapter was made"  # ends the sentence of a run that was stopped before its first step
_NAMED = 20  # so many prompt ids are named per reason in the log; the count is always whole
_EXCERPT = 60  # letters of a prompt that tell a person which one is meant
Say = Callable[[str, int, int], None]  # what goes on, done, total; may end the run


class Rows(NamedTuple):
    train: list[Row]
    held_out: list[Row]


NO_ROWS = Rows([], [])


class Balance(NamedTuple):
    """Weights of the good and the bad rows in KTO's loss."""

    desirable: float
    undesirable: float


@dataclass
class Some:
    """Rows with one fault: their prompt ids, for the log, and how the first one's prompt begins, for a person."""

    example: str
    ids: list[str] = field(default_factory=list)


@dataclass
class Dropped:
    """Rows left out, by reason, and rows whose completion is cut at the length limit.

    `lengths`: tokens of each row that stays, in their order, its longer answer counted and nothing cut; `longest`: of all rows.
    """

    reasons: dict[str, Some] = field(default_factory=dict)
    truncated: Some | None = None
    lengths: list[int] = field(default_factory=list)
    longest: int = 0

    def add(self, reason: str, row: Row, prompt_id: str) -> None:
        self.reasons.setdefault(reason, Some(excerpt(row))).ids.append(prompt_id)

    def cut(self, row: Row, prompt_id: str) -> None:
        self.truncated = self.truncated or Some(excerpt(row))
        self.truncated.ids.append(prompt_id)

    @property
    def count(self) -> int:
        return sum(len(some.ids) for some in self.reasons.values())

    def to_json(self) -> dict[str, Any]:
        reasons = {reason: {"rows": len(some.ids), "example": some.example} for reason, some in self.reasons.items()}
        return {"rows": self.count, "reasons": reasons, "truncated": len(self.truncated.ids) if self.truncated else 0}

    def sentences(self) -> Iterator[str]:
        """For a person: how many and why, with an excerpt."""
        for reason, some in self.reasons.items():
            yield f"{count(len(some.ids), 'row')} left out: {reason}{_like(some)}."
        if self.truncated:
            cut = count(len(self.truncated.ids), "row")
            yield f"{cut} with an answer that was cut at the length limit{_like(self.truncated)}."

    def named(self) -> Iterator[str]:
        """For the log: which rows, by prompt id."""
        for reason, some in self.reasons.items():
            yield f"left out, {reason}: {_names(some.ids)}"
        if self.truncated:
            yield f"cut at the length limit: {_names(self.truncated.ids)}"


def read_rows(run: RunDir, method: Method) -> Rows:
    """The frozen file's rows by split, checked against its sha256; RunError when they are not what the method learns from."""
    import pyarrow.parquet

    data = run.config().get("data") or {}
    if not data.get("file"):
        raise RunError("The run has no data file; choose a snapshot and start it again.")
    path = run.check_data(str(data["file"]), str(data.get("sha256", "")))
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise RunError(f"The data file {path.name} is no readable Parquet file; freeze the labels again.") from error
    names = set(table.column_names)
    if method == "kto" and {"prompt", "chosen", "rejected"} <= names and "completion" not in names:
        rows = _unpaired(table.to_pylist())
    else:
        layout = METHOD_FACTS[method].layout
        missing = [name for name in _COLUMNS[layout] if name not in names]
        if missing:
            raise RunError(f"The data file has no column {missing[0]!r}: {method.upper()} learns from {_NEEDS[layout]}.")
        rows = table.to_pylist()
    return Rows(
        [row for row in rows if row.get("split", "train") != "held_out"], [row for row in rows if row.get("split") == "held_out"]
    )


def longest_text(rows: Rows) -> int:
    """Letters of the longest row, roughly: what a trainer's choice of kernel may depend on."""
    turns = (row.get(name) or [] for part in rows for row in part for name in ("prompt", "completion", "chosen", "rejected"))
    return max((2 * sum(len(m["content"]) for m in turn) for turn in turns if _is_messages(turn)), default=0)


def usable(
    rows: Sequence[Row], method: Method, tokenizer: Any, limit: int, dropped: Dropped, say: Say = lambda what, done, total: None
) -> list[Row]:
    """Rows a trainer can learn from, in order and reduced to its columns; `limit` is the longest sequence in tokens."""
    kept = []
    for number, row in enumerate(rows):
        say("checking rows", number, len(rows))
        prompt_id = str(row.get("prompt_id") or f"row {number}")
        reason = fault(row, method)
        if not reason:
            reason = _too_long(row, method, tokenizer, limit, prompt_id, dropped)
        if reason:
            dropped.add(reason, row, prompt_id)
        else:
            kept.append({name: row[name] for name in _COLUMNS[METHOD_FACTS[method].layout]})
    return kept


def usable_or_refuse(
    rows: Rows, method: Method, tokenizer: Any, limit: int, dropped: Dropped, say: Say = lambda what, done, total: None
) -> Rows:
    """Both splits made ready; RunError when no training row is left."""
    if not rows.train:
        raise RunError("The data file holds no training rows; label some training prompts and freeze again.")
    ready = Rows(*(usable(part, method, tokenizer, limit, dropped, say) for part in rows))
    if not ready.train:
        why = max(dropped.reasons, key=lambda reason: len(dropped.reasons[reason].ids))
        raise RunError(f"None of the {len(rows.train)} training rows can be used; most often: {why}.")
    return ready


def check_template(tokenizer: Any, row: Row, ends: Iterable[int]) -> None:
    """RunError unless an answer is rendered after the very prompt that is sampled from, and its turn is ended.

    A template that fails either trains on a text the model will never see, or a model that never stops.
    """
    answer = row.get("completion") or row.get("chosen") or [{"role": "assistant", "content": "Yes."}]
    prompt = _ids(tokenizer, row["prompt"], True)
    whole = _ids(tokenizer, [*row["prompt"], *answer], False)
    if whole[: len(prompt)] != prompt:
        raise RunError(
            "This base's chat template renders a prompt differently once an answer follows, so it cannot be trained here."
        )
    if not set(whole[len(prompt) :][-3:]) & set(ends):
        raise RunError(
            "This base's chat template does not end the answer with the model's end token, so it would never stop talking."
        )


def kto_balance(rows: Sequence[Row], desirable: float, undesirable: float) -> Balance:
    """Weights in KTO's loss; 0 = from the balance, so that weight × count of the good is 1 to 4/3 times that of the bad.

    Equation 8 of the KTO paper (arXiv 2402.01306). Only the rarer side is raised above 1.
    """
    good = sum(1 for row in rows if row["label"])
    bad = len(rows) - good
    if not good or not bad:
        raise RunError("KTO needs good and bad answers; all training rows have the same label.")
    ratio = good / bad
    weights = Balance(max(1.0, 1 / ratio), max(1.0, ratio / (4 / 3)))
    return Balance(desirable or weights.desirable, undesirable or weights.undesirable)


def kto_order(rows: Sequence[Row], batch: int, seed: int) -> list[Row]:
    """Shuffled rows in whole batches, the good and the bad spread evenly, so that every batch holds both where the counts allow it.

    TRL's KTO goes through the rows in their order and pairs each prompt with its neighbour's completion, so the order is
    part of the loss. The last batch is filled up with rows drawn again: in a batch of one the KL term equals the reward.
    """
    if not rows:
        return []
    rng = random.Random(seed)
    good = [row for row in rows if row["label"]]
    bad = [row for row in rows if not row["label"]]
    for side in (good, bad):
        rng.shuffle(side)
    batches = max(1, -(-len(rows) // batch))
    short = batches * batch - len(rows)
    few, many = sorted((good, bad), key=len)
    if few and len(few) < batches and short:  # the filler goes to the rarer side first: it may be what a batch lacks
        extra = min(short, batches - len(few))
        few += rng.choices(few, k=extra)
        short -= extra
    many += rng.choices(many, k=short)
    dealt: list[list[Row]] = [few[i::batches] for i in range(batches)]
    rest = iter(many)
    for part in dealt:
        part += [next(rest) for _ in range(batch - len(part))]
        rng.shuffle(part)
    rng.shuffle(dealt)
    return [row for part in dealt for row in part]


def in_turn(rows: Sequence[Row], batch: int) -> list[Row]:
    """Each batch's good and bad rows in turn, so that a part of a batch holds both as well."""
    turns: list[Row] = []
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        good, bad = ([row for row in part if row["label"] is kind] for kind in (True, False))
        turns += [row for pair in zip_longest(good, bad) for row in pair if row is not None]
    return turns


def excerpt(row: Mapping[str, Any]) -> str:
    """How the row's last user turn begins, on one line; '' where the prompt is no conversation."""
    turns = row["prompt"] if _is_messages(row["prompt"]) else []
    text = " ".join((turns[-1]["content"] if turns else "").split())
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1].rstrip() + "…"


def _like(some: Some) -> str:
    first = "such as " if len(some.ids) > 1 else ""
    return f" ({first}“{some.example}”)" if some.example else ""


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more


def _unpaired(rows: Iterable[Row]) -> list[Row]:
    """Each pair as a good and a bad row."""
    return [
        {**{k: v for k, v in row.items() if k not in ("chosen", "rejected")}, "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]


def fault(row: Mapping[str, Any], method: Method) -> str:
    """Why the row cannot be learned from, '' when it can."""
    if not _is_messages(row["prompt"]) or row["prompt"][-1]["role"] != "user":
        return "the prompt is not a conversation that ends with a user turn"
    for answer in _answers(row, method):
        if not _is_messages(answer) or answer[-1]["role"] != "assistant":
            return "an answer is not an assistant turn"
        if not answer[-1]["content"].strip():
            return "an answer is empty"
    if METHOD_FACTS[method].paired and row["chosen"] == row["rejected"]:
        return "both answers are the same"
    if method == "kto" and not isinstance(row["label"], bool):
        return "the label is neither good nor bad"
    if METHOD_FACTS[method].samples and not isinstance(row["reference"], str | None):
        return "the reference is no text"
    return ""


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value)
    )


def _too_long(row: Row, method: Method, tokenizer: Any, limit: int, prompt_id: str, dropped: Dropped) -> str:
    """A reason when the prompt alone fills the limit; a completion that is only cut is noted."""
    prompt = len(_ids(tokenizer, row["prompt"], True))
    whole = max((len(_ids(tokenizer, [*row["prompt"], *answer], False)) for answer in _answers(row, method)), default=prompt)
    dropped.longest = max(dropped.longest, whole)
    if prompt >= limit:
        return f"the prompt is longer than {limit} tokens"
    if whole > limit and method == "reward":  # it looks at the last token, so half an answer would be scored as if it were one
        return f"prompt and answer are longer than {limit} tokens"
    dropped.lengths.append(whole)
    if whole > limit:
        dropped.cut(row, prompt_id)
    return ""


def _answers(row: Mapping[str, Any], method: Method) -> list[Any]:
    """The row's answers, none where the method samples its own."""
    facts = METHOD_FACTS[method]
    return [] if facts.samples else [row["chosen"], row["rejected"]] if facts.paired else [row["completion"]]


def _ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[int]:
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt, return_dict=True, **TEMPLATE_KWARGS
    )["input_ids"]
    return list(ids)
