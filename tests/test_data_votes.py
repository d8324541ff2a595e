"""Which labels become rows, by hand: filters, decisions above votes, repeats once, a row a vote, weights, ties as good answers."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from datetime import date
from typing import Any

import pyarrow.parquet as pq
import pytest
from quality_seed import label, seed_labelled

from data import adjudications, completions, exporters, gold, projects
from data.database import Database
from data.errors import BadInput
from data.majority import decide, good_or_bad
from data.pseudonyms import Pseudonyms
from data.records import Pair, Project
from data.settings import Settings
from data.votes import Filters, Rules, choose
from labeling import manifest, preferences, snapshots
from labeling.aggregate import preference_rows, single_rows, tally

LAYOUTS = ("preference", "binary", "sft")


@pytest.fixture
def project(db: Database) -> Project:
    """Three pairs: agreed on by Ada and Ben, disputed by all three, tied."""
    from labelling import seed_texts

    project = seed_texts(db, [(f"Question {i}?", f"One answer to {i}", f"Another answer to {i}") for i in range(3)])
    one, two, three = completions.pairs_of(db, project.project_id)
    for who, pair, says in (
        ("ada", one, "first"), ("ben", one, "first"), ("cleo", one, "second"),
        ("ada", two, "first"), ("ben", two, "second"),
        ("ada", three, "tie"), ("ben", three, "tie"),
    ):  # fmt: skip
        label(db, project, who, pair, says, rng=random.Random(len(who)), flags=("too_fast",) if who == "cleo" else ())
    return project


def pairs(db: Database, project: Project) -> list[Pair]:
    return completions.pairs_of(db, project.project_id)


def items(db: Database, project: Project, filters: Filters = Filters(), every: bool = False) -> list[tuple[str, str, float]]:
    """(prompt's first pair, outcome, share)."""
    chosen = choose(db, project.project_id, filters)
    return [(i.outcome, i.first, round(i.share, 3)) for i in decide(chosen.votes, chosen.known, every).items]


def test_a_majority_has_the_share_that_agrees(db: Database, project: Project) -> None:
    assert [(o, s) for o, _, s in items(db, project)] == [("first", 0.667), ("split_vote", 0.0), ("tie", 1.0)]


def test_filters_leave_out_and_count(db: Database, project: Project) -> None:
    chosen = choose(db, project.project_id, Filters(without_flags=("too_fast",)))
    assert (len(chosen.votes), chosen.left_out) == (6, Counter(flag=1))
    assert choose(db, project.project_id, Filters(annotators=("ada",))).left_out == Counter(annotator=4)
    today = date.today().isoformat()
    assert choose(db, project.project_id, Filters(last_day="2020-01-01")).left_out == Counter(day=7)
    assert choose(db, project.project_id, Filters(first_day=today, last_day="2999-01-01")).left_out == Counter()
    assert choose(db, project.project_id).flags == Counter(too_fast=1)
    with pytest.raises(BadInput, match="is no day"):
        choose(db, project.project_id, Filters(first_day="yesterday"))


def test_a_decision_stands_above_the_votes_until_it_is_taken_back(db: Database, project: Project) -> None:
    disputed = pairs(db, project)[1]
    adjudications.add(db, project.project_id, disputed.pair_id, "second", "checked", "boss")
    assert [(o, s) for o, _, s in items(db, project)] == [("first", 0.667), ("second", 1.0), ("tie", 1.0)]
    assert len(items(db, project, every=True)) == 3 + 1 + 2, "one row for what is decided"
    adjudications.add(db, project.project_id, disputed.pair_id, "", "a slip", "boss")
    assert items(db, project)[1][0] == "split_vote"


def test_gold_that_somebody_answered_is_its_known_answer(db: Database, project: Project) -> None:
    agreed = pairs(db, project)[0]
    label(db, project, "ada", agreed, "first", kind="gold")
    gold.add(db, project.project_id, agreed.pair_id, "second", "boss")
    assert items(db, project)[0][0] == "second"


def test_a_repeat_is_no_second_vote_and_the_last_word_counts(db: Database, project: Project) -> None:
    agreed = pairs(db, project)[0]
    before = label(db, project, "dora", agreed, "second")
    label(db, project, "dora", agreed, "first", repeat=before.impression)
    chosen = choose(db, project.project_id)
    item = decide(chosen.votes, chosen.known).items[0]
    assert (item.votes, item.outcome, item.share) == (4, "first", 0.75)


def test_left_out_labels_do_not_count(db: Database, project: Project) -> None:
    said = [v for v in choose(db, project.project_id).cast if v.vote.annotator_id == "cleo"]
    preferences.exclude(db, "boss", [said[0].impression_id], "clicked through")
    assert items(db, project)[0][2] == 1.0


def test_a_row_a_vote_keeps_what_people_differ_on(db: Database, project: Project) -> None:
    chosen = choose(db, project.project_id)
    texts = {c.completion_id: c.text for c in completions.of_prompts(db, [p.prompt_id for p in pairs(db, project)])}
    result = tally(chosen.votes, chosen.known, Rules("every"))
    rows = preference_rows(result, texts, random.Random(0))
    one, two, _ = pairs(db, project)
    expected = [(one.completion_a, one.completion_b)] * 2 + [(one.completion_b, one.completion_a)]
    expected += [(two.completion_a, two.completion_b), (two.completion_b, two.completion_a)]
    assert sorted((r.chosen, r.rejected) for r in rows) == sorted(expected)
    assert result.dropped == {"tie": 2}
    singles = single_rows(tally(chosen.votes, chosen.known, Rules("every", "good")), texts)
    assert Counter(r.good for r in singles) == {True: 5 + 4, False: 5}


def test_ties_and_both_bad_are_good_and_bad_answers_by_rule() -> None:
    from data.majority import Vote

    said = decide([Vote("x", "p", "a", "b", "tie"), Vote("x", "p", "c", "d", "both_bad")]).items
    assert good_or_bad(said).good == {"c": False, "d": False}
    assert good_or_bad(said, ties_are_good=True).good == {"a": True, "b": True, "c": False, "d": False}
    assert (good_or_bad(said).ties, good_or_bad(said, ties_are_good=True).ties) == (1, 0)


@pytest.mark.parametrize("rules", [Rules("weighted", "good"), Rules("every"), Rules()])
def test_an_export_and_a_snapshot_hold_the_same_rows(db: Database, settings: Settings, rules: Rules) -> None:
    project = seed_labelled(db, 24)
    filters = Filters(without_flags=("too_fast",), annotators=("ada", "ben", "cleo"))
    for layout, name in zip(LAYOUTS, ("dpo", "kto", "sft"), strict=True):
        snapshot = snapshots.freeze(db, settings, project.project_id, layout, filters=filters, rules=rules)  # type: ignore[arg-type]
        frozen = rows_of(snapshots.file_of(settings, snapshot))
        done = exporters.export(db, settings, project.project_id, name, "parquet", filters=filters, rules=rules)  # type: ignore[arg-type]
        written = rows_of(done.path)
        assert ("weight" in written[0]) == ("weight" in frozen[0]) == (rules.aggregation == "weighted")
        kept = [{key: row[key] for key in written[0]} for row in frozen]
        assert sorted(map(repr, kept)) == sorted(map(repr, written)), layout
        by_split = {split: {row["prompt_id"] for row in frozen if row["split"] == split} for split in ("train", "held_out")}
        assert by_split["train"]
        assert not by_split["train"] & by_split["held_out"]
        train = exporters.export(db, settings, project.project_id, name, "parquet", filters=filters, rules=rules, split="train")  # type: ignore[arg-type]
        assert train.rows == snapshot.manifest["rows"]["train"]


def test_an_exported_file_has_a_manifest_that_says_the_same_as_a_snapshots(db: Database, settings: Settings) -> None:
    project = seed_labelled(db, 24)
    filters, rules = Filters(without_flags=("too_fast",), annotators=("ada", "lefty")), Rules("weighted")
    done = exporters.export(db, settings, project.project_id, "dpo", "csv", filters=filters, rules=rules, split="train")
    file = manifest.of_export(db, project.project_id, done, "dpo", filters, rules, "train")
    beside = json.loads(file.read_text(encoding="utf-8"))
    frozen = snapshots.freeze(db, settings, project.project_id, "preference", filters=filters, rules=rules).manifest
    same = {"filters", "rules", "labels", "left_out_by", "flags", "decided", "agreement", "bias_card", "annotators_that_stand_out"}
    assert {name: beside[name] for name in same} == {name: frozen[name] for name in same}
    assert file == done.path.with_name(f"{done.path.name}.manifest.json")
    assert beside["sha256"] == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert (beside["file"], beside["bytes"]) == (done.path.name, done.path.stat().st_size)
    assert (beside["rows"], beside["split"]) == (frozen["rows"]["train"], "train")
    assert beside["columns"] == ["prompt", "chosen", "rejected", "weight"]
    held_out = {"split"} if frozen["rows"]["held_out"] else set()
    assert {reason: n for reason, n in beside["dropped"].items() if reason != "split"} == frozen["dropped"]
    assert set(beside["dropped"]) - set(frozen["dropped"]) == held_out
    assert not {"ada", "lefty"} & set(beside["filters"]["annotators"]), "people by pseudonym"
    assert all(who.startswith("annotator-") for who in beside["filters"]["annotators"])
    asked = exporters.export(db, settings, project.project_id, "prompts", "jsonl")
    told = json.loads(manifest.of_export(db, project.project_id, asked, "prompts", Filters(), Rules()).read_text(encoding="utf-8"))
    assert told["rows"] == 24
    assert "labels" not in told


def test_the_manifest_says_what_fell_out_and_how_far_to_trust_it(db: Database, settings: Settings) -> None:
    project = seed_labelled(db, 24)
    filters = Filters(without_flags=("too_fast",))
    snapshot = snapshots.freeze(db, settings, project.project_id, "preference", filters=filters, rules=Rules("weighted"))
    manifest = snapshot.manifest
    flagged = db.value("select count(*) from current_labels where contains(flags, 'too_fast')")
    assert manifest["left_out_by"] == {"flag": flagged}
    assert manifest["labels"]["left_out"] == flagged
    assert manifest["columns"] == ["prompt", "chosen", "rejected", "weight", "prompt_id", "split"]
    assert manifest["sha256"] == snapshot.sha256
    assert manifest["agreement"]["alpha"]["low"] < manifest["agreement"]["alpha"]["value"] < manifest["agreement"]["alpha"]["high"]
    assert manifest["bias_card"]["left"]["n"] > 0
    standing_out = manifest["annotators_that_stand_out"]  # of four people another one may, by chance
    assert all(who.startswith("annotator-") for who in standing_out)
    assert any("left" in flag for flag in standing_out[Pseudonyms(db, project.project_id).of("lefty")])
    again = snapshots.freeze(db, settings, project.project_id, "preference", filters=filters, rules=Rules("weighted"))
    assert again == snapshot


def test_the_manifest_measures_agreement_on_the_labels_that_count(db: Database, settings: Settings) -> None:
    project = seed_labelled(db, 24)
    whole = snapshots.freeze(db, settings, project.project_id, "preference").manifest["agreement"]
    people = ("ada", "ben")
    two = snapshots.freeze(db, settings, project.project_id, "preference", filters=Filters(annotators=people)).manifest["agreement"]
    cast = db.value(
        """select count(*) from current_labels l join impressions i using (impression_id)
           where l.annotator_id in ('ada', 'ben') and l.preference != 'skip' and i.kind in ('normal', 'imported')"""
    )
    assert (two["annotators"], two["labels"]) == (2, cast)
    assert whole["annotators"] > 2
    assert whole["labels"] > cast


def test_what_cannot_be_is_refused_in_words(db: Database, settings: Settings, project: Project) -> None:
    bad: list[dict[str, Any]] = [
        {"rules": Rules("best")},  # type: ignore[arg-type]
        {"filters": Filters(without_flags=("odd",))},  # type: ignore[arg-type]
        {"filters": Filters(last_day="2026-13-01")},
    ]
    for options in bad:
        with pytest.raises(BadInput):
            snapshots.preview(db, project.project_id, "preference", **options)
    assert projects.get(db, project.project_id).name == "Texts"


def rows_of(path: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
