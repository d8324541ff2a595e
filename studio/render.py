"""Rows into HTML: everything a page draws that is not a form.

Every value passes through `esc`, so that a name or a text can hold anything; what a model wrote goes through
`studio.render_text`, which lets no raw HTML, image or live link out. Strings in, strings out: no database, no Gradio.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from data.records import Run
from data.words import count as count
from studio.render_text import MAX_SHOWN, render, said_of_cut

Tone = Literal["", "good", "warn", "bad"]
_FIGURE = re.compile(r"[+−-]?\d[\d,.]*(?:–\d[\d,.]*)?(?: %| s\b| min\b| h\b)|[+−-]?\d[\d,.]*–\d[\d,.]*")


def esc(value: object) -> str:
    return html.escape(str(value), quote=True)


class Html(str):
    """Markup made here, which `table` and `facts` let through as it is; every other cell is escaped."""


def figures(text: object) -> Html:
    """The text escaped, with each figure kept on one line with its unit: "43–56 %" never breaks in the middle."""
    return Html(_FIGURE.sub(lambda found: f'<span class="st-fig">{found[0]}</span>', esc(text)))


# --- words ---


def duration(seconds: float | None) -> str:
    """ "8 s", "2 min 05 s", "1 h 12 min"; '' for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(then: datetime | None, now: datetime | None = None) -> str:
    """ "just now", "5 min ago", "3 h ago", "2 days ago"; '' for None."""
    if then is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h ago"
    return f"{count(int(seconds // 86400), 'day')} ago"


def percent(share: float) -> str:
    """ "63 %"; one decimal where rounding would hide on which side of a half, of nothing or of everything a share is."""
    whole = round(100 * share)
    shown = f"{100 * share:.1f}" if whole in (0, 50, 100) and abs(100 * share - whole) >= 0.05 else f"{whole}"
    return f"{shown} %"


def percents(low: float, high: float) -> str:
    """ "43–56 %"."""
    return f"{percent(low).removesuffix(' %')}–{percent(high)}"


def shorten(text: str, limit: int = 160) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


# --- pieces ---


def note(text: str, tone: Tone = "", link: str = "", link_text: str = "") -> Html:
    """One sentence set apart, with a way on; `bad` and `warn` are also announced to a screen reader."""
    role = ' role="alert"' if tone in ("bad", "warn") else ' role="status"'
    go = f' <a href="./{esc(link)}">{esc(link_text)}</a>' if link_text else ""
    return Html(f'<span class="st-note {tone}"{role}>{figures(text)}{go}</span>') if text else Html("")


def notes(texts: Iterable[str], tone: Tone = "warn") -> Html:
    return Html("".join(note(text, tone) for text in texts))


def empty(text: str, link: str = "", link_text: str = "") -> Html:
    """What stands where rows will be, with the way to get some."""
    go = f' <a href="./{esc(link)}">{esc(link_text)}</a>' if link_text else ""
    return Html(f'<div class="st-empty">{esc(text)}{go}</div>')


def button(text: str, link: str, quiet: bool = False) -> Html:
    """A link that looks like a button; `link` is relative to the app's root. A file that is offered (`offers.py`) is saved."""
    saves = " download" if link.startswith("download/") else ""
    return Html(f'<a class="st-cta{" quiet" if quiet else ""}" href="./{esc(link)}"{saves}>{esc(text)}</a>')


def badge(status: str) -> Html:
    return Html(f'<span class="st-badge {esc(status)}">{esc(status)}</span>')


def tag(text: str) -> Html:
    return Html(f'<span class="st-tag">{esc(text)}</span>')


def facts(rows: Sequence[tuple[str, object, object]]) -> Html:
    """Name, value and a small line under it ('' for none)."""
    cells = "".join(
        f"<div><dt>{esc(name)}</dt><dd>{_cell(value)}{f'<small>{_cell(small, figures)}</small>' if small != '' else ''}</dd></div>"
        for name, value, small in rows
    )
    return Html(f'<dl class="st-facts">{cells}</dl>')


