"""A reward model in memory: a base with a score head in place of its language head, under an adapter that holds both.

    start = load_scoring(spec, config)                 # to train: the head is zero, so every answer scores 0 and the loss is ln 2
    model = RewardModel.load(spec)                     # to score: `spec.adapter` is a reward run's adapter
    model.score([prompt], [answer])                    # a number an answer; only differences between answers mean something

A conversation is rendered as it is when sampling. Over a parent adapter the new one begins with the parent's weights and goes on
from there, so that what is saved stands alone over the base and loads in plain peft.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import set_seed

from data.engine import ModelSpec
from data.errors import EngineError
from training.adapters import Trainable, uses_bf16
from training.chat import TEMPLATE_KWARGS, Tokenizer, end_of_turn_ids
from training.config import TrainConfig
from training.models import attach_adapter, check_adapter, context_length, device, load_base, load_tokenizer

_TOKENS = 4096  # padded tokens scored at once

Turns = Sequence[Mapping[str, str]]


def load_scoring(spec: ModelSpec, config: TrainConfig) -> Trainable:
    """The base of `spec` with a zero score head and a new adapter, begun from the parent's weights if it has one."""
    tokenizer = load_tokenizer(spec.base)
    dtype = torch.bfloat16 if uses_bf16(config) else torch.float32
    base: Any = load_base(replace(spec, quantize=config.tuning == "qlora"), for_training=True, dtype=dtype, scoring=True)
    _give_head(base, tokenizer)
    parent = _parent(base, spec.adapter) if spec.adapter else {}
    lora = LoraConfig(
        r=parent.get("r", config.lora_rank),
        lora_alpha=parent.get("lora_alpha", config.lora_alpha),
        target_modules=parent.get("target_modules", "all-linear"),
        task_type="SEQ_CLS",
        modules_to_save=["score"],
    )
    set_seed(config.seed)  # what the new adapter begins with is the run's own, and the same in each of several processes
    model = get_peft_model(base, lora)
    if spec.adapter:
        weights = load_file(Path(spec.adapter) / "adapter_model.safetensors")
        begun = {name: w for name, w in weights.items() if ".lora_" in name}
        set_peft_model_state_dict(model, begun | {"base_model.model.score.weight": torch.zeros_like(base.score.weight)})
    limit = min(config.max_length, context_length(base))
    return Trainable(model, tokenizer, None, limit, end_of_turn_ids(tokenizer, base), {})


class Head(torch.nn.Linear):
    """The score head, always in float32: in bf16 two answers that differ by a hundredth score the same."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight.float())


def _give_head(base: Any, tokenizer: Tokenizer) -> None:
    """Put a head of zeros on the base, which reads the last token that is no padding."""
    old = getattr(base, "score", None)
    if not isinstance(old, torch.nn.Linear):
        raise EngineError(f"{type(base).__name__} has no score head that can be trained here; choose another base.")
    base.score = Head(old.in_features, 1, bias=False, device=old.weight.device, dtype=torch.float32)
    torch.nn.init.zeros_(base.score.weight)
    base.config.get_text_config().pad_token_id = tokenizer.pad_token_id


class RewardModel:
    """Scores answers; higher is better. The adapter must be that of a reward run."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer

    @staticmethod
    def load(spec: ModelSpec) -> RewardModel:
        """EngineError when the adapter is no reward model's or does not fit the base."""
        if not is_reward_adapter(spec.adapter):
            raise EngineError(f"{Path(spec.adapter).name or spec.base} is no reward model; train one on preferences first.")
        tokenizer = load_tokenizer(spec.base)
        base: Any = load_base(spec, scoring=True)
        _give_head(base, tokenizer)
        return RewardModel(attach_adapter(base, spec.adapter), tokenizer)

    def score(self, prompts: Sequence[Turns], answers: Sequence[Turns]) -> list[float]:
        """One number for each answer to its prompt."""
        return self.score_ids([self._ids([*prompt, *answer]) for prompt, answer in zip(prompts, answers, strict=True)])

    def score_ids(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The same of whole conversations as tokens; longest together, so that little is padded."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        scores = [0.0] * len(rows)
        while order:
            size = max(1, _TOKENS // max(1, len(rows[order[0]])))
            batch, order = order[:size], order[size:]
            for index, value in zip(batch, self._batch([rows[i] for i in batch]), strict=True):
                scores[index] = value
        return scores

    def _ids(self, turns: Turns) -> list[int]:
        ids = self._tokenizer.apply_chat_template(list(turns), tokenize=True, return_dict=False, **TEMPLATE_KWARGS)
        return [int(i) for i in ids][-context_length(self._model) :]

    def _batch(self, rows: Sequence[Sequence[int]]) -> list[float]:
        width = max(map(len, rows))
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device())
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device())
        with torch.no_grad():
            logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        values: list[float] = logits[:, 0].float().tolist()
        return values


def is_reward_adapter(folder: str | Path) -> bool:
    """Whether an adapter folder holds a reward model: LoRA for sequence classification."""
    try:
        config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("task_type") == "SEQ_CLS"


def _parent(base: Any, folder: str) -> dict[str, Any]:
    """The parent's own width, scale and modules: what begins from its weights must be of its shape."""
    config = check_adapter(base, folder)
    return {name: config[name] for name in ("r", "lora_alpha", "target_modules") if config.get(name) is not None}
