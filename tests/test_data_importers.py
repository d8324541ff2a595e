"""Import of real data sets as their authors publish them: counts, meaning, and that a second import adds nothing."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data import completions, importers, labels, people, projects, prompts
from data.database import Database
from data.engine import Message
from data.errors import BadInput
from data.settings import Settings

pytestmark = pytest.mark.long


class Place(NamedTuple):
    settings: Settings
    db: Database
    project_id: str


@pytest.fixture
def place(settings: Settings, db: Database) -> Place:
    return Place(settings, db, projects.create(db, "Imports").project_id)


def put(place: Place, source: Path) -> Path:
    return Path(shutil.copy(source, place.settings.import_dir))


def load_twice(place: Place, path: Path) -> importers.ImportReport:
    """The report of the first import; the second must add nothing and call every good row a duplicate."""
    first = importers.load(place.db, place.project_id, path)
    tables = ("prompts", "completions", "pairs", "impressions", "label_events")
    before = [place.db.value(f"select count(*) from {table}") for table in tables]
    second = importers.load(place.db, place.project_id, path)
    assert [place.db.value(f"select count(*) from {table}") for table in tables] == before
    assert (second.prompts_added, second.completions_added, second.preferences_added) == (0, 0, 0)
    assert second.duplicates == first.rows - first.problem_count
    return first


@pytest.mark.parametrize(
    ("file", "kind", "rows"),
    [
        ("mt_bench/question.jsonl", "turns", 80),
        ("arena_hard/question_v0.1.jsonl", "prompts", 500),
        ("stanford_alpaca/seed_tasks.jsonl", "seed_tasks", 175),
        ("gsm8k/test.jsonl", "prompts", 1319),
        ("gsm8k/train_first1000.jsonl", "prompts", 1000),
        ("ifeval/input_data.jsonl", "prompts", 541),
        ("human_eval/HumanEval.jsonl.gz", "prompts", 164),
        ("llmbar/natural/dataset.json", "pairs", 100),
        ("alpaca_eval/annotations/alpaca-7b.jsonl", "prompts", 805),
    ],
)
def test_every_row_of_a_real_file_is_taken_in(place: Place, shared_data: Path, file: str, kind: str, rows: int) -> None:
    path = put(place, shared_data / file)
    preview = importers.read(place.settings, path)
    assert (preview.kind, preview.rows, preview.good, preview.prompts, preview.complete) == (kind, rows, rows, rows, True)
    assert preview.problems == ()
    assert place.db.value("select count(*) from prompts") == 0, "a preview writes nothing"
    report = load_twice(place, path)
    assert (report.rows, report.prompts_added, report.problem_count) == (rows, rows, 0)
    assert prompts.count(place.db, place.project_id) == rows


def test_a_two_turn_question_keeps_its_second_turn(place: Place, shared_data: Path) -> None:
    path = put(place, shared_data / "mt_bench/question.jsonl")
    assert any("a second one is kept as a follow-up" in line for line in importers.read(place.settings, path).description)
    importers.load(place.db, place.project_id, path)
    asked = prompts.of_project(place.db, place.project_id)
    assert all(len(p.follow_up) == 1 and len(p.messages) == 1 for p in asked)
    assert asked[0].text.startswith("Compose an engaging travel blog post")
    assert asked[0].follow_up == ("Rewrite your previous response. Start every sentence with the letter A.",)
    assert asked[0].external_id == "81"
    assert Counter(p.category for p in asked) == dict.fromkeys(
        ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"), 10
    )
    with_reference = [p for p in asked if p.reference]
    assert with_reference[0].reference.startswith('It means "Becoming loose are my clothes')


def test_mt_bench_answers_alone_are_refused_in_a_sentence(place: Place, shared_data: Path) -> None:
    path = put(place, shared_data / "mt_bench/reference_answer/gpt-4.jsonl")
    with pytest.raises(BadInput, match="answers to MT-Bench questions but not the questions; import question"):
        importers.read(place.settings, path)


@pytest.mark.parametrize(
    "file", ["pandalm/gpt-3.5-turbo-testset-v1.json", "evalica/codings.csv", "alpaca_eval/leaderboard_ae2.csv"]
)
def test_a_file_without_prompts_is_refused_naming_its_columns(place: Place, shared_data: Path, file: str) -> None:
    path = put(place, shared_data / file)
    with pytest.raises(BadInput) as refused:
        importers.load(place.db, place.project_id, path)
    assert "\n" not in str(refused.value)
    assert prompts.count(place.db, place.project_id) == 0


def test_prompts_that_may_be_numbers_of_prompts_elsewhere_are_doubted(place: Place, shared_data: Path) -> None:
    preview = importers.read(place.settings, put(place, shared_data / "evalica/llmfao.csv"))
    assert preview.warnings[0].startswith("“prompt” holds nothing but numbers: they may be the ids of prompts")


def test_seed_tasks_join_instruction_and_input(place: Place, shared_data: Path) -> None:
    importers.load(place.db, place.project_id, put(place, shared_data / "stanford_alpaca/seed_tasks.jsonl"))
    asked = {p.external_id: p for p in prompts.of_project(place.db, place.project_id)}
    raw = {row["id"]: row for row in map(json.loads, (shared_data / "stanford_alpaca/seed_tasks.jsonl").open(encoding="utf-8"))}
    for task_id, row in raw.items():
        (instance,) = row["instances"]
        joined = f"{row['instruction']}\n\n{instance['input']}" if instance["input"].strip() else row["instruction"]
        assert asked[task_id].text == joined
        assert asked[task_id].reference == instance["output"]
    assert sum("\n\n" in p.text for p in asked.values()) >= 125


def test_gsm8k_keeps_its_answer_as_reference(place: Place, shared_data: Path) -> None:
    importers.load(place.db, place.project_id, put(place, shared_data / "gsm8k/test.jsonl"))
    first = prompts.of_project(place.db, place.project_id, limit=1)[0]
    assert first.text.startswith("Janet’s ducks lay 16 eggs")
    assert first.reference.endswith("#### 18")


def test_hh_transcripts_become_turns_and_two_answers_labelled_on_both_sides(place: Place, shared_data: Path) -> None:
    source = shared_data / "hh_rlhf/harmless-base-test.jsonl.gz"
    path = put(place, source)
    preview = importers.read(place.settings, path)
    assert (preview.kind, preview.rows, preview.labels) == ("transcripts", 2312, 2312)
    assert any("Rows with an empty answer: 4 (line 87, 517, 926, 1104)" in words for words in preview.warnings)
    report = load_twice(place, path)
    assert (report.prompts_added, report.completions_added, report.preferences_added) == (2310, 4624, 2312)
    asked = {p.prompt_id: p for p in prompts.of_project(place.db, place.project_id)}
    assert all(p.messages[-1].role == "user" for p in asked.values())
    said = {c.completion_id: c for c in completions.of_prompts(place.db, list(asked))}
    stored = Counter(
        (_transcript(asked[chosen.prompt_id].messages, chosen.text), _transcript(asked[chosen.prompt_id].messages, rejected.text))
        for event in labels.current(place.db, place.project_id)
        for chosen, rejected in [(said[event.chosen_completion_id], said[event.rejected_completion_id])]
    )
    with gzip.open(source, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    published = Counter((_squeezed(row["chosen"]), _squeezed(row["rejected"])) for row in raw)
    assert (stored & published).total() == 2312 - 9, "9 transcripts have two turns of the assistant in a row, which become one"
    counts = labels.counts(place.db, place.project_id)
    assert (counts.labels, counts.simulated, counts.annotators) == (2312, 0, 1)
    assert 0.45 < counts.by_preference["a"] / 2312 < 0.55, "the chosen answer must not always be on one side"
    assert people.ensure(place.db, "imported:hh", "", "local").kind == "imported"
    assert place.db.rows("select distinct kind, policy from impressions") == [{"kind": "imported", "policy": "imported"}]
    orphans = "select count(*) from impressions i left join pairs p using (pair_id) where p.pair_id is null"
    assert place.db.value(orphans) == 0


def _transcript(messages: Sequence[Message], answer: str) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return _squeezed("".join(f"\n\n{names[m.role]}: {m.content}" for m in [*messages, Message("assistant", answer)]))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def test_pandalm_has_three_people_and_the_published_majority(place: Place, shared_data: Path) -> None:
    source = shared_data / "pandalm/testset-v1.json"
    path = put(place, source)
    preview = importers.read(place.settings, path)
    assert (preview.kind, preview.format, preview.rows, preview.labels, preview.problem_count) == ("pairs", "json", 999, 2997, 0)
    assert any("Labels of 3 people" in line for line in preview.description)
    report = load_twice(place, path)
    assert (report.prompts_added, report.preferences_added) == (170, 2997)
    raw = json.loads(source.read_text(encoding="utf-8"))
    votes: dict[tuple[str, str], list[str]] = defaultdict(list)
    answers = {c.completion_id: c for c in completions.of_prompts(place.db, _all_prompts(place))}
    sql = """select i.left_completion_id as one, i.right_completion_id as other, l.chosen_completion_id as chosen
             from current_labels l join impressions i using (impression_id)"""
    for row in place.db.rows(sql):
        one, other = sorted((row["one"], row["other"]))
        votes[one, other].append(row["chosen"] or "tie")
    assert len(votes) == 999
    assert all(len(said) == 3 for said in votes.values())
    asked = {p.prompt_id: p for p in prompts.of_project(place.db, place.project_id)}
    majority: Counter[str] = Counter()
    of_pair = {
        _identity(asked[answers[one].prompt_id].text, answers[one], answers[other]): said for (one, other), said in votes.items()
    }
    for row in raw:
        first, second = row["cmp_key"].split("_")
        prompt = f"{row['instruction']}\n\n{row['input']}" if row["input"].strip() else row["instruction"]
        key = (prompt, frozenset([(first, str(row["response1"])), (second, str(row["response2"]))]))
        winner = Counter(of_pair[key]).most_common(1)[0][0]
        majority["tie" if winner == "tie" else "first" if answers[winner].model == first else "second"] += 1
    assert majority == {"tie": 105, "first": 422, "second": 472}
    annotators = place.db.rows("select annotator_id, kind from people order by annotator_id")
    assert annotators == [{"annotator_id": f"imported:pandalm-{i}", "kind": "imported"} for i in (1, 2, 3)]


def _all_prompts(place: Place) -> list[str]:
    return [p.prompt_id for p in prompts.of_project(place.db, place.project_id)]


def _identity(prompt: str, one: Any, other: Any) -> tuple[str, frozenset[tuple[str, str]]]:
    return prompt, frozenset([(one.model, one.text), (other.model, other.text)])


def test_llmbar_gold_labels_are_a_person_of_their_own(place: Place, shared_data: Path) -> None:
    source = shared_data / "llmbar/adversarial_neighbor/dataset.json"
    report = load_twice(place, put(place, source))
    assert (report.prompts_added, report.preferences_added) == (134, 134)
    said = {c.completion_id: c.text for c in completions.of_prompts(place.db, _all_prompts(place))}
    chosen = sorted(said[event.chosen_completion_id] for event in labels.current(place.db, place.project_id))
    raw = json.loads(source.read_text(encoding="utf-8"))
    assert chosen == sorted(row[f"output_{row['label']}"] for row in raw)


def test_a_judges_scores_are_not_taken_for_a_persons_labels(place: Place, shared_data: Path) -> None:
    path = put(place, shared_data / "alpaca_eval/annotations/claude-2.1.jsonl")
    preview = importers.read(place.settings, path)
    assert any("“preference” is not labels coded 0, 1 and 2: its values are left out" in words for words in preview.warnings)
    report = load_twice(place, path)
    assert (report.prompts_added, report.completions_added, report.preferences_added) == (805, 1610, 0)
    assert set(completions.counts(place.db, place.project_id).models) == {"gpt4_1106_preview", "claude-2.1"}


def test_what_the_demo_model_cannot_answer_is_said_in_the_preview(place: Place, shared_data: Path) -> None:
    preview = importers.read(place.settings, put(place, shared_data / "arena_hard/question_v0.1.jsonl"))
    assert any(words.startswith("The demo model knows only its own small world") for words in preview.warnings)
    assert any("Rows with a prompt of more than 8,000 characters: 2" in words for words in preview.warnings)
