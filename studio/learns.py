"""What a training run would learn from, as the Train page says it: rows, what falls out and why, and what to hope for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from data.checkers import CHECKERS
from data.database import Database
from data.records import Project
from data.votes import Filters, Rules
from labeling import snapshots
from studio import quality_words as words
from studio.render import Html, count, empty, facts, note, notes
from training.config import MOST_HELD_OUT, Method
from training.methods import METHOD_FACTS
from training.verdicts import Sieve

FEW, ENOUGH = 10, 100  # rows: below the first a change is unlikely, from the second on likely to show
Row = tuple[str, object, object]


class Learns(NamedTuple):
    """What a run would learn from: rows, the whole told in words, whether they are enough to start."""

    train: int
    html: Html
    ready: bool


def learns_from(
    db: Database,
    project: Project,
    method: Method,
    filters: Filters = Filters(),
    rules: Rules = Rules(),
    leave_out: tuple[Sieve, ...] = (),
    graders: Sequence[tuple[str, str]] = (),
) -> Learns:
    """`graders`: what can grade answers here, for a method that learns from its own."""
    layout = METHOD_FACTS[method].layout
    manifest = snapshots.preview(db, project.project_id, layout, filters=filters, rules=rules, leave_out=leave_out).manifest
    train, held_out = manifest["rows"]["train"], manifest["rows"]["held_out"]
    if METHOD_FACTS[method].samples:
        return _from_rewards(train, held_out, graders)
    labels = sum(manifest["labels"][source] for source in ("people", "simulated", "imported"))
    if not labels and not manifest["labels"]["left_out"]:
        return Learns(0, empty("Nothing is labelled yet.", "label", "Label the first answers"), False)
    one, many = METHOD_FACTS[method].row
    rows: list[Row] = [("Learns from", count(train, one, many), f"from {count(labels, 'label')}"), _tested(held_out)]
    if method == "kto":
        rows.append(("Good / bad", f"{manifest['good']:,} / {manifest['bad']:,}", "both are needed"))
    ready = train >= snapshots.MIN_TRAIN_ROWS
    few = "" if ready else note("These are too few for training.", "bad", "label", "Label about 20 answers first")
    return Learns(
        train, Html(f"{facts(rows)}{few}{notes(_warnings(manifest, train, one, many))}{hope(method, train, many)}"), ready
    )


def _warnings(manifest: dict[str, Any], train: int, one: str, many: str) -> list[str]:
    """What falls out and why, and what else to know of these labels."""
    said = []
    if left_out := manifest["labels"]["left_out"]:
        said.append(f"{count(left_out, 'label')} left out by your choice below.")
    if fell := snapshots.in_words(manifest):
        said.append(f"Left out: {', '.join(fell)}.")
    if simulated := manifest["labels"]["simulated"]:
        said.append(f"{count(simulated, 'label')} of these {'was' if simulated == 1 else 'were'} simulated, not given by a person.")
    if flags := manifest.get("flags"):
        told = ", ".join(f"{n:,} {words.FLAG_NAMES[flag]}" for flag, n in flags.items())
        said.append(f"Labels with a flag count like others: {told}. Under “Which labels” they can be left out.")
    if snapshots.MIN_TRAIN_ROWS <= train < FEW:
        said.append(f"{count(train, one, many)} is very little: label some more before you expect a change.")
    return said


def _from_rewards(train: int, held_out: int, graders: Sequence[tuple[str, str]]) -> Learns:
    """What a method learns from that is graded on its own answers: prompts, and something that grades."""
    if not train:
        return Learns(0, empty("There are no prompts to answer yet.", "data?tab=import", "Import prompts"), False)
    rows: list[Row] = [
        ("Learns from", count(train, "prompt"), "it answers them itself, again and again, and is told how good each answer is"),
        _tested(min(held_out, MOST_HELD_OUT), f", {MOST_HELD_OUT} at most" if held_out > MOST_HELD_OUT else ""),
    ]
    said = ""
    if not graders:
        said = note(
            "Nothing can grade answers to these prompts yet: train a reward model (Score answers) on your labels first.", "bad"
        )
    elif all(word in CHECKERS for _, word in graders):
        said = note("To be graded by what people prefer, train a reward model (Score answers) on your labels first.")
    enough = train >= snapshots.MIN_TRAIN_ROWS
    few = "" if enough else note("These are too few for training.", "bad", "data?tab=import", "Import more")
    return Learns(train, Html(f"{facts(rows)}{few}{said}"), bool(graders) and enough)


def _tested(held_out: int, at_most: str = "") -> Row:
    if held_out:
        return "Held out", f"{held_out:,}", f"for testing, on prompts it never sees in training{at_most}"
    return (
        "Held out",
        "none yet",
        "no held-out prompt is among these: whether it learned more than them is told by comparing it afterwards",
    )


def hope(method: Method, train: int, many: str) -> Html:
    """What so many rows can do, said before the run rather than after it."""
    if not FEW <= train < ENOUGH:
        return Html("")
    if method == "reward":  # it answers nothing, so nothing of it can be compared
        return note(
            f"A first try: {train} {many} teach it little of what you prefer; {ENOUGH} or more make its scores worth using."
        )
    return note(f"A first try: with {train} {many} expect a small change. {ENOUGH} or more make it one that a comparison can show.")
