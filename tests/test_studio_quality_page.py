"""The Quality page in a real browser over a project that several people labelled, one of whom always took the left answer.

What a button does is looked up in the database, never on the page.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import SCREENSHOTS, free_port
from labelling import MODEL_NAME, seed_project
from page_browser import open_part, settled
from quality_seed import seed_binary, seed_labelled

from data import adjudications, gold, people, projects
from data.database import Database
from data.records import Project, ProjectSettings
from data.settings import Settings
from data.votes import Filters, Rules
from labeling import snapshots
from studio.context import Studio, open_studio
from studio.learns import hope, learns_from
from studio.quality_page import QualityPage

pytestmark = pytest.mark.browser

TABS = ("overview", "agreement", "bias", "flagged", "disagreements", "gold")


class App(NamedTuple):
    url: str
    studio: Studio
    project: Project  # the one that several people labelled

    @property
    def db(self) -> Database:
        return self.studio.db

    def open(self, project: Project) -> None:
        people.set_open_project(self.db, "local", project.project_id)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    settings = Settings(home=tmp_path_factory.mktemp("quality") / "workspace", port=free_port())
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        project = seed_labelled(studio.db)
        people.ensure(studio.db, "local", "You", "local")
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield App(f"http://127.0.0.1:{settings.port}", studio, project)
        demo.close(verbose=False)


@pytest.fixture(autouse=True)
def opened(app: App) -> None:
    app.open(app.project)


def visit(page: Any, app: App, tab: str, theme: str = "light") -> None:
    page.goto(f"{app.url}/quality?tab={tab}&__theme={theme}")
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
    page.locator(f"#quality-{tab} :is(.st-stack, .st-empty, .st-table)").first.wait_for()


def sheet(page: Any, title: str) -> list[list[str]]:
    """What a table's CSV link holds."""
    link = page.locator(f'section.st-sheet:has(h2:text-is("{title}")) a.st-csv').get_attribute("href")
    text = base64.b64decode(link.split("base64,")[1]).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.slow(reason="every tab three times, for its looks")
@pytest.mark.parametrize("tab", TABS)
def test_each_tab_looks_right_in_light_dark_and_on_a_phone(app: App, page: Any, tab: str) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    left = ("AbortError", "Connection errored out")  # what Gradio's client says of a page that is left while it waits
    page.on(
        "console",
        lambda said: faults.append(said.text) if said.type == "error" and not any(word in said.text for word in left) else None,
    )
    SCREENSHOTS.mkdir(exist_ok=True)
    for theme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        page.set_viewport_size({"width": width, "height": 800})
        visit(page, app, tab, theme)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SCREENSHOTS / f"quality-{tab}-{theme}-{width}.png", full_page=True)
    assert faults == []
    assert MODEL_NAME not in page.content()


def test_everybody_is_counted_and_the_csv_names_nobody(app: App, page: Any) -> None:
    visit(page, app, "overview")
    shown = page.locator('table[aria-label="Annotators"]').inner_text()
    assert all(name in shown for name in ("Ada", "Ben", "Cleo", "Lefty"))
    head, *rows = sheet(page, "Annotators")
    stored = app.db.value(
        "select count(*) from current_labels where project_id = ? and preference != 'skip'", [app.project.project_id]
    )
    assert sum(int(row[head.index("labels")]) for row in rows) == stored
    assert not re.search("Ada|Ben|Cleo|Lefty|ada|lefty", str(rows))


def test_agreement_has_an_interval_and_the_ceiling_beside_it(app: App, page: Any) -> None:
    visit(page, app, "agreement")
    assert re.fullmatch(r"0\.\d\d \(0\.\d\d to 0\.\d\d\)", page.locator(".st-headline .st-big").inner_text())
    assert "AlpacaFarm" in page.locator("#quality-agreement").inner_text()
    head, *rows = sheet(page, "Coefficients, with 95 % intervals")
    assert {(row[0], row[1]) for row in rows} == {
        (name, view)
        for name in ("Krippendorff's alpha", "Raw agreement", "Fleiss' kappa", "Gwet's AC1")
        for view in ("all answers", "only a or b")
    }
    assert all(row[head.index("low")] and row[head.index("high")] for row in rows)
    assert len(sheet(page, "Every two annotators")) == 1 + 6


