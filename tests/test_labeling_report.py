"""The report's columns and counts against a slow reference in plain Python, on random small projects read through the store."""

from __future__ import annotations

import random
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from labelling import seed_project
from quality_seed import seed_labelled

from data import completions, gold, impressions, items, labels, people, projects
from data.database import Database
from data.records import Impression, LabelEvent, Project, ProjectSettings, Task, from_row, now, to_row
from data.style import style_of
from labeling import overlap
from labeling.agreement import agreement
from labeling.bias_card import PREFERENCES
from labeling.label_data import FLAGS, Read, Styles, checks, echoes, load, positions, votes
from labeling.label_report import Reports
from labeling.label_table import label_table

pytestmark = pytest.mark.long

KINDS = ("normal", "normal", "normal", "imported", "gold", "repeat")


def scatter(db: Database, rng: random.Random, task: Task) -> Project:
    """Random labels of every kind: revised, taken back, excluded, restored; in a second project too, which must not count."""
    for _ in range(2):
        project = seed_project(db, n_prompts=8, n_completions=3, task=task)
        pairs = completions.pairs_of(db, project.project_id)
        answers = completions.of_prompts(db, sorted({p.prompt_id for p in pairs}))
        events, shown = [], []
        for _ in range(90):
            who = f"person{rng.randrange(4)}"
            if task == "pairwise":
                pair = rng.choice(pairs)
                sides = rng.sample([pair.completion_a, pair.completion_b], 2)
                item, prompt = pair.pair_id, pair.prompt_id
            else:
                answer = rng.choice(answers)
                sides, item, prompt = [answer.completion_id, ""], "", answer.prompt_id
            repeats = [i for i in shown if i.annotator_id == who and i.pair_id == item]
            kind = rng.choice(KINDS)
            of = rng.choice(repeats).impression_id if kind == "repeat" and repeats else ""
            one = Impression(
                uuid.uuid4().hex, project.project_id, who, prompt, item, *sides, task,
                "normal" if kind == "repeat" and not of else kind, "random", 1.0, now(), now(), of,  # type: ignore[arg-type]
            )  # fmt: skip
            shown.append(one)
            events += list(_events(one, rng))
        impressions.add(db, shown)
        rng.shuffle(events)
        db.insert("label_events", [to_row(e) | {"seq": n} for n, e in enumerate(events)])
    for item in rng.sample(sorted({i.pair_id or i.left_completion_id for i in shown}), 4):
        gold.add(db, project.project_id, item, rng.choice(items.OUTCOMES[task]), "boss")
    projects.change(
        db, project.project_id, ProjectSettings(overlap=2, adaptive=rng.random() < 0.5, max_overlap=4, full_overlap=0.4)
    )
    return projects.get(db, project.project_id)


def _events(one: Impression, rng: random.Random) -> Any:
    words = ("a", "b", "tie", "both_bad", "skip") if one.task == "pairwise" else ("good", "bad", "skip")
    for _ in range(rng.randrange(4)):
        event = rng.choice(["cast", "revised", "retracted", "excluded", "restored"])
        said = rng.choice(words) if event in ("cast", "revised") else ""
        flags = tuple(rng.sample(FLAGS, rng.randrange(3))) if said else ()
        at = now() - timedelta(hours=rng.randrange(100))
        yield LabelEvent(
            str(uuid.uuid4()), one.impression_id, one.project_id, one.annotator_id, event, said,  # type: ignore[arg-type]
            dwell_ms=rng.randrange(9000), created_at=at, flags=flags,
        )  # fmt: skip


