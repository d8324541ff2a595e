"""Losses of preference tuning as pure functions of log-probabilities: no model, no trainer, no batch shapes.

    losses = dpo_loss("sigmoid", chosen, rejected, beta)        # one number a row; the batch's loss is their mean

Log-probabilities are natural logarithms, summed over a completion's tokens where nothing else is said. Each function returns one
loss a row, so that a step may be cut into parts of any size. Forms and scales are those of TRL 1.16, which is the reference in the
tests; where TRL's experimental ORPO differs from the paper (it also learns the prompt), the paper stands.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

DISCOPOP_TAU = 0.05  # of 2406.08414, equation 5


class Side(NamedTuple):
    """The chosen or the rejected completions of a batch: log-probabilities under policy and reference, lengths; each [rows]."""

    policy: Tensor
    reference: Tensor
    tokens: Tensor

    @property
    def ratio(self) -> Tensor:
        return self.policy - self.reference


def dpo_loss(kind: str, chosen: Side, rejected: Side, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """[rows]. Papers: sigmoid and robust 2305.18290 and 2403.00409, hinge 2305.10425, ipo 2310.12036, apo_zero and apo_down
    2408.06266, sppo_hard 2405.00675, exo_pair 2402.00856, nca_pair 2402.05369, bco_pair 2404.04656 (without its shift),
    discopop 2406.08414. What sorts a whole batch (AOT) is left out: a loss here is of one row.

    `label_smoothing` is the share of labels taken to be wrong and counts for robust and exo_pair alone. ipo and sigmoid_norm are
    per token, so that beta means the same for short and long answers.
    """
    if kind in ("nca_pair", "bco_pair", "apo_zero", "apo_down", "sppo_hard"):
        return _by_side(kind, chosen.ratio, rejected.ratio, beta)
    per_token = chosen.ratio / chosen.tokens.clamp(min=1) - rejected.ratio / rejected.tokens.clamp(min=1)
    margin = beta * (per_token if kind == "sigmoid_norm" else chosen.ratio - rejected.ratio)
    if kind in ("sigmoid", "sigmoid_norm"):
        return -logsigmoid(margin)
    if kind == "hinge":
        return torch.relu(1 - margin)
    if kind == "ipo":
        return (per_token - 1 / (2 * beta)) ** 2
    if kind == "robust":
        flipped = (1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
        return -flipped / (1 - 2 * label_smoothing)
    if kind == "exo_pair":  # KL of the policy's preference, softmax of both rewards, from [1 - smoothing, smoothing]
        gap = (logsigmoid(side) - math.log(share) for side, share in ((margin, 1 - label_smoothing), (-margin, label_smoothing)))
        return sum(
            (torch.sigmoid(side) * part for side, part in zip((margin, -margin), gap, strict=True)), torch.zeros_like(margin)
        )
    if kind == "discopop":
        mixed = torch.sigmoid(margin / DISCOPOP_TAU)
        return -logsigmoid(margin) * (1 - mixed) + torch.exp(-margin) * mixed
    raise ValueError(f"There is no DPO loss {kind!r}.")


def _by_side(kind: str, chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Losses in which each side's log-ratio counts for itself, not their difference alone."""
    good, bad = beta * chosen, beta * rejected
    if kind == "nca_pair":
        return -logsigmoid(good) - 0.5 * logsigmoid(-good) - 0.5 * logsigmoid(-bad)
    if kind == "bco_pair":
        return -logsigmoid(good) - logsigmoid(-bad)
    if kind == "apo_zero":
        return 1 - torch.sigmoid(good) + torch.sigmoid(bad)
    if kind == "apo_down":
        return torch.sigmoid(good) + 1 - torch.sigmoid(good - bad)
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


def kto_loss(ratio: Tensor, desirable: Tensor, kl: Tensor, beta: float, weights: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """[rows]; equation 7 of 2402.01306. `ratio` = policy - reference, `desirable` bool, `kl` a scalar >= 0 without gradient.

    `weights` are those of the desirable and the undesirable rows.
    """
    good = weights[0] * (1 - torch.sigmoid(beta * (ratio - kl)))
    bad = weights[1] * (1 - torch.sigmoid(beta * (kl - ratio)))
    return torch.where(desirable, good, bad)


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """[rows]; log of odds(chosen) / odds(rejected), odds(p) = p / (1 - p), from mean log-probabilities a token (both < 0)."""
    return (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))


def orpo_loss(chosen: Tensor, rejected: Tensor, weight: float) -> Tensor:
    """[rows]; the odds-ratio part of ORPO (2403.07691, equation 7) times its weight lambda, from mean log-probabilities a token.

    ORPO's other part is the plain negative log-likelihood of the chosen completion.
    """
    return -weight * logsigmoid(log_odds_ratio(chosen, rejected))


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """[rows]; SimPO (2405.14734, equation 6) from mean log-probabilities a token; `gamma` is the margin asked for."""
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact near 0 and far from it. The branch not taken sees a harmless value: its gradient is kept."""
    near = x > -0.6931471805599453
    half = torch.full_like(x, -1.0)
    close = torch.log(-torch.expm1(torch.where(near, x.clamp(max=-1e-7), half)))
    far = torch.log1p(-torch.exp(torch.where(near, half, x)))
    return torch.where(near, close, far)
