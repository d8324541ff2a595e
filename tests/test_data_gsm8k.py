"""The GSM8K checker: every published reference is read, odd ways to write a number are understood, wrong ones are wrong."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.checkers import CHECKERS, checker
from data.checkers.gsm8k import covers, expected, final_number, grade
from data.errors import BadInput


def test_all_published_references_are_read_and_grade_themselves(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1319
    for row in rows:
        solution = row["answer"]
        number = expected(solution)
        assert number is not None
        assert number == Decimal(solution.split("####")[1].strip().replace(",", ""))
        assert grade(solution, solution), solution
        assert grade(str(number), solution), "a bare number is a reference too"
        assert not grade(solution, solution.split("####")[0] + f"#### {number + 1}")


def test_a_worked_solution_without_the_mark_is_read_by_its_last_number(shared_data: Path) -> None:
    """Most published solutions name their result last; where it is not the last number no rule could tell."""
    rows = [json.loads(line) for line in (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    right = sum(grade(row["answer"], row["answer"].split("####")[0]) for row in rows)
    assert right / len(rows) > 0.9


@pytest.mark.parametrize(
    "answer",
    [
        "#### 70000",
        "#### $70,000.00",
        "#### 70,000 dollars",
        "####70000.",
        "So he made $70,000.",
        "The answer is 70,000 after 3 years.",
        "The answer: **70000**\nI used 5 steps.",
        r"\[ \boxed{70{,}000} \]",
        r"\boxed{\$70,000}",
        "7e4",
        "140000/2",
        "It is 20,000 + 50,000 = 70,000",
        "70\u00a0000".replace("\u00a0", ","),
        "First I thought the answer is 5. No: the answer is 70000",
    ],
)
def test_ways_to_write_the_right_number(answer: str) -> None:
    assert grade("He profits.\n#### 70,000", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "seventy thousand",
        "#### ",
        "70000 #### 7",
        "-70000",
        "#### −70000",
        "70000.5",
        "700000",
        "70,0000",
        "7,0000",
        "#### 70000/0",
        "٧٠٠٠٠",
        "The answer is 3, not 70000",
        "It is not 70000 but 69999",
        "70000" + "0" * 100,
    ],
)
def test_wrong_or_unreadable_answers_are_wrong(answer: str) -> None:
    assert not grade("#### 70000", answer)


@pytest.mark.parametrize(
    ("text", "number"),
    [("5-3", 3), ("from 10-15 minutes", 15), ("it fell by -4 degrees", -4), ("-$4", -4), ("$-4", -4), ("x = -4", -4), (".5", "0.5"),
     ("1/4 of it", "0.25"), ("3 and 1,2,3", 3), ("50% of 8", 8), ("room B12.", 12)],
)  # fmt: skip
def test_which_number_is_the_last(text: str, number: object) -> None:
    assert final_number(text) == Decimal(str(number))


def test_a_prose_reference_is_not_covered() -> None:
    for reference in ("", "About 5 of them", "#### none", "Paris", "1 2", "#### " + "9" * 99):
        assert not covers(reference)
        assert not grade(reference, "5")


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    final_number(text)
    assert grade("#### 18", text) in (True, False)


@pytest.mark.parametrize(
    "hostile", ["9" * 500_000, "1," * 250_000, "-" * 500_000, "answer is " * 50_000, "\\boxed{" * 60_000, "1/" * 200_000]
)
def test_hostile_answers_are_read_quickly(hostile: str) -> None:
    started = time.process_time()
    assert not grade("#### 18", hostile)
    assert time.process_time() - started < 1.0


def test_the_list_of_checkers() -> None:
    assert set(CHECKERS) == {"demo_world", "gsm8k"}
    world, sums = checker("demo_world"), checker("gsm8k")
    assert world.covers("What is 7 + 12?", "")
    assert not sums.covers("What is 7 + 12?", "")
    assert world.score("What is 7 + 12?", "", "19") == 1.0 > world.score("What is 7 + 12?", "", "20")
    assert sums.score("any", "#### 19", "It is 19.") == 1.0
    assert sums.score("any", "#### 19", "It is 20.") == 0.0
    with pytest.raises(BadInput, match="demo_world, gsm8k"):
        checker("judge")
