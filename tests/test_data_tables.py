"""The table modules: what goes in comes out, twice the same adds nothing, and nobody sees or destroys what is not theirs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import completions, judgments, models, people, projects, prompts, runs
from data.database import Database, rebuild
from data.engine import Message
from data.errors import BadInput, NotFound, RunError
from data.records import Judgment, Project, Prompt, Run, now, to_row
from data.splits import split_of


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "P")


def a_prompt(db: Database, project: Project, text: str = "Hello?") -> Prompt:
    prompt = prompts.new(project.project_id, [Message("user", text)])
    prompts.add(db, [prompt])
    return prompt


def a_run(project_id: str, run_id: str = "r1", **changes: object) -> Run:
    run = Run(
        run_id=run_id,
        project_id=project_id,
        owner="",
        kind="sft",
        name="first",
        module="training.sft",
        status="queued",
        device="cpu",
        config={"args": {"lr": 1e-3}},
        snapshot_id="",
        pid=0,
        pid_created=0.0,
        event_offset=0,
        progress={},
        result={},
        error="",
        queued_at=now(),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


# --- projects and people ----------------------------------------------------------------------------------------------------


def test_a_project_comes_back_as_it_was_made(db: Database) -> None:
    made = projects.create(db, "  My   project ", "binary", guidelines="Be fair.", is_demo=True)
    assert made.name == "My project"
    assert projects.get(db, made.project_id) == made
    projects.rename(db, made.project_id, "Other")
    assert projects.get(db, made.project_id).name == "Other"


def test_bad_projects_are_refused(db: Database) -> None:
    for name in ("", "   ", "x" * 201):
        with pytest.raises(BadInput):
            projects.create(db, name)
    with pytest.raises(BadInput):
        projects.create(db, "P", task="ranking")  # type: ignore[arg-type]
    for use in (projects.get, projects.archive, projects.destroy):
        with pytest.raises(NotFound):
            use(db, "nowhere")


def test_who_sees_which_project(db: Database) -> None:
    ours, theirs, old = projects.create(db, "ours"), projects.create(db, "theirs", owner="v1"), projects.create(db, "old")
    projects.archive(db, old.project_id)
    assert [p.name for p in projects.visible(db)] == ["ours"]
    assert [p.name for p in projects.visible(db, "v1")] == ["theirs"]
    assert projects.visible(db, "v2") == []
    assert ours.project_id != theirs.project_id
    assert projects.get(db, old.project_id).archived_at is not None


def test_a_person_is_made_once_and_remembers_the_open_project(db: Database, project: Project) -> None:
    person = people.ensure(db, "local", "You", "local")
    assert people.ensure(db, "local", "Somebody else", "visitor") == person
    assert people.open_project(db, "local") == ""
    people.set_open_project(db, "local", project.project_id)
    assert people.open_project(db, "local") == project.project_id
    assert people.open_project(db, "stranger") == ""
    with pytest.raises(NotFound):
        people.set_open_project(db, "local", "nowhere")
    with pytest.raises(NotFound):
        people.set_open_project(db, "stranger", project.project_id)


# --- prompts ----------------------------------------------------------------------------------------------------------------


def test_the_same_prompt_twice_is_one(db: Database, project: Project) -> None:
    messages = [Message("system", "Be brief."), Message("user", "Hello?")]
    first = prompts.new(
        project.project_id, messages, follow_up=["And?"], reference="Hi.", category="c", source="f", external_id="1"
    )
    assert prompts.add(db, [first, prompts.new(project.project_id, messages, follow_up=["And?"])]) == 1
    assert prompts.add(db, [first]) == 0
    assert prompts.get(db, first.prompt_id) == first
    assert prompts.get_many(db, [first.prompt_id, "nowhere"]) == [first]
    other = projects.create(db, "other")
    assert prompts.add(db, [prompts.new(other.project_id, messages)]) == 1, "another project's prompt is another prompt"


@given(st.text(min_size=1).filter(lambda text: text.strip()), st.text())
def test_the_split_is_the_user_texts(text: str, system: str) -> None:
    prompt = prompts.new("p", [Message("system", system), Message("user", text)])
    assert prompt.split == split_of(text) == prompts.new("another project", [Message("user", text)]).split


@pytest.mark.parametrize(
    "messages",
    [[], [Message("user", " \n")], [Message("user", "x"), Message("assistant", "y")], [Message("tool", "x"), Message("user", "y")]],  # type: ignore[arg-type]
)
def test_a_prompt_that_asks_nothing_is_refused(messages: list[Message]) -> None:
    with pytest.raises(BadInput):
        prompts.new("p", messages)


def test_a_prompt_needs_its_project(db: Database) -> None:
    with pytest.raises(NotFound, match="nothing was stored"):
        prompts.add(db, [prompts.new("nowhere", [Message("user", "x")])])
    assert db.value("select count(*) from prompts") == 0


def test_prompts_are_listed_in_order_found_and_counted(db: Database, project: Project) -> None:
    texts = [f"Question {i}" for i in range(30)] + ['She said "USER"\nand 100% _left_', "ÜBUNG macht den Meister"]
    prompts.add(db, [prompts.new(project.project_id, [Message("user", text)]) for text in texts])
    assert [p.text for p in prompts.of_project(db, project.project_id)] == texts
    assert [p.text for p in prompts.of_project(db, project.project_id, limit=2, offset=3)] == texts[3:5]
    train, held_out = (prompts.count(db, project.project_id, split) for split in ("train", "held_out"))
    assert train + held_out == 32 == prompts.count(db, project.project_id)
    assert held_out == len(prompts.of_project(db, project.project_id, "held_out")) == sum(split_of(t) == "held_out" for t in texts)
    for search, found in (
        ("question 7", 1),
        ('"user"', 1),
        ("user", 1),
        ("100%", 1),
        ("%", 1),
        ("_left_", 1),
        ("übung", 1),
        ("role", 0),
    ):
        assert prompts.count(db, project.project_id, search=search) == found, search
    assert prompts.of_project(db, project.project_id, search="\nand")[0].text == texts[30]


# --- completions and pairs --------------------------------------------------------------------------------------------------


def test_the_same_completion_twice_is_one(db: Database, project: Project) -> None:
    prompt = a_prompt(db, project)
    made = completions.new(prompt, "Hi", "generated", "m", "m1", "r1", {"temperature": 0.8}, 7, 1, "stop")
    assert completions.add(db, [made, made]) == 1
    assert (
        completions.add(db, [completions.new(prompt, "Hi", "generated", "m", "m1", "r1", {"temperature": 0.8}, 7, 1, "stop")]) == 0
    )
    assert completions.get(db, made.completion_id) == made
    assert completions.of_run(db, "r1") == [made]
    with pytest.raises(NotFound):
        completions.add(db, [replace(made, completion_id="x", prompt_id="nowhere")])


def test_one_pair_of_every_prompt_comes_first(db: Database, project: Project) -> None:
    made = []
    for i in range(3):
        prompt = a_prompt(db, project, f"q{i}")
        made += [completions.new(prompt, f"answer {j}", "generated", "m", sample_index=j) for j in range(4)]
    assert completions.add(db, made) == 12
    pairs = completions.pairs_of(db, project.project_id)
    assert len(pairs) == 18
    assert len({p.prompt_id for p in pairs[:3]}) == 3
    assert Counter(p.rank for p in pairs) == dict.fromkeys(range(6), 3)
    for prompt_id in {p.prompt_id for p in pairs}:
        first_round = [p for p in pairs if p.prompt_id == prompt_id][:2]
        assert len({c for p in first_round for c in (p.completion_a, p.completion_b)}) == 4, "two labels involve all four"
    assert completions.counts(db, project.project_id) == completions.Counts(12, 18, 3, 3, ("m",))


def test_identical_texts_make_no_pair(db: Database, project: Project) -> None:
    prompt = a_prompt(db, project)
    texts = ["same", "same", " same\n", "other"]
    completions.add(db, [completions.new(prompt, t, "generated", "m", sample_index=i) for i, t in enumerate(texts)])
    (pair,) = completions.pairs_of(db, project.project_id)
    stored = {c.completion_id: c.text for c in completions.of_prompts(db, [prompt.prompt_id])}
    assert {stored[pair.completion_a], stored[pair.completion_b]} == {"same", "other"}
    assert len(stored) == 4


def test_completions_that_come_one_by_one_make_the_same_pairs(db: Database, project: Project) -> None:
    one, other = a_prompt(db, project, "one by one"), a_prompt(db, project, "together")
    for i in range(4):
        completions.add(db, [completions.new(one, f"{i}", "generated", "m", sample_index=i)])
    completions.add(db, [completions.new(other, f"{i}", "generated", "m", sample_index=i) for i in range(4)])
    pairs = completions.pairs_of(db, project.project_id)
    for prompt in (one, other):
        mine = [p for p in pairs if p.prompt_id == prompt.prompt_id]
        assert [p.rank for p in mine] == list(range(6))
        assert len({(p.completion_a, p.completion_b) for p in mine}) == 6


def test_twenty_models_do_not_make_190_pairs_a_prompt(db: Database, project: Project) -> None:
    prompt = a_prompt(db, project)
    completions.add(db, [completions.new(prompt, f"{i}", "imported", f"m{i}") for i in range(20)])
    pairs = completions.pairs_of(db, project.project_id)
    seen = Counter(c for p in pairs for c in (p.completion_a, p.completion_b))
    assert len(pairs) <= 20 * completions.MAX_PARTNERS
    assert len(seen) == 20
    assert min(seen.values()) >= completions.MAX_PARTNERS


@pytest.mark.parametrize("n", range(9))
def test_a_round_robin_meets_everybody_once(n: int) -> None:
    met = [frozenset(pair) for pair in completions.round_robin(n)]
    assert len(met) == len(set(met)) == n * (n - 1) // 2


# --- models, runs, judgments ------------------------------------------------------------------------------------------------


def test_which_models_one_can_choose(db: Database, project: Project) -> None:
    everywhere = models.add(db, models.new("base", "base", {"kind": "local", "base": "x"}))
    mine = models.add(db, models.new("mine", "adapter", {"kind": "local"}, project.project_id, run_id="r", model_id="fixed"))
    models.add(db, models.new("other project's", "adapter", {}, "other"))
    visitors = models.add(db, models.new("visitor's", "adapter", {}, project.project_id, owner="v1"))
    assert models.visible(db, project.project_id, "") == [everywhere, mine]
    assert models.visible(db, project.project_id, "v1") == [everywhere, mine, visitors]
    assert models.visible(db, project.project_id, "", "adapter") == [mine]
    assert models.add(db, replace(mine, name="again")) == mine, "the same id twice is the first"
    models.rename(db, mine.model_id, "renamed")
    models.remove(db, mine.model_id)
    assert models.visible(db, project.project_id, "", "adapter") == []
    assert models.get(db, mine.model_id).name == "renamed"
    for use in (models.get, models.remove):
        with pytest.raises(NotFound):
            use(db, "nowhere")


def test_a_run_comes_back_as_it_was_and_changes(db: Database, project: Project) -> None:
    run = runs.add(db, a_run(project.project_id))
    assert runs.get(db, "r1") == run
    runs.update(db, "r1", status="running", pid=42, pid_created=1.5, started_at=now(), progress={"done": 1})
    changed = runs.get(db, "r1")
    assert (changed.status, changed.pid, changed.progress) == ("running", 42, {"done": 1})
    assert [r.run_id for r in runs.active(db)] == ["r1"]
    runs.update(db, "r1", status="finished", result={"loss": 0.1})
    assert runs.active(db) == []
    runs.add(db, a_run(project.project_id, "r2"))
    assert [r.run_id for r in runs.of_project(db, project.project_id)] == ["r2", "r1"]
    with pytest.raises(NotFound):
        runs.update(db, "nowhere", status="failed")
    with pytest.raises(ValueError):
        runs.update(db, "r1", colour="red")


def test_judgments_come_back_as_they_were(db: Database, project: Project) -> None:
    made = Judgment(
        judgments.judgment_id("r", "p", 0, "a", "b"), "r", project.project_id, "p", 0, "a", "b", "x", "y", "judge",
        0.9, None, None, "", None, "the second order gave no verdict", now(), {"ab": "A"}, True, None,
    )  # fmt: skip
    assert judgments.add(db, [made]) == 1
    assert judgments.add(db, [made]) == 0
    assert judgments.of_run(db, "r") == [made]


# --- destroying a visitor's project -----------------------------------------------------------------------------------------


def fill(db: Database, project: Project) -> None:
    prompt = a_prompt(db, project)
    completions.add(db, [completions.new(prompt, t, "generated", "m") for t in "xy"])
    models.add(db, models.new("m", "adapter", {}, project.project_id, owner=project.owner, run_id="r"))
    runs.add(db, a_run(project.project_id, f"run of {project.name}", status="finished", owner=project.owner))
    people.ensure(db, project.owner or "local", "n", "visitor")


def test_a_throw_away_project_leaves_nothing_behind(db: Database) -> None:
    keep, gone = projects.create(db, "keep"), projects.create(db, "gone", owner="v1")
    for project in (keep, gone):
        fill(db, project)
    tables = ("projects", "prompts", "completions", "pairs", "models", "runs", "people")
    before = {t: db.value(f"select count(*) from {t}") for t in tables}
    assert projects.destroy(db, gone.project_id) == ["run of gone"]
    assert {t: db.value(f"select count(*) from {t}") * 2 for t in tables} == before
    assert db.value("select count(*) from people where annotator_id = 'v1'") == 0
    assert projects.counts(db, keep.project_id)[:4] == (1, projects.counts(db, keep.project_id).held_out, 2, 1)
    settings = db.settings
    db.close()
    rebuild(settings)
    again = Database(settings)
    assert {t: again.value(f"select count(*) from {t}") * 2 for t in tables} == before
    again.close()


def test_what_must_not_be_destroyed(db: Database) -> None:
    ours, busy = projects.create(db, "ours"), projects.create(db, "busy", owner="v1")
    runs.add(db, a_run(busy.project_id, status="running"))
    with pytest.raises(BadInput, match="archive this one instead"):
        projects.destroy(db, ours.project_id)
    with pytest.raises(RunError, match="stop it first"):
        projects.destroy(db, busy.project_id)
    assert db.value("select count(*) from projects") == 2


def test_home_counts(db: Database, project: Project) -> None:
    fill(db, project)
    runs.add(db, a_run(project.project_id, "active", status="running"))
    runs.add(db, a_run(project.project_id, "compared", kind="compare", status="finished"))
    counts = projects.counts(db, project.project_id)
    assert counts == projects.Counts(1, counts.held_out, 2, 1, 0, 0, 3, 1, 1, 0, 0, 1)
    assert projects.counts(db, "nowhere") == projects.Counts(*[0] * 12)


def test_what_runs_made_is_counted_for_what_it_is(db: Database, project: Project) -> None:
    """A reward model gives no answers, and a merged model is one that was there before."""
    for run_id, kind in (("tuned", "sft"), ("scored", "reward"), ("joined", "merge")):
        runs.add(db, a_run(project.project_id, run_id, kind=kind, status="finished"))
    made = (("adapter", "tuned"), ("base", "tuned"), ("adapter", "brought back"), ("reward", "scored"), ("base", "joined"))
    for number, (kind, run_id) in enumerate(made):
        models.add(db, models.new(f"m{number}", kind, {}, project.project_id, run_id=run_id))  # type: ignore[arg-type]
    models.add(db, models.new("mine", "base", {}, project.project_id))
    counts = projects.counts(db, project.project_id)
    assert (counts.adapters, counts.reward_models, counts.merged, counts.made) == (3, 1, 1, 5)


def test_a_row_holds_exactly_the_columns_of_its_table(db: Database, project: Project) -> None:
    """Field = column, for every record: what a migration adds must be added to the record too."""
    prompt = a_prompt(db, project)
    fill(db, project)
    records = {
        "projects": project,
        "prompts": prompt,
        "runs": a_run("p"),
        "completions": completions.new(prompt, "x", "generated", "m"),
    }
    for table, record in records.items():
        columns = db.rows("select column_name from duckdb_columns() where table_name = ? order by column_index", [table])
        assert set(to_row(record)) == {c["column_name"] for c in columns}, table
