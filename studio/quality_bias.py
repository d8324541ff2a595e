"""The Bias tab of the Quality page as HTML: the human bias card of the project and of each annotator, for pairs and for answers
shown one at a time. Pure functions.

A measure is red only when it is a finding (`labeling.bias_card.stands_out`) and wrong whatever the answers say. A finding that may
have a good reason, such as longer answers being the better ones, is only set off; what cannot be told yet is muted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labeling.bias_binary import BinaryCard
from labeling.bias_card import BiasCard, Effect, stands_out
from labeling.intervals import Share
from labeling.label_report import Cards
from studio import quality_words as words
from studio.quality_overview import MOST_PEOPLE, Names
from studio.quality_plots import Interval, intervals
from studio.render import Column, Html, empty, esc, note
from studio.sheet import Sheet, draw

MOST_SIGNS = 20
MOST_LINES = 20  # people in the figure
AnyCard = BiasCard | BinaryCard


class Measure(NamedTuple):
    """`column`: its heading in the table of annotators, '' = only in the file. `told`: what is said when it is above, below, and
    neither; None = a figure that nothing is said of. `is_fault`: whether a finding is wrong whatever the answers say."""

    field: str
    name: str
    says: str
    column: str = ""
    told: words.Told | None = None
    is_fault: bool = False


class Card(NamedTuple):
    """How a kind of card is shown. `share`: the field of the figure. `counts`: the numbers of labels in the file. `signs` is said
    of findings, `reads` whether or not there are any."""

    measures: Sequence[Measure]
    share: str
    figure: str
    counts: Sequence[str]
    signs: str
    reads: str = ""


def _pull(of: str, says: str, more: str, less: str) -> Measure:
    """How looks sway people, which is not in itself a fault."""
    return Measure(of.lower(), f"Pull of {of}", says, of[:1].upper() + of[1:], words.Told(more, less, f"{of} hardly matters"))


_GOLD = Measure(
    "gold", "Right on known items", "at least 80 % is expected", "Known items right",
    words.Told("right on known items", "often wrong on known items", "right on known items"), True,
)  # fmt: skip
PAIRS = Card(
    measures=(
        Measure(
            "left", "A (left) chosen", "of labels that chose A or B; sides are drawn by lot, so 50 % is fair", "A (left)",
            words.Told("leans to A (left)", "leans to B (right)", "no lean"), True,
        ),
        Measure(
            "side", "Pull of A (left)", "log-odds, at equal length and Markdown", "",
            words.Told("leans to A (left) at equal looks", "leans to B (right) at equal looks", "no lean"), True,
        ),
        _pull(
            "length", "log-odds for one typical difference in length; longer answers may be better",
            "favours longer answers", "avoids longer answers",
        ),
        _pull(
            "Markdown", "log-odds for one typical difference in Markdown", "favours more Markdown", "avoids Markdown"
        ),
        Measure("longer", "Longer answer chosen", "longer answers may well be better"),
        Measure(
            "flips", "Changed with the side", "of pairs shown again with sides swapped; two people differ on 34 %",
            "Changed with side",
            words.Told("answers change with the side", "changes less than two people differ", "no more than two people differ"),
            True,
        ),
        Measure("tie", "Tie", "of all labels but skips"),
        Measure("both_bad", "Both bad", "of all labels but skips"),
        _GOLD,
    ),
    share="left",
    figure="How often A (left) was chosen",
    counts=("labels", "decisive", "skips"),
    signs="These are signs to look into, no verdict on a person: p is below 0.05 after correction for the number of people, and "
    "the interval leaves out what is fair. A bias that is marked “too few to tell” may well be there.",
)  # fmt: skip
SINGLES = Card(
    measures=(
        Measure("good", "Called good", "of all labels but skips", "Called good"),
        _pull(
            "length", "log-odds of “good” for one typical distance from the typical length",
            "calls longer answers good", "calls shorter answers good",
        ),
        _pull(
            "Markdown", "the same for how much Markdown an answer uses",
            "calls more Markdown good", "calls less Markdown good",
        ),
        Measure("changed", "Changed their mind", "of answers shown again", "Changed"),
        _GOLD,
    ),
    share="good",
    figure="How often an answer was called good",
    counts=("labels", "skips"),
    signs="Who stands out has p below 0.05 after correction for the number of people.",
    reads="Answers are shown one at a time here, so no side is drawn by lot and nothing proves a bias by itself: a longer answer "
    "may be the better one. Compare people with each other.",
)  # fmt: skip


def of_pairs(found: Cards[BiasCard], names: Names) -> Html:
    return _bias(PAIRS, found.report.project, found.report.annotators, found.people, names)


def of_singles(found: Cards[BinaryCard], names: Names) -> Html:
    return _bias(SINGLES, found.report.project, found.report.annotators, found.people, names)


def _bias(kind: Card, project: AnyCard, annotators: Sequence[AnyCard], people: Sequence[str], names: Names) -> Html:
    if not project.n_labels:
        return empty("Biases show in labels given here, and there are none yet.", "label", "Label the first answers")
    called = [(card, people[card.annotator]) for card in annotators if card.annotator is not None]
    called.sort(key=lambda each: -each[0].n_labels)
    said, figure = _who_stands_out(kind, called, names), _figure(kind, project, called, names)
    return Html(
        f'<div class="st-stack">{said}{_project_card(kind, project)}{figure}{_cards(kind, called, names)}'
        f"{_footnote(kind, [project, *annotators])}</div>"
    )


def _footnote(kind: Card, cards: Sequence[AnyCard]) -> str:
    """How to read the cards; what a sign is stands there only when one is shown."""
    measures = [getattr(card, measure.field) for card in cards for measure in kind.measures if measure.told]
    found = any(card.flags for card in cards) or any(map(stands_out, measures))
    text = " ".join(part for part in (kind.reads, kind.signs if found else "") if part)
    return f'<p class="st-sub">{esc(text)}</p>' if text else ""


def _who_stands_out(kind: Card, called: Sequence[tuple[AnyCard, str]], names: Names) -> Html:
    """The flags of anybody's card, by name."""
    out = [note(f"{names.of(who)}: {flag}", "warn") for card, who in called for flag in card.flags]
    more = (
        note(f"{len(out) - MOST_SIGNS:,} more such signs are in the table of annotators.", "warn") if len(out) > MOST_SIGNS else ""
    )
    if out:
        return Html(f"<div>{''.join(out[:MOST_SIGNS])}{more}</div>")
    if any(_open(getattr(card, measure.field)) for card, _ in called for measure in kind.measures if measure.told):
        return note("Nobody stands out. Not everything can be told yet: the tables say where there are too few labels.")
    return note("Nobody stands out.", "good")


