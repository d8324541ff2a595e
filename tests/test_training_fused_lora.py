"""Fused LoRA layers and the grouped attention give what peft's and the models' own give, and step aside where they cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from training import fused_lora
from training.fused_lora import fuse
from training.grouped_attention import GROUPED, take_up

pytestmark = pytest.mark.model

SIZES: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 99, "initializer_range": 0.2,
}  # fmt: skip
LAYERS = 7 * SIZES["num_hidden_layers"]
IDS = torch.randint(99, (2, 9), generator=torch.Generator().manual_seed(3))


def adapted(dtype: torch.dtype = torch.float32, **lora: Any) -> Any:
    """A family whose q, k and v have a bias, under an adapter that has moved."""
    torch.manual_seed(0)
    base = Qwen2ForCausalLM._from_config(Qwen2Config(**SIZES), attn_implementation="eager", dtype=dtype)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **lora))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float() + 0.1 * torch.randn(parameter.shape)
    return model.train()


def result(model: Any, autocast: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and gradients of some loss by parameter."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=IDS, use_cache=False).logits.float()
    model.zero_grad()
    logits.log_softmax(-1)[..., :40].mean().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    apply = fused_lora._Fused.apply
    monkeypatch.setattr(fused_lora._Fused, "apply", lambda *args: (calls.append(1), apply(*args))[1])
    return calls


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_outputs_and_gradients_are_pefts(dtype: torch.dtype, near: float, fused_calls: list[int]) -> None:
    model = adapted(dtype)
    other = copy.deepcopy(model)
    fuse(other)
    (logits, grads), (my_logits, my_grads) = (result(m, autocast=dtype != torch.float32) for m in (model, other))
    assert len(fused_calls) == LAYERS
    torch.testing.assert_close(my_logits, logits, rtol=near, atol=near * float(logits.abs().max()))
    assert my_grads.keys() == grads.keys()
    assert len(grads) == 2 * LAYERS
    for name, grad in grads.items():
        assert my_grads[name].dtype == torch.float32
        assert float((my_grads[name] - grad).norm()) <= near * float(grad.norm()), name
    assert other.state_dict().keys() == model.state_dict().keys()


def biased(model: Any) -> list[Any]:
    return [parameter for name, parameter in model.named_parameters() if name.endswith("base_layer.bias")]


def test_a_bias_that_is_trained_gets_its_gradient() -> None:
    model = adapted(bias="all")
    other = copy.deepcopy(model)
    fuse(other)
    grads, mine = result(model)[1], result(other)[1]
    assert mine.keys() == grads.keys()
    assert any(name.endswith("base_layer.bias") for name in mine)


def two(model: Any) -> None:
    model.add_adapter("second", LoraConfig(r=4, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "second"])


@pytest.mark.parametrize(
    ("lora", "then"),
    [
        ({}, lambda model: model.base_model.disable_adapter_layers()),
        ({}, lambda model: model.merge_adapter()),
        ({}, two),
        ({"use_dora": True}, lambda model: None),
        ({"bias": "all"}, lambda model: [p.requires_grad_(True) for p in biased(model)]),
    ],
    ids=["off", "merged", "two at once", "dora", "a bias that is trained"],
)
def test_what_is_not_plain_goes_pefts_way(lora: dict[str, Any], then: Callable[[Any], None], fused_calls: list[int]) -> None:
    model = adapted(**lora)
    then(model)
    other = copy.deepcopy(model)
    fuse(other)
    with torch.no_grad():
        logits, mine = (m(input_ids=IDS, use_cache=False).logits for m in (model, other))
    assert len(fused_calls) == (LAYERS - len(biased(model)) if lora.get("bias") else 0)
    torch.testing.assert_close(mine, logits)


def test_dropout_is_kept_where_it_is_asked_for(fused_calls: list[int]) -> None:
    model = adapted(lora_dropout=0.5)
    fuse(model)
    model(input_ids=IDS, use_cache=False)
    assert not fused_calls


def test_an_attention_with_something_of_its_own_is_left_alone() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, head_dim=8, attn_logit_softcapping=1.0)
    model = Gemma2ForCausalLM._from_config(config, attn_implementation="eager")
    assert not take_up(model)
    assert model.config._attn_implementation == "eager"


def test_the_grouped_attention_samples_what_the_models_own_samples() -> None:
    """With a cache and prompts of two lengths, as a run's sample completions are made."""
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(LlamaConfig(**SIZES), attn_implementation="eager").eval()
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    asked = {"input_ids": IDS, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    own = model.generate(**asked)
    assert take_up(model)
    assert model.config._attn_implementation == GROUPED
    assert torch.equal(model.generate(**asked), own)
