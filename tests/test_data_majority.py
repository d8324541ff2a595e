"""The one majority rule: sides do not matter, the last of one person's votes counts, equal places decide nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data.majority import Fared, Item, Vote, decide, good_or_bad, majority

SWAPPED = {"a": "b", "b": "a"}


def vote(who: str, left: str, right: str, preference: str) -> Vote:
    return Vote(who, "p", left, right, preference)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (["first"], "first"),
        (["first", "first", "second"], "first"),
        (["first", "second"], "split_vote"),
        (["tie", "first", "second"], "split_vote"),
        (["tie", "tie", "first", "second"], "tie"),
        (["good", "bad", "bad"], "bad"),
    ],
)
def test_the_most_frequent_decides_unless_it_shares_its_place(said: list[str], outcome: str) -> None:
    assert majority(said) == outcome  # type: ignore[arg-type]


def test_an_item_is_a_pair_whatever_its_sides_and_skips_are_no_votes() -> None:
    found = decide([vote("x", "d", "c", "a"), vote("y", "c", "d", "b"), vote("z", "c", "d", "skip"), vote("z", "e", "", "good")])
    assert found.items == (Item("p", "c", "d", "second", 2), Item("p", "e", "", "good", 1))
    assert found.skips == 1
    assert found.items[0].chosen_rejected == ("d", "c")
    assert found.items[1].ids == ("e",)


def test_how_completions_fared_by_themselves_counts_more_than_by_pairs() -> None:
    votes = [
        vote("x", "a", "b", "a"),  # a 1, b -1
        vote("x", "b", "c", "a"),  # b 0: a conflict; c -1
        vote("x", "d", "e", "both_bad"),
        vote("x", "f", "g", "tie"),
        vote("x", "c", "", "good"),
    ]
    assert good_or_bad(decide(votes).items) == Fared({"c": True, "a": True, "d": False, "e": False}, ties=1, conflicts=1)


PAIRS = st.tuples(st.sampled_from("xyz"), st.sampled_from(["ab", "bc", "ac"]), st.sampled_from(["a", "b", "tie", "both_bad"]))


@hypothesis_settings(max_examples=60)
@given(st.lists(PAIRS, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_turning_sides_round_changes_nothing(drawn: list[tuple[str, str, str]], turned: list[bool]) -> None:
    plain = [vote(who, pair[0], pair[1], said) for who, pair, said in drawn]
    other = [
        vote(v.annotator_id, v.right, v.left, SWAPPED.get(v.preference, v.preference)) if turn else v
        for v, turn in zip(plain, turned, strict=False)
    ]
    assert decide(plain) == decide(other)
    items = decide(plain).items
    assert sum(item.votes for item in items) == len({(v.annotator_id, frozenset((v.left, v.right))) for v in plain})
    fared = good_or_bad(items)
    net = Counter[str]()
    for item in items:
        for completion_id in item.chosen_rejected or ():
            net[completion_id] += 1 if completion_id == item.chosen_rejected[0] else -1  # type: ignore[index]
    assert {c for c, good in fared.good.items() if good} == {
        c for c, n in net.items() if n > sum(item.outcome == "both_bad" and c in item.ids for item in items)
    }
