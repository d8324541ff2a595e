"""Whatever is cast, undone, revised, excluded and restored, in any order: what stands is what a replay of it says, and the memory
that followed along is the one that a restart would read from the tables."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from labelling import completion, prompt, seed_project

from data import adjudications, completions, gold, impressions, labels, projects, prompts
from data.errors import BadInput, NotFound
from data.records import ProjectSettings, Task
from labeling import preferences
from labeling.assignment import Assignment
from labeling.memory import ProjectMemory
from labeling.memory_load import load
from labeling.preferences import Vote
from labeling.track import REPEAT_AFTER

pytestmark = pytest.mark.long

RULES = ProjectSettings(overlap=2, adaptive=True, max_overlap=3, full_overlap=0.3, gold_rate=0.2, repeat_rate=0.2)
PEOPLE = ("ann", "bea", "cid")


def picture(memory: ProjectMemory) -> dict[str, Any]:
    """All that is remembered and must be the same after a restart: but for leases, and times that are only in memory."""
    pool = memory.pool
    return {
        "items": {i: (pool.said(i), {who for who in PEOPLE if pool.seen(i, who)}, pool.wanted(i)) for i in pool.items},
        "complete": (pool.complete, pool.remaining, pool.first_rank),
        "gold": memory.gold,
        "decided": memory.adjudicated,
        "extra": memory.extra,
        "pending": {item: of for item, of in memory.pending.items() if of},
        "people": {
            who: (
                track.labelled,
                track.skipped,
                track.position,
                set(track.shown),
                track.today,
                {i: past.answer for i, past in track.recent.items()},
                track.echoes,
            )
            for who in PEOPLE
            for track in [memory.tracks[who]]
        },
    }


def memory_of(ours: Assignment, project_id: str) -> ProjectMemory:
    with ours._lock:
        return ours._project(project_id)


class Replay:
    """What the annotators said last, and what researchers left out, by impression."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.out: set[str] = set()

    @property
    def stands(self) -> dict[str, str]:
        return {i: said for i, said in self.said.items() if said and i not in self.out}


@pytest.mark.parametrize("task", ["pairwise", "binary"])
@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_any_sequence_equals_a_replay_and_a_restart(db: Any, task: Task, data: st.DataObject) -> None:
    project = seed_project(db, 8, n_completions=3, task=task, name=f"Replay {uuid.uuid4()}")
    projects.change(db, project.project_id, RULES)
    now = [1_700_000_000.0]
    ours, replay = Assignment(db, clock=lambda: now[0]), Replay()
    shown: list[Any] = []
    items = sorted(memory_of(ours, project.project_id).pool.items)
    words = ["a", "b", "tie", "both_bad", "skip"] if task == "pairwise" else ["good", "bad", "skip"]
    steps = [
        "serve",
        "cast",
        "cast",
        "cast",
        "revised",
        "retracted",
        "exclude",
        "restore",
        "gold",
        "decide",
        "later",
        "release",
        "pair",
    ]
    for _ in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(steps))
        if what == "serve" or not shown:
            who = data.draw(st.sampled_from(PEOPLE))
            served = [s.impression for s in ours.serve(who, project.project_id, data.draw(st.integers(1, 8)))]
            shown += [i for i in served if i not in shown]
        elif what == "later":
            now[0] += data.draw(st.sampled_from([30, 200]))
        elif what == "gold":
            item = data.draw(st.sampled_from(items))
            if data.draw(st.booleans()):
                gold.add(db, project.project_id, item, "tie" if task == "pairwise" else "good", "ray")
            else:
                gold.withdraw(db, project.project_id, item, "ray")
        elif what == "decide":
            outcome = data.draw(st.sampled_from(["tie" if task == "pairwise" else "bad", ""]))
            adjudications.add(db, project.project_id, data.draw(st.sampled_from(items)), outcome, "because", "ray")  # type: ignore[arg-type]
        elif what == "pair":
            p = prompt(project, f"A later question {uuid.uuid4()}")
            prompts.add(db, [p])
            completions.add(db, [completion(p, "one", 0), completion(p, "two", 1)])
        else:
            label(db, ours, replay, data.draw(st.sampled_from(shown)), what, data.draw(st.sampled_from(words)))
        if data.draw(st.booleans()):
            memory_of(ours, project.project_id)  # taken in at once, or with what comes next
    assert {e.impression_id: e.preference for e in labels.current(db, project.project_id)} == replay.stands
    followed = memory_of(ours, project.project_id)
    assert picture(followed) == picture(load(db, project.project_id))
    for who in PEOPLE:
        past = preferences.history(db, who, project.project_id, 1000)
        mine = {i.impression_id for i in shown if i.annotator_id == who}
        assert {p.impression.impression_id: p.preference for p in past} == {i: s for i, s in replay.stands.items() if i in mine}


