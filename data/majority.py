"""What several people's labels of one item come to: the one rule, used wherever labels become training rows.

An item is a pair (or, in binary tasks, one completion). Everybody has one vote on it, of repeats the last; the most frequent
vote decides, and when two share that place nothing is decided, because a guess would teach noise. Skips are no votes. A decided
pair also says something of its two completions: the chosen one fared well, the other badly, of "both bad" both did; what was
said of a completion itself counts more. Pure functions over ids.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Outcome = Literal["first", "second", "tie", "both_bad", "good", "bad", "split_vote"]


class Vote(NamedTuple):
    """A label that stands. `right` is '' in binary tasks; `preference` is the word as stored (a = the left one)."""

    annotator_id: str
    prompt_id: str
    left: str
    right: str
    preference: str


class Item(NamedTuple):
    """`first` < `second` are completion ids, `second` is '' in binary tasks; `votes` counts people, `share` of whom say so (1 where
    the answer is known)."""

    prompt_id: str
    first: str
    second: str
    outcome: Outcome
    votes: int
    share: float = 1.0

    @property
    def ids(self) -> tuple[str, ...]:
        return (self.first, self.second) if self.second else (self.first,)

    @property
    def chosen_rejected(self) -> tuple[str, str] | None:
        """None unless one of two won."""
        if self.outcome == "first":
            return self.first, self.second
        return (self.second, self.first) if self.outcome == "second" else None


class Decided(NamedTuple):
    """Every item that has a vote, in the order of its first, and how many labels were skips."""

    items: tuple[Item, ...]
    skips: int


class Fared(NamedTuple):
    """completion -> whether it is good: by itself first, then by its pairs. `ties` counts pairs, `conflicts` completions that won
    as often as they lost."""

    good: Mapping[str, bool]
    ties: int
    conflicts: int


def decide(votes: Iterable[Vote], known: Mapping[tuple[str, str], Outcome] = {}, every: bool = False) -> Decided:
    """`known`: answers that stand above the votes, by (first, second). `every`: an item for each person's vote instead of one."""
    said: dict[tuple[str, str], dict[str, Outcome]] = defaultdict(dict)
    prompts: dict[tuple[str, str], str] = {}
    skips = 0
    for vote in votes:
        if vote.preference == "skip":
            skips += 1
            continue
        first, second = sorted((vote.left, vote.right)) if vote.right else (vote.left, "")
        said[first, second][vote.annotator_id] = _unsided(vote, first)
        prompts[first, second] = vote.prompt_id
    items: list[Item] = []
    for ids, by in said.items():
        if ids in known:
            items.append(Item(prompts[ids], *ids, known[ids], len(by)))
        elif every:
            items += [Item(prompts[ids], *ids, outcome, 1) for outcome in by.values()]
        else:
            outcome = majority(by.values())
            items.append(Item(prompts[ids], *ids, outcome, len(by), sum(o == outcome for o in by.values()) / len(by)))
    return Decided(tuple(items), skips)


def majority(said: Iterable[Outcome]) -> Outcome:
    """The most frequent, "split_vote" when two share that place."""
    (top, n), *rest = Counter(said).most_common(2)
    return "split_vote" if rest and rest[0][1] == n else top


def good_or_bad(items: Iterable[Item], ties_are_good: bool = False) -> Fared:
    """Completions called good or bad; where nobody did, those that won more pairs than they lost, or fewer. A tie says nothing of
    its two, or with `ties_are_good` that both are good."""
    own: dict[str, bool] = {}
    net: Counter[str] = Counter()
    ties = 0
    for item in items:
        if item.outcome in ("good", "bad"):
            own[item.first] = item.outcome == "good"
        elif item.outcome == "both_bad":
            net.subtract(item.ids)
        elif item.chosen_rejected:
            chosen, rejected = item.chosen_rejected
            net[chosen] += 1
            net[rejected] -= 1
        elif item.outcome == "tie" and ties_are_good:
            net.update(item.ids)
        ties += item.outcome == "tie" and not ties_are_good
    by_pairs = {completion_id: n for completion_id, n in net.items() if completion_id not in own}
    good = own | {completion_id: n > 0 for completion_id, n in by_pairs.items() if n}
    return Fared(good, ties, sum(not n for n in by_pairs.values()))


def agreement_by_completion(items: Iterable[Item], ties_are_good: bool = False) -> dict[str, float]:
    """Of each completion: how far people agreed on the items that speak of it, on average."""
    shares: dict[str, list[float]] = defaultdict(list)
    for item in items:
        if item.outcome != "split_vote" and (item.outcome != "tie" or ties_are_good):
            for completion_id in item.ids:
                shares[completion_id].append(item.share)
    return {completion_id: sum(held) / len(held) for completion_id, held in shares.items()}


_SIDES: dict[str, tuple[Outcome, Outcome]] = {"a": ("first", "second"), "b": ("second", "first")}  # left is first, or is not


def _unsided(vote: Vote, first: str) -> Outcome:
    """What was said, whichever side the completion with the smaller id was on."""
    if vote.preference in _SIDES:
        return _SIDES[vote.preference][vote.left != first]
    return vote.preference  # type: ignore[return-value]  # the other words are outcomes as they are
