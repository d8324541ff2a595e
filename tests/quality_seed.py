"""A project labelled by several people, one of whom always takes the left answer: for tests of the Quality page and of exports."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from labelling import seed_texts

from data import completions, gold, impressions, labels, people, projects, prompts
from data.database import Database
from data.records import Completion, Flag, Impression, ImpressionKind, LabelEvent, Pair, Preference, Project, ProjectSettings, now

PEOPLE = {"ada": "Ada", "ben": "Ben", "cleo": "Cleo", "lefty": "Lefty"}


class Shown(NamedTuple):
    """An impression that was labelled."""

    impression: Impression
    preference: Preference


def seed_labelled(db: Database, n_items: int = 40, seed: int = 1) -> Project:
    """`n_items` pairs, four labels each; Ada, Ben and Cleo agree mostly, Lefty takes the left. Gold, repeats, flags, a skip."""
    rng = random.Random(seed)
    texts = [(f"Question number {i}: what is {i} + {i + 1}?", _text(i, 0, rng), _text(i, 1, rng)) for i in range(n_items)]
    project = seed_texts(db, texts)
    projects.rename(db, project.project_id, "Several people")
    projects.change(db, project.project_id, ProjectSettings(overlap=4))
    for annotator_id, name in PEOPLE.items():
        people.ensure(db, annotator_id, name, "account")
    pairs = completions.pairs_of(db, project.project_id)
    known, asked = pairs[:6], pairs[6:]
    for pair in known:
        gold.add(db, project.project_id, pair.pair_id, "first", "ada", note="right by hand")
    made: list[_Made] = []
    for annotator_id in PEOPLE:
        shown = [_made(project, annotator_id, pair, _says(annotator_id, i, rng), rng=rng) for i, pair in enumerate(asked)]
        made += shown
        made += [_made(project, annotator_id, pair, _says(annotator_id, 1, rng), kind="gold", rng=rng) for pair in known]
        for one in shown[:8]:
            again = next(p for p in asked if p.pair_id == one.impression.pair_id)
            says = _says(annotator_id, asked.index(again), rng)
            made.append(_made(project, annotator_id, again, says, repeat=one.impression, rng=rng))
    _store(db, [*made, _made(project, "ben", asked[0], "skip", rng=rng, flags=("identical",))])
    return projects.get(db, project.project_id)


def _text(i: int, k: int, rng: random.Random) -> str:
    """Of several lengths, some with Markdown."""
    text = f"Answer {k} to number {i}. " + "It goes on for a while. " * rng.randrange(1, 12)
    return text + ("\n\n- **one** thing\n- another" if rng.random() < 0.4 else "")


def _says(annotator_id: str, i: int, rng: random.Random) -> str:
    """In the pair's own order, but for Lefty."""
    if annotator_id == "lefty":
        return "left"
    if i % 7 == 3:
        return rng.choice(["tie", "both_bad", "first"])
    return ("second" if i % 3 == 0 else "first") if rng.random() < 0.92 else "tie"


class _Made(NamedTuple):
    impression: Impression
    event: LabelEvent


def label(db: Database, project: Project, annotator_id: str, pair: Pair, says: str, **more: Any) -> Shown:
    """Show the pair to somebody and store what they say: an outcome in the pair's order, "left" or "right", or "skip"."""
    made = _made(project, annotator_id, pair, says, **more)
    _store(db, [made])
    return Shown(made.impression, made.event.preference)  # type: ignore[arg-type]


def _store(db: Database, made: Sequence[_Made]) -> None:
    impressions.add(db, [one.impression for one in made])
    labels.append(db, [one.event for one in made])


