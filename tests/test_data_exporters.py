"""Export: what is written, what is left out and why, that it comes back as it was, and that TRL takes it as it is."""

from __future__ import annotations

import csv
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data import completions, exporters, importers, impressions, labels, people, projects, prompts
from data.database import Database
from data.engine import Message
from data.errors import BadInput, WorkspaceError
from data.pseudonyms import Pseudonyms
from data.records import Completion, Impression, LabelEvent, Preference, Project, Prompt, content_id, now
from data.rundir import sha256_of
from data.settings import Settings
from data.votes import Rules
from labeling import snapshots

FORMATS: tuple[exporters.Format, ...] = get_args(exporters.Format)
BOTH: tuple[exporters.Format, ...] = ("jsonl", "parquet")


def ask(
    db: Database, project: Project, text: str, *answers: str, system: str = "", model: str = "m"
) -> tuple[Prompt, list[Completion]]:
    turns = [Message("system", system)] if system else []
    prompt = prompts.new(project.project_id, [*turns, Message("user", text)])
    prompts.add(db, [prompt])
    made = [completions.new(prompt, answer, "generated", f"{model}-{i}") for i, answer in enumerate(answers)]
    completions.add(db, made)
    return prompt, made


def say(
    db: Database, annotator_id: str, preference: Preference, left: Completion, right: Completion | None = None, **more: Any
) -> LabelEvent:
    """One label, as the label page would store it."""
    people.ensure(db, annotator_id, annotator_id, "local")
    shown = Impression(
        impression_id=uuid.uuid4().hex,
        project_id=left.project_id,
        annotator_id=annotator_id,
        prompt_id=left.prompt_id,
        pair_id=content_id(*sorted([left.completion_id, right.completion_id])) if right else "",
        left_completion_id=left.completion_id,
        right_completion_id=right.completion_id if right else "",
        task="pairwise" if right else "binary",
        kind="normal",
        policy="test",
        probability=1.0,
        served_at=now(),
        lease_expires_at=now(),
    )
    impressions.add(db, [shown])
    event = LabelEvent(str(uuid.uuid4()), shown.impression_id, left.project_id, annotator_id, "cast", preference, **more)
    labels.append(db, [event])
    return event


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "Ünïcode / Project: 1")


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))


def test_dpo_is_the_majority_and_everything_else_is_counted(db: Database, settings: Settings, project: Project) -> None:
    _, (good, bad) = ask(db, project, "Clear?", "yes", "no")
    say(db, "one", "a", good, bad)
    say(db, "two", "b", bad, good)
    say(db, "three", "b", good, bad)
    _, (x, y) = ask(db, project, "Split?", "x", "y")
    say(db, "one", "a", x, y)
    say(db, "two", "a", y, x)
    _, (x, y) = ask(db, project, "Tie?", "x", "y")
    say(db, "one", "tie", x, y)
    _, (x, y) = ask(db, project, "Bad?", "x", "y")
    say(db, "one", "both_bad", x, y)
    say(db, "two", "skip", x, y)
    _, (x, silence) = ask(db, project, "Silent?", "x", " ")
    say(db, "one", "b", x, silence)
    _, (x, y) = ask(db, project, "Retracted?", "x", "y")
    event = say(db, "one", "a", x, y)
    labels.append(db, [replace(event, event_id=str(uuid.uuid4()), event="retracted", preference="")])
    result = exporters.export(db, settings, project.project_id, "dpo", "jsonl", conversational=False)
    assert rows_of(result.path) == [{"prompt": "Clear?", "chosen": "yes", "rejected": "no"}]
    assert result.dropped == {"skip": 1, "tie": 1, "both_bad": 1, "split_vote": 1, "empty_text": 1}
    assert set(result.dropped) <= set(exporters.DROPPED)
    assert (result.rows, result.sha256) == (1, sha256_of(result.path))
    assert result.path.parent == settings.export_dir


def test_kto_and_sft_take_an_answers_own_label_before_how_its_pairs_came_out(
    db: Database, settings: Settings, project: Project
) -> None:
    _, (one, two, three, four) = ask(db, project, "Which?", "1", "2", "3", "4")
    say(db, "x", "a", one, two)  # 1 wins, 2 loses
    say(db, "x", "a", two, three)  # 2 wins once, loses once: says nothing; 3 loses
    say(db, "x", "bad", one)  # said of 1 itself
    say(db, "x", "good", four)
    result = exporters.export(db, settings, project.project_id, "kto", "parquet")
    said = {row["completion"][0]["content"]: row["label"] for row in rows_of(result.path)}
    assert said == {"1": False, "3": False, "4": True}
    assert result.dropped == {"conflict": 1}
    result = exporters.export(db, settings, project.project_id, "sft", "jsonl", conversational=False)
    assert rows_of(result.path) == [{"prompt": "Which?", "completion": "4"}]
    assert result.dropped == {"conflict": 1, "bad": 2}


