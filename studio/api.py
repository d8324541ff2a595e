"""The routes beside Gradio: what the Label page speaks to.

    GET  /api/label/batch?n=30     impressions to label, progress, the project in words
    POST /api/label                JSON list of {id, impression, event, preference, note, dwell_ms, client_at}; one result for each
    POST /api/label/release        {"ids": [...]}: this page closes, others may have these
    GET  /api/label/history        the viewer's last 20 labels, newest first, to take back or change

Not Gradio events: those drop, delay and misfile clicks. A label is acknowledged after its commit and not before. What is sent
to the browser is made here and only here: texts, their rendering and the impression's id, never a model, run, prompt or
completion id. Database work runs in the thread pool. Refused as a whole (4xx) is what can never succeed; 5xx means "keep it and
try again".
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from data import labels
from data.errors import BadInput, LimitReached, NotFound, StudioError
from data.records import Project
from labeling import preferences
from labeling.assignment import Progress, Served, with_texts
from labeling.preferences import Outcome, Vote
from studio.context import Studio, Viewer
from studio.label_page import assets
from studio.next_step import ENOUGH_LABELS
from studio.render_text import render
from studio.visitors import labels_full

MAX_BODY = 512 * 1024
MAX_VOTES = 500
MAX_BATCH_CHARACTERS = 4_000_000  # of rendered text in one answer; what does not fit comes with the next request
HISTORY = 20
IN_ALL = "labels in all"

log = logging.getLogger("studio.api")


def routes(studio: Studio) -> list[BaseRoute]:
    """To be handed to `launch(app_kwargs={"routes": ...})`."""
    api = LabelApi(studio)
    return [
        Route("/api/label/batch", api.batch, methods=["GET"]),
        Route("/api/label", api.record, methods=["POST"]),
        Route("/api/label/release", api.release, methods=["POST"]),
        Route("/api/label/history", api.history, methods=["GET"]),
        assets.ROUTE,
    ]


class LabelApi:
    """Handlers; each resolves who is asking from the request alone."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def batch(self, request: Request) -> Response:
        n = request.query_params.get("n", "30")
        if not re.fullmatch("[0-9]{1,3}", n) or not 1 <= int(n) <= 100:
            return _error(400, "n must be a number from 1 to 100.")
        return await _answer(self._batch, request, int(n))

    async def history(self, request: Request) -> Response:
        return await _answer(self._history, request)

    async def record(self, request: Request) -> Response:
        try:
            votes = await _json(request)
            if not isinstance(votes, list) or len(votes) > MAX_VOTES:
                raise BadInput(f"Send a list of at most {MAX_VOTES} labels.")
        except BadInput as error:
            return _error(400, str(error))
        return await _answer(self._record, request, votes)

    async def release(self, request: Request) -> Response:
        try:
            body = await _json(request)
            ids = body.get("ids") if isinstance(body, dict) else None
            if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
                raise BadInput('Send {"ids": [...]}.')
        except BadInput as error:
            return _error(400, str(error))
        return await _answer(self._release, request, ids)

    # --- in the thread pool ------------------------------------------------------------------------------------------

    def _batch(self, request: Request, n: int) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        served = self._studio.assignment.serve(viewer.annotator_id, project.project_id, n)
        items: list[dict[str, Any]] = []
        size = 0
        for one in served:
            item = _item(one)
            size += len(json.dumps(item, ensure_ascii=False))
            if items and size > MAX_BATCH_CHARACTERS:
                break
            items.append(item)
        progress = self._studio.assignment.progress(viewer.annotator_id, project.project_id)
        return {
            **_who(viewer, project),
            "project": {"name": project.name, "guidelines": render(project.guidelines).html if project.guidelines.strip() else ""},
            "task": project.task,
            "state": "ready" if items else ("done" if progress.total else "empty"),
            "progress": _progress(progress),
            "items": items,
        }

    def _history(self, request: Request) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        past = preferences.history(self._studio.db, viewer.annotator_id, project.project_id, HISTORY)
        texts = with_texts(self._studio.db, [p.impression for p in past])
        return {
            **_who(viewer, project),
            "labels": [{"preference": p.preference, "item": _item(served)} for p, served in zip(past, texts, strict=True)],
        }

    def _record(self, request: Request, raw: Sequence[Any]) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        read = [_vote(one) for one in raw]
        votes = [one for one in read if isinstance(one, Vote)]
        outcomes = iter(self._store(viewer, project, votes))
        results = [one if isinstance(one, _Unreadable) else next(outcomes) for one in read]
        return {
            **_who(viewer, project),
            "results": [{"id": r.event_id, "accepted": r.accepted, "reason": r.reason} for r in results],
            "progress": _progress(self._studio.assignment.progress(viewer.annotator_id, project.project_id)),
        }

    def _store(self, viewer: Viewer, project: Project, votes: Sequence[Vote]) -> list[Outcome]:
        """A visitor's limit is a reason to refuse each label beyond it, not a fault to try again after; a label that is sent again
        is there already and adds nothing."""
        room = self._studio.visitors.labels_left(project)
        there = labels.stored(self._studio.db, [vote.event_id for vote in votes]) if room < len(votes) else set()
        new = list(dict.fromkeys(vote.event_id for vote in votes if vote.event_id not in there))
        beyond = set(new[room:])
        fit = iter(preferences.record(self._studio.db, viewer.annotator_id, [v for v in votes if v.event_id not in beyond]))
        return [Outcome(v.event_id, False, labels_full()) if v.event_id in beyond else next(fit) for v in votes]

    def _release(self, request: Request, ids: Sequence[str]) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        return {"released": self._studio.assignment.release(viewer.annotator_id, ids)}


