"""What a method makes of log-probabilities: its loss over a part of a batch, and what the charts show of the whole batch.

The losses themselves are pure functions in `preference_losses`. An objective knows which of a row's completions is which. A part's
loss is its share of the batch's, so that the parts' losses add up, whatever the cut. The metrics carry TRL's names and meanings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from training.preference_losses import Side, dpo_loss, kto_loss, log_odds_ratio, orpo_loss, simpo_loss
from training.preference_rows import Item
from training.preference_step import Scores

Metrics = dict[str, float]


class Whole(NamedTuple):
    """What a part must know of its batch: rows, tokens of the first completions (of several batches that are summed: their mean,
    so that every token of the step counts alike), and KTO's KL."""

    rows: int
    tokens: float
    kl: Tensor


class Objective(Protocol):
    """A method. `needs_reference`: its rows must carry the reference's log-probabilities. `size`: how much a batch counts in a
    mean over several of unlike size."""

    needs_reference: bool

    def loss(self, items: list[Item], scores: Scores, whole: Whole) -> Tensor: ...

    def metrics(self, items: list[Item], scores: Scores, whole: Whole) -> Metrics: ...

    def size(self, whole: Whole) -> float: ...


class _ByRows:
    def size(self, whole: Whole) -> float:
        return float(whole.rows)


@dataclass(frozen=True)
class Sft:
    """Imitation alone: the negative log-likelihood of the completions, a token."""

    needs_reference = False

    def loss(self, items: list[Item], scores: Scores, whole: Whole) -> Tensor:
        return _imitation(scores, whole)

    def metrics(self, items: list[Item], scores: Scores, whole: Whole) -> Metrics:
        return {
            "entropy": float(scores.entropy.sum() / scores.tokens.sum()),
            "mean_token_accuracy": float(scores.is_top.sum() / scores.tokens.sum()),
        }

    def size(self, whole: Whole) -> float:
        return float(whole.tokens)


@dataclass(frozen=True)
class Dpo(_ByRows):
    """Direct preference optimisation; `sft_weight` mixes in the chosen completions' negative log-likelihood a token."""

    kind: str
    beta: float
    sft_weight: float = 0.0
    label_smoothing: float = 0.0
    needs_reference = True

    def loss(self, items: list[Item], scores: Scores, whole: Whole) -> Tensor:
        chosen, rejected = _sides(items, scores)
        preference = dpo_loss(self.kind, chosen, rejected, self.beta, self.label_smoothing).sum() / whole.rows
        return preference + self.sft_weight * _imitation(scores, whole) if self.sft_weight else preference

    def metrics(self, items: list[Item], scores: Scores, whole: Whole) -> Metrics:
        """With `logps/drift`, which TRL's DPO does not tell: the mean over both completions of log policy - log reference, in nats
        an answer (the rewards' mean over beta).

        It begins at 0. Completions that the reference wrote give it a mean of -KL(reference, policy), so it mostly sinks below 0:
        how far says how far the policy has moved away from them.
        """
        chosen, rejected = _sides(items, scores)
        moved = {"logps/drift": float((chosen.ratio + rejected.ratio).mean() / 2)}
        return _pair_metrics(self.beta * chosen.ratio, self.beta * rejected.ratio, scores, scores.sums) | moved


@dataclass(frozen=True)
class Orpo(_ByRows):
    """Imitation of the chosen completion plus the odds-ratio loss; no reference. TRL's keys: log-probabilities are means."""

    weight: float
    needs_reference = False

    def loss(self, items: list[Item], scores: Scores, whole: Whole) -> Tensor:
        odds = orpo_loss(scores.means[:, 0], scores.means[:, 1], self.weight).sum() / whole.rows
        return odds + _imitation(scores, whole)

    def metrics(self, items: list[Item], scores: Scores, whole: Whole) -> Metrics:
        odds = log_odds_ratio(scores.means[:, 0], scores.means[:, 1])
        rewards = self.weight * scores.means
        return _pair_metrics(rewards[:, 0], rewards[:, 1], scores, scores.means) | {
            "nll_loss": float(_imitation(scores, whole)),
            "log_odds_ratio": float(torch.nn.functional.logsigmoid(odds).mean()),
            "log_odds_chosen": float(odds.mean()),
        }


