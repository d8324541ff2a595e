"""What a run has reported, for its charts: one curve, also of a run that went on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.rundir import RunDir
from studio.metrics import Metrics


def test_points_after_the_checkpoint_that_a_run_went_on_from_are_replaced(tmp_path: Path) -> None:
    run, metrics = RunDir.create(tmp_path / "r1", {}), Metrics(tmp_path)
    for step in (1, 2, 3, 4):
        run.event("metrics", step=step, loss=float(step))
    assert [event["loss"] for event in metrics.of("r1")] == [1, 2, 3, 4]
    run.event("metrics", step=2, resumed=True)
    run.event("metrics", step=3, loss=30.0)
    for reader in (metrics, Metrics(tmp_path)):
        assert [(event["step"], event.get("loss")) for event in reader.of("r1")] == [(1, 1), (2, 2), (2, None), (3, 30)]


def test_answers_after_the_checkpoint_are_replaced_too(tmp_path: Path) -> None:
    run, metrics = RunDir.create(tmp_path / "r1", {}), Metrics(tmp_path)
    for step in (0, 4):
        run.event("sample", step=step, prompt="p", text=f"after {step}", split="held_out")
    run.event("metrics", step=2, resumed=True)
    assert [event["text"] for event in metrics.samples("r1")] == ["after 0"]


def test_a_long_run_is_thinned_for_its_charts_but_not_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.metrics.KEPT_EVENTS", 40)
    run, metrics = RunDir.create(tmp_path / "r1", {}), Metrics(tmp_path)
    for step in range(60):
        run.event("metrics", step=step, loss=1.0)
        if step % 10 == 0:
            run.event("metrics", step=step, eval_loss=2.0)
    kept = metrics.of("r1")
    assert len(kept) < 40
    assert [event["step"] for event in kept if "eval_loss" in event] == [0, 10, 20, 30, 40, 50]
    assert len(metrics.whole("r1")) == 66
