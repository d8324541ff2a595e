"""Curves drawn here as SVG: lines over steps, their axes, and the exact values under the pointer.

Why not plotly through `gr.Plot`, with its zoom, hover and PNG: measured with Gradio 6.31, it is 4.6 MB of script (1.4 MB
compressed) in every browser; on two cores beside a training run the first chart stood twelve seconds after the page, a phone
pays more, each refresh sends the whole figure and forgets the zoom, and its colours do not follow the page's light and dark.
In the web process it costs half a second and 17 MB, which would not decide it. A chart here is a few KB and changes in place.
What plotly's users would miss is built instead: exact values on all charts at the same step (pointer, finger or arrow keys),
zoom by dragging (the server draws the part anew, so that thinned points come back), a large view, CSV, SVG and PNG.

Pure: numbers in, markup out. Which metric belongs on which chart stands in `run_charts.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from data.words import number
from studio.render import Html, esc

MAX_POINTS = 200  # a line is thinned to so many; zooming in brings the others back
SMOOTH_FROM = 20  # points: fewer are drawn as they are
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 12, 26

Point = tuple[float, float]


class Series(NamedTuple):
    """One line. `colour` numbers the palette; `exact` is drawn with its points (held-out figures), else noise is smoothed."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    exact: bool = False


class Size(NamedTuple):
    width: int
    height: int


SMALL, LOW, LARGE = Size(360, 210), Size(360, 130), Size(1060, 420)


class Picture(NamedTuple):
    """What `draw` needs beside the lines: `x` is the span of steps that all charts share, `marks` are steps with a dotted line."""

    title: str
    x: Point
    percent: bool = False
    size: Size = SMALL
    marks: Sequence[float] = ()


def figure(name: str, picture: Picture, lines: Sequence[Series], below: str = "") -> Html:
    """One chart with its title, the last values and a button that enlarges it; '' where there is nothing to draw."""
    shown = [line for line in lines if line.points]
    if not shown:
        return Html("")
    large = picture.size == LARGE
    act = "Close the large view" if large else "Show it large"
    step = f"step {_last(shown):g}"
    return Html(
        f'<figure class="st-chart{" large" if large else ""}" data-chart="{esc(name)}"><figcaption>'
        f'<span>{esc(picture.title)}</span><span class="st-at" data-last="{step}">{step}</span>'
        f'<button type="button" class="st-enlarge" title="{act}" aria-label="{esc(picture.title)}: {act.lower()}">'
        f"{'✕' if large else '⤢'}</button></figcaption>{_legend(picture, shown)}{svg(picture, shown)}{below}</figure>"
    )


def _legend(picture: Picture, lines: Sequence[Series]) -> str:
    """Each line's name with its last value; the script puts the value under the pointer there."""
    keys = []
    for line in lines:
        last = exact(line.points[-1][1], picture.percent)
        name = f"{esc(line.name)} " if len(lines) > 1 else ""
        keys.append(f'<span class="st-key k{line.colour}">{name}<b data-last="{esc(last)}">{esc(last)}</b></span>')
    return f'<p class="st-keys{"" if len(lines) > 1 else " one"}">{"".join(keys)}</p>'


def _last(lines: Sequence[Series]) -> float:
    return max(line.points[-1][0] for line in lines)


def values(picture: Picture, lines: Sequence[Series]) -> str:
    """The last value of each line in words: "step 40: training 0.412, held out 0.55"."""
    named = len(lines) > 1
    told = (f"{line.name + ' ' if named else ''}{exact(line.points[-1][1], picture.percent)}" for line in lines)
    return f"step {_last(lines):g}: {', '.join(told)}"


def svg(picture: Picture, lines: Sequence[Series]) -> Html:
    """The drawing alone."""
    seen = [(line, _within(line.points, picture.x)) for line in lines]
    ys = [y for _, points in seen for _, y in points]
    y_ticks = (
        ticks(0.0, 1.0) if picture.percent else ticks(min(ys, default=0.0), max(ys, default=1.0), 3 if picture.size == LOW else 5)
    )
    scale = _Scale(picture.x, (y_ticks[0], y_ticks[-1]), picture.size)
    shapes = [_grid(scale, y_ticks, picture)]
    shapes += [_line(scale, line, points) for line, points in seen if points]
    shapes.append(f'<line class="cross" y1="{TOP}" y2="{picture.size.height - BOTTOM}" visibility="hidden"/>')
    data = [{"name": line.name, "points": [[x, _short(y)] for x, y in thin(points)]} for line, points in seen]
    frame = {"x": picture.x, "y": scale.y, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM, "size": picture.size}
    return Html(
        f'<svg viewBox="0 0 {picture.size.width} {picture.size.height}" role="img" tabindex="0" '
        f'aria-label="{esc(picture.title)}, {esc(values(picture, lines))}" data-lines="{esc(json.dumps(data))}" '
        f'data-frame="{esc(json.dumps(frame))}" data-percent="{"1" if picture.percent else ""}">{"".join(shapes)}</svg>'
    )


