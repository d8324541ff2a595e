"""The human bias card: does somebody follow the side, the length or the looks of an answer instead of what it says?

For the project and for every annotator, each number with its n, its interval and the n that would be needed to see an effect worth
caring about:

- *left*: share of decisive labels that went to the answer shown on the left. Sides are drawn by lot, so whoever reads the answers
  is at 1/2 whatever the models are. Wilson interval, exact binomial p against a fair coin.
- *flips*: of the pairs shown to one person a second time with sides swapped and decided both times, the share where the other
  answer was preferred: always the same side twice. Compared with how often two *different* people disagree (34 %, AlpacaFarm).
- *length*, *markdown*, *side*: logistic regression of choosing the left answer on the two differences (left minus right) and an
  intercept. A difference d enters as tanh(d / s) over its root mean square, s a robust standard deviation over the whole project
  (median |d| / 0.6745), so a coefficient is the change in log-odds for one typical difference and one giant text moves nothing.
  `side` is the log-odds of the left at equal looks. Prior and standard errors: `labeling.logistic`.
- *longer*: share of decisive labels that went to the longer answer. *tie*, *both_bad*: shares of all labels but skips.
- *seconds*: median and quartiles of the time per label. *gold*: share of known items answered as expected.

A preference for longer answers is not a bias by itself, longer ones may be better: compare people with each other and the judge
with the people. Flags are sentences for a person to look into, never a reason to throw labels away.

*Flags* need p < 0.05 and an interval that leaves out the value that is tested (`bias_card.stands_out`). Over annotators p is
Holm-adjusted within each measure, so that among any number of fair annotators one measure raises a false alarm in at most 5 % of
projects. Intervals are plain 95 % ones.

*Rows*: current labels of pairwise impressions of kind normal or gold. Leave swapped repeats out of the columns (their sides cancel
by design) and give them as `Repeats`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import BadInput
from data.words import number
from labeling.bias_card import (
    BOTH_BAD,
    LEFT,
    PREFERENCES,
    RIGHT,
    SKIP,
    TIE,
    BiasCard,
    BiasReport,
    Effect,
    Gold,
    LabelColumns,
    Repeats,
    Seconds,
    stands_out,
)
from labeling.intervals import Share, above_p, below_p, coin_p, holm, n_for_share, wilson
from labeling.looks import Looks, by_annotator, looks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAIR = 0.5
TWO_PEOPLE_DISAGREE = 0.343  # AlpacaFarm: one person against the majority of the others agrees on 65.7 %
GOLD_FLOOR = 0.8  # known items are near-certain by design; certainly below this is worth a look (our convention)

N_LEFT = n_for_share(FAIR, 0.6)
N_LEFT_PROJECT = n_for_share(FAIR, 0.55)
N_FLIPS = n_for_share(TWO_PEOPLE_DISAGREE, 0.5)
N_GOLD = n_for_share(GOLD_FLOOR, 0.6)

NO_LABELS = "no label chose a side yet"
NO_REPEATS = "no pair was labelled twice and decided both times yet"
NO_GOLD = "no known item was labelled yet"


class _Measures(NamedTuple):
    """Each a list with one entry a person (by code), then the project's."""

    left: list[Share]
    looks: list[Looks]
    longer: list[Share]
    tie: list[Share]
    both_bad: list[Share]
    flips: list[Share]
    seconds: list[Seconds]
    gold: list[Share]


def bias_report(labels: LabelColumns, repeats: Repeats | None = None, gold: Gold | None = None) -> BiasReport[BiasCard]:
    """The project's card and one for every annotator who appears in `labels`, `repeats` or `gold`, by code."""
    _check(labels, repeats, gold)
    everybody = np.concatenate(_people(labels, repeats, gold))
    people = 1 + int(everybody.max(initial=-1))
    counts = _with_total(_count(labels.annotator, labels.preference, people, len(PREFERENCES)))
    measures = _measures(labels, counts, repeats, gold, people)
    cards = [_card(i, counts[i], measures) for i in [*np.flatnonzero(np.bincount(everybody)).tolist(), people]]
    return BiasReport(replace(cards[-1], annotator=None), tuple(cards[:-1]))


