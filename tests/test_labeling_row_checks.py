"""Training rows looked at before any model is: each check on rows made to fail it and on clean ones, and what a fix leaves out."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling import completion, prompt, seed_project
from training_runs import assistant, dpo_rows, kto_rows, sft_rows, user

from data import completions, impressions, labels, people, prompts
from data.errors import BadInput
from data.records import Impression, LabelEvent, Preference, Project, now
from labeling import snapshots
from labeling.row_checks import check_rows, contradictory, repeated, sieve
from training.verdicts import Example, Fix, Verdict, stops, worst_first


def verdict(rows: list[dict[str, Any]], layout: Any, check: str, **more: Any) -> Verdict:
    found = [v for v in check_rows(rows, layout, **more) if v.check == check]
    assert len(found) == 1
    return found[0]


def pair(asked: str, chosen: str, rejected: str, split: str = "train") -> dict[str, Any]:
    return {
        "prompt_id": f"id of {asked}",
        "split": split,
        "prompt": user(asked),
        "chosen": assistant(chosen),
        "rejected": assistant(rejected),
    }


@pytest.mark.parametrize(
    ("rows", "layout"), [(dpo_rows(), "preference"), (kto_rows(), "binary"), (sft_rows(), "sft"), (dpo_rows()[:1], "preference")]
)
def test_clean_rows_are_fine(rows: list[dict[str, Any]], layout: Any) -> None:
    found = check_rows(rows, layout)
    assert {v.level for v in found if v.check != "length"} == {"ok"}
    assert all(v.sentence.endswith(".") for v in found)


def test_no_rows_no_verdicts() -> None:
    assert check_rows([], "preference") == []
    assert check_rows(dpo_rows(3, "held_out"), "preference") == []


# --- rows that cannot be learned from ---


def test_rows_that_cannot_be_learned_from_are_named_by_the_trainers_own_rule() -> None:
    rows = [*dpo_rows(4), pair("Why?", "", "because"), pair("How?", "so", "so")]
    found = verdict(rows, "preference", "rows")
    assert (found.level, found.rows) == ("warn", 2)
    assert found.sentence == (
        "2 rows cannot be learned from and will be left out: 1 because an answer is empty; 1 because both answers are the same."
    )
    assert found.examples == (Example("id of Why?", "Why?"), Example("id of How?", "How?"))


def test_nothing_but_bad_rows_stops() -> None:
    rows = [{**row, "prompt": assistant("I begin")} for row in sft_rows(3)]
    found = verdict(rows, "sft", "rows")
    assert found.level == "stop"
    assert "None of the 3 rows" in found.sentence
    assert "ends with a user turn" in found.sentence
    assert stops(check_rows(rows, "sft")) == [found]


# --- contradictions and repeats ---


def test_a_pair_chosen_both_ways_is_a_contradiction() -> None:
    rows = [*dpo_rows(4), pair("Why?", "so", "no"), pair("Why?", "no ", "so"), pair("Why?", "so", "maybe")]
    found = verdict(rows, "preference", "contradictions")
    assert (found.level, found.rows) == ("warn", 2)
    assert found.examples[0] == Example("id of Why?", "Why?")
    assert found.fix == Fix("Leave them out", sieve=("contradictions",))
    assert contradictory(rows, "preference") == {4, 5}
    assert "each person's vote" in verdict(rows, "preference", "contradictions", every_vote=True).sentence


def test_an_answer_called_good_and_bad_is_a_contradiction() -> None:
    rows = kto_rows()
    rows += [{**rows[0], "label": False}]
    found = verdict(rows, "binary", "contradictions")
    assert (found.level, found.rows) == ("warn", 2)
    assert contradictory(rows, "binary") == {0, 12}
    assert verdict(kto_rows(), "binary", "contradictions").level == "ok"


def test_rows_that_only_contradict_each_other_stop() -> None:
    found = verdict([pair("Why?", "so", "no"), pair("Why?", "no", "so")], "preference", "contradictions")
    assert (found.level, found.fix) == ("stop", None)


def test_a_row_that_stands_there_twice_is_a_repeat() -> None:
    rows = [*dpo_rows(4), *dpo_rows(2)]
    found = verdict(rows, "preference", "repeats")
    assert (found.level, found.rows) == ("warn", 2)
    assert found.fix is not None
    assert found.fix.sieve == ("repeats",)
    assert repeated(rows, "preference") == {4, 5}
    assert verdict(rows, "preference", "repeats", every_vote=True).level == "ok"  # people who agree


def test_held_out_rows_are_not_judged_but_sieved() -> None:
    rows = [*dpo_rows(4), pair("Why?", "so", "no", "held_out"), pair("Why?", "no", "so", "held_out")]
    assert verdict(rows, "preference", "contradictions").level == "ok"
    assert sieve(rows, "preference", ["contradictions"]) == (rows[:4], 2, 0)


texts = st.sampled_from(["a", "b", " a", "c"])
some_pairs = st.lists(st.builds(pair, st.sampled_from(["p", "q"]), texts, texts), max_size=12)


@given(some_pairs)
def test_what_a_sieve_leaves_has_nothing_of_what_it_takes(rows: list[dict[str, Any]]) -> None:
    """Against a plain comparison of every two rows."""

    def said(row: dict[str, Any]) -> tuple[str, str, str]:
        return row["prompt"][0]["content"], row["chosen"][0]["content"].strip(), row["rejected"][0]["content"].strip()

    opposite = {
        i
        for one, two in combinations(range(len(rows)), 2)
        if said(rows[one]) == (said(rows[two])[0], said(rows[two])[2], said(rows[two])[1])
        and said(rows[one])[1] != said(rows[one])[2]
        for i in (one, two)
    }
    assert contradictory(rows, "preference") == opposite
    kept, against, again = sieve(rows, "preference", ["repeats", "contradictions"])
    assert len(kept) + against + again == len(rows)
    assert contradictory(kept, "preference") == set()
    assert {said(row) for row in kept} == {said(row) for i, row in enumerate(rows) if i not in opposite}
    assert len({said(row) for row in kept}) == len(kept)
    assert sieve(rows, "preference", []) == (rows, 0, 0)
    assert sieve(kept, "preference", ["repeats", "contradictions"]).rows == kept


# --- lengths ---


def long_and_short(longer: int, shorter: int) -> list[dict[str, Any]]:
    return [pair(f"p{i}", "long answer", "short") for i in range(longer)] + [
        pair(f"q{i}", "short", "long answer") for i in range(shorter)
    ]


def test_a_lopsided_share_of_longer_answers_is_said_with_its_interval() -> None:
    found = verdict(long_and_short(48, 12), "preference", "length")
    assert (found.level, found.rows, found.fix) == ("warn", 48, None)
    assert "the longer one in 80 % of the pairs (95 %: 68–88 %)" in found.sentence  # Wilson: 0.682 to 0.882
    assert "longer answers rather than better" in found.sentence
    short = verdict(long_and_short(12, 48), "preference", "length")
    assert (short.level, "shorter answers rather" in short.sentence) == ("warn", True)


@pytest.mark.parametrize(("longer", "shorter"), [(30, 30), (5, 0), (38, 22), (0, 5)])
def test_few_or_even_pairs_sound_no_alarm(longer: int, shorter: int) -> None:
    assert verdict(long_and_short(longer, shorter), "preference", "length").level == "ok"


@given(st.integers(0, 200), st.integers(0, 200))
def test_lengths_mirror(longer: int, shorter: int) -> None:
    if longer + shorter:
        one, other = (
            verdict(long_and_short(a, b), "preference", "length").level for a, b in ((longer, shorter), (shorter, longer))
        )
        assert one == other


# --- balance ---


def test_labels_of_one_kind_stop_and_a_rare_one_warns() -> None:
    found = verdict(kto_rows(6, 0), "binary", "balance")
    assert (found.level, found.sentence) == ("stop", "All 6 answers are good, and KTO needs both; label at least one that is bad.")
    rare = verdict(kto_rows(40, 2), "binary", "balance")
    assert rare.level == "warn"
    assert "40 good answers and 2 bad ones" in rare.sentence
    assert verdict(kto_rows(12, 6), "binary", "balance").level == "ok"


# --- verdicts themselves ---


def test_verdicts_survive_the_run_folder_and_stand_worst_first() -> None:
    every = check_rows([*kto_rows(6, 0), *kto_rows(1, 0)], "binary")
    assert [Verdict.from_json(json.loads(json.dumps(v.to_json()))) for v in every] == every
    assert [v.level for v in worst_first(every)] == sorted((v.level for v in every), key=["stop", "warn", "ok"].index)
    for broken in ({}, {"check": "x", "level": "fine", "sentence": "s"}, {"check": "x", "level": "ok", "sentence": "s", "fix": 3}):
        with pytest.raises(BadInput, match="cannot be read"):
            Verdict.from_json(broken)


# --- frozen ---


def import_pairs(db: Any, project: Project, n: int, texts: tuple[str, str] = ("no", "yes")) -> None:
    """Four answers to each prompt, of two texts, imported as two pairs: every third prompt's are chosen both ways."""
    people.ensure(db, "import", "Imported", "imported")
    for k in range(n):
        p = prompt(project, f"Question {k}")
        prompts.add(db, [p])
        made = [completion(p, texts[i % 2], i) for i in range(4)]
        completions.add(db, made)
        for one in (0, 2):
            left, right = made[one], made[one + 1]
            key = f"{k:08d}-0000-4000-8000-{one:012d}"
            shown = Impression(
                key, project.project_id, "import", p.prompt_id, key, left.completion_id, right.completion_id, "pairwise",
                "imported", "imported", 1.0, now(), now(),
            )  # fmt: skip
            impressions.add(db, [shown])
            said: Preference = "b" if one and k % 3 == 0 else "a"
            labels.append(db, [LabelEvent(key, key, project.project_id, "import", "cast", said)])


