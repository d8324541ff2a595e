"""The memory a run will want: the count of weights is exact, NF4's size is bitsandbytes' own, the rest moves the right way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import BadInput
from training.config import DpoConfig, RlooConfig, SftConfig
from training.memory import Shape, estimate, shape_of

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
