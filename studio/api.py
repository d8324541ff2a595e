"""The routes beside Gradio: what the Label page speaks to.

    GET  /api/label/batch?n=30      impressions to label, progress, the project in words, its options
    POST /api/label                 JSON list of {id, impression, event, preference, strength, reasons, note, dwell_ms, read_share,
                                    reported, client_at}; one result for each
    POST /api/label/heartbeat       {"ids": [...]} as they will be shown -> {"kept": [...], "lost": [...]}: what is lost needs no
                                    label any more
    POST /api/label/release         {"ids": [...]}: this page closes, others may have these
    GET  /api/label/history         the viewer's last 20 labels, newest first, to take back or change

Not Gradio events: those drop, delay and misfile clicks. A label is acknowledged after its commit and not before, and whatever
the viewer has open by now: a label belongs to the impression that was shown. What is read is in `label_api_in.py`, what is sent
in `label_api_out.py`. Database work runs in the thread pool. Refused as a whole (4xx) is what can never succeed; 5xx means "keep
it and try again".
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from data import labels, people, projects
from data.errors import BadInput, LimitReached, NotFound, StudioError
from data.records import Project
from labeling import preferences
from labeling.assignment import Progress, with_texts
from labeling.preferences import Outcome, Vote
from studio import label_api_in as incoming
from studio import label_api_out as outgoing
from studio.context import Studio, Viewer
from studio.label_page import assets
from studio.visitors import labels_full

MAX_VOTES = 500
MAX_BATCH_CHARACTERS = 4_000_000  # of rendered text in one answer; what does not fit comes with the next request
BATCHES_AT_ONCE = 2  # a label is waited for, new items are fetched ahead: when fifty people come at once, labels go first
HISTORY = 20

log = logging.getLogger("studio.api")


def routes(studio: Studio) -> list[BaseRoute]:
    """To be handed to `launch(app_kwargs={"routes": ...})`."""
    api = LabelApi(studio)
    return [
        Route("/api/label/batch", api.batch, methods=["GET"]),
        Route("/api/label", api.record, methods=["POST"]),
        Route("/api/label/heartbeat", api.heartbeat, methods=["POST"]),
        Route("/api/label/release", api.release, methods=["POST"]),
        Route("/api/label/history", api.history, methods=["GET"]),
        assets.ROUTE,
    ]


class LabelApi:
    """Handlers; each resolves who is asking from the request alone."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._batches = anyio.CapacityLimiter(BATCHES_AT_ONCE)

    async def batch(self, request: Request) -> Response:
        n = request.query_params.get("n", "30")
        if not re.fullmatch("[0-9]{1,3}", n) or not 1 <= int(n) <= 100:
            return _error(400, "n must be a number from 1 to 100.")
        return await _answer(self._batch, request, int(n), at_once=self._batches)

    async def history(self, request: Request) -> Response:
        return await _answer(self._history, request)

    async def record(self, request: Request) -> Response:
        try:
            votes = await incoming.read_json(request)
            if not isinstance(votes, list) or len(votes) > MAX_VOTES:
                raise BadInput(f"Send a list of at most {MAX_VOTES} labels.")
        except BadInput as error:
            return _error(400, str(error))
        return await _answer(self._record, request, votes)

    async def heartbeat(self, request: Request) -> Response:
        return await self._with_ids(self._heartbeat, request)

    async def release(self, request: Request) -> Response:
        return await self._with_ids(self._release, request)

    async def _with_ids(self, handler: Callable[..., Mapping[str, Any]], request: Request) -> Response:
        try:
            ids = await incoming.ids(request)
        except BadInput as error:
            return _error(400, str(error))
        return await _answer(handler, request, ids)

    # --- in the thread pool ------------------------------------------------------------------------------------------

    def _batch(self, request: Request, n: int) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        project = self._opened(viewer)
        if project.archived_at is not None:
            raise self._archived(viewer, project)
        served = self._studio.assignment.serve(viewer.annotator_id, project.project_id, n)
        items: list[dict[str, Any]] = []
        size = 0
        for one in served:
            item = outgoing.item(one)
            size += len(json.dumps(item, ensure_ascii=False))
            if items and size > MAX_BATCH_CHARACTERS:
                break
            items.append(item)
        progress = self._studio.assignment.progress(viewer.annotator_id, project.project_id)
        return {
            **outgoing.who(viewer, project),
            "project": outgoing.project(project),
            "task": project.task,
            "state": "ready" if items else ("done" if progress.total else "empty"),
            "progress": _progress(viewer, project, progress),
            **outgoing.terms(project, self._studio.assignment.lease_seconds),
            "items": items,
        }

    def _history(self, request: Request) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        project = self._opened(viewer)
        past = preferences.history(self._studio.db, viewer.annotator_id, project.project_id, HISTORY)
        texts = with_texts(self._studio.db, [p.impression for p in past])
        return {
            **outgoing.who(viewer, project),
            "labels": [outgoing.past(label, served) for label, served in zip(past, texts, strict=True)],
        }

    def _record(self, request: Request, raw: Sequence[Any]) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        try:
            project: Project | None = self._opened(viewer)
        except NotFound:  # in no project any more; what was shown to them may be answered all the same
            project = None
        read = [incoming.vote(one) for one in raw]
        votes = [one for one in read if isinstance(one, Vote)]
        outcomes = iter(self._store(viewer, project, votes))
        results = [one if isinstance(one, incoming.Unreadable) else next(outcomes) for one in read]
        said = {"results": [{"id": r.event_id, "accepted": r.accepted, "reason": r.reason} for r in results]}
        if project is None:
            return said
        progress = self._studio.assignment.progress(viewer.annotator_id, project.project_id)
        return {**outgoing.who(viewer, project), **said, "progress": _progress(viewer, project, progress)}

    def _store(self, viewer: Viewer, project: Project | None, votes: Sequence[Vote]) -> list[Outcome]:
        """A visitor's limit is a reason to refuse each label beyond it, not a fault to try again after; a label that is sent again
        is there already and adds nothing."""
        with self._studio.visitors.label_room(project) if project else nullcontext(len(votes)) as room:
            there = labels.stored(self._studio.db, [vote.event_id for vote in votes]) if room < len(votes) else set()
            new = list(dict.fromkeys(vote.event_id for vote in votes if vote.event_id not in there))
            beyond = set(new[room:])
            kept = [v for v in votes if v.event_id not in beyond]
            fit = iter(preferences.record(self._studio.db, viewer.annotator_id, kept, assignment=self._studio.assignment))
        return [Outcome(v.event_id, False, labels_full()) if v.event_id in beyond else next(fit) for v in votes]

    def _heartbeat(self, request: Request, ids: Sequence[str]) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        project = self._opened(viewer)
        return self._studio.assignment.heartbeat(viewer.annotator_id, project.project_id, ids)._asdict()

    def _release(self, request: Request, ids: Sequence[str]) -> dict[str, Any]:
        viewer = self._studio.viewer(request)
        return {"released": self._studio.assignment.release(viewer.annotator_id, ids)}

    # --- which project ---

    def _opened(self, viewer: Viewer) -> Project:
        """The project this person has open, archived or not: what they were shown of it may always be answered."""
        opened = people.open_project(self._studio.db, viewer.annotator_id)
        try:
            project = projects.get(self._studio.db, opened)
        except NotFound:
            return self._studio.project(viewer)
        is_theirs = project.owner == viewer.owner
        return project if project.archived_at is not None and is_theirs else self._studio.project(viewer)

    def _archived(self, viewer: Viewer, project: Project) -> BadInput:
        """Said once where there is another project to go on with."""
        words = f"“{project.name}” is archived, so nothing more of it is shown; what you labelled is stored."
        others = self._studio.projects(viewer)
        if not others:
            return BadInput(words)
        people.set_open_project(self._studio.db, viewer.annotator_id, "")
        return BadInput(f"{words} Next comes “{others[0].name}”.")


def _progress(viewer: Viewer, project: Project, found: Progress) -> dict[str, Any]:
    return outgoing.own_progress(found) if viewer.role == "annotator" else outgoing.progress(found, project.settings.target)


async def _answer(handler: Callable[..., Mapping[str, Any]], *args: Any, at_once: anyio.CapacityLimiter | None = None) -> Response:
    """In a thread, the writing of JSON too: nothing else is answered while the event loop works. `at_once`: how many may."""

    def work() -> Response:
        return JSONResponse(handler(*args), headers={"cache-control": "no-store"})

    try:
        return await anyio.to_thread.run_sync(work, limiter=at_once)
    except StudioError as error:
        return _error(_status(error), str(error))
    except Exception:
        log.exception("a request failed")
        return _error(500, "Something went wrong in the app itself; its log says what. Your label is kept in this browser.")


def _status(error: StudioError) -> int:
    """503 for what may pass by itself (a full disk): the browser keeps its labels and tries again."""
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, LimitReached):
        return 403
    return 400 if isinstance(error, BadInput) else 503


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers={"cache-control": "no-store"})
