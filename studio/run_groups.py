"""Runs that were started together: which settings differ, how each does on held-out rows, which is best. Pure: rows in, HTML out.

Best is told by the share of held-out pairs on which the model prefers the good answer: it means the same whatever beta or loss was.
A loss does not, so it decides only where every run has the same; and a lead that chance could make is said to be one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.records import Run
from studio.render import Column, Html, badge, esc, figures, percent, run_link, share_done, table, tag

ACCURACY, LOSS = "eval_rewards/accuracies", "eval_loss"
SCALES = ("beta", "loss", "loss_2", "sft_weight", "label_smoothing", "margin")  # settings that give the loss another meaning

OTHER_SCALE = "Their losses cannot be held against each other: beta or the form of the loss differs."

BY_REWARD = ("rloo", "grpo")  # methods whose loss is no measure of anything


class Best(NamedTuple):
    """The run that does best and why it is called so; '' and '' while none is."""

    run_id: str = ""
    why: str = ""


def varied(group: Sequence[Run]) -> list[str]:
    """The settings that differ between the runs, in the order of the form."""
    settings = [_settings(run) for run in group]
    return [name for name in (settings[0] if settings else {}) if len({str(each.get(name)) for each in settings}) > 1]


def best_of(group: Sequence[Run], held_out: int) -> Best:
    """Among the runs that have finished; none is best while there is only one. `held_out` rows were looked at."""
    done = [run for run in group if run.status == "finished"]
    by_accuracy = {run.run_id: value for run in done if (value := figure(run, ACCURACY)) is not None}
    if len(by_accuracy) > 1:
        best = max(by_accuracy, key=lambda run_id: by_accuracy[run_id])
        rest = sorted(by_accuracy.values())[-2]
        return Best(best, _chance(by_accuracy[best], rest, held_out))
    by_loss = {run.run_id: value for run in done if (value := figure(run, LOSS)) is not None}
    if len(by_loss) > 1 and not set(varied(group)) & set(SCALES) and not {run.kind for run in done} & set(BY_REWARD):
        return Best(min(by_loss, key=lambda run_id: by_loss[run_id]), "Best is the lowest loss on held-out rows.")
    return Best()


def _chance(best: float, second: float, held_out: int) -> str:
    says = "Best is the highest share of held-out pairs on which the good answer is preferred."
    if not held_out:
        return says
    off = 1.96 * math.sqrt(max(best * (1 - best), 0.25 / held_out) / held_out)  # binomial, 95 %
    if best - second <= off:
        return f"{says} With {held_out} of them it is known to ± {round(100 * off)} points, so the lead may be chance."
    return f"{says} With {held_out} of them it is known to ± {round(100 * off)} points."


def group_table(group: Sequence[Run], held_out: int, chosen: str) -> Html:
    """One row a run: its settings, its held-out figures, its status."""
    names, best = varied(group), best_of(group, held_out)
    with_accuracy = any(figure(run, ACCURACY) is not None for run in group)
    columns = [
        Column("Setting"),
        *([Column("Accuracy", "num")] if with_accuracy else []),
        Column("Loss", "num", wide=with_accuracy),
        Column("Status", "tight"),
    ]
    rows = [_row(run, names, with_accuracy, best) for run in group]
    picked = next((i for i, run in enumerate(group) if run.run_id == chosen), -1)
    several = sum(figure(run, LOSS) is not None for run in group) > 1
    said = [best.why, OTHER_SCALE if several and set(names) & set(SCALES) else ""]
    below = "".join(f'<p class="st-sub">{figures(sentence)}</p>' for sentence in said if sentence)
    measured = ", on held-out rows" if held_out else ""
    title = f'<h3 class="st-h3 st-above">{len(group)} runs started together{measured}</h3>'
    return Html(f"{title}{table(columns, rows, picked, 'Runs started together')}{below}")


def in_words(run: Run, names: Sequence[str]) -> str:
    """The run's values of these settings: "beta 0.1, learning rate 0.001"."""
    settings = _settings(run)
    return ", ".join(f"{name_said(name)} {value_said(settings.get(name))}" for name in names)


def _row(run: Run, names: Sequence[str], with_accuracy: bool, best: Best) -> list[object]:
    marked = tag("best") if run.run_id == best.run_id else ""
    accuracy, loss = figure(run, ACCURACY), figure(run, LOSS)
    title = in_words(run, names) or run.name
    return [
        Html(f'<a href="./{run_link(run)}" data-run="{esc(run.run_id)}">{esc(title)}</a> {marked}'),
        *([percent(accuracy) if accuracy is not None else "–"] if with_accuracy else []),
        f"{loss:.3f}" if loss is not None else "–",
        Html(f"{badge(run.status)}{_going(run)}"),
    ]


def _going(run: Run) -> str:
    share = share_done(run)
    return f' <span class="st-muted">{percent(share)}</span>' if run.status == "running" and share is not None else ""


def figure(run: Run, name: str) -> float | None:
    """A held-out figure at the run's end."""
    value = (run.result.get("metrics") or {}).get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def name_said(name: str) -> str:
    """A setting as a column names it: "learning rate"."""
    return name.replace("_", " ")


def value_said(value: Any) -> str:
    """A setting's value: 0.0005, on, sigmoid."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _settings(run: Run) -> Mapping[str, Any]:
    train = (run.config.get("args") or {}).get("train")
    return train if isinstance(train, Mapping) else {}