# --- what comes in --------------------------------------------------------------------------------------------------


class _Unreadable(NamedTuple):
    """A vote that is no vote; shaped like an Outcome."""

    event_id: str
    reason: str
    accepted: bool = False


def _vote(raw: object) -> Vote | _Unreadable:
    if not isinstance(raw, dict):
        return _Unreadable("", "A label must be a JSON object.")
    event_id = raw.get("id")
    if not isinstance(event_id, str) or _is_broken(event_id):
        return _Unreadable("", "A label needs an id.")
    texts = {key: raw.get(key, "") for key in ("impression", "event", "preference", "note")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str) or (key != "note" and _is_broken(value))]
    dwell = raw.get("dwell_ms", 0)
    if not isinstance(dwell, int) or isinstance(dwell, bool):
        wrong.append("dwell_ms")
    try:
        at = _time(raw.get("client_at"))
    except ValueError:
        wrong.append("client_at")
    if wrong:
        return _Unreadable(event_id, f"This label cannot be read: {', '.join(wrong)}.")
    return Vote(event_id, texts["impression"], texts["event"], texts["preference"], texts["note"], dwell, at)


def _is_broken(text: str) -> bool:
    """Whether it holds half a character, which JSON can say and neither the database nor an answer can."""
    return text.encode("utf-8", "replace").decode() != text


def _time(raw: object) -> datetime | None:
    if raw is None:
        return None
    at = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    if at is None or at.tzinfo is None:
        raise ValueError("not a time with a zone")
    try:
        return at.astimezone(UTC)
    except OverflowError:  # its zone takes it out of the calendar
        raise ValueError("no time that can be stored") from None


async def _json(request: Request) -> Any:
    """The body as JSON; BadInput when it is none or too large."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise BadInput(f"The request is larger than {MAX_BODY // 1024} KB.")
    except ClientDisconnect:
        raise BadInput("The connection ended early.") from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadInput("The request is no JSON.") from None


# --- what goes out --------------------------------------------------------------------------------------------------


def _item(served: Served) -> dict[str, Any]:
    """One impression as the browser gets it."""
    impression = served.impression
    return {
        "id": impression.impression_id,
        "task": impression.task,
        "turns": [{"role": m.role, **_text(m.content)} for m in served.prompt.messages],
        "left": _text(served.left),
        "right": _text(served.right) if impression.task == "pairwise" else None,
    }


def _text(text: str) -> dict[str, str]:
    rendered = render(text)
    return {"html": rendered.html, "raw": rendered.raw, "note": rendered.note}


def _who(viewer: Viewer, project: Project) -> dict[str, str]:
    """Names under which the browser keeps unsent labels: hashes, since neither id is the page's business."""
    who = hashlib.sha256(f"outbox\0{viewer.annotator_id}".encode()).hexdigest()[:16]
    space = hashlib.sha256(f"outbox\0{viewer.annotator_id}\0{project.project_id}".encode()).hexdigest()[:16]
    return {"who": who, "space": space}


def _progress(p: Progress) -> dict[str, int | str]:
    """`target` is the next one worth reaching: a first run, one label for every prompt, everything."""
    first_run, every_prompt = "labels for a first training run", "labels, one for every prompt"
    targets = [(ENOUGH_LABELS, first_run), (p.first_rank, every_prompt), (p.total, IN_ALL)]
    reached = p.complete
    target, meaning = next(((t, words) for t, words in targets if reached < t <= p.total), (p.total, IN_ALL))
    return {
        "mine": p.mine,
        "skipped": p.skipped,
        "complete": reached,
        "total": p.total,
        "target": target,
        "meaning": meaning,
        "left": p.left,
        "first_run": ENOUGH_LABELS,
    }


async def _answer(handler: Callable[..., Mapping[str, Any]], *args: Any) -> Response:
    try:
        body = await run_in_threadpool(handler, *args)
    except StudioError as error:
        return _error(_status(error), str(error))
    except Exception:
        log.exception("a request failed")
        return _error(500, "Something went wrong in the app itself; its log says what. Your label is kept in this browser.")
    return JSONResponse(body, headers={"cache-control": "no-store"})


def _status(error: StudioError) -> int:
    """503 for what may pass by itself (a full disk): the browser keeps its labels and tries again."""
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, LimitReached):
        return 403
    return 400 if isinstance(error, BadInput) else 503


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers={"cache-control": "no-store"})
