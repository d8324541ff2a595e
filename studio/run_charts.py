"""Which metric of a run stands on which chart, and all charts of a run or of several under one another's steps.

A chart is drawn when one of its metrics has been reported, so every method shows what it has, and a method that is new needs
nothing here unless its metrics are new. Keys are TRL's own. All charts of a page share their steps.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.errors import BadInput
from studio.plots import COLOURS, LARGE, LOW, SMALL, Picture, Point, Series, figure, standalone
from studio.render import Html, count, esc, figures

ACCURACY, MARGIN = "rewards/accuracies", "rewards/margins"
Points = Sequence[Mapping[str, Any]]  # a run's `metrics` events, oldest first


class Line(NamedTuple):
    """A metric's key in the run's events, and its name in the chart."""

    key: str
    name: str = ""

    @property
    def exact(self) -> bool:
        """Not noise that is to be smoothed."""
        return self.key.startswith("eval_") or self.key in ("learning_rate", "memory_gb")


class Chart(NamedTuple):
    """`first` is the line that stands for the chart when runs are laid over one another: one colour a run, one metric. `minor` ones
    stand low, below the others."""

    name: str
    title: str
    lines: tuple[Line, ...]
    percent: bool = False
    minor: bool = False
    of: str = ""  # the title of the chart that has this line among others

    @property
    def whole(self) -> str:
        return self.of or self.title

    @property
    def first(self) -> Line:
        return self.lines[0]


def _pair(name: str, title: str, key: str, percent: bool = False) -> Chart:
    return Chart(name, title, (Line(key, "training"), Line(f"eval_{key}", "held out")), percent)


def _minor(name: str, title: str, key: str) -> Chart:
    return Chart(name, title, (Line(key),), minor=True)


CHARTS: tuple[Chart, ...] = (
    _pair("loss", "Loss", "loss"),
    _pair("reward-accuracy", "Prefers the good answer", ACCURACY, True),
    _pair("reward-margin", "Reward margin", MARGIN),
    _pair("log-odds", "Log odds of good over bad", "log_odds_chosen"),
    _pair("imitation", "Loss of imitation", "nll_loss"),
    _pair("accuracy", "Ranks the good answer first", "accuracy", True),
    _pair("margin", "Margin between the two scores", "margin"),
    Chart("scores", "Scores", (Line("max_reward", "highest"), Line("mean_reward", "mean"), Line("min_reward", "lowest"))),
    _pair("reward", "Reward", "reward"),
    _pair("reward-spread", "Spread of rewards", "reward_std"),
    Chart("rewards", "Rewards in training", (Line("rewards/chosen", "good"), Line("rewards/rejected", "bad"))),
    Chart(
        "held-out-rewards", "Rewards, held out",
        (Line("eval_rewards/chosen", "good"), Line("eval_rewards/rejected", "bad")),
    ),
    Chart(
        "log-probabilities", "Log-probability in training",
        (Line("logps/chosen", "good"), Line("logps/rejected", "bad")),
    ),
    Chart(
        "held-out-log-probabilities", "Log-probability, held out",
        (Line("eval_logps/chosen", "good"), Line("eval_logps/rejected", "bad")),
    ),
    _pair("kl", "Distance from the start (KL)", "kl"),
    _pair("drift", "Drift of the answers, in nats", "logps/drift"),
    _pair("length", "Tokens an answer", "completions/mean_length"),
    _pair("cut-off", "Answers cut off", "completions/clipped_ratio", True),
    _pair("next-token", "Right next tokens", "mean_token_accuracy", True),
    Chart("entropy", "Entropy a token", (Line("entropy", "training"), Line("eval_entropy", "held out")), minor=True),
    _minor("speed", "Tokens a second", "tokens_per_second"),
    _minor("memory", "Memory, in GB", "memory_gb"),
    _minor("learning-rate", "Step size (learning rate)", "learning_rate"),
    _minor("gradient", "Length of the gradient", "grad_norm"),
)  # fmt: skip
SINGLE: tuple[Chart, ...] = tuple(  # one metric a chart, for runs that are laid over one another
    Chart(
        f"{chart.name}-of-runs-{i}",
        f"{chart.title}, {line.name}" if line.name else chart.title,
        (line,),
        chart.percent,
        chart.minor,
        chart.title,
    )
    for chart in CHARTS
    for i, line in enumerate(chart.lines, 1)
)
MOST_RUNS = len(COLOURS)  # laid over one another


class Look(NamedTuple):
    """What a person has zoomed into: a part of the steps (None = all) and the chart that stands large ('' = none)."""

    span: Point | None = None
    large: str = ""


def read_look(raw: str) -> Look:
    """What the page keeps of it; anything else is the whole."""
    try:
        told = json.loads(raw) if raw else {}
        low, high = (float(x) for x in told.get("span") or (0, 0))
        span = (low, high) if math.isfinite(low) and math.isfinite(high) and high > low >= 0 else None
        return Look(span, str(told.get("large", "")))
    except (ValueError, TypeError, AttributeError):
        return Look()


def charts(metrics: Points, look: Look = Look(), files: str = "", said: Mapping[str, str] = {}) -> Html:
    """All charts of one run, '' while there is nothing to draw. `files`: what a file's address ends with, '' = none offered;
    `said`: a sentence below a chart, by the chart's name."""
    rewarded = any("reward" in point for point in metrics)  # then the reward is what it is about
    ordered = sorted(CHARTS, key=lambda chart: chart.name != "reward") if rewarded else CHARTS
    drawn = [(chart, _own_lines(chart, metrics)) for chart in ordered]
    return _grid(drawn, _marks(metrics), look, files, said, f' <a href="./runs-compare?{files}">Compare with other runs</a>')


