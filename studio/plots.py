"""Charts of a run's metrics, drawn here as SVG: one line a metric, its axes, and the values under the pointer.

Drawn by the server because a charting library is 4.6 MB of script in every browser: measured on two cores beside a training
run, the first chart stood twelve seconds after the page. A chart here is a few KB, has the page's own colours in light and
dark, and changes without a flicker while a run goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from studio.render import Html, esc

MAX_POINTS = 300  # a chart of a long run is thinned to so many
WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 26

Point = tuple[float, float]


class Line(NamedTuple):
    """A metric's key in the run's events, and its name in the chart."""

    key: str
    name: str


class Chart(NamedTuple):
    title: str
    lines: tuple[Line, ...]
    percent: bool = False


LOSS = Chart("Loss", (Line("loss", "training"), Line("eval_loss", "held out")))
MARGIN = Chart("Reward margin", (Line("rewards/margins", "training"), Line("eval_rewards/margins", "held out")))
ACCURACY = Chart("Accuracy", (Line("rewards/accuracies", "training"), Line("eval_rewards/accuracies", "held out")), True)
REWARDS = Chart("Rewards", (Line("rewards/chosen", "good answers"), Line("rewards/rejected", "bad answers")))
TOKENS = Chart("Right next tokens", (Line("mean_token_accuracy", "training"), Line("eval_mean_token_accuracy", "held out")), True)
ODDS = Chart("Log odds of good over bad", (Line("log_odds_chosen", "training"), Line("eval_log_odds_chosen", "held out")))
IMITATION = Chart("Loss of imitation", (Line("nll_loss", "training"), Line("eval_nll_loss", "held out")))
CHARTS: dict[str, tuple[Chart, ...]] = {
    "sft": (LOSS, TOKENS),
    "dpo": (LOSS, MARGIN, ACCURACY),
    "kto": (LOSS, MARGIN, REWARDS),
    "orpo": (LOSS, IMITATION, ODDS, ACCURACY),
    "simpo": (LOSS, IMITATION, MARGIN, ACCURACY),
}

# Shows the step and the values nearest to the pointer.
_HOVER = """
const tip = document.createElement('div');
tip.className = 'st-tip';
element.append(tip);
element.addEventListener('pointermove', e => {
  const svg = e.target.closest('svg[data-lines]');
  if (!svg) { tip.style.display = 'none'; return; }
  const box = svg.getBoundingClientRect(), [x0, x1] = JSON.parse(svg.dataset.span);
  const at = x0 + ((e.clientX - box.left) / box.width * WIDTH - LEFT) / INNER * (x1 - x0);
  const lines = JSON.parse(svg.dataset.lines).map(line => {
    const p = line.points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
    const y = svg.dataset.percent ? (100 * p[1]).toFixed(0) + ' %' : Number(p[1].toPrecision(3));
    return line.name + ' ' + y + (line.points.length > 1 ? ' at step ' : ', step ') + p[0];
  });
  tip.textContent = lines.join(' · ');
  const own = element.getBoundingClientRect();
  tip.style.display = 'block';
  tip.style.left = Math.min(Math.max(0, e.clientX - own.left - tip.offsetWidth / 2), own.width - tip.offsetWidth) + 'px';
  tip.style.top = (box.top - own.top - 4) + 'px';
});
element.addEventListener('pointerleave', () => { tip.style.display = 'none'; });
"""
HOVER = _HOVER.replace("WIDTH", str(WIDTH)).replace("LEFT", str(LEFT)).replace("INNER", str(WIDTH - LEFT - RIGHT))


def charts(kind: str, metrics: Sequence[Mapping[str, Any]]) -> Html:
    """The charts of a run of this kind side by side, '' while there is nothing to draw."""
    drawn = [svg for chart in CHARTS.get(kind, ()) if (svg := draw(chart, metrics))]
    return Html(f'<div class="st-charts">{"".join(drawn)}</div>') if drawn else Html("")


def draw(chart: Chart, metrics: Sequence[Mapping[str, Any]]) -> Html:
    """One chart as a figure; '' when none of its metrics has been reported."""
    lines = [(line.name, thin(_points(metrics, line.key))) for line in chart.lines]
    lines = [(name, points) for name, points in lines if points]
    if not lines:
        return Html("")
    xs, ys = [x for _, points in lines for x, _ in points], [y for _, points in lines for _, y in points]
    x_span, y_ticks = (min(0.0, *xs), max(*xs, 1.0)), ticks(0.0, 1.0) if chart.percent else ticks(min(ys), max(ys))
    scale = _Scale(x_span, (y_ticks[0], y_ticks[-1]))
    shapes = [_grid(scale, y_ticks, chart.percent), *(_line(scale, points, number) for number, (_, points) in enumerate(lines))]
    data = json.dumps([{"name": name, "points": points} for name, points in lines])
    keys = "".join(f'<span class="st-key k{number}">{esc(name)}</span>' for number, (name, _) in enumerate(lines))
    last = ", ".join(f"{name} {_label(points[-1][1], chart.percent)}" for name, points in lines)
    return Html(
        f'<figure class="st-chart"><figcaption>{esc(chart.title)}<span>{keys if len(lines) > 1 else ""}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(chart.title)}: {esc(last)}" data-lines="{esc(data)}" '
        f'data-span="{esc(json.dumps(x_span))}" data-percent="{"1" if chart.percent else ""}">{"".join(shapes)}</svg></figure>'
    )


class _Scale(NamedTuple):
    """From values to places in the picture."""

    x: Point
    y: Point

    def at(self, x: float, y: float) -> Point:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _grid(scale: _Scale, y_ticks: Sequence[float], percent: bool) -> str:
    rows = []
    for tick in y_ticks:
        _, y = scale.at(scale.x[0], tick)
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        rows.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{esc(_label(tick, percent))}</text>')
    for tick in (t for t in ticks(*scale.x, wanted=4) if scale.x[0] <= t <= scale.x[1]):
        x, _ = scale.at(tick, scale.y[0])
        rows.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{esc(_label(tick, False))}</text>')
    return "".join(rows)


def _line(scale: _Scale, points: Sequence[Point], number: int) -> str:
    places = [scale.at(x, y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = places if len(places) < 12 else places[-1:]
    marks = "".join(f'<circle class="k{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
    return f'<polyline class="k{number}" points="{path}"/>{marks}'


def _points(metrics: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    return [(float(m["step"]), float(m[key])) for m in metrics if _is_number(m.get(key)) and _is_number(m.get("step"))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _label(value: float, percent: bool) -> str:
    return f"{100 * value:.0f} %" if percent else f"{value:.3g}"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], about so many."""
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / (wanted - 1)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def thin(points: list[Point]) -> list[Point]:
    """At most MAX_POINTS of them, first and last included."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(MAX_POINTS)]