@dataclass(frozen=True)
class SimPo(_ByRows):
    """The mean log-probability as the reward, with a margin `gamma`; no reference."""

    beta: float
    gamma: float
    sft_weight: float = 0.0
    needs_reference = False

    def loss(self, items: list[Item], scores: Scores, whole: Whole) -> Tensor:
        preference = simpo_loss(scores.means[:, 0], scores.means[:, 1], self.beta, self.gamma).sum() / whole.rows
        return preference + self.sft_weight * _imitation(scores, whole) if self.sft_weight else preference

    def metrics(self, items: list[Item], scores: Scores, whole: Whole) -> Metrics:
        rewards = self.beta * scores.means
        nll = {"nll_loss": float(_imitation(scores, whole))}
        return _pair_metrics(rewards[:, 0], rewards[:, 1], scores, scores.means) | nll


@dataclass(frozen=True)
class Kto(_ByRows):
    """Single completions called desirable or not; `weights` of the two kinds."""

    beta: float
    weights: tuple[float, float] = (1.0, 1.0)
    needs_reference = True

    def loss(self, items: list[Item], scores: Scores, whole: Whole) -> Tensor:
        ratio = scores.sums[:, 0] - _reference(items, scores)[:, 0]
        return kto_loss(ratio, _desirable(items, scores), whole.kl, self.beta, self.weights).sum() / whole.rows

    def metrics(self, items: list[Item], scores: Scores, whole: Whole) -> Metrics:
        rewards = self.beta * (scores.sums[:, 0] - _reference(items, scores)[:, 0])
        good = _desirable(items, scores)
        found = {"kl": float(whole.kl), "entropy": float(scores.entropy.sum() / scores.tokens.sum())}
        for name, side in (("chosen", good), ("rejected", ~good)):
            if side.any():
                found[f"rewards/{name}"] = float(rewards[side].mean())
                found[f"logps/{name}"] = float(scores.sums[side].mean())
                found[f"logits/{name}"] = float(scores.mean_logit[side].sum() / scores.tokens[side].sum())
        if good.any() and not good.all():
            found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        return found


def _pair_metrics(chosen: Tensor, rejected: Tensor, scores: Scores, logps: Tensor) -> Metrics:
    """Rewards of both sides [rows] and what TRL's DPO shows beside them."""
    logits = scores.mean_logit.sum(0) / scores.tokens.sum(0)
    return {
        "rewards/chosen": float(chosen.mean()),
        "rewards/rejected": float(rejected.mean()),
        "rewards/accuracies": float((chosen > rejected).float().mean()),
        "rewards/margins": float((chosen - rejected).mean()),
        "logps/chosen": float(logps[:, 0].mean()),
        "logps/rejected": float(logps[:, 1].mean()),
        "logits/chosen": float(logits[0]),
        "logits/rejected": float(logits[1]),
        "entropy": float(scores.entropy.sum() / scores.tokens.sum()),
        "mean_token_accuracy": float(scores.is_top[:, 0].sum() / scores.tokens[:, 0].sum()),
    }


def _sides(items: list[Item], scores: Scores) -> tuple[Side, Side]:
    reference = _reference(items, scores)
    chosen, rejected = (Side(scores.sums[:, i], reference[:, i], scores.tokens[:, i]) for i in (0, 1))
    return chosen, rejected


def _imitation(scores: Scores, whole: Whole) -> Tensor:
    """The part's share of the batch's negative log-likelihood of the chosen completions, a token."""
    return -scores.sums[:, 0].sum() / whole.tokens


def _reference(items: list[Item], scores: Scores) -> Tensor:
    return torch.tensor([item.reference for item in items], device=scores.sums.device)


def _desirable(items: list[Item], scores: Scores) -> Tensor:
    return torch.tensor([bool(item.desirable) for item in items], device=scores.sums.device)
