"""The Agreement tab of the Quality page as HTML: alpha with its interval, other coefficients, every two people. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from data.records import Project
from labeling.agreement import HUMAN_CEILINGS, Agreement
from labeling.coefficients import Coefficient
from labeling.intervals import wilson
from labeling.label_report import AgreementReport
from labeling.pair_agreement import PairAgreement
from studio import quality_words as words
from studio.quality_overview import Names
from studio.render import Column, Html, count, empty, esc, note, percent, percents
from studio.sheet import Sheet, draw

MOST_PAIRS = 60


def agreement(report: AgreementReport, project: Project, names: Names, people: Sequence[str]) -> Html:
    four, two = report.four, report.two
    if four.n_annotators < 2 or not four.raw.n_items:
        return _no_agreement(four, project)
    return Html(
        f'<div class="st-stack">{_headline(four.alpha)}{_early(report)}{_coefficients(four, two)}{_ceilings()}'
        f"{_cohen(four, names, people)}</div>"
    )


def _headline(alpha: Coefficient) -> Html:
    over = f"Krippendorff's alpha, 95 % interval, over {count(alpha.n_items, 'item')} with two labels or more"
    return Html(
        f'<div class="st-card st-headline"><div><span class="st-big">{esc(words.coefficient(alpha))}</span>'
        f'<p class="st-sub">{esc(over)}</p></div><p>{esc(_in_words(alpha))}</p></div>'
    )


def _no_agreement(four: Agreement, project: Project) -> Html:
    if not four.n_labels:
        return empty("Agreement needs labels: nobody has labelled yet.", "label", "Label the first answers")
    if four.n_annotators < 2:
        why = "Only one person has labelled. Agreement needs a second one on the same items."
    else:
        why = "No item has labels from two people yet."
    if project.settings.overlap < 2 and not project.settings.adaptive:
        return empty(f"{why} This project asks for one label an item.", "project", "Ask for two")
    return empty(why, "label", "Label some more")


def _in_words(alpha: Coefficient) -> str:
    if alpha.value is None:
        return f"Undefined: {alpha.note}."
    if alpha.low is None or alpha.high is None:
        return f"People agree {_than_chance(alpha.value)}, but {alpha.note}."
    if alpha.low > 0:
        return "People agree more than by chance; 1 would be always, 0 no more than by chance."
    if alpha.high < 0:
        return "People agree less than by chance: they may read the guidelines in opposite ways."
    return "This could be agreement by chance alone: the interval holds 0. More items with two labels would tell."


def _than_chance(value: float) -> str:
    return "more than by chance" if value > 0 else "no more than by chance"


def _early(report: AgreementReport) -> Html:
    if report.early is None:
        return Html("")
    return note(
        "With adaptive overlap disputed items get more labels, which pulls these figures up. Over the first two labels of every "
        f"item alpha is {words.coefficient(report.early.alpha)}: that is the fair one to quote."
    )


def _coefficients(four: Agreement, two: Agreement | None) -> Html:
    shown = [
        ("Krippendorff's alpha", "alpha", "any number of labels an item"),
        ("Raw agreement", "raw", "how often two people say the same"),
        ("Fleiss' kappa", "fleiss", f"items with exactly {count(four.raters, 'label')}"),
        ("Gwet's AC1", "ac1", "steady when one answer dominates"),
    ]
    columns = [Column("Coefficient"), Column("All answers" if two else "Good or bad", "num")]
    columns += [Column("Only A or B", "num")] if two else []
    columns += [Column("Items", "num"), Column("What it is", wide=True)]
    rows, raw = [], []
    for name, field, says in shown:
        one: Coefficient = getattr(four, field)
        other: Coefficient | None = getattr(two, field) if two else None
        cells = [name, _coefficient(one), *([_coefficient(other)] if other else []), f"{one.n_items:,}", says]
        rows.append(cells)
        for view, of in (("all answers", one), ("only a or b", other)):
            if of is not None:
                raw.append((name, view, of.value, of.low, of.high, of.n_items, of.n_labels, of.note))
    head = ["coefficient", "view", "value", "low", "high", "items", "labels", "note"]
    return draw(Sheet("Coefficients, with 95 % intervals", columns, rows, head, raw), "agreement")


def _coefficient(of: Coefficient) -> Html:
    why = f'<br><span class="st-muted st-small st-told">{esc(of.note)}</span>' if of.note else ""
    return Html(f"{esc(words.coefficient(of))}{why}")


def _ceilings() -> Html:
    said = "; ".join(f"{c.name}: {percent(c.share)} ({c.what}), a kappa of about {c.kappa:.2f}" for c in HUMAN_CEILINGS)
    return note(f"What to expect of people: {said}. Rules like “0.8 or reject” come from tasks that have one right answer.")


def _cohen(four: Agreement, names: Names, people: Sequence[str]) -> Html:
    pairs = sorted(four.pairs, key=lambda pair: -pair.kappa.n_items)
    if not pairs:
        return Html("")
    columns = [Column("Two annotators"), Column("Cohen's kappa", "num"), Column("Same answer", "num"), Column("Items", "num")]
    rows = [
        (
            f"{names.of(people[p.first])} and {names.of(people[p.second])}",
            _coefficient(p.kappa),
            _same(p),
            f"{p.kappa.n_items:,}",
        )
        for p in pairs[:MOST_PAIRS]
    ]
    raw = [
        (
            names.pseudonym(people[p.first]), names.pseudonym(people[p.second]), p.kappa.value, p.kappa.low, p.kappa.high,
            p.raw, *_bounds(p), p.kappa.n_items, p.kappa.note,
        )
        for p in pairs
    ]  # fmt: skip
    head = ["first", "second", "kappa", "low", "high", "raw_agreement", "raw_low", "raw_high", "items", "note"]
    sheet = Sheet("Every two annotators", columns, rows, head, raw)
    return draw(sheet, "annotator-pairs", f"The {MOST_PAIRS} with most items in common." if len(pairs) > MOST_PAIRS else "")


def _same(pair: PairAgreement) -> str:
    return f"{percent(pair.raw)} ({percents(*_bounds(pair))})"


def _bounds(pair: PairAgreement) -> tuple[float, float]:
    """Wilson's interval of how often two people said the same."""
    low, high = wilson(round(pair.raw * pair.kappa.n_items), pair.kappa.n_items)
    return float(low), float(high)
