"""The memory of a run: the count of weights is exact, NF4's size is bitsandbytes' own, the sum is held against whole runs."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import BadInput
from training.config import DpoConfig, KtoConfig, OrpoConfig, RewardConfig, RlooConfig, SftConfig, TrainConfig, method_named
from training.memory import Device, Shape, estimate, shape_of

LLAMA_2_7B = Shape(hidden=4096, layers=32, feed_forward=11008, vocabulary=32000, heads=32, kv_heads=32, head_dim=128, tied=False)
LLAMA_3_8B = Shape(hidden=4096, layers=32, feed_forward=14336, vocabulary=128256, heads=32, kv_heads=8, head_dim=128, tied=False)
SMOLLM_135M = Shape(hidden=576, layers=30, feed_forward=1536, vocabulary=49152, heads=9, kv_heads=3, head_dim=64, tied=True)


@pytest.mark.parametrize(
    ("shape", "published"), [(LLAMA_2_7B, 6_738_415_616), (LLAMA_3_8B, 8_030_261_248), (SMOLLM_135M, 134_515_008)]
)
def test_known_models_have_their_published_number_of_weights(shape: Shape, published: int) -> None:
    assert shape.parameters == published


def test_a_7b_model_in_nf4_fits_where_it_is_known_to_fit() -> None:
    config = SftConfig(batch_size=1, max_length=512, checkpointing=True, lora_rank=64, lora_alpha=16, tuning="qlora")
    found = estimate(LLAMA_2_7B, "sft", config)
    assert 3.6e9 < found.weights < 4.2e9
    assert 5e9 < found.total < 8e9
    assert found.sentence().startswith("About ")
    assert "GB" in found.sentence()


def test_every_knob_moves_the_estimate_the_right_way() -> None:
    base = DpoConfig(tuning="qlora")
    start = estimate(SMOLLM_135M, "dpo", base).total
    assert estimate(SMOLLM_135M, "dpo", replace(base, batch_size=16)).total > start
    assert estimate(SMOLLM_135M, "dpo", replace(base, lora_rank=64)).total > start
    assert estimate(SMOLLM_135M, "dpo", replace(base, tuning="lora")).total > start
    assert estimate(SMOLLM_135M, "dpo", replace(base, checkpointing=True)).total < start
    assert estimate(SMOLLM_135M, "dpo", base, tokens=100).total < start
    assert estimate(SMOLLM_135M, "sft", SftConfig(tuning="qlora")).total < start


SIZES = ("num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")


def test_a_folder_that_is_no_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="of a decoder"):
        shape_of(str(tmp_path))
    for odd in ({"model_type": "t5"}, [], {"text_config": "small"}, {"hidden_size": 64, **dict.fromkeys(SIZES, 0)}):
        (tmp_path / "config.json").write_text(json.dumps(odd))
        with pytest.raises(BadInput, match="of a decoder"):
            shape_of(str(tmp_path))


@pytest.mark.model
def test_a_real_folder_is_counted_to_the_last_weight_and_nf4_weighs_what_is_said(tmp_path: Path) -> None:
    import torch

    from data.engine import ModelSpec
    from tests import tiny_model
    from training.models import load_base

    folder = str(tiny_model.save_model(tmp_path / "m", hidden_size=256, intermediate_size=512))
    shape = shape_of(folder)
    plain = load_base(ModelSpec("local", base=folder))
    assert shape.parameters == sum(p.numel() for p in plain.parameters())
    quantized = load_base(ModelSpec("local", base=folder, quantize=True), for_training=True, dtype=torch.bfloat16)
    held = sum(p.numel() * p.element_size() for p in quantized.parameters())
    assert estimate(shape, "sft", SftConfig(tuning="qlora")).weights == pytest.approx(held, rel=0.1)


def test_a_reference_beside_all_weights_is_counted_where_one_is_asked_for() -> None:
    config = RlooConfig(tuning="full", checkpointing=True, beta=0.0)
    alone = estimate(SMOLLM_135M, "rloo", config).total
    assert estimate(SMOLLM_135M, "rloo", replace(config, beta=0.1)).total - alone == 4 * SMOLLM_135M.parameters
    adapter = replace(config, tuning="lora")
    assert estimate(SMOLLM_135M, "rloo", adapter) == estimate(SMOLLM_135M, "rloo", replace(adapter, beta=0.1))


def test_all_weights_want_18_bytes_each_beside_their_activations() -> None:
    full = estimate(LLAMA_2_7B, "dpo", DpoConfig(tuning="full", checkpointing=True))
    assert full.weights + full.trained == 18 * LLAMA_2_7B.parameters
    assert 115e9 < full.weights + full.trained < 125e9, "a 7B model in mixed precision, as is known"


# --- what TRL's trainers take ---

CPU = Device(gpu=False, bf16=True, part=640)


def test_trls_logits_are_most_of_its_memory_on_a_cpu_and_little_on_a_gpu() -> None:
    by_trl = DpoConfig(backend="trl", batch_size=8)
    there, here = (estimate(SMOLLM_135M, "dpo", by_trl, 512, device=device).activations for device in (Device(), CPU))
    tile = 4096 * 32768
    assert 29 * tile < here < 29 * tile + 2 * there, "fp32 copies of 4,096 tokens by 32,768 words, whatever the batch"
    assert there > 2 * tile
    ours = estimate(SMOLLM_135M, "dpo", replace(by_trl, backend="studio"), 512, device=CPU).activations
    assert ours < here / 5


def test_our_own_step_takes_a_batch_in_parts() -> None:
    config = SftConfig(batch_size=2)
    few, many = (estimate(SMOLLM_135M, "sft", replace(config, batch_size=n), 320, device=CPU) for n in (2, 64))
    assert few == many
    one = estimate(SMOLLM_135M, "sft", config, 1000, device=CPU)
    assert one.activations > few.activations, "a row that is longer is taken whole"


def test_packed_rows_are_as_long_as_is_allowed() -> None:
    packed, plain = (SftConfig(packing=packing, backend="trl", max_length=512) for packing in (True, False))
    assert estimate(SMOLLM_135M, "sft", packed, 40) == estimate(SMOLLM_135M, "sft", plain, 512)
    assert estimate(SMOLLM_135M, "sft", packed, 40).total > estimate(SMOLLM_135M, "sft", plain, 40).total


@pytest.mark.parametrize("config", [DpoConfig(tuning="full", backend="trl"), KtoConfig(tuning="full", backend="trl")])
def test_trl_compares_all_weights_with_a_copy_of_them(config: TrainConfig) -> None:
    method = method_named("dpo" if isinstance(config, DpoConfig) else "kto")
    ours = estimate(SMOLLM_135M, method, replace(config, backend="studio")).weights  # type: ignore[call-arg]
    assert estimate(SMOLLM_135M, method, config).weights - ours == 4 * SMOLLM_135M.parameters


def test_fp32_arithmetic_wants_twice_the_weights_and_no_copies() -> None:
    lora, full = SftConfig(tuning="lora"), SftConfig(tuning="full")
    fp32 = Device(bf16=False)
    assert estimate(SMOLLM_135M, "sft", lora, device=fp32).weights == 2 * estimate(SMOLLM_135M, "sft", lora).weights
    assert estimate(SMOLLM_135M, "sft", full, device=fp32).weights == 0, "all weights are trained in fp32 already"


# --- what runs really hold ---

LOWEST, HIGHEST = 0.95, 1.6  # of what a run held at its peak; too much is said where pairs share a long prompt or answers are short
FEW: dict[str, Any] = {"max_steps": 2, "batch_size": 4, "lora_rank": 8, "tuning": "lora", "precision": "bf16"}
TRL: dict[str, Any] = FEW | {"backend": "trl"}
MEASURED: Mapping[str, TrainConfig] = {
    "sft": SftConfig(**FEW),
    "sft by trl": SftConfig(**TRL),
    "dpo": DpoConfig(**FEW),
    "dpo by trl": DpoConfig(**TRL),
    "dpo by trl, all weights": DpoConfig(**TRL | {"tuning": "full"}),
    "dpo by trl, fp32": DpoConfig(**TRL | {"precision": "fp32"}),
    "kto": KtoConfig(**FEW),
    "kto by trl": KtoConfig(**TRL),
    "orpo": OrpoConfig(**FEW),
    "reward": RewardConfig(**FEW),
}


def _larger(folder: Path) -> Path:
    """40 million weights and 32,000 words behind the demo model's tokenizer; it babbles."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_model import DEMO_MODEL

    shutil.copytree(DEMO_MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    ids = {name: value for name, value in json.loads((folder / "config.json").read_text()).items() if name.endswith("_token_id")}
    shape = LlamaConfig(
        vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, **ids,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    return folder


def _wordy(method: str) -> list[dict[str, Any]]:
    from tests.training_runs import assistant, dpo_rows, user

    rows = []
    for i, row in enumerate(dpo_rows(8)):
        chosen, rejected = assistant("one two " * (8 + i % 7)), assistant("no " * 16)
        told = {"prompt_id": row["prompt_id"], "split": "train", "prompt": user(f"Say {i} " + "one two three " * 9)}
        own = {"completion": chosen if i % 2 else rejected, "label": bool(i % 2)}
        rows.append(told | (own if method in ("sft", "kto") else {"chosen": chosen, "rejected": rejected}))
    return rows


@pytest.mark.model
@pytest.mark.slow(reason="whole runs whose tensors are all counted, half of them of 40 million weights")
@pytest.mark.parametrize("larger", [False, True], ids=["demo", "40M"])
@pytest.mark.parametrize("case", MEASURED)
def test_what_is_calculated_is_what_a_run_holds(tmp_path: Path, case: str, larger: bool) -> None:
    from tests.measures import Bytes
    from tests.tiny_model import DEMO_MODEL
    from tests.training_runs import make_run
    from training.models import load_tokenizer
    from training.rows import Dropped, usable

    config, method = MEASURED[case], method_named(case.partition(" ")[0])
    base, rows = _larger(tmp_path / "base") if larger else DEMO_MODEL, _wordy(method)
    usable(rows, method, load_tokenizer(str(base)), config.max_length, dropped := Dropped())
    device = replace(CPU, bf16=config.precision == "bf16")
    found = estimate(shape_of(str(base)), method, config, max(dropped.lengths), device=device)
    with Bytes() as held:
        importlib.import_module(f"training.{method}").main(make_run(tmp_path / "run", base, config, rows))
    print(f"{case}, {base.name}: {found.total / held.most:.2f} of {held.most:,} bytes")
    assert LOWEST <= found.total / held.most <= HIGHEST
