"""Models as choices of a page: which may answer, which may judge, which are "before" and "after" a training run, and what to say
before the demo model is asked something that it knows nothing of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data import prompts
from data.checkers import CHECKERS, demo_world
from data.engine import ModelSpec
from data.models import is_trained, merges
from data.records import Model, Project, Prompt
from evals.judge_templates import is_demo_model
from studio.context import Studio, Viewer
from studio.render import Html, count, note

LOOK_AT = 200  # prompts, to see which rules fit
WORLD = "sums, capitals, sorting, spelling, polite replies"


class BeforeAfter(NamedTuple):
    """Model ids, '' where there is none."""

    before: str
    after: str


def writers(studio: Studio, viewer: Viewer) -> list[Model]:
    """Models that answer prompts: trained ones first, newest first, then merged copies of them, then bases and endpoints."""
    found = [m for m in studio.models(viewer) if m.kind not in ("judge", "reward")]
    merged = merges(studio.db)
    trained = sorted((m for m in reversed(found) if is_trained(m)), key=lambda m: m.run_id in merged)
    return trained + [m for m in found if not is_trained(m)]


def reward_models(studio: Studio, viewer: Viewer) -> list[Model]:
    """Models that score answers, newest first."""
    return [m for m in reversed(studio.models(viewer)) if m.kind == "reward"]


def rewards(studio: Studio, viewer: Viewer, project: Project) -> list[tuple[str, str]]:
    """Title and word of all that can grade answers here: reward models from new to old, then rules that cover some prompts."""
    asked = prompts.of_project(studio.db, project.project_id, "train", LOOK_AT)
    fitting = [(each.title, name) for name, each in CHECKERS.items() if any(each.covers(p.text, p.reference) for p in asked)]
    return [*options(studio, reward_models(studio, viewer)), *fitting]


def judges(studio: Studio, viewer: Viewer) -> list[Model]:
    """Judges first, then endpoints and bases: any of them can be asked which answer is better."""
    found = studio.models(viewer)
    order = ("judge", "endpoint", "base")
    return [m for kind in order for m in found if m.kind == kind and not (kind == "base" and is_demo(m))]


def options(studio: Studio, models: Sequence[Model]) -> list[tuple[str, str]]:
    """Name and id for a dropdown; a name that occurs twice is told apart by its date."""
    names, merged = [m.name for m in models], merges(studio.db)
    dates = [f" · {m.created_at:%d %b %H:%M}" if names.count(m.name) > 1 else "" for m in models]
    return [(f"{m.name}{_what(m, merged)}{date}", m.model_id) for m, date in zip(models, dates, strict=True)]


def _what(model: Model, merged: set[str]) -> str:
    if model.kind == "reward":
        return " · reward model"
    if model.run_id in merged:  # its name says so
        return ""
    return " · trained here" if is_trained(model) else " · endpoint" if model.kind == "endpoint" else ""


def before_after(models: Sequence[Model], run_id: str) -> BeforeAfter:
    """The model a training run made (the newest one when `run_id` made none) and what it was trained from."""
    trained = [m for m in models if is_trained(m)]
    after = next((m for m in trained if run_id and m.run_id == run_id), None) or next(iter(trained), None)
    others = [m.model_id for m in models if after is None or m.model_id != after.model_id]
    if after is None:
        return BeforeAfter(others[0] if others else "", others[1] if len(others) > 1 else "")
    before = after.parent_model_id if after.parent_model_id in others else next(iter(others), "")
    return BeforeAfter(before, after.model_id)


def is_demo(model: Model) -> bool:
    """Whether the demo model, with an adapter, tuned as a whole or as it came, is behind it."""
    return is_demo_model(ModelSpec.from_json(model.spec))


def covered(prompt: Prompt) -> bool:
    """Whether the demo world's rules know this prompt."""
    return len(prompt.messages) == 1 and demo_world.covers(prompt.text)


def strangers(prompts: Sequence[Prompt]) -> int:
    """How many prompts the demo model was never taught to answer."""
    return sum(not covered(p) for p in prompts)


def outside_world(models: Iterable[Model | None], asked: Sequence[Prompt], so: str, visitor: bool) -> Html:
    """What every page says before the demo model is used on prompts that it was never taught, with the way to another model.

    `so` is what would come of it; '' is returned when there is nothing to say.
    """
    outside = strangers(asked)
    if not outside or not any(model is not None and is_demo(model) for model in models):
        return Html("")
    some = f"{outside:,} of {count(len(asked), 'prompt')} {'is' if outside == 1 else 'are'}"
    which = "The prompt is" if len(asked) == 1 else some if outside < len(asked) else "These prompts are"
    said = f"{which} outside the demo model's small world ({WORLD}): {so}."
    if visitor:
        return note(f"{said} Run the studio on your own machine to use another model.", "warn")
    return note(f"{said} Choose another model, or", "warn", "models", "add one on the Models page")