def _open(of: Share | Effect) -> bool:
    """Whether more labels might still show something: not measured, or too few to tell."""
    return of.value is None or (of.n < (of.n_needed or 0) and not stands_out(of))


def _project_card(kind: Card, card: AnyCard) -> Html:
    columns = [
        Column("Everybody together"), Column("Value (95 % interval)", "num"), Column("Labels", "num", wide=True),
        Column("Needed", "num", wide=True), Column("What it is", wide=True),
    ]  # fmt: skip
    rows: list[tuple[object, ...]] = []
    raw: list[tuple[object, ...]] = []
    for measure in kind.measures:
        of: Share | Effect = getattr(card, measure.field)
        verdict = words.verdict(of, measure.told)
        rows.append((measure.name, _cell(of, measure), f"{of.n:,}", _needed(of), measure.says))
        raw.append((measure.field, of.value, of.low, of.high, of.n, of.n_needed, of.effect, of.p, verdict))
    took = card.seconds
    rows.append(("Seconds a label", words.seconds(took), f"{took.n:,}", "–", "median and quartiles"))
    raw.append(("seconds", took.median, took.low_quartile, took.high_quartile, took.n, None, "", None, ""))
    head = ["measure", "value", "low", "high", "n", "n_needed", "effect_that_n_needed_would_show", "p", "verdict"]
    return draw(Sheet("Bias card of the project", columns, rows, head, raw), "bias-project")


def _needed(of: Share | Effect) -> str:
    """How many labels would show an effect worth caring about; a finding needs no more."""
    if not of.n_needed:
        return "–"
    return "enough" if stands_out(of) or of.n >= of.n_needed else f"{of.n_needed:,}"


def _figure(kind: Card, project: AnyCard, called: Sequence[tuple[AnyCard, str]], names: Names) -> Html:
    lines = [("Everybody", project), *((names.of(who), card) for card, who in called[:MOST_LINES])]
    shown = [_interval(name, getattr(card, kind.share)) for name, card in lines if getattr(card, kind.share).value is not None]
    middle = "the dashed line is 50 %" + (f"; the {MOST_LINES} with most labels" if len(called) > MOST_LINES else "")
    return intervals(kind.figure, shown, middle) if shown else Html("")


def _interval(name: str, of: Share) -> Interval:
    return Interval(name, of.value or 0.0, of.low or 0.0, of.high or 0.0, words.share(of), stands_out(of))


def _cards(kind: Card, called: Sequence[tuple[AnyCard, str]], names: Names) -> Html:
    listed = [measure for measure in kind.measures if measure.column]
    columns = [Column("Annotator"), *(Column(measure.column, "num") for measure in listed)]
    rows, raw = [], []
    for card, who in called:
        rows.append((names.of(who), *(_cell(getattr(card, measure.field), measure) for measure in listed)))
        values: list[object] = [names.pseudonym(who), *(getattr(card, f"n_{of}") for of in kind.counts)]
        for measure in kind.measures:
            of = getattr(card, measure.field)
            values += [of.value, of.low, of.high, of.n, of.p_adjusted]
        raw.append((*values, card.seconds.median, card.seconds.low_quartile, card.seconds.high_quartile))
    head = ["annotator", *kind.counts]
    for measure in kind.measures:
        head += [measure.field, *(f"{measure.field}_{what}" for what in ("low", "high", "n", "p_adjusted"))]
    head += ["seconds_median", "seconds_low_quartile", "seconds_high_quartile"]
    return draw(Sheet("Bias card of each annotator", columns, rows, head, raw, MOST_PEOPLE), "bias-annotators")


def _cell(of: Share | Effect, measure: Measure) -> Html:
    value = words.short_effect(of) if isinstance(of, Effect) else words.short_share(of)
    told = words.verdict(of, measure.told) or (of.note if of.value is None else "")
    if not told:
        return Html(esc(value))
    css = "st-muted" if not stands_out(of) else "st-out" if measure.is_fault else "st-found"
    return Html(f'{esc(value)}<br><span class="{css} st-small st-told">{esc(told)}</span>')
