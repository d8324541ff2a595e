"""The open items of a project in their strata, and a fair draw from them for somebody who has seen some.

A stratum is (rank, category). A draw goes through the ranks in order, allots its number to the strata of a rank by systematic
sampling, then picks within each uniformly, so every eligible item of a rank has the same known chance.

The other orders (what the judge is unsure of, where people and judge differ) put items in levels beside their strata. A draw
then takes a part from the lowest levels and, independently, the rest at random: independently, so that the chance of every item
stays a formula. An item both parts come up with is taken once, and the draw is one shorter.

Which items are open, and where they lie, is for `labeling/pool.py` to say.
"""

from __future__ import annotations

import math
import random
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from data.records import Policy

RANDOM: Policy = "stratified_random"
Key = tuple[int, str]  # (rank, category); a level is (level, LEVEL)
LEVEL = "\0level"


class Taken(NamedTuple):
    item_id: str
    probability: float  # with which this draw took the item
    policy: Policy


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


class Strata:
    """The open items, each with the keys of where it lies: its stratum, and its level where it has one."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._places: dict[str, tuple[Key, ...]] = {}
        self._bags: dict[Key, _Bag] = {}
        self._seen: dict[str, dict[Key, set[str]]] = defaultdict(lambda: defaultdict(set))  # annotator -> where -> open items
        self._ranks: list[int] = []
        self._strata: dict[int, list[Key]] = {}  # rank -> its strata

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._places

    def put(self, item_id: str, keys: tuple[Key, ...], seers: Iterable[str]) -> None:
        """From now on it lies there, for all but those who have seen it; nowhere = not open."""
        was = self._places.get(item_id, ())
        if keys == was:
            return
        for key in was:
            self._bags[key].discard(item_id)
        for key in keys:
            self._bag(key).add(item_id)
        for annotator_id in seers:
            mine = self._seen[annotator_id]
            for key in was:
                mine[key].discard(item_id)
            for key in keys:
                mine[key].add(item_id)
        if keys:
            self._places[item_id] = keys
        else:
            del self._places[item_id]

    def see(self, item_id: str, annotator_id: str) -> None:
        for key in self._places.get(item_id, ()):
            self._seen[annotator_id][key].add(item_id)

    def unsee(self, item_id: str, annotator_id: str) -> None:
        for key in self._places.get(item_id, ()):
            self._seen[annotator_id][key].discard(item_id)

    def left_for(self, annotator_id: str) -> int:
        """How many items could still be drawn for this annotator."""
        return sum(self._eligible(annotator_id, key) for keys in self._strata.values() for key in keys)

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

    def draw(self, annotator_id: str, n: int, policy: Policy, random_share: float) -> list[Taken]:
        """Up to `n` items that this annotator has not seen: lowest rank first and in random order within a rank, but for the part
        that another order than chance brings, which is mixed in."""
        if n <= 0:
            return []
        everything = policy != RANDOM and n >= self.left_for(annotator_id)  # then there is nothing to choose
        share = 1.0 if policy == RANDOM or everything else random_share
        low = math.floor(n * share)
        odds = {low: 1 - (n * share - low), low + 1: n * share - low}  # how many at random -> how probable that many are
        by_chance = low + (self._rng.random() < odds[low + 1])
        ranks = self._sizes(annotator_id, [(rank, self._strata[rank]) for rank in self._ranks], n)
        levels = self._sizes(annotator_id, [(key[0], [key]) for key in self._level_keys(policy)], n)
        first = self._take(annotator_id, levels, n - by_chance)
        rest = self._take(annotator_id, ranks, n - len(first))
        if first:
            ids = list({**dict.fromkeys(first), **dict.fromkeys(rest)})
            self._rng.shuffle(ids)
        else:
            ids = rest
        chance = self._chances(ranks, levels, n, odds)
        taken = set(first)
        return [Taken(i, chance(i), policy if i in taken else RANDOM) for i in ids]

    def _level_keys(self, policy: Policy) -> list[Key]:
        return [] if policy == RANDOM else sorted((k for k in self._bags if k[0] < 0), reverse=True)

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
        keys = self._seen.get(annotator_id)
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