def standalone(picture: Picture, lines: Sequence[Series]) -> str:
    """The drawing as a file of its own, on white, with title and legend."""
    width, height = picture.size
    keys, x = [], LEFT
    for line in lines:
        keys.append(f'<rect class="k{line.colour}" x="{x}" y="34" width="14" height="3"/>')
        keys.append(f'<text x="{x + 20}" y="39">{esc(line.name)}</text>')
        x += 40 + 7 * len(line.name)
    inner = svg(picture, lines)
    body = inner[inner.index(">") + 1 : inner.rindex("</svg>")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + 64}" viewBox="0 0 {width} {height + 64}">'
        f"<style>{_STYLE}</style><rect width='100%' height='100%' fill='#fff'/>"
        f'<text class="title" x="{LEFT}" y="22">{esc(picture.title)}</text>{"".join(keys)}'
        f'<g transform="translate(0 46)">{body}<text x="{width - RIGHT}" y="{height + 8}" text-anchor="end">step</text></g></svg>'
    )


COLOURS = ("#17897e", "#b8641f", "#5a55c9", "#b23a6b", "#5f7a12", "#2a6fb0")  # the light page's; `studio.css` has the dark ones
_STYLE = (
    "text{font:12px sans-serif;fill:#52605b}.title{font-size:15px;font-weight:600;fill:#191f1d}.grid{stroke:#e1e5e3}"
    ".mark{stroke:#98a29e;stroke-dasharray:2 4}polyline{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".raw{stroke-width:1;opacity:.3}"
    + "".join(f"polyline.k{i}{{stroke:{c}}}circle.k{i},rect.k{i}{{fill:{c}}}" for i, c in enumerate(COLOURS))
)


class _Scale(NamedTuple):
    """From values to places in the picture."""

    x: Point
    y: Point
    size: Size

    def at(self, x: float, y: float) -> Point:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (self.size.width - LEFT - RIGHT), self.size.height - BOTTOM - up * (self.size.height - TOP - BOTTOM)


def _grid(scale: _Scale, y_ticks: Sequence[float], picture: Picture) -> str:
    width, height = picture.size
    rows = []
    for tick in y_ticks:
        _, y = scale.at(scale.x[0], tick)
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        rows.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{esc(_label(tick, picture.percent))}</text>')
    inside = [t for t in ticks(*scale.x, wanted=10 if picture.size == LARGE else 4) if scale.x[0] <= t <= scale.x[1]]
    for tick in inside:
        x, _ = scale.at(tick, scale.y[0])
        rows.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{esc(_label(tick, False))}</text>')
    for mark in (m for m in picture.marks if scale.x[0] <= m <= scale.x[1]):
        x, _ = scale.at(mark, scale.y[0])
        rows.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    return "".join(rows)


def _line(scale: _Scale, line: Series, points: Sequence[Point]) -> str:
    """The line; where noise was smoothed, the points themselves faintly under it."""
    smoothed = smooth(points) if not line.exact and len(points) >= SMOOTH_FROM else points
    under = _polyline(scale, thin(points), f"raw k{line.colour}") if smoothed is not points else ""
    kept = thin(smoothed)
    places = [scale.at(x, y) for x, y in kept]
    dots = places if len(places) < 12 or (line.exact and len(places) < 30) else places[-1:]
    marks = "".join(f'<circle class="k{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
    return under + _polyline(scale, kept, f"k{line.colour}") + marks


def _polyline(scale: _Scale, points: Sequence[Point], css: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (scale.at(*point) for point in points))
    return f'<polyline class="{css}" points="{path}"/>'


def _within(points: Sequence[Point], span: Point) -> list[Point]:
    return [point for point in points if span[0] <= point[0] <= span[1]]


def _label(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.0f} %"
    return number(value, ",.0f" if 1000 <= abs(value) < 1e6 else ".3g")


def exact(value: float, percent: bool) -> str:
    """A value as it is read off: four digits, or percent with one decimal."""
    return f"{100 * value:.1f} %" if percent else number(value, ".4g")


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def smooth(points: Sequence[Point]) -> list[Point]:
    """An exponential moving average over about a twentieth of the points, without the usual pull towards the first value."""
    keep = 1 - 2 / (max(4.0, len(points) / 20) + 1)
    total = weight = 0.0
    found = []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        found.append((x, total / weight))
    return found


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], about so many."""
    if high - low < 1e-9 * max(1e-6, abs(low)):
        low, high = (low - 0.5, high + 0.5) if low == high == 0 or abs(low) >= 0.01 else (low - abs(low) / 2, high + abs(high) / 2)
    rough = (high - low) / (wanted - 1)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.12g}") for i in range(first, last + 1)]


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most so many of them, first and last included."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]
