"""What to do next in a project: the loop's five steps with their counts, and the one thing to do now.

It follows from the rows alone, so it is the same after a restart, in another tab, and for another person.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from data import completions, projects, prompts, runs
from data.database import Database
from data.projects import Counts
from data.records import Project, Run
from evals.compare_result import CompareResult
from studio.render import Step, count, progress_line, run_link, shorten
from training.methods import makes_adapter

ENOUGH_LABELS = 20  # with which a first training is worth its minutes
MANY_LABELS = 200  # up to which a training of the demo model has been timed
QUICK = " On the demo model that takes about a minute."
Place = Literal["prompts", "candidates", "labels", "train", "compare"]


class Next(NamedTuple):
    """What to do now: the step it belongs to, a headline, a sentence, the button, and quieter ways (text, link)."""

    place: Place
    title: str
    text: str
    action: str
    link: str
    others: tuple[tuple[str, str], ...] = ()


class Overview(NamedTuple):
    """What Home knows of a project. `counts.completions` are candidates, without those a comparison wrote for its judge.

    `adapter` is the newest one's run, `compared` whether a comparison was of it; `waiting` prompts were brought since the
    last answers were generated, and have none. `all_labelled`: the Label page has nothing for whoever looks.
    """

    counts: Counts
    recent: list[Run]
    active: Run | None
    adapter: Run | None
    compared: bool
    waiting: int = 0
    is_demo: bool = False
    lost: bool = False  # the newest comparison of the adapter says that the other model is better
    all_labelled: bool = False


def overview(db: Database, project: Project) -> Overview:
    recent = runs.of_project(db, project.project_id, limit=200)
    adapter = next((r for r in recent if makes_adapter(r.kind) and r.status in ("finished", "stopped") and r.result), None)
    made = str(adapter.result.get("model_id", "")) if adapter else ""
    newest = next((r for r in recent if r.kind == "compare" and r.status == "finished" and made and made in _compared(r)), None)
    active = next((r for r in recent if r.status in ("running", "queued")), None)
    answered = next((r.queued_at for r in recent if r.kind == "generate" and r.status in ("finished", "stopped")), None)
    counts = projects.counts(db, project.project_id)._replace(completions=completions.candidates(db, project.project_id))
    waiting = prompts.waiting(db, project.project_id, answered)
    lost = newest is not None and _lost(newest, made)
    return Overview(counts, recent, active, adapter, newest is not None, waiting, project.is_demo, lost)


def _compared(comparison: Run) -> tuple[object, object]:
    """The ids of the two models."""
    args = comparison.config.get("args", {})
    return args.get("model_id_a"), args.get("model_id_b")


def _lost(comparison: Run, model_id: str) -> bool:
    """Whether the whole interval of this model's win rate is below one half, by the judge or, without one, by the rules."""
    before, after = _compared(comparison)
    result = CompareResult.from_json(comparison.result) if comparison.result.get("n_prompts") else None
    shown = (result.win_rate or result.rule_win_rate) if result else None
    if shown is None or shown.low is None or shown.high is None:
        return False
    return (after == model_id and shown.high < 0.5) or (before == model_id and shown.low > 0.5)


def next_of(seen: Overview, task: str) -> Next:
    """The one thing to do next, with no way to the Label page when it has nothing."""
    found = _next_of(seen, task)
    return found._replace(others=tuple(o for o in found.others if o[1] != "label")) if seen.all_labelled else found


def may_be_all_labelled(c: Counts, task: str) -> bool:
    """Whether there are as many labels as items: whether anything is open is then worth asking, which costs more."""
    return 0 < (c.pairs if task == "pairwise" else c.completions) <= c.labels


def _next_of(seen: Overview, task: str) -> Next:
    c = seen.counts
    if c.prompts == 0:
        return Next(
            "prompts",
            "Bring some prompts",
            "Questions or instructions, from a file or by name from the hub.",
            "Import prompts",
            "data?tab=import",
        )
    if seen.active is not None:
        place: Place = {"generate": "candidates", "compare": "compare", "hub_import": "prompts"}.get(seen.active.kind, "train")  # type: ignore[assignment]
        text = progress_line(seen.active) or "It goes on when you close this page."
        label = (("Label meanwhile", "label"),) if c.pairs and seen.active.kind != "compare" else ()
        return Next(
            place, f"{shorten(seen.active.name, 60)} is {seen.active.status}", text, "Watch it", run_link(seen.active), label
        )
    if (c.pairs if task == "pairwise" else c.completions) == 0:
        return Next(
            "candidates",
            "Let a model answer",
            "Four different answers to each prompt give people something to compare.",
            "Generate answers",
            "data?tab=generate",
        )
    if seen.waiting:
        return _answer_new(seen, task)
    if seen.adapter is None:
        return _until_first_adapter(seen, task)
    if not seen.compared:
        return Next(
            "compare",
            "See whether it got better",
            "A judge compares the model before and after training, on prompts it has not been trained on.",
            "Compare before and after",
            f"compare?run={seen.adapter.run_id}",
            (("Try it yourself", f"compare?run={seen.adapter.run_id}&tab=chat"),),
        )
    if seen.lost:
        return Next(
            "train",
            "It got worse",
            "The model before training was preferred. The run's verdict may say why; more labels or other settings help.",
            "Look at the run",
            run_link(seen.adapter),
            (("Label more", "label"), ("Train again", "train")),
        )
    return Next(
        "candidates",
        "Go round again",
        "Let the trained model answer, label what it gets wrong, and train on that.",
        "Generate with the new model",
        f"data?tab=generate&run={seen.adapter.run_id}",
        (("Label more", "label"), ("Train again", "train")),
    )


