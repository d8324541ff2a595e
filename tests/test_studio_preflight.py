"""The check before a run on the Train page: verdicts while choosing, fixes by a button, no start against a reason to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from conftest import free_port
from labelling import seed_project
from run_studio import VIEWER, ended, labelled_project, studio_with_runs, wait
from test_labeling_row_checks import import_pairs
from visiting import ANNA, request

from data import people, runs
from data.errors import BadInput, LimitReached
from data.records import Run, now
from data.settings import Settings
from labeling import preferences, snapshots
from studio import train_plan
from studio.context import Studio, open_studio
from studio.preflight_panel import PreflightPanel
from studio.train_page import TrainPage
from studio.verdict_list import about, cost_facts, verdict_list
from training.defaults import recipe
from training.verdicts import Cost, Example, Fix, Report, Verdict

pytestmark = pytest.mark.app

COST = Cost(24, 10.0, 4.0, 160.0, 6.0, peak=1_200_000_000, free=20_000_000_000, estimated=800_000_000)
STOP = Verdict("template", "stop", "This base's chat template does not end the answer.", 3, (Example("p1", "Why <b>?"),))
CUT = Verdict("length limit", "warn", "3 rows are cut.", 3, (Example("p1", "Why?"),), Fix("Allow 200 tokens", {"max_length": 200}))
FINE = Verdict("rows", "ok", "All 12 rows can be learned from.")


# --- words ---


def test_the_worst_stands_first_and_what_is_fine_is_folded_away() -> None:
    shown = verdict_list([FINE, CUT, STOP], fixable=True)
    assert shown.index("Stops the run") < shown.index("Worth a look") < shown.index("<details")
    assert "1 check is fine" in shown
    assert 'data-fix="length limit">Allow 200 tokens</button>' in shown
    assert "Why &lt;b&gt;?" in shown
    assert "<li>and 2 more</li>" in shown
    assert "<button" not in verdict_list([CUT])
    assert verdict_list([]) == ""
    assert "<details" not in verdict_list([CUT])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (7.4, "7 seconds"),
        (42, "40 seconds"),
        (180, "3 minutes"),
        (5300, "88 minutes"),
        (9000, "2.5 hours"),
        (7200, "2 hours"),
    ],
)
def test_a_time_is_about(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_a_cost_is_a_time_and_what_it_needs() -> None:
    shown = cost_facts(COST)
    for words in ("3 minutes", "24 steps on this machine", "1.2 GB", "of 20.0 GB free"):
        assert words in shown
    assert "should its answers" not in shown
    own = cost_facts(replace(COST, longest_s=600.0))
    assert "up to 10 minutes should its answers grow to their limit" in own


# --- the panel over a studio whose runs are fake ---


@pytest.fixture
def studio(settings: Settings, db: Any) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        yield opened


def build(studio: Studio) -> TrainPage:
    page = TrainPage(studio)
    with gr.Blocks() as demo:
        page.build(demo)
    return page


def values(page: TrainPage, leave_out: tuple[str, ...] = (), method: str = "dpo", **changes: Any) -> list[Any]:
    """What the controls of the page send."""
    config = recipe(method, 2_000_000).to_json() | changes
    knobs = [config.get(knob.name, knob.default) for knob in page.form._knobs]
    return [method, "demo-model", "majority", "drop", [], [], "", "", True, True, list(leave_out), *knobs]


REQUEST: Any = SimpleNamespace()


def shown(panel: PreflightPanel, held: list[Any]) -> Any:
    """(HTML, may check, can stop, is ticking)."""
    html, check, stop, timer = panel.refresh(REQUEST, *held)
    return str(html), check["interactive"], stop["visible"], timer.active


def ended_check(studio: Studio, page: TrainPage, held: list[Any], report: Report | None, **fields: Any) -> Run:
    """The row of a check of just what the controls hold."""
    project = studio.project(VIEWER)
    args = {"about": page.read(VIEWER, held).about(studio, project)}
    row: dict[str, Any] = {
        "status": "finished", "result": report.to_json() if report else {}, "error": "", "pid": 0, "pid_created": 0.0,
        "event_offset": 0, "progress": {}, "queued_at": now(), "ended_at": now(), **fields,
    }  # fmt: skip
    run = Run(
        run_id=f"check-{len(runs.of_project(studio.db, project.project_id))}", project_id=project.project_id, owner="",
        kind="preflight", name="Check", module="training.preflight", device="cpu", config={"args": args}, snapshot_id="", **row,
    )  # fmt: skip
    return runs.add(studio.db, run)


def test_without_labels_there_is_nothing_to_check(studio: Studio) -> None:
    project = seed_project(studio.db, 3)
    people.set_open_project(studio.db, "local", project.project_id)
    page = build(studio)
    assert shown(page.preflight, values(page)) == ("", False, False, False)


def test_rows_are_judged_while_one_is_choosing(studio: Studio) -> None:
    project = seed_project(studio.db, 0)
    people.set_open_project(studio.db, "local", project.project_id)
    import_pairs(studio.db, project, 12)
    page = build(studio)
    html, may_check, _, _ = shown(page.preflight, values(page))
    assert may_check
    assert "were chosen both ways" in html
    assert 'data-fix="contradictions">Leave them out' in html
    mended = page.preflight.mend(SimpleNamespace(_data={"fix": "contradictions"}), REQUEST, *values(page))  # type: ignore[arg-type]
    assert mended[0] == ["contradictions"]
    html, *_ = shown(page.preflight, values(page, ("contradictions",)))
    assert "were chosen both ways" not in html
    assert 'data-fix="repeats"' in html


def test_a_setting_that_cannot_be_is_said_and_not_checked(studio: Studio) -> None:
    labelled_project(studio)
    page = build(studio)
    html, may_check, _, _ = shown(page.preflight, values(page, learning_rate=7.0))
    assert "Step size (learning rate) must be at most 0.1, not 7" in html
    assert not may_check


def test_what_a_check_found_is_shown_until_something_changes(studio: Studio) -> None:
    labelled_project(studio)
    page = build(studio)
    ended_check(studio, page, values(page), Report((FINE, CUT), COST))
    html, *_ = shown(page.preflight, values(page))
    assert "3 minutes" in html
    assert "Allow 200 tokens" in html
    stale, *_ = shown(page.preflight, values(page, max_length=200))
    assert "was of other settings or labels; check again" in stale
    assert "Allow 200 tokens" not in stale
    mended = page.preflight.mend(SimpleNamespace(_data={"fix": "length limit"}), REQUEST, *values(page))  # type: ignore[arg-type]
    changed = {knob.name: update["value"] for knob, update in zip(page.form._knobs, mended[1:], strict=True) if "value" in update}
    assert changed == {"max_length": 200}
    with pytest.raises(BadInput, match="has changed meanwhile"):
        page.preflight.mend(SimpleNamespace(_data={"fix": "template"}), REQUEST, *values(page))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["reward", "rloo", "grpo"])
def test_methods_of_rewards_are_checked_and_shown_like_the_others(studio: Studio, method: str) -> None:
    labelled_project(studio)
    page = build(studio)
    held = values(page, method=method)
    html, may_check, _, _ = shown(page.preflight, held)
    assert may_check
    assert "3 minutes" not in html
    ended_check(studio, page, held, Report((FINE, CUT), COST))
    html, *_ = shown(page.preflight, held)
    for words in ("3 minutes", "1.2 GB", "of 20.0 GB free", "Allow 200 tokens"):
        assert words in html


def test_more_labels_make_a_check_an_old_one(studio: Studio) -> None:
    labelled_project(studio, 12)
    page = build(studio)
    ended_check(studio, page, values(page), Report((FINE,), COST))
    assert "3 minutes" in shown(page.preflight, values(page))[0]
    project = studio.project(VIEWER)
    label = studio.db.row("select impression_id from label_events where project_id = ? limit 1", [project.project_id])
    assert label is not None
    preferences.retract(studio.db, "local", label["impression_id"])
    assert "check again" in shown(page.preflight, values(page))[0]


def test_a_reason_to_stop_stops_the_button_too(studio: Studio) -> None:
    labelled_project(studio)
    page = build(studio)
    ended_check(studio, page, values(page), Report((STOP,)))
    held = values(page)
    with pytest.raises(BadInput, match=r"does not end the answer.*Such as: “Why <b>"):
        page.start(REQUEST, held[0], held[1], "", *held[2:])
    assert not [run for run in runs.of_project(studio.db, studio.project(VIEWER).project_id) if run.kind == "dpo"]
    page.preflight.refuse(VIEWER, page.read(VIEWER, values(page, epochs=2.0)))  # of other settings nothing is known


def test_labels_of_one_kind_stop_kto_before_anything_is_checked(studio: Studio) -> None:
    project = seed_project(studio.db, 12, task="binary")
    people.set_open_project(studio.db, "local", project.project_id)
    for served in studio.assignment.serve("local", project.project_id, 12):
        preferences.cast(studio.db, "local", served.impression.impression_id, "good")
    page = build(studio)
    held = values(page, method="kto")
    assert "KTO needs both" in shown(page.preflight, held)[0]
    with pytest.raises(BadInput, match="KTO needs both"):
        page.preflight.start(REQUEST, *held)
    assert not runs.of_project(studio.db, project.project_id)


def test_a_check_that_died_is_told_with_a_smaller_batch(studio: Studio) -> None:
    labelled_project(studio)
    page = build(studio)
    ended_check(studio, page, values(page), None, status="lost", error="The run's process was killed by the system.")
    html, *_ = shown(page.preflight, values(page))
    assert "was killed by the system" in html
    assert "4 rows at once, 2 times a step" in html
    ended_check(studio, page, values(page), None, status="failed", error="ValueError: a bug", queued_at=now())
    assert "ValueError: a bug" in shown(page.preflight, values(page))[0]
    page.preflight.refuse(VIEWER, page.read(VIEWER, values(page)))  # a fault of the check itself refuses nothing


def test_a_check_runs_with_the_rows_and_settings_of_the_run(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_plan, "CHECK", "tests.jobs_child")
    labelled_project(studio)
    page = build(studio)
    held = values(page, epochs=2.0)
    page.preflight.start(REQUEST, *held)
    [run] = runs.of_project(studio.db, studio.project(VIEWER).project_id)
    assert (run.kind, run.config["args"]["method"], run.config["args"]["train"]["epochs"]) == ("preflight", "dpo", 2.0)
    html, may_check, can_stop, ticks = shown(page.preflight, held)
    assert (may_check, can_stop, ticks) == (False, True, True)
    assert "st-bar" in html
    page.preflight.end(REQUEST, *held)
    snapshot = page.read(VIEWER, held).freeze(studio, studio.project(VIEWER))
    assert run.config["data"]["sha256"] == snapshot.sha256


def test_a_visitors_check_is_within_the_limits_of_a_visitors_run(settings: Settings) -> None:
    with open_studio(replace(settings, visitor=True)) as studio:
        anna = request(ANNA)
        viewer = studio.viewer(anna)
        project = studio.project(viewer)
        for served in studio.assignment.serve(viewer.annotator_id, project.project_id, 12):
            preferences.cast(studio.db, viewer.annotator_id, served.impression.impression_id, "a")
        page = build(studio)
        with pytest.raises(LimitReached, match="at most 300 steps"):
            page.preflight.start(anna, *values(page, max_steps=400))
        assert not runs.active(studio.db)


# --- in a browser, with the demo model ---


@pytest.mark.browser
@pytest.mark.model
@pytest.mark.slow(reason="two checks and a training, each a process")
def test_check_then_fix_then_train(tmp_path: Path, page: Any) -> None:
    """Rows that contradict each other and a limit that cuts: both mended by a click, the check's counts those of the run."""
    settings = Settings(home=tmp_path / "workspace", port=free_port())
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        project = seed_project(studio.db, 0)
        import_pairs(studio.db, project, 12, ("a b c d e f g h i", "9 8 7 6 5 4 3 2 1"))
        people.set_open_project(studio.db, "local", project.project_id)
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        page.goto(f"http://127.0.0.1:{settings.port}/train")
        mend(page, studio)
        page.locator("#train-go").click()
        page.wait_for_url("**/runs?run=*")
        finished(studio, page.url.partition("run=")[2])
        page.locator("#run-detail .st-badge.finished").wait_for()
        demo.close(verbose=False)
        by_kind = {run.kind: run for run in reversed(runs.of_project(studio.db, project.project_id))}
        check, trained = by_kind["preflight"], by_kind["dpo"]
        assert trained.config["args"]["train"]["max_length"] > 12
        manifest = snapshots.get(studio.db, trained.snapshot_id).manifest
        assert manifest["leave_out"] == ["contradictions", "repeats"]
        assert manifest["dropped"]["contradiction"] > 0
        assert trained.result["dropped"] == {"rows": 0, "reasons": {}, "truncated": 0}
        cut = next(v for v in Report.from_json(check.result).verdicts if v.check == "length limit")
        assert cut.rows > 0
        assert cut.fix is not None
        assert cut.fix.settings == {"max_length": trained.config["args"]["train"]["max_length"]}


def finished(studio: Studio, run_id: str) -> None:
    run = wait(studio.db, run_id, ended)
    assert (run.status, run.error) == ("finished", "")


def mend(page: Any, studio: Studio) -> None:
    """All that the Train page has buttons for, one after the other."""
    checks = page.locator("#train-checks")
    for name, says in (("contradictions", "chosen both ways"), ("repeats", "word for word")):
        checks.locator("li.warn", has_text=says).wait_for()
        checks.locator(f"button[data-fix={name}]").click()
        checks.locator("li.warn", has_text=says).wait_for(state="detached")
    page.locator("#knobs button").first.click()
    page.locator("#knob-epochs input").fill("1")
    limit = page.locator("#knob-max_length input")
    limit.fill("12")
    limit.press("Tab")
    page.locator("#train-check:not([disabled])").click()
    page.locator("#train-check-stop").wait_for()
    finished(studio, runs.of_project(studio.db, studio.project(VIEWER).project_id, limit=1)[0].run_id)  # the check
    checks.locator("button[data-fix='length limit']").click()
    checks.get_by_text("was of other settings").wait_for()
    assert float(limit.input_value()) > 12
