"""The tasks of the demo world, and the two ways between a task and its prompt's text.

A family is a few wordings, a few forms (what the answer must look like) and the values that fill the gaps. The same
wordings write a prompt and read it back, so a grader needs nothing but the prompt's text: no hidden column says what
the right answer is, and a prompt typed by a visitor is graded like one from the file.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal, get_args

from data.demo.words import ANIMALS, CAPITALS, CATEGORIES, COUNT_WORDS, GIFTS, PLACES, SORT_WORDS, SPELL_WORDS

Family = Literal[
    "sums", "capitals", "comparing", "sorting", "spelling", "repeating", "lists", "manners", "sentences"
]  # fmt: skip
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)
Values = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What a prompt asks for: its family, the values in its gaps, and the form the answer must take."""

    family: Family
    values: Values
    form: str


@dataclass(frozen=True)
class FamilySpec:
    """`wordings` hold {0}, {1} ... for the values and {form}; `forms` maps a form's name to its words in the prompt."""

    wordings: tuple[str, ...]
    forms: dict[str, str]
    gaps: tuple[str, ...]


_BARE = " Reply with just the {}."
_POLITE = " Answer politely."
_NUMBER, _WORD = "[0-9]{1,3}", "[A-Za-z]{1,20}"

# The six messages of `manners`: a friend's words by kind; {0} of a wording is the whole message.
MESSAGES: Final[dict[str, str]] = {
    "thanks": "Thank you for the {}!",
    "borrow": "Can I borrow your {}?",
    "sorry": "Sorry, I broke your {}.",
    "lost": "I lost my {} today.",
    "new": "Look at my new {}!",
    "gift": "I have a {} for you.",
}

SPECS: Final[dict[Family, FamilySpec]] = {
    "sums": FamilySpec(
        ("What is {0} {1} {2}?{form}", "Work out {0} {1} {2}.{form}", "Please calculate {0} {1} {2}.{form}"),
        {"plain": "", "bare": _BARE.format("number"), "polite": _POLITE, "label": " Start with 'Answer:'."},
        (_NUMBER, r"\+|-|plus|minus", _NUMBER),
    ),
    "capitals": FamilySpec(
        (
            "What is the capital of {0}?{form}", "Name the capital of {0}.{form}", "Tell me the capital of {0}.{form}",
            "Which city is the capital of {0}?{form}", "What is the capital city of {0}?{form}",
            "Do you know the capital of {0}?{form}", "Please name the capital of {0}.{form}",
        ),
        {"plain": "", "bare": " Answer in one word.", "polite": _POLITE, "capitals": " Use capital letters."},
        (_WORD,),
    ),
    "comparing": FamilySpec(
        ("Which number is {0}, {1} or {2}?{form}", "Which is {0}: {1} or {2}?{form}"),
        {"plain": "", "bare": _BARE.format("number"), "polite": _POLITE},
        ("larger|smaller", _NUMBER, _NUMBER),
    ),
    "sorting": FamilySpec(
        ("Sort these words {form}: {0}, {1}, {2}", "Put these words in {form} order: {0}, {1}, {2}"),
        {"ascending": "alphabetically|alphabetical", "descending": "from Z to A|reverse alphabetical"},
        (_WORD, _WORD, _WORD),
    ),
    "spelling": FamilySpec(
        ("Spell the word '{0}' {form}.", "Spell '{0}' {form}.", "Please spell '{0}' {form}.", "Can you spell '{0}' {form}?"),
        {"dashes": "with dashes", "commas": "with commas", "spaces": "with spaces", "capitals": "in capital letters"},
        (_WORD,),
    ),
    "repeating": FamilySpec(
        ("Say '{0}' {1} times, {form}.", "Write '{0}' {1} times, {form}.", "Repeat the word '{0}' {1} times, {form}."),
        {"commas": "with commas", "dashes": "with dashes"},
        (_WORD, "two|three|four"),
    ),
    "lists": FamilySpec(
        (
            "Name {0} {1} {form}.", "List {0} {1} {form}.", "Give me {0} {1} {form}.", "Tell me {0} {1} {form}.",
            "Please name {0} {1} {form}.", "I need {0} {1} {form}.", "Can you name {0} {1} {form}?", "Write {0} {1} {form}.",
        ),
        {
            "numbered": "as a numbered list", "bullets": "with a dash before each", "commas": "separated by commas",
            "capitals": "in capital letters, separated by commas",
        },
        ("two|three|four", _WORD),
    ),
    "manners": FamilySpec(
        (
            "Reply politely: {0}", "Write a polite reply to: {0}", "Answer this message kindly: {0}",
            "How would you politely answer? {0}", "Your neighbour writes: {0} Write a kind reply.",
            "A friend says: {0} Give a polite answer.",
        ),
        {"plain": ""},
        ("|".join(re.escape(m).replace(r"\{\}", _WORD) for m in MESSAGES.values()),),
    ),
    "sentences": FamilySpec(
        (
            "Write a short sentence with '{0}' and '{1}'.{form}", "Use '{0}' and '{1}' in one sentence.{form}",
            "Make a sentence with the words '{0}' and '{1}'.{form}",
        ),
        {"plain": "", "exclamation": " End with an exclamation mark."},
        (_WORD, _WORD),
    ),
}  # fmt: skip