def _answer_new(seen: Overview, task: str) -> Next:
    """Prompts have come that nobody has answered; what would be next without them stands beside it."""
    then = next_of(seen._replace(waiting=0), task)
    beside = then.others if then.place == "candidates" else ((then.action, then.link),)
    model = f"&run={seen.adapter.run_id}" if seen.adapter else ""
    return Next(
        "candidates",
        f"{count(seen.waiting, 'new prompt')} without an answer",
        "Let a model answer, so that there is something to label.",
        "Generate answers",
        f"data?tab=generate&for=new{model}",
        beside,
    )


def _until_first_adapter(seen: Overview, task: str) -> Next:
    c = seen.counts
    asks = (
        "You see two answers to one prompt and say which is better."
        if task == "pairwise"
        else "You see one answer and say good or bad."
    )
    if c.decided < ENOUGH_LABELS and seen.all_labelled:
        return Next(
            "candidates",
            "Everything here is labelled",
            f"With {ENOUGH_LABELS} labels a first training is worth it; more answers give you more to compare.",
            "Generate answers",
            "data?tab=generate",
            (("Train now", "train"),) if c.decided else (),
        )
    if c.decided == 0:
        first = "Label the first pair" if task == "pairwise" else "Label the first answer"
        return Next(
            "labels",
            "Say which answer is better" if task == "pairwise" else "Say which answers are good",
            f"{asks} {ENOUGH_LABELS} labels are enough for a first training.",
            first,
            "label",
        )
    if c.decided < ENOUGH_LABELS:
        more = ENOUGH_LABELS - c.decided
        return Next(
            "labels",
            f"{count(more, 'label')} to go",
            f"{asks} With {ENOUGH_LABELS} a first training is worth it.",
            "Go on labelling",
            "label",
            (("Train now", "train"),),
        )
    return Next(
        "train",
        f"Train on {count(c.decided, 'label')}",
        "The model learns to prefer what people preferred." + (QUICK if seen.is_demo and c.decided <= MANY_LABELS else ""),
        "Choose how to train",
        "train",
        (("Label more", "label"),),
    )


NAMES: dict[Place, tuple[str, str]] = {  # what a step is called, and its page
    "prompts": ("Prompts", "data"),
    "candidates": ("Candidates", "data?tab=generate"),
    "labels": ("Labels", "label"),
    "train": ("Train", "train"),
    "compare": ("Compare", "compare"),
}


def steps_of(seen: Overview, place: Place) -> list[Step]:
    """The five steps with their counts; `place` is the one to do now, and those with enough of their own are done."""
    c = seen.counts
    skipped = f", {c.labels - c.decided:,} skipped" if c.labels > c.decided else ""
    told: dict[Place, tuple[int, str]] = {
        "prompts": (c.prompts, f"{c.held_out:,} held out for testing" if c.prompts else "none yet"),
        "candidates": (c.completions, f"{count(c.pairs, 'pair')} to compare" if c.pairs else "no answers yet"),
        "labels": (c.decided, (f"{ENOUGH_LABELS} make a start" if c.decided < ENOUGH_LABELS else "ready to train on") + skipped),
        "train": (c.adapters, _trained(c)),
        "compare": (c.comparisons, "with a judge" if c.comparisons else "nothing compared yet"),
    }
    done = {key: n >= (ENOUGH_LABELS if key == "labels" else 1) for key, (n, _) in told.items()}
    return [
        Step(name, f"{told[key][0]:,}", told[key][1], link, "now" if key == place else "done" if done[key] else "later")
        for key, (name, link) in NAMES.items()
    ]


def _trained(c: Counts) -> str:
    """What the count of trained models is of, and what else training left."""
    first = "trained models" if c.adapters > 1 else "trained model" if c.adapters else "nothing trained yet"
    others = [
        *([count(c.reward_models, "reward model")] if c.reward_models else []),
        *([f"{c.merged:,} merged"] if c.merged else []),
    ]
    return ", ".join([first if c.adapters or not others else "none that answers yet", *others])
