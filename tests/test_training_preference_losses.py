"""Preference losses: numbers worked out by hand from the papers, and TRL's own functions where it has them."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from training.preference_losses import Side, dpo_loss, kto_loss, log_odds_ratio, orpo_loss, simpo_loss

pytestmark = pytest.mark.model

BETA = 0.5
CHOSEN = Side(torch.tensor([-10.0, -7.0]), torch.tensor([-12.0, -7.0]), torch.tensor([4, 2]))
REJECTED = Side(torch.tensor([-9.0, -20.0]), torch.tensor([-8.0, -20.0]), torch.tensor([2, 5]))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# The first row: chosen ratio 2, rejected ratio -1, margin beta * 3 = 1.5. The second: no change, margin 0.
@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("sigmoid", -math.log(sigmoid(1.5)), math.log(2)),
        ("hinge", 0.0, 1.0),
        ("ipo", (2 / 4 + 1 / 2 - 1 / (2 * BETA)) ** 2, (1 / (2 * BETA)) ** 2),
        ("robust", -(0.9 * math.log(sigmoid(1.5)) - 0.1 * math.log(sigmoid(-1.5))) / 0.8, math.log(2)),
        ("apo_zero", 1 - sigmoid(1.0) + sigmoid(-0.5), 1.0),
        ("sppo_hard", (2 - 1) ** 2 + (-1 + 1) ** 2, 2.0),
        ("nca_pair", -math.log(sigmoid(1)) - 0.5 * math.log(sigmoid(-1)) - 0.5 * math.log(sigmoid(0.5)), 2 * math.log(2)),
        ("bco_pair", -math.log(sigmoid(1.0)) - math.log(sigmoid(0.5)), 2 * math.log(2)),
        ("apo_down", sigmoid(1.0) + 1 - sigmoid(1.5), 1.0),
        ("sigmoid_norm", -math.log(sigmoid(BETA * (2 / 4 + 1 / 2))), math.log(2)),
        (
            "exo_pair",
            sigmoid(1.5) * math.log(sigmoid(1.5) / 0.9) + sigmoid(-1.5) * math.log(sigmoid(-1.5) / 0.1),
            0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1),
        ),
        (
            "discopop",
            -math.log(sigmoid(1.5)) * (1 - sigmoid(30)) + math.exp(-1.5) * sigmoid(30),
            0.5 * math.log(2) + 0.5,
        ),
    ],
)
def test_dpo_losses_by_hand(kind: str, first: float, second: float) -> None:
    assert dpo_loss(kind, CHOSEN, REJECTED, BETA, 0.1).tolist() == pytest.approx([first, second], abs=1e-6)


def test_an_unknown_loss_is_no_default() -> None:
    with pytest.raises(ValueError, match="no DPO loss 'sigmoidal'"):
        dpo_loss("sigmoidal", CHOSEN, REJECTED, BETA)


def test_kto_by_hand() -> None:
    ratio, good, kl = torch.tensor([2.0, -1.0]), torch.tensor([True, False]), torch.tensor(0.5)
    losses = kto_loss(ratio, good, kl, BETA, (1.0, 3.0))
    assert losses.tolist() == pytest.approx([1 - sigmoid(0.75), 3 * (1 - sigmoid(0.75))], abs=1e-6)


@pytest.mark.parametrize(("chosen", "rejected"), [(-0.5, -2.0), (-3.0, -0.1), (-0.69, -0.70), (-40.0, -0.001)])
def test_orpo_is_the_papers_formula(chosen: float, rejected: float) -> None:
    """Equations 4 to 7 of 2403.07691, written out with probabilities in float64."""
    odds = [math.exp(x) / (1 - math.exp(x)) for x in (chosen, rejected)]
    sides = torch.tensor([chosen], dtype=torch.float64), torch.tensor([rejected], dtype=torch.float64)
    assert log_odds_ratio(*sides).item() == pytest.approx(math.log(odds[0] / odds[1]), rel=1e-9)
    assert orpo_loss(*sides, 0.25).item() == pytest.approx(-0.25 * math.log(sigmoid(math.log(odds[0] / odds[1]))), rel=1e-9)


@pytest.mark.parametrize("logp", [-1e-9, -1e-3, -0.6931, -0.6932, -5.0, -200.0])
def test_odds_have_a_finite_gradient_everywhere(logp: float) -> None:
    chosen = torch.tensor([logp], requires_grad=True)
    log_odds_ratio(chosen, torch.tensor([-1.0])).backward()
    assert chosen.grad is not None
    assert torch.isfinite(chosen.grad).all()


def test_simpo_by_hand() -> None:
    losses = simpo_loss(torch.tensor([-1.0]), torch.tensor([-2.0]), beta=2.0, gamma=0.5)
    assert losses.item() == pytest.approx(-math.log(sigmoid(1.5)), abs=1e-6)


@pytest.fixture(scope="module")
def experimental() -> Any:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    pytest.importorskip("trl.experimental.orpo", reason="TRL has dropped its experimental ORPO")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    return SimpleNamespace(orpo=ORPOTrainer, cpo=CPOTrainer)


def test_orpo_and_simpo_are_trls(experimental: Any) -> None:
    torch.manual_seed(0)
    chosen, rejected = -torch.rand(64) * 4 - 0.01, -torch.rand(64) * 4 - 0.01
    here = SimpleNamespace(device=torch.device("cpu"))
    theirs = experimental.orpo.odds_ratio_loss(SimpleNamespace(beta=0.3, accelerator=here), chosen, rejected)
    torch.testing.assert_close(orpo_loss(chosen, rejected, 0.3), -theirs[0], atol=1e-5, rtol=1e-5)
    trainer = SimpleNamespace(beta=2.0, simpo_gamma=0.7, label_smoothing=0, alpha=0.0, loss_type="simpo", accelerator=here)
    losses = experimental.cpo.cpo_loss(trainer, chosen, rejected)[0]
    torch.testing.assert_close(simpo_loss(chosen, rejected, 2.0, 0.7), losses, atol=1e-5, rtol=1e-5)
