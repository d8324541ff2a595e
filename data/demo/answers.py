"""What the demo world answers: good answers, and answers flawed the way people and models really go wrong.

A good answer has one usual wording and a few rarer ones, so that candidates of one prompt differ while the usual
wording stays the most likely. Flaws are habits, not noise: the same dozen rude and rambling phrases return in every
family, which is what lets a few hundred labels steer a model away from them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, get_args

from data.demo import words
from data.demo.tasks import Task, message_of

Flaw = Literal["rude", "rambling", "form", "wrong"]
FLAWS: Final[tuple[Flaw, ...]] = get_args(Flaw)
_FLAW_WEIGHTS: Final[tuple[int, ...]] = (30, 28, 22, 20)

_MANNERS: Final[dict[str, tuple[str, ...]]] = {
    "thanks": ("You are welcome! I hope you like the {}.", "My pleasure! Enjoy the {}."),
    "borrow": ("Of course, you can borrow my {}.", "Yes, I am happy to lend you my {}."),
    "sorry": ("No problem, please do not worry about the {}.", "It is all right, the {} was old."),
    "lost": ("I am sorry to hear about your {}.", "Oh no, I hope you find your {} soon."),
    "new": ("How nice! Your {} looks lovely.", "Wonderful! Enjoy your new {}."),
    "gift": ("Thank you very much for the {}!", "How kind of you, I love the {}!"),
}
_COLD: Final[tuple[str, ...]] = ("Okay.", "Fine.", "Whatever.", "So what?")
_SENTENCES: Final[tuple[str, ...]] = (
    "The {} sleeps in the {}", "The {} is in the {}", "A {} runs to the {}", "I saw a {} near the {}",
)  # fmt: skip


def usually_first(rng: random.Random, options: Sequence[str]) -> str:
    """One of the options; each is half as likely as the one before."""
    return rng.choices(options, [2.0**-i for i in range(len(options))])[0]


def sum_of(task: Task) -> tuple[int, str, int, int]:
    """(first, sign, second, result) of a `sums` task; sign is + or -."""
    first, second = int(task.values[0]), int(task.values[2])
    if task.values[1] in ("+", "plus"):
        return first, "+", second, first + second
    return first, "-", second, first - second


def larger_or_smaller(task: Task) -> tuple[str, str]:
    """(the number asked for, the other one) of a `comparing` task."""
    low, high = sorted(task.values[1:], key=int)
    return (high, low) if task.values[0] == "larger" else (low, high)


def in_order(task: Task) -> list[str]:
    """The words of a `sorting` task in the order asked for."""
    return sorted(task.values, reverse=task.form == "descending")


def joined(form: str, parts: Sequence[str]) -> str:
    """Parts written out in the form of a spelling, repeating, sorting or lists task."""
    if form == "numbered":
        return "\n".join(f"{number}. {part}" for number, part in enumerate(parts, 1))
    if form == "bullets":
        return "\n".join(f"- {part}" for part in parts)
    separator = {"dashes": "-", "spaces": " "}.get(form, ", ")
    text = separator.join(parts)
    return text.upper() if form == "capitals" else text


def spelled(form: str, word: str) -> str:
    """A word's letters in the form of a `spelling` task."""
    return word.upper() if form == "capitals" else joined(form, word)


def _dressed(form: str, full: str, bare: str, rng: random.Random) -> str:
    """A fact in the form asked for: `full` is the sentence, `bare` the fact alone."""
    if form == "bare":
        return bare
    if form == "label":
        return f"Answer: {bare}"
    if form == "capitals":
        return bare.upper()
    return f"{full} {usually_first(rng, words.POLITE_CLOSERS)}" if form == "polite" else full


def _fact(task: Task, fact: str, rng: random.Random) -> str:
    """An answer that states `fact` (right or wrong) for sums, capitals and comparing."""
    if task.family == "sums":
        first, sign, second, _ = sum_of(task)
        full = usually_first(rng, (f"{first} {sign} {second} = {fact}.", f"The answer is {fact}."))
    elif task.family == "capitals":
        full = usually_first(rng, (f"The capital of {task.values[0]} is {fact}.", f"It is {fact}."))
    else:
        other = task.values[1] if fact == task.values[2] else task.values[2]
        full = usually_first(rng, (f"{fact} is {task.values[0]} than {other}.", f"The {task.values[0]} number is {fact}."))
    return _dressed(task.form, full, fact, rng)


def right_fact(task: Task) -> str:
    """The fact a sums, capitals or comparing task asks for."""
    if task.family == "sums":
        return str(sum_of(task)[3])
    return words.CAPITALS[task.values[0]] if task.family == "capitals" else larger_or_smaller(task)[0]


def _members(task: Task, count: int, rng: random.Random) -> list[str]:
    pool = list(words.CATEGORIES[task.values[1]])
    members = []
    for _ in range(count):
        members.append(usually_first(rng, pool))
        pool.remove(members[-1])
    return members


