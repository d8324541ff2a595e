"""What Home says of the copies off this machine (`data/copies.py`): where to and when last, or that there are none."""

from __future__ import annotations

from studio.context import Studio
from studio.render import Html, ago, esc

NOWHERE = (
    "Labels live only as long as this machine: nothing is copied elsewhere. "
    "Mount a storage bucket and set STUDIO_BACKUP to its folder, or to hf://datasets/owner/name."
)


def copies_line(studio: Studio) -> Html:
    """ "Labels are copied to ...", with the time of the last copy; empty where none are made."""
    status = studio.copier.status if studio.copier else None
    if status is None or status.problem:
        return Html("")
    when = f"last copied {ago(status.last_at)}" if status.last_at else "the first copy is being made"
    return Html(f'<p class="st-sub">Labels are copied to {esc(status.place)}: {esc(when)}.</p>')


def copies_missing(studio: Studio) -> list[str]:
    """A warning where labels could be lost with the machine."""
    if studio.copier is None:
        return [NOWHERE] if studio.settings.on_space else []
    status = studio.copier.status
    if not status.problem:
        return []
    since = f"The last copy of the labels was made {ago(status.last_at)}." if status.last_at else "No label has been copied yet."
    return [f"{since} {status.problem}"]
