"""Assignment: never a pair twice to one person, sides fixed and balanced, leases, and a memory that always equals the tables."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from labelling import completion, prompt, seed_project

from data import completions, impressions, labels, people, projects, prompts
from data.errors import NotFound
from data.journal import Change
from data.records import ProjectSettings
from labeling import assignment, preferences
from labeling.assignment import Assignment, swapped
from labeling.pool import Item, Pool

pytestmark = pytest.mark.long


def items(n: int, rank: int = 0, categories: int = 3) -> list[Item]:
    return [Item(f"i{rank}-{k}", f"p{k}", f"a{k}", f"b{k}", rank, f"c{k % categories}") for k in range(n)]


def pool_of(*some: Item, overlap: int = 1, seed: int = 0) -> Pool:
    pool = Pool(ProjectSettings(overlap=overlap), random.Random(seed))
    for item in some:
        pool.add(item)
    return pool


# --- the pool ---


def test_every_prompt_comes_before_a_second_pair_of_any() -> None:
    pool = pool_of(*items(30, rank=0), *items(30, rank=1))
    drawn = pool.draw("ann", 40)
    assert [d.item.rank for d in drawn] == [0] * 30 + [1] * 10
    assert all(d.probability == 1.0 for d in drawn[:30])
    assert {d.probability for d in drawn[30:]} == {10 / 30}


def test_a_draw_mirrors_the_categories() -> None:
    some = [Item(f"i{k}", f"p{k}", "a", "b", 0, "rare" if k % 10 == 0 else "common") for k in range(1000)]
    for seed in range(20):
        drawn = pool_of(*some, seed=seed).draw("ann", 50)
        assert len({d.item.item_id for d in drawn}) == 50
        assert Counter(d.item.category for d in drawn)["rare"] == 5


def test_the_stored_probability_is_the_real_one() -> None:
    """Systematic sampling over uneven strata: each item comes up with probability n / total (4-sigma bound, 8,000 draws)."""
    some = [Item(f"i{k}", f"p{k}", "a", "b", 0, "abc"[min(2, k // 3)]) for k in range(11)]
    draws, n = 8000, 4
    seen: Counter[str] = Counter()
    pool = pool_of(*some, seed=7)
    for _ in range(draws):
        drawn = pool.draw("ann", n)
        assert len(drawn) == n
        seen.update(d.item.item_id for d in drawn)
        assert all(d.probability == n / 11 for d in drawn)
    expected, sigma = draws * n / 11, (draws * (n / 11) * (7 / 11)) ** 0.5
    assert all(abs(seen[i.item_id] - expected) < 4 * sigma for i in some), seen


def test_overlap_counts_labels_and_live_leases() -> None:
    pool = pool_of(*items(1), overlap=2)
    [item] = pool.items.values()
    for annotator in ("ann", "bea"):
        assert [d.item for d in pool.draw(annotator, 5)] == [item]
        pool.see(item.item_id, annotator)
        pool.lease(item.item_id, annotator, until=100.0)
    assert pool.draw("cid", 5) == []
    pool.expire(100.0)
    assert [d.item for d in pool.draw("cid", 5)] == [item]
    assert pool.draw("ann", 5) == []  # seen is seen, lease or not
    pool.say(item.item_id, "", "f")
    pool.say(item.item_id, "", "s")
    assert pool.complete == 1
    assert pool.draw("cid", 5) == []
    pool.say(item.item_id, "f", "")
    assert pool.complete == 0
    assert [d.item for d in pool.draw("cid", 5)] == [item]


def test_a_renewed_lease_outlives_its_first_term() -> None:
    pool = pool_of(*items(1))
    pool.lease("i0-0", "ann", until=10.0)
    pool.lease("i0-0", "ann", until=20.0)
    pool.expire(15.0)
    assert not pool.is_open("i0-0")
    pool.expire(20.0)
    assert pool.is_open("i0-0")


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_pool_equals_a_slow_model(data: st.DataObject) -> None:
    """Any sequence of see, lease, release, expire, count and draw: open items and eligible numbers equal a recomputation."""
    overlap = data.draw(st.integers(1, 3))
    pool = pool_of(*items(6, 0), *items(4, 1), overlap=overlap)
    ids, people_, now = sorted(pool.items), ["ann", "bea", "cid"], 0.0
    count: Counter[str] = Counter()
    leases: dict[tuple[str, str], float] = {}
    seen: set[tuple[str, str]] = set()
    for _ in range(data.draw(st.integers(0, 40))):
        what = data.draw(st.sampled_from(["see", "lease", "release", "expire", "count", "uncount"]))
        item, who = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(people_))
        if what == "see":
            pool.see(item, who)
            seen.add((item, who))
        elif what == "lease":
            until = now + data.draw(st.integers(1, 5))
            pool.lease(item, who, until)
            leases[item, who] = until
        elif what == "release":
            pool.release(item, who)
            leases.pop((item, who), None)
        elif what == "expire":
            now += data.draw(st.integers(0, 3))
            pool.expire(now)
            leases = {key: until for key, until in leases.items() if until > now}
        elif what == "count":
            pool.say(item, "", "f")
            count[item] += 1
        elif count[item]:
            pool.say(item, "f", "")
            count[item] -= 1
        is_open = {i for i in ids if count[i] + sum(1 for j, _ in leases if j == i) < overlap}
        assert {i for i in ids if pool.is_open(i)} == is_open
        assert pool.complete == sum(count[i] >= overlap for i in ids)
        for annotator in people_:
            eligible = {i for i in is_open if (i, annotator) not in seen}
            assert pool.left_for(annotator) == len(eligible)
            assert {d.item.item_id for d in pool.draw(annotator, 10)} == eligible
            some = pool.draw(annotator, 3)
            assert len(some) == min(3, len(eligible))
            assert {d.item.item_id for d in some} <= eligible


def test_100_000_pairs_are_drawn_from_in_milliseconds() -> None:
    pool = pool_of(*items(100_000, categories=12))
    started = time.thread_time()  # how busy the machine is does not count
    for _ in range(100):
        for d in pool.draw("ann", 30):
            pool.see(d.item.item_id, "ann")
            pool.lease(d.item.item_id, "ann", 1e12)
    assert (time.thread_time() - started) / 100 < 0.02


# --- sides ---


def test_sides_are_a_fair_coin_per_annotator_and_per_pair() -> None:
    """|left - right| within 4 sigma of a fair coin, for one annotator over pairs and for one pair over annotators."""
    n, bound = 20_000, 4 * (20_000 * 0.25) ** 0.5
    assert abs(sum(swapped("ann", f"pair-{k}") for k in range(n)) - n / 2) < bound
    assert abs(sum(swapped(f"person-{k}", "pair") for k in range(n)) - n / 2) < bound
    both = sum(swapped("ann", f"pair-{k}") == swapped("bea", f"pair-{k}") for k in range(n))
    assert abs(both - n / 2) < bound


def test_sides_served_are_stored_and_are_the_pairs_own(db: Any) -> None:
    project = seed_project(db, 40)
    served = Assignment(db).serve("ann", project.project_id, 40)
    pairs = {row["pair_id"]: row for row in db.rows("select * from pairs")}
    stored = {i.impression_id: i for i in impressions.of_annotator(db, "ann", project.project_id)}
    assert len(served) == len(stored) == 40
    for s in served:
        i, pair = s.impression, pairs[s.impression.pair_id]
        assert {i.left_completion_id, i.right_completion_id} == {pair["completion_a"], pair["completion_b"]}
        assert (i.left_completion_id == pair["completion_b"]) == swapped("ann", pair["pair_id"])
        assert stored[i.impression_id].left_completion_id == i.left_completion_id
        assert s.left == completions.get(db, i.left_completion_id).text
        assert s.right == completions.get(db, i.right_completion_id).text
        assert s.prompt.prompt_id == pair["prompt_id"]
    assert 5 < sum(s.impression.left_completion_id == pairs[s.impression.pair_id]["completion_a"] for s in served) < 35


# --- serving over the database ---


def test_unlabelled_impressions_come_back_with_the_same_sides(db: Any) -> None:
    project = seed_project(db, 30)
    ours = Assignment(db)
    first = ours.serve("ann", project.project_id, 10)
    again = ours.serve("ann", project.project_id, 10)
    assert [s.impression for s in again] == [s.impression for s in first]
    restarted = Assignment(db).serve("ann", project.project_id, 10)
    assert {s.impression.impression_id: s.left for s in restarted} == {s.impression.impression_id: s.left for s in first}
    more = ours.serve("ann", project.project_id, 15)
    assert [s.impression for s in more[:10]] == [s.impression for s in first]
    assert len({s.impression.pair_id for s in more}) == 15


def test_labelled_ones_do_not_come_back_and_a_retracted_one_does(db: Any) -> None:
    project = seed_project(db, 5)
    ours = Assignment(db)
    first, second, *_ = ours.serve("ann", project.project_id, 5)
    preferences.cast(db, "ann", first.impression.impression_id, "a")
    preferences.skip(db, "ann", second.impression.impression_id)
    served = {s.impression.impression_id for s in ours.serve("ann", project.project_id, 5)}
    assert len(served) == 3
    assert not served & {first.impression.impression_id, second.impression.impression_id}
    assert ours.progress("ann", project.project_id)[:4] == (1, 1, 1, 5)
    preferences.retract(db, "ann", first.impression.impression_id)
    assert first.impression in [s.impression for s in ours.serve("ann", project.project_id, 5)]
    assert ours.progress("ann", project.project_id)[:4] == (0, 1, 0, 5)


def test_a_lease_keeps_others_away_until_it_ends(db: Any) -> None:
    project = seed_project(db, 8)
    clock = [time.time()]
    ours = Assignment(db, lease_seconds=60, clock=lambda: clock[0])
    first = ours.serve("ann", project.project_id, 8)
    assert ours.serve("bea", project.project_id, 8) == []
    assert ours.release("ann", [first[0].impression.impression_id]) == 1
    assert [s.impression.pair_id for s in ours.serve("bea", project.project_id, 8)] == [first[0].impression.pair_id]
    clock[0] += 61
    assert len(ours.serve("bea", project.project_id, 8)) == 8


def test_a_skip_leaves_the_pair_to_others_and_never_returns_it(db: Any) -> None:
    project = seed_project(db, 1)
    ours = Assignment(db)
    [served] = ours.serve("ann", project.project_id, 5)
    preferences.skip(db, "ann", served.impression.impression_id)
    assert ours.serve("ann", project.project_id, 5) == []
    assert [s.impression.pair_id for s in ours.serve("bea", project.project_id, 5)] == [served.impression.pair_id]


def test_a_pair_that_another_completed_is_not_served_again(db: Any) -> None:
    project = seed_project(db, 1)
    clock = [time.time()]
    ours = Assignment(db, lease_seconds=60, clock=lambda: clock[0])
    [mine] = ours.serve("ann", project.project_id, 1)
    clock[0] += 61
    [theirs] = ours.serve("bea", project.project_id, 1)
    preferences.cast(db, "bea", theirs.impression.impression_id, "b")
    assert ours.serve("ann", project.project_id, 1) == []
    preferences.cast(db, "ann", mine.impression.impression_id, "a")  # late, and kept all the same
    assert labels.counts(db, project.project_id).labels == 2


def test_new_pairs_are_served_as_they_arrive(db: Any) -> None:
    project = seed_project(db, 1)
    ours = Assignment(db)
    assert len(ours.serve("ann", project.project_id, 10)) == 1
    p = prompt(project, "A prompt that comes later")
    prompts.add(db, [p])
    completions.add(db, [completion(p, "one", 0), completion(p, "two", 1), completion(p, "two", 2)])
    assert len(ours.serve("ann", project.project_id, 10)) == 2
    assert ours.progress("ann", project.project_id).total == 2


def test_binary_items_are_completions_and_equal_texts_are_one(db: Any) -> None:
    project = seed_project(db, 4, n_completions=3, task="binary")
    p = prompts.of_project(db, project.project_id)[0]
    completions.add(db, [completion(p, f"Answer 0 to: {p.text} ", 9)])
    ours = Assignment(db)
    served = ours.serve("ann", project.project_id, 50)
    assert len(served) == 12
    assert len({s.impression.prompt_id for s in served[:4]}) == 4
    assert all(s.impression.pair_id == "" and s.impression.right_completion_id == "" and s.right == "" for s in served)
    preferences.cast(db, "ann", served[0].impression.impression_id, "good")
    assert ours.progress("ann", project.project_id)[:4] == (1, 0, 1, 12)


def test_projects_do_not_mix(db: Any) -> None:
    one, other = seed_project(db, 3), seed_project(db, 3, name="Other")
    ours = Assignment(db)
    assert {s.impression.project_id for s in ours.serve("ann", one.project_id, 10)} == {one.project_id}
    assert {s.impression.project_id for s in ours.serve("ann", other.project_id, 10)} == {other.project_id}
    with pytest.raises(NotFound):
        ours.serve("ann", "no such project", 1)


def test_nothing_is_leased_when_nothing_could_be_stored(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project = seed_project(db, 6)
    ours = Assignment(db)

    def full(*_: object) -> Future[int]:
        failed: Future[int] = Future()
        failed.set_exception(OSError("no space left"))
        return failed

    with monkeypatch.context() as broken:
        broken.setattr(assignment.impressions, "submit_new", full)
        with pytest.raises(OSError, match="no space"):
            ours.serve("ann", project.project_id, 6)
    assert impressions.of_annotator(db, "ann", project.project_id) == []
    assert len(ours.serve("bea", project.project_id, 3)) == 3
    assert len(ours.serve("ann", project.project_id, 6)) == 3


def test_a_destroyed_project_is_forgotten(db: Any) -> None:
    people.ensure(db, "visitor-1", "Visitor", "visitor")
    project = seed_project(db, 3, owner="visitor-1")
    ours = Assignment(db)
    assert len(ours.serve("visitor-1", project.project_id, 3)) == 3
    projects.destroy(db, project.project_id)
    with pytest.raises(NotFound):
        ours.serve("visitor-1", project.project_id, 3)


def test_more_news_than_is_kept_is_read_from_the_tables(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project = seed_project(db, 2)
    ours = Assignment(db)
    ours.serve("ann", project.project_id, 1)
    monkeypatch.setattr(assignment, "MAX_NEWS_ROWS", 3)
    asked = [prompt(project, f"Later {k}") for k in range(10)]
    prompts.add(db, asked)
    completions.add(db, [completion(p, f"{k}", k) for p in asked for k in range(2)])
    assert ours._news == [Change("schema")] or ours._news_rows <= 3
    assert len(ours.serve("ann", project.project_id, 50)) == 12


def test_eight_people_at_once_share_out_every_pair_once(db: Any) -> None:
    project = seed_project(db, 120)
    ours = Assignment(db)
    got: dict[str, list[str]] = defaultdict(list)
    failures: list[BaseException] = []

    def label(annotator: str) -> None:
        rng = random.Random(annotator)
        try:
            while served := ours.serve(annotator, project.project_id, 7):
                for s in served:
                    choice = rng.choice(["a", "b", "tie", "both_bad"])
                    preferences.cast(db, annotator, s.impression.impression_id, choice)  # type: ignore[arg-type]
                    got[annotator].append(s.impression.pair_id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=label, args=(f"person-{k}",)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert Counter(pair for pairs in got.values() for pair in pairs) == {
        r["pair_id"]: 1 for r in db.rows("select pair_id from pairs")
    }
    assert ours.progress("person-0", project.project_id).complete == 120


def test_two_requests_of_one_person_at_once_get_only_what_is_stored(db: Any) -> None:
    project = seed_project(db, 60)
    ours = Assignment(db)
    results: list[list[str]] = []

    def ask() -> None:
        served = [s.impression.impression_id for s in ours.serve("ann", project.project_id, 20)]
        assert len(impressions.get_many(db, served)) == 20
        results.append(served)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 6
    assert len({frozenset(r) for r in results}) == 1


@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_history_leaves_the_memory_equal_to_the_tables(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Random serving, votes, revisions, retractions by three people: a fresh memory read from the tables agrees with the one that
    followed along, no pair was ever served twice to one person, and each stored choice is of the side that was shown."""
    from data.database import Database
    from data.settings import Settings

    db = Database(Settings(home=tmp_path_factory.mktemp("history") / "workspace"))
    try:
        project = seed_project(db, 8, n_completions=3)
        ours = Assignment(db, lease_seconds=1000)
        shown: list[Any] = []
        for _ in range(data.draw(st.integers(1, 25))):
            what = data.draw(st.sampled_from(["serve", "cast", "cast", "revise", "retract", "skip", "release"]))
            if what == "serve" or not shown:
                shown += ours.serve(
                    data.draw(st.sampled_from(["ann", "bea", "cid"])), project.project_id, data.draw(st.integers(1, 5))
                )
                continue
            s = data.draw(st.sampled_from(shown)).impression
            if what == "release":
                ours.release(s.annotator_id, [s.impression_id])
            elif what == "retract":
                preferences.retract(db, s.annotator_id, s.impression_id)
            elif what == "skip":
                preferences.skip(db, s.annotator_id, s.impression_id)
            else:
                choice = data.draw(st.sampled_from(["a", "b", "tie", "both_bad", "skip"]))
                {"cast": preferences.cast, "revise": preferences.revise}[what](db, s.annotator_id, s.impression_id, choice)
        fresh = Assignment(db, lease_seconds=1000)
        for who in ("ann", "bea", "cid"):
            assert ours.progress(who, project.project_id)[:5] == fresh.progress(who, project.project_id)[:5]
            mine = impressions.of_annotator(db, who, project.project_id)
            assert len({i.pair_id for i in mine}) == len(mine)
        sides = {i.impression_id: i for who in ("ann", "bea", "cid") for i in impressions.of_annotator(db, who, project.project_id)}
        for label in labels.current(db, project.project_id):
            i = sides[label.impression_id]
            expected = {"a": (i.left_completion_id, i.right_completion_id), "b": (i.right_completion_id, i.left_completion_id)}
            assert (label.chosen_completion_id, label.rejected_completion_id) == expected.get(label.preference, ("", ""))
    finally:
        db.close()