def overlaid(runs: Mapping[str, Points], look: Look = Look(), files: str = "") -> Html:
    """The same metric of several runs (by name) on each chart, one colour a run. What only one of them reports has nothing to be
    held against: it is named instead of drawn, unless there is only one run with figures yet."""
    drawn = [(chart, [line for line in _lines_of_runs(chart, runs) if line.points]) for chart in SINGLE]
    least = min(2, len({line.name for _, lines in drawn for line in lines}))
    shared = [(chart, lines) for chart, lines in drawn if len(lines) >= least]
    alone = [(chart, lines[0].name) for chart, lines in drawn if 0 < len(lines) < least]
    return Html(f"{_grid(shared, (), look, files)}{_left_out(alone)}")


def _left_out(alone: Sequence[tuple[Chart, str]]) -> str:
    """Which charts only one of the runs would be on, and which run."""
    if not alone:
        return ""
    titles: dict[str, list[str]] = {}
    for chart, run in alone:
        titles.setdefault(run, []).append(chart.whole)
    named = {run: list(dict.fromkeys(each)) for run, each in titles.items()}  # one name may stand for two: training, held out
    told = "; ".join(f"{run}: {', '.join(each)}" for run, each in named.items())
    total = sum(map(len, named.values()))
    are = "is" if total == 1 else "are"
    return (
        f'<p class="st-sub st-left-out">{figures(count(total, "chart"))} {are} left out, as only one of these runs reports '
        f"what would be on {'it' if total == 1 else 'them'}; the run's own page shows it. {esc(told)}.</p>"
    )


def chart_named(name: str) -> Chart:
    for chart in (*CHARTS, *SINGLE):
        if chart.name == name:
            return chart
    raise BadInput(f"There is no chart {name!r}.")


def as_svg(chart: Chart, runs: Mapping[str, Points]) -> str:
    """One chart of one or several runs as a file."""
    one = next(iter(runs.values())) if len(runs) == 1 else None
    lines = _own_lines(chart, one) if one is not None and chart in CHARTS else _lines_of_runs(chart, runs)
    shown = [line for line in lines if line.points]
    if not shown:
        raise BadInput("The run has reported nothing for this chart yet.")
    return standalone(Picture(chart.title, _whole(shown), chart.percent, LARGE, _marks(one or [])), shown)


def as_csv(runs: Mapping[str, Points], keys: Sequence[str] = ()) -> str:
    """Every point that was reported, a row a step and run; `keys` = all. What is no number is left empty."""
    found = [(name, event) for name, metrics in runs.items() for event in metrics if not event.get("resumed")]
    known = list(dict.fromkeys(key for _, event in found for key, value in event.items() if _is_number(value) and key != "step"))
    columns = [key for key in known if not keys or key in keys]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "step", *columns])
    for name, event in found:
        row = [event[key] if _is_number(event.get(key)) else "" for key in columns]
        if any(value != "" for value in row):
            writer.writerow([_plain(name), event.get("step", ""), *row])
    return out.getvalue()


