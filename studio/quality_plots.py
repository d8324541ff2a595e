"""Plots of the Quality page: bars and intervals, drawn by the server like those of runs (`studio/plots.py` says why)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studio.plots import ticks
from studio.render import Html, esc

WIDTH, HEIGHT = 360, 180
LEFT, RIGHT, TOP, BOTTOM = 36, 6, 10, 26
WIDEST = 48.0  # of a bar


class Bar(NamedTuple):
    """`label` is written under it ('' for none), `says` is shown under the pointer."""

    label: str
    n: int
    says: str


class Interval(NamedTuple):
    """A share with its interval, in [0, 1]; `text` stands beside it."""

    name: str
    value: float
    low: float
    high: float
    text: str
    stands_out: bool = False


def bars(title: str, shown: Sequence[Bar]) -> Html:
    """A figure of upright bars; '' without any."""
    if not shown:
        return Html("")
    marks = ticks(0.0, float(max(bar.n for bar in shown)) or 1.0, wanted=4)
    step = (WIDTH - LEFT - RIGHT) / len(shown)
    wide = min(0.8 * step, WIDEST)

    def y(n: float) -> float:
        return HEIGHT - BOTTOM - n / marks[-1] * (HEIGHT - TOP - BOTTOM)

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(t) + 3.5:.1f}" text-anchor="end">{_short(t)}</text>'
        for t in marks
    )
    drawn = "".join(
        f'<rect class="k0" x="{LEFT + (i + 0.5) * step - wide / 2:.1f}" y="{y(bar.n):.1f}" width="{wide:.1f}" '
        f'height="{HEIGHT - BOTTOM - y(bar.n):.1f}"><title>{esc(bar.says)}</title></rect>'
        + (
            f'<text x="{LEFT + (i + 0.5) * step:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{esc(bar.label)}</text>'
            if bar.label
            else ""
        )
        for i, bar in enumerate(shown)
    )
    most = max(shown, key=lambda bar: bar.n)
    return Html(
        f'<figure class="st-chart"><figcaption>{esc(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{esc(title)}; most: {esc(most.says)}">{grid}{drawn}</svg></figure>'
    )


def intervals(title: str, shown: Sequence[Interval], middle: str) -> Html:
    """A line each: where the share lies between 0 and 1, with the interval, around a dashed half called `middle`."""
    lines = "".join(
        f'<li><span class="name">{esc(each.name)}</span><span class="line{" out" if each.stands_out else ""}" aria-hidden="true">'
        f'<i class="span" style="left:{100 * each.low:.1f}%;width:{100 * (each.high - each.low):.1f}%"></i>'
        f'<i class="at" style="left:{100 * each.value:.1f}%"></i></span><span class="text">{esc(each.text)}</span></li>'
        for each in shown
    )
    return Html(
        f'<figure class="st-chart st-intervals"><figcaption>{esc(title)}<span class="st-muted">{esc(middle)}</span></figcaption>'
        f"<ul>{lines}</ul></figure>"
    )


def _short(n: float) -> str:
    return f"{n / 1000:g}k" if n >= 1000 else f"{n:g}"
