"""KTO as a run: every batch it trains on holds good and bad answers, the weights follow the balance, the rewards part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from data.errors import RunError
from tests import tiny_model
from tests.training_runs import adapter_weights, dpo_rows, events, kto_rows, make_run, sft_rows
from training import kto, sft
from training.config import KtoConfig, SftConfig

pytestmark = pytest.mark.model

FEW = {"max_steps": 3, "batch_size": 4, "lora_rank": 4, "max_length": 128}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


def watch_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[bool]]:
    """The labels of every batch the trainer really computes a loss on."""
    seen: list[list[bool]] = []
    real = kto.make_trainer

    def watched(*args: Any) -> Any:
        trainer = real(*args)
        step = trainer.training_step

        def training_step(model: Any, inputs: Any, *rest: Any) -> Any:
            seen.append(inputs["label"].tolist() if isinstance(inputs, dict) else [item.desirable for item in inputs])
            return step(model, inputs, *rest)

        trainer.training_step = training_step
        return trainer

    monkeypatch.setattr(kto, "make_trainer", watched)
    return seen


@pytest.mark.parametrize(
    "rows", [kto_rows(12, 12), dpo_rows(12), kto_rows(20, 6), kto_rows(9, 4)], ids=["single", "pairs", "uneven", "odd"]
)
def test_every_batch_holds_good_and_bad_answers(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_batches(monkeypatch)
    result = kto.main(
        make_run(tmp_path / "run", base, KtoConfig(epochs=2, batch_size=4, lora_rank=4, max_length=128, tuning="lora"), rows)
    )
    labels = 24 if "chosen" in rows[0] else len(rows)
    assert len(seen) == result["steps"] == 2 * -(-labels // 4)
    assert all(len(batch) == 4 and len(set(batch)) == 2 for batch in seen)


@pytest.mark.parametrize(("tuning", "backend"), [("qlora", "studio"), ("lora", "studio"), ("qlora", "trl")])
def test_a_run_parts_the_rewards(tmp_path: Path, base: Path, tuning: str, backend: str) -> None:
    config = KtoConfig(**{**FEW, "max_steps": 6}, tuning=tuning, learning_rate=0.01, backend=backend)
    run = make_run(tmp_path / "run", base, config, [*kto_rows(), *kto_rows(3, 2, "held_out")])
    result = kto.main(run)
    metrics = [event for event in events(run, "metrics") if "loss" in event]
    assert metrics[0]["rewards/margins"] == pytest.approx(0, abs=1e-4), "the reference is the model before the run"
    assert metrics[-1]["rewards/margins"] > 0.01
    assert metrics[0]["loss"] == pytest.approx(0.5, abs=1e-3)
    assert {"kl", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "num_tokens"} <= set(metrics[0])
    assert result["metrics"]["eval_rewards/margins"] is not None
    assert all(w.abs().max() > 0 for name, w in adapter_weights(run).items() if "lora_B" in name)


def test_weights_of_the_rarer_side_reach_the_loss(tmp_path: Path, base: Path) -> None:
    run = make_run(tmp_path / "run", base, KtoConfig(**FEW, tuning="lora"), kto_rows(3, 9))
    kto.main(run)
    assert events(run, "metrics")[0]["loss"] == pytest.approx((3 * 0.5 + 1 * 3 * 0.5) / 4, abs=0.3)


def test_kto_goes_on_from_a_parent(tmp_path: Path, base: Path) -> None:
    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW, learning_rate=0.02), sft_rows())
    sft.main(parent)
    run = make_run(tmp_path / "kto", base, KtoConfig(**FEW), kto_rows(), adapter=parent.path / "adapter")
    kto.main(run)
    assert events(run, "metrics")[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)


def test_one_kind_of_label_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(RunError, match="needs good and bad answers"):
        kto.main(make_run(tmp_path / "run", base, KtoConfig(**FEW), kto_rows(8, 0)))


def test_the_demo_model_parts_good_from_bad(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, KtoConfig(max_steps=6), kto_rows(24, 24))
    kto.main(run)
    metrics = [event for event in events(run, "metrics") if "loss" in event]
    assert metrics[0]["loss"] == pytest.approx(0.5, abs=1e-2)
    assert metrics[-1]["rewards/margins"] > 0.05