def test_labels_say_who_saw_what_where_without_saying_who_it_was(db: Database, settings: Settings, project: Project) -> None:
    _, (one, two) = ask(db, project, "Which?", "1", "2", model="secret")
    cookie = "cookie-of-a-visitor-0123456789abcdef"
    say(db, cookie, "b", one, two, note="=SUM(1)", dwell_ms=1200)
    say(db, cookie, "skip", two, one)
    say(db, "robot", "tie", two, one, simulated=True)
    say(db, "robot", "good", two)
    for format in FORMATS:
        result = exporters.export(db, settings, project.project_id, "labels", format)
        rows = rows_of(result.path)
        assert [(r["response_a"], r["response_b"] or "", r["preference"], str(r["simulated"])) for r in rows] == [
            ("1", "2", "b", "False"), ("2", "1", "skip", "False"), ("2", "1", "tie", "True"), ("2", "", "good", "False"),
        ]  # fmt: skip
        assert rows[0]["annotator"] == rows[1]["annotator"] == Pseudonyms(db, project.project_id).of(cookie)
        assert rows[0]["annotator"] != rows[2]["annotator"]
        assert (rows[0]["model_a"], rows[0]["model_b"], int(rows[0]["dwell_ms"])) == ("secret-0", "secret-1", 1200)
        assert cookie.encode() not in result.path.read_bytes()
        assert rows[0]["note"] == ("'=SUM(1)" if format == "csv" else "=SUM(1)")


def test_a_pseudonym_holds_within_a_project_only(db: Database) -> None:
    one, again, other = Pseudonyms(db, "p1"), Pseudonyms(db, "p1"), Pseudonyms(db, "p2")
    assert one.of("x") == again.of("x") != other.of("x")
    assert one.of("x") != one.of("y")
    assert one.of("imported:pandalm-1") == "imported:pandalm-1"


def test_a_pseudonym_cannot_be_computed_from_the_id(settings: Settings, db: Database, tmp_path: Path) -> None:
    """The same person in another workspace has another name: what makes it is a key of the person's own."""
    elsewhere = Database(Settings(home=tmp_path / "elsewhere"))
    try:
        assert Pseudonyms(db, "p1").of("x") != Pseudonyms(elsewhere, "p1").of("x")
    finally:
        elsewhere.close()


def test_a_cell_that_would_be_run_as_a_formula_is_disarmed_in_csv_alone(db: Database, settings: Settings, project: Project) -> None:
    texts = ["=cmd|' /C calc'!A0", "+1", "-2", "@SUM(1)", "\ttab", "'=quoted", "plain", "two\r\nlines", 'a "quote", b']
    for text in texts:
        ask(db, project, text)
    table = exporters.export(db, settings, project.project_id, "prompts", "csv", conversational=False)
    with table.path.open(encoding="utf-8-sig", newline="") as file:
        cells = [row["prompt"] for row in csv.DictReader(file)]
    assert cells == [f"'{text}" for text in texts[:6]] + texts[6:]
    assert table.path.read_bytes().startswith(b"\xef\xbb\xbf")
    lines = exporters.export(db, settings, project.project_id, "prompts", "jsonl", conversational=False)
    assert [row["prompt"] for row in rows_of(lines.path)] == texts


def test_a_prompt_that_plain_text_cannot_say_is_left_out_and_counted(db: Database, settings: Settings, project: Project) -> None:
    ask(db, project, "Plain?")
    ask(db, project, "With a system message?", system="Be brief.")
    result = exporters.export(db, settings, project.project_id, "prompts", "jsonl", conversational=False)
    assert ([row["prompt"] for row in rows_of(result.path)], result.dropped) == (["Plain?"], {"many_turns": 1})
    assert exporters.export(db, settings, project.project_id, "prompts", "jsonl").rows == 2


def test_nothing_to_export_is_said_with_the_reason(db: Database, settings: Settings, project: Project) -> None:
    with pytest.raises(BadInput, match="nothing to export as prompts yet; import or label something first"):
        exporters.export(db, settings, project.project_id, "prompts")
    _, (one, two) = ask(db, project, "Which?", "1", "2")
    say(db, "x", "tie", one, two)
    with pytest.raises(BadInput, match="nothing to export as DPO: 1 pair called a tie"):
        exporters.export(db, settings, project.project_id, "dpo")
    for layout, format in (("other", "jsonl"), ("prompts", "xlsx")):
        with pytest.raises(BadInput):
            exporters.export(db, settings, project.project_id, layout, format)  # type: ignore[arg-type]
    assert list(settings.export_dir.iterdir()) == []


