"""Out of memory in a real process under the system's limit: the run goes on with smaller batches once; then it fails in words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import Trainer

from data import resume
from data.errors import RunError
from tests import tiny_model
from tests.training_runs import adapter_weights, dpo_rows, events, kto_rows, make_run, prompt_rows, sft_rows, start
from training import adapters, dpo, grpo, kto, orpo, reward, rloo, sft, simpo
from training.config import (
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    OrpoConfig,
    RewardConfig,
    RlooConfig,
    SftConfig,
    SimpoConfig,
    TrainConfig,
)
from training.out_of_memory import split_of
from training.preference_trainer import PreferenceTrainer

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux refuses memory to one process that asks for too much"),
]

FEW = {
    "max_steps": 4, "batch_size": 8, "lora_rank": 4, "max_length": 128,
    "learning_rate": 0.01, "tuning": "lora", "precision": "fp32", "sample_prompts": 0,
}  # fmt: skip
CASES: dict[str, tuple[Any, TrainConfig, list[dict[str, Any]]]] = {
    "sft": (sft, SftConfig(**FEW, backend="trl"), sft_rows(24)),
    "dpo": (dpo, DpoConfig(**FEW), dpo_rows(24)),
    "kto": (kto, KtoConfig(**FEW), kto_rows(12, 12)),
    "orpo": (orpo, OrpoConfig(**FEW), dpo_rows(24)),
    "simpo": (simpo, SimpoConfig(**FEW), dpo_rows(24)),
    "reward": (reward, RewardConfig(**FEW), dpo_rows(24)),
    "rloo": (rloo, RlooConfig(**FEW, num_generations=2, max_completion_length=16), prompt_rows(8)),
    "grpo": (grpo, GrpoConfig(**FEW, num_generations=4, max_completion_length=16), prompt_rows(8)),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


SLOW = pytest.mark.slow(reason="a process of its own, and another way to the same place")


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) for name in ("sft", "dpo", "kto", "simpo", "reward")])
def test_a_run_goes_on_with_smaller_batches_and_the_same_steps(tmp_path: Path, base: Path, name: str) -> None:
    """Memory runs short in the third step, so the two before it are kept; what comes out is what room enough would have given."""
    method, config, rows = CASES[name]
    short, ample = (make_run(tmp_path / "runs" / which, base, config, rows) for which in ("short", "ample"))
    fits = 12 if name == "reward" else 6  # answers: there a pair is two rows of the batch
    assert start(name, short, ROWS=fits, FROM=3).wait() == 0, short.log_tail()
    said = [event["text"] for event in events(short, "log")]
    assert "Memory ran out with batches of 8; going on with 4 and twice the accumulation, so as many rows a step as before." in said
    assert "Resumed from step 2." in said
    (result,) = events(short, "result")
    assert (result["memory_ran_out"], result["batch_size"], result["accumulation"], result["steps"]) == (True, 4, 2, 4)
    assert [event["status"] for event in events(short, "status")] == ["running", "finished"]
    method.main(ample)
    mine, whole = adapter_weights(short), adapter_weights(ample)
    for key in whole:
        torch.testing.assert_close(mine[key], whole[key], rtol=1e-3, atol=1e-4)


@SLOW
def test_the_second_time_it_fails_in_words_and_keeps_its_checkpoint(tmp_path: Path, base: Path) -> None:
    run = make_run(tmp_path / "run", base, SftConfig(**FEW), sft_rows(24))
    assert start("sft", run, ROWS=3, FROM=2).wait() == 1
    (error,) = events(run, "error")
    assert error["message"] == (
        "Memory ran out with batches of 4 rows of up to 128 tokens; halve the batch size or turn checkpointing on and start again."
    )
    assert events(run, "status")[-1]["status"] == "failed"
    assert not (run.path / "adapter").exists()
    found = resume.newest(run.path)
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("name", ["dpo", *(pytest.param(name, marks=SLOW) for name in CASES if name != "dpo")])
def test_there_is_one_second_try(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method, config, rows = CASES[name]
    tries: list[int] = []

    def never(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        tries.append(1)
        return torch.empty(1 << 46)

    for kind in (Trainer, PreferenceTrainer):
        monkeypatch.setattr(kind, "training_step", never)
    run = make_run(tmp_path / "run", base, config, rows)
    with pytest.raises(RunError, match=r"^Memory ran out with batches of 4 rows of up to 128 tokens; halve the batch size"):
        method.main(run)
    assert len(tries) == 2
    assert resume.newest(run.path) is None, "there was no step to keep"


def test_weights_that_do_not_fit_are_not_tried_twice(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "load_base", lambda *_, **__: torch.empty(1 << 46))
    run = make_run(tmp_path / "run", base, SftConfig(**FEW), sft_rows(24))
    with pytest.raises(RunError, match="while the base model was loaded; choose a smaller base"):
        sft.main(run)
    assert not events(run, "log")


@pytest.mark.parametrize(("rows", "split"), [(8, 2), (6, 2), (9, 3), (5, 5), (2, 2), (1, 1)])
def test_a_batch_is_cut_into_equal_parts(rows: int, split: int) -> None:
    assert split_of(SftConfig(batch_size=rows)) == split


def test_kto_keeps_two_rows_together() -> None:
    assert (split_of(KtoConfig(batch_size=4)), split_of(KtoConfig(batch_size=2))) == (2, 1)
