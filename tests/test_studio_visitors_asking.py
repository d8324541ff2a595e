"""A visitor's questions to models side by side: some at a time, and a vote that is blind, whole and stored once."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from visiting import ANNA, BERT, adapter, answered, build, call, request, shown, viewer, visited

from data import projects
from data.errors import BadInput, LimitReached, StudioError, WorkspaceError
from labeling import preferences
from studio import visitors
from studio.compare_page import ComparePage
from studio.context import Studio
from studio.models_page import ModelsPage
from studio.pace import Slots

pytestmark = pytest.mark.app


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with visited(tmp_path) as opened:
        yield opened


def test_a_visitor_has_some_answers_at_a_time(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one visitor leave the others' alone; a stopped one is free at once, one that hangs is free in the end."""
    going = threading.Event()

    def endless(*_: Any) -> list[Callable[[], Iterator[str]]]:
        def pieces() -> Iterator[str]:
            while not going.is_set():
                yield "x"
                going.wait(0.02)

        return [pieces]

    monkeypatch.setattr("studio.ask_tab.streams", endless)
    monkeypatch.setattr("studio.models_page.streams", endless)
    compare, page = build(ComparePage(studio)).ask, build(ModelsPage(studio))

    def ask_one(token: str) -> Iterator[Any]:
        answer = compare.ask(request(token), ["demo-model"], "hello", "", 0.8, 64, True)
        next(answer)
        next(answer)
        return answer

    first, _second = ask_one(ANNA), ask_one(ANNA)
    with pytest.raises(LimitReached, match="still being answered"):
        ask_one(ANNA)
    with pytest.raises(LimitReached, match="still being answered"):
        list(page.ask(request(ANNA), "demo-model", "hello"))
    ask_one(BERT).close()  # type: ignore[attr-defined]
    first.close()  # type: ignore[attr-defined]
    third = ask_one(ANNA)
    much_later = time.monotonic() + visitors.STREAM_S
    monkeypatch.setattr("studio.pace.time", SimpleNamespace(monotonic=lambda: much_later))
    ask_one(ANNA).close()  # type: ignore[attr-defined]
    going.set()
    list(third)


