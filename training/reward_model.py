"""A reward model in memory: a base with a score head in place of its language head, under an adapter that holds both or whole.

    start = load_scoring(spec, config)                 # to train: the head is zero, so every answer scores 0 and the loss is ln 2
    model = RewardModel.load(spec)                     # to score: `spec.adapter` is a reward run's adapter, or `base` its model
    model.score([prompt], [answer])                    # a number an answer; only differences between answers mean something

A conversation is rendered as it is when sampling. Over a parent adapter the new one begins with the parent's weights and goes on
from there, so that what is saved stands alone over the base and loads in plain peft. Where all weights are trained, the parent is
merged in and what is saved is a model for sequence classification, which plain transformers loads.
"""

from __future__ import annotations

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
from data.model_folder import names_kind, read_object
from training.adapters import Trainable, uses_bf16
from training.chat import TEMPLATE_KWARGS, Tokenizer, end_of_turn_ids
from training.config import TrainConfig
from training.models import SCORING_KIND, attach_adapter, check_adapter, context_length, device, load_base, load_tokenizer

_TOKENS = 4096  # padded tokens scored at once

Turns = Sequence[Mapping[str, str]]


def load_scoring(spec: ModelSpec, config: TrainConfig) -> Trainable:
    """The base of `spec` with a zero score head and a new adapter, begun from the parent's weights if it has one; where all weights
    are trained, in fp32 with the parent merged in."""
    full = config.tuning == "full"
    tokenizer = load_tokenizer(spec.base)
    dtype = torch.bfloat16 if uses_bf16(config) and not full else torch.float32
    base: Any = load_base(replace(spec, quantize=config.tuning == "qlora"), for_training=True, dtype=dtype, scoring=True)
    _give_head(base, tokenizer)
    torch.nn.init.zeros_(base.score.weight)
    model = base if full and not spec.adapter else _under_adapter(base, spec, config)
    if full:
        model = (model.merge_and_unload() if spec.adapter else model).requires_grad_(True)
    limit = min(config.max_length, context_length(base))
    return Trainable(model, tokenizer, None, limit, end_of_turn_ids(tokenizer, base), {})


def _under_adapter(base: Any, spec: ModelSpec, config: TrainConfig) -> Any:
    """A new adapter over the base, its head among what it holds; begun from the parent's weights if there is one."""
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
    return model


class Head(torch.nn.Linear):
    """The score head, always in float32: in bf16 two answers that differ by a hundredth score the same."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight.float())


def _give_head(base: Any, tokenizer: Tokenizer) -> None:
    """Hold the base's head in float32; it reads the last token that is no padding."""
    old = getattr(base, "score", None)
    if not isinstance(old, torch.nn.Linear):
        raise EngineError(f"{type(base).__name__} has no score head that can be trained here; choose another base.")
    base.score = Head(old.in_features, 1, bias=False, device=old.weight.device, dtype=torch.float32)
    base.score.weight.data.copy_(old.weight.data)
    base.config.get_text_config().pad_token_id = tokenizer.pad_token_id


class RewardModel:
    """Scores answers; higher is better. The adapter, or the whole model, must be that of a reward run."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer

    @staticmethod
    def load(spec: ModelSpec) -> RewardModel:
        """EngineError when it is no reward model or its adapter does not fit the base."""
        if not (is_reward_adapter(spec.adapter) if spec.adapter else is_reward_model(spec.base)):
            raise EngineError(f"{Path(spec.adapter).name or spec.base} is no reward model; train one on preferences first.")
        tokenizer = load_tokenizer(spec.base)
        base: Any = load_base(spec, scoring=True)
        _give_head(base, tokenizer)
        return RewardModel(attach_adapter(base, spec.adapter) if spec.adapter else base, tokenizer)

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
    return _read(Path(folder) / "adapter_config.json").get("task_type") == "SEQ_CLS"


def is_reward_model(folder: str | Path) -> bool:
    """Whether a folder holds a whole reward model: one for sequence classification with a single score."""
    config = _read(Path(folder) / "config.json")
    labels = config.get("id2label")
    return names_kind(config.get("architectures"), SCORING_KIND) and isinstance(labels, dict) and len(labels) == 1


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, empty where there is none."""
    try:
        return read_object(file)
    except (OSError, ValueError):
        return {}


def _parent(base: Any, folder: str) -> dict[str, Any]:
    """The parent's own width, scale and modules: what begins from its weights must be of its shape."""
    config = check_adapter(base, folder)
    return {name: config[name] for name in ("r", "lora_alpha", "target_modules") if config.get(name) is not None}
