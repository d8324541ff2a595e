"""When an item has enough labels, and which items come first: rules over plain memory, no database."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data.records import ProjectSettings
from labeling import overlap
from labeling.pool import RANDOM, Item, Judged, Pool

ADAPTIVE = ProjectSettings(adaptive=True, max_overlap=5, full_overlap=0)


def pool_of(settings: ProjectSettings, n: int, ranks: int = 1, held_out: int = 0, seed: int = 0) -> Pool:
    pool = Pool(settings, random.Random(seed))
    for k in range(n):
        pool.add(Item(f"i{k}", f"p{k // ranks}", f"a{k}", f"b{k}", k % ranks, f"c{k % 3}", k < held_out))
    return pool


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("", 2), ("f", 2), ("ff", 2), ("fs", 3), ("fst", 4), ("fstx", 5), ("ffs", 2), ("fssx", 2), ("g", 2), ("bg", 3), ("bbg", 2)],
)
def test_two_that_agree_are_enough_else_up_to_five(said: str, wanted: int) -> None:
    assert overlap.wanted(said, full=False, contested=False, settings=ADAPTIVE) == wanted


def test_the_fixed_share_always_gets_every_label() -> None:
    ids = [f"pair-{k}" for k in range(20_000)]
    chosen = {i for i in ids if overlap.always_full(i, 0.15)}
    assert abs(len(chosen) - 3000) < 4 * (20_000 * 0.15 * 0.85) ** 0.5
    assert chosen < {i for i in ids if overlap.always_full(i, 0.3)}
    assert not any(overlap.always_full(i, 0) for i in ids)
    assert all(overlap.always_full(i, 1) for i in ids)
    assert overlap.wanted("ff", full=True, contested=False, settings=ADAPTIVE) == 5
    plain = ProjectSettings(overlap=2, full_overlap=1)
    assert Pool(plain).wanted("any") == 2, "without adaptive overlap there is no such share"


@pytest.mark.parametrize(
    ("preference", "left", "right", "letter"),
    [("a", "c1", "c2", "f"), ("a", "c2", "c1", "s"), ("b", "c1", "c2", "s"), ("b", "c2", "c1", "f"), ("tie", "c2", "c1", "t"),
     ("both_bad", "c1", "c2", "x"), ("good", "c1", "", "g"), ("bad", "c1", "", "b"), ("skip", "c1", "c2", ""),
     ("", "c1", "c2", "")],
)  # fmt: skip
def test_letters_undo_the_sides(preference: str, left: str, right: str, letter: str) -> None:
    assert overlap.letter(preference, left, right) == letter


def test_an_item_opens_again_when_two_stop_agreeing() -> None:
    pool = pool_of(ADAPTIVE, 1)
    for before, after in (("", "f"), ("", "f")):
        pool.say("i0", before, after)
    assert (pool.complete, pool.is_open("i0")) == (1, False)
    pool.say("i0", "f", "s")
    assert (pool.complete, pool.is_open("i0"), pool.said("i0")) == (0, True, "fs")
    pool.decide("i0", True)
    assert (pool.complete, pool.is_open("i0"), pool.wanted("i0")) == (1, False, 0)
    pool.decide("i0", False)
    assert (pool.complete, pool.is_open("i0")) == (0, True)


def test_close_calls_come_first_and_a_quarter_comes_at_random() -> None:
    pool = pool_of(ProjectSettings(policy="close_call"), 200, held_out=40)
    for k in range(200):
        pool.judge(f"i{k}", Judged(0.5 + (k % 100 - 50) / 100, "f"))
    first = Counter[str]()
    for seed in range(40):
        pool._rng.seed(seed)
        drawn = pool.draw("ann", 20)
        by_policy = [d for d in drawn if d.policy == "close_call"]
        assert len(by_policy) == 15
        assert all(abs(pool._judged[d.item.item_id].p - 0.5) < 0.041 for d in by_policy), "the nearest to even"
        assert not any(d.item.held_out for d in by_policy)
        first.update(d.item.item_id for d in drawn if d.policy == RANDOM)
    assert len(first) > 100, "the rest is from everywhere"
    assert any(pool.items[i].held_out for i in first)


def test_where_people_and_judge_differ_comes_first_and_gets_more_labels() -> None:
    pool = pool_of(ProjectSettings(policy="judge_disagreement", max_overlap=3), 100, held_out=10)
    for k in range(100):
        pool.judge(f"i{k}", Judged(0.9, "f"))
    for k in range(30):
        pool.say(f"i{k}", "", "s" if k < 20 else "f")
    assert [pool.is_open(f"i{k}") for k in (5, 15, 25)] == [False, True, False], "held out and agreed ones have enough"
    drawn = pool.draw("ann", 8)
    assert {d.item.item_id for d in drawn if d.policy != RANDOM} <= {f"i{k}" for k in range(10, 20)}
    assert sum(d.policy != RANDOM for d in drawn) == 6
    pool.say("i15", "", "f")
    assert not pool.is_open("i15"), "they do not differ any more: one of each decides nothing"
    pool.say("i16", "", "s")
    assert pool.is_open("i16")
    pool.say("i16", "", "s")
    assert not pool.is_open("i16"), "three labels are the most"


@pytest.mark.parametrize("policy", ["stratified_random", "close_call", "judge_disagreement"])
def test_the_stored_probability_is_the_real_one(policy: str) -> None:
    """8,000 draws from the same pool: every item comes up as often as every draw says it would (4.5 sigma, 30 items)."""
    settings = replace(ProjectSettings(policy=policy, random_share=0.3), overlap=1)  # type: ignore[arg-type]
    pool = pool_of(settings, 30, ranks=3, held_out=6, seed=3)
    for k in range(30):
        pool.judge(f"i{k}", Judged(0.5 + (k // 4) / 20, "f"))
        if policy == "judge_disagreement" and k % 3:
            pool.say(f"i{k}", "", "s" if k % 2 else "f")
    pool.see("i7", "ann")
    seen: Counter[str] = Counter()
    told: dict[str, float] = {}
    draws = 8_000
    for _ in range(draws):
        drawn = pool.draw("ann", 7)
        assert len({d.item.item_id for d in drawn}) == len(drawn) <= 7
        for d in drawn:
            seen[d.item.item_id] += 1
            assert told.setdefault(d.item.item_id, d.probability) == d.probability
    for item_id, p in told.items():
        sigma = (draws * p * (1 - p)) ** 0.5
        assert abs(seen[item_id] - draws * p) <= 4.5 * sigma + 1e-9, (item_id, p, seen[item_id] / draws)
    assert "i7" not in told


@hypothesis_settings(max_examples=40)
@given(data=st.data())
def test_any_sequence_equals_a_recomputation(data: st.DataObject) -> None:
    """Adaptive overlap under any labels, leases, decisions and verdicts: what is open, complete, eligible is what the rules say."""
    policy = data.draw(st.sampled_from(["stratified_random", "close_call", "judge_disagreement"]))
    settings = replace(ADAPTIVE, policy=policy, max_overlap=3, full_overlap=0.4)
    pool = pool_of(settings, 8, ranks=2, held_out=2)
    said: dict[str, list[str]] = {i: [] for i in pool.items}
    leases: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    decided: set[str] = set()
    judged: dict[str, str] = {}
    for _ in range(data.draw(st.integers(0, 40))):
        item, who = data.draw(st.sampled_from(sorted(pool.items))), data.draw(st.sampled_from(["ann", "bea"]))
        what = data.draw(st.sampled_from(["say", "unsay", "lease", "release", "see", "unsee", "decide", "judge"]))
        letter = data.draw(st.sampled_from("fst"))
        if what == "say":
            said[item].append(letter)
            pool.say(item, "", letter)
        elif what == "unsay" and said[item]:
            pool.say(item, said[item].pop(), "")
        elif what == "lease":
            leases.add((item, who))
            pool.lease(item, who, 1e12)
        elif what == "release":
            leases.discard((item, who))
            pool.release(item, who)
        elif what in ("see", "unsee"):
            (seen.add if what == "see" else seen.discard)((item, who))
            (pool.see if what == "see" else pool.unsee)(item, who)
        elif what == "decide":
            (decided.discard if item in decided else decided.add)(item)
            pool.decide(item, item in decided)
        elif what == "judge":
            judged[item] = letter
            pool.judge(item, Judged(0.5, letter))
    complete, is_open = set(), set()
    for i, item in pool.items.items():
        word = "".join(sorted(said[i]))
        contested = i in judged and not item.held_out and overlap.disputed(word, judged[i], settings)
        wanted = 0 if i in decided else overlap.wanted(word, overlap.always_full(i, 0.4), contested, settings)
        if len(word) >= wanted:
            complete.add(i)
        if len(word) + sum(1 for j, _ in leases if j == i) < wanted:
            is_open.add(i)
    assert pool.complete == len(complete)
    assert {i for i in pool.items if pool.is_open(i)} == is_open
    for who in ("ann", "bea"):
        eligible = {i for i in is_open if (i, who) not in seen}
        assert pool.left_for(who) == len(eligible)
        assert pool.held(who) == sum(1 for _, w in leases if w == who)
        assert {d.item.item_id for d in pool.draw(who, 50)} == eligible


def test_what_one_person_began_the_next_finishes_first() -> None:
    """Two people who label fourteen each share items, so that there is an agreement to look at."""
    pool = pool_of(ProjectSettings(overlap=2), 200)
    for drawn in pool.draw("ann", 14):
        pool.see(drawn.item.item_id, "ann")
        pool.say(drawn.item.item_id, "", "f")
    begun = {item_id for item_id in pool.items if pool.said(item_id)}
    first, second = pool.draw("ben", 10), pool.draw("ben", 20)
    assert {d.item.item_id for d in first} < begun
    assert {d.probability for d in first} == {10 / 14}
    assert begun < {d.item.item_id for d in second}
    assert {d.probability for d in second if d.item.item_id in begun} == {1.0}
    assert not begun & {d.item.item_id for d in pool.draw("ann", 200)}
