"""The Bias tab of the Quality page where answers are shown one at a time. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from labeling.bias_binary import BinaryCard
from labeling.bias_card import Effect
from labeling.intervals import Share
from labeling.label_report import BinaryCards
from studio import quality_words as words
from studio.quality_bias import cell, who_stands_out
from studio.quality_overview import MOST_PEOPLE, Names
from studio.quality_plots import Interval, intervals
from studio.render import Column, Html, empty, esc
from studio.sheet import Sheet, draw

SIGNS = (
    "Answers are shown one at a time here, so no side is drawn by lot and nothing proves a bias by itself: a longer answer may be "
    "the better one. Compare people with each other. Who stands out has p below 0.05 after correction for the number of people."
)
MEASURES = (
    ("good", "Called good", "of all labels but skips"),
    ("length", "Pull of length", "log-odds of “good” for one typical distance from the typical length"),
    ("markdown", "Pull of Markdown", "the same for how much Markdown an answer uses"),
    ("changed", "Changed their mind", "of answers shown again"),
    ("gold", "Right on known items", "at least 80 % is expected"),
)


def bias(found: BinaryCards, names: Names) -> Html:
    project, annotators = found.report.project, found.report.annotators
    if not project.n_labels:
        return empty("Biases show in labels given here, and there are none yet.", "label", "Label the first answers")
    said = who_stands_out(annotators, found.people, names)
    return Html(
        f'<div class="st-stack">{said}{_project_card(project)}{_good(project, annotators, found.people, names)}'
        f"{_cards(annotators, found.people, names)}"
        f'<p class="st-sub">{esc(SIGNS)}</p></div>'
    )


def _project_card(card: BinaryCard) -> Html:
    told = words.binary_verdicts(card)
    columns = [
        Column("Everybody together"), Column("Value (95 % interval)", "num"), Column("Labels", "num", wide=True),
        Column("Needed", "num", wide=True), Column("What it is", wide=True),
    ]  # fmt: skip
    rows: list[tuple[object, ...]] = []
    raw: list[tuple[object, ...]] = []
    for field, name, says in MEASURES:
        of: Share | Effect = getattr(card, field)
        verdict = told.get(field, "") or (of.note if of.value is None else "")
        rows.append((name, cell(of, verdict), f"{of.n:,}", f"{of.n_needed:,}" if of.n_needed else "–", says))
        raw.append((field, of.value, of.low, of.high, of.n, of.n_needed, of.effect, of.p, told.get(field, "")))
    took = card.seconds
    rows.append(("Seconds a label", words.seconds(took), f"{took.n:,}", "–", "median and quartiles"))
    raw.append(("seconds", took.median, took.low_quartile, took.high_quartile, took.n, None, "", None, ""))
    head = ["measure", "value", "low", "high", "n", "n_needed", "effect_that_n_needed_would_show", "p", "verdict"]
    return draw(Sheet("Bias card of the project", columns, rows, head, raw), "bias-project")


def _good(project: BinaryCard, annotators: Sequence[BinaryCard], people: Sequence[str], names: Names) -> Html:
    shown = [_interval("Everybody", project)] if project.good.value is not None else []
    shown += [
        _interval(names.of(people[card.annotator]), card)
        for card in sorted(annotators, key=lambda card: -card.n_labels)[:20]
        if card.annotator is not None and card.good.value is not None
    ]
    return intervals("How often an answer was called good", shown, "the dashed line is 50 %") if shown else Html("")


def _interval(name: str, card: BinaryCard) -> Interval:
    of = card.good
    return Interval(name, of.value or 0.0, of.low or 0.0, of.high or 0.0, words.share(of))


def _cards(annotators: Sequence[BinaryCard], people: Sequence[str], names: Names) -> Html:
    columns = [
        Column("Annotator"), Column("Called good", "num"), Column("Length", "num"), Column("Markdown", "num"),
        Column("Changed", "num"), Column("Gold right", "num"), Column("Seconds", "num", wide=True),
    ]  # fmt: skip
    rows, raw = [], []
    for card in sorted(annotators, key=lambda card: -card.n_labels):
        if card.annotator is None:
            continue
        told = words.binary_verdicts(card)
        who = people[card.annotator]
        cells = [cell(getattr(card, field), told.get(field, "")) for field, _, _ in MEASURES]
        rows.append((names.of(who), *cells, words.seconds(card.seconds)))
        values: list[object] = [names.pseudonym(who), card.n_labels, card.n_skips]
        for field, _, _ in MEASURES:
            of = getattr(card, field)
            values += [of.value, of.low, of.high, of.n, of.p_adjusted]
        raw.append((*values, card.seconds.median, card.seconds.low_quartile, card.seconds.high_quartile))
    head = ["annotator", "labels", "skips"]
    for field, _, _ in MEASURES:
        head += [field, f"{field}_low", f"{field}_high", f"{field}_n", f"{field}_p_adjusted"]
    head += ["seconds_median", "seconds_low_quartile", "seconds_high_quartile"]
    return draw(Sheet("Bias card of each annotator", columns, rows, head, raw, MOST_PEOPLE), "bias-annotators")
