"""Gold, adjudications and the flags of texts: append-only, by name, for items that exist, and what is suggested or waits."""

from __future__ import annotations

from typing import Any

import pytest
from labelling import completion, prompt, seed_project

from data import adjudications, completions, gold, projects, prompts
from data.errors import BadInput, NotFound
from data.records import ProjectSettings
from labeling import preferences
from labeling.assignment import Assignment


def said_by(db: Any, project_id: str, who: str, answers: dict[str, str]) -> None:
    """`who` answers pairs in the pairs' own order: first, second, tie."""
    pairs = {row["pair_id"]: row for row in db.rows("select * from pairs where project_id = ?", [project_id])}
    for served in Assignment(db).serve(who, project_id, 100):
        i = served.impression
        said = answers.get(i.pair_id, "skip")
        if said in ("first", "second"):
            wanted = pairs[i.pair_id]["completion_a" if said == "first" else "completion_b"]
            said = "a" if i.left_completion_id == wanted else "b"
        preferences.cast(db, who, i.impression_id, said)  # type: ignore[arg-type]


@pytest.fixture
def project(db: Any) -> Any:
    made = seed_project(db, 6)
    projects.change(db, made.project_id, ProjectSettings(overlap=4, gold_rate=0, repeat_rate=0))
    return made


def pair_ids(db: Any, project: Any) -> list[str]:
    return [
        row["pair_id"] for row in db.rows("select pair_id from pairs where project_id = ? order by pair_id", [project.project_id])
    ]


def test_the_newest_answer_counts_and_a_withdrawn_one_is_none(db: Any, project: Any) -> None:
    one, other, *_ = pair_ids(db, project)
    gold.add(db, project.project_id, one, "first", "ray", note="obvious")
    gold.add(db, project.project_id, other, "tie", "ray", source="unanimous")
    gold.add(db, project.project_id, one, "second", "mia")
    assert {g.item_id: (g.outcome, g.actor, g.source) for g in gold.current(db, project.project_id)} == {
        one: ("second", "mia", "entered"),
        other: ("tie", "ray", "unanimous"),
    }
    gold.withdraw(db, project.project_id, one, "mia")
    assert [g.item_id for g in gold.current(db, project.project_id)] == [other]
    assert db.value("select count(*) from gold") == 4


def test_what_is_no_gold_is_refused_in_words(db: Any, project: Any) -> None:
    item, *_ = pair_ids(db, project)
    with pytest.raises(BadInput, match="choose one of: first, second, tie, both_bad"):
        gold.add(db, project.project_id, item, "good", "ray")
    with pytest.raises(NotFound, match="no such item"):
        gold.add(db, project.project_id, "nonsense", "first", "ray")
    with pytest.raises(NotFound, match="no such item"):
        gold.add(db, seed_project(db, 1, name="Other").project_id, item, "first", "ray")
    with pytest.raises(BadInput, match="named"):
        gold.add(db, project.project_id, item, "first", " ")
    with pytest.raises(BadInput, match="right answer"):
        gold.add(db, project.project_id, item, "", "ray")  # type: ignore[arg-type]
    assert db.value("select count(*) from gold") == 0


def test_unanimous_items_are_suggested(db: Any, project: Any) -> None:
    agreed, split, two, tied, *_ = pair_ids(db, project)
    for who in ("ann", "bea", "cid"):
        answers = {agreed: "second", split: "first" if who == "cid" else "second", tied: "tie"}
        said_by(db, project.project_id, who, answers | ({two: "first"} if who != "cid" else {}))
    found = {s.item_id: (s.outcome, s.labels) for s in gold.suggest(db, project.project_id)}
    assert found == {agreed: ("second", 3), tied: ("tie", 3)}
    assert two in {s.item_id for s in gold.suggest(db, project.project_id, k=2)}
    gold.add(db, project.project_id, agreed, "second", "ray", source="unanimous")
    gold.withdraw(db, project.project_id, agreed, "ray")
    assert agreed not in {s.item_id for s in gold.suggest(db, project.project_id)}, "it was looked at already"


