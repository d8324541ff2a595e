"""The demo world's rules as a grader: is this answer right, in the form asked for, polite and to the point?

It reads the task back from the prompt's text, so it needs no answer key. It serves as a verifiable reward, as the
measure of the demo model, and as the simulated annotator of tests and benchmarks (whose labels are marked simulated).
Answers come from models and are hostile until shown otherwise: only a bounded prefix is looked at and no pattern can
backtrack far.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from data.demo import words
from data.demo.answers import in_order, joined, larger_or_smaller, right_fact, spelled, sum_of
from data.demo.tasks import Family, Task, message_of, read_prompt
from data.errors import BadInput

Choice = Literal["a", "b", "tie", "both_bad"]

RUDE: Final = "is rude"
RAMBLES: Final = "rambles"
FORM: Final = "ignores the form asked for"
WRONG: Final = "is wrong"
EMPTY: Final = "is empty"
_COST: Final[dict[str, float]] = {EMPTY: 1.0, WRONG: 0.6, RUDE: 0.4, FORM: 0.3, RAMBLES: 0.3}
_LONGEST = 600


@dataclass(frozen=True)
class Grade:
    """`good` when there is nothing against the answer; `score` from 1 (good) down to 0; `reasons` in plain words."""

    good: bool
    score: float
    reasons: tuple[str, ...]


class UnknownPrompt(BadInput):
    """The prompt is not one of the demo world, so its rules cannot grade an answer."""


def covers(prompt: str) -> bool:
    """Whether the prompt belongs to the demo world; on any other prompt the demo model babbles."""
    return read_prompt(prompt) is not None


def grade(prompt: str, answer: str) -> Grade:
    """Grade one answer by the world's rules; raises UnknownPrompt when the prompt is not of this world."""
    task = read_prompt(prompt)
    if task is None:
        raise UnknownPrompt("This prompt is not one of the demo world's, so it cannot be graded by rule.")
    reasons = _reasons(task, answer.strip())
    score = max(0.0, 1.0 - sum(_COST[reason] for reason in reasons))
    return Grade(not reasons, round(score, 3), reasons)


def prefer(prompt: str, a: str, b: str) -> Choice:
    """The simulated annotator: the good one of two answers, `tie` when both are good, `both_bad` when neither is."""
    good_a, good_b = grade(prompt, a).good, grade(prompt, b).good
    if good_a == good_b:
        return "tie" if good_a else "both_bad"
    return "a" if good_a else "b"


def _reasons(task: Task, text: str) -> tuple[str, ...]:
    if not text:
        return (EMPTY,)
    found = []
    text, cut = text[:_LONGEST], len(text) > _LONGEST
    rude, rambling = _RUDE.search(text), _RAMBLING.search(text)
    if rude:
        found.append(RUDE)
    if rambling or cut or len(text.split()) > _WORDS[task.family] or _stutters(task, text):
        found.append(RAMBLES)
    # A rude or rambling phrase around the answer is one fault, not three: the content is judged without it.
    content = _RAMBLING.sub("", _RUDE.sub("", text)).strip()
    wrong, misformed = _CHECKS[task.family](task, content)
    if wrong:
        found.append(WRONG)
    elif misformed:
        found.append(FORM)
    return tuple(found)


def _any_of(phrases: tuple[str, ...], more: str = "") -> re.Pattern[str]:
    alternatives = "|".join(re.escape(phrase) for phrase in sorted(set(phrases), key=len, reverse=True))
    return re.compile(alternatives + more, re.IGNORECASE)


_RUDE: Final = _any_of(
    words.RUDE_OPENERS + words.RUDE_REFUSALS + words.RUDE_CLOSERS,
    r"|\b(?:stupid|dumb|idiot|moron|shut up|silly|lazy|your servant|my time|leave me alone|bothering me)\b|\bugh\b",
)
_RAMBLING: Final = _any_of(words.RAMBLE_OPENERS + words.RAMBLE_CLOSERS, r"|\b(?:uncle|soup for lunch|by the way|anyway)\b")
_POLITE: Final = _any_of(words.POLITE_CLOSERS, r"|\b(?:please|you are welcome|you're welcome|glad|my pleasure|thank)\b")
_WORDS: Final[dict[Family, int]] = {
    "sums": 12, "capitals": 14, "comparing": 14, "sorting": 9, "spelling": 14, "repeating": 9, "lists": 12,
    "manners": 18, "sentences": 14,
}  # fmt: skip
_Verdict = tuple[bool, bool]  # (wrong, of the wrong form)


def _stutters(task: Task, text: str) -> bool:
    """The same word twice running, where nobody asked for it."""
    return task.family != "repeating" and re.search(r"\b([a-z]{2,20}) \1\b", text.lower()) is not None


def _numbers(text: str) -> list[str]:
    return re.findall(r"[0-9]{1,6}", text)


def _bare(text: str, fact: str) -> bool:
    return text.removesuffix(".") == fact


