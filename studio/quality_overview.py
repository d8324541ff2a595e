"""The Overview tab of the Quality page as HTML: coverage, pace, and each annotator. Pure functions.

People appear by the name they have here on the page, and by their pseudonym in every CSV.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from data.records import Project
from labeling.intervals import Share
from labeling.overview import DAYS, SECONDS_EDGES, Annotator, Overview
from studio import quality_words as words
from studio.quality_plots import Bar, bars
from studio.render import Column, Html, ago, count, empty, facts, notes, percent
from studio.sheet import Sheet, draw

MOST_PEOPLE = 100
MOST_LABELS = 12  # of an item, with a bar of their own


class Names(NamedTuple):
    """`shown`: an annotator's name on the page; `pseudonym`: the one in files."""

    shown: Mapping[str, str]
    pseudonym: Callable[[str], str]

    def of(self, annotator_id: str) -> str:
        return self.shown.get(annotator_id) or self.pseudonym(annotator_id)


def overview(seen: Overview, project: Project, names: Names) -> Html:
    if not seen.items:
        return empty("There is nothing to label yet.", "data?tab=generate", "Get answers first")
    if not seen.labels and not seen.skips:
        return empty("Nobody has labelled yet.", "label", "Label the first answers")
    left_out = notes([f"{count(seen.excluded, 'label')} left out by a researcher; see Flagged."] if seen.excluded else [], "")
    return Html(
        f'<div class="st-stack"><div class="st-card">{facts(_facts(seen, project))}</div>{left_out}'
        f'<div class="st-charts">{_days(seen)}{_covered(seen)}{_seconds(seen)}</div>'
        f"{draw(_annotators(seen.annotators, names), 'annotators')}"
        '<p class="st-sub"><a href="./project">How this project is labelled</a>: guidelines, labels an item, checks.</p></div>'
    )


def _facts(seen: Overview, project: Project) -> list[tuple[str, object, object]]:
    done = seen.items - seen.open_items
    other = [f"{n:,} {name}" for n, name in ((seen.imported, "imported"), (seen.simulated, "simulated")) if n]
    flags = [(n, words.FLAG_NAMES[flag]) for flag, n in list(seen.flags.items())[:3]]
    flagged = f"all {flags[0][1]}" if len(flags) == 1 and flags[0][0] > 1 else ", ".join(f"{n:,} {name}" for n, name in flags)
    target = project.settings.target
    rows: list[tuple[str, object, object]] = [
        ("Labels", f"{seen.labels:,}", ", ".join([f"{count(seen.skips, 'skip')} besides", *other])),
        ("Items with enough labels", f"{done:,} of {seen.items:,}", percent(done / seen.items)),
        (
            "Still wanted",
            count(seen.wanted, "label"),
            f"until all of {count(seen.items, 'item')} have enough" if seen.open_items else "nothing is open",
        ),
        ("Flagged", count(sum(seen.flags.values()), "flag"), flagged or "nothing to look at"),
    ]
    if target:
        rows.insert(1, ("Target", f"{target:,}", percent(min(seen.labels / target, 1.0)) + " reached"))
    return rows


def _days(seen: Overview) -> Html:
    every = max(1, len(seen.days) // 8)
    shown = [
        Bar(f"{day:%d %b}" if i % every == 0 else "", n, f"{day:%d %b}: {count(n, 'label')}")
        for i, (day, n) in enumerate(seen.days)
    ]
    return bars(f"Labels a day, the last {DAYS} days" if len(seen.days) == DAYS else "Labels a day", shown)


def _covered(seen: Overview) -> Html:
    counts = seen.items_by_labels
    shown = [Bar(str(k), n, f"{count(n, 'item')} with {count(k, 'label')}") for k, n in enumerate(counts[:MOST_LABELS])]
    if len(counts) > MOST_LABELS:
        more = sum(counts[MOST_LABELS:])
        shown.append(Bar(f"{MOST_LABELS}+", more, f"{count(more, 'item')} with {count(MOST_LABELS, 'label')} or more"))
    return bars("Items by number of labels", shown)


def _seconds(seen: Overview) -> Html:
    edges = SECONDS_EDGES
    shown = [
        Bar(
            f"{low:g}" if i % 2 == 0 else "",
            n,
            f"{count(n, 'label')} in {low}{f'–{edges[i + 1]}' if i + 1 < len(edges) else ' or more'} s",
        )
        for i, (low, n) in enumerate(zip(edges, seen.seconds, strict=False))
    ]
    return bars("Seconds a label", shown)


def _annotators(found: Sequence[Annotator], names: Names) -> Sheet:
    columns = [
        Column("Annotator"), Column("Labels", "num"), Column("Skips", "num", wide=True), Column("Seconds a label", "num"),
        Column("Known items right", "num"), Column("Same when repeated", "num"), Column("Flagged", "num"),
        Column("Last", "num", wide=True),
    ]  # fmt: skip
    rows = [
        (
            names.of(a.annotator_id) + (" (simulated)" if a.is_simulated else ""), f"{a.labels:,}", f"{a.skips:,}",
            words.seconds(a.seconds), words.short_share(a.gold), words.short_share(a.consistency), words.short_share(a.flagged),
            ago(a.last),
        )
        for a in found
    ]  # fmt: skip
    raw = [
        (
            names.pseudonym(a.annotator_id), a.labels, a.skips, a.seconds.median, a.seconds.low_quartile, a.seconds.high_quartile,
            a.seconds.n, *_raw(a.gold), *_raw(a.consistency), *_raw(a.flagged), a.is_simulated,
            a.last.isoformat(timespec="seconds"),
        )
        for a in found
    ]  # fmt: skip
    head = ["annotator", "labels", "skips", "seconds_median", "seconds_low_quartile", "seconds_high_quartile", "seconds_n"]
    for measure in ("gold", "consistency", "flagged"):
        head += [measure, f"{measure}_low", f"{measure}_high", f"{measure}_n"]
    return Sheet("Annotators", columns, rows, [*head, "simulated", "last"], raw, MOST_PEOPLE)


def _raw(of: Share) -> tuple[object, ...]:
    return of.value, of.low, of.high, of.n