def _measures(labels: LabelColumns, counts: Ints, repeats: Repeats | None, gold: Gold | None, people: int) -> _Measures:
    chose = counts[:, LEFT] + counts[:, RIGHT]
    answered = chose + counts[:, TIE] + counts[:, BOTH_BAD]
    flips, twice = _flips(repeats, people)
    right, known = _gold(gold, people)
    *left, project = _tested(counts[:, LEFT], chose, coin_p(counts[:, LEFT], chose), FAIR, N_LEFT, "60 % on one side", NO_LABELS)
    return _Measures(
        left=[*left, replace(project, n_needed=N_LEFT_PROJECT, effect="55 % on one side")],
        looks=_adjusted(looks(labels, people)),
        longer=_longer(labels, people),
        tie=_shares(counts[:, TIE], answered, NO_LABELS),
        both_bad=_shares(counts[:, BOTH_BAD], answered, NO_LABELS),
        flips=_tested(
            flips, twice, above_p(flips, twice, TWO_PEOPLE_DISAGREE), TWO_PEOPLE_DISAGREE, N_FLIPS, "half of them", NO_REPEATS
        ),
        seconds=_seconds(labels, people),
        gold=_tested(right, known, below_p(right, known, GOLD_FLOOR), GOLD_FLOOR, N_GOLD, "60 % right", NO_GOLD),
    )


def _card(i: int, counts: Ints, measures: _Measures) -> BiasCard:
    chose = int(counts[LEFT] + counts[RIGHT])
    card = BiasCard(
        annotator=i,
        n_labels=chose + int(counts[TIE] + counts[BOTH_BAD]),
        n_decisive=chose,
        n_skips=int(counts[SKIP]),
        left=measures.left[i],
        side=measures.looks[i].side,
        length=measures.looks[i].length,
        markdown=measures.looks[i].markdown,
        longer=measures.longer[i],
        tie=measures.tie[i],
        both_bad=measures.both_bad[i],
        flips=measures.flips[i],
        seconds=measures.seconds[i],
        gold=measures.gold[i],
        flags=(),
    )
    whole = measures.looks[-1] if i < len(measures.looks) - 1 else None
    return replace(card, flags=(*_flags_of_sides(card), *_flags_of_looks(card, whole), *flags_of_gold(card)))


# --- counting ---------------------------------------------------------------------------------------------------------------


def _check(labels: LabelColumns, repeats: Repeats | None, gold: Gold | None) -> None:
    columns = [getattr(labels, field.name) for field in fields(labels)]
    if len({column.shape for column in columns}) != 1 or labels.annotator.ndim != 1:
        raise BadInput("The columns of labels must be of one length.")
    if any(len({column.shape for column in table}) != 1 for table in (repeats, gold) if table is not None):
        raise BadInput("The columns of repeats and of known items must be of one length.")
    preferences = [labels.preference] + ([repeats.before, repeats.after] if repeats is not None else [])
    if any(column.size and (column.min() < 0 or column.max() >= len(PREFERENCES)) for column in preferences):
        raise BadInput(f"Preferences are codes from 0 to {len(PREFERENCES) - 1}: {', '.join(PREFERENCES)}.")
    if any(column.size and column.min() < 0 for column in (*_people(labels, repeats, gold), labels.item)):
        raise BadInput("Annotators and items are codes from 0.")


def _people(labels: LabelColumns, repeats: Repeats | None, gold: Gold | None) -> list[Ints]:
    return [table.annotator for table in (labels, repeats, gold) if table is not None]


def _count(annotator: Ints, code: Ints, people: int, codes: int) -> Ints:
    """(people, codes)"""
    return np.bincount(annotator * codes + code, minlength=people * codes).reshape(people, codes)


def _with_total(counts: Ints) -> Ints:
    """A last row for the project."""
    return np.concatenate([counts, counts.sum(axis=0, keepdims=True)])


def _flips(repeats: Repeats | None, people: int) -> tuple[Ints, Ints]:
    """Of the repeats decided both times: how many changed, and how many there are; a row a person, then the project."""
    if repeats is None:
        return np.zeros(people + 1, dtype=np.int64), np.zeros(people + 1, dtype=np.int64)
    decided = (repeats.before <= RIGHT) & (repeats.after <= RIGHT)
    changed = (repeats.before != repeats.after)[decided].astype(np.int64)
    counts = _with_total(_count(repeats.annotator[decided], changed, people, 2))
    return counts[:, 1], counts.sum(axis=1)


def _gold(gold: Gold | None, people: int) -> tuple[Ints, Ints]:
    if gold is None:
        return np.zeros(people + 1, dtype=np.int64), np.zeros(people + 1, dtype=np.int64)
    counts = _with_total(_count(gold.annotator, gold.right.astype(np.int64), people, 2))
    return counts[:, 1], counts.sum(axis=1)


def _longer(labels: LabelColumns, people: int) -> list[Share]:
    differ = (labels.preference <= RIGHT) & (labels.length_left != labels.length_right)
    left_is_longer = labels.length_left[differ] > labels.length_right[differ]
    chosen = (left_is_longer == (labels.preference[differ] == LEFT)).astype(np.int64)
    counts = _with_total(_count(labels.annotator[differ], chosen, people, 2))
    return _shares(counts[:, 1], counts.sum(axis=1), NO_LABELS)


