"""Which items of one project are open: plain memory, no database, so that it can be tested to exhaustion.

An item (a pair, or one completion in a binary task) is open while its labels and live leases together are fewer than the number
it should have (`labeling/overlap.py`). Open items lie in strata (rank, category). Items that have a label and want more come
first, so that agreement shows early; then rank, so that every prompt gets one item done before any gets a second; category, so
that twenty pairs mirror the whole set instead of whatever chance clusters. How they are drawn: `labeling/strata.py`.

Not thread-safe: `labeling/assignment.py` holds the lock.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from data.records import Policy, ProjectSettings
from labeling.overlap import DISAGREEMENT, always_full, disputed, wanted
from labeling.strata import LEVEL, RANDOM, Key, Strata

MAX_CATEGORIES = 64  # further ones share a stratum: a data set with a category a row would make every draw slow
LEVELS = 50  # the judge's p is compared in steps of 0.01


class Item(NamedTuple):
    """What is labelled: `second` is '' in binary tasks. Held-out items are only ever drawn at random."""

    item_id: str
    prompt_id: str
    first: str
    second: str
    rank: int
    category: str
    held_out: bool = False


class Drawn(NamedTuple):
    item: Item
    probability: float  # with which this draw took the item
    policy: Policy


class Judged(NamedTuple):
    """What a judge makes of an item: p that its first is better, and its verdict as a letter."""

    p: float
    verdict: str


class Pool:
    """The items of one project, who has seen which, what was said of each, and the live leases."""

    def __init__(self, settings: ProjectSettings = ProjectSettings(), rng: random.Random | None = None) -> None:
        self.settings = settings
        self._is_plain = not settings.adaptive and settings.policy != DISAGREEMENT
        self.items: dict[str, Item] = {}
        self.complete = 0  # items with as many labels as they should have
        self.first_rank = 0  # items of rank 0: one for every prompt that has any
        self._rng = rng or random.Random()
        self._said: dict[str, str] = {}
        self._decided: set[str] = set()  # their answer is known: they need no label
        self._judged: dict[str, Judged] = {}
        self._leases: dict[str, dict[str, float]] = {}  # item -> annotator -> until
        self._expiry: list[tuple[float, str, str]] = []
        self._held: Counter[str] = Counter()  # annotator -> live leases
        self._seers: dict[str, tuple[str, ...]] = {}
        self._open = Strata(self._rng)
        self._categories: set[str] = set()

    # --- what is known -----------------------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        if item.item_id not in self.items:
            self.items[item.item_id] = item
            self.first_rank += item.rank == 0
            if self.is_complete(item.item_id):
                self.complete += 1
            else:
                self._settle(item)

    def know(self, item_id: str, said: str, seers: tuple[str, ...]) -> None:
        """All that was said of an item and everybody who has seen it, before it is added: what the load from the tables uses."""
        if said:
            self._said[item_id] = said
        if seers:
            self._seers[item_id] = seers

    def seen(self, item_id: str, annotator_id: str) -> bool:
        return annotator_id in self._seers.get(item_id, ())

    def see(self, item_id: str, annotator_id: str) -> None:
        """From now on this item is not drawn for this annotator."""
        if self.seen(item_id, annotator_id):
            return
        self._seers[item_id] = (*self._seers.get(item_id, ()), annotator_id)
        self._open.see(item_id, annotator_id)

    def unsee(self, item_id: str, annotator_id: str) -> None:
        """Take `see` back: the impression could not be stored."""
        self._seers[item_id] = tuple(a for a in self._seers.get(item_id, ()) if a != annotator_id)
        self._open.unsee(item_id, annotator_id)

    def said(self, item_id: str) -> str:
        """One letter a label that counts, sorted."""
        return self._said.get(item_id, "")

    def say(self, item_id: str, before: str, after: str) -> None:
        """One label goes from the letter `before` to `after`; '' = none."""

        def change() -> None:
            said = self.said(item_id).replace(before, "", 1) if before else self.said(item_id)
            self._said[item_id] = "".join(sorted(said + after))

        if before != after:
            self._change(item_id, change)

    def decide(self, item_id: str, is_decided: bool) -> None:
        """The item's answer is known from elsewhere (or is not any more): it needs no labels."""
        self._change(item_id, lambda: (self._decided.add if is_decided else self._decided.discard)(item_id))

    def judge(self, item_id: str, judged: Judged) -> None:
        self._change(item_id, lambda: self._judged.__setitem__(item_id, judged))

    def wanted(self, item_id: str, said: str | None = None) -> int:
        """How many labels the item should have, if this is what was said of it."""
        if item_id in self._decided:
            return 0
        if self._is_plain:
            return self.settings.overlap
        said = self.said(item_id) if said is None else said
        full = self.settings.adaptive and always_full(item_id, self.settings.full_overlap)
        return wanted(said, full, self._is_contested(item_id, said), self.settings)

    def is_complete(self, item_id: str, said: str | None = None) -> bool:
        said = self.said(item_id) if said is None else said
        return len(said) >= self.wanted(item_id, said)

    @property
    def remaining(self) -> int:
        return len(self.items) - self.complete

    def is_open(self, item_id: str) -> bool:
        return item_id in self._open

    def open_for(self, item_id: str, annotator_id: str) -> bool:
        """Whether a label by this annotator is still wanted: their own lease takes no place from them."""
        others = sum(1 for a in self._leases.get(item_id, ()) if a != annotator_id)
        return item_id in self.items and len(self.said(item_id)) + others < self.wanted(item_id)

    def left_for(self, annotator_id: str) -> int:
        """How many items could still be drawn for this annotator."""
        return self._open.left_for(annotator_id)

    def draw(self, annotator_id: str, n: int) -> list[Drawn]:
        """Up to `n` open items that this annotator has not seen."""
        taken = self._open.draw(annotator_id, n, self.settings.policy, self.settings.random_share)
        return [Drawn(self.items[each.item_id], each.probability, each.policy) for each in taken]

    # --- leases ------------------------------------------------------------------------------------------------------

    def lease(self, item_id: str, annotator_id: str, until: float) -> None:
        leases = self._leases.setdefault(item_id, {})
        if annotator_id not in leases:
            self._held[annotator_id] += 1
            heapq.heappush(self._expiry, (until, item_id, annotator_id))
        elif until < leases[annotator_id]:
            heapq.heappush(self._expiry, (until, item_id, annotator_id))
        leases[annotator_id] = until
        self._settle_id(item_id)

    def release(self, item_id: str, annotator_id: str) -> bool:
        """Whether there was a lease to end."""
        leases = self._leases.get(item_id)
        if not leases or leases.pop(annotator_id, None) is None:
            return False
        self._held[annotator_id] -= 1
        if not leases:
            del self._leases[item_id]
        self._settle_id(item_id)
        return True

    def held(self, annotator_id: str) -> int:
        return self._held[annotator_id]

    def has_lease(self, item_id: str, annotator_id: str) -> bool:
        return annotator_id in self._leases.get(item_id, ())

    def leases(self) -> list[tuple[str, str, float]]:
        """(item, annotator, until)."""
        return [(item_id, who, until) for item_id, by in self._leases.items() for who, until in by.items()]

    def expire(self, now: float) -> None:
        """End the leases whose time has come. One that was renewed meanwhile is looked at again when its new time comes."""
        while self._expiry and self._expiry[0][0] <= now:
            _, item_id, annotator_id = heapq.heappop(self._expiry)
            until = self._leases.get(item_id, {}).get(annotator_id)
            if until is None:
                continue
            if until <= now:
                self.release(item_id, annotator_id)
            else:
                heapq.heappush(self._expiry, (until, item_id, annotator_id))

    # --- where an item lies ------------------------------------------------------------------------------------------

    def _change(self, item_id: str, change: Callable[[], object]) -> None:
        if item_id not in self.items:
            change()
            return
        before = self.is_complete(item_id)
        change()
        self.complete += self.is_complete(item_id) - before
        self._settle_id(item_id)

    def _settle_id(self, item_id: str) -> None:
        if (item := self.items.get(item_id)) is not None:
            self._settle(item)

    def _settle(self, item: Item) -> None:
        """Put the item in or out of its bags, as its labels and leases say."""
        item_id = item.item_id
        is_open = len(self.said(item_id)) + len(self._leases.get(item_id, ())) < self.wanted(item_id)
        self._open.put(item_id, self._keys(item) if is_open else (), self._seers.get(item_id, ()))

    def _keys(self, item: Item) -> tuple[Key, ...]:
        if item.category not in self._categories and len(self._categories) < MAX_CATEGORIES:
            self._categories.add(item.category)
        rank = 0 if self.said(item.item_id) else item.rank + 1  # what was begun comes first: half-labelled items say nothing yet
        stratum = rank, item.category if item.category in self._categories else LEVEL
        level = self._level(item)
        return (stratum,) if level is None else (stratum, (-1 - level, LEVEL))

    def _level(self, item: Item) -> int | None:
        """How much sooner than others this item comes (0 first); None where chance alone decides."""
        if self.settings.policy == RANDOM or item.held_out:
            return None
        if self.settings.policy == "close_call":
            judged = self._judged.get(item.item_id)
            return None if judged is None else min(LEVELS, round(abs(judged.p - 0.5) * 2 * LEVELS))
        return 0 if self._is_contested(item.item_id, self.said(item.item_id)) else None

    def _is_contested(self, item_id: str, said: str) -> bool:
        judged, item = self._judged.get(item_id), self.items.get(item_id)
        return bool(judged and item and not item.held_out and disputed(said, judged.verdict, self.settings))