def _made(
    project: Project,
    annotator_id: str,
    pair: Pair,
    says: str,
    kind: ImpressionKind = "normal",
    repeat: Impression | None = None,
    rng: random.Random | None = None,
    flags: tuple[Flag, ...] | None = None,
    dwell_ms: int | None = None,
) -> _Made:
    rng = rng or random.Random(0)
    mirrored = repeat.left_completion_id == pair.completion_a if repeat else rng.random() < 0.5
    left, right = (pair.completion_b, pair.completion_a) if mirrored else (pair.completion_a, pair.completion_b)
    at = now() - timedelta(minutes=rng.randrange(60 * 24 * 9))
    shown = Impression(
        uuid.uuid4().hex, project.project_id, annotator_id, pair.prompt_id, pair.pair_id, left, right, "pairwise",
        "repeat" if repeat else kind, "stratified_random", 1.0, at, at, repeat.impression_id if repeat else "",
    )  # fmt: skip
    said = preference(says, mirrored)
    raised = flags if flags is not None else (("too_fast",) if rng.random() < 0.06 else ())
    seconds = int(rng.lognormvariate(2.6, 0.6) * 1000) if dwell_ms is None else dwell_ms
    event = LabelEvent(
        str(uuid.uuid4()), shown.impression_id, project.project_id, annotator_id, "cast", said, dwell_ms=seconds, flags=raised
    )
    return _Made(shown, event)


def preference(says: str, mirrored: bool) -> Preference:
    """As stored, sides done: a = the left answer."""
    plain: Mapping[str, Preference] = {"left": "a", "right": "b", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
    return plain.get(says, "a" if (says == "first") != mirrored else "b")


def seed_binary(db: Database, n_items: int = 80, seed: int = 2) -> Project:
    """Answers shown one at a time: Ada and Ben mostly agree, Lefty calls the long ones good. Gold, repeats, a skip."""
    rng = random.Random(seed)
    texts = [(f"Question number {i}?", _text(i, 0, rng), _text(i, 1, rng)) for i in range(n_items // 2)]
    project = seed_texts(db, texts, task="binary")
    projects.rename(db, project.project_id, "One at a time")
    projects.change(db, project.project_id, ProjectSettings(overlap=3))
    found = prompts.of_project(db, project.project_id)
    answers = completions.of_prompts(db, [p.prompt_id for p in found])
    typical = sorted(len(a.text) for a in answers)[len(answers) // 2]
    for answer in answers[:6]:
        gold.add(db, project.project_id, answer.completion_id, "good", "ada")
    for annotator_id in ("ada", "ben", "lefty"):
        people.ensure(db, annotator_id, PEOPLE[annotator_id], "account")
        said = [_good(annotator_id, i, answer, typical, rng) for i, answer in enumerate(answers)]
        first = [_shown(project, annotator_id, answer, "gold" if i < 6 else "normal") for i, answer in enumerate(answers)]
        again = [_shown(project, annotator_id, answers[i], "repeat", first[i].impression_id) for i in (10, 11, 12)]
        twice = [not said[10], said[11], said[12]]  # the first of the three is called otherwise now
        impressions.add(db, [*first, *again])
        labels.append(db, [_called(one, good) for one, good in zip([*first, *again], [*said, *twice], strict=True)])
    skipped = _shown(project, "ben", answers[20], "normal")
    impressions.add(db, [skipped])
    labels.append(db, [_called(skipped, None)])
    return projects.get(db, project.project_id)


def _good(annotator_id: str, i: int, answer: Completion, typical: int, rng: random.Random) -> bool:
    if annotator_id == "lefty":
        return len(answer.text) > typical
    return i < 6 or (i % 3 != 0) != (rng.random() < 0.1)


def _shown(project: Project, annotator_id: str, answer: Completion, kind: ImpressionKind, repeat_of: str = "") -> Impression:
    """One answer by itself."""
    at = now()
    place = (project.project_id, annotator_id, answer.prompt_id, "", answer.completion_id, "", "binary")
    return Impression(uuid.uuid4().hex, *place, kind, "stratified_random", 1.0, at, at, repeat_of)  # type: ignore[arg-type]


def _called(shown: Impression, good: bool | None) -> LabelEvent:
    says: Preference = "skip" if good is None else "good" if good else "bad"
    place = (str(uuid.uuid4()), shown.impression_id, shown.project_id, shown.annotator_id, "cast", says)
    return LabelEvent(*place, dwell_ms=5_000)  # type: ignore[arg-type]