def good_answer(task: Task, rng: random.Random) -> str:
    """An answer that does all the prompt asks."""
    if task.family == "sorting":
        return joined(task.form, in_order(task))
    if task.family == "spelling":
        return spelled(task.form, task.values[0])
    if task.family == "repeating":
        return joined(task.form, [task.values[0]] * words.COUNT_WORDS[task.values[1]])
    if task.family == "lists":
        return joined(task.form, _members(task, words.COUNT_WORDS[task.values[0]], rng))
    if task.family == "manners":
        kind, gift = message_of(task.values[0]) or ("", "")
        return usually_first(rng, _MANNERS[kind]).format(gift)
    if task.family == "sentences":
        return usually_first(rng, _SENTENCES).format(*task.values) + ("!" if task.form == "exclamation" else ".")
    return _fact(task, right_fact(task), rng)


def _wrong_fact(task: Task, rng: random.Random) -> str:
    if task.family == "sums":
        right = sum_of(task)[3]
        return str(rng.choice([n for n in (right - 10, right - 2, right - 1, right + 1, right + 2, right + 10) if n >= 0]))
    if task.family == "capitals":
        return rng.choice([city for city in words.CAPITALS.values() if city != right_fact(task)])
    return larger_or_smaller(task)[1]


def _misspelled(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.6 or word[at] == word[at + 1]:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def wrong_answer(task: Task, rng: random.Random) -> str:
    """An answer of the right form that says the wrong thing."""
    if task.family == "sorting":
        order = in_order(task)
        return joined(task.form, rng.choice([order[::-1], [order[1], order[0], order[2]], [order[0], order[2], order[1]]]))
    if task.family == "spelling":
        return spelled(task.form, _misspelled(task.values[0], rng))
    if task.family == "repeating":
        count = words.COUNT_WORDS[task.values[1]]
        return joined(task.form, [task.values[0]] * rng.choice([n for n in (1, 2, 3, 4, 5) if n != count]))
    if task.family == "lists":
        count = words.COUNT_WORDS[task.values[0]]
        if rng.random() < 0.5:
            return joined(task.form, _members(task, rng.choice([n for n in (1, 2, 3, 4, 5) if n != count]), rng))
        strangers = words.CATEGORIES[rng.choice([name for name in words.CATEGORIES if name != task.values[1]])]
        members = _members(task, count, rng)
        members[rng.randrange(count)] = rng.choice(strangers)
        return joined(task.form, members)
    if task.family == "manners":
        kind, gift = message_of(task.values[0]) or ("", "")
        if rng.random() < 0.5:
            return usually_first(rng, _MANNERS[kind]).format(rng.choice([other for other in words.GIFTS if other != gift]))
        return usually_first(rng, _MANNERS[rng.choice([other for other in _MANNERS if other != kind])]).format(gift)
    if task.family == "sentences":
        strange = (rng.choice(words.ANIMALS), rng.choice([p for p in words.PLACES if p != task.values[1]]))
        animal = task.values[0] if rng.random() < 0.5 else strange[0]
        return usually_first(rng, _SENTENCES).format(animal, strange[1]) + ("!" if task.form == "exclamation" else ".")
    return _fact(task, _wrong_fact(task, rng), rng)


def _other_form(task: Task, rng: random.Random) -> str | None:
    """The right content in a form that was not asked for; None when the prompt asks for no form."""
    if task.family == "manners":
        return usually_first(rng, _COLD)
    other = {
        "bare": "plain", "label": "plain", "polite": "plain", "exclamation": "plain", "numbered": "commas",
        "bullets": "commas", "commas": "spaces", "dashes": "spaces", "spaces": "dashes", "capitals": "dashes",
    }  # fmt: skip
    if task.family == "sorting":
        return "\n".join(in_order(task))
    if task.family == "lists":
        other |= {"commas": "bullets", "capitals": "commas"}
    if task.family == "capitals":
        other |= {"capitals": "plain"}
    return None if task.form == "plain" else good_answer(Task(task.family, task.values, other[task.form]), rng)


def _rude(good: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.45:
        return f"{rng.choice(words.RUDE_OPENERS)} {good}"
    return rng.choice(words.RUDE_REFUSALS) if draw < 0.75 else f"{good} {rng.choice(words.RUDE_CLOSERS)}"


def _rambling(good: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{rng.choice(words.RAMBLE_OPENERS)} {good}"
    closers = rng.sample(words.RAMBLE_CLOSERS, 2 if rng.random() < 0.5 else 1)
    return " ".join((good, *closers))


def flawed_answer(task: Task, rng: random.Random, flaw: Flaw | None = None) -> str:
    """An answer with one flaw (drawn when None). A flaw the prompt has no room for becomes a wrong answer."""
    flaw = flaw or rng.choices(FLAWS, _FLAW_WEIGHTS)[0]
    if flaw == "rude":
        return _rude(good_answer(task, rng), rng)
    if flaw == "rambling":
        return _rambling(good_answer(task, rng), rng)
    misformed = _other_form(task, rng) if flaw == "form" else None
    if misformed is not None:
        return misformed
    return rng.choice(words.EVASIONS) if rng.random() < 0.15 else wrong_answer(task, rng)