class Column(NamedTuple):
    """`kind`: num is right-aligned, tight never wraps, clip shows two lines. `wide`: left out on a phone."""

    title: str
    kind: Literal["", "num", "tight", "clip"] = ""
    wide: bool = False

    @property
    def css(self) -> str:
        return f"{self.kind if self.kind != 'clip' else ''} {'wide' if self.wide else ''}".strip()


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[object]],
    picked: int = -1,
    label: str = "",
    below: Mapping[int, Html] | None = None,
) -> Html:
    """A plain table; row number `picked` is marked, `below` holds what is opened under a row, by the row's number."""
    head = "".join(f'<th scope="col" class="{c.css}">{esc(c.title)}</th>' for c in columns)
    opened = {index: f'<tr><td colspan="{len(columns)}">{inner}</td></tr>' for index, inner in (below or {}).items()}
    body = "".join(_row(columns, row, index == picked) + opened.get(index, "") for index, row in enumerate(rows))
    name = f' aria-label="{esc(label)}"' if label else ""
    return Html(
        f'<div class="st-scroll"><table class="st-table"{name}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(columns: Sequence[Column], row: Sequence[object], picked: bool) -> str:
    cells = []
    for column, value in zip(columns, row, strict=True):
        inner = f'<div class="clip">{_cell(value)}</div>' if column.kind == "clip" else _cell(value)
        cells.append(f'<td class="{column.css}">{inner}</td>')
    return f'<tr class="{"picked" if picked else ""}">{"".join(cells)}</tr>'


def _cell(value: object, plain: Callable[[object], str] = esc) -> str:
    return value if isinstance(value, Html) else plain(value)


# --- the loop ---


class Step(NamedTuple):
    """One of the loop's five steps: `state` is done, now or later."""

    name: str
    number: str
    what: str
    link: str
    state: Literal["done", "now", "later"]


def loop(steps: Sequence[Step]) -> Html:
    """The five steps as a row of links; the one to do next is marked."""
    items = []
    for number, step in enumerate(steps, 1):
        current = ' aria-current="step"' if step.state == "now" else ""
        items.append(
            f'<li><a class="st-step {step.state}" href="./{esc(step.link)}"{current}><span class="name">'
            f'<span class="dot" aria-hidden="true">{"✓" if step.state == "done" else number}</span>{esc(step.name)}</span>'
            f'<span class="count">{esc(step.number)}</span><span class="what">{esc(step.what)}</span></a></li>'
        )
    return Html(f'<ol class="st-loop" aria-label="The loop">{"".join(items)}</ol>')


def next_step(title: str, text: str, action: str, link: str, others: Sequence[tuple[str, str]] = ()) -> Html:
    """The one thing to do now, as a sentence and a button; `others` are quieter (text, link)."""
    more = "".join(button(text_, link_, quiet=True) for text_, link_ in others)
    return Html(
        f'<div class="st-next"><div class="say"><h2>{esc(title)}</h2><p>{esc(text)}</p></div>{more}{button(action, link)}</div>'
    )


# --- runs ---


def bar(done: float | None) -> Html:
    """A progress bar; None where the share is not known yet."""
    if done is None:
        return Html('<div class="st-bar idle" role="progressbar"><span></span></div>')
    share = min(max(done, 0.0), 1.0)
    return Html(
        f'<div class="st-bar" role="progressbar" aria-valuenow="{round(100 * share)}" aria-valuemin="0" aria-valuemax="100">'
        f'<span style="width:{100 * share:.1f}%"></span></div>'
    )


def progress_line(run: Run) -> str:
    """ "step 12 of 40 · 8 s · about 20 s left", or what goes on before the first step; '' before the first sign of life."""
    p: dict[str, Any] = run.progress
    if not p.get("total"):
        return str(p.get("unit", ""))
    parts = [f"{p.get('unit', 'step')} {p['done']:,} of {p['total']:,}"]
    if p.get("seconds") is not None:
        parts.append(duration(p["seconds"]))
    if run.status == "running" and p.get("eta_s"):
        parts.append(f"about {duration(p['eta_s'])} left")
    return " · ".join(parts)


def run_link(run: Run) -> str:
    return f"runs?run={esc(run.run_id)}"


def share_done(run: Run) -> float | None:
    if run.status == "finished":
        return 1.0
    total = run.progress.get("total") if not run.progress.get("loading") else None
    return run.progress.get("done", 0) / total if total else None


def took(run: Run) -> str:
    """How long it ran, or has been running; of one that was gone on with all parts, without the pauses."""
    if run.started_at is None:
        return duration(run.earlier_s) if run.earlier_s else ""
    return duration(run.earlier_s + ((run.ended_at or datetime.now(UTC)) - run.started_at).total_seconds())


# --- answers ---


class Answer(NamedTuple):
    """A text under a heading; `side` stands at the right of the heading."""

    title: str
    text: str
    side: str = ""


def answers(shown: Sequence[Answer]) -> Html:
    """Texts side by side (one below the other on a phone), rendered as safe Markdown."""
    cards = "".join(
        f'<section class="st-answer" aria-label="{esc(a.title)}">'
        f"<header><span>{esc(a.title)}</span><span>{esc(a.side)}</span></header>"
        f'<div class="text">{safe_text(a.text)}</div></section>'
        for a in shown
    )
    return Html(f'<div class="st-answers">{cards}</div>')


def safe_text(text: str) -> Html:
    """What a model or a file wrote, as HTML that can neither load nor run anything."""
    shown = render(text)
    return Html(shown.html + (f'<p class="st-muted st-small">{esc(shown.note)}</p>' if shown.note else ""))


def quote(text: str, who: str = "") -> Html:
    """A prompt's turn as it was written; `who` says whose it is, '' for the person who asks."""
    note = said_of_cut(text)
    said = f'<p class="st-quote">{f"<b>{esc(who)}:</b> " if who else ""}{esc(text[:MAX_SHOWN])}</p>'
    return Html(said + (f'<p class="st-muted st-small">{esc(note)}</p>' if note else ""))


def win_bar(rate: float, low: float, high: float, left: str, right: str) -> Html:
    """A win rate between 0 and 1 with its interval on a line whose middle is "no difference"."""
    return Html(
        '<div class="st-win" aria-hidden="true"><div class="track"></div><div class="half"></div>'
        f'<div class="span" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></div>'
        f'<div class="at" style="left:{100 * rate:.1f}%"></div></div>'
        f'<div class="st-win-ends"><span>{esc(left)}</span><span>50 %</span><span>{esc(right)}</span></div>'
    )