def test_the_files_name_is_safe_and_another_projects_rows_stay_out(db: Database, settings: Settings, project: Project) -> None:
    other = projects.create(db, "Other")
    ask(db, other, "Not mine")
    ask(db, project, "Mine")
    result = exporters.export(db, settings, project.project_id, "prompts")
    assert re.fullmatch(r"[a-z0-9-]+-prompts-[0-9]{4}-[0-9]{2}-[0-9]{2}\.jsonl", result.path.name)
    first, told = result.path.read_bytes(), result.path.stem
    again = exporters.export(db, settings, project.project_id, "prompts", conversational=False)
    assert (again.path.name, result.path.read_bytes()) == (f"{told}-2.jsonl", first), "another of the same day leaves it alone"
    assert [row["prompt"][0]["content"] for row in rows_of(result.path)] == ["Mine"]


def test_an_export_folder_that_cannot_be_written_is_said_in_words(db: Database, settings: Settings, project: Project) -> None:
    ask(db, project, "Mine")
    settings.export_dir.rmdir()
    settings.export_dir.write_text("a file")
    with pytest.raises(WorkspaceError):
        exporters.export(db, settings, project.project_id, "prompts")


# --- there and back ----------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda t: t.strip() and "Human:" not in t)


@st.composite
def preferences(draw: st.DrawFn) -> list[dict[str, Any]]:
    asked = draw(st.lists(TEXT, min_size=1, max_size=6, unique=True))
    rows = []
    for prompt in asked:
        chosen, rejected = draw(st.lists(TEXT, min_size=2, max_size=2, unique_by=str.strip))
        earlier = draw(st.lists(st.tuples(TEXT, TEXT), max_size=2))
        system = draw(st.one_of(st.just(""), TEXT))
        turns = [("system", system)] * bool(system)
        turns += [turn for user, answer in earlier for turn in (("user", user), ("assistant", answer))]
        rows.append(
            {
                "prompt": [{"role": role, "content": text} for role, text in [*turns, ("user", prompt)]],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
        )
    return rows


def as_set(rows: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


@given(rows=preferences(), data=st.data())
@hypothesis_settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_preferences_come_back_as_they_were_whatever_the_format(
    db: Database, settings: Settings, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    """import -> export -> import into another project -> export: the same rows at every station."""
    source = settings.import_dir / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    format = data.draw(st.sampled_from(FORMATS))
    one, other = projects.create(db, "One"), projects.create(db, "Other")
    assert importers.load(db, one.project_id, source).preferences_added == len(rows)
    out = exporters.export(db, settings, one.project_id, "dpo", format)
    report = importers.load(db, other.project_id, out.path)
    assert (report.problem_count, report.preferences_added) == (0, len(rows))
    back = exporters.export(db, settings, other.project_id, "dpo", "jsonl")
    assert as_set(rows_of(back.path)) == as_set(rows)
    again = importers.load(db, one.project_id, out.path)
    assert (again.prompts_added, again.completions_added, again.preferences_added, again.duplicates) == (0, 0, 0, len(rows))


@given(asked=st.lists(TEXT, min_size=1, max_size=8, unique=True), data=st.data())
@hypothesis_settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_prompts_come_back_with_all_that_belongs_to_them(
    db: Database, settings: Settings, asked: list[str], data: st.DataObject
) -> None:
    project, other = projects.create(db, "One"), projects.create(db, "Other")
    field = st.one_of(st.just(""), TEXT)
    made = [
        prompts.new(
            project.project_id, [Message("user", text)], data.draw(st.lists(TEXT, max_size=2)), data.draw(field), data.draw(field)
        )
        for text in asked
    ]
    prompts.add(db, made)
    format, conversational = data.draw(st.sampled_from(FORMATS)), data.draw(st.booleans())
    out = exporters.export(db, settings, project.project_id, "prompts", format, conversational)
    report = importers.load(db, other.project_id, out.path)
    assert (report.problem_count, report.prompts_added) == (0, len(asked))
    back = {p.text: p for p in prompts.of_project(db, other.project_id)}
    for p in made:
        same = back[p.text]
        assert (same.messages, same.follow_up, same.reference, same.category, same.split) == (
            p.messages,
            p.follow_up,
            p.reference,
            p.category,
            p.split,
        )


def test_labels_come_back_with_sides_people_and_repeats(db: Database, settings: Settings, project: Project) -> None:
    _, (one, two) = ask(db, project, "Which?", "1", "2")
    said: list[tuple[str, Preference, Completion, Completion | None]] = [
        ("ann", "a", one, two), ("ann", "a", one, two), ("bob", "tie", two, one), ("bob", "both_bad", one, two),
        ("ann", "skip", two, one),
        ("ann", "good", one, None), ("bob", "bad", two, None), ("bob", "skip", two, None),
    ]  # fmt: skip
    for who, preference, left, right in said:
        say(db, who, preference, left, right, simulated=who == "bob")
    for format in FORMATS:
        other = projects.create(db, f"Copy by {format}")
        out = exporters.export(db, settings, project.project_id, "labels", format)
        report = importers.load(db, other.project_id, out.path)
        assert (report.preferences_added, report.problem_count, report.completions_added) == (len(said), 0, 2)
        sql = """select l.annotator_id, l.preference, a.text as left, coalesce(b.text, '') as right, l.simulated, i.task
                 from current_labels l join impressions i using (impression_id)
                 join completions a on a.completion_id = i.left_completion_id
                 left join completions b on b.completion_id = i.right_completion_id where l.project_id = ?"""
        names_of = Pseudonyms(db, project.project_id)
        names = {who: f"imported:{names_of.of(who)}" for who in ("ann", "bob")}
        expected = Counter(
            (names[who], preference, left.text, right.text if right else "", who == "bob", "pairwise" if right else "binary")
            for who, preference, left, right in said
        )
        assert Counter(tuple(row.values()) for row in db.rows(sql, [other.project_id])) == expected


def test_imported_labels_make_the_same_rows_in_an_export_and_in_a_frozen_snapshot(
    db: Database, settings: Settings, shared_data: Path
) -> None:
    """PandaLM's three annotators: 894 of 999 pairs are decided, the others are ties; empty answers are nothing to learn from."""
    source = settings.import_dir / "pandalm.json"
    source.write_bytes((shared_data / "pandalm/testset-v1.json").read_bytes())
    project = projects.create(db, "PandaLM")
    importers.load(db, project.project_id, source)
    out = exporters.export(db, settings, project.project_id, "dpo", "parquet")
    frozen = snapshots.freeze(db, settings, project.project_id, "preference")
    columns = ("prompt", "chosen", "rejected")
    there = [{column: row[column] for column in columns} for row in rows_of(snapshots.file_of(settings, frozen))]
    assert as_set(rows_of(out.path)) == as_set(there)
    assert out.rows + out.dropped["empty_text"] == 422 + 472
    assert out.dropped["tie"] == 105
    assert frozen.manifest["labels"] == {"people": 0, "simulated": 0, "imported": 2997, "left_out": 0}


@pytest.mark.slow
def test_the_hh_file_goes_through_a_round_trip(db: Database, settings: Settings, shared_data: Path) -> None:
    source = settings.import_dir / "hh.jsonl.gz"
    source.write_bytes((shared_data / "hh_rlhf/harmless-base-test.jsonl.gz").read_bytes())
    one, other = projects.create(db, "HH"), projects.create(db, "HH again")
    importers.load(db, one.project_id, source)
    out = exporters.export(db, settings, one.project_id, "dpo", "parquet")
    assert (out.rows, out.dropped) == (2308, {"empty_text": 4})
    report = importers.load(db, other.project_id, out.path)
    assert (report.preferences_added, report.problem_count) == (2308, 0)


# --- TRL ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_trl_takes_every_layout_as_it_is(db: Database, settings: Settings, project: Project, tmp_path: Path) -> None:
    """`load_dataset` on the file, then TRL's own trainers prepare it and take a step; text and conversational."""
    for i in range(8):
        _, (good, bad) = ask(db, project, f"What is {i} plus {i}?", f"It is {2 * i}.", "No idea.")
        say(db, "x", "a" if i % 2 else "b", *((good, bad) if i % 2 else (bad, good)))
    from trl_loads import first_losses

    def both(*how: Any, **more: Any) -> tuple[str, str]:
        lines, table = (
            exporters.export(db, settings, project.project_id, how[0], format, *how[1:], **more).path for format in BOTH
        )
        return str(lines), str(table)

    files = {
        f"{layout} {conversational}": both(layout, conversational)
        for layout in ("dpo", "reward", "kto", "sft")
        for conversational in (True, False)
    }
    for layout, rules in (
        ("dpo", Rules("weighted")),
        ("kto", Rules("weighted", "good")),
        ("kto", Rules("every")),
        ("reward", Rules("weighted")),
        ("sft", Rules("weighted", "good")),
    ):
        files[f"{layout} {rules.aggregation} {rules.ties}"] = both(layout, rules=rules)
    losses = first_losses(tmp_path, files)
    assert set(losses) == set(files)
    for name, loss in losses.items():
        assert loss == pytest.approx(math.log(2), abs=1e-3) if name.startswith("dpo") else loss > 0, name
