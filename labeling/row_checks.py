"""What can be said of training rows by looking at them, before any model is loaded: pure functions over a snapshot's rows.

`check_rows` gives the verdicts that the Train page shows while one is still choosing; `sieve` leaves out what a verdict's button
leaves out, so what is counted and what is removed have one definition. Texts are compared without the white space around them,
as everywhere where answers are told apart. What only the model's own tokenizer can say is `training/preflight.py`'s.

*Longer answers*: people prefer longer answers, and a model that learns "longer" learns it sooner than "better". The share of
pairs whose chosen answer is the longer one has a Wilson interval; a share is called lopsided when the whole interval lies beyond
two thirds (or below one third), so that few pairs never sound an alarm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.records import SnapshotLayout
from data.words import count
from labeling.intervals import wilson
from training.config import Method
from training.rows import excerpt, fault
from training.verdicts import SHOWN, Example, Fix, Sieve, Verdict

Row = Mapping[str, Any]  # one row in TRL's columns, with prompt_id and split

LOPSIDED = 2 / 3  # share of pairs whose chosen answer is the longer (or the shorter) one
RARE = 0.1  # share of the rarer label below which it hardly counts
_METHOD: dict[SnapshotLayout, Method] = {"preference": "dpo", "binary": "kto", "sft": "sft", "prompts": "rloo"}
_NOUN: dict[SnapshotLayout, tuple[str, str]] = {
    "preference": ("pair", "pairs"),
    "binary": ("answer", "answers"),
    "sft": ("answer", "answers"),
    "prompts": ("prompt", "prompts"),
}


class Sifted(NamedTuple):
    """Rows that stay, and how many went for which reason."""

    rows: list[Any]
    contradictions: int
    repeats: int


def check_rows(rows: Sequence[Row], layout: SnapshotLayout, every_vote: bool = False) -> list[Verdict]:
    """Verdicts on the training rows, and on nothing else: held-out rows teach nothing. Checks that find nothing say so in a word.

    `every_vote`: each person's vote is a row, so people who agree or disagree are meant to stand beside each other.
    """
    train = [row for row in rows if row.get("split", "train") != "held_out"]
    if not train:
        return []
    if layout == "prompts":  # nobody said anything that could contradict itself
        return [_faults(train, layout)]
    found = [_faults(train, layout), _contradictions(train, layout, every_vote), _repeats(train, layout, every_vote)]
    if layout == "preference":
        found.append(_lengths(train))
    if layout == "binary":
        found.append(_balance(train))
    return found


def sieve(rows: Sequence[Any], layout: SnapshotLayout, leave_out: Iterable[Sieve]) -> Sifted:
    """The rows without those that contradict each other, and without repetitions of a row; held-out rows likewise."""
    wanted = set(leave_out)
    against = contradictory(rows, layout) if "contradictions" in wanted else set()
    kept = [row for number, row in enumerate(rows) if number not in against]
    again = repeated(kept, layout) if "repeats" in wanted else set()
    return Sifted([row for number, row in enumerate(kept) if number not in again], len(against), len(again))


def contradictory(rows: Sequence[Row], layout: SnapshotLayout) -> set[int]:
    """Numbers of the rows against which another row says the opposite: a pair chosen both ways, an answer both good and bad."""
    said: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows):
        if layout == "preference":
            chosen, rejected = _text(row.get("chosen")), _text(row.get("rejected"))
            if chosen != rejected:
                said[_text(row.get("prompt")), frozenset((chosen, rejected))][chosen].append(number)
        elif layout == "binary":
            said[_text(row.get("prompt")), _text(row.get("completion"))][row.get("label")].append(number)
    return {number for ways in said.values() if len(ways) > 1 for numbers in ways.values() for number in numbers}


def repeated(rows: Sequence[Row], layout: SnapshotLayout) -> set[int]:
    """Numbers of the rows that say again what an earlier one says."""
    seen: set[Any] = set()
    again: set[int] = set()
    columns = ("prompt", "chosen", "rejected") if layout == "preference" else ("prompt", "completion")
    for number, row in enumerate(rows):
        key = (*(_text(row.get(column)) for column in columns), row.get("label"))
        if key in seen:
            again.add(number)
        seen.add(key)
    return again


# --- one check each -------------------------------------------------------------------------------------------------------------


def _faults(train: Sequence[Row], layout: SnapshotLayout) -> Verdict:
    """Rows that the trainer would leave out, by the trainer's own rule."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(train):
        if reason := fault(row, _METHOD[layout]):
            by_reason[reason].append(number)
    bad = sum(map(len, by_reason.values()))
    if not bad:
        return Verdict("rows", "ok", f"{count(len(train), *_NOUN[layout])} to learn from, each with all its parts.")
    why = "; ".join(f"{len(numbers)} because {reason}" for reason, numbers in by_reason.items())
    examples = _examples(train, [numbers[0] for numbers in by_reason.values()])
    if bad == len(train):
        return Verdict("rows", "stop", f"None of the {count(bad, 'row')} can be learned from: {why}.", bad, examples)
    return Verdict("rows", "warn", f"{count(bad, 'row')} cannot be learned from and will be left out: {why}.", bad, examples)


