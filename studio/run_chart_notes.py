"""What a newcomer would take for a fault on a run's charts, as a sentence below the chart: by the chart's name in `run_charts.py`.

Pure: the run's method, settings and figures in, sentences out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from studio.run_charts import ACCURACY, Points, all_ties
from training.methods import short_name

AT_LN2 = ("sigmoid", "sigmoid_norm", "robust")  # forms of DPO's loss that are ln 2 where policy and reference are the same


def notes_of(method: str, settings: Mapping[str, Any], metrics: Points) -> dict[str, str]:
    """The sentences that this run needs."""
    told = {"loss": _of_the_loss(method, settings), "reward-accuracy": _of_ties(metrics), "drift": _of_drift(metrics)}
    return {chart: sentence for chart, sentence in told.items() if sentence}


def _of_the_loss(method: str, settings: Mapping[str, Any]) -> str:
    """What the loss is the sum of, where SFT's is in it."""
    weight = float(settings.get("sft_weight") or 0)
    if method not in ("dpo", "simpo") or not weight:
        return ""
    name = short_name(method)
    times = "" if weight == 1 else f"{weight:g} × "
    starts = method == "dpo" and settings.get("loss", "sigmoid") in AT_LN2
    begins = f"; {name}'s part begins at {math.log(2):.3f} (ln\u00a02)" if starts else ""
    return f"This is {name}'s loss plus {times}SFT's{begins}."


def _of_drift(metrics: Points) -> str:
    """What a nat is, on the chart whose title counts in them."""
    if not any("logps/drift" in point for point in metrics):
        return ""
    return "At 0 the answers are as likely as before the run, at −1 on average 2.7 times less likely, and 7.4 times at −2."


def _of_ties(metrics: Points) -> str:
    """Why the share of pairs on which the good answer is preferred begins later than the other lines."""
    steps = [point for point in metrics if ACCURACY in point]
    first = next((point.get("step") for point in steps if not all_ties(point)), None)
    if first is None or not any(all_ties(point) for point in steps):
        return ""
    return f"Drawn from step {first:g}: until then it is the model before the run, which prefers neither answer."
