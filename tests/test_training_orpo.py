"""ORPO and SimPO as a run: the odds of the chosen answers rise, no reference is computed, what cannot be trained is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from data.errors import RunError
from tests import tiny_model
from tests.training_runs import adapter_weights, dpo_rows, events, make_run, sft_rows
from training import orpo, preference_trainer, sft, simpo
from training.config import OrpoConfig, SftConfig, SimpoConfig, config_class

pytestmark = pytest.mark.model

FEW = {"max_steps": 3, "batch_size": 4, "lora_rank": 4, "max_length": 128}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


@pytest.mark.parametrize(("method", "beta"), [("orpo", 0.5), ("simpo", 2.0)])
def test_a_run_parts_the_answers(tmp_path: Path, base: Path, method: str, beta: float) -> None:
    config = config_class(method)(**{**FEW, "max_steps": 8}, tuning="lora", learning_rate=0.01, beta=beta)
    run = make_run(tmp_path / "runs" / "r", base, config, [*dpo_rows(), *dpo_rows(4, "held_out")])
    result = {"orpo": orpo, "simpo": simpo}[method].main(run)
    metrics = [event for event in events(run, "metrics") if "loss" in event]
    assert metrics[-1]["rewards/margins"] > metrics[0]["rewards/margins"] + 0.05
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert {"rewards/accuracies", "logps/chosen", "logps/rejected", "nll_loss", "grad_norm", "num_tokens"} <= set(metrics[0])
    assert ("log_odds_ratio" in metrics[0]) == (method == "orpo")
    assert result["first_loss"] == metrics[0]["loss"]
    assert result["metrics"]["eval_rewards/margins"] is not None
    assert all(w.abs().max() > 0 for name, w in adapter_weights(run).items() if "lora_B" in name)
    assert not (tmp_path / "cache").exists(), "there is no reference to remember"


def test_orpo_goes_on_from_a_parent_in_four_bits(tmp_path: Path, base: Path) -> None:
    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW, learning_rate=0.02), sft_rows())
    sft.main(parent)
    run = make_run(tmp_path / "orpo", base, OrpoConfig(**FEW, learning_rate=0.01), dpo_rows(), adapter=parent.path / "adapter")
    orpo.main(run)
    before, after = adapter_weights(parent), adapter_weights(run)
    assert before.keys() == after.keys()
    assert 1e-4 < max(float((after[name] - before[name]).abs().max()) for name in before) < 0.1


def test_what_our_step_cannot_train_is_refused(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference_trainer, "trusted_layout", lambda *args: None)
    with pytest.raises(RunError, match="choose DPO instead"):
        orpo.main(make_run(tmp_path / "a", base, OrpoConfig(**FEW, tuning="lora"), dpo_rows()))
    with pytest.raises(RunError, match="choose DPO instead"):
        simpo.main(make_run(tmp_path / "b", base, SimpoConfig(**FEW, tuning="lora"), dpo_rows()))
