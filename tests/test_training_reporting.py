"""Figures that also go to TensorBoard and its like: only where it is installed, only when asked, and nothing secret among them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from data.errors import BadInput
from data.rundir import RunDir
from studio import processes
from training import reporting
from training.config import REPORTERS, SftConfig

TENSORBOARD = any(find_spec(name) for name in ("tensorboard", "tensorboardX"))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`only("trackio")`: of all reporters just this one is installed."""

    def installed(*names: str) -> None:
        monkeypatch.setattr(reporting, "find_spec", lambda name: object() if name in names else None)

    return installed


def test_only_what_is_installed_is_offered(only: Any) -> None:
    only()
    assert reporting.installed() == ("none",)
    only("trackio", "tensorboardX")
    assert reporting.installed() == ("none", "tensorboard", "trackio")


@pytest.mark.parametrize("name", [name for name in REPORTERS if name != "none"])
def test_what_is_not_installed_is_refused_with_the_command(only: Any, name: str) -> None:
    only()
    with pytest.raises(BadInput, match=f"pip install {name}"):
        reporting.check(name)


def test_a_visitor_sends_nothing_anywhere(only: Any) -> None:
    only("wandb")
    reporting.check("wandb")
    reporting.check("none", visitor=True)
    with pytest.raises(BadInput, match="visitor"):
        reporting.check("wandb", visitor=True)


def test_by_default_nothing_is_reported(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "r", {})
    assert reporting.arguments(run, SftConfig().report_to)["report_to"] == "none"
    assert run.tail().events == []


def test_weights_and_biases_uploads_no_weights(tmp_path: Path, only: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    only("wandb")
    reporting.arguments(RunDir.create(tmp_path / "r", {}), "wandb")
    assert os.environ["WANDB_LOG_MODEL"] == os.environ["WANDB_WATCH"] == "false"


def test_a_reporters_account_reaches_its_own_runs_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    for train, reaches in (({"report_to": "wandb"}, True), ({"report_to": "none"}, False), ({}, False), (None, False), ([], False)):
        env = processes.environment({}, reporting.variables(train))
        assert ("WANDB_API_KEY" in env) is reaches


@pytest.mark.model
@pytest.mark.skipif(not TENSORBOARD, reason="neither tensorboard nor tensorboardX is installed here")
def test_a_run_writes_tensorboard_files_with_its_figures_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import tiny_model
    from tests.training_runs import events, make_run, sft_rows
    from training import sft

    monkeypatch.setenv("HF_TOKEN", "hf_SecretOfThisMachine")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # put back afterwards
    base = tiny_model.save_model(tmp_path / "tiny", hidden_size=64)
    config = SftConfig(max_steps=2, batch_size=4, lora_rank=4, tuning="lora", sample_prompts=0, report_to="tensorboard")
    run = make_run(tmp_path / "run", base, config, sft_rows())
    sft.main(run)
    files = list((run.path / "tensorboard").glob("events.out.tfevents.*"))
    assert files
    written = b"".join(file.read_bytes() for file in files)
    assert b"train/loss" in written
    assert b"hf_SecretOfThisMachine" not in written
    assert any(f"--logdir {run.path / 'tensorboard'}" in event["text"] for event in events(run, "log"))
