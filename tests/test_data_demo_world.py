"""The demo world: enough prompts, a split that never moves, answers that grade as they were made, a grader that holds."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.checkers.demo_world import Grade, UnknownPrompt, covers, grade, prefer
from data.demo.answers import FLAWS, flawed_answer, good_answer
from data.demo.tasks import FAMILIES, Family, family_prompts, read_prompt
from data.demo.world import PROMPTS_FILE, answer_pair, demo_prompts, judge_prompt, prompts, task_of
from data.errors import StudioError
from data.splits import split_of


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_thousand_distinct_prompts_that_read_back(family: Family) -> None:
    texts = family_prompts(family)
    assert len(texts) == len(set(texts)) >= 1_000
    for text in texts:
        task = read_prompt(text)
        assert task is not None, text
        assert task.family == family


def test_the_two_sides_share_no_prompt_and_cover_all() -> None:
    for family in FAMILIES:
        train, held_out = set(prompts(family, "train")), set(prompts(family, "held_out"))
        assert not train & held_out
        assert train | held_out == set(family_prompts(family))
        assert 0.15 < len(held_out) / len(train | held_out) < 0.25


def test_no_prompt_belongs_to_two_families() -> None:
    assert len({text for family in FAMILIES for text in family_prompts(family)}) == sum(len(family_prompts(f)) for f in FAMILIES)


def test_the_split_is_the_same_in_every_release() -> None:
    # Golden values: a change here would leak prompts the committed weights were trained on into the held-out side.
    golden = [
        "What is 7 + 12?",
        "What is the capital of France?",
        "Spell 'garden' with dashes.",
        "Name three fruits as a numbered list.",
    ]
    assert [split_of(text) for text in golden] == ["train", "held_out", "train", "train"]
    assert split_of("anything", 0.0) == "train"
    assert split_of("anything", 1.0) == "held_out"


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_to_the_held_out_side(text: str, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert split_of(text, low) == "train" or split_of(text, high) == "held_out"


@pytest.mark.parametrize("family", FAMILIES)
def test_good_answers_grade_good_and_flawed_ones_do_not(family: Family) -> None:
    rng = random.Random(0)
    for prompt in rng.sample(family_prompts(family), 400):
        task = task_of(prompt)
        good = good_answer(task, rng)
        assert grade(prompt, good) == Grade(True, 1.0, ()), (prompt, good)
        for flaw in FLAWS:
            flawed = flawed_answer(task, rng, flaw)
            verdict = grade(prompt, flawed)
            assert not verdict.good, (prompt, flaw, flawed)
            assert verdict.score < 1.0
            assert verdict.reasons
            assert prefer(prompt, good, flawed) == "a"
            assert prefer(prompt, flawed, good) == "b"


@pytest.mark.parametrize(
    ("prompt", "answer", "reasons"),
    [
        ("What is 7 + 12?", "19", ()),
        ("What is 7 + 12?", "7 + 12 = 19.", ()),
        ("What is 7 + 12?", "7 + 12 = 20.", ("is wrong",)),
        ("What is 7 + 12?", "6 + 12 = 19.", ("is wrong",)),
        ("What is 7 + 12?", "-19", ("is wrong",)),
        ("What is 7 + 12? Reply with just the number.", "7 + 12 = 19.", ("ignores the form asked for",)),
        ("What is the capital of France? Answer in one word.", "Paris.", ()),
        ("What is the capital of France? Answer in one word.", "It is Paris.", ("ignores the form asked for",)),
        ("What is the capital of France?", "Paris or Rome.", ("is wrong",)),
        ("What is the capital of France?", "Ugh, fine. It is Paris.", ("is rude",)),
        ("What is the capital of France?", "It is Paris. By the way, I like trains.", ("rambles",)),
        ("What is the capital of France?", "", ("is empty",)),
        ("Which is larger: 14 or 9?", "14 is smaller than 9.", ("is wrong",)),
        ("Sort these words alphabetically: pear, fig, apple", "Here you go: apple, fig, pear", ()),
        ("Sort these words alphabetically: pear, fig, apple", "pear, fig, apple", ("is wrong",)),
        ("Spell the word 'garden' with dashes.", "g-a-r-d-e-n", ()),
        ("Spell the word 'garden' with dashes.", "g-a-r-d-e-n-n", ("is wrong",)),
        ("Spell the word 'garden' with dashes.", "g a r d e n", ("ignores the form asked for",)),
        ("Name two fruits as a numbered list.", "1. apple\n2. pear", ()),
        ("Name two fruits as a numbered list.", "1. apple\n2. apple", ("is wrong",)),
        ("Reply politely: I lost my watch today.", "Whatever.", ("ignores the form asked for",)),
        ("Reply politely: I lost my watch today.", "I am sorry to hear about your bike.", ("is wrong",)),
    ],
)
def test_known_verdicts(prompt: str, answer: str, reasons: tuple[str, ...]) -> None:
    assert grade(prompt, answer).reasons == reasons


def test_prefer_knows_ties() -> None:
    prompt = "What is 7 + 12?"
    assert prefer(prompt, "19", "7 + 12 = 19.") == "tie"
    assert prefer(prompt, "20", "21") == "both_bad"


def test_prompts_of_elsewhere_are_not_covered() -> None:
    for prompt in (
        "",
        "Explain quantum tunnelling.",
        "What is 700 + 12?",
        "What is the capital of Atlantis?",
        "What is 7 + 12?" * 99,
    ):
        assert not covers(prompt)
        with pytest.raises(UnknownPrompt) as caught:
            grade(prompt, "19")
        assert isinstance(caught.value, StudioError)
    assert covers("  What is 7 + 12?\n")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([family_prompts(family)[0] for family in FAMILIES]), st.text(max_size=400))
def test_any_text_gets_a_grade(prompt: str, answer: str) -> None:
    verdict = grade(prompt, answer)
    assert 0.0 <= verdict.score <= 1.0
    assert verdict.good == (not verdict.reasons) == (verdict.score == 1.0)


@pytest.mark.parametrize(
    "hostile", ["9" * 200_000, "1 + " * 50_000, "a-" * 100_000, "\x00\ud800" * 9, "<script>19</script> " * 9_000, "١٩"]
)
def test_hostile_answers_are_graded_quickly_and_never_good(hostile: str) -> None:
    started = time.thread_time()  # how busy the machine is does not count
    for family in FAMILIES:
        assert not grade(family_prompts(family)[0], hostile).good
    assert time.thread_time() - started < 1.0


def test_pairs_are_balanced_and_say_which_is_better() -> None:
    rng = random.Random(3)
    pairs = [answer_pair(prompt, rng) for family in FAMILIES for prompt in prompts(family, "train")[:100]]
    for pair in pairs:
        assert prefer(pair.prompt, pair.a, pair.b) == pair.better.lower()
    assert 0.4 < sum(pair.better == "A" for pair in pairs) / len(pairs) < 0.6


def test_the_committed_prompts_are_what_the_world_makes() -> None:
    rows = [json.loads(line) for line in PROMPTS_FILE.read_text(encoding="utf-8").splitlines()]
    assert rows == [row._asdict() for row in demo_prompts()]
    assert len({row["prompt"] for row in rows}) == len(rows) >= 300
    assert {row["family"] for row in rows} == set(FAMILIES)
    assert sum(split_of(row["prompt"]) == "held_out" for row in rows) >= 100


def test_the_judge_prompt_names_both_answers_in_order() -> None:
    text = judge_prompt("What is 7 + 12?", "19", "20")
    assert text == "Question: What is 7 + 12?\nAnswer A: 19\nAnswer B: 20\nWhich answer is better, A or B?"
