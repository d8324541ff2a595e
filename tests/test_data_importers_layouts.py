"""Layouts: what columns mean. Each is recognised from its rows, told in words, and read into prompt, answers and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data import completions, importers, labels, projects, prompts
from data.columns import LAYOUTS, ColumnMap, LabelColumn, describe
from data.database import Database
from data.engine import Message
from data.errors import BadInput
from data.import_store import Batch
from data.normalise import Answer, Item, Vote, items
from data.recognise import COMPLETION, LABELS, MESSAGES, PROMPT, REFERENCE, recognise
from data.settings import Settings
from data.transcripts import RowError, from_text, from_transcript, share_text

ASKED = (Message("user", "What is 2 + 2?"),)
U, A, S = "user", "assistant", "system"


def turns(*said: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(said[::2], said[1::2], strict=True)]


def preferred(by: str) -> dict[str, Any]:
    return {"answers": (Answer("4"), Answer("5")), "votes": (Vote(by, "first"),)}


GOOD = {"answers": (Answer("4"),), "votes": (Vote("imported:sft", "good"),)}
Q = "What is 2 + 2?"
SYSTEM = (Message(S, "Be brief."), *ASKED)

KNOWN: dict[str, tuple[dict[str, Any], str, Item]] = {
    "prompt": ({"prompt": Q}, "prompts", Item(ASKED)),
    "Prompt, capital": ({"Prompt": Q}, "prompts", Item(ASKED)),
    "text": ({"text": Q}, "prompts", Item(ASKED)),
    "question and answer": ({"question": Q, "answer": "4"}, "prompts", Item(ASKED, reference="4")),
    "prompt as messages": ({"prompt": turns(S, "Be brief.", U, Q)}, "prompts", Item(SYSTEM)),
    "messages as JSON in a cell": ({"prompt": json.dumps(turns(U, Q))}, "prompts", Item(ASKED)),
    "a prompt that looks like a list": ({"prompt": "[1, 2]"}, "prompts", Item((Message(U, "[1, 2]"),))),
    "Alpaca": (
        {"instruction": "Add.", "input": "2 and 2", "output": "4"},
        "prompts",
        Item((Message(U, "Add.\n\n2 and 2"),), reference="4"),
    ),
    "Alpaca without input": ({"instruction": Q, "input": "", "output": "4"}, "prompts", Item(ASKED, reference="4")),
    "messages": ({"messages": turns(U, Q)}, "messages", Item(ASKED)),
    "messages with an answer": ({"messages": turns(S, "Be brief.", U, Q, A, "4")}, "messages", Item(SYSTEM, **GOOD)),
    "messages with two answers in a row": (
        {"messages": turns(U, Q, A, "4", A, "Really.")},
        "messages",
        Item(ASKED, answers=(Answer("4\n\nReally."),), votes=(Vote("imported:sft", "good"),)),
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": "4"}]},
        "messages",
        Item(ASKED, **GOOD),
    ),
    "MT-Bench": (
        {"turns": [Q, "And 3 + 3?"], "category": "math"},
        "turns",
        Item(ASKED, follow_up=("And 3 + 3?",), category="math"),
    ),
    "Arena-Hard v0.1 turns": ({"turns": [{"content": Q}], "cluster": "sums"}, "turns", Item(ASKED, category="sums")),
    "seed task": (
        {"id": "t1", "instruction": "Add.", "instances": [{"input": "2 and 2", "output": "4"}]},
        "seed_tasks",
        Item((Message(U, "Add.\n\n2 and 2"),), reference="4", external_id="t1"),
    ),
    "DPO": ({"prompt": Q, "chosen": "4", "rejected": "5"}, "preference", Item(ASKED, **preferred("imported:dpo"))),
    "DPO conversational": (
        {"prompt": turns(U, Q), "chosen": turns(A, "4"), "rejected": turns(A, "5")},
        "preference",
        Item(ASKED, **preferred("imported:dpo")),
    ),
    "DPO conversational, implicit prompt": (
        {"chosen": turns(U, Q, A, "4"), "rejected": turns(U, Q, A, "5")},
        "preference",
        Item(ASKED, **preferred("imported:dpo")),
    ),
    "DPO with prompt text and whole conversations": (
        {"prompt": Q, "chosen": turns(U, Q, A, "4"), "rejected": turns(U, Q, A, "5")},
        "preference",
        Item(ASKED, **preferred("imported:dpo")),
    ),
    "DPO text, implicit prompt": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "preference",
        Item((Message(U, "The sky is"),), answers=(Answer("blue."), Answer("green.")), votes=(Vote("imported:dpo", "first"),)),
    ),
    "DPO with a system column": (
        {"system": "Be brief.", "question": Q, "chosen": "4", "rejected": "5"},
        "preference",
        Item(SYSTEM, **preferred("imported:dpo")),
    ),
    "DPO with an HH prompt": (
        {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", "chosen": " 4", "rejected": " 5"},
        "preference",
        Item(ASKED, answers=(Answer(" 4"), Answer(" 5")), votes=(Vote("imported:dpo", "first"),)),
    ),
    "HH": (
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: 4", "rejected": f"\n\nHuman: {Q}\n\nAssistant: 5"},
        "transcripts",
        Item(ASKED, **preferred("imported:hh")),
    ),
    "KTO": (
        {"prompt": Q, "completion": "4", "label": True},
        "binary",
        Item(ASKED, answers=(Answer("4"),), votes=(Vote("imported:kto", "good"),)),
    ),
    "KTO conversational, bad": (
        {"prompt": turns(U, Q), "completion": turns(A, "4"), "label": False},
        "binary",
        Item(ASKED, answers=(Answer("4"),), votes=(Vote("imported:kto", "bad"),)),
    ),
    "KTO from a table": (
        {"prompt": Q, "completion": "4", "label": "False"},
        "binary",
        Item(ASKED, answers=(Answer("4"),), votes=(Vote("imported:kto", "bad"),)),
    ),
    "SFT": ({"prompt": Q, "completion": "4"}, "demonstrations", Item(ASKED, **GOOD)),
    "SFT conversational": ({"prompt": turns(U, Q), "completion": turns(A, "4")}, "demonstrations", Item(ASKED, **GOOD)),
    "Dolly": (
        {"instruction": "Add.", "context": "2 and 2", "response": "4"},
        "demonstrations",
        Item((Message(U, "Add.\n\n2 and 2"),), **GOOD),
    ),
    "SFT text, HH": ({"text": f"\n\nHuman: {Q}\n\nAssistant: 4"}, "text", Item(ASKED, **GOOD)),
    "SFT text, ChatML": (
        {"text": f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n4<|im_end|>"},
        "text",
        Item(SYSTEM, **GOOD),
    ),
    "SFT text, Alpaca template": (
        {"text": f"Below is an instruction.\n\n### Instruction:\n{Q}\n\n### Response:\n4"},
        "text",
        Item(ASKED, **GOOD),
    ),
    "PandaLM": (
        {"instruction": Q, "input": "", "response1": "4", "response2": True, "annotator1": 1, "annotator2": 0, "cmp_key": "m_n"},
        "pairs",
        Item(
            ASKED,
            answers=(Answer("4", "m"), Answer("True", "n")),
            votes=(Vote("imported:pandalm-1", "first"), Vote("imported:pandalm-2", "tie")),
        ),
    ),
    "two answers without labels": (
        {"prompt": Q, "answer_a": "4", "answer_b": "5", "model_a": "x", "model_b": "y"},
        "pairs",
        Item(ASKED, answers=(Answer("4", "x"), Answer("5", "y"))),
    ),
    "own labels": (
        {"prompt": turns(U, Q), "response_a": "4", "response_b": "5", "preference": "b", "annotator": "Anna 1", "simulated": True},
        "labels",
        Item(ASKED, answers=(Answer("4"), Answer("5")), votes=(Vote("imported:anna-1", "second", True),), as_shown=True),
    ),
    "own labels, binary": (
        {"task": "binary", "prompt": Q, "response_a": "4", "response_b": "", "preference": "good", "annotator": "x", "label_id": 7},
        "labels",
        Item(ASKED, answers=(Answer("4"),), votes=(Vote("imported:x", "good", key="7"),), as_shown=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", KNOWN)
def test_a_layout_is_recognised_and_read(what: str) -> None:
    row, kind, expected = KNOWN[what]
    second = {**row, "annotator2": 2} if what == "PandaLM" else row  # a 2 shows that the coding is 0, 1, 2
    mapping = recognise([row, {**second, "annotator1": 2} if what == "PandaLM" else second], "file.jsonl").mapping
    assert mapping.layout == kind
    assert items(row, mapping) == [expected]
    lines = describe(mapping)
    assert lines[0] == f"Read as {LAYOUTS[mapping.layout]}."
    used = [*mapping.used().values(), *(person.column for person in mapping.people)]
    told = [column for column in used if any(f"“{column}”" in line for line in lines)]
    assert told or kind == "preference"
    assert ColumnMap.from_json(json.loads(json.dumps(mapping.to_json()))) == mapping


REFUSED_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "chosen without an answer": (
        {"chosen": turns(U, Q), "rejected": turns(U, Q, A, "5")},
        "the chosen conversation does not end with an answer",
    ),
    "different prompts": (
        {"chosen": turns(U, Q, A, "4"), "rejected": turns(U, "Other", A, "5")},
        "differ before their last answer",
    ),
    "mixed": ({"prompt": Q, "chosen": "4", "rejected": turns(A, "5")}, "not written the same way"),
    "nothing shared": ({"chosen": "Blue.", "rejected": "Green."}, "share no beginning"),
    "no label": ({"prompt": Q, "completion": "4", "label": None}, "'label' is missing"),
    "odd label": ({"prompt": Q, "completion": "4", "label": "perhaps"}, "a label is true or false"),
    "empty demonstration": ({"prompt": Q, "completion": " "}, "the answer is empty"),
    "user in the completion": ({"prompt": Q, "completion": turns(U, "4")}, "turns that are not the assistant's"),
    "no turns": ({"turns": []}, "has no turns"),
    "no instances": ({"instruction": Q, "instances": []}, "has no instances"),
    "no messages": ({"messages": []}, "has no messages"),
    "only a system message": ({"messages": turns(S, "x")}, "does not end with a user's turn"),
    "an annotator without a name": (
        {"prompt": Q, "response_a": "4", "response_b": "5", "preference": "a", "annotator": " "},
        "the annotator has no name",
    ),
    "good for two answers": (
        {"prompt": Q, "response_a": "4", "response_b": "5", "preference": "tie", "annotator": "x", "task": "binary"},
        "is no label for one answer",
    ),
}


@pytest.mark.parametrize("what", REFUSED_ROWS)
def test_a_row_that_says_nothing_usable_is_refused_with_the_reason(what: str) -> None:
    row, reason = REFUSED_ROWS[what]
    helper = {"messages": [*turns(U, Q)]} if "messages" in row else row
    mapping = recognise([row, helper], "file.jsonl").mapping
    with pytest.raises(RowError, match=reason):
        items(row, mapping)


def test_labels_coded_zero_and_one_are_not_guessed() -> None:
    rows = [{"prompt": Q, "output_1": "4", "output_2": "5", "label": label} for label in (0, 1, 1)]
    mapping, notes = recognise(rows, "file.jsonl")
    assert mapping.people == ()
    assert "nobody can say which answer is meant" in notes[0]
    by_hand = ColumnMap("pairs", prompt="prompt", left="output_1", right="output_2", people=(LabelColumn("label", "imported:x"),))
    assert items(rows[1], by_hand)[0].votes == (Vote("imported:x", "first"),)


def test_demonstrations_can_come_in_without_a_label() -> None:
    mapping = ColumnMap("demonstrations", prompt="prompt", completion="completion", as_good=False)
    assert items({"prompt": Q, "completion": "4"}, mapping) == [Item(ASKED, answers=(Answer("4"),))]
    assert "without a label" in describe(mapping)[1]


def test_seed_tasks_with_several_instances_are_several_prompts() -> None:
    row = {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "2 2", "output": "4"}]}
    made = items(row, recognise([row], "f").mapping)
    assert [(i.messages[0].content, i.reference) for i in made] == [("Add.\n\n1 1", "2"), ("Add.\n\n2 2", "4")]


def test_turns_of_one_speaker_in_a_row_become_one() -> None:
    text = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: e"
    assert [m.content for m in from_transcript(text)] == ["a", "b\n\nc", "d", "e"]
    assert from_text("no marks at all") is None
    with pytest.raises(RowError):
        from_transcript("System: x\n\nHuman: a\n\nAssistant: b")


@pytest.mark.parametrize(
    "piece",
    [
        "<|im_start|>user\n",
        "### Instruction:\n",
        "\n### Input:\nx",
        "### Instruction:\nx\n### Input:\ny",
        "\n",
        "\n\nHuman:",
        "Human: ",
    ],
)
def test_a_megabyte_of_marks_without_an_end_is_read(piece: str) -> None:
    """Hangs for ever, and not only a little longer, if all of it is looked through at each mark."""
    assert from_text("### Instruction:\n" + piece * (1_000_000 // len(piece))) is None


def test_an_implied_prompt_ends_at_a_word() -> None:
    assert share_text("one two three", "one two thirty")[:2] == ((Message("user", "one two"),), "three")
    with pytest.raises(RowError):
        share_text("same", "same")


def test_unknown_columns_are_named() -> None:
    with pytest.raises(BadInput, match="it has 'a', 'b'"):
        recognise([{"a": 1, "b": "x"}], "file.csv")


TEXTS = st.text(max_size=12) | st.sampled_from(["user", "assistant", "Human: a\n\nAssistant: b"])
PARTS = st.sampled_from(["role", "content", "from", "value", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner, max_size=3),
    max_leaves=8,
)
OTHERS = (
    "turns instances chosen rejected response1 response2 annotator1 response_a response_b system follow_up input choices "
    "question_id cmp_key simulated"
)
NAMES = sorted({*PROMPT, *COMPLETION, *MESSAGES, *LABELS, *REFERENCE, *OTHERS.split()})


@given(rows=st.lists(st.dictionaries(st.sampled_from(NAMES), JSON, min_size=1, max_size=6), min_size=1, max_size=4))
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_in_a_row_it_is_stored_or_refused_with_a_reason(rows: list[dict[str, Any]]) -> None:
    try:
        mapping = recognise(rows, "file.jsonl").mapping
    except BadInput:
        return
    batch, reasons = Batch("project", "file.jsonl"), []
    for row in rows:
        try:
            batch.add(items(row, mapping))
        except RowError as error:
            reasons.append(str(error))
    assert all("\n" not in reason and len(reason) < 300 for reason in reasons)
    for prompt in batch.prompts.values():
        assert prompt.text.strip()


# --- stored ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def project_id(db: Database) -> str:
    return projects.create(db, "Layouts").project_id


def store(
    db: Database, settings: Settings, project_id: str, rows: list[dict[str, Any]], name: str = "rows.jsonl"
) -> importers.ImportReport:
    path = settings.import_dir / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return importers.load(db, project_id, Path(name))


def test_an_imported_preference_resolves_to_the_chosen_answer_on_either_side(
    db: Database, settings: Settings, project_id: str
) -> None:
    rows = [{"prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]
    report = store(db, settings, project_id, rows)
    assert (report.prompts_added, report.completions_added, report.preferences_added) == (60, 120, 60)
    texts = {c.completion_id: c.text for c in completions.of_prompts(db, [p.prompt_id for p in prompts.of_project(db, project_id)])}
    current = labels.current(db, project_id)
    for event in current:
        assert texts[event.chosen_completion_id].startswith("good")
        assert texts[event.rejected_completion_id] == texts[event.chosen_completion_id].replace("good", "bad")
        row = db.row("select * from impressions where impression_id = ?", [event.impression_id])
        assert row is not None
        sides = labels.resolve(event.preference, row["left_completion_id"], row["right_completion_id"])  # type: ignore[arg-type]
        assert (sides.chosen, sides.rejected) == (event.chosen_completion_id, event.rejected_completion_id)
    assert 15 < sum(event.preference == "a" for event in current) < 45


def test_the_same_rows_under_another_name_or_order_add_nothing(db: Database, settings: Settings, project_id: str) -> None:
    rows = [{"prompt": f"Question {i}?", "chosen": "yes", "rejected": "no"} for i in range(10)]
    store(db, settings, project_id, rows)
    again = store(db, settings, project_id, rows[::-1], "copy.jsonl")
    assert (again.prompts_added, again.completions_added, again.preferences_added, again.duplicates) == (0, 0, 0, 10)
    more = store(db, settings, project_id, [*rows, {"prompt": "Question 1?", "chosen": "maybe", "rejected": "no"}], "more.jsonl")
    assert (more.prompts_added, more.completions_added, more.preferences_added, more.duplicates) == (0, 1, 1, 10)


def test_a_file_that_contradicts_itself_keeps_both_labels(db: Database, settings: Settings, project_id: str) -> None:
    rows = [{"prompt": Q, "chosen": "4", "rejected": "5"}, {"prompt": Q, "chosen": "5", "rejected": "4"}]
    report = store(db, settings, project_id, [*rows, *rows])
    assert (report.preferences_added, report.duplicates) == (2, 2)
    chosen = {e.chosen_completion_id for e in labels.current(db, project_id)}
    assert len(chosen) == 2


def test_two_answers_that_are_the_same_make_no_pair_and_are_named(db: Database, settings: Settings, project_id: str) -> None:
    report = store(db, settings, project_id, [{"prompt": Q, "chosen": "4", "rejected": "4 "}])
    assert (report.prompts_added, report.completions_added, report.preferences_added) == (1, 2, 0)
    preview = importers.read(settings, Path("rows.jsonl"))
    assert preview.warnings[0] == (
        "Rows with two answers that are the same: 1 (line 1); they make no pair, and no preference is stored."
    )
    assert preview.labels == 0


def test_a_broken_off_import_is_completed_by_the_next(
    db: Database, settings: Settings, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importers, "BATCH_ITEMS", 100)
    rows = [{"prompt": f"Question {i}?", "chosen": "yes", "rejected": "no"} for i in range(250)]
    path = settings.import_dir / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def pull_the_plug(done: int, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importers.load(db, project_id, path, progress=pull_the_plug)
    assert prompts.count(db, project_id) == 100
    report = importers.load(db, project_id, path)
    assert (report.prompts_added, report.preferences_added, report.duplicates) == (150, 150, 100)
    assert labels.counts(db, project_id).labels == 250


def test_hostile_text_is_stored_as_it_is(db: Database, settings: Settings, project_id: str) -> None:
    texts = [
        "'; drop table prompts; --",
        "<script>alert(1)</script>",
        "a\0b",
        "{{7*7}}",
        "../../etc/passwd",
        "\u202e\u200b",
        "=cmd|' /C calc'!A0",
    ]
    store(db, settings, project_id, [{"prompt": text} for text in texts])
    assert [p.text for p in prompts.of_project(db, project_id)] == texts
