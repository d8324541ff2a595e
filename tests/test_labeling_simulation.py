"""Thirty-two people at once, careless with their browsers: no pair above its overlap but by labels marked extra, nobody meets a
pair twice except in a planned repeat, everything gets done, and the memory is what the tables say."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from at_once import at_once
from labelling import seed_project
from simulation import Crowd, check_nobody_twice, labels_by_item

from data import gold, impressions, projects
from data.records import ProjectSettings
from labeling import preferences
from labeling.assignment import Assignment
from labeling.overlap import always_full
from labeling.preferences import Vote

pytestmark = pytest.mark.long

PLAIN = ProjectSettings(gold_rate=0, repeat_rate=0)
RULES = {
    "one label": PLAIN,
    "three labels": replace(PLAIN, overlap=3),
    "adaptive": replace(PLAIN, adaptive=True, max_overlap=5, full_overlap=0.2),
    "gold and repeats": ProjectSettings(overlap=2, gold_rate=0.1, repeat_rate=0.1),
}


@pytest.mark.parametrize("name", ["one label", "adaptive", "gold and repeats"])
def test_thirty_two_people_finish_a_project(db: Any, name: str) -> None:
    finish(db, RULES[name], prompts=10, seed=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", RULES)
def test_thirty_two_people_finish_a_larger_project(db: Any, name: str, seed: int) -> None:
    finish(db, RULES[name], prompts=60, seed=seed)


def finish(db: Any, rules: ProjectSettings, prompts: int, seed: int) -> None:
    project = seed_project(db, prompts, n_completions=3)
    projects.change(db, project.project_id, rules)
    for row in db.rows("select pair_id from pairs order by pair_id limit 4") if rules.gold_rate else []:
        gold.add(db, project.project_id, row["pair_id"], "first", "researcher")
    crowd = Crowd(db, project.project_id, people=32, seed=seed)
    crowd.run()
    assert min(crowd.crashes, crowd.late) >= 2, "the simulation must be careless, or it proves nothing"
    check_nobody_twice(db, project.project_id)
    done = labels_by_item(db, project.project_id)
    is_gold = {g.item_id for g in gold.current(db, project.project_id)}
    extra = 0
    for row in db.rows("select pair_id from pairs where pair_id not in (select unnest(?::varchar[]))", [sorted(is_gold)]):
        labels = done[row["pair_id"]]
        assert len({label.annotator_id for label in labels}) == len(labels)
        counted = [label.said for label in labels if not label.extra]
        extra += len(labels) - len(counted)
        assert enough(row["pair_id"], "".join(label.said for label in labels), rules), "an item was left undone"
        assert len(counted) <= most(row["pair_id"], rules)
        if rules.adaptive and not always_full(row["pair_id"], rules.full_overlap):
            assert max(Counter(counted).values()) <= 2, "two that agree are enough"
    progress = crowd.assignment.progress("person-0", project.project_id)
    assert progress.complete == progress.total == 3 * prompts
    assert extra < 2 * prompts, f"{extra} labels too many"


def most(item_id: str, rules: ProjectSettings) -> int:
    return rules.max_overlap if rules.adaptive else rules.overlap


def enough(item_id: str, said: str, rules: ProjectSettings) -> bool:
    if not rules.adaptive:
        return len(said) >= rules.overlap
    agree = max(Counter(said).values(), default=0) >= 2 and not always_full(item_id, rules.full_overlap)
    return agree or len(said) >= rules.max_overlap


def test_real_threads_over_the_real_database(db: Any) -> None:
    """Thirty-two threads, leases so short that they expire all the time, votes that arrive together."""
    project = seed_project(db, 60)
    projects.change(db, project.project_id, replace(PLAIN, overlap=2))
    ours = Assignment(db, lease_seconds=0.3)

    def label(who: str) -> None:
        rng = random.Random(who)
        idle = 0
        while idle < 4:
            served = ours.serve(who, project.project_id, rng.choice([2, 6]))
            idle = 0 if served else idle + 1
            if rng.random() < 0.1 or not served:
                time.sleep(rng.uniform(0, 0.4))  # a crash, or nothing to do
                continue
            votes = [Vote(str(uuid.uuid4()), s.impression.impression_id, "cast", rng.choice("ab")) for s in served]
            assert all(o.accepted for o in preferences.record(db, who, votes, assignment=ours))

    at_once([partial(label, f"person-{k}") for k in range(32)])
    check_nobody_twice(db, project.project_id)
    done = labels_by_item(db, project.project_id)
    assert len(done) == 60
    for labels in done.values():
        assert len(labels) >= 2
        assert sum(not label.extra for label in labels) == 2, "the overlap, and above it only what is marked"
    assert ours.progress("person-0", project.project_id).complete == 60


def test_two_late_votes_that_arrive_together_are_told_apart(db: Any) -> None:
    """Three people hold an expired lease on the one pair and vote at once: one label takes the place, two are extra."""
    project = seed_project(db, 1)
    now = [1_700_000_000.0]
    ours = Assignment(db, clock=lambda: now[0])
    shown = {}
    for who in ("ann", "bea", "cid"):
        [served] = ours.serve(who, project.project_id, 5)
        shown[who] = served.impression.impression_id
        now[0] += 121

    def vote(who: str) -> None:
        preferences.record(db, who, [Vote(str(uuid.uuid4()), shown[who], "cast", "a")], assignment=ours)

    at_once([partial(vote, who) for who in shown])
    [labels] = labels_by_item(db, project.project_id).values()
    assert sorted(label.extra for label in labels) == [False, True, True]


def test_an_extra_label_stays_extra_when_it_is_revised_and_a_place_stays_a_place(db: Any) -> None:
    project = seed_project(db, 1)
    now = [1_700_000_000.0]
    ours = Assignment(db, clock=lambda: now[0])
    [mine] = ours.serve("ann", project.project_id, 5)
    now[0] += 121
    [theirs] = ours.serve("bea", project.project_id, 5)
    for who, shown in (("bea", theirs), ("ann", mine)):
        preferences.record(db, who, [Vote(str(uuid.uuid4()), shown.impression.impression_id, "cast", "a")], assignment=ours)
    for who, shown in (("bea", theirs), ("ann", mine)):
        vote = Vote(str(uuid.uuid4()), shown.impression.impression_id, "revised", "b")
        preferences.record(db, who, [vote], assignment=ours)
    [labels] = labels_by_item(db, project.project_id).values()
    assert {label.annotator_id: label.extra for label in labels} == {"bea": False, "ann": True}


def test_nobody_holds_more_than_their_share_of_what_is_left(db: Any) -> None:
    project = seed_project(db, 30)
    now = [1_700_000_000.0]
    ours = Assignment(db, clock=lambda: now[0])
    assert len(ours.serve("ann", project.project_id, 12)) == 12
    assert len(ours.serve("bea", project.project_id, 30)) == 15  # two at work
    assert len(ours.serve("cid", project.project_id, 30)) == 3  # all that is not held
    mine = [i.impression_id for i in impressions.of_annotator(db, "bea", project.project_id)]
    beat = ours.heartbeat("bea", project.project_id, mine)
    assert (beat.kept, len(beat.lost)) == (mine[:10], 5), "three at work: the last ones go to the others"
    assert len(ours.serve("cid", project.project_id, 30)) == 8
    now[0] += 119
    assert ours.heartbeat("bea", project.project_id, mine[:10]).kept == mine[:10]
    now[0] += 2  # the others are gone, and what they held is free again
    assert len(ours.serve("bea", project.project_id, 30)) == 30


def test_a_heartbeat_keeps_a_place_as_long_as_it_beats(db: Any) -> None:
    project = seed_project(db, 4)
    now = [1_700_000_000.0]
    ours = Assignment(db, clock=lambda: now[0])
    mine = [s.impression.impression_id for s in ours.serve("ann", project.project_id, 2)]
    for _ in range(30):
        now[0] += 20
        assert ours.heartbeat("ann", project.project_id, mine).kept == mine
    theirs = [s.impression.impression_id for s in ours.serve("bea", project.project_id, 4)]
    assert len(theirs) == 2, "what ann holds is hers after ten minutes"
    now[0] += 121
    assert len(ours.serve("bea", project.project_id, 4)) == 4
    beat = ours.heartbeat("ann", project.project_id, mine)
    assert beat.kept == [], "after two minutes without a beat it may be another's"
    assert ours.heartbeat("bea", project.project_id, ["nonsense", mine[0]]).lost == ["nonsense", mine[0]]


def test_settings_count_at_once_and_leases_outlive_the_change(db: Any) -> None:
    project = seed_project(db, 10)
    ours = Assignment(db)
    first = ours.serve("ann", project.project_id, 4)
    assert len(ours.serve("bea", project.project_id, 10)) == 5
    ours.release("bea", [i.impression_id for i in impressions.of_annotator(db, "bea", project.project_id)][:2])
    projects.change(db, project.project_id, replace(PLAIN, overlap=2))
    again = ours.serve("ann", project.project_id, 4)
    assert [s.impression for s in again] == [s.impression for s in first], "what is on the screen stays there"
    assert len(ours.serve("cid", project.project_id, 10)) == 4  # its share of ten among three
    project_of = ours.progress("cid", project.project_id)
    assert (project_of.complete, project_of.total) == (0, 10)
    counts: Counter[str] = Counter()
    by: dict[str, list[str]] = defaultdict(list)
    for i in db.rows("select * from impressions"):
        counts[i["pair_id"]] += 1
        by[i["annotator_id"]].append(i["pair_id"])
    assert max(counts.values()) <= 3