def test_an_answer_left_half_way_may_be_collected_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the thread that is just taking a slot: a lock that it holds would never be free."""
    slots, abandoned = Slots(1, 60.0, "busy"), list[Any]()

    def answer() -> Iterator[str]:
        with slots.hold("anna"):
            yield "half"

    def leave() -> None:
        while abandoned:
            itself = [abandoned.pop()]
            itself.append(itself)  # only the collector finds out that nobody has it

    def now() -> float:
        leave()
        gc.collect()
        return time.monotonic()

    abandoned.append(answer())
    next(abandoned[0])
    with pytest.raises(LimitReached), slots.hold("anna"):
        pass
    monkeypatch.setattr("studio.pace.time", SimpleNamespace(monotonic=now))
    with pytest.raises(LimitReached), slots.hold("anna"):
        pass
    with slots.hold("anna"):
        assert set(slots._held) == {"anna"}
    with slots.hold("bert"):
        assert set(slots._held) == {"bert"}, "nobody who has none is kept"


def test_a_forged_prompt_of_any_length_is_refused(studio: Studio) -> None:
    tab = build(ComparePage(studio)).ask
    for prompt, system in (("x" * 20_001, ""), ("x", "x" * 20_001)):
        with pytest.raises(StudioError, match="at most 20,000"):
            call(tab.ask, request(ANNA), ["demo-model"], prompt, system, 0.8, 64, True)


def test_a_vote_that_could_not_be_stored_can_be_given_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, anna = ComparePage(studio).ask, viewer(studio, ANNA)
    project, model = studio.project(anna), adapter(studio, ANNA)
    token = tab._memory.add(answered(anna, project, model))
    with monkeypatch.context() as broken:
        broken.setattr("studio.ask_tab.preferences.cast", lambda *_: (_ for _ in ()).throw(WorkspaceError("The disk is full.")))
        with pytest.raises(WorkspaceError, match="full"):
            tab.vote_a(token, request(ANNA))
    assert projects.counts(studio.db, project.project_id).labels == 0
    with ThreadPoolExecutor(8) as pool:  # two presses at once, or eight, are one vote
        list(pool.map(lambda _: tab.vote_a(token, request(ANNA)), range(8)))
    assert projects.counts(studio.db, project.project_id).labels == 1
    tab.vote_b(token, request(ANNA))
    assert [row["preference"] for row in studio.db.rows("select preference from label_events")] == ["a"]


def test_a_vote_and_a_label_at_the_same_time_do_not_share_the_same_room(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, anna = ComparePage(studio).ask, viewer(studio, ANNA)
    project = studio.project(anna)
    token = tab._memory.add(answered(anna, project, adapter(studio, ANNA)))
    left: list[int] = []

    def label() -> None:
        with studio.visitors.label_room(project) as room:
            left.append(room)

    other, cast = threading.Thread(target=label), preferences.cast

    def meanwhile(*given: Any) -> object:
        other.start()
        other.join(0.3)  # for good where it does not wait for the vote to be stored
        return cast(*given)

    monkeypatch.setattr(visitors, "MAX_LABEL_EVENTS", 1)
    monkeypatch.setattr("studio.ask_tab.preferences.cast", meanwhile)
    tab.vote_a(token, request(ANNA))
    other.join()
    assert left == [0]


def test_a_vote_that_is_not_blind_is_refused_whoever_sends_it(studio: Studio) -> None:
    """The buttons are gone by then, so only a forged event (or one from a second tab) comes this far."""
    tab, anna = ComparePage(studio).ask, viewer(studio, ANNA)
    project, model = studio.project(anna), adapter(studio, ANNA)
    memory, votes = tab._memory, (tab.vote_a, tab.vote_b, tab.vote_tie, tab.vote_bad)
    looked_first = memory.add(answered(anna, project, model))
    assert model.name in shown(call(tab.show_names, looked_first, request(ANNA)))
    for token, says in (
        (looked_first, "would not be blind"),
        (memory.add(answered(anna, project, model, named=True)), "would not be blind"),  # “Hide which is which” was off
        (memory.add(answered(anna, project, model, whole=False)), "until both answers are written"),
    ):
        for vote in votes:
            with pytest.raises(BadInput, match=says):
                call(vote, token, request(ANNA))
    assert projects.counts(studio.db, project.project_id).labels == 0
    blind = memory.add(answered(anna, project, model))
    assert "Answer 1 is better" in shown(call(tab.vote_a, blind, request(ANNA)))
    again = shown([call(tab.vote_b, blind, request(ANNA)), call(tab.show_names, blind, request(ANNA))])
    assert "Answer 1 is better" in again, "what it says is what is stored"
    assert "Answer 2 is better" not in shown(call(tab.vote_b, blind, request(ANNA)))
    assert [row["preference"] for row in studio.db.rows("select preference from label_events")] == ["a"]


@pytest.mark.parametrize("blind", [True, False])
def test_only_a_blind_question_asks_for_a_vote(studio: Studio, monkeypatch: pytest.MonkeyPatch, blind: bool) -> None:
    """From the press of “Ask them” to the forged vote."""
    tab, anna = build(ComparePage(studio)).ask, request(ANNA)
    adapter(studio, ANNA)
    other = next(model.model_id for model in studio.models(viewer(studio, ANNA)) if model.name == "adapter")
    monkeypatch.setattr(studio.visitors, "check_models", lambda *_: None)
    monkeypatch.setattr("studio.ask_tab.streams", lambda *_: [lambda: iter(["one"]), lambda: iter(["two"])])
    tokens: list[str] = []
    for update in tab.ask(anna, ["demo-model", other], "hello", "", 0.8, 64, blind):
        if isinstance(update[2], str):
            tokens.append(update[2])
            with pytest.raises(BadInput):
                call(tab.vote_a, tokens[0], anna)  # nothing is written yet
    assert update[3]["visible"] is blind
    assert ("names are hidden" in shown(update[4])) is not blind
    if blind:
        assert "Stored" in shown(call(tab.vote_a, tokens[0], anna))
    else:
        with pytest.raises(BadInput, match="not be blind"):
            call(tab.vote_a, tokens[0], anna)
    assert studio.db.value("select count(*) from label_events") == int(blind)
