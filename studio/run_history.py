"""A training run's figures over its steps, as a verdict on them asks for them: at the start, now, on held-out rows. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

LAST_SHARE, MOST_LAST = 5, 10  # "now" is the mean of the last fifth of the logged steps, ten at most

Points = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class History:
    """What a verdict is made of. `settings` is the run's config; `held_out` counts its held-out rows, 0 = none or unknown."""

    method: str
    metrics: Points
    settings: Mapping[str, Any]
    held_out: int = 0
    ended: bool = True

    def values(self, key: str) -> list[float]:
        return [float(m[key]) for m in self.metrics if is_number(m.get(key))]

    def now(self, key: str) -> float | None:
        """A held-out figure as it was measured last, a figure of training over the last steps; None without any."""
        values = self.values(key)
        if not values:
            return None
        n = 1 if key.startswith("eval_") else min(MOST_LAST, max(1, len(values) // LAST_SHARE))
        return sum(values[-n:]) / n

    def start(self, key: str) -> float | None:
        """The same at the beginning."""
        values = self.values(key)
        n = 1 if key.startswith("eval_") else min(MOST_LAST, max(1, len(values) // LAST_SHARE))
        return sum(values[:n]) / n if values else None

    @property
    def beta(self) -> float:
        return float(self.settings.get("beta") or 0.0)

    def of_what_is_kept(self) -> History:
        """A run that stops early keeps the adapter of its lowest held-out loss: what came after that says nothing of it."""
        looks = [m for m in self.metrics if is_number(m.get("eval_loss")) and is_number(m.get("step"))]
        if not self.ended or not self.settings.get("early_stop") or not looks:
            return self
        best = float(min(looks, key=lambda m: float(m["eval_loss"]))["step"])
        return replace(self, metrics=[m for m in self.metrics if not is_number(m.get("step")) or m["step"] <= best])


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    middle = mean(values)
    return sum((value - middle) ** 2 for value in values) / max(1, len(values) - 1)
