"""The Bias tab of the Quality page as HTML: the human bias card of the project and of each annotator. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from labeling.bias_binary import BinaryCard
from labeling.bias_card import BiasCard, Effect
from labeling.intervals import Share
from labeling.label_report import Cards
from studio import quality_words as words
from studio.quality_overview import MOST_PEOPLE, Names
from studio.quality_plots import Interval, intervals
from studio.render import Column, Html, empty, esc, note
from studio.sheet import Sheet, draw

SIGNS = (
    "These are signs to look into, no verdict on a person: p is below 0.05 after correction for the number of people. "
    "A bias that is marked “too few to tell” may well be there."
)
MEASURES = (
    ("left", "Left answer chosen", "of labels that chose a side; sides are drawn by lot, so 50 % is fair"),
    ("side", "Pull of the left side", "log-odds, at equal length and Markdown"),
    ("length", "Pull of length", "log-odds for one typical difference in length"),
    ("markdown", "Pull of Markdown", "log-odds for one typical difference in Markdown"),
    ("longer", "Longer answer chosen", "longer answers may well be better"),
    ("flips", "Changed with the side", "of pairs shown again with sides swapped; two people differ on 34 %"),
    ("tie", "Equally good", "of all labels but skips"),
    ("both_bad", "Both bad", "of all labels but skips"),
    ("gold", "Right on known items", "at least 80 % is expected"),
)

MOST_SIGNS = 20


def bias(found: Cards, names: Names) -> Html:
    project, annotators = found.report.project, found.report.annotators
    if not project.n_labels:
        return empty("Biases show in labels given here, and there are none yet.", "label", "Label the first answers")
    said = who_stands_out(annotators, found.people, names)
    return Html(
        f'<div class="st-stack">{said}{_project_card(project)}{_left(project, annotators, found.people, names)}'
        f"{_cards(annotators, found.people, names)}"
        f'<p class="st-sub">{SIGNS}</p></div>'
    )


def who_stands_out(cards: Sequence[BiasCard | BinaryCard], people: Sequence[str], names: Names) -> Html:
    """The flags of anybody's card, by name."""
    out = [
        note(f"{names.of(people[card.annotator])}: {flag}", "warn")
        for card in cards
        for flag in card.flags
        if card.annotator is not None
    ]
    more = (
        note(f"{len(out) - MOST_SIGNS:,} more such signs are in the table of annotators.", "warn") if len(out) > MOST_SIGNS else ""
    )
    return Html(f"<div>{''.join(out[:MOST_SIGNS])}{more}</div>") if out else note("Nobody stands out.", "good")


def _project_card(card: BiasCard) -> Html:
    told = words.verdicts(card)
    columns = [
        Column("Everybody together"), Column("Value (95 % interval)", "num"), Column("Labels", "num", wide=True),
        Column("Needed", "num", wide=True), Column("What it is", wide=True),
    ]  # fmt: skip
    rows: list[tuple[object, ...]] = []
    raw: list[tuple[object, ...]] = []
    for field, name, says in MEASURES:
        of: Share | Effect = getattr(card, field)
        needed = f"{of.n_needed:,}" if of.n_needed else "–"
        verdict = told.get(field, "") or (of.note if of.value is None else "")
        rows.append((name, cell(of, verdict), f"{of.n:,}", needed, says))
        raw.append((field, of.value, of.low, of.high, of.n, of.n_needed, of.effect, of.p, told.get(field, "")))
    rows.append(("Seconds a label", words.seconds(card.seconds), f"{card.seconds.n:,}", "–", "median and quartiles"))
    raw.append(
        ("seconds", card.seconds.median, card.seconds.low_quartile, card.seconds.high_quartile, card.seconds.n, None, "", None, "")
    )
    head = ["measure", "value", "low", "high", "n", "n_needed", "effect_that_n_needed_would_show", "p", "verdict"]
    return draw(Sheet("Bias card of the project", columns, rows, head, raw), "bias-project")


def _left(project: BiasCard, annotators: Sequence[BiasCard], people: Sequence[str], names: Names) -> Html:
    shown = [_interval("Everybody", project)] if project.left.value is not None else []
    shown += [
        _interval(names.of(people[card.annotator]), card)
        for card in sorted(annotators, key=lambda card: -card.n_decisive)[:20]
        if card.annotator is not None and card.left.value is not None
    ]
    return intervals("How often the left answer was chosen", shown, "the dashed line is 50 %") if shown else Html("")


def _interval(name: str, card: BiasCard) -> Interval:
    of = card.left
    return Interval(name, of.value or 0.0, of.low or 0.0, of.high or 0.0, words.share(of), words.stands_out(of))


def _cards(annotators: Sequence[BiasCard], people: Sequence[str], names: Names) -> Html:
    columns = [
        Column("Annotator"), Column("Left", "num"), Column("Length", "num"), Column("Markdown", "num"),
        Column("Changed with side", "num"),
        Column("Gold right", "num"), Column("Equally good", "num", wide=True),
    ]  # fmt: skip
    rows, raw = [], []
    for card in sorted(annotators, key=lambda card: -card.n_labels):
        if card.annotator is None:
            continue
        told = words.verdicts(card)
        who = people[card.annotator]
        rows.append(
            (
                names.of(who),
                *(cell(getattr(card, field), told[field]) for field in ("left", "length", "markdown", "flips")),
                cell(card.gold, told["gold"]), words.short_share(card.tie),
            )
        )  # fmt: skip
        values: list[object] = [names.pseudonym(who), card.n_labels, card.n_decisive, card.n_skips]
        for field, _, _ in MEASURES:
            of = getattr(card, field)
            values += [of.value, of.low, of.high, of.n, of.p_adjusted]
        raw.append((*values, card.seconds.median, card.seconds.low_quartile, card.seconds.high_quartile))
    head = ["annotator", "labels", "decisive", "skips"]
    for field, _, _ in MEASURES:
        head += [field, f"{field}_low", f"{field}_high", f"{field}_n", f"{field}_p_adjusted"]
    head += ["seconds_median", "seconds_low_quartile", "seconds_high_quartile"]
    return draw(Sheet("Bias card of each annotator", columns, rows, head, raw, MOST_PEOPLE), "bias-annotators")


def cell(of: Share | Effect, verdict: str) -> Html:
    if not verdict:
        return Html(esc(_value(of)))
    css = "st-out" if words.stands_out(of) else "st-muted"
    return Html(f'{esc(_value(of))}<br><span class="{css} st-small st-told">{esc(verdict)}</span>')


def _value(of: Share | Effect) -> str:
    return words.short_effect(of) if isinstance(of, Effect) else words.short_share(of)
