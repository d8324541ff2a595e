"""What the Label page is sent. Made here and only here: texts, their rendering and the impression's id, never a model, run, prompt,
completion or pair id, nor what kind of item it is."""

from __future__ import annotations

import hashlib
from typing import Any

from data.records import Project
from labeling.assignment import HEARTBEAT_SECONDS, Progress, Served
from labeling.preferences import Past
from studio.context import Viewer
from studio.next_step import ENOUGH_LABELS
from studio.render_text import render

OWN_STEP = 50
IN_ALL = "labels in all"
WANTED = "labels, as many as this project needs"


def item(served: Served) -> dict[str, Any]:
    """One impression as the browser gets it."""
    impression = served.impression
    return {
        "id": impression.impression_id,
        "task": impression.task,
        "turns": [{"role": m.role, **_text(m.content)} for m in served.prompt.messages],
        "left": _text(served.left),
        "right": _text(served.right) if impression.task == "pairwise" else None,
    }


def past(label: Past, served: Served) -> dict[str, Any]:
    """A label that stands, with its item, to be looked at again or changed."""
    return {
        "preference": label.preference,
        "strength": label.strength,
        "reasons": list(label.reasons),
        "note": label.note,
        "reported": label.reported,
        "at": label.at.isoformat(),
        "item": item(served),
    }


def who(viewer: Viewer, project: Project) -> dict[str, str]:
    """Names under which the browser keeps unsent labels: hashes, since neither id is the page's business."""
    person = hashlib.sha256(f"outbox\0{viewer.annotator_id}".encode()).hexdigest()[:16]
    space = hashlib.sha256(f"outbox\0{viewer.annotator_id}\0{project.project_id}".encode()).hexdigest()[:16]
    return {"who": person, "space": space}


def project(shown: Project) -> dict[str, str]:
    return {"name": shown.name, "guidelines": render(shown.guidelines).html if shown.guidelines.strip() else ""}


def terms(shown: Project, lease_seconds: float) -> dict[str, Any]:
    """How this project is labelled, and for how long a place is kept."""
    settings = shown.settings
    return {
        "options": {"strength": settings.strength, "reasons": list(settings.reasons), "notes": settings.notes},
        "lease_seconds": lease_seconds,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
    }


def progress(p: Progress, wanted: int = 0) -> dict[str, Any]:
    """For whoever also trains on the labels. `target` is the next one worth reaching: a first run, one label for every prompt,
    everything; or what the project wants, in labels, and then `complete` counts labels too."""
    first_run, every_prompt = "labels for a first training run", "labels, one for every prompt"
    targets = [(ENOUGH_LABELS, first_run), (p.first_rank, every_prompt), (p.total, IN_ALL)]
    reached = p.labels if wanted else p.complete
    target, meaning = next(((t, words) for t, words in targets if reached < t <= p.total), (p.total, IN_ALL))
    if wanted:
        target, meaning = wanted, WANTED
    return {
        "mine": p.mine,
        "skipped": p.skipped,
        "today": p.today,
        "complete": reached,
        "total": p.total,
        "target": target,
        "meaning": meaning.replace("labels", "label", 1) if target == 1 else meaning,
        "left": p.left,
        "first_run": ENOUGH_LABELS,
        "consistency": {"share": p.consistency.share, "n": p.consistency.n},
    }


def own_progress(p: Progress) -> dict[str, Any]:
    """What an annotator is told: their own labels, towards the next round number. Nothing in it may move differently when an item
    was gold or a repeat, so it says neither how many items are complete nor, beside a label, how consistent they are."""
    return {
        "mine": p.mine,
        "skipped": p.skipped,
        "today": p.today,
        "complete": p.mine,
        "total": p.mine + min(p.left, 1),
        "target": (p.mine // OWN_STEP + 1) * OWN_STEP,
        "meaning": "labels of yours",
        "left": min(p.left, 1),
        "first_run": p.mine + OWN_STEP,
        "consistency": {"share": 0.0, "n": 0},
    }


def _text(text: str) -> dict[str, str]:
    rendered = render(text)
    return {"html": rendered.html, "raw": rendered.raw, "note": rendered.note}
