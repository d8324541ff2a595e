"""What pages draw: nothing from outside can be markup, numbers read as a person writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from data.records import Run
from evals.compare_result import CompareResult
from evals.winrate import Estimate
from studio import render
from studio.render import Answer, Column, Html, Step
from studio.run_report import after, report, without_ids

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>" onmouseover=x \'${alert(3)}'
START = datetime(2026, 1, 1, tzinfo=UTC)


class Seen(HTMLParser):
    """The tags and attributes of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def run(**fields: object) -> Run:
    row = {
        "run_id": "r1",
        "project_id": "p",
        "owner": "",
        "kind": "dpo",
        "name": HOSTILE,
        "module": "training.dpo",
        "status": "finished",
        "device": "cpu",
        "config": {},
        "snapshot_id": "",
        "pid": 0,
        "pid_created": 0.0,
        "event_offset": 0,
        "progress": {},
        "result": {},
        "error": "",
        "queued_at": START,
    }
    return Run(**{**row, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "drawn",
    [
        render.note(HOSTILE, "bad"),
        render.empty(HOSTILE, HOSTILE, HOSTILE),
        render.button(HOSTILE, HOSTILE),
        render.badge(HOSTILE),
        render.tag(HOSTILE),
        render.facts([(HOSTILE, HOSTILE, HOSTILE)]),
        render.table([Column(HOSTILE, "clip")], [[HOSTILE]], label=HOSTILE),
        render.loop([Step(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "now")]),
        render.next_step(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)]),
        render.answers([Answer(HOSTILE, HOSTILE, HOSTILE)]),
        render.win_bar(0.5, 0.4, 0.6, HOSTILE, HOSTILE),
        report(run(error=HOSTILE, status="failed"), [HOSTILE]),
        report(run(kind="hub_import", result={"file": HOSTILE, "rows": 3})),
        report(run(kind="compare", result=CompareResult(HOSTILE, HOSTILE, HOSTILE, 3, 3, 0, Estimate(0.5, 0.4, 0.6)).to_json())),
    ],
)
def test_what_comes_from_outside_is_never_markup(drawn: str) -> None:
    seen = Seen(drawn)
    assert not seen.tags & {"img", "script", "iframe", "svg", "style"}
    assert seen.handlers == []


def test_cells_are_escaped_unless_they_were_made_here() -> None:
    table = render.table([Column("a"), Column("b")], [["<b>", Html("<i>made here</i>")]])
    assert "&lt;b&gt;" in table
    assert "<i>made here</i>" in table


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, ""), (0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (125, "2 min 05 s"), (3600, "1 h 00 min"), (-3, "0 s")],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert render.duration(seconds) == said


@pytest.mark.parametrize(
    ("passed", "said"),
    [(0, "just now"), (61, "1 min ago"), (7200, "2 h ago"), (86_400, "1 day ago"), (3 * 86_400, "3 days ago")],
)
def test_times(passed: int, said: str) -> None:
    assert render.ago(START, START + timedelta(seconds=passed)) == said


def test_counts() -> None:
    assert render.count(1, "label") == "1 label"
    assert render.count(1204, "label") == "1,204 labels"
    assert render.count(2, "reply", "replies") == "2 replies"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.5, "50 %"), (0.496, "49.6 %"), (0.504, "50.4 %"), (0.5001, "50 %"), (0.63, "63 %"), (0.998, "99.8 %"), (0.0, "0 %")],
)
def test_a_share_never_seems_to_be_a_half_that_it_is_not(share: float, said: str) -> None:
    assert render.percent(share) == said


def test_an_interval_is_rounded_like_its_value() -> None:
    assert render.percents(0.496, 0.56) == "49.6–56 %"


def test_a_figure_stays_on_one_line_with_its_unit() -> None:
    whole = '<span class="st-fig">'
    assert render.figures("in 49.6 % (95 % interval 43–56 %) <b>") == (
        f"in {whole}49.6 %</span> ({whole}95 %</span> interval {whole}43–56 %</span>) &lt;b&gt;"
    )
    assert render.figures(HOSTILE) == render.esc(HOSTILE)


# --- what came of a run ---


def test_the_progress_line_says_what_goes_on_before_the_first_step_and_its_bar_waits() -> None:
    loading = run(status="running", progress={"unit": "loading the base model", "done": 0, "total": 0, "loading": True})
    assert (render.progress_line(loading), render.share_done(loading)) == ("loading the base model", None)
    checking = run(status="running", progress={"unit": "checking rows", "done": 180, "total": 2000, "loading": True})
    assert (render.progress_line(checking), render.share_done(checking)) == ("checking rows 180 of 2,000", None)
    training = run(status="running", progress={"unit": "steps", "done": 3, "total": 12, "seconds": 6.0, "eta_s": 18.0})
    assert (render.progress_line(training), render.share_done(training)) == ("steps 3 of 12 · 6 s · about 18 s left", 0.25)


def test_of_a_training_the_figures_come_before_what_it_told() -> None:
    result = {"rows": 9, "steps": 2, "seconds": 1.0, "metrics": {"loss": 0.5}}
    trained = report(run(kind="dpo", result=result), ["By TRL."])
    assert 0 < trained.index("Learned from") < trained.index("By TRL.")
    merged = report(run(kind="merge", result={"prompts": 3, "same": 2}), ["2 of 3 are the same."])
    assert 0 < merged.index("2 of 3 are the same.") < merged.index("Where the two differ")


def test_a_file_that_is_offered_is_saved() -> None:
    assert " download>" in render.button("Download", "download/token")
    assert "download" not in render.button("Go on", "train")


def test_ids_of_rows_are_for_the_log_alone() -> None:
    ids = ", ".join("0123456789abcdef" * 2 for _ in range(3))
    said = f"3 rows left out: the answer is empty ({ids} and 4 more)."
    assert without_ids(said) == "3 rows left out: the answer is empty."
    assert without_ids("2 completions were cut (row 3, row 14).") == "2 completions were cut."
    assert without_ids("The limit of 50 rows was reached (of 80).") == "The limit of 50 rows was reached (of 80)."
    assert "0123456789abcdef" not in report(run(), [said])


def test_a_generation_tells_all_that_went_wrong() -> None:
    result = {"completions": 7, "prompts": 4, "duplicates": 2, "errors": 3, "truncated": 5, "empty": 1, "first_error": HOSTILE}
    shown = re.sub(r"<[^>]+>", " ", report(run(kind="generate", result=result)))
    for name, n in (("Answers", 7), ("The same as another", 2), ("Failed", 3), ("Cut off", 5), ("Empty", 1)):
        assert re.search(rf"{name}\s+{n}\b", shown), shown
    assert Seen(report(run(kind="generate", result=result))).handlers == []


def test_only_a_trained_model_is_offered_for_more() -> None:
    assert "Train on from it" in after(run(result={"model_id": "m"}))
    assert "Train on from it" not in after(run(result={}))
    assert "again?run=" in after(run(result={})), "but it can be run again"
    assert not after(run(status="running"))
    assert not after(run(kind="generate", result={"model_id": "m"}))