class Slow:
    """The same numbers, an event at a time."""

    def __init__(self, db: Database, project: Project) -> None:
        self.db, self.project = db, project
        self.shown = {
            row["impression_id"]: row for row in db.rows("select * from impressions where project_id = ?", [project.project_id])
        }
        self.said = [e for e in labels.current(db, project.project_id) if self.shown[e.impression_id]["task"] == project.task]

    def item(self, event: LabelEvent) -> str:
        shown = self.shown[event.impression_id]
        return str(shown["pair_id"] or shown["left_completion_id"])

    def outcome(self, event: LabelEvent) -> str:
        shown = self.shown[event.impression_id]
        word = overlap.letter(event.preference, shown["left_completion_id"], shown["right_completion_id"])
        return overlap.OUTCOMES[word] if word else ""

    def votes(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for e in self.said:
            if self.shown[e.impression_id]["kind"] in ("normal", "imported") and e.preference != "skip":
                found[self.item(e)][e.annotator_id] = self.outcome(e)
        return found


@pytest.mark.parametrize("task", ["pairwise", "binary"])
@pytest.mark.parametrize("seed", range(3))
def test_the_overview_equals_a_count_by_hand(db: Database, task: Task, seed: int) -> None:
    project = scatter(db, random.Random(seed), task)
    slow, seen = Slow(db, project), Reports(db).overview(project)
    gave = [e for e in slow.said if e.preference != "skip"]
    assert (seen.labels, seen.skips) == (len(gave), len(slow.said) - len(gave))
    assert seen.flags == dict(Counter(f for e in slow.said for f in e.flags))
    assert dict(seen.days).items() >= Counter(e.created_at.date() for e in gave if e.created_at).items()
    assert sum(n for _, n in seen.days) == len(gave)
    for annotator in seen.annotators:
        mine = [e for e in slow.said if e.annotator_id == annotator.annotator_id]
        assert (annotator.labels, annotator.skips) == (
            sum(e.preference != "skip" for e in mine),
            sum(e.preference == "skip" for e in mine),
        )
        times = [e.dwell_ms / 1000 for e in mine if e.preference != "skip" and e.dwell_ms]
        assert annotator.seconds.median == (pytest.approx(np.median(times)) if times else None)
        flagged = sum(bool(e.flags) for e in mine if e.preference != "skip")
        assert annotator.flagged.value == (pytest.approx(flagged / annotator.labels) if annotator.labels else None)


@pytest.mark.parametrize("task", ["pairwise", "binary"])
@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_what_assignment_would_ask_for(db: Database, task: Task, seed: int) -> None:
    project = scatter(db, random.Random(seed), task)
    seen, said = Reports(db).overview(project), Slow(db, project).votes()
    if task == "pairwise":
        everything = [p.pair_id for p in completions.pairs_of(db, project.project_id)]
    else:
        everything = [
            row["completion_id"]
            for row in db.rows("select completion_id from completions where project_id = ?", [project.project_id])
        ]
    known = {g.item_id for g in gold.current(db, project.project_id)}
    missing = []
    for item in everything:
        letters = "".join(overlap.LETTERS[o] for o in said.get(item, {}).values())  # type: ignore[index]
        full = project.settings.adaptive and overlap.always_full(item, project.settings.full_overlap)
        wanted = 0 if item in known else overlap.wanted(letters, full, False, project.settings)
        missing.append(max(wanted - len(letters), 0))
    assert seen.items == len(everything)
    assert (seen.open_items, seen.wanted) == (sum(m > 0 for m in missing), sum(missing))
    by_labels = Counter(len(said.get(item, {})) for item in everything)
    assert {k: n for k, n in enumerate(seen.items_by_labels) if n} == by_labels


@pytest.mark.parametrize("task", ["pairwise", "binary"])
def test_agreement_is_of_the_votes_that_stand(db: Database, task: Task) -> None:
    project = scatter(db, random.Random(5), task)
    said, found = Slow(db, project).votes(), Reports(db).agreement(project)
    rows = [(item, who, outcome) for item, by in said.items() for who, outcome in by.items()]
    names, persons = sorted({r[0] for r in rows}), sorted({r[1] for r in rows})
    words = list(items.OUTCOMES[task])
    table = label_table(
        [names.index(r[0]) for r in rows], [persons.index(r[1]) for r in rows], [words.index(r[2]) for r in rows], words
    )
    expected = agreement(table)
    assert found.four.alpha.value == pytest.approx(expected.alpha.value)
    assert found.four.raw.value == pytest.approx(expected.raw.value)
    assert (found.four.n_items, found.four.n_labels) == (len(names), len(rows))
    assert (found.two is None) == (task == "binary")


@pytest.mark.parametrize("seed", range(3))
def test_repeats_and_known_items_are_matched_to_what_was_said(db: Database, seed: int) -> None:
    project = scatter(db, random.Random(seed), "pairwise")
    slow, found = Slow(db, project), load(db, project).labels
    by_impression = {e.impression_id: e for e in slow.said if e.preference != "skip"}
    expected = Counter()
    for e in by_impression.values():
        before = by_impression.get(slow.shown[e.impression_id]["repeat_of"])
        if slow.shown[e.impression_id]["kind"] == "repeat" and before:
            expected[e.annotator_id, slow.outcome(before), slow.outcome(e)] += 1
    echo, words = echoes(found), items.OUTCOMES["pairwise"]
    assert Counter((found.people[w], words[b], words[a]) for w, b, a in zip(*echo, strict=True)) == expected
    known = {g.item_id: g.outcome for g in gold.current(db, project.project_id)}
    asked = [e for e in by_impression.values() if slow.shown[e.impression_id]["kind"] == "gold" and slow.item(e) in known]
    check = checks(db, project.project_id, found)
    assert Counter((found.people[w], bool(r)) for w, r in zip(*check, strict=True)) == Counter(
        (e.annotator_id, slow.outcome(e) == known[slow.item(e)]) for e in asked
    )


def test_columns_are_in_the_order_given_with_sides_undone(db: Database) -> None:
    project = scatter(db, random.Random(9), "pairwise")
    slow, found = Slow(db, project), load(db, project).labels
    assert [found.people[a] for a in found.annotator] == [e.annotator_id for e in slow.said]
    assert [PREFERENCES[p] for p in found.preference] == [e.preference for e in slow.said]
    outcomes = [*items.OUTCOMES["pairwise"], ""]
    assert [outcomes[o] for o in found.in_pair_order] == [slow.outcome(e) for e in slow.said]
    table = votes(found, "pairwise").table
    assert table.item.size == sum(len(by) for by in slow.votes().values())


@pytest.mark.parametrize("task", ["pairwise", "binary"])
@pytest.mark.parametrize("seed", range(3))
def test_reading_on_is_the_same_as_reading_everything(db: Database, task: Task, seed: int) -> None:
    """New labels, changes to old ones, exclusions, a new person; then rows that have gone."""
    rng = random.Random(seed)
    project = scatter(db, rng, task)
    read = load(db, project)
    shown = [from_row(Impression, row) for row in db.rows("select * from impressions where project_id = ?", [project.project_id])]
    for step in range(4):
        events = [e for one in rng.sample(shown, 12) for e in _events(one, rng)]
        one = replace(rng.choice(shown), impression_id=uuid.uuid4().hex, annotator_id=f"new{step}")
        impressions.add(db, [one])
        last = int(db.value("select max(seq) from label_events"))
        db.insert("label_events", [to_row(e) | {"seq": last + 1 + n} for n, e in enumerate([*events, *_events(one, rng)])])
        read, whole = load(db, project, read), load(db, project)
        same(read, whole)
    gone = rng.choice(shown).annotator_id
    db.write(lambda cursor: cursor.delete("label_events", {"annotator_id": gone}))
    same(load(db, project, read), load(db, project))


def same(one: Read, other: Read) -> None:
    assert one[1:] == other[1:]
    assert [one.labels.people[a] for a in one.labels.annotator] == [other.labels.people[a] for a in other.labels.annotator]
    for name, column in vars(one.labels).items():
        if name not in ("people", "annotator"):
            assert column.tolist() == getattr(other.labels, name).tolist(), name


def test_styles_are_counted_once_and_grow_with_the_project(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    project = seed_labelled(db, 10)
    styles, found = Styles(db), load(db, project).labels
    texts = {
        c.completion_id: c.text
        for c in completions.get_many(db, [r["completion_id"] for r in db.rows("select completion_id from completions")])
    }
    hashed = db.columns("select hash(unnest($ids::varchar[])) as h", {"ids": list(texts)})["h"]
    known = styles.of(project.project_id, hashed)
    assert known.length.tolist() == [len(t) for t in texts.values()]
    assert known.markdown.tolist() == [style_of(t).markdown for t in texts.values()]
    assert styles.of(project.project_id, np.array([7], dtype=np.uint64)).length.tolist() == [0]
    asked: list[str] = []
    whole = db.columns
    monkeypatch.setattr(db, "columns", lambda sql, params=(): asked.append(sql) or whole(sql, params))
    styles.of(project.project_id, found.left)
    assert asked == []
    monkeypatch.undo()
    seed_more = completions.new(_prompt(db, project), "One **more** answer", "generated", "m")
    completions.add(db, [seed_more])
    new = db.columns("select hash($id::varchar) as h", {"id": seed_more.completion_id})["h"]
    assert styles.of(project.project_id, np.r_[hashed, new]).markdown.tolist() == [*known.markdown.tolist(), 1]


def _prompt(db: Database, project: Project) -> Any:
    from data import prompts

    return prompts.of_project(db, project.project_id, limit=1)[0]


def test_the_one_who_takes_the_left_is_found_and_nobody_else(db: Database) -> None:
    people_, report = Reports(db).cards(seed_labelled(db, 40))
    cards = {people_[c.annotator]: c for c in report.annotators if c.annotator is not None}
    assert [who for who, card in cards.items() if any("A (left)" in flag for flag in card.flags)] == ["lefty"]
    assert cards["lefty"].left.value == 1.0
    assert cards["lefty"].flips.value == 1.0
    assert (cards["ada"].gold.value or 0) > 0.5


def test_a_report_is_kept_until_something_changes(db: Database) -> None:
    project = seed_labelled(db, 8)
    reports = Reports(db)
    first = reports.overview(project)
    assert reports.overview(project) is first
    pair = completions.pairs_of(db, project.project_id)[-1]
    from quality_seed import label

    label(db, project, "ada", pair, "first")
    assert reports.overview(project).labels == first.labels + 1


def test_an_empty_project_has_an_empty_report(db: Database) -> None:
    project = seed_project(db, 3)
    people.ensure(db, "ada", "Ada", "account")
    seen = Reports(db).overview(project)
    assert (seen.labels, seen.items, seen.annotators, seen.days, seen.seconds) == (0, 3, (), (), ())
    assert seen.items_by_labels == (3,)
    assert Reports(db).agreement(project).four.alpha.value is None
    assert Reports(db).cards(project).report.project.n_labels == 0


def test_positions() -> None:
    among = np.array([5, 9, 5, 1], dtype=np.uint64)
    wanted = np.array([9, 5, 7, 1, 9], dtype=np.uint64)
    assert positions(among, wanted).tolist() == [1, 2, -1, 3, 1]
    assert positions(among[:0], wanted).tolist() == [-1] * 5
    assert positions(among, wanted[:0]).tolist() == []
