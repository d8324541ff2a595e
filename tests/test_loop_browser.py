"""The whole loop as a person goes through it, in a real browser, with the real demo model and real runs:

open the demo → generate four candidates a prompt → label twenty with the keyboard → train DPO → compare with the judge.

What happened is read from the database after the app has ended. Screenshots of every page on a phone, and in the slow one in light
and dark too, go to tests/screenshots/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SCREENSHOTS

from data import completions, judgments, labels, models, people, projects, prompts, runs
from data.checkers import demo_world
from data.database import Database
from data.records import Run
from data.rundir import RunDir
from data.settings import Settings
from evals.compare_result import CompareResult
from labeling.assignment import Assignment
from labeling.preferences import cast
from studio import demo_project
from studio.demo_project import MODEL, MODEL_ID
from studio.next_step import overview

pytestmark = [
    pytest.mark.browser,
    pytest.mark.model,
    pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="the demo model's weights are not in data/demo/model"),
]

ASKED, EACH, WANTED = 24, 4, 20
LOOK = 200  # milliseconds: the Label page takes no key for an item that nobody can have read
FAILED = ".st-badge.failed, .st-badge.stopped, .st-badge.lost"
ENDED = f".st-badge.finished, {FAILED}"
PAGES = {
    "home": "",
    "data": "data",
    "data-import": "data?tab=import",
    "data-generate": "data?tab=generate",
    "data-export": "data?tab=export",
    "models": "models",
    "label": "label",
    "train": "train",
    "runs": "runs",
    "compare": "compare",
    "compare-judge": "compare?run=newest",
    "compare-results": "compare?result=newest",
}


def ready(page: Any) -> None:
    """The page has been filled by its handlers."""
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")


def until(app: Any, page: Any, wanted: str, instead: str = "") -> None:
    """Wait as long as it takes for what the page is to show; but not for an app that has ended, nor once it shows something else
    `instead` of it."""
    found, other = page.locator(wanted).filter(visible=True), page.locator(instead or wanted).filter(visible=True)
    while not found.count():
        assert app.process.poll() is None, app.log.read_text()[-3000:]
        said = other.all_inner_texts()
        assert not said or found.count(), [*said, *page.locator("#run-detail").all_inner_texts()]
        page.wait_for_timeout(100)


def end_of_run(app: Any, page: Any) -> str:
    """Wait for the run that is looked at to end; its status."""
    page.wait_for_url("**/runs?run=*")
    badge = f"#run-detail :is({ENDED})"
    until(app, page, badge)
    return str(page.locator(badge).inner_text())


ALL = pytest.param(("light", "dark", "phone"), marks=pytest.mark.slow(reason="the same, and each page two times more"))


@pytest.mark.parametrize("modes", [("phone",), ALL], ids=["phone", "all"])
def test_the_whole_loop(serve_app: Callable[..., Any], page: Any, modes: tuple[str, ...]) -> None:
    app = serve_app(env={"STUDIO_WARM_START": "1"})  # as users have it, and the libraries are loaded once for the runs
    generate(app, page)
    label(app.url, page)
    train(app, page)
    compare(app, page)
    voted = chat(app, page)
    page.goto(app.url)
    ready(page)
    page.locator(".st-next h2", has_text=re.compile("Go round again|It got worse")).wait_for()
    told = page.locator(".st-next h2").inner_text()
    photograph(app.url, page, modes)
    app.stop()
    check_what_is_stored(Settings(home=app.home), WANTED + voted, told)


@pytest.mark.slow
def test_a_run_outlives_the_server_and_can_be_stopped(serve_app: Callable[..., Any], page: Any, tmp_path: Path) -> None:
    """kill -9 of the app in the middle of a training: the page that is open goes on by itself, the stop saves what there is."""
    settings = Settings(home=tmp_path / "served")
    seed_labels(settings, 60)
    app = serve_app()
    page.goto(f"{app.url}/train")
    ready(page)
    page.locator("#knob-epochs input").fill("100")
    page.locator("#train-go:not([disabled])").click()
    page.wait_for_url("**/runs?run=*")
    until(app, page, "#run-charts svg", f"#run-detail :is({ENDED})")
    app.kill()
    reached = done_so_far(page)
    app.start()
    while done_so_far(page) <= reached + 2:
        assert app.process.poll() is None, app.log.read_text()[-3000:]
        assert not page.locator(f"#run-detail :is({ENDED})").count()
        page.wait_for_timeout(100)
    page.locator("#run-stop", has_text="Stop and keep what it has").click()
    assert end_of_run(app, page) == "stopped"
    page.locator("#run-compare").wait_for()
    app.stop()
    db = Database(settings)
    try:
        run = runs.of_project(db, projects.visible(db)[0].project_id)[0]
        assert run.status == "stopped"
        assert [m.run_id for m in models.visible(db, run.project_id, "", "adapter")] == [run.run_id]
    finally:
        db.close()
    steps = [e["step"] for e in RunDir(settings.runs_dir / run.run_id).tail().events if e["type"] == "metrics" and "loss" in e]
    assert steps == list(range(1, len(steps) + 1))  # one process from the first step to the last


DONE = "Number((document.querySelector('#run-detail')?.innerText.match(/(\\d[\\d,]*) of \\d/) || [0, '0'])[1].replace(',', ''))"


def done_so_far(page: Any) -> int:
    return int(page.evaluate(DONE))


def seed_labels(settings: Settings, wanted: int) -> None:
    """The demo project with labels given by its rules (marked simulated, as they are)."""
    db = Database(settings)
    try:
        demo_project.ensure_project(db)
        project = projects.visible(db)[0]
        people.ensure(db, "rules", "The rules", "simulated")
        for served in Assignment(db).serve("rules", project.project_id, wanted):
            said = demo_world.prefer(served.prompt.text, served.left, served.right)
            cast(db, "rules", served.impression.impression_id, said, simulated=True)
    finally:
        db.close()


def generate(app: Any, page: Any) -> None:
    page.goto(f"{app.url}/data?tab=generate")
    ready(page)
    page.locator("#gen-limit input").fill(str(ASKED))
    page.locator("#gen-go").click()
    assert end_of_run(app, page) == "finished"


def label(url: str, page: Any) -> None:
    """Twenty by keyboard, the first of them from the Home page in one click."""
    page.goto(url)
    ready(page)
    page.locator(".st-next .st-cta:not(.quiet)", has_text="Label the first pair").click()
    for number in range(WANTED):
        page.locator('.al[data-armed]:not([data-armed=""])').wait_for()
        page.wait_for_timeout(LOOK)
        before = page.locator(".al").get_attribute("data-armed")
        page.keyboard.press("1" if number % 2 else "2")
        page.wait_for_function("before => document.querySelector('.al')?.dataset.armed !== before", arg=before)
    page.get_by_text("All saved").wait_for()


def train(app: Any, page: Any) -> None:
    page.goto(f"{app.url}/train")
    ready(page)
    page.locator("#train-go:not([disabled])").click()
    page.wait_for_url("**/runs?run=*")
    until(app, page, "#run-charts svg", f"#run-detail :is({FAILED})")  # live, while it is going
    assert end_of_run(app, page) == "finished"
    titles = page.locator("#run-charts figcaption").all_inner_texts()
    assert {"Loss", "Prefers the good answer", "Reward margin"} <= {title.split("\n")[0] for title in titles}
    page.locator("#run-verdict .st-judgement").wait_for()


def compare(app: Any, page: Any) -> None:
    page.locator("#run-compare").click()
    page.locator("#run-detail h2", has_text="against").wait_for()
    until(app, page, "#run-detail .st-verdict", f"#run-detail :is({FAILED})")
    assert "95 %" in page.locator("#run-detail").inner_text()


def chat(app: Any, page: Any) -> bool:
    """Both models answer one prompt side by side, blind; a vote reveals them and is a label, unless both wrote the same."""
    page.goto(f"{app.url}/compare")
    ready(page)
    page.locator("#ask-go").click()
    until(app, page, "#ask-reveal", "#ask-answers .st-note.bad, .toast-body")
    assert "Demo model" not in page.locator("#ask-answers").inner_text()
    same = "the same" in page.locator("#ask-voted").inner_text()
    page.locator("#ask-reveal" if same else "#ask-votes button:has-text('Both bad')").click()
    page.locator("#ask-answers", has_text="Demo model").wait_for()
    assert same or "You said: Both bad. Stored" in page.locator("#ask-voted").inner_text()
    return not same


def photograph(url: str, page: Any, modes: tuple[str, ...]) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    newest = {"compare?run=newest": "dpo", "compare?result=newest": "compare"}
    links = page.locator("a[href*='runs?run=']").all()
    found = {link.inner_text(): str(link.get_attribute("href")).split("run=")[1] for link in links}
    ids = {
        "dpo": next(i for n, i in found.items() if n.startswith("DPO")),
        "compare": next(i for n, i in found.items() if "against" in n),
    }
    for mode in modes:
        page.set_viewport_size({"width": 390 if mode == "phone" else 1280, "height": 800})
        for name, path in PAGES.items():
            path = path.replace("newest", ids.get(newest.get(path, ""), ""))
            page.goto(f"{url}/{path}{'&' if '?' in path else '?'}__theme={'dark' if mode == 'dark' else 'light'}")
            ready(page)
            page.wait_for_timeout(1200)
            page.screenshot(path=SCREENSHOTS / f"{name}-{mode}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide on {mode}"


def check_what_is_stored(settings: Settings, labelled: int, told: str) -> None:
    db = Database(settings)
    try:
        project = projects.visible(db)[0]
        worse = overview(db, project).lost  # the labels are keys pressed in turn, so either may come of them
        assert told == ("It got worse" if worse else "Go round again")
        mine = {run.kind: run for run in runs.of_project(db, project.project_id)}
        assert {kind: run.status for kind, run in mine.items()} == {
            "generate": "finished",
            "dpo": "finished",
            "compare": "finished",
        }
        check_candidates(db, project.project_id, mine["generate"])
        stands = labels.current(db, project.project_id)
        assert len(stands) == labelled
        assert {event.preference for event in stands[:WANTED]} == {"a", "b"}
        adapter = next(m for m in models.visible(db, project.project_id, "") if m.kind == "adapter")
        assert (adapter.run_id, adapter.parent_model_id) == (mine["dpo"].run_id, MODEL_ID)
        assert abs(mine["dpo"].result["first_loss"] - 0.6931) < 0.01
        check_comparison(db, mine["compare"])
    finally:
        db.close()


def check_candidates(db: Database, project_id: str, run: Run) -> None:
    made = completions.of_run(db, run.run_id)
    assert len({c.prompt_id for c in made}) == ASKED
    assert ASKED * EACH * 0.8 <= len(made) <= ASKED * EACH  # what came twice is left out
    assert len({(c.prompt_id, c.text) for c in made}) == len(made)


def check_comparison(db: Database, run: Run) -> None:
    judged = judgments.of_run(db, run.run_id)
    result = CompareResult.from_json(run.result)
    assert len(judged) == result.n_comparisons == 120
    assert {p.split for p in prompts.get_many(db, [j.prompt_id for j in judged])} == {"held_out"}
    assert result.win_rate is not None
    assert result.win_rate.low is not None
    assert result.win_rate.high is not None
    assert 0 <= result.win_rate.low <= result.win_rate.high <= 1
