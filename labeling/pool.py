"""Which items of one project are open, and a fair draw from them: plain memory, no database, so that it can be tested to
exhaustion.

An item (a pair, or one completion in a binary task) is open while its labels and live leases together are fewer than the
overlap. Open items lie in strata (rank, category): rank first, so that every prompt gets one label before any gets a second;
category, so that twenty pairs mirror the whole set instead of whatever chance clusters. A draw allots its number to the strata
by systematic sampling, then picks within each uniformly, so every eligible item of a rank has the same known probability, which
is stored with the impression.

Not thread-safe: `labeling/assignment.py` holds the lock.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

POLICY = "stratified_random"


class Item(NamedTuple):
    """What is labelled: `second` is '' in binary tasks."""

    item_id: str
    prompt_id: str
    first: str
    second: str
    rank: int
    category: str


class Drawn(NamedTuple):
    item: Item
    probability: float  # with which this draw took the item, among those this annotator could have got at its rank


class _Bag:
    """A set with O(1) random pick."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._at

    def add(self, item_id: str) -> None:
        if item_id not in self._at:
            self._at[item_id] = len(self.items)
            self.items.append(item_id)

    def discard(self, item_id: str) -> None:
        at = self._at.pop(item_id, None)
        if at is None:
            return
        last = self.items.pop()
        if last != item_id:
            self.items[at] = last
            self._at[last] = at


Stratum = tuple[int, str]