def form_words(family: Family, form: str, wording: int) -> str:
    """The form as that wording says it; a form with several phrasings has one for each wording."""
    phrases = SPECS[family].forms[form].split("|")
    return phrases[wording % len(phrases)]


def prompt_of(task: Task, wording: int) -> str:
    """The prompt's text for a task in the given wording (an index into its family's wordings)."""
    spec = SPECS[task.family]
    return spec.wordings[wording].format(*task.values, form=form_words(task.family, task.form, wording))


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[Family, str, re.Pattern[str]], ...]:
    out = []
    for family, spec in SPECS.items():
        for index, wording in enumerate(spec.wordings):
            for form in spec.forms:
                pattern = re.escape(wording).replace(r"\{form\}", re.escape(form_words(family, form, index)))
                for gap, values in enumerate(spec.gaps):
                    pattern = pattern.replace(rf"\{{{gap}\}}", f"({values})")
                out.append((family, form, re.compile(pattern)))
    return tuple(out)


def read_prompt(prompt: str) -> Task | None:
    """The task a prompt asks for, or None when it is not a prompt of this world."""
    text = prompt.strip()
    if len(text) > 200:
        return None
    for family, form, pattern in _patterns():
        match = pattern.fullmatch(text)
        if match and _known(family, match.groups()):
            return Task(family, tuple(match.groups()), form)
    return None


def message_of(text: str) -> tuple[str, str] | None:
    """(kind, gift) of a `manners` message, or None."""
    for kind, template in MESSAGES.items():
        head, tail = template.split("{}")
        gift = text[len(head) : len(text) - len(tail)]
        if text == template.format(gift) and gift in GIFTS:
            return kind, gift
    return None


def _known(family: Family, values: Values) -> bool:
    if family == "sums":
        first, sign, second = int(values[0]), values[1], int(values[2])
        return 0 < first <= 12 and 0 < second <= 12 and (sign in ("+", "plus") or first > second)
    if family == "comparing":
        return values[1] != values[2] and all(0 < int(number) <= 30 for number in values[1:])
    if family == "sorting":
        return len(set(values)) == 3 and all(word in SORT_WORDS for word in values)
    if family == "manners":
        return message_of(values[0]) is not None
    vocabulary: dict[Family, tuple[object, ...]] = {
        "capitals": (CAPITALS,), "spelling": (SPELL_WORDS,), "repeating": (SPELL_WORDS, COUNT_WORDS),
        "lists": (COUNT_WORDS, CATEGORIES), "sentences": (ANIMALS, PLACES),
    }  # fmt: skip
    return all(value in known for value, known in zip(values, vocabulary[family], strict=True))  # type: ignore[operator]


def _values(family: Family) -> Iterator[Values]:
    """All values of a family, or a fixed seeded sample where there are tens of thousands."""
    rng = random.Random(f"demo-world:{family}")
    small = [str(n) for n in range(1, 13)]
    numbers = [str(n) for n in range(1, 31)]
    pools: dict[Family, Iterator[Values]] = {
        "sums": itertools.product(small, ("+", "-", "plus", "minus"), small),
        "capitals": ((country,) for country in CAPITALS),
        "comparing": iter([(rng.choice(("larger", "smaller")), *rng.sample(numbers, 2)) for _ in range(1_200)]),
        "sorting": iter([tuple(rng.sample(SORT_WORDS, 3)) for _ in range(1_200)]),
        "spelling": ((word,) for word in SPELL_WORDS),
        "repeating": itertools.product(SPELL_WORDS, COUNT_WORDS),
        "lists": itertools.product(COUNT_WORDS, CATEGORIES),
        "manners": ((message.format(gift),) for message in MESSAGES.values() for gift in GIFTS),
        "sentences": itertools.product(ANIMALS, PLACES),
    }
    return (values for values in pools[family] if _known(family, values))


@cache
def family_prompts(family: Family) -> tuple[str, ...]:
    """Every prompt of a family, distinct, in a fixed order."""
    spec = SPECS[family]
    prompts = (
        prompt_of(Task(family, values, form), wording)
        for values in _values(family)
        for form in spec.forms
        for wording in range(len(spec.wordings))
    )
    return tuple(dict.fromkeys(prompts))
