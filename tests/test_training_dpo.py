"""DPO as a run: it starts at ln 2 over a base and over a parent adapter, moves the parameters, and refuses a wrong reference."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from data.errors import EngineError, RunError
from data.rundir import Loading, Stopped
from tests import tiny_model
from tests.training_runs import adapter_weights, dpo_rows, events, make_run, sft_rows
from training import dpo, kto, preference_memory, sft
from training.config import DpoConfig, KtoConfig, SftConfig

pytestmark = pytest.mark.model

FEW = {"max_steps": 3, "batch_size": 4, "lora_rank": 4, "max_length": 128}
LN2 = math.log(2)
SIDES = ("chosen", "rejected")
TRLS_KEYS = {f"{what}/{side}" for what in ("rewards", "logps", "logits") for side in SIDES} | {
    "rewards/accuracies", "rewards/margins", "entropy", "mean_token_accuracy", "num_tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


@pytest.mark.parametrize("backend", ["studio", "trl"])
@pytest.mark.parametrize("tuning", ["qlora", "lora"])
def test_a_run_starts_at_ln_2_and_widens_the_margin(tmp_path: Path, base: Path, tuning: str, backend: str) -> None:
    config = DpoConfig(**{**FEW, "max_steps": 6}, tuning=tuning, learning_rate=0.01, precision="fp32", backend=backend)
    run = make_run(tmp_path / "run", base, config, [*dpo_rows(), *dpo_rows(4, "held_out")])
    result = dpo.main(run)
    assert result["first_loss"] == pytest.approx(LN2, abs=1e-4)
    metrics = [event for event in events(run, "metrics") if "loss" in event]
    assert metrics[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert metrics[-1]["rewards/margins"] > 0.01
    assert TRLS_KEYS | {"learning_rate", "epoch", "tokens_per_second", "grad_norm"} <= set(metrics[0])
    assert result["metrics"]["eval_rewards/margins"] > 0.01
    if backend == "studio":
        assert metrics[0]["logps/drift"] == pytest.approx(0, abs=1e-3), "the reference is the model before the run"
        told = result["metrics"]
        for prefix in ("", "eval_"):
            mean = (told[f"{prefix}rewards/chosen"] + told[f"{prefix}rewards/rejected"]) / 2
            assert told[f"{prefix}logps/drift"] == pytest.approx(mean / config.beta, abs=1e-3)
            assert abs(told[f"{prefix}logps/drift"]) > 0.01
    assert all(w.abs().max() > 0 for name, w in adapter_weights(run).items() if "lora_B" in name)


@pytest.mark.parametrize(("backend", "words"), [("studio", "computed once for both answers"), ("trl", "Trained by TRL.")])
def test_the_log_says_what_computes_the_steps(tmp_path: Path, base: Path, backend: str, words: str) -> None:
    run = make_run(tmp_path / "run", base, DpoConfig(**{**FEW, "max_steps": 1}, backend=backend), dpo_rows())
    dpo.main(run)
    assert any(words in event["text"] for event in events(run, "log"))


def test_a_second_run_over_the_same_labels_computes_no_reference(tmp_path: Path, base: Path) -> None:
    """Other beta, five labels more: only the new pairs are computed."""
    first = make_run(tmp_path / "runs" / "a", base, DpoConfig(**FEW), dpo_rows(8))
    second = make_run(tmp_path / "runs" / "b", base, DpoConfig(**FEW, beta=0.3), dpo_rows(13))
    assert dpo.main(first)["first_loss"] == pytest.approx(LN2, abs=1e-3)
    assert dpo.main(second)["first_loss"] == pytest.approx(LN2, abs=1e-3)
    assert not any("Reference" in event["text"] for event in events(first, "log"))
    assert "Reference: 16 answers known from earlier runs, 10 computed." in [event["text"] for event in events(second, "log")]
    assert (tmp_path / "cache" / "reference").is_dir()


def test_a_run_short_of_memory_recomputes_its_activations_and_says_so(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DpoConfig(**FEW, tuning="lora", learning_rate=0.01)
    plain, short = (make_run(tmp_path / "runs" / name, base, config, dpo_rows(8)) for name in ("plain", "short"))
    dpo.main(plain)
    monkeypatch.setattr(preference_memory, "free_bytes", lambda device: 1000)
    dpo.main(short)
    assert [any("Memory is short" in event["text"] for event in events(run, "log")) for run in (plain, short)] == [False, True]
    first, second = map(adapter_weights, (plain, short))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=1e-4, rtol=1e-3)


def test_a_run_done_again_gives_the_same_adapter(tmp_path: Path, base: Path) -> None:
    """The first computes its reference, the second reads it."""
    config = DpoConfig(**{**FEW, "max_steps": 4}, tuning="lora", learning_rate=0.01)
    runs = [make_run(tmp_path / "runs" / name, base, config, dpo_rows(10)) for name in "ab"]
    for run in runs:
        dpo.main(run)
    first, second = map(adapter_weights, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any("20 answers known" in event["text"] for event in events(runs[1], "log"))


@pytest.mark.parametrize("method", [dpo, kto])
def test_a_stop_while_the_reference_is_computed_ends_the_run(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    config = DpoConfig(**FEW, tuning="lora") if method is dpo else KtoConfig(**FEW, tuning="lora")
    run = make_run(tmp_path / "run", base, config, dpo_rows())
    said = Loading.__call__

    def stop_there(self: Loading, what: str, done: int = 0, total: int = 0) -> None:
        if what == "computing the reference":
            self.run.request_stop()
        said(self, what, done, total)

    monkeypatch.setattr(Loading, "__call__", stop_there)
    with pytest.raises(Stopped, match="no adapter was made"):
        method.main(run)
    assert not (run.path / "adapter").exists()


def test_the_sft_part_can_be_left_out(tmp_path: Path, base: Path) -> None:
    run = make_run(tmp_path / "run", base, DpoConfig(**FEW, sft_weight=0.0), dpo_rows())
    dpo.main(run)
    assert events(run, "metrics")[0]["loss"] == pytest.approx(LN2, abs=1e-3)


@pytest.mark.parametrize("loss", ["robust", "exo_pair", "discopop"])
def test_other_losses_train_too(tmp_path: Path, base: Path, loss: str) -> None:
    config = DpoConfig(**{**FEW, "max_steps": 2}, tuning="lora", loss=loss, label_smoothing=0.0 if loss == "discopop" else 0.1)
    result = dpo.main(make_run(tmp_path / "run", base, config, dpo_rows()))
    assert result["first_loss"] == pytest.approx(LN2, abs=1e-4)


@pytest.mark.parametrize("tuning", ["qlora", "lora"])
def test_dpo_over_an_sft_adapter_goes_on_from_it(tmp_path: Path, base: Path, tuning: str) -> None:
    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW, tuning=tuning, learning_rate=0.02), sft_rows())
    sft.main(parent)
    config = DpoConfig(**FEW, tuning=tuning, learning_rate=0.01)
    run = make_run(tmp_path / "dpo", base, config, dpo_rows(), adapter=parent.path / "adapter")
    assert dpo.main(run)["first_loss"] == pytest.approx(LN2, abs=1e-4)
    before, after = adapter_weights(parent), adapter_weights(run)
    assert before.keys() == after.keys(), "TRL's frozen reference copy stays out of the folder"
    moved = [(after[name] - before[name]).abs().max() for name in before]
    assert max(moved) > 1e-4
    assert max(moved) < 0.1, "it started from the parent"
    assert not (run.path / "adapter" / "ref").exists()


def test_a_wrong_reference_is_refused(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = dpo.make_trainer

    def spoiled(*args: object) -> object:
        trainer = real(*args)  # type: ignore[arg-type]
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter.data)
        return trainer

    monkeypatch.setattr(dpo, "make_trainer", spoiled)
    with pytest.raises(RunError, match=r"instead of ln 2 = 0\.693"):
        dpo.main(make_run(tmp_path / "run", base, DpoConfig(**FEW), dpo_rows()))


def test_a_parent_of_another_base_is_refused(tmp_path: Path, base: Path) -> None:
    other = tiny_model.save_model(tmp_path / "other", hidden_size=32)
    adapter = tiny_model.save_adapter(tmp_path / "adapter", other)
    with pytest.raises(EngineError, match="another base"):
        dpo.main(make_run(tmp_path / "run", base, DpoConfig(**FEW), dpo_rows(), adapter=adapter))


def test_a_loss_that_explodes_ends_in_words(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = dpo.make_trainer

    def spoiled(*args: object) -> object:
        trainer = real(*args)  # type: ignore[arg-type]
        step = trainer.training_step
        trainer.training_step = lambda *a, **k: step(*a, **k) * math.nan
        return trainer

    monkeypatch.setattr(dpo, "make_trainer", spoiled)
    run = make_run(tmp_path / "run", base, DpoConfig(**FEW), dpo_rows())
    with pytest.raises(RunError, match="no longer a number at step 1; lower the learning rate"):
        dpo.main(run)
    assert not (run.path / "adapter").exists()


def test_the_demo_model_starts_at_ln_2_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, DpoConfig(max_steps=3), dpo_rows(24))
    result = dpo.main(run)
    assert result["first_loss"] == pytest.approx(LN2, abs=1e-3)
    assert all(w.abs().max() > 0 for name, w in adapter_weights(run).items() if "lora_B" in name)
    config = json.loads((run.path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "data/demo/model"