def _sums(task: Task, text: str) -> _Verdict:
    first, sign, second, result = sum_of(task)
    numbers = _numbers(text)
    wrong = not numbers or numbers[-1] != str(result) or not set(numbers) <= {str(first), str(second), str(result)}
    equation = re.search(r"([0-9]{1,6}) ?([+-]) ?([0-9]{1,6}) ?= ?([0-9]{1,6})", text)
    if "=" in text and (equation is None or equation.groups() != (str(first), sign, str(second), str(result))):
        wrong = True
    negative = re.search(r"(?:^|[a-z:] ?)-", text) is not None
    return wrong or negative, not _fact_form(task, text, str(result))


def _capitals(task: Task, text: str) -> _Verdict:
    tokens = re.findall(r"[a-z]{1,30}", text.lower())
    right = right_fact(task).lower()
    others = {city.lower() for city in words.CAPITALS.values()} - {right}
    countries = {country.lower() for country in words.CAPITALS} - {task.values[0].lower()}
    wrong = right not in tokens or bool((others | countries) & set(tokens))
    return wrong, not _fact_form(task, text, right_fact(task))


def _comparing(task: Task, text: str) -> _Verdict:
    right, other = larger_or_smaller(task)
    numbers = _numbers(text)
    opposite = "smaller" if task.values[0] == "larger" else "larger"
    wrong = not numbers or numbers[0] != right or not set(numbers) <= {right, other} or opposite in text.lower()
    return wrong or numbers.count(right) > 1, not _fact_form(task, text, right)


def _fact_form(task: Task, text: str, fact: str) -> bool:
    """Whether a fact stands in the form asked for; a plain prompt takes a sentence or the bare fact."""
    if task.form == "bare":
        return _bare(text, fact)
    if task.form == "label":
        return text.startswith("Answer:") and _bare(text.removeprefix("Answer:").strip(), fact)
    if task.form == "capitals":
        return text == text.upper()
    if task.form == "polite":
        return _POLITE.search(text) is not None
    return _bare(text, fact) or (text[-1:] in (".", "!") and text[0] == text[0].upper())


def _core(text: str) -> str:
    """The text without a lead-in such as "Here it is:" and without a final stop."""
    head, colon, tail = text.partition(": ")
    return (tail if colon and len(head.split()) <= 6 else text).strip().removesuffix(".")


def _exactly(expected: str, parts: list[str], text: str) -> _Verdict:
    """Right when the parts stand in order and in number; of the right form when written as expected."""
    core = _core(text)
    letters = re.sub(r"[^a-z]", "", core.lower())
    return letters != "".join(parts).lower(), core != expected


def _sorting(task: Task, text: str) -> _Verdict:
    return _exactly(joined(task.form, in_order(task)), in_order(task), text)


def _spelling(task: Task, text: str) -> _Verdict:
    return _exactly(spelled(task.form, task.values[0]), list(task.values[0]), text)


def _repeating(task: Task, text: str) -> _Verdict:
    parts = [task.values[0]] * words.COUNT_WORDS[task.values[1]]
    return _exactly(joined(task.form, parts), parts, text)


def _lists(task: Task, text: str) -> _Verdict:
    core = _core(text)
    members = re.findall(r"[A-Za-z]{1,30}", core)
    pool = {member.lower() for member in words.CATEGORIES[task.values[1]]}
    found = [member.lower() for member in members]
    wrong = len(found) != words.COUNT_WORDS[task.values[0]] or len(set(found)) != len(found) or not set(found) <= pool
    return wrong, core != joined(task.form, members)


_FITS: Final[dict[str, tuple[str, ...]]] = {
    "thanks": ("welcome", "pleasure", "glad"),
    "borrow": ("of course", "happy to", "gladly", "sure thing", "you can"),
    "sorry": ("no problem", "worry", "all right", "no harm", "never mind", "forgive"),
    "lost": ("sorry to hear", "hope you find", "hope it turns up", "help you look"),
    "new": ("how nice", "wonderful", "lovely", "enjoy your", "great"),
    "gift": ("thank", "how kind", "so kind"),
}


def _manners(task: Task, text: str) -> _Verdict:
    kind, gift = message_of(task.values[0]) or ("", "")
    lower = text.lower()
    tokens = set(re.findall(r"[a-z]{1,30}", lower))
    if len(lower.split()) <= 3 and gift not in tokens:
        return False, True  # too curt to be kind
    named = tokens & set(words.GIFTS)
    wrong = named != {gift} or not any(phrase in lower for phrase in _FITS[kind])
    return wrong, text[-1:] not in (".", "!", "?")


def _sentences(task: Task, text: str) -> _Verdict:
    tokens = re.findall(r"[a-z]{1,30}", text.lower())
    strangers = (set(words.ANIMALS) | set(words.PLACES)) - set(task.values)
    wrong = not set(task.values) <= set(tokens) or bool(strangers & set(tokens)) or not 4 <= len(tokens) <= 14
    ends = ("!",) if task.form == "exclamation" else (".", "!")
    return wrong, text[-1:] not in ends or len(re.findall(r"[.!?]", text)) != 1


_CHECKS: Final[dict[Family, Callable[[Task, str], _Verdict]]] = {
    "sums": _sums, "capitals": _capitals, "comparing": _comparing, "sorting": _sorting, "spelling": _spelling,
    "repeating": _repeating, "lists": _lists, "manners": _manners, "sentences": _sentences,
}  # fmt: skip
