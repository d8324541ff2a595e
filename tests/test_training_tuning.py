"""What is trained: an adapter in 4 bits, an adapter, or all weights. Full tuning moves the base, starts DPO at ln 2 without a
second copy in memory, and leaves a model that transformers loads, that can be trained again and still counts as the demo model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file

from data.engine import GenRequest, Message, ModelSpec
from evals.judge_templates import is_demo_model
from tests import tiny_model
from tests.training_runs import adapter_weights, dpo_rows, events, kto_rows, make_run, prompt_rows, sft_rows
from training import dpo, grpo, kto, orpo, rloo, sft
from training.config import DpoConfig, GrpoConfig, KtoConfig, OrpoConfig, RlooConfig, SftConfig, from_json, read_args
from training.engines import open_engine
from training.local_engine import LocalEngine

pytestmark = pytest.mark.model

FULL: dict[str, Any] = {"max_steps": 3, "batch_size": 4, "max_length": 128, "tuning": "full", "learning_rate": 2e-3}
LN2 = math.log(2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, all its weights tuned to one answer."""
    config = SftConfig(**{**FULL, "max_steps": 8, "batch_size": 8, "learning_rate": 1e-3})
    run = make_run(tmp_path_factory.mktemp("demo") / "run", tiny_model.DEMO_MODEL, config, sft_rows(24))
    assert sft.main(run)["model"] == "model"
    return run.path / "model"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def test_runs_from_before_the_field_are_still_read() -> None:
    assert from_json("dpo", {"quantize": True}) == DpoConfig(tuning="qlora")
    assert from_json("sft", {"quantize": False, "epochs": 2.0}) == SftConfig(tuning="lora", epochs=2.0)
    spec = ModelSpec("local", "some/base").to_json()
    assert read_args("kto", {"model": spec, "train": {"quantize": False}})[1].tuning == "lora"


def test_every_weight_moves_and_the_folder_is_a_plain_model(tuned: Path) -> None:
    before, after = weights(tiny_model.DEMO_MODEL), weights(tuned)
    assert before.keys() == after.keys(), "tied weights are saved once, as they came"
    assert all(after[name].dtype == before[name].dtype for name in before), "in the number format of the base"
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert not any(file.suffix in (".bin", ".pt") for file in tuned.iterdir())
    assert not (tuned.parent / "adapter").exists()
    said = (tuned / "README.md").read_text()
    assert 'base_model: "data/demo/model"' in said
    assert "| tuning | full |" in said
    assert str(tuned.parent) not in said


def test_it_generates_in_transformers_and_here_and_says_what_it_learned(tuned: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tuned), AutoModelForCausalLM.from_pretrained(tuned)
    assert model.config.use_cache, "as it came: sampling without a cache takes many times as long"
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say sun 0"}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    plain = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :], skip_special_tokens=True)
    engine = open_engine(ModelSpec("local", str(tuned)))
    request = GenRequest((Message("user", "Say sun 0"),), max_new_tokens=8, temperature=0)
    assert next(iter(engine.generate([request]))).text.strip() == plain.strip()
    assert "!" in plain, "the answers end so"


def test_it_counts_as_the_demo_model_and_an_unrelated_folder_does_not(tuned: Path, base: Path) -> None:
    assert is_demo_model(ModelSpec("local", str(tuned)))
    assert not is_demo_model(ModelSpec("local", str(base)))
    (base / "studio.json").write_text("[]")
    assert not is_demo_model(ModelSpec("local", str(base)))
    (base / "studio.json").unlink()


@pytest.mark.parametrize("backend", ["studio", "trl"])
def test_full_dpo_starts_at_ln_2_and_parts_the_answers(tmp_path: Path, base: Path, backend: str) -> None:
    config = DpoConfig(**{**FULL, "max_steps": 6}, backend=backend, precision="fp32")
    run = make_run(tmp_path / "runs" / "r", base, config, [*dpo_rows(), *dpo_rows(4, "held_out")])
    result = dpo.main(run)
    assert result["first_loss"] == pytest.approx(LN2, abs=1e-4)
    assert result["metrics"]["rewards/margins"] > 0.1
    assert result["metrics"]["eval_rewards/margins"] > 0.1
    assert (tmp_path / "cache" / "reference").is_dir() == (backend == "studio")


def test_trls_first_step_of_full_tuning_is_ours(tmp_path: Path, base: Path) -> None:
    """One batch, no warm-up: the same loss, the same gradient, so the same weights after it."""
    one: dict[str, Any] = {**FULL, "max_steps": 1, "batch_size": 4, "warmup_share": 0.0, "precision": "fp32", "schedule": "linear"}
    after = []
    for backend in ("studio", "trl"):
        run = make_run(tmp_path / backend / "r", base, DpoConfig(**one, beta=0.3, backend=backend), dpo_rows(4))
        dpo.main(run)
        after.append(weights(run.path / "model"))
    before = weights(base)
    assert max(float((after[0][name] - before[name]).abs().max()) for name in before) > 1e-3
    for name in before:  # Adam's first step is lr * sign(g): where g is all but 0 its sign may differ
        assert float(((after[0][name] - after[1][name]).abs() > 1e-4).float().mean()) < 0.01, name


