"""Shapes of 1B and 8B on a GPU: pairs a second, peak memory, and the share of the device's bf16 peak.

The share counts what the rows need at least, for every contender alike: each prompt once, a forward pass and a backward pass to
the inputs (frozen weights have no gradient of their own), the head on completion tokens only. What a contender computes beyond that
does not raise its share.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from tests.bench.table import Row
from tests.bench.train_contender import Contender, Pair, Who, pairs_of
from tests.bench.train_turns import Found, alternate
from training.memory import Shape

BATCH = 8
WHO: tuple[Who, ...] = ("trl-default", "trl-tuned", "studio")
BF16_PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12}  # dense, a second


def rows(folder: str, steps: int) -> list[Row]:
    import torch

    if not torch.cuda.is_available():
        return [Row("1B and 8B shapes on a GPU", "not measured: no GPU here")]
    device = torch.cuda.get_device_name()
    found = []
    for shape in ("Llama-1B", "Llama-8B"):
        ours = Contender("studio", folder, pairs=BATCH, batch=BATCH, steps=1 + steps, shape=shape)
        found += _rows(ours, alternate([replace(ours, who=who) for who in WHO]), device)
    return found


def _rows(contender: Contender, all_found: Sequence[Found], device: str) -> list[Row]:
    seconds = {who: statistics.median(turn.seconds for turn in found.steps[1:]) for who, found in zip(WHO, all_found, strict=True)}
    peak = {who: found.peak_mb / 1000 for who, found in zip(WHO, all_found, strict=True)}
    need = flops(shape_of(contender), pairs_of(contender))
    out = []
    for who in WHO[:-1]:
        ratio = seconds[who] / seconds["studio"]
        memory = f"peak {peak['studio']:.1f} against {peak[who]:.1f} GB"
        share = f"{_share(need, seconds['studio'], device)} of the bf16 peak against {_share(need, seconds[who], device)}"
        what = f"DPO, {contender.shape} shape, {BATCH} pairs a step on {device}: against {who} ({memory}; {share})"
        rates = [round(BATCH / seconds[name], 2) for name in ("studio", who)]
        out.append(Row(what, rates[0], "pairs/s", rates[1], round(ratio, 2), "> 1", ratio > 1))
    return out


def shape_of(contender: Contender) -> Shape:
    sizes = contender.sizes
    heads = sizes["num_attention_heads"]
    return Shape(
        sizes["hidden_size"], sizes["num_hidden_layers"], sizes["intermediate_size"], sizes["vocab_size"], heads,
        sizes["num_key_value_heads"], sizes.get("head_dim", sizes["hidden_size"] // heads), sizes["tie_word_embeddings"],
    )  # fmt: skip


def flops(shape: Shape, pairs: Sequence[Pair]) -> float:
    """Floating-point operations that a step of these pairs needs at least; the adapter's own are left out."""
    tokens = sum(len(prompt) + len(chosen) + len(rejected) for prompt, chosen, rejected in pairs)
    answers = sum(len(chosen) + len(rejected) for _, chosen, rejected in pairs)
    linear = 2 * 2 * (shape.linear_parameters * tokens + shape.vocabulary * shape.hidden * answers)
    seen = sum(_seen(len(prompt), len(chosen), len(rejected)) for prompt, chosen, rejected in pairs)
    products = 2 + 4  # scores and mixing, and for each of them the gradients of both its factors
    attention = products * 2 * seen * shape.heads * shape.head_dim * shape.layers
    return float(linear + attention)


def _seen(prompt: int, *answers: int) -> float:
    """Pairs of tokens of which one attends to the other."""
    return prompt * (prompt + 1) / 2 + sum(answer * prompt + answer * (answer + 1) / 2 for answer in answers)


def _share(need: float, seconds: float, device: str) -> str:
    peak = next((peak for name, peak in BF16_PEAK.items() if name in device), None)
    return f"{100 * need / seconds / peak:.0f} %" if peak else "an unknown share"