def label(db: Any, ours: Assignment, replay: Replay, impression: Any, what: str, word: str) -> None:
    i = impression.impression_id
    if what == "release":
        ours.release(impression.annotator_id, [i])
    elif what == "exclude":
        assert preferences.exclude(db, "ray", [i], "clicks through") == (i not in replay.out)
        replay.out.add(i)
    elif what == "restore":
        assert preferences.restore(db, "ray", [i], "was right after all") == (i in replay.out)
        replay.out.discard(i)
    else:
        said = "" if what == "retracted" else word
        vote = Vote(str(uuid.uuid4()), i, what, said, dwell_ms=9000)
        for _ in range(2):  # sent twice
            [outcome] = preferences.record(db, impression.annotator_id, [vote], assignment=ours)
            assert outcome.accepted, outcome
        replay.said[i] = said


def test_an_exclusion_outlives_what_the_annotator_changes(db: Any) -> None:
    project = seed_project(db, 3)
    ours = Assignment(db)
    [served] = ours.serve("ann", project.project_id, 1)
    i = served.impression.impression_id
    preferences.cast(db, "ann", i, "a")
    assert preferences.exclude(db, "ray", [i], "clicks through") == 1
    assert labels.current(db, project.project_id) == []
    assert ours.progress("ann", project.project_id).complete == 0
    preferences.revise(db, "ann", i, "b")
    assert labels.current(db, project.project_id) == []
    assert ours.progress("ann", project.project_id)[:3] == (0, 0, 0)
    assert [s.impression.impression_id for s in ours.serve("ann", project.project_id, 5)].count(i) == 0
    assert preferences.restore(db, "ray", [i], "spoke to her") == 1
    assert [e.preference for e in labels.current(db, project.project_id)] == ["b"]
    assert ours.progress("ann", project.project_id)[:3] == (1, 0, 1)
    events = [(e.event, e.actor, e.note, e.annotator_id) for e in labels.history(db, i)]
    assert events[1] == ("excluded", "ray", "clicks through", "ann")
    assert events[3] == ("restored", "ray", "spoke to her", "ann")


def test_what_is_left_out_needs_a_name_a_reason_and_a_label(db: Any) -> None:
    project = seed_project(db, 3)
    [served] = Assignment(db).serve("ann", project.project_id, 1)
    for actor, reason in (("", "because"), ("ray", " ")):
        with pytest.raises(BadInput, match="name and a reason"):
            preferences.exclude(db, actor, [served.impression.impression_id], reason)
    with pytest.raises(NotFound):
        preferences.exclude(db, "ray", [served.impression.impression_id, "nonsense"], "because")
    assert db.value("select count(*) from label_events") == 0


