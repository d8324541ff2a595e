"""A stored label always says what the served sides mean, is stored once, and belongs to whoever was shown the item."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from functools import partial

import pytest
from at_once import at_once
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data import completions, impressions, labels, projects, prompts
from data.database import Database
from data.engine import Message
from data.errors import BadInput
from data.labels import Resolved
from data.records import BINARY_PREFERENCES, PAIRWISE_PREFERENCES, Impression, LabelEvent, Project, now

PREFERENCES = sorted({*PAIRWISE_PREFERENCES, *BINARY_PREFERENCES, ""})
MIRROR = {"a": "b", "b": "a"}


def shown(project: Project, impression_id: str, left: str = "left", right: str = "right", annotator: str = "ann") -> Impression:
    if project.task == "binary":
        right = ""
    sides = (f"pair {left} {right}" if right else "", left, right)
    return Impression(impression_id, project.project_id, annotator, "p", *sides, project.task, "normal", "x", 1.0, now(), now())


def cast(impression: Impression, preference: str, **changes: object) -> LabelEvent:
    event = LabelEvent(
        str(uuid.uuid4()), impression.impression_id, impression.project_id, impression.annotator_id, "cast", preference
    )  # type: ignore[arg-type]
    return replace(event, **changes)  # type: ignore[arg-type]


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


@pytest.fixture
def binary(db: Database) -> Project:
    return projects.create(db, "B", "binary")


def test_the_whole_table() -> None:
    assert {p: labels.resolve(p, "L", "R") for p in PREFERENCES} == {
        "a": Resolved("L", "R"),
        "b": Resolved("R", "L"),
        "tie": Resolved("", ""),
        "both_bad": Resolved("", ""),
        "skip": Resolved("", ""),
        "": Resolved("", ""),
        "good": Resolved("L", "", True),
        "bad": Resolved("", "L", False),
    }


@given(st.sampled_from(PREFERENCES), st.text(min_size=1), st.text(min_size=1))
def test_swapping_the_sides_mirrors_the_result(preference: str, left: str, right: str) -> None:
    if preference in PAIRWISE_PREFERENCES:
        assert labels.resolve(preference, left, right) == labels.resolve(MIRROR.get(preference, preference), right, left)
    result = labels.resolve(preference, left, right)
    assert {result.chosen, result.rejected} <= {left, right, ""}
    assert left == right or result.chosen != result.rejected or result.chosen == ""


@given(st.text().filter(lambda word: word not in PREFERENCES))
def test_no_other_word_is_a_preference(word: str) -> None:
    with pytest.raises(ValueError):
        labels.resolve(word, "L", "R")


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PAIRWISE_PREFERENCES), st.booleans()), min_size=1, max_size=8))
def test_the_stored_choice_matches_the_served_sides(db: Database, choices: list[tuple[str, bool]]) -> None:
    """Through the real writer: whatever the browser claims to have chosen, the sides stored at serving time decide."""
    project = projects.create(db, "P")
    served = [shown(project, uuid.uuid4().hex, *(("one", "two") if straight else ("two", "one"))) for _, straight in choices]
    impressions.add(db, served)
    lies = {"chosen_completion_id": "lie", "rejected_completion_id": "lie", "seq": 99}
    labels.append(db, [cast(i, preference, **lies) for i, (preference, _) in zip(served, choices, strict=True)])
    stored = labels.current(db, project.project_id)
    for event, impression, (preference, straight) in zip(stored, served, choices, strict=True):
        assert event.impression_id == impression.impression_id
        left, right = ("one", "two") if straight else ("two", "one")
        assert (event.chosen_completion_id, event.rejected_completion_id) == labels.resolve(preference, left, right)[:2]
        assert event.created_at is not None


def test_an_event_sent_again_is_acknowledged_and_stored_once(db: Database, project: Project) -> None:
    impressions.add(db, [shown(project, "i")])
    event = cast(shown(project, "i"), "a")
    assert labels.append(db, [event]) == [event.event_id]
    assert labels.append(db, [event, event]) == [event.event_id, event.event_id]
    assert labels.append(db, [replace(event, event_id=event.event_id.upper(), dwell_ms=9)]) == [event.event_id]
    assert [(e.preference, e.seq) for e in labels.history(db, "i")] == [("a", 1)]
    assert labels.stored(db, [event.event_id, event.event_id.upper(), str(uuid.uuid4()), "no id"]) == {
        event.event_id,
        event.event_id.upper(),
    }


@pytest.mark.parametrize(
    "other",
    [{"preference": "b"}, {"impression_id": "j"}, {"event": "revised"}, {"event": "retracted", "preference": ""}],
    ids=lambda other: next(iter(other)),
)
def test_an_id_that_says_something_else_is_refused_in_words(db: Database, project: Project, other: dict[str, str]) -> None:
    """Before it is stored and after: what was acknowledged stays, what was not stored is never called stored."""
    impressions.add(db, [shown(project, i) for i in "ijk"])
    first, good = cast(shown(project, "i"), "a"), cast(shown(project, "k"), "tie")
    lie = replace(first, event_id=first.event_id.upper(), **other)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="id already"):
        labels.append(db, [first, lie])
    assert labels.current(db, project.project_id) == []
    outcomes = labels.append_each(db, [first, lie, good])
    assert ["id already" in o.problem for o in outcomes] == [False, True, False]
    outcomes = labels.append_each(db, [lie, first, good])
    assert ["id already" in o.problem for o in outcomes] == [True, False, False]
    with pytest.raises(BadInput, match="id already"):
        labels.append(db, [good, lie])
    assert [(e.impression_id, e.preference, e.seq) for e in labels.current(db, project.project_id)] == [
        ("i", "a", 1),
        ("k", "tie", 2),
    ]


def test_two_senders_of_one_id_cannot_both_be_told_that_it_is_stored(db: Database, project: Project) -> None:
    impressions.add(db, [shown(project, i) for i in "ij"])
    first = cast(shown(project, "i"), "a")
    told: list[str] = []

    def work(n: int) -> None:
        event = first if n % 2 else replace(first, impression_id="j")
        if not labels.append_each(db, [event])[0].problem:
            told.append(event.impression_id)

    at_once([partial(work, n) for n in range(8)])
    (kept,) = labels.current(db, project.project_id)
    assert told == [kept.impression_id] * 4


def test_what_is_current_follows_the_order_of_commit(db: Database, project: Project) -> None:
    impressions.add(db, [shown(project, i) for i in "xyz"])
    x, y, z = (shown(project, i) for i in "xyz")
    labels.append(db, [cast(x, "a"), cast(y, "tie"), cast(z, "b")])
    labels.append(db, [cast(x, "b", event="revised"), cast(y, "", event="retracted"), cast(z, "", event="excluded")])
    assert [(e.impression_id, e.preference, e.chosen_completion_id) for e in labels.current(db, project.project_id)] == [
        ("x", "b", "right")
    ]
    labels.append(db, [cast(y, "both_bad")])
    counts = labels.counts(db, project.project_id)
    assert counts == labels.Counts(2, 2, 1, 0, {"b": 1, "both_bad": 1})
    assert [e.seq for i in "xyz" for e in labels.history(db, i)] == [1, 4, 2, 5, 7, 3, 6]


def test_counts_tell_skips_and_simulated_labels_apart(db: Database, project: Project) -> None:
    served = [shown(project, str(i), annotator=f"a{i % 2}") for i in range(4)]
    impressions.add(db, served)
    labels.append(db, [cast(s, p, simulated=p == "tie") for s, p in zip(served, ["a", "skip", "tie", "a"], strict=True)])
    counts = labels.counts(db, project.project_id)
    assert counts == labels.Counts(4, 3, 2, 1, {"a": 2, "skip": 1, "tie": 1})
    home = projects.counts(db, project.project_id)
    assert (home.labels, home.decided) == (4, 3)


BAD: dict[str, dict[str, object]] = {
    "an impression that does not exist": {"impression_id": "nowhere"},
    "somebody else's impression": {"annotator_id": "mallory"},
    "another project": {"project_id": "other"},
    "a binary answer": {"preference": "good"},
    "no answer": {"preference": ""},
    "a word that is none": {"preference": "A"},
    "an answer with a retraction": {"event": "retracted", "preference": "a"},
    "an event that is none": {"event": "deleted"},
    "an id that is none": {"event_id": "1 or 1=1"},
    "a novel": {"note": "x" * 10_001},
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_event_is_refused_and_nothing_of_its_batch_is_stored(db: Database, project: Project, why: str) -> None:
    impressions.add(db, [shown(project, "i"), shown(project, "j")])
    good, bad = cast(shown(project, "i"), "a"), replace(cast(shown(project, "j"), "a"), **BAD[why])  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        labels.append(db, [good, bad])
    assert labels.current(db, project.project_id) == []
    outcomes = labels.append_each(db, [bad, good])
    assert [bool(o.problem) for o in outcomes] == [True, False]
    assert [e.impression_id for e in labels.current(db, project.project_id)] == ["i"]


def test_a_binary_project_takes_binary_answers_only(db: Database, binary: Project) -> None:
    served = [shown(binary, str(i)) for i in range(3)]
    impressions.add(db, served)
    labels.append(db, [cast(s, p) for s, p in zip(served, BINARY_PREFERENCES, strict=True)])
    assert [(e.preference, e.chosen_completion_id, e.rejected_completion_id) for e in labels.current(db, binary.project_id)] == [
        ("good", "left", ""),
        ("bad", "", "left"),
        ("skip", "", ""),
    ]
    for preference in ("a", "b", "tie", "both_bad"):
        with pytest.raises(BadInput):
            labels.append(db, [cast(served[0], preference)])


def test_fifty_annotators_at_once(db: Database, project: Project) -> None:
    """Everybody's outbox replays: each label is there once, with its own number, and one bad event harms nobody else."""
    served = {w: [shown(project, f"{w}-{i}", annotator=f"w{w}") for i in range(10)] for w in range(50)}
    impressions.add(db, list(itertools.chain(*served.values())))
    refused: list[int] = []

    def work(worker: int) -> None:
        for i in range(0, 10, 2):
            batch = [cast(s, "a") for s in served[worker][i : i + 2]]
            for _ in range(2):
                assert labels.append(db, batch) == [e.event_id for e in batch]
            stolen = cast(served[(worker + 1) % 50][i], "b", annotator_id=f"w{worker}")
            try:
                labels.append(db, [stolen])
            except BadInput:
                refused.append(worker)

    at_once([partial(work, worker) for worker in range(50)])
    assert len(refused) == 250
    stored = labels.current(db, project.project_id)
    assert len(stored) == 500
    assert {e.preference for e in stored} == {"a"}
    assert len({e.seq for e in stored}) == 500, "numbers may have gaps (an event sent again takes one), never the same twice"
    for worker in range(50):
        mine = [e.impression_id for e in stored if e.annotator_id == f"w{worker}"]
        assert mine == [f"{worker}-{i}" for i in range(10)], "in the order in which they were sent"


def test_a_label_reaches_from_prompt_to_chosen_text(db: Database, project: Project) -> None:
    prompt = prompts.new(project.project_id, [Message("user", "hi")])
    prompts.add(db, [prompt])
    completions.add(db, [completions.new(prompt, text, "generated", "m", sample_index=i) for i, text in enumerate("xy")])
    (pair,) = completions.pairs_of(db, project.project_id)
    served = replace(shown(project, "i"), left_completion_id=pair.completion_b, right_completion_id=pair.completion_a)
    impressions.add(db, [served])
    labels.append(db, [cast(served, "a")])
    (label,) = labels.current(db, project.project_id)
    assert completions.get(db, label.chosen_completion_id).completion_id == pair.completion_b
