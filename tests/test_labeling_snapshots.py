"""Snapshots: who won, what fell out and why, TRL's columns, the stored split, the same labels giving the same file."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from labelling import completion, prompt, seed_project

from data import completions, impressions, labels, people, prompts
from data.engine import Message
from data.errors import BadInput
from data.majority import Vote
from data.records import Impression, LabelEvent, now
from data.rundir import sha256_of
from labeling import preferences, snapshots
from labeling.aggregate import PairRow, SingleRow, preference_rows, sft_rows, single_rows, tally
from labeling.assignment import Assignment
from labeling.snapshots import Filters, freeze

TEXTS = {c: f"text {c}" for c in "abcdefgh"}


def vote(who: str, left: str, right: str, preference: Any, prompt_id: str = "p") -> Vote:
    return Vote(who, prompt_id, left, right, preference)


def rng() -> random.Random:
    return random.Random(0)


# --- the rules ---


def test_majority_decides_whatever_the_sides() -> None:
    result = tally([vote("x", "a", "b", "a"), vote("y", "b", "a", "b"), vote("z", "a", "b", "b")])
    assert preference_rows(result, TEXTS, rng()) == [PairRow("p", "a", "b")]
    assert result.votes_an_item == {3: 1}


def test_a_split_vote_decides_nothing_and_is_counted() -> None:
    result = tally([vote("x", "a", "b", "a"), vote("y", "a", "b", "b")])
    assert preference_rows(result, TEXTS, rng()) == []
    assert result.dropped == {"split_vote": 1}


def test_of_one_persons_votes_on_a_pair_the_last_counts() -> None:
    result = tally([vote("x", "a", "b", "a"), vote("x", "b", "a", "a")])
    assert preference_rows(result, TEXTS, rng()) == [PairRow("p", "b", "a")]


def test_ties_skips_and_both_bad_are_no_preference() -> None:
    votes = [vote("x", "a", "b", "tie"), vote("x", "c", "d", "both_bad"), vote("x", "e", "f", "skip"), vote("x", "g", "h", "b")]
    result = tally(votes)
    assert preference_rows(result, TEXTS, rng()) == [PairRow("p", "h", "g")]
    assert result.dropped == {"tie": 1, "both_bad": 1, "skip": 1}


def test_pairs_become_good_and_bad_answers() -> None:
    votes = [vote("x", "a", "b", "a"), vote("x", "c", "d", "both_bad"), vote("x", "e", "f", "tie")]
    result = tally(votes)
    assert sorted(single_rows(result, TEXTS)) == [
        SingleRow("p", "a", True),
        SingleRow("p", "b", False),
        SingleRow("p", "c", False),
        SingleRow("p", "d", False),
    ]
    assert result.dropped["tie"] == 1


def test_an_answer_that_wins_as_often_as_it_loses_is_left_out() -> None:
    result = tally([vote("x", "a", "b", "a"), vote("x", "b", "c", "a")])
    assert sorted(single_rows(result, TEXTS)) == [SingleRow("p", "a", True), SingleRow("p", "c", False)]
    assert result.dropped["conflict"] == 1


def test_what_was_said_of_the_answer_itself_counts_more_than_its_pairs() -> None:
    result = tally([vote("x", "a", "b", "a"), vote("x", "a", "", "bad")])
    assert sorted(single_rows(result, TEXTS)) == [SingleRow("p", "a", False), SingleRow("p", "b", False)]


def test_good_and_bad_answers_make_preferences_within_a_prompt() -> None:
    said = {"a": "good", "b": "bad", "c": "bad", "d": "bad"}
    votes = [vote("x", c, "", said[c]) for c in said] + [vote("x", "e", "", "good", "q"), vote("x", "f", "", "good", "q")]
    result = tally(votes)
    rows = preference_rows(result, TEXTS, rng())
    assert {(r.prompt_id, r.chosen) for r in rows} == {("p", "a")}
    assert {r.rejected for r in rows} == {"b", "c", "d"}
    assert result.dropped == {"one_sided": 2}


def test_sft_takes_the_good_ones_and_each_text_once() -> None:
    texts = {"a": "same", "b": "bad one", "c": " same ", "d": "other", "e": "  "}
    votes = [vote("x", "a", "b", "a"), vote("x", "c", "", "good"), vote("x", "d", "", "good"), vote("x", "e", "", "good")]
    result = tally(votes)
    assert sorted(texts[r.completion].strip() for r in sft_rows(result, texts)) == ["other", "same"]
    assert result.dropped == {"bad": 1, "empty_text": 1}


def test_equal_and_empty_texts_are_no_preference() -> None:
    result = tally([vote("x", "a", "b", "a"), vote("x", "c", "d", "b")])
    assert preference_rows(result, {"a": "one", "b": "one ", "c": "", "d": "two"}, rng()) == []
    assert result.dropped == {"same_text": 1, "empty_text": 1}


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("xyz"),
            st.sampled_from([("a", "b"), ("c", "d"), ("a", "c"), ("e", "")]),
            st.sampled_from(["a", "b", "tie", "both_bad", "skip"]),
        ),
        max_size=25,
    )
)
def test_swapping_the_sides_of_every_vote_changes_nothing(drawn: list[Any]) -> None:
    mirror = {"a": "b", "b": "a"}
    binary = {"a": "good", "b": "bad", "tie": "good", "both_bad": "bad", "skip": "skip"}
    votes = [vote(who, left, right, said if right else binary[said]) for who, (left, right), said in drawn]
    swapped = [
        v._replace(left=v.right, right=v.left, preference=mirror.get(v.preference, v.preference)) if v.right else v for v in votes
    ]
    for rows in (lambda t: preference_rows(t, TEXTS, rng()), lambda t: single_rows(t, TEXTS), lambda t: sft_rows(t, TEXTS)):
        one, other = tally(votes), tally(swapped)  # type: ignore[arg-type]
        assert sorted(rows(one)) == sorted(rows(other))  # type: ignore[no-untyped-call]
        assert one.dropped == other.dropped


# --- frozen files ---


def label_all(db: Any, project_id: str, who: str, said: Any, n: int = 1000) -> list[Any]:
    """`said(k, served)` is the preference of the k-th item."""
    served = []
    ours = Assignment(db)
    while len(served) < n and (batch := ours.serve(who, project_id, min(100, n - len(served)))):
        for s in batch:
            preferences.cast(db, who, s.impression.impression_id, said(len(served), s))
            served.append(s)
    return served


def rows_of(home: Path, snapshot: Any) -> list[dict[str, Any]]:
    return pq.read_table(home / snapshot.path).to_pylist()


def test_a_preference_snapshot_has_trls_columns_and_the_stored_split(db: Any, settings: Any) -> None:
    project = seed_project(db, 40)
    number = lambda s: int(s.prompt.text.split(":")[0].split()[-1])  # noqa: E731
    served = label_all(db, project.project_id, "ann", lambda _, s: ["a", "b", "tie", "both_bad", "skip"][number(s) % 5])
    snapshot = freeze(db, settings, project.project_id, "preference")
    rows = rows_of(settings.home, snapshot)
    assert snapshot.rows == len(rows) == 16
    assert snapshot.sha256 == sha256_of(settings.home / snapshot.path)
    assert snapshots.file_of(settings, snapshot).parent == settings.export_dir / "snapshots"
    assert set(rows[0]) == {"prompt", "chosen", "rejected", "prompt_id", "split"}
    expected = {}
    for s in served:
        if number(s) % 5 < 2:
            chosen, rejected = (s.left, s.right) if number(s) % 5 == 0 else (s.right, s.left)
            expected[s.prompt.prompt_id] = ([{"role": "user", "content": s.prompt.text}], chosen, rejected, s.prompt.split)
    got = {r["prompt_id"]: (r["prompt"], r["chosen"][0]["content"], r["rejected"][0]["content"], r["split"]) for r in rows}
    assert got == expected
    assert all(r["chosen"][0]["role"] == r["rejected"][0]["role"] == "assistant" for r in rows)
    assert {r["split"] for r in rows} == {"train", "held_out"}
    manifest = snapshot.manifest
    assert manifest["dropped"] == {"skip": 8, "tie": 8, "both_bad": 8}
    assert manifest["labels"] == {"people": 40, "simulated": 0, "imported": 0, "left_out": 0}
    assert manifest["rows"]["train"] + manifest["rows"]["held_out"] == 16
    assert "8 pairs called a tie" in snapshots.in_words(manifest)
    assert snapshots.of_project(db, project.project_id) == [snapshot]


def test_the_same_labels_are_the_same_snapshot_and_a_new_one_is_another(db: Any, settings: Any) -> None:
    project = seed_project(db, 30)
    label_all(db, project.project_id, "ann", lambda k, s: "a", n=20)
    first = freeze(db, settings, project.project_id, "preference")
    assert freeze(db, settings, project.project_id, "preference") == first
    reordered = freeze(db, settings, project.project_id, "preference", seed=1)
    assert reordered.snapshot_id != first.snapshot_id
    key = str
    assert sorted(rows_of(settings.home, reordered), key=key) == sorted(rows_of(settings.home, first), key=key)
    assert rows_of(settings.home, reordered) != rows_of(settings.home, first)
    before = (settings.home / first.path).read_bytes()
    label_all(db, project.project_id, "ann", lambda k, s: "b")
    assert freeze(db, settings, project.project_id, "preference").snapshot_id != first.snapshot_id
    assert (settings.home / first.path).read_bytes() == before


def test_two_tabs_that_freeze_at_once_get_the_same_whole_file(db: Any, settings: Any) -> None:
    project = seed_project(db)
    label_all(db, project.project_id, "ann", lambda k, s: "a")
    with ThreadPoolExecutor(4) as tabs:
        frozen = [tabs.submit(freeze, db, settings, project.project_id, "preference") for _ in range(8)]
        made = {future.result().snapshot_id: future.result() for future in frozen}
    (snapshot,) = made.values()
    file = snapshots.file_of(settings, snapshot)
    assert sha256_of(file) == snapshot.sha256
    assert list(file.parent.iterdir()) == [file], "nothing half written is left"


def test_a_new_prompt_makes_an_earlier_check_an_old_one(db: Any) -> None:
    """Prompts are what RLOO and GRPO learn from; nobody has to label them first."""
    project = seed_project(db)
    before = snapshots.stamp(db, project.project_id)
    prompts.add(db, [prompts.new(project.project_id, [Message("user", "Something new?")])])
    assert snapshots.stamp(db, project.project_id) != before


def test_a_changed_file_is_refused(db: Any, settings: Any) -> None:
    project = seed_project(db, 20)
    label_all(db, project.project_id, "ann", lambda k, s: "a")
    snapshot = freeze(db, settings, project.project_id, "preference")
    with (settings.home / snapshot.path).open("ab") as f:
        f.write(b"x")
    with pytest.raises(BadInput, match="was changed"):
        snapshots.file_of(settings, snapshot)


def test_binary_labels_freeze_to_binary_preference_and_sft(db: Any, settings: Any) -> None:
    project = seed_project(db, 20, n_completions=3, task="binary")
    label_all(db, project.project_id, "ann", lambda k, s: "good" if s.left.startswith("Answer 0") else "bad")
    binary = freeze(db, settings, project.project_id, "binary")
    rows = rows_of(settings.home, binary)
    assert len(rows) == 60
    assert all(r["label"] == r["completion"][0]["content"].startswith("Answer 0") for r in rows)
    assert (binary.manifest["good"], binary.manifest["bad"]) == (20, 40)
    labels_in_order = [r["label"] for r in rows]
    assert labels_in_order != sorted(labels_in_order)
    pairs = rows_of(settings.home, freeze(db, settings, project.project_id, "preference"))
    assert len(pairs) == 40
    assert all(
        r["chosen"][0]["content"].startswith("Answer 0") and not r["rejected"][0]["content"].startswith("Answer 0") for r in pairs
    )
    good = rows_of(settings.home, freeze(db, settings, project.project_id, "sft"))
    assert len(good) == 20
    assert set(good[0]) == {"prompt", "completion", "prompt_id", "split"}


def test_simulated_and_imported_labels_can_be_left_out(db: Any, settings: Any) -> None:
    project = seed_project(db, 60)
    ours = Assignment(db)
    for k, s in enumerate(ours.serve("robot", project.project_id, 20)):
        preferences.cast(db, "robot", s.impression.impression_id, "ab"[k % 2], simulated=True)  # type: ignore[arg-type]
    for s in ours.serve("ann", project.project_id, 20):
        preferences.cast(db, "ann", s.impression.impression_id, "a")
    _import_preferences(db, project, 20)
    everything = freeze(db, settings, project.project_id, "preference")
    assert everything.manifest["labels"] == {"people": 20, "simulated": 20, "imported": 20, "left_out": 0}
    people_only = freeze(db, settings, project.project_id, "preference", filters=Filters(simulated=False, imported=False))
    assert people_only.rows == 20
    assert people_only.manifest["labels"]["left_out"] == 40
    assert freeze(db, settings, project.project_id, "preference", filters=Filters(annotators=("robot",))).rows == 20


def _import_preferences(db: Any, project: Any, n: int) -> None:
    people.ensure(db, "import", "Imported", "imported")
    asked = [prompt(project, f"Imported question {k}") for k in range(n)]
    prompts.add(db, asked)
    shown, said = [], []
    for k, p in enumerate(asked):
        one, other = completion(p, f"left {k}", 0), completion(p, f"right {k}", 1)
        completions.add(db, [one, other])
        impression = Impression(
            f"imported-{k}", project.project_id, "import", p.prompt_id, f"pair-{k}", one.completion_id, other.completion_id,
            "pairwise", "imported", "imported", 1.0, now(), now(),
        )  # fmt: skip
        shown.append(impression)
        event_id = f"00000000-0000-4000-8000-{k:012d}"
        said.append(LabelEvent(event_id, impression.impression_id, project.project_id, "import", "cast", "b"))
    impressions.add(db, shown)
    labels.append(db, said)


def test_retracted_labels_do_not_count(db: Any, settings: Any) -> None:
    project = seed_project(db, 30)
    served = label_all(db, project.project_id, "ann", lambda k, s: "a")
    for s in served[:10]:
        preferences.retract(db, "ann", s.impression.impression_id)
    assert freeze(db, settings, project.project_id, "preference").rows == 20


def test_too_few_labels_say_how_many_more(db: Any, settings: Any) -> None:
    project = seed_project(db, 30)
    with pytest.raises(BadInput, match=r"There are 0 preferences for training\. Label about 5 more\."):
        freeze(db, settings, project.project_id, "preference")
    label_all(db, project.project_id, "ann", lambda k, s: "tie", n=3)
    with pytest.raises(BadInput, match=r"3 pairs called a tie\. Label about 5 more\."):
        freeze(db, settings, project.project_id, "preference")
    assert list(settings.export_dir.glob("snapshots/*")) == []
    assert db.value("select count(*) from snapshots") == 0


def test_labels_of_one_kind_are_refused_for_the_binary_layout(db: Any, settings: Any) -> None:
    project = seed_project(db, 20, task="binary")
    label_all(db, project.project_id, "ann", lambda k, s: "good")
    with pytest.raises(BadInput, match="label at least one that is bad"):
        freeze(db, settings, project.project_id, "binary")


def test_a_prompt_with_a_system_turn_is_kept_whole(db: Any, settings: Any) -> None:
    project = seed_project(db, 0)
    for k in range(12):
        p = prompt(project, f"Question {k}", system="Be brief.")
        prompts.add(db, [p])
        completions.add(db, [completion(p, "yes", 0), completion(p, "no", 1)])
    label_all(db, project.project_id, "ann", lambda k, s: "a")
    rows = rows_of(settings.home, freeze(db, settings, project.project_id, "preference"))
    assert {r["prompt"][0]["content"] for r in rows} == {"Be brief."}
    assert all([m["role"] for m in r["prompt"]] == ["system", "user"] for r in rows)


@pytest.mark.model
@pytest.mark.parametrize("layout", ["preference", "binary", "sft"])
def test_trl_reads_the_file_as_it_is(db: Any, settings: Any, layout: Any) -> None:
    """`datasets` loads it and TRL recognises a conversational data set of the right kind."""
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    project = seed_project(db, 30)
    label_all(db, project.project_id, "ann", lambda k, s: "ab"[k % 2])
    snapshot = freeze(db, settings, project.project_id, layout)
    loaded = load_dataset(
        "parquet", data_files=str(settings.home / snapshot.path), split="train", cache_dir=str(settings.home / "cache")
    )
    assert loaded.num_rows == snapshot.rows
    assert is_conversational(loaded[0])