def test_gold_and_repeats_come_at_their_rate_and_far_enough_apart(db: Any) -> None:
    """1,000 items of one person at 10 % and 10 %: both within 4 sigma, each gold once, each repeat of its own item, the other way
    round, with at least twenty items between; neither counts for an item's overlap."""
    project = seed_project(db, 1000)
    projects.change(db, project.project_id, ProjectSettings(gold_rate=0.1, repeat_rate=0.1))
    chosen = [row["pair_id"] for row in db.rows("select pair_id from pairs order by pair_id limit 200")]
    db.insert("gold", [gold_row(project.project_id, pair_id) for pair_id in chosen])
    ours = Assignment(db)
    order: list[Any] = []
    while len(order) < 1000 and (served := ours.serve("ann", project.project_id, 23)):
        said = [Vote(str(uuid.uuid4()), s.impression.impression_id, "cast", "a", dwell_ms=9000) for s in served]
        preferences.record(db, "ann", said, assignment=ours)
        order += [s.impression for s in served]
    at = {impression.impression_id: k for k, impression in enumerate(order)}
    repeats, golden = [i for i in order if i.kind == "repeat"], [i for i in order if i.kind == "gold"]
    bound = 4 * (len(order) * 0.1 * 0.9) ** 0.5
    assert abs(len(golden) - 0.1 * len(order)) < bound
    assert abs(len(repeats) - 0.1 * len(order)) < bound
    assert len({i.pair_id for i in golden}) == len(golden)
    assert {i.pair_id for i in golden} <= set(chosen)
    assert min(at[i.impression_id] - at[i.repeat_of] - 1 for i in repeats) >= REPEAT_AFTER
    assert len({i.repeat_of for i in repeats}) == len(repeats)
    stored = {i.impression_id: i for i in impressions.of_annotator(db, "ann", project.project_id)}
    assert [i.impression_id for i in sorted(stored.values(), key=lambda i: i.served_at)] == [i.impression_id for i in order]
    for i in repeats:
        first = stored[i.repeat_of]
        assert (i.left_completion_id, i.right_completion_id) == (first.right_completion_id, first.left_completion_id)
    memory = memory_of(ours, project.project_id)
    assert all(memory.pool.said(i.pair_id) == "" for i in golden)
    assert all(len(memory.pool.said(i.pair_id)) == 1 for i in repeats)
    progress = ours.progress("ann", project.project_id)
    assert progress.consistency == (0.0, len(repeats)), "always left is never the same answer twice"
    assert progress.complete == len(chosen) + sum(i.kind == "normal" for i in order)


def gold_row(project_id: str, pair_id: str) -> dict[str, Any]:
    from data.records import Gold, now, to_row

    return to_row(Gold(f"g-{pair_id}", project_id, pair_id, "first", "entered", "ray", "", now()))


def test_nobody_is_kept_labelling_what_is_known(db: Any) -> None:
    """When no item is left, neither gold nor repeats come alone."""
    project = seed_project(db, 30)
    projects.change(db, project.project_id, replace(RULES, adaptive=False, overlap=1))
    ours = Assignment(db)
    while served := ours.serve("ann", project.project_id, 5):
        for s in served:
            preferences.cast(db, "ann", s.impression.impression_id, "a")
    [pair_id] = [row["pair_id"] for row in db.rows("select pair_id from pairs limit 1")]
    gold.add(db, project.project_id, pair_id, "first", "ray")
    assert ours.serve("bea", project.project_id, 30) == []
    assert ours.progress("bea", project.project_id).left == 0


def test_always_left_is_half_of_either_model(db: Any) -> None:
    """Sides are a fair coin for every annotator: whoever always presses left prefers either model equally often (4 sigma)."""
    project = seed_project(db, 600)
    ours = Assignment(db)
    while served := ours.serve("ann", project.project_id, 100):
        votes = [Vote(str(uuid.uuid4()), s.impression.impression_id, "cast", "a") for s in served]
        preferences.record(db, "ann", votes, assignment=ours)
    sql = """select c.model, count(*) as n from current_labels l join completions c on c.completion_id = l.chosen_completion_id
             join impressions i using (impression_id) where i.kind = 'normal' group by c.model"""
    wins = {row["model"]: row["n"] for row in db.rows(sql)}
    assert sum(wins.values()) == 600
    assert len(wins) == 2
    assert all(abs(n - 300) < 4 * (600 * 0.25) ** 0.5 for n in wins.values()), wins
