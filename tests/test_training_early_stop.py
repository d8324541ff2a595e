"""Early stopping on the held-out rows: when a run ends, which adapter it keeps, and what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import TrainerControl, TrainerState

from data.rundir import RunDir
from tests import tiny_model
from tests.training_runs import adapter_weights, assistant, dpo_rows, events, make_run, sft_rows
from training import dpo, sft
from training.config import DpoConfig, SftConfig
from training.early_stop import EarlyStop

pytestmark = pytest.mark.model

FEW = {
    "batch_size": 4, "lora_rank": 4, "max_length": 128, "tuning": "lora", "sample_prompts": 0,
    "schedule": "constant_with_warmup", "warmup_share": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


def other_answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Held-out rows that ask for what the training rows unteach."""
    return [{**row, "completion": assistant("no no no")} for row in rows]


def held_out_losses(run: RunDir) -> dict[int, float]:
    return {event["step"]: event["eval_loss"] for event in events(run, "metrics") if "eval_loss" in event}


def test_a_run_ends_when_the_held_out_loss_no_longer_falls_and_keeps_its_best(tmp_path: Path, base: Path) -> None:
    """The adapter is that of a run which ended at the best step."""
    rows = [*sft_rows(8), *other_answers(sft_rows(4, "held_out"))]
    config = SftConfig(**FEW, epochs=40.0, learning_rate=0.02, early_stop=2, eval_every=3)
    run = make_run(tmp_path / "run", base, config, rows)
    result = sft.main(run)
    losses = held_out_losses(run)
    best = min(losses, key=lambda step: losses[step])
    assert result["stopped_early"] is True
    assert (result["best_step"], result["steps"]) == (best, best + 2 * 3)
    assert result["steps"] < 80
    assert result["metrics"]["eval_loss"] == losses[best]
    said = [event["text"] for event in events(run, "log")]
    assert f"Stopped early at step {best + 6}: the held-out loss has not fallen since step {best}." in said
    assert any(text.startswith(f"The held-out loss was lowest at step {best} ") for text in said)
    assert not (run.path / "checkpoints").exists()
    short = make_run(tmp_path / "short", base, SftConfig(**FEW, max_steps=best, learning_rate=0.02, eval_every=3), rows)
    sft.main(short)
    mine, its = adapter_weights(run), adapter_weights(short)
    assert all(torch.equal(mine[name], its[name]) for name in its)


def test_a_run_that_gets_better_all_the_way_keeps_its_last_adapter(tmp_path: Path, base: Path) -> None:
    """Evaluated once an epoch, and for a preference method by its held-out loss too."""
    rows = [*dpo_rows(8), *dpo_rows(4, "held_out")]
    run = make_run(tmp_path / "run", base, DpoConfig(**FEW, epochs=3.0, learning_rate=0.003, early_stop=1), rows)
    result = dpo.main(run)
    losses = held_out_losses(run)
    assert list(losses) == [2, 4, 6]
    assert losses[2] > losses[4] > losses[6]
    assert (result["stopped_early"], result["best_step"], result["steps"]) == (False, 6, 6)


def test_what_a_model_samples_is_judged_by_its_reward(tmp_path: Path) -> None:
    """The loss of its own answers is 0 whatever they are worth; the evaluation before the first step is of nothing learned."""
    run = RunDir.create(tmp_path / "run", {})
    told: Any = SimpleNamespace(held_out={})
    stop, control = EarlyStop(run, 2, told), TrainerControl()
    for step, reward in enumerate((0.9, 0.2, 0.5, 0.4, 0.5)):
        told.held_out = {"eval_loss": 0.0, "eval_reward": reward}
        stop.on_evaluate(None, TrainerState(global_step=step), control, {"eval_loss": 0.0})  # type: ignore[arg-type]
    assert (stop.best_step, stop.over, control.should_training_stop) == (2, True, True)
    assert stop.best_in_words == "held-out reward was highest at step 2 (0.5)"
    (said,) = events(run, "log")
    assert said["text"] == "Stopped early at step 4: the held-out reward has not risen since step 2."


def test_without_held_out_rows_it_is_off_and_says_so(tmp_path: Path, base: Path) -> None:
    run = make_run(tmp_path / "run", base, SftConfig(**FEW, max_steps=2, early_stop=1), sft_rows(8))
    result = sft.main(run)
    assert result["stopped_early"] is False
    assert "There are no held-out rows, so this run cannot be stopped early." in [event["text"] for event in events(run, "log")]
