"""A run's frozen rows: read, refused in words or made ready for a trainer.

The file is Parquet in TRL's conversational columns plus `prompt_id` and `split`. What cannot be learned from is
dropped here, counted and named by its prompt id, because TRL would drop or cut it in silence. Free of torch at
import, so that bad data is refused before seconds are spent on loading a model. A tokenizer is handed in; the text is
rendered by its chat template alone, as it is when sampling.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data.errors import RunError
from data.rundir import RunDir
from training.chat import TEMPLATE_KWARGS
from training.config import Method

Row = dict[str, Any]  # one row in TRL's columns: handed to `datasets` as it is

_COLUMNS: dict[Method, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
}
_NEEDS: dict[Method, str] = {
    "sft": "answers to imitate (an SFT snapshot)",
    "dpo": "pairs with a preference (a preference snapshot)",
    "kto": "single answers labelled good or bad (a binary snapshot)",
}
_NAMED = 20  # so many prompt ids are named per reason; the count is always whole


class Rows(NamedTuple):
    train: list[Row]
    held_out: list[Row]


NO_ROWS = Rows([], [])


class Balance(NamedTuple):
    """Weights of the good and the bad rows in KTO's loss."""

    desirable: float
    undesirable: float


@dataclass
class Dropped:
    """Rows left out, by reason, and rows whose completion is cut at the length limit."""

    reasons: dict[str, list[str]] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)

    def add(self, reason: str, prompt_id: str) -> None:
        self.reasons.setdefault(reason, []).append(prompt_id)

    @property
    def count(self) -> int:
        return sum(len(ids) for ids in self.reasons.values())

    def to_json(self) -> dict[str, Any]:
        reasons = {reason: {"rows": len(ids), "prompt_ids": ids[:_NAMED]} for reason, ids in self.reasons.items()}
        return {"rows": self.count, "reasons": reasons, "truncated": len(self.truncated), "truncated_ids": self.truncated[:_NAMED]}

    def sentences(self) -> Iterable[str]:
        for reason, ids in self.reasons.items():
            yield f"{len(ids)} rows left out: {reason} ({_names(ids)})."
        if self.truncated:
            yield f"{len(self.truncated)} completions were cut at the length limit ({_names(self.truncated)})."


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
        missing = [name for name in _COLUMNS[method] if name not in names]
        if missing:
            raise RunError(f"The data file has no column {missing[0]!r}: {method.upper()} learns from {_NEEDS[method]}.")
        rows = table.to_pylist()
    return Rows(
        [row for row in rows if row.get("split", "train") != "held_out"], [row for row in rows if row.get("split") == "held_out"]
    )


def longest_text(rows: Rows) -> int:
    """Letters of the longest row, roughly: what a trainer's choice of kernel may depend on."""
    turns = (row.get(name) or [] for part in rows for row in part for name in ("prompt", "completion", "chosen", "rejected"))
    return max((2 * sum(len(m["content"]) for m in turn) for turn in turns if _is_messages(turn)), default=0)


def usable(rows: Sequence[Row], method: Method, tokenizer: Any, limit: int, dropped: Dropped) -> list[Row]:
    """Rows a trainer can learn from, in order and reduced to its columns; `limit` is the longest sequence in tokens."""
    kept = []
    for number, row in enumerate(rows):
        prompt_id = str(row.get("prompt_id") or f"row {number}")
        reason = _fault(row, method)
        if not reason:
            reason = _too_long(row, method, tokenizer, limit, prompt_id, dropped)
        if reason:
            dropped.add(reason, prompt_id)
        else:
            kept.append({name: row[name] for name in _COLUMNS[method]})
    return kept


def usable_or_refuse(rows: Rows, method: Method, tokenizer: Any, limit: int, dropped: Dropped) -> Rows:
    """Both splits made ready; RunError when no training row is left."""
    if not rows.train:
        raise RunError("The data file holds no training rows; label some training prompts and freeze again.")
    ready = Rows(usable(rows.train, method, tokenizer, limit, dropped), usable(rows.held_out, method, tokenizer, limit, dropped))
    if not ready.train:
        why = max(dropped.reasons, key=lambda reason: len(dropped.reasons[reason]))
        raise RunError(f"None of the {len(rows.train)} training rows can be used; most often: {why}.")
    return ready


def check_template(tokenizer: Any, row: Row, ends: Iterable[int]) -> None:
    """RunError unless an answer is rendered after the very prompt that is sampled from, and its turn is ended.

    A template that fails either trains on a text the model will never see, or a model that never stops.
    """
    answer = row.get("completion") or row["chosen"]
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


def _fault(row: Row, method: Method) -> str:
    """Why the row cannot be learned from, '' when it can."""
    if not _is_messages(row["prompt"]) or row["prompt"][-1]["role"] != "user":
        return "the prompt is not a conversation that ends with a user turn"
    answers = [row["chosen"], row["rejected"]] if method == "dpo" else [row["completion"]]
    for answer in answers:
        if not _is_messages(answer) or answer[-1]["role"] != "assistant":
            return "an answer is not an assistant turn"
        if not answer[-1]["content"].strip():
            return "an answer is empty"
    if method == "dpo" and row["chosen"] == row["rejected"]:
        return "both answers are the same"
    if method == "kto" and not isinstance(row["label"], bool):
        return "the label is neither good nor bad"
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
    if prompt >= limit:
        return f"the prompt is longer than {limit} tokens"
    answers = [row["chosen"], row["rejected"]] if method == "dpo" else [row["completion"]]
    if any(len(_ids(tokenizer, [*row["prompt"], *answer], False)) > limit for answer in answers):
        dropped.truncated.append(prompt_id)
    return ""


def _ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[int]:
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt, return_dict=True, **TEMPLATE_KWARGS
    )["input_ids"]
    return list(ids)