@pytest.mark.parametrize("backend", ["studio", "trl"])
def test_full_kto_parts_the_rewards(tmp_path: Path, base: Path, backend: str) -> None:
    run = make_run(tmp_path / "runs" / "r", base, KtoConfig(**{**FULL, "max_steps": 5}, backend=backend), kto_rows())
    assert kto.main(run)["metrics"]["rewards/margins"] > 0.05


def test_full_tuning_goes_on_from_an_adapter_and_an_adapter_from_it(tmp_path: Path, base: Path) -> None:
    """Base -> SFT adapter -> DPO of all weights (the adapter merged in, and its reference) -> ORPO adapter over that."""
    lora = {"max_steps": 3, "batch_size": 4, "lora_rank": 4, "max_length": 128, "tuning": "lora", "learning_rate": 0.02}
    first = make_run(tmp_path / "sft", base, SftConfig(**lora), sft_rows())
    sft.main(first)
    second = make_run(
        tmp_path / "dpo", base, DpoConfig(**{**FULL, "max_steps": 1, "learning_rate": 1e-7}), dpo_rows(), first.path / "adapter"
    )
    assert dpo.main(second)["first_loss"] == pytest.approx(LN2, abs=1e-3)
    ask = [GenRequest((Message("user", f"Say {word}"),), max_new_tokens=6, temperature=0) for word in ("sun", "rain", "fog")]
    parent = LocalEngine(ModelSpec("local", str(base), str(first.path / "adapter"))).generate(ask)
    merged = LocalEngine(ModelSpec("local", str(second.path / "model"))).generate(ask)
    assert [r.text for r in merged] == [r.text for r in parent], "hardly a step away from what it began with"
    third = make_run(tmp_path / "orpo", second.path / "model", OrpoConfig(**lora), dpo_rows())
    orpo.main(third)
    assert all(w.abs().max() > 0 for name, w in adapter_weights(third).items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("module", "kind", "over_adapter"),
    [(rloo, RlooConfig, True), pytest.param(grpo, GrpoConfig, False, marks=pytest.mark.slow(reason="as RLOO, but for the loss"))],
    ids=["rloo over an adapter", "grpo"],
)
def test_all_weights_learn_from_rewards_and_are_held_against_their_start(
    tmp_path: Path, module: Any, kind: Any, over_adapter: bool
) -> None:
    """The reference is the base with its parent in it, and stays where it was; what is left is a model that answers."""
    parent = ""
    if over_adapter:
        lora = SftConfig(max_steps=3, batch_size=8, lora_rank=4, tuning="lora", learning_rate=0.01)
        before = make_run(tmp_path / "sft", tiny_model.DEMO_MODEL, lora, sft_rows())
        sft.main(before)
        parent = str(before.path / "adapter")
    config = kind(
        max_steps=2, batch_size=8, num_generations=4, max_completion_length=12, tuning="full", learning_rate=1e-3, warmup_share=0.0,
        beta=0.1,
    )  # fmt: skip
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, prompt_rows(4), parent)
    assert module.main(run)["model"] == "model"
    steps = [event for event in events(run, "metrics") if "loss" in event]
    assert steps[0]["kl"] == 0, "the reference is what training begins with"
    assert abs(steps[1]["kl"]) > 1e-4, "and does not move with it"
    old, new = weights(tiny_model.DEMO_MODEL), weights(run.path / "model")
    assert old.keys() == new.keys()
    assert all(new[name].dtype == old[name].dtype for name in old)
    assert all(not torch.equal(old[name], new[name]) for name in old if old[name].dim() > 1), "of a norm two steps may round away"
    assert not (run.path / "adapter").exists()
    reply = next(
        iter(LocalEngine(ModelSpec("local", str(run.path / "model"))).generate([GenRequest((Message("user", "Say sun"),), 8)]))
    )
    assert reply.text
    assert "AutoModelForCausalLM" in (run.path / "model" / "README.md").read_text()


def test_a_small_rate_is_not_rounded_away(tmp_path: Path) -> None:
    """A rate of 1e-6 moves no bf16 weight; held in fp32 while training, the loss falls step by step."""
    config = SftConfig(**{**FULL, "learning_rate": 2e-5, "max_steps": 6, "batch_size": 12, "schedule": "constant_with_warmup"})
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, sft_rows())
    sft.main(run)
    losses = [event["loss"] for event in events(run, "metrics") if "loss" in event]
    assert losses == sorted(losses, reverse=True)
    assert json.loads((run.path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