def _seconds(labels: LabelColumns, people: int) -> list[Seconds]:
    measured = np.flatnonzero(labels.dwell_ms > 0)
    annotator = labels.annotator[measured]
    times = labels.dwell_ms[measured][by_annotator(annotator, people)] / 1000
    ends = np.r_[0, np.cumsum(np.bincount(annotator, minlength=people))]
    return [*(_quartiles(times[i:j]) for i, j in pairwise(ends)), _quartiles(times)]


def _quartiles(times: Floats) -> Seconds:
    if not times.size:
        return Seconds(None)
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return Seconds(float(middle), float(low), float(high), times.size)


# --- shares, tests, flags ---------------------------------------------------------------------------------------------------


def _shares(k: Ints, n: Ints, nothing: str) -> list[Share]:
    bounds = zip(k.tolist(), n.tolist(), *(bound.tolist() for bound in wilson(k, n)), strict=True)
    return [Share(some / every, low, high, every) if every else Share(None, note=nothing) for some, every, low, high in bounds]


def _tested(k: Ints, n: Ints, p: Floats, against: float, n_needed: int, effect: str, nothing: str) -> list[Share]:
    """Shares with their p of the test against a share, Holm-adjusted over the annotators (all rows but the last)."""
    raw = np.where(n > 0, p, np.nan)
    adjusted = np.r_[holm(raw[:-1]), raw[-1]]
    found = [replace(share, against=against, n_needed=n_needed, effect=effect) for share in _shares(k, n, nothing)]
    return [
        replace(share, p=float(raw[i]), p_adjusted=float(adjusted[i])) if share.value is not None else share
        for i, share in enumerate(found)
    ]


def _adjusted(found: list[Looks]) -> list[Looks]:
    """With Holm-adjusted p over the annotators (all but the last), each coefficient by itself."""
    return [Looks(*effects) for effects in zip(*(_holm(effects) for effects in zip(*found, strict=True)), strict=True)]


def _holm(effects: tuple[Effect, ...]) -> list[Effect]:
    raw = np.array([np.nan if effect.p is None else effect.p for effect in effects])
    adjusted = np.r_[holm(raw[:-1]), raw[-1]]
    return [
        effect if effect.p is None else replace(effect, p_adjusted=float(p)) for effect, p in zip(effects, adjusted, strict=True)
    ]


def _flags_of_sides(card: BiasCard) -> list[str]:
    flags = []
    if stands_out(card.left):
        flags.append(f"Chose A (left) in {_interval(card.left)} labels that chose a side; sides are drawn by lot: 50 %.")
    if stands_out(card.flips):
        flags.append(
            f"Changed to the other answer in {_interval(card.flips)} pairs seen again with sides swapped; "
            f"two different people disagree on {_percent(TWO_PEOPLE_DISAGREE)}."
        )
    return flags


def flags_of_looks(card: BiasCard, project: BiasCard | None) -> list[str]:
    """`project`: what everybody together does, beside what one person does."""
    return _flags_of_looks(card, Looks(project.side, project.length, project.markdown) if project else None)


def _flags_of_looks(card: BiasCard, project: Looks | None) -> list[str]:
    flags = []
    if stands_out(card.length):
        flags.append(_looks_flag("longer answers", card.length, project and project.length))
    if stands_out(card.markdown):
        flags.append(_looks_flag("more Markdown", card.markdown, project and project.markdown))
    return flags


def flags_of_gold(card: BiasCard) -> list[str]:
    if not stands_out(card.gold):
        return []
    return [f"Right on {_interval(card.gold)} known items; at least {_percent(GOLD_FLOOR)} is expected."]


def _looks_flag(name: str, effect: Effect, project: Effect | None) -> str:
    """With what speaks against a bias: such answers may really be better, and everybody else may do the same."""
    favours = effect.value is not None and effect.value > 0
    span = f"{_signed(effect.low)} to {_signed(effect.high)}"
    sentence = f"{'Favours' if favours else 'Avoids'} {name}: {_signed(effect.value)} ({span}) in log-odds"
    if project is not None and project.value is not None:
        sentence += f", the whole project {_signed(project.value)}"
    return f"{sentence}; such answers may be {'better' if favours else 'worse'}."


def _signed(value: float | None) -> str:
    return "–" if value is None else number(value, "+.2f")


def _interval(share: Share) -> str:
    digits = 0 if share.n < 1000 else 1
    return f"{_percent(share.value, digits)} ({_percent(share.low, digits)} to {_percent(share.high, digits)}) of {share.n:,}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
