"""Stop, Resume and Reproduce pressed on the Runs page, in a real browser: over the stand-in child, and over real training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import run_studio
from conftest import free_port
from page_browser import open_part
from run_studio import ended, freeze, labelled_project, started, studio_with_runs, train, wait

from data import runs
from data.database import Database
from data.records import Run, Snapshot
from data.resume import newest, seal
from data.rundir import RunDir, sha256_of
from data.settings import Settings
from studio.context import Studio

pytestmark = pytest.mark.browser
STEPS = 150
KNOBS = {"batch_size": 4, "tuning": "lora", "sample_prompts": 0}


class Served(NamedTuple):
    url: str
    studio: Studio
    snapshot: Snapshot

    def folder(self, run: Run) -> RunDir:
        return RunDir(self.studio.settings.runs_dir / run.run_id)

    def steps(self, run: Run) -> list[int]:
        """Of the curve that the page draws."""
        return [int(event["step"]) for event in self.studio.metrics.of(run.run_id) if "loss" in event]


@pytest.fixture
def served(settings: Settings, db: Database) -> Iterator[Served]:
    from studio.ui import build_ui, launch_options

    own = Settings(home=settings.home, port=free_port())
    with studio_with_runs(own, db) as studio:
        snapshot = freeze(studio, labelled_project(studio))
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield Served(f"http://127.0.0.1:{own.port}", studio, snapshot)
        demo.close(verbose=False)


def shown(page: Any) -> list[str]:
    """The buttons under the run, in their order."""
    return [text.strip() for text in page.locator("#run-panel button:visible").all_inner_texts()]


def stop(page: Any) -> None:
    page.locator("#run-stop", has_text="Stop and keep what it has").click()


def press_resume(page: Any) -> int:
    """Where it is offered to go on from; the button stands first."""
    page.locator("#run-resume", has_text="Resume from step").wait_for()
    first = shown(page)[0]
    assert first.startswith("Resume from step ")
    page.locator("#run-resume").click()
    page.locator("#run-resume").wait_for(state="hidden")
    return int(first.split()[-1])


def test_a_stopped_run_goes_on_with_one_press(served: Served, page: Any) -> None:
    run = train(served.studio, served.snapshot, adapter=True, steps=6, wait_at=3)
    wait(served.studio.db, run.run_id, lambda each: each.progress.get("done") == 3)
    folder = served.folder(run)
    kept = folder.path / "checkpoints" / "checkpoint-3"
    kept.mkdir(parents=True)
    (kept / "state").write_text("state")
    seal(kept, 3, {})
    page.goto(f"{served.url}/runs?run={run.run_id}")
    stop(page)
    page.locator("#run-stop", has_text="End it now, without saving").wait_for()
    (folder.path / "go").touch()
    before = wait(served.studio.db, run.run_id, ended)
    assert before.status == "stopped"
    assert press_resume(page) == 3
    page.locator("#run-detail .st-badge.finished").wait_for()
    after = runs.get(served.studio.db, run.run_id)
    assert (after.status, after.error, after.pid != before.pid) == ("finished", "", True)
    assert [each.run_id for each in runs.of_project(served.studio.db, run.project_id)] == [run.run_id], "it is the run itself"


@pytest.mark.model
@pytest.mark.slow(reason="trains twice, with all the imports")
def test_a_real_run_goes_on_after_a_stop_and_without_a_tab(served: Served, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_studio, "CHILD", "training.dpo")
    run = train(served.studio, served.snapshot, KNOBS | {"max_steps": STEPS, "save_every": 10})
    page.goto(f"{served.url}/runs?run={run.run_id}")
    wait(served.studio.db, run.run_id, lambda _: served.steps(run))
    page.locator("#run-charts svg").first.wait_for()
    stop(page)
    assert wait(served.studio.db, run.run_id, ended).status == "stopped"
    at = newest(served.folder(run).path)
    assert at is not None
    assert press_resume(page) == at.step < STEPS
    wait(served.studio.db, run.run_id, started)
    context = page.context
    page.close()
    assert runs.get(served.studio.db, run.run_id).status == "running", "nobody looks at it, and it trains"
    reached = len(served.steps(run))
    while runs.get(served.studio.db, run.run_id).status == "running" and len(served.steps(run)) <= reached + 2:
        time.sleep(0.05)
    again = context.new_page()
    again.goto(f"{served.url}/runs?run={run.run_id}")
    done = wait(served.studio.db, run.run_id, ended)
    again.locator("#run-detail .st-badge.finished").wait_for()
    assert (done.status, done.error, done.result["steps"], done.result["resumed_from"]) == ("finished", "", STEPS, at.step)
    assert served.steps(run) == list(range(1, STEPS + 1)), "one curve, without a gap and with no step twice"
    frame = "JSON.parse(document.querySelector('#run-charts svg[data-frame]').dataset.frame).x"
    again.wait_for_function(f"{frame}[1] === {STEPS}")
    assert again.locator("#run-charts figure[data-chart=loss] .mark").count() == 1
    assert again.locator("#run-charts figure[data-chart=drift] svg").count() == 1


@pytest.mark.model
@pytest.mark.slow(reason="trains twice, with all the imports")
def test_a_reproduced_run_makes_the_very_same_adapter(served: Served, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_studio, "CHILD", "training.dpo")
    first = train(served.studio, served.snapshot, KNOBS | {"max_steps": 2})
    assert wait(served.studio.db, first.run_id, ended).status == "finished"
    page.goto(f"{served.url}/runs?run={first.run_id}")
    open_part(page, page.locator("#take-out button.label-wrap").first)
    page.locator("#take-again").click()
    page.wait_for_function("id => !location.href.includes(id)", arg=first.run_id)
    (new,) = [run for run in runs.of_project(served.studio.db, first.project_id) if run.run_id != first.run_id]
    assert wait(served.studio.db, new.run_id, ended).status == "finished"
    page.locator("#run-detail", has_text="Reproduced: the weights are those of “First”, bit for bit.").wait_for()
    files = [served.folder(run).path / "adapter" / "adapter_model.safetensors" for run in (first, new)]
    hashes = [runs.get(served.studio.db, run.run_id).result["adapter_sha256"] for run in (first, new)]
    assert (new.kind, new.module, new.config["again_of"]) == ("dpo", "training.dpo", first.run_id)
    assert hashes[0] == hashes[1]
    assert sha256_of(files[0]) == sha256_of(files[1])
    assert files[0].read_bytes() != b""
