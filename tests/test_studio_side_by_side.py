"""Several models as one stream: all at once, at a bearable rate, each failing by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from data.engine import ModelSpec
from data.errors import EngineError, LimitReached
from data.records import Model, now
from studio.ask_tab import _votable
from studio.side_by_side import MAX_CHARACTERS, PER_SECOND, Asked, Column, Memory, ask, merge


def words(*said: str, wait: float = 0.0) -> Callable[[], Iterator[str]]:
    def stream() -> Iterator[str]:
        for word in said:
            time.sleep(wait)
            yield word

    return stream


def failing(after: str, error: BaseException) -> Callable[[], Iterator[str]]:
    def stream() -> Iterator[str]:
        yield after
        raise error

    return stream


def test_each_answer_comes_whole() -> None:
    *_, last = merge([words("one ", "two"), words("three")], threading.Event())
    assert [(c.text, c.done, c.error) for c in last] == [("one two", True, ""), ("three", True, "")]


def test_both_are_written_at_the_same_time() -> None:
    """Neither waits for the other: each needs what the other has said."""
    said = [threading.Event(), threading.Event()]

    def stream(mine: int) -> Iterator[str]:
        yield "hello "
        said[mine].set()
        assert said[1 - mine].wait(30)
        yield "you"

    *_, last = merge([lambda: stream(0), lambda: stream(1)], threading.Event())
    assert [c.text for c in last] == ["hello you", "hello you"]


def test_at_most_so_many_updates_a_second() -> None:
    began = time.monotonic()
    updates = sum(1 for _ in merge([words(*["x"] * 2000, wait=0.0005)], threading.Event()))
    assert updates <= PER_SECOND * (time.monotonic() - began) + 2


def test_one_that_fails_says_so_and_the_other_goes_on() -> None:
    *_, last = merge([failing("half", EngineError("The server is down.")), words("whole")], threading.Event())
    assert last[0].text == "half"
    assert last[0].error == "The server is down."
    assert (last[1].text, last[1].error) == ("whole", "")


@pytest.mark.parametrize("fault", [KeyError("a detail"), SystemExit("a detail")])
def test_a_fault_of_the_app_is_told_without_its_details(fault: BaseException) -> None:
    *_, last = merge([failing("half", fault)], threading.Event())
    assert last[0].done
    assert "a detail" not in last[0].error
    assert "log" in last[0].error


def test_an_answer_that_never_ends_is_cut() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "x" * 10_000

    *_, last = merge([endless], threading.Event())
    assert last[0].done
    assert len(last[0].text) <= MAX_CHARACTERS + 10_000
    assert "cut" in last[0].error


def test_leaving_stops_the_models() -> None:
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                time.sleep(0.01)
                yield "x"
        finally:
            closed.set()

    stop = threading.Event()
    columns = merge([endless], stop)
    next(columns)
    columns.close()  # the tab was closed
    assert stop.is_set()
    assert closed.wait(30)


@pytest.mark.parametrize(
    ("answers", "can_vote", "says_same"),
    [
        (["one", "two"], True, False),
        (["one", " one\n"], False, True),
        (["one", ""], False, False),
        (["one"], False, False),
        (["one", "two", "three"], False, False),
    ],
)
def test_a_vote_is_offered_where_there_is_something_to_prefer(answers: list[str], can_vote: bool, says_same: bool) -> None:
    offered, said = _votable([Column(text, True, "") for text in answers], blind=True)
    assert (offered, "the same" in said) == (can_vote, says_same)


@pytest.mark.parametrize(("second", "says"), [("two", "names are hidden"), ("one", "the same"), ("", "")])
def test_no_vote_where_the_names_are_shown(second: str, says: str) -> None:
    offered, said = _votable([Column("one", True, ""), Column(second, True, "")], blind=False)
    assert not offered
    assert says in said if says else said == ""


def test_no_vote_on_an_answer_that_failed() -> None:
    assert _votable([Column("one", True, ""), Column("half", True, "The server is down.")], True) == (False, "")


# --- what was asked ---


def asked(owner: str = "anna") -> Asked:
    model = Model("m1", "", "", "Secret model", "base", ModelSpec("local", "x").to_json(), "", "", now())
    return Asked(owner, "p1", "hi", ask("hi", "", 0.8, 16, 1), (model, model))


def test_a_question_belongs_to_one_person_and_project() -> None:
    memory = Memory()
    token = memory.add(asked())
    assert memory.get(token, "anna", "p1").prompt == "hi"
    for wrong in ((token, "bert", "p1"), (token, "anna", "p2"), ("guess", "anna", "p1")):
        with pytest.raises(LimitReached):
            memory.get(*wrong)


def test_a_question_remembers_that_its_vote_is_stored() -> None:
    memory = Memory()
    token, other = memory.add(asked()), memory.add(asked())
    memory.vote(token, "a")
    memory.vote("guess", "a")
    memory.answer(token, ["one", "two"])
    assert memory.get(token, "anna", "p1").voted == "a"
    assert memory.get(token, "anna", "p1").named, "a vote shows the names"
    assert memory.get(other, "anna", "p1").voted is None
    assert not memory.get(other, "anna", "p1").named


def test_old_questions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.side_by_side.REMEMBERED", 2)
    memory = Memory()
    tokens = [memory.add(asked()) for _ in range(3)]
    with pytest.raises(LimitReached):
        memory.get(tokens[0], "anna", "p1")
    assert memory.get(tokens[2], "anna", "p1")
