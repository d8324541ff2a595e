"""Taking a trained model out: the card from its lineage, the download, what starts a run, and whether a reproduction is one."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import yaml
from run_studio import VIEWER, ended, freeze, labelled_project, studio_with_runs, train, wait
from safetensors.numpy import save_file

from data import models, runs
from data.errors import BadInput, RunError
from data.records import Model, Project, Run, Snapshot
from data.rundir import RunDir
from studio import processes
from studio.context import Studio, Viewer
from studio.model_card import card, lineage
from studio.take_out import TakeOut, makes_models, same_again
from training.gguf import VARIABLE

pytestmark = pytest.mark.app

VISITOR = Viewer("v", "v", True, "researcher")


@pytest.fixture
def studio(settings: Any, db: Any) -> Iterator[Studio]:
    with studio_with_runs(settings, db) as opened:
        yield opened


@pytest.fixture
def project(studio: Studio) -> Project:
    return labelled_project(studio)


def trained(studio: Studio, snapshot: Snapshot, name: str, parent: Model | None = None) -> Run:
    """A finished run with weights, as a trainer leaves it."""
    run = wait(studio.db, train(studio, snapshot, {"beta": 0.5}, adapter=True).run_id, ended)
    folder = studio.settings.runs_dir / run.run_id / "adapter"
    save_file({"lora_A": np.full((2, 4), 0.5, np.float32)}, folder / "adapter_model.safetensors")
    result = {**run.result, "adapter": "adapter", "adapter_sha256": "ab" * 32, "rows": 9, "steps": 6, "metrics": {"loss": 0.25}}
    args = run.config["args"] | ({"model_id": parent.model_id} if parent else {})
    runs.update(studio.db, run.run_id, name=name, result=result, config={**run.config, "args": args})
    return runs.get(studio.db, run.run_id)


def test_the_card_tells_the_whole_line_and_takes_no_name_as_markup(studio: Studio, project: Project) -> None:
    snapshot = freeze(studio, project)
    first = trained(studio, snapshot, "<script>alert(1)</script> [x](javascript:1)")
    second = trained(studio, snapshot, "Second", models.get(studio.db, str(first.result["model_id"])))
    assert [step.run.run_id for step in lineage(studio, second)] == [first.run_id, second.run_id]
    text = card(studio, second, "mit")
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["library_name"], head["tags"]) == ("mit", "peft", ["dpo", "lora", "trl"])
    assert "base_model" not in head  # the demo model is not on the hub
    body = text.split("---\n", 2)[2]
    assert re.search(r"1\. DPO: .*script.*\n", body)
    assert "2. DPO: Second" in body
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(javascript", body)
    assert body.count(snapshot.sha256) == 2
    assert "learned from 9 rows in 6 steps" in body
    assert "12 by people" in body
    assert "| beta | 0.5 |" in body
    assert str(studio.settings.home) not in text


def test_a_zip_holds_what_peft_needs(studio: Studio, project: Project) -> None:
    run = trained(studio, freeze(studio, project), "One")
    shown = str(TakeOut(studio).offer(VIEWER, run))
    token = re.search(r"download/([\w-]+)", shown)
    assert token
    offer = studio.offers.get(token[1], "")
    assert offer
    with zipfile.ZipFile(offer.path) as archive:
        assert sorted(archive.namelist()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert studio.offers.get(token[1], "somebody") is None


def test_the_zip_that_is_being_fetched_is_not_written_over(studio: Studio, project: Project) -> None:
    run, out = trained(studio, freeze(studio, project), "One"), TakeOut(studio)
    out.offer(VIEWER, run)
    (file,) = studio.settings.export_dir.glob("*.zip")
    with file.open("rb") as fetched:
        first = fetched.read(64)
        out.offer(VIEWER, run)
        fetched.seek(0)
        assert fetched.read(64) == first
        assert file.stat().st_ino != os.fstat(fetched.fileno()).st_ino
    assert [made for made in studio.settings.export_dir.iterdir() if made.is_file()] == [file]


def test_a_run_that_writes_gguf_finds_the_converter_that_the_server_was_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/opt/llama.cpp")
    assert processes.environment({}, ())[VARIABLE] == "/opt/llama.cpp"


def test_merging_and_pushing_are_runs_with_all_they_need(studio: Studio, project: Project) -> None:
    run, out = trained(studio, freeze(studio, project), "One"), TakeOut(studio)
    merge = out.start_merge(VIEWER, run)
    assert (merge.kind, merge.module) == ("merge", "training.merge")
    assert merge.config["args"]["model"]["adapter"].endswith("adapter")
    assert RunDir(studio.settings.runs_dir / merge.run_id).check_data("prompts.jsonl", merge.config["data"]["sha256"])
    studio.jobs.stop(merge.run_id)
    push = out.start_push(VIEWER, run, " me/mine ", "mit", True)
    assert push.config["args"]["repository"] == "me/mine"
    assert "# One" in (studio.settings.runs_dir / push.run_id / "README.md").read_text()
    studio.jobs.stop(push.run_id)
    for name, license in (("mine", "mit"), ("me/mine", "mit\nx: y"), ("../me", "mit")):
        with pytest.raises(RunError):
            out.start_push(VIEWER, run, name, license, True)


def test_a_reward_model_is_offered_as_one_that_scores(studio: Studio, project: Project) -> None:
    run = replace(trained(studio, freeze(studio, project), "One"), kind="reward")
    out = TakeOut(studio)
    with gr.Blocks():
        out.build()
    shown = dict(zip(out.outputs, out.show(run), strict=True))
    assert shown[out.merge]["visible"] is False
    assert "merge it" not in shown[out.says]
    text = card(studio, run, "mit")
    assert "pipeline_tag: text-classification" in text
    assert "AutoModelForSequenceClassification" in text
    assert "AutoModelForCausalLM" not in text


def test_a_visitor_reaches_nothing_outside(studio: Studio, project: Project) -> None:
    run, out = trained(studio, freeze(studio, project), "One"), TakeOut(studio)
    for act in (out.start_merge, out.start_gguf, lambda v, r: out.start_push(v, r, "me/mine", "mit", True)):
        with pytest.raises(BadInput, match="A visitor cannot"):
            act(VISITOR, run)


def test_a_reproduction_says_whether_the_same_came_out(studio: Studio, project: Project) -> None:
    run = trained(studio, freeze(studio, project), "One")
    again = TakeOut(studio).reproduce(VIEWER, run)
    assert (again.config["again_of"], again.config["changes"], again.name) == (run.run_id, {}, "One (again)")
    assert same_again(run, again) == ""  # nothing to say before its end
    again = wait(studio.db, again.run_id, ended)
    same = replace(again, result={"adapter_sha256": "ab" * 32})
    other = replace(again, result={"adapter_sha256": "cd" * 32})
    assert "bit for bit" in same_again(run, same)
    assert "Nothing that is recorded was different" in same_again(run, other)
    moved = replace(other, device="cuda:0", config={**other.config, "versions": {**other.config["versions"], "torch": "3.0"}})
    assert re.search(r"torch .* → 3\.0, device cpu → cuda:0", same_again(run, moved))
    changed = replace(same, config={**same.config, "changes": {"beta": 1.0}})
    assert same_again(run, changed) == ""
    whole, as_whole = (replace(each, result={"model_sha256": "ab" * 32}) for each in (run, again))
    assert "bit for bit" in same_again(whole, as_whole), "a run of all weights"
    assert makes_models(run)
    assert not makes_models(replace(run, result={}))
