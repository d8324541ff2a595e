"""Makes the impressions of one batch: new items with their sides, and among them, silently, gold and repeats.

In memory only; `labeling/assignment.py` holds the lock and stores what comes out. Whatever its kind, an impression looks the same
to its annotator.
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from data.records import Impression, ImpressionKind
from labeling.memory import ProjectMemory
from labeling.pool import Item
from labeling.track import Past, Shown, Track


@dataclass(frozen=True)
class Fresh:
    """An impression that is not stored yet; `past` is what a repeat repeats."""

    shown: Shown
    past: Past | None = None


def swapped(annotator_id: str, pair_id: str) -> bool:
    """Whether this annotator sees the pair's second completion on the left: a fair coin, the same for ever."""
    return hashlib.sha256(f"side\0{annotator_id}\0{pair_id}".encode()).digest()[0] & 1 == 1


class _Chosen(NamedTuple):
    item: Item
    kind: ImpressionKind
    policy: str
    probability: float
    past: Past | None = None


class Batch:
    """One annotator's next batch out of a project's memory."""

    def __init__(self, memory: ProjectMemory, annotator_id: str, now: float, lease_seconds: float, rng: random.Random) -> None:
        self._memory, self._annotator_id, self._rng = memory, annotator_id, rng
        self._track: Track = memory.tracks[annotator_id]
        self._until = now + lease_seconds
        self._served_at = datetime.fromtimestamp(now, UTC)
        self._lease = timedelta(seconds=lease_seconds)
        self._made = 0

    def fill(self, n: int, room: int) -> list[Fresh]:
        """Up to `n` impressions, at most `room` of them with a lease. Gold and repeats come only among other items: nobody is kept
        labelling what is known already."""
        pool, settings = self._memory.pool, self._memory.settings
        base = min(n, room, pool.left_for(self._annotator_id))
        if base <= 0:
            return []
        rates = settings.gold_rate + settings.repeat_rate
        slots = min(float(n), base / (1 - rates)) if rates < 1 else float(n)
        special = [*self._gold(self._share(slots, settings.gold_rate)), *self._repeats(self._share(slots, settings.repeat_rate))]
        special = special[:n]
        drawn = pool.draw(self._annotator_id, min(base, n - len(special)))
        chosen = [_Chosen(d.item, "normal", d.policy, d.probability) for d in drawn]
        for one in special:
            chosen.insert(self._rng.randint(0, len(chosen)), one)
        return [self._show(one, at) for at, one in enumerate(chosen)]

    def _share(self, slots: float, rate: float) -> int:
        """A whole number whose mean is slots x rate."""
        return math.floor(slots * rate + self._rng.random())

    def _gold(self, n: int) -> list[_Chosen]:
        if n <= 0:
            return []
        pool = self._memory.pool
        unseen = [i for i in self._memory.gold if i in pool.items and not pool.seen(i, self._annotator_id)]
        chosen = self._rng.sample(unseen, min(n, len(unseen)))
        return [_Chosen(pool.items[i], "gold", "gold", len(chosen) / len(unseen)) for i in chosen]

    def _repeats(self, n: int) -> list[_Chosen]:
        items = self._memory.pool.items
        able = [past for past in self._track.repeatable() if self._memory.item_of(past.impression) in items] if n > 0 else []
        chosen = self._rng.sample(able, min(n, len(able)))
        probability = len(chosen) / max(1, len(able))
        return [_Chosen(items[self._memory.item_of(p.impression)], "repeat", "repeat", probability, p) for p in chosen]

    def _show(self, chosen: _Chosen, at: int) -> Fresh:
        item, past = chosen.item, chosen.past
        left, right = item.first, item.second
        if right and swapped(self._annotator_id, item.item_id) != (past is not None):
            left, right = right, left
        impression = Impression(
            impression_id=secrets.token_hex(12),
            project_id=self._memory.project_id,
            annotator_id=self._annotator_id,
            prompt_id=item.prompt_id,
            pair_id=item.item_id if item.second else "",
            left_completion_id=left,
            right_completion_id=right,
            task=self._memory.task,
            kind=chosen.kind,
            policy=chosen.policy,
            probability=chosen.probability,
            served_at=self._served_at + timedelta(microseconds=at),  # so that the order can be read from the table
            lease_expires_at=self._served_at + self._lease,
            repeat_of=past.impression.impression_id if past else "",
        )
        fresh = Fresh(Shown(impression, item.item_id), past)
        self._put(fresh)
        return fresh

    def _put(self, fresh: Fresh) -> None:
        item_id, impression = fresh.shown.item_id, fresh.shown.impression
        self._memory.pool.see(item_id, self._annotator_id)
        self._track.shown[impression.impression_id] = fresh.shown
        if fresh.past:
            self._track.repeat(impression.repeat_of)
        elif impression.kind == "normal":
            self._memory.pool.lease(item_id, self._annotator_id, self._until)


def take_back(memory: ProjectMemory, annotator_id: str, fresh: Sequence[Fresh]) -> None:
    """What could not be stored was never shown."""
    track = memory.tracks[annotator_id]
    for one in fresh:
        track.shown.pop(one.shown.impression.impression_id, None)
        if one.past:
            track.unrepeat(one.past)
        else:
            memory.pool.unsee(one.shown.item_id, annotator_id)
            memory.pool.release(one.shown.item_id, annotator_id)