def _contradictions(train: Sequence[Row], layout: SnapshotLayout, every_vote: bool) -> Verdict:
    against = sorted(contradictory(train, layout))
    how = "were chosen both ways" if layout == "preference" else "were called both good and bad"
    if not against:
        nothing = {"preference": "No pair was chosen both ways.", "binary": "No answer was called both good and bad."}
        return Verdict("contradictions", "ok", nothing.get(layout, "Nothing is said against an answer."))
    sentence = f"{count(len(against), *_NOUN[layout])} {how}, so they pull in both directions."
    if every_vote:
        sentence += " That is how disagreement counts where each person's vote is a row."
    fix = Fix("Leave them out", sieve=("contradictions",))
    examples = _examples(train, against)
    if len(against) == len(train):
        return Verdict("contradictions", "stop", f"{sentence} Nothing else is left to learn from.", len(against), examples)
    return Verdict("contradictions", "warn", sentence, len(against), examples, fix)


def _repeats(train: Sequence[Row], layout: SnapshotLayout, every_vote: bool) -> Verdict:
    again = sorted(repeated(train, layout))
    if not again:
        return Verdict("repeats", "ok", "No row stands there twice.")
    if every_vote:
        sentence = f"{count(len(again), 'row')} {'says' if len(again) == 1 else 'say'} what another says: people who agree."
        return Verdict("repeats", "ok", sentence, len(again))
    counted = f"{count(len(again), 'row repeats', 'rows repeat')} another one word for word, which then counts more than once."
    return Verdict(
        "repeats", "warn", counted, len(again), _examples(train, again), Fix("Leave the repeats out", sieve=("repeats",))
    )


def _lengths(train: Sequence[Row]) -> Verdict:
    """In characters; pairs of equal length say nothing about it."""
    sides = [(len(_text(row.get("chosen"))), len(_text(row.get("rejected")))) for row in train]
    longer, decided = sum(a > b for a, b in sides), sum(a != b for a, b in sides)
    if not decided:
        return Verdict("length", "ok", "In each pair both answers are equally long.")
    low, high = (float(bound) for bound in wilson(longer, decided))
    share = f"{_percent(longer / decided)} of the pairs (95 %: {100 * low:.0f}–{100 * high:.0f} %)"
    sentence = f"The chosen answer is the longer one in {share}"
    if low <= LOPSIDED and high >= 1 - LOPSIDED:
        return Verdict("length", "ok", f"{sentence}.")
    what = "longer" if low > LOPSIDED else "shorter"
    more = f": the model may learn to write {what} answers rather than better ones. Look at the lengths when you compare."
    return Verdict("length", "warn", sentence + more, longer if what == "longer" else decided - longer)


def _balance(train: Sequence[Row]) -> Verdict:
    good = sum(1 for row in train if row.get("label") is True)
    bad = sum(1 for row in train if row.get("label") is False)
    told = f"{count(good, 'good answer')} and {count(bad, 'bad one')}"
    if not good or not bad:
        there, missing = ("good", "bad") if good else ("bad", "good")
        return Verdict(
            "balance", "stop", f"All {good + bad} answers are {there}, and KTO needs both; label at least one that is {missing}."
        )
    if min(good, bad) / (good + bad) < RARE:
        rare = "bad" if bad < good else "good"
        return Verdict("balance", "warn", f"{told}: with so few {rare} ones, each of them counts a lot; label more of those.")
    return Verdict("balance", "ok", f"{told}; the rarer kind is given more weight.")


# --- small things ---------------------------------------------------------------------------------------------------------------


def _text(turns: Any) -> Any:
    """A conversation as something to compare and to measure: its one text, or all its turns."""
    if not isinstance(turns, list) or not all(isinstance(m, Mapping) for m in turns):
        return repr(turns)
    if len(turns) == 1:
        return str(turns[0].get("content", "")).strip()
    return "\n".join(f"{m.get('role')}: {str(m.get('content', '')).strip()}" for m in turns)


def _examples(rows: Sequence[Row], numbers: Sequence[int]) -> tuple[Example, ...]:
    """Of different prompts, as far as there are any."""
    of = {str(rows[i].get("prompt_id") or f"row {i}"): excerpt(rows[i]) for i in numbers}
    return tuple(Example(prompt_id, prompt) for prompt_id, prompt in list(of.items())[:SHOWN])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