def _plain(name: str) -> str:
    """A name that a spreadsheet takes for a text and not for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


# --- drawing --------------------------------------------------------------------------------------------------------------------


def _own_lines(chart: Chart, metrics: Points) -> list[Series]:
    return [Series(line.name, _points(metrics, line.key), number, line.exact) for number, line in enumerate(chart.lines)]


def _lines_of_runs(chart: Chart, runs: Mapping[str, Points]) -> list[Series]:
    return [
        Series(name, _points(metrics, chart.first.key), number, chart.first.exact)
        for number, (name, metrics) in enumerate(runs.items())
    ]


def _grid(
    charts: Sequence[tuple[Chart, Sequence[Series]]],
    marks: Sequence[float],
    look: Look,
    files: str,
    said: Mapping[str, str] = {},
    more: str = "",
) -> Html:
    every = [line for _, lines in charts for line in lines if line.points]
    if not every:
        return Html("")
    span = look.span or _whole(every)
    drawn: dict[bool, list[Html]] = {False: [], True: []}
    for chart, each in charts:
        large = look.large == chart.name
        size = LARGE if large else LOW if chart.minor else SMALL
        picture = Picture(chart.title, span, chart.percent, size, marks)
        below = _said(said.get(chart.name, "")) + (_save(chart, files) if large and files else "")
        drawn[chart.minor].append(figure(chart.name, picture, each, below))
    whole = _zoomed(look.span) if look.span else ""
    kept = esc(json.dumps(look._asdict()))
    minor = f'<div class="st-charts minor">{"".join(drawn[True])}</div>' if any(drawn[True]) else ""
    return Html(f'{whole}<div class="st-charts" data-look="{kept}">{"".join(drawn[False])}</div>{minor}{_all_numbers(files, more)}')


def _said(sentence: str) -> str:
    return f'<p class="st-below">{figures(sentence)}</p>' if sentence else ""


def _zoomed(span: Point) -> str:
    return (
        f'<p class="st-zoomed">Steps {span[0]:,.0f} to {span[1]:,.0f}. '
        '<button type="button" class="st-whole">Show all steps</button></p>'
    )


def _save(chart: Chart, files: str) -> str:
    svg = f"./charts/{chart.name}.svg?{files}"
    return (
        f'<p class="st-save"><a href="./charts/{chart.name}.csv?{files}" download>Save the numbers (CSV)</a>'
        f'<a href="{svg}" download>Save as SVG</a><a href="{svg}" data-png="{esc(chart.name)}">Save as PNG</a></p>'
    )


def _all_numbers(files: str, more: str) -> str:
    if not files:
        return ""
    return (
        '<p class="st-sub st-hint">Point at a chart to read exact values on all of them; drag across one to zoom into those steps. '
        f'<a href="./charts/all.csv?{files}" download>All numbers (CSV)</a>{more}</p>'
    )


def _whole(lines: Sequence[Series]) -> Point:
    """From the start (0, or the first step of a long run's kept part) to the last step of any line."""
    return 0.0, max(1.0, *(line.points[-1][0] for line in lines))


def _marks(metrics: Points) -> list[float]:
    """Steps from which the run was taken up again."""
    return [float(m["step"]) for m in metrics if m.get("resumed") and _is_number(m.get("step")) and m["step"] > 0]


def _points(metrics: Points, key: str) -> list[Point]:
    return list(_each_point(metrics, key))


def _each_point(metrics: Points, key: str) -> Iterator[Point]:
    for m in metrics:
        if _is_number(m.get(key)) and _is_number(m.get("step")) and not all_ties(m, key):
            yield float(m["step"]), float(m[key])


def all_ties(point: Mapping[str, Any], key: str = ACCURACY) -> bool:
    """Whether a share of pairs on which the good answer is preferred says nothing: no pair is preferred and the mean margin is
    exactly 0, so every pair is a tie, as before the first step that moves the model."""
    return key.endswith(ACCURACY) and point.get(key) == 0 and point.get(key.replace(ACCURACY, MARGIN)) == 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