def test_the_one_who_takes_the_left_is_named(app: App, page: Any) -> None:
    visit(page, app, "bias")
    warned = page.locator("#quality-bias .st-note.warn").all_inner_texts()
    assert any(text.startswith("Lefty: Chose A (left)") for text in warned)
    assert not any(text.startswith(("Ada", "Ben", "Cleo")) and "left" in text for text in warned)
    head, *rows = sheet(page, "Bias card of the project")
    measured = {row[0]: row for row in rows}
    assert all(measured[name][head.index("low")] for name in ("left", "length", "markdown", "longer", "flips", "tie", "gold"))


def test_a_tab_that_the_address_names_is_filled_once(app: App, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time would set back what was chosen meanwhile: the table would be of one filter, its CSV of another."""
    filled: list[str] = []
    show = QualityPage._show
    monkeypatch.setattr(QualityPage, "_show", lambda self, tab, project: [filled.append(tab), show(self, tab, project)][1])
    for tab in ("flagged", "overview"):
        filled.clear()
        visit(page, app, tab)
        settled(page)
        assert filled.count(tab) == 1


def test_a_tab_is_filled_when_it_is_opened(app: App, page: Any) -> None:
    visit(page, app, "overview")
    assert page.locator("#quality-agreement .st-stack").count() == 0
    page.get_by_role("tab", name="Agreement", exact=True).click()
    page.locator("#quality-agreement .st-headline").wait_for()


def test_nothing_to_measure_is_said_with_what_to_do(app: App, page: Any) -> None:
    project = seed_project(app.db, 3, name="Nobody yet")
    app.open(project)
    visit(page, app, "overview")
    assert "Nobody has labelled yet" in page.locator("#quality-overview").inner_text()
    assert page.locator("#quality-overview a").get_attribute("href").endswith("label")
    visit(page, app, "agreement")
    assert "Agreement needs labels" in page.locator("#quality-agreement").inner_text()


def test_the_bias_card_of_answers_shown_one_at_a_time(app: App, page: Any) -> None:
    app.open(seed_binary(app.db))
    for theme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        page.set_viewport_size({"width": width, "height": 800})
        visit(page, app, "bias", theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SCREENSHOTS / f"quality-bias-binary-{theme}-{width}.png", full_page=True)
    told = page.locator("#quality-bias").inner_text()
    assert "Lefty: Favours longer answers" in told
    assert "left" not in told.replace("Lefty", "").lower()
    head, *rows = sheet(page, "Bias card of each annotator")
    assert len(rows) == 3
    assert not re.search("Ada|Ben|Lefty", str(rows))
    assert all(0 <= float(row[head.index("good_low")]) <= float(row[head.index("good")]) for row in rows)


# --- lists to decide about ---


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name).locator("visible=true").first.click()


def test_a_label_is_left_out_with_a_reason_and_let_in_again(app: App, page: Any) -> None:
    project = own(app)
    visit(page, app, "flagged")
    page.locator("#quality-flagged [data-pick]").first.click()
    page.locator("#quality-flagged .st-answers").wait_for()
    assert MODEL_NAME not in page.content()
    press(page, "Leave the opened one out")
    page.get_by_text("Write the reason first").wait_for()
    assert left_out(app, project) == {}
    page.locator("#flagged-reason input, #flagged-reason textarea").fill("clicked through")
    press(page, "Leave the opened one out")
    page.get_by_text("1 label left out.").wait_for()
    [(event, actor, note)] = left_out(app, project).values()
    assert (event, actor, note) == ("excluded", "local", "clicked through")
    page.locator("#flagged-state").get_by_text("Left out").click()
    page.get_by_role("button", name="Let all 1 count again").wait_for()
    page.locator("#flagged-reason input, #flagged-reason textarea").fill("was right after all")
    press(page, "Let all 1 count again")
    page.get_by_text("1 label let in again.").wait_for()
    assert [e for e, _, _ in left_out(app, project).values()] == ["restored"]


def test_what_is_left_out_in_bulk_is_what_the_filter_shows(app: App, page: Any) -> None:
    project = own(app)
    sql = "select impression_id from current_labels where project_id = ? and annotator_id = 'lefty' and contains(flags, 'too_fast')"
    theirs = {row["impression_id"] for row in app.db.rows(sql, [project.project_id])}
    assert theirs
    visit(page, app, "flagged")
    choose(page, "#flagged-flag", "too fast")
    choose(page, "#flagged-who", "Lefty")
    page.get_by_role("button", name=f"Leave all {len(theirs)} out").wait_for()
    page.locator("#flagged-reason input, #flagged-reason textarea").fill("always left")
    press(page, f"Leave all {len(theirs)} out")
    page.get_by_text("left out.").first.wait_for()
    assert set(left_out(app, project)) == theirs


def test_the_csv_of_a_filter_holds_every_label_it_finds_and_names_nobody(
    app: App, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.cursor.ROWS_PER_PART", 50)  # more than one part
    visit(page, app, "flagged")
    choose(page, "#flagged-flag", "All labels")
    total = app.db.value("select count(*) from current_labels where project_id = ?", [app.project.project_id])
    assert total > 150
    page.locator("#quality-flagged", has_text=f"1–20 of {total} labels").wait_for()
    with page.expect_download() as started:
        page.locator("#quality-flagged a[data-csv]").click()
    assert started.value.suggested_filename.startswith("several-people-flagged-")
    text = Path(started.value.path()).read_text(encoding="utf-8-sig")
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["prompt_id", "annotator", "said", "flags", "seconds", "at", "left_out_because"]
    assert len(rows) == total
    sql = "select i.prompt_id, l.preference, count(*) as n from current_labels l join impressions i using (impression_id)"
    stored = app.db.rows(f"{sql} where l.project_id = ? group by all", [app.project.project_id])
    assert Counter((row[0], row[2]) for row in rows) == {(r["prompt_id"], r["preference"]): r["n"] for r in stored}
    assert not re.search(r"\b(Ada|Ben|Cleo|Lefty|ada|ben|cleo|lefty)\b", text)  # within an id it is chance
    assert page.url.split("?")[0].endswith("/quality"), "the page stays"


def test_the_csv_of_the_disagreements_goes_beyond_the_page(app: App, page: Any) -> None:
    visit(page, app, "disagreements")
    there = [item.item_id for item in adjudications.open_items(app.db, app.project.project_id)]
    page.locator("#quality-disagreements", has_text=f"1–20 of {len(there)} items").wait_for()
    with page.expect_download() as started:
        page.locator("#quality-disagreements a[data-csv]").click()
    assert started.value.suggested_filename.startswith("several-people-disagreements-open-")
    head, *rows = csv.reader(io.StringIO(Path(started.value.path()).read_text(encoding="utf-8-sig")))
    assert head == ["item_id", "prompt_id", "majority", "labels", "said"]
    assert [row[0] for row in rows] == there
    assert len(there) > 20


def test_a_disagreement_is_decided_and_taken_back(app: App, page: Any) -> None:
    project = own(app)
    visit(page, app, "disagreements")
    first = page.locator("#quality-disagreements [data-pick]").first
    item = first.get_attribute("data-pick")
    first.click()
    votes = page.locator("#quality-disagreements .st-open + .st-sub")
    votes.wait_for()
    assert re.search(r"annotator-[0-9a-f]{10}: ", votes.inner_text())
    assert "Ada" not in votes.inner_text()
    page.locator("#disagreements-outcome").get_by_text("Answer 2").click()
    press(page, "Decide")
    page.get_by_text("A decision needs a reason and a name.").wait_for()
    page.locator("#disagreements-reason textarea, #disagreements-reason input").fill("answer 1 is wrong")
    press(page, "Decide")
    page.get_by_text("Decided: answer 2.").wait_for()
    [decided] = adjudications.current(app.db, project.project_id)
    assert (decided.item_id, decided.outcome, decided.reason, decided.actor) == (item, "second", "answer 1 is wrong", "local")
    page.locator("#disagreements-view").get_by_text("Decided").click()
    page.locator(f'#quality-disagreements [data-pick="{item}"]').click()
    page.locator("#disagreements-reason textarea, #disagreements-reason input").fill("a slip")
    press(page, "Take it back")
    page.get_by_text("The decision is taken back").wait_for()
    assert adjudications.current(app.db, project.project_id) == []


def test_unanimous_items_become_gold_and_can_be_withdrawn(app: App, page: Any) -> None:
    project = own(app)
    before = {g.item_id for g in gold.current(app.db, project.project_id)}
    visit(page, app, "gold")
    first = page.locator("#quality-gold [data-pick]").first
    item = first.get_attribute("data-pick")
    suggested = {s.item_id: s.outcome for s in gold.suggest(app.db, project.project_id)}
    first.click()
    page.locator("#quality-gold .st-answers").wait_for()
    page.locator("#gold-outcome").get_by_text("Answer 1" if suggested[item] == "first" else "Answer 2").click()
    press(page, "Make it known")
    page.get_by_text("It is a known item").wait_for()
    [new] = [g for g in gold.current(app.db, project.project_id) if g.item_id not in before]
    assert (new.item_id, new.outcome, new.source, new.actor) == (item, suggested[item], "unanimous", "local")
    page.locator("#gold-view").get_by_text("Known now").click()
    page.locator(f'#quality-gold [data-pick="{item}"]').click()
    press(page, "Withdraw")
    page.get_by_text("It is no known item any more").wait_for()
    assert {g.item_id for g in gold.current(app.db, project.project_id)} == before


# --- what leaves: exports, training, the hub ---


def test_an_export_leaves_out_flagged_labels_and_weighs_the_rest(app: App, page: Any) -> None:
    project = own(app)
    page.goto(f"{app.url}/data?tab=export")
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
    open_part(page, page.locator("#export-which > button"))
    page.locator("#export-aggregation").get_by_text("weighted by how many agree").click()
    choose(page, "#export-flags", "Too fast")
    page.keyboard.press("Escape")
    page.locator("#export-go").click()
    link = page.locator("#export-made .st-cta").first
    link.wait_for()
    flagged = app.db.value(
        "select count(*) from current_labels where project_id = ? and contains(flags, 'too_fast')", [project.project_id]
    )
    assert f"{flagged} label" in page.locator("#export-made .st-note").inner_text()
    with page.expect_download() as download:
        link.click()
    rows = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    filters = Filters(without_flags=("too_fast",))
    manifest = snapshots.preview(app.db, project.project_id, "preference", filters=filters, rules=Rules("weighted")).manifest
    assert len(rows) == sum(manifest["rows"].values())
    assert {"prompt", "chosen", "rejected", "weight"} == set(rows[0])
    assert min(row["weight"] for row in rows) < 1.0


def test_training_says_which_labels_are_flagged(app: App) -> None:
    said = str(learns_from(app.db, own(app), "dpo").html)
    assert re.search(r"Labels with a flag count like others: .*\d+ too fast", said)
    assert "Labels with a flag" not in str(learns_from(app.db, seed_project(app.db, 4), "dpo").html)


def test_what_few_rows_can_do_is_said_of_what_is_trained() -> None:
    assert "that a comparison can show" in hope("dpo", 60, "pairs")
    assert "comparison" not in hope("reward", 60, "pairs")
    assert hope("dpo", 9, "pairs") == hope("reward", 100, "pairs") == ""


def test_training_counts_what_was_chosen(app: App, page: Any) -> None:
    project = own(app)
    page.goto(f"{app.url}/train")
    whole = snapshots.preview(app.db, project.project_id, "preference").manifest["rows"]["train"]
    page.get_by_role("button", name=f"Train on {whole} ").wait_for()
    open_part(page, page.locator("#train-which > button"))
    page.locator("#train-aggregation").get_by_text("One row for each person").click()
    every = snapshots.preview(app.db, project.project_id, "preference", rules=Rules("every")).manifest["rows"]["train"]
    assert every > whole
    page.get_by_role("button", name=f"Train on {every} ").wait_for()


def test_offline_a_push_is_skipped_with_a_sentence(app: App, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own(app)
    page.goto(f"{app.url}/data?tab=export")
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
    open_part(page, page.locator("#export-hub > button"))
    page.locator("#hub-name input, #hub-name textarea").fill("no owner")
    page.locator("#hub-go").click()
    page.get_by_text("is no name of a data set").wait_for()
    page.locator("#hub-name input, #hub-name textarea").fill("somebody/preferences")
    page.locator("#hub-go").click()
    page.get_by_text("This studio is offline").wait_for()
    assert app.db.value("select count(*) from runs where kind = 'hub_push'") == 0


def own(app: App) -> Project:
    """A project of the test's own, labelled by the same four."""
    project = seed_labelled(app.db, 16)
    app.open(project)
    return project


def left_out(app: App, project: Project) -> dict[str, tuple[str, str, str]]:
    """The newest decision about each label that had one."""
    sql = """select impression_id, arg_max(event, seq) as e, arg_max(actor, seq) as actor, arg_max(note, seq) as note
             from label_events where project_id = ? and event in ('excluded', 'restored') group by impression_id"""
    return {r["impression_id"]: (r["e"], r["actor"], r["note"]) for r in app.db.rows(sql, [project.project_id])}


def choose(page: Any, dropdown: str, option: str) -> None:
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=option, exact=True).click()