def test_a_snapshot_says_what_was_left_out_and_holds_none_of_it(db: Any, settings: Any) -> None:
    project = seed_project(db, 0)
    import_pairs(db, project, 12)
    whole = snapshots.preview(db, project.project_id, "preference")
    against, again = contradictory(whole.rows, "preference"), repeated(whole.rows, "preference")
    assert against
    assert again
    assert "contradiction" not in whole.manifest["dropped"]
    for leave_out in ((), ("contradictions",), ("repeats",), ("repeats", "contradictions")):
        frozen = snapshots.freeze(db, settings, project.project_id, "preference", leave_out=leave_out, min_train_rows=0)  # type: ignore[arg-type]
        rows = pq.read_table(snapshots.file_of(settings, frozen)).to_pylist()
        expected = sieve(whole.rows, "preference", leave_out)  # type: ignore[arg-type]
        assert Counter(map(_said, rows)) == Counter(map(_said, expected.rows))
        assert frozen.manifest["leave_out"] == sorted(leave_out)
        assert frozen.manifest["dropped"].get("contradiction", 0) == expected.contradictions
        assert frozen.manifest["dropped"].get("repeat", 0) == expected.repeats
    assert frozen.rows < whole.manifest["rows"]["train"] + whole.manifest["rows"]["held_out"]
    assert any("say the opposite" in words or "says the opposite" in words for words in snapshots.in_words(frozen.manifest))


def _said(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["prompt_id"], row["chosen"][0]["content"], row["rejected"][0]["content"]