class Pool:
    """The items of one project, who has seen which, how many labels each has, and the live leases."""

    def __init__(self, overlap: int = 1, rng: random.Random | None = None) -> None:
        self.overlap = overlap
        self.items: dict[str, Item] = {}
        self.complete = 0  # items with as many labels as the overlap asks for
        self.first_rank = 0  # items of rank 0: one for every prompt that has any
        self._rng = rng or random.Random()
        self._open: dict[Stratum, _Bag] = {}
        self._labels: dict[str, int] = {}
        self._leases: dict[str, dict[str, float]] = {}  # item -> annotator -> until
        self._expiry: list[tuple[float, str, str]] = []
        self._seers: dict[str, tuple[str, ...]] = {}
        self._seen_open: dict[str, dict[Stratum, set[str]]] = defaultdict(lambda: defaultdict(set))

    # --- what is known -----------------------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        if item.item_id not in self.items:
            self.items[item.item_id] = item
            self.first_rank += item.rank == 0
            self.complete += self.labels(item.item_id) >= self.overlap
            self._settle(item.item_id)

    def seen(self, item_id: str, annotator_id: str) -> bool:
        return annotator_id in self._seers.get(item_id, ())

    def see(self, item_id: str, annotator_id: str) -> None:
        """From now on this item is not drawn for this annotator."""
        if self.seen(item_id, annotator_id):
            return
        self._seers[item_id] = (*self._seers.get(item_id, ()), annotator_id)
        if self.is_open(item_id):
            self._seen_open[annotator_id][_stratum(self.items[item_id])].add(item_id)

    def unsee(self, item_id: str, annotator_id: str) -> None:
        """Take `see` back: the impression could not be stored."""
        self._seers[item_id] = tuple(a for a in self._seers.get(item_id, ()) if a != annotator_id)
        if item_id in self.items:
            self._seen_open[annotator_id][_stratum(self.items[item_id])].discard(item_id)

    def labels(self, item_id: str) -> int:
        return self._labels.get(item_id, 0)

    def count(self, item_id: str, change: int) -> None:
        """`change` labels more or fewer (a skip is no label). Counting an item before it is added is the quicker order."""
        was = self.labels(item_id)
        self._labels[item_id] = was + change
        if item_id in self.items:
            self.complete += (was + change >= self.overlap) - (was >= self.overlap)
            self._settle(item_id)

    def is_open(self, item_id: str) -> bool:
        item = self.items.get(item_id)
        return item is not None and item_id in self._open.get(_stratum(item), ())

    def open_for(self, item_id: str, annotator_id: str) -> bool:
        """Whether a label by this annotator is still wanted: their own lease takes no place from them."""
        others = sum(1 for a in self._leases.get(item_id, ()) if a != annotator_id)
        return item_id in self.items and self.labels(item_id) + others < self.overlap

    def left_for(self, annotator_id: str) -> int:
        """How many items could still be drawn for this annotator."""
        return sum(self._eligible(annotator_id, stratum) for stratum in self._open)

    # --- leases ------------------------------------------------------------------------------------------------------

    def lease(self, item_id: str, annotator_id: str, until: float) -> None:
        self._leases.setdefault(item_id, {})[annotator_id] = until
        heapq.heappush(self._expiry, (until, item_id, annotator_id))
        self._settle(item_id)

    def release(self, item_id: str, annotator_id: str) -> None:
        leases = self._leases.get(item_id)
        if leases and leases.pop(annotator_id, None) is not None:
            if not leases:
                del self._leases[item_id]
            self._settle(item_id)

    def expire(self, now: float) -> None:
        """End the leases whose time has come. A lease that was renewed has a later entry of its own."""
        while self._expiry and self._expiry[0][0] <= now:
            _, item_id, annotator_id = heapq.heappop(self._expiry)
            if self._leases.get(item_id, {}).get(annotator_id, now + 1) <= now:
                self.release(item_id, annotator_id)

    def _settle(self, item_id: str) -> None:
        """Put the item in or out of its stratum's bag, as its labels and leases say."""
        item = self.items.get(item_id)
        if item is None:
            return
        stratum = _stratum(item)
        wanted = self.labels(item_id) + len(self._leases.get(item_id, ())) < self.overlap
        bag = self._open.get(stratum)
        if bag is None:
            bag = self._open[stratum] = _Bag()
        if wanted == (item_id in bag):
            return
        if wanted:
            bag.add(item_id)
        else:
            bag.discard(item_id)
        for annotator_id in self._seers.get(item_id, ()):
            mine = self._seen_open[annotator_id][stratum]
            mine.add(item_id) if wanted else mine.discard(item_id)

    # --- the draw ----------------------------------------------------------------------------------------------------

    def draw(self, annotator_id: str, n: int) -> list[Drawn]:
        """Up to `n` open items that this annotator has not seen, lowest rank first, in random order within a rank."""
        drawn: list[Drawn] = []
        for rank in sorted({rank for rank, _ in self._open}):
            if len(drawn) >= n:
                break
            drawn += self._draw_rank(annotator_id, rank, n - len(drawn))
        return drawn

    def _draw_rank(self, annotator_id: str, rank: int, n: int) -> list[Drawn]:
        strata = sorted(s for s in self._open if s[0] == rank)
        sizes = [self._eligible(annotator_id, s) for s in strata]
        total = sum(sizes)
        if total == 0:
            return []
        n = min(n, total)
        ids: list[str] = []
        for stratum, wanted in zip(strata, self._allot(sizes, n), strict=True):
            ids += self._pick(annotator_id, stratum, wanted)
        self._rng.shuffle(ids)
        return [Drawn(self.items[i], n / total) for i in ids]

    def _allot(self, sizes: Sequence[int], n: int) -> Iterator[int]:
        """Systematic sampling: n equally spaced points, randomly shifted, on the line of all items; a stratum gets those on it."""
        total, start = sum(sizes), self._rng.random()
        below = 0
        upto = 0
        for size in sizes:
            upto += size
            # points are (start + k) * total / n for k = 0..n-1
            points = n if upto == total else max(0, int(-((start - upto * n / total) // 1)))
            yield min(points - below, size)
            below = points

    def _eligible(self, annotator_id: str, stratum: Stratum) -> int:
        return len(self._open[stratum]) - len(self._mine(annotator_id, stratum))

    def _mine(self, annotator_id: str, stratum: Stratum) -> set[str]:
        strata = self._seen_open.get(annotator_id)
        return strata.get(stratum, set()) if strata else set()

    def _pick(self, annotator_id: str, stratum: Stratum, n: int) -> list[str]:
        """`n` different unseen items, uniformly: by chance where most are unseen, else from the list of those that are."""
        bag, mine = self._open[stratum].items, self._mine(annotator_id, stratum)
        if 2 * (len(mine) + n) > len(bag):
            return self._rng.sample([i for i in bag if i not in mine], n)
        picked: dict[str, None] = {}
        while len(picked) < n:
            item_id = bag[self._rng.randrange(len(bag))]
            if item_id not in mine:
                picked[item_id] = None
        return list(picked)


def _stratum(item: Item) -> Stratum:
    return item.rank, item.category
