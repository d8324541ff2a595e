"""Which items of one project are open, and a fair draw from them: plain memory, no database, so that it can be tested to
exhaustion.

An item (a pair, or one completion in a binary task) is open while its labels and live leases together are fewer than the number
it should have (`labeling/overlap.py`). Open items lie in strata (rank, category). Items that have a label and want more come
first, so that agreement shows early; then rank, so that every prompt gets one item done before any gets a second; category, so
that twenty pairs mirror the whole set instead of whatever chance clusters. A draw allots its number to the strata by systematic
sampling, then picks within each uniformly, so every eligible item of a rank has the same known chance.

The other orders (what the judge is unsure of, where people and judge differ) put items in levels beside their strata. A draw
then takes a part from the lowest levels and, independently, the rest at random: independently, so that the chance of every item
stays a formula. An item both parts come up with is taken once, and the draw is one shorter.

Not thread-safe: `labeling/assignment.py` holds the lock.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from data.records import Policy, ProjectSettings
from labeling.overlap import DISAGREEMENT, always_full, disputed, wanted

RANDOM: Policy = "stratified_random"
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


Key = tuple[int, str]  # (rank, category); a level is (level, LEVEL)
LEVEL = "\0level"


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
        self._places: dict[str, tuple[Key, ...]] = {}  # of the open items
        self._bags: dict[Key, _Bag] = {}
        self._seen_open: dict[str, dict[Key, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._ranks: list[int] = []
        self._strata: dict[int, list[Key]] = {}  # rank -> its strata
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
        for key in self._places.get(item_id, ()):
            self._seen_open[annotator_id][key].add(item_id)

    def unsee(self, item_id: str, annotator_id: str) -> None:
        """Take `see` back: the impression could not be stored."""
        self._seers[item_id] = tuple(a for a in self._seers.get(item_id, ()) if a != annotator_id)
        for key in self._places.get(item_id, ()):
            self._seen_open[annotator_id][key].discard(item_id)

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
        return item_id in self._places

    def open_for(self, item_id: str, annotator_id: str) -> bool:
        """Whether a label by this annotator is still wanted: their own lease takes no place from them."""
        others = sum(1 for a in self._leases.get(item_id, ()) if a != annotator_id)
        return item_id in self.items and len(self.said(item_id)) + others < self.wanted(item_id)

    def left_for(self, annotator_id: str) -> int:
        """How many items could still be drawn for this annotator."""
        return sum(self._eligible(annotator_id, key) for keys in self._strata.values() for key in keys)

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
        now, was = self._keys(item) if is_open else (), self._places.get(item_id, ())
        if now == was:
            return
        for key in was:
            self._bags[key].discard(item_id)
        for key in now:
            self._bag(key).add(item_id)
        for annotator_id in self._seers.get(item_id, ()):
            mine = self._seen_open[annotator_id]
            for key in was:
                mine[key].discard(item_id)
            for key in now:
                mine[key].add(item_id)
        if now:
            self._places[item_id] = now
        else:
            del self._places[item_id]

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

    def _bag(self, key: Key) -> _Bag:
        bag = self._bags.get(key)
        if bag is None:
            bag = self._bags[key] = _Bag()
            if key[0] >= 0:
                if key[0] not in self._strata:
                    insort(self._ranks, key[0])
                insort(self._strata.setdefault(key[0], []), key)
        return bag

    # --- the draw ----------------------------------------------------------------------------------------------------

    def draw(self, annotator_id: str, n: int) -> list[Drawn]:
        """Up to `n` open items that this annotator has not seen: lowest rank first and in random order within a rank, but for the
        part that another order than chance brings, which is mixed in."""
        if n <= 0:
            return []
        everything = self.settings.policy != RANDOM and n >= self.left_for(annotator_id)  # then there is nothing to choose
        share = 1.0 if self.settings.policy == RANDOM or everything else self.settings.random_share
        low = math.floor(n * share)
        odds = {low: 1 - (n * share - low), low + 1: n * share - low}  # how many at random -> how probable that many are
        by_chance = low + (self._rng.random() < odds[low + 1])
        ranks = self._sizes(annotator_id, [(rank, self._strata[rank]) for rank in self._ranks], n)
        levels = self._sizes(annotator_id, [(key[0], [key]) for key in self._level_keys()], n)
        first = self._take(annotator_id, levels, n - by_chance)
        rest = self._take(annotator_id, ranks, n - len(first))
        if first:
            ids = list({**dict.fromkeys(first), **dict.fromkeys(rest)})
            self._rng.shuffle(ids)
        else:
            ids = rest
        chance = self._chances(ranks, levels, n, odds)
        taken = set(first)
        return [Drawn(self.items[i], chance(i), self.settings.policy if i in taken else RANDOM) for i in ids]

    def _level_keys(self) -> list[Key]:
        return [] if self.settings.policy == RANDOM else sorted((k for k in self._bags if k[0] < 0), reverse=True)

    def _sizes(self, annotator_id: str, groups: Iterable[tuple[int, Sequence[Key]]], n: int) -> list[_Group]:
        """The groups a draw of `n` can reach, in their order, with how many this annotator could get of each key."""
        found: list[_Group] = []
        before = 0
        for name, keys in groups:
            if before >= n:
                break
            sizes = [(key, size) for key in keys if (size := self._eligible(annotator_id, key))]
            if sizes:
                found.append(_Group(name, sizes, before, sum(size for _, size in sizes)))
                before += found[-1].size
        return found

    def _take(self, annotator_id: str, groups: Sequence[_Group], n: int) -> list[str]:
        """`n` items, group after group; within a group by systematic sampling of its keys, shuffled."""
        taken: list[str] = []
        for group in groups:
            wanted_here = min(n - len(taken), group.size)
            if wanted_here <= 0:
                break
            ids: list[str] = []
            shares = self._allot([size for _, size in group.sizes], wanted_here)
            for (key, _), number in zip(group.sizes, shares, strict=True):
                ids += self._pick(annotator_id, key, number)
            self._rng.shuffle(ids)
            taken += ids
        return taken

    def _chances(self, ranks: Sequence[_Group], levels: Sequence[_Group], n: int, odds: dict[int, float]) -> Callable[[str], float]:
        """item -> the probability that this draw takes it: the mean over how many come by chance."""
        rank_of, level_of = {g.name: g for g in ranks}, {g.name: g for g in levels}
        special = sum(g.size for g in levels)

        def chance(item_id: str) -> float:
            keys = self._places[item_id]
            rank, level = rank_of.get(keys[0][0]), level_of.get(keys[1][0]) if len(keys) > 1 else None
            p = 0.0
            for by_chance, odd in odds.items():
                first = min(n - by_chance, special)
                by_level = _reach(level, first)
                p += odd * (by_level + (1 - by_level) * _reach(rank, n - first))
            return min(1.0, p)

        return chance

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

    def _eligible(self, annotator_id: str, key: Key) -> int:
        bag = self._bags[key]
        return len(bag) - len(self._mine(annotator_id, key)) if bag else 0

    def _mine(self, annotator_id: str, key: Key) -> set[str]:
        keys = self._seen_open.get(annotator_id)
        return keys.get(key, set()) if keys else set()

    def _pick(self, annotator_id: str, key: Key, n: int) -> list[str]:
        """`n` different unseen items, uniformly: by chance where most are unseen, else from the list of those that are."""
        if n <= 0:
            return []
        bag, mine = self._bags[key].items, self._mine(annotator_id, key)
        if 2 * (len(mine) + n) > len(bag):
            return self._rng.sample([i for i in bag if i not in mine], n)
        picked: dict[str, None] = {}
        while len(picked) < n:
            item_id = bag[self._rng.randrange(len(bag))]
            if item_id not in mine:
                picked[item_id] = None
        return list(picked)


class _Group(NamedTuple):
    """A rank or a level as one annotator meets it: `before` are the items of the groups before it."""

    name: int
    sizes: list[tuple[Key, int]]
    before: int
    size: int


def _reach(group: _Group | None, n: int) -> float:
    """The chance of an item of this group in a draw of `n` that goes through the groups in order."""
    return 0.0 if group is None else min(1.0, max(0.0, (n - group.before) / group.size))
