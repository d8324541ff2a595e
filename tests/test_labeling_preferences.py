"""What an annotator may say, in which words it is refused, and that saying it twice stores it once."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from labelling import seed_project

from data import impressions, labels
from data.errors import BadInput
from labeling import preferences
from labeling.assignment import Assignment
from labeling.preferences import Vote


@pytest.fixture
def served(db: Any) -> list[Any]:
    project = seed_project(db, 6)
    return [s.impression for s in Assignment(db).serve("ann", project.project_id, 6)]


def a_vote(impression: Any, preference: str = "a", event: str = "cast", event_id: str = "") -> Vote:
    return Vote(event_id or str(uuid.uuid4()), impression.impression_id, event, preference)


def test_a_vote_is_stored_for_the_side_that_was_shown(db: Any, served: list[Any]) -> None:
    preferences.cast(db, "ann", served[0].impression_id, "b", note="shorter")
    [label] = labels.current(db, served[0].project_id)
    assert (label.chosen_completion_id, label.rejected_completion_id) == (
        served[0].right_completion_id,
        served[0].left_completion_id,
    )
    assert label.note == "shorter"
    assert label.client_at is not None


def test_revise_retract_and_skip(db: Any, served: list[Any]) -> None:
    first, second, *_ = served
    preferences.cast(db, "ann", first.impression_id, "a")
    preferences.revise(db, "ann", first.impression_id, "tie")
    preferences.skip(db, "ann", second.impression_id)
    assert [e.preference for e in labels.current(db, first.project_id)] == ["tie", "skip"]
    preferences.retract(db, "ann", first.impression_id)
    assert [e.preference for e in labels.current(db, first.project_id)] == ["skip"]
    assert [e.event for e in labels.history(db, first.impression_id)] == ["cast", "revised", "retracted"]


def test_sending_a_batch_again_adds_nothing(db: Any, served: list[Any]) -> None:
    votes = [a_vote(i) for i in served]
    assert all(o.accepted for o in preferences.record(db, "ann", votes))
    assert all(o.accepted for o in preferences.record(db, "ann", votes))
    assert db.value("select count(*) from label_events") == 6


def test_one_bad_vote_does_not_hold_up_the_rest(db: Any, served: list[Any]) -> None:
    good, odd = a_vote(served[0]), a_vote(served[1], "good")
    unknown = Vote(str(uuid.uuid4()), "no such impression", "cast", "a")
    outcomes = preferences.record(db, "ann", [odd, good, unknown, a_vote(served[2], "a", event_id="not a uuid")])
    assert [o.accepted for o in outcomes] == [False, True, False, False]
    assert [o.event_id for o in outcomes][:3] == [odd.event_id, good.event_id, unknown.event_id]
    assert "not shown to you" in outcomes[2].reason
    assert "UUID" in outcomes[3].reason
    assert all(o.reason.endswith(".") for o in outcomes if not o.accepted)
    assert db.value("select count(*) from label_events") == 1


@pytest.mark.parametrize(
    ("preference", "event", "words"),
    [
        ("good", "cast", "no answer to this item"),
        ("", "cast", "no answer to this item"),
        ("a", "retracted", "no answer to this item"),
        ("a", "excluded", "nothing that can be done"),
        ("a", "drop table", "nothing that can be done"),
    ],
)
def test_what_cannot_be_said_is_refused_in_words(db: Any, served: list[Any], preference: str, event: str, words: str) -> None:
    [outcome] = preferences.record(db, "ann", [a_vote(served[0], preference, event)])
    assert not outcome.accepted
    assert words in outcome.reason
    assert db.value("select count(*) from label_events") == 0


def test_nobody_labels_what_another_was_shown(db: Any, served: list[Any]) -> None:
    with pytest.raises(BadInput, match="not shown to you"):
        preferences.cast(db, "bea", served[0].impression_id, "a")


def test_half_a_character_in_a_note_is_refused_alone(db: Any, served: list[Any]) -> None:
    broken = Vote(str(uuid.uuid4()), served[0].impression_id, "cast", "a", note="\ud800")
    outcomes = preferences.record(db, "ann", [broken, a_vote(served[1])])
    assert [o.accepted for o in outcomes] == [False, True]


def test_the_same_event_from_many_threads_is_one_row(db: Any, served: list[Any]) -> None:
    votes = [a_vote(i) for i in served]
    results: list[bool] = []

    def send() -> None:
        results.extend(o.accepted for o in preferences.record(db, "ann", votes))

    threads = [threading.Thread(target=send) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 72
    assert db.value("select count(*) from label_events") == 6


def test_history_is_what_stands_newest_first(db: Any, served: list[Any]) -> None:
    for impression, said in zip(served, ["a", "b", "skip", "tie", "a", "b"], strict=True):
        preferences.cast(db, "ann", impression.impression_id, said)  # type: ignore[arg-type]
    preferences.retract(db, "ann", served[5].impression_id)
    preferences.revise(db, "ann", served[0].impression_id, "both_bad")
    past = preferences.history(db, "ann", served[0].project_id, 3)
    assert [(p.impression.impression_id, p.preference) for p in past] == [
        (served[0].impression_id, "both_bad"),
        (served[4].impression_id, "a"),
        (served[3].impression_id, "tie"),
    ]
    assert preferences.history(db, "bea", served[0].project_id, 3) == []


def test_a_vote_given_before_its_authors_were_shown_is_final(db: Any, served: list[Any]) -> None:
    revealed = replace(served[0], impression_id="revealed", policy="compare")
    impressions.add(db, [revealed])
    preferences.cast(db, "ann", "revealed", "a")
    with pytest.raises(BadInput, match="stays as it was given"):
        preferences.retract(db, "ann", "revealed")
    with pytest.raises(BadInput, match="stays as it was given"):
        preferences.revise(db, "ann", "revealed", "b")
    assert preferences.history(db, "ann", served[0].project_id, 20) == []
    assert [e.preference for e in labels.current(db, served[0].project_id)] == ["a"]


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "tie", "both_bad", "skip", "undo"])), max_size=20))
def test_any_sequence_equals_a_replay(db: Any, said: list[tuple[int, str]]) -> None:
    """Cast, revise and undo in any order, some of them sent twice: what stands is what the last word on each item was."""
    project = seed_project(db, 6, name="Replay")
    items = [s.impression for s in Assignment(db).serve("ann", project.project_id, 6)]
    model: dict[str, str] = {}
    for k, what in said:
        item = items[k]
        event = "retracted" if what == "undo" else "revised" if item.impression_id in model else "cast"
        vote = a_vote(item, "" if what == "undo" else what, event)
        for outcome in preferences.record(db, "ann", [vote] * (1 + k % 2)):
            assert outcome.accepted
        if what == "undo":
            model.pop(item.impression_id, None)
        else:
            model[item.impression_id] = what
    assert {e.impression_id: e.preference for e in labels.current(db, project.project_id)} == model