# --- how the project is labelled ---


def visit_project(page: Any, app: App, theme: str = "light") -> None:
    page.goto(f"{app.url}/project?__theme={theme}")
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")


def test_what_is_saved_is_how_the_project_is_labelled(app: App, page: Any) -> None:
    project = own(app)
    visit_project(page, app)
    page.locator("#project-guidelines textarea").fill("Choose the **right** one.\n\n<img src=x onerror=alert(1)>")
    page.locator("#project-preview strong").wait_for()
    assert page.locator("#project-preview img").count() == 0
    page.locator("#project-strength input").check()
    page.locator("#project-reasons textarea").fill("more correct\n\n shorter ")
    page.locator("#project-overlap input[type=number]").fill("2")
    page.locator("#project-adaptive input").check()
    page.locator("#project-max_overlap input[type=number]").fill("6")
    page.locator("#project-gold_rate input[type=number]").fill("10")
    page.get_by_text("Close calls first").click()
    page.locator("#project-leak_phrases textarea").fill("our model Orion")
    page.locator("#project-save").click()
    page.get_by_text("Saved. It counts from now on.").wait_for()
    stored = projects.get(app.db, project.project_id)
    assert stored.guidelines.startswith("Choose the **right** one.")
    expected = ProjectSettings(
        strength=True, reasons=("more correct", "shorter"), overlap=2, adaptive=True, max_overlap=6, gold_rate=0.1,
        policy="close_call", leak_phrases=("our model Orion",),
    )  # fmt: skip
    assert stored.settings == expected
    visit_project(page, app)
    page.wait_for_function("document.querySelector('#project-gold_rate input[type=number]').value === '10'")
    assert page.locator("#project-reasons textarea").input_value() == "more correct\nshorter"


def test_a_setting_that_cannot_be_is_refused_in_words(app: App, page: Any) -> None:
    project = own(app)
    visit_project(page, app)
    page.locator("#project-leak_phrases textarea").fill("/(a+)+b/")
    page.locator("#project-save").click()
    page.get_by_text("cannot be used as a regular expression").wait_for()
    assert projects.get(app.db, project.project_id).settings == project.settings


def test_the_project_page_looks_right(app: App, page: Any) -> None:
    for theme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        page.set_viewport_size({"width": width, "height": 800})
        visit_project(page, app, theme)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SCREENSHOTS / f"project-{theme}-{width}.png", full_page=True)
