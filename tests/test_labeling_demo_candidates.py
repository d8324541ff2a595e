"""The shipped candidates: what a visitor labels first has answers that differ, good and bad; one prompt in five is held out."""

from __future__ import annotations

import json

from data.checkers.demo_world import grade
from data.demo.world import PROMPTS_FILE
from data.splits import split_of

ROWS = [json.loads(line) for line in PROMPTS_FILE.with_name("candidates.jsonl").read_text(encoding="utf-8").split("\n") if line]


def test_candidates_belong_to_the_demos_prompts_and_one_in_five_is_held_out() -> None:
    shipped = {json.loads(line)["prompt"] for line in PROMPTS_FILE.read_text(encoding="utf-8").splitlines()}
    assert len(ROWS) >= 60
    assert {row["prompt"] for row in ROWS} <= shipped
    held_out = sum(split_of(row["prompt"]) == "held_out" for row in ROWS)
    assert 0.18 <= held_out / len(ROWS) <= 0.22


def test_candidates_of_a_prompt_differ_and_most_have_four() -> None:
    texts = [[one["text"].strip() for one in row["completions"]] for row in ROWS]
    assert all(len(set(found)) == len(found) >= 2 for found in texts)
    assert sum(len(found) == 4 for found in texts) >= 0.9 * len(texts)


def test_candidates_give_people_something_to_say() -> None:
    good = [[grade(row["prompt"], one["text"]).good for one in row["completions"]] for row in ROWS]
    assert sum(any(found) and not all(found) for found in good) >= 0.6 * len(good)
