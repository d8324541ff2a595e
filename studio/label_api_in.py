"""What the Label page sends, read strictly: whatever a browser or a forged request holds becomes a vote, ids or a sentence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request

from data.errors import BadInput
from labeling.preferences import Vote

MAX_BODY = 512 * 1024
MAX_REASONS = 20
MAX_IDS = 500


class Unreadable(NamedTuple):
    """A vote that is no vote; shaped like an Outcome."""

    event_id: str
    reason: str
    accepted: bool = False


def vote(raw: object) -> Vote | Unreadable:
    if not isinstance(raw, dict):
        return Unreadable("", "A label must be a JSON object.")
    event_id = raw.get("id")
    if not isinstance(event_id, str) or _is_broken(event_id):
        return Unreadable("", "A label needs an id.")
    texts = {key: raw.get(key, "") for key in ("impression", "event", "preference", "note", "strength")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str) or (key != "note" and _is_broken(value))]
    dwell, share, reasons = raw.get("dwell_ms"), raw.get("read_share"), raw.get("reasons", [])
    if not isinstance(raw.get("reported", False), bool):
        wrong.append("reported")
    if dwell is not None and (not isinstance(dwell, int) or isinstance(dwell, bool)):
        wrong.append("dwell_ms")
    if share is not None and (not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1):
        wrong.append("read_share")
    if (
        not isinstance(reasons, list)
        or len(reasons) > MAX_REASONS
        or not all(isinstance(r, str) and not _is_broken(r) for r in reasons)
    ):
        wrong.append("reasons")
    try:
        at = _time(raw.get("client_at"))
    except ValueError:
        wrong.append("client_at")
    if wrong:
        return Unreadable(event_id, f"This label cannot be read: {', '.join(wrong)}.")
    return Vote(
        event_id,
        texts["impression"],
        texts["event"],
        texts["preference"],
        texts["note"],
        dwell,
        at,
        texts["strength"],
        tuple(reasons),
        None if share is None else float(share),
        raw.get("reported", False),
    )


async def ids(request: Request) -> list[str]:
    """The ids of a `{"ids": [...]}` body."""
    body = await read_json(request)
    found = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(found, list) or len(found) > MAX_IDS or not all(isinstance(i, str) and not _is_broken(i) for i in found):
        raise BadInput(f'Send {{"ids": [...]}}, at most {MAX_IDS}.')
    return found


async def read_json(request: Request) -> Any:
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
