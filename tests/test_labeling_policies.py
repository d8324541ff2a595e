"""Policies, sources and full overlap over the real tables: what settings say is what is served, at once."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from labelling import MODEL_NAME, completion, prompt, seed_project

from data import completions, judgments, projects, prompts
from data.records import Judgment, ProjectSettings, now
from labeling import preferences
from labeling.assignment import Assignment
from labeling.preferences import Vote

PLAIN = ProjectSettings(gold_rate=0, repeat_rate=0)


def judge(db: Any, project_id: str, p_of: dict[str, float], run_id: str = "run") -> None:
    """Verdicts on pairs, p that the pair's first is better; every other one named the other way round."""
    rows = []
    for k, row in enumerate(db.rows("select * from pairs where project_id = ? order by pair_id", [project_id])):
        if row["pair_id"] not in p_of:
            continue
        p, sides = p_of[row["pair_id"]], (row["completion_a"], row["completion_b"])
        if k % 2:
            p, sides = 1 - p, (sides[1], sides[0])
        verdict = "tie" if p == 0.5 else "a" if p > 0.5 else "b"
        one = judgments.judgment_id(run_id, row["prompt_id"], k, "m", "n")
        rows.append(
            Judgment(one, run_id, project_id, row["prompt_id"], 0, "m", "n", *sides, "judge", p, p, p, verdict, False, "", now())  # type: ignore[arg-type]
        )
    judgments.add(db, rows)


def pairs_of(db: Any, project_id: str, split: str) -> list[str]:
    sql = """select pair_id from pairs join prompts using (prompt_id) where pairs.project_id = ? and split = ? order by pair_id"""
    return [row["pair_id"] for row in db.rows(sql, [project_id, split])]


def test_close_calls_are_served_first_held_out_ones_at_random(db: Any) -> None:
    project = seed_project(db, 120)
    train, held_out = (pairs_of(db, project.project_id, split) for split in ("train", "held_out"))
    close = set(train[:20])
    judge(db, project.project_id, {p: 0.52 if p in close else 0.95 for p in train} | dict.fromkeys(held_out, 0.5))
    projects.change(db, project.project_id, replace(PLAIN, policy="close_call"))
    ours = Assignment(db)
    served = [s.impression for s in ours.serve("ann", project.project_id, 20)]
    by_policy = [i for i in served if i.policy == "close_call"]
    assert {i.pair_id for i in by_policy} <= close
    assert len(by_policy) == 15
    assert all(0 < i.probability <= 1 for i in served)
    assert not {i.pair_id for i in by_policy} & set(held_out)
    assert {row["probability"] for row in db.rows("select probability from impressions where policy = 'close_call'")} != {1.0}


def test_verdicts_that_come_later_count_from_then_on(db: Any) -> None:
    project = seed_project(db, 60)
    projects.change(db, project.project_id, replace(PLAIN, policy="close_call"))
    ours = Assignment(db)
    assert {s.impression.policy for s in ours.serve("ann", project.project_id, 4)} == {"stratified_random"}
    close = pairs_of(db, project.project_id, "train")[:8]
    judge(db, project.project_id, dict.fromkeys(close, 0.5))
    served = [s.impression for s in ours.serve("bea", project.project_id, 8)]
    assert {i.pair_id for i in served if i.policy == "close_call"} <= set(close)
    assert any(i.policy == "close_call" for i in served)
    projects.change(db, project.project_id, PLAIN)
    assert {s.impression.policy for s in ours.serve("cid", project.project_id, 8)} == {"stratified_random"}


def test_where_people_and_judge_differ_more_people_are_asked(db: Any) -> None:
    project = seed_project(db, 40)
    projects.change(db, project.project_id, replace(PLAIN, policy="judge_disagreement", max_overlap=3))
    train = pairs_of(db, project.project_id, "train")
    judge(db, project.project_id, dict.fromkeys(train, 0.9))
    clock = [1_700_000_000.0]
    ours = Assignment(db, clock=lambda: clock[0])
    differ = set()
    while served := ours.serve("ann", project.project_id, 40):
        for s in served:
            i = s.impression
            second = i.pair_id in train[:5]
            said = "b" if second == (i.left_completion_id < i.right_completion_id) else "a"
            preferences.record(db, "ann", [Vote(str(uuid.uuid4()), i.impression_id, "cast", said)], assignment=ours)
            differ |= {i.pair_id} if second else set()
    assert ours.progress("ann", project.project_id).complete == 40 - len(differ) == 35
    clock[0] += 121  # ann is not at work any more, so bea gets them all
    served = [s.impression for s in ours.serve("bea", project.project_id, 40)]
    assert {i.pair_id for i in served} == differ
    votes = [Vote(str(uuid.uuid4()), i.impression_id, "cast", "tie") for i in served]
    preferences.record(db, "bea", votes, assignment=ours)
    assert not any('"extra"' in row["flags"] for row in db.rows("select flags from label_events")), "they were asked for"


def test_only_answers_of_the_chosen_models_are_labelled(db: Any) -> None:
    project = seed_project(db, 10, n_completions=3)
    ours = Assignment(db)
    assert ours.progress("ann", project.project_id).total == 30
    chosen = (f"{MODEL_NAME}-0", f"{MODEL_NAME}-2")
    projects.change(db, project.project_id, replace(PLAIN, sources=chosen))
    assert ours.progress("ann", project.project_id).total == 10
    p = prompt(project, "A later question")
    prompts.add(db, [p])
    completions.add(db, [completion(p, f"{k}", k) for k in range(3)])
    assert ours.progress("ann", project.project_id).total == 11
    models = {
        c.completion_id: c.model for c in completions.of_prompts(db, [r["prompt_id"] for r in db.rows("select * from prompts")])
    }
    for s in ours.serve("ann", project.project_id, 50):
        assert {models[s.impression.left_completion_id], models[s.impression.right_completion_id]} == set(chosen)
    projects.change(db, project.project_id, PLAIN)
    assert ours.progress("ann", project.project_id).total == 33


def test_only_completions_of_the_chosen_models_in_binary_projects(db: Any) -> None:
    project = seed_project(db, 5, n_completions=3, task="binary")
    projects.change(db, project.project_id, replace(PLAIN, sources=(f"{MODEL_NAME}-1",)))
    ours = Assignment(db)
    assert {s.left.split()[1] for s in ours.serve("ann", project.project_id, 50)} == {"1"}
    p = prompt(project, "A later question")
    prompts.add(db, [p])
    completions.add(db, [completion(p, f"{k}", k) for k in range(3)])
    assert ours.progress("ann", project.project_id).total == 6
    assert Assignment(db).progress("ann", project.project_id).total == 6