def test_what_people_differ_on_waits_for_a_decision(db: Any, project: Any) -> None:
    agreed, split, two_to_one, *_ = pair_ids(db, project)
    said_by(db, project.project_id, "ann", {agreed: "first", split: "first", two_to_one: "tie"})
    said_by(db, project.project_id, "bea", {agreed: "first", split: "second", two_to_one: "second"})
    said_by(db, project.project_id, "cid", {two_to_one: "second"})
    waiting = list(adjudications.open_items(db, project.project_id))
    assert [(w.item_id, w.majority) for w in waiting] == [(split, ""), (two_to_one, "second")]
    assert waiting[0].said == (("ann", "first"), ("bea", "second"))
    adjudications.add(db, project.project_id, split, "second", "It answers the question.", "ray")
    assert [w.item_id for w in adjudications.open_items(db, project.project_id)] == [two_to_one]
    assert [(a.item_id, a.outcome, a.reason, a.actor) for a in adjudications.current(db, project.project_id)] == [
        (split, "second", "It answers the question.", "ray")
    ]
    assert split not in [s.impression.pair_id for s in Assignment(db).serve("dan", project.project_id, 100)], "it is decided"
    adjudications.add(db, project.project_id, split, "", "Asked again.", "ray")
    assert [w.item_id for w in adjudications.open_items(db, project.project_id)] == [split, two_to_one]
    assert split in [s.impression.pair_id for s in Assignment(db).serve("dan", project.project_id, 100)]
    with pytest.raises(BadInput, match="reason and a name"):
        adjudications.add(db, project.project_id, split, "first", " ", "ray")


def test_texts_are_flagged_when_they_are_stored(db: Any, project: Any) -> None:
    projects.change(db, project.project_id, ProjectSettings(leak_phrases=("our model Orion",)))
    p = prompt(project, "Who are you?")
    prompts.add(db, [p])
    texts = ["I am ChatGPT, a model by OpenAI.", "As our model Orion would say: no.", "A person.", " "]
    made = [completion(p, text, k) for k, text in enumerate(texts)]
    completions.add(db, made)
    stored = {c.text: c.flags for c in completions.get_many(db, [c.completion_id for c in made])}
    assert [stored[text] for text in texts] == [("identity_leak",), ("identity_leak",), (), ("empty",)]


def test_a_labels_flags_are_worked_out_on_the_server(db: Any) -> None:
    project = projects.create(db, "Flags")
    p = prompt(project, "Who are you?")
    prompts.add(db, [p])
    completions.add(db, [completion(p, "I am ChatGPT.", 0), completion(p, "A person. " * 200, 1)])
    [served] = Assignment(db).serve("ann", project.project_id, 5)
    vote = preferences.Vote("", served.impression.impression_id, "cast", "a")

    def flags(**more: Any) -> set[str]:
        import json
        import uuid
        from dataclasses import replace

        [outcome] = preferences.record(db, "ann", [replace(vote, event_id=str(uuid.uuid4()), **more)])
        assert outcome.accepted
        return set(json.loads(db.value("select flags from label_events order by seq desc limit 1")))

    assert flags(dwell_ms=300, read_share=0.2) == {"too_fast", "unread", "identity_leak"}
    assert flags(dwell_ms=60_000, read_share=1.0) == {"identity_leak"}
    assert flags() == {"identity_leak"}, "what nobody measured speaks against nobody"
    assert flags(dwell_ms=300, preference="skip") == {"identity_leak"}
    assert flags(event="retracted", preference="") == set()


def test_a_phrase_that_cannot_be_looked_for_is_refused_with_the_settings(db: Any, project: Any) -> None:
    with pytest.raises(BadInput):
        projects.change(db, project.project_id, ProjectSettings(leak_phrases=("/(a+)+b/",)))
