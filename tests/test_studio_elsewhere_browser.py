"""The section for several devices and elsewhere, in a real browser: what it shows, starts, packs and takes back."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import free_port
from page_browser import hand_over, open_part
from run_studio import CHILD, ended, freeze, labelled_project, train, wait
from test_studio_elsewhere import packed, trained

from data import runs
from data.records import Project, Run
from data.settings import Settings
from studio import elsewhere
from studio.context import Studio, open_studio
from training.launch_files import slug

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)> $(touch /tmp/owned) `id`"


class Site(NamedTuple):
    url: str
    studio: Studio
    project: Project
    run: Run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = Settings(home=tmp_path_factory.mktemp("elsewhere") / "workspace", port=free_port(), warm_start=False)
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        project = labelled_project(studio)
        snapshot = freeze(studio, project)
        for _ in ("First", HOSTILE):
            run = wait(studio.db, train(studio, snapshot, {"max_steps": 2}).run_id, ended)
        runs.update(studio.db, run.run_id, name=HOSTILE)
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield Site(f"http://127.0.0.1:{settings.port}", studio, project, run)
        demo.close(verbose=False)


def opened(page: Any, site: Site) -> Any:
    page.goto(f"{site.url}/runs?run={site.run.run_id}")
    open_part(page, page.locator("#run-elsewhere button.label-wrap"))
    page.locator("#run-command").wait_for()
    return page


def choose(page: Any, way: str, shows: str) -> None:
    page.locator("#run-way").get_by_text(way, exact=True).click()
    page.locator("#run-commands pre", has_text=shows).first.wait_for()


def test_the_command_follows_the_choices_whatever_the_run_is_called(page: Any, site: Site) -> None:
    opened(page, site)
    shown = page.locator("#run-commands")
    assert "8 rows on each of 2 devices make 16 rows a step" in shown.inner_text()
    assert page.locator("#run-command").inner_text().split()[-2:] == ["training.dpo", f"runs/{slug(HOSTILE)}"]
    page.locator("#run-devices input").fill("4")
    page.locator("#run-command", has_text="--num_processes 4").wait_for()
    assert page.locator("#run-here").is_visible()
    choose(page, "Slurm", "#SBATCH --gpus-per-node=4")
    page.locator("#run-here").wait_for(state="hidden")
    choose(page, "SkyPilot", 'accelerators: "A100:4"')
    page.locator("#run-way").get_by_text("Hugging Face Jobs", exact=True).click()
    shown.get_by_text("Give the bucket on the hub").wait_for()
    assert page.locator("#run-carry").is_disabled()
    page.locator("#run-bucket input, #run-bucket textarea").fill("me/runs")
    page.locator("#run-file", has_text="hf buckets sync").wait_for()
    with page.expect_download() as download:
        page.locator('button[data-file="job.sh"]').click()
    assert Path(download.value.path()).read_text() == page.locator("#run-file").text_content()
    assert page.locator("img[src=x]").count() == 0
    choose(page, "accelerate", "--num_processes 4")
    page.locator("#run-list a", has_text="First").click()
    page.locator("#run-command", has_text="runs/first").wait_for()


def test_a_run_is_carried_away_and_brought_back(page: Any, site: Site, tmp_path: Path) -> None:
    opened(page, site)
    page.locator("#run-carry").click()
    with page.expect_download() as download:
        page.locator("#run-carried a.st-cta").click()
    with tarfile.open(download.value.path()) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    before = {run.run_id for run in runs.of_project(site.studio.db, site.project.project_id)}
    open_part(page, page.locator("#bring-back button.label-wrap"))
    hand_over(page, "#back-file", packed(trained(folder)))
    page.locator("#back-go").click()
    page.wait_for_function("id => !location.href.includes(id)", arg=site.run.run_id)
    (new,) = [run for run in runs.of_project(site.studio.db, site.project.project_id) if run.run_id not in before]
    assert (new.status, new.kind, bool(new.result["model_id"])) == ("finished", "dpo", True)


def test_a_run_starts_on_several_devices_of_this_machine(page: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(elsewhere.HERE, "accelerate", CHILD)
    before = {run.run_id for run in runs.of_project(site.studio.db, site.project.project_id)}
    opened(page, site).locator("#run-here").click()
    page.wait_for_function("id => !location.href.includes(id)", arg=site.run.run_id)
    (new,) = [run for run in runs.of_project(site.studio.db, site.project.project_id) if run.run_id not in before]
    assert new.config["args"]["launch"]["devices"] == 2
    assert wait(site.studio.db, new.run_id, ended).status == "finished"


def test_the_train_page_packs_what_its_form_says(page: Any, site: Site) -> None:
    page.goto(f"{site.url}/train")
    open_part(page, page.locator("#train-elsewhere button.label-wrap"))
    page.locator("#train-command", has_text="--module training.dpo runs/dpo-on-").wait_for()
    page.locator("#train-carry").click()
    with page.expect_download() as download:
        page.locator("#train-carried a.st-cta").click()
    with tarfile.open(download.value.path()) as archive:
        (name,) = [each for each in archive.getnames() if each.endswith("/config.json") and "/runs/" in each]
        config = json.load(archive.extractfile(name))  # type: ignore[arg-type]
    assert (config["kind"], config["project_id"]) == ("dpo", site.project.project_id)
    assert config["args"]["model"]["base"] == "data/demo/model"
