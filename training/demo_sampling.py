"""Sampling and judging with the demo model by plain `transformers`, for its pretraining and its measurements.

The app itself goes through an Engine; this is the short reference path, so that the figures on the model card depend
on nothing but transformers and the world's rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from data.demo.world import judge_prompt

MAX_NEW_TOKENS = 48


class Question(NamedTuple):
    """What a judge is asked: a prompt and its two answers, in the order shown."""

    prompt: str
    a: str
    b: str


def _chat(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """User turns as a left-padded batch that ends with the generation prompt; int64 of shape (texts, longest)."""
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in texts
    ]
    batch = tokenizer(rendered, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


@torch.no_grad()
def sample_answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    temperature: float,
    seed: int = 0,
    batch_size: int = 256,
) -> list[str]:
    """One answer to each prompt, in order; greedy when the temperature is 0, else seeded sampling from the full softmax."""
    torch.manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    model.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _chat(tokenizer, [prompts[row] for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            output = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, pad_token_id=tokenizer.pad_token_id, **sampling)
        new = output[:, batch["input_ids"].shape[1] :]
        for row, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[row] = text.strip()
    return answers


@torch.no_grad()
def probability_of_a(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], batch_size: int = 128
) -> list[float]:
    """P("A") / (P("A") + P("B")) of the judge's first token, one order only, from the logits of the two label tokens."""
    labels = tokenizer.convert_tokens_to_ids(["A", "B"])
    out: list[float] = []
    model.eval()
    for start in range(0, len(questions), batch_size):
        batch = _chat(tokenizer, [judge_prompt(*question) for question in questions[start : start + batch_size]])
        positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**batch, position_ids=positions, logits_to_keep=1).logits[:, -1, labels].float()
        out += logits.softmax(-1)[:, 0].tolist()
    return out
