"""What a project's labels look like as a whole: how far it is, its pace, each annotator's work. Pure but for a few counts that are
asked of the database; `labeling/label_report.py` keeps the last answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data import completions
from data.database import Database
from data.records import Flag, Project, ProjectSettings
from labeling.bias_card import SKIP, Seconds
from labeling.intervals import Share, wilson
from labeling.label_data import FLAGS, IMPORTED, Labels, Votes, checks, echoes
from labeling.looks import by_annotator

Ints = NDArray[np.int64]
DAY_MS = 86_400_000
DAYS = 60  # the last so many are drawn
SECONDS_EDGES = (0, 1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 90, 120, 180, 300)  # the last bin is open


@dataclass(frozen=True)
class Annotator:
    """One person's work; times are of labels that were measured, shares say of how many."""

    annotator_id: str
    labels: int
    skips: int
    seconds: Seconds
    gold: Share
    consistency: Share
    flagged: Share
    last: datetime
    is_simulated: bool


@dataclass(frozen=True)
class Overview:
    """`items_by_labels[n]`: items with n people's labels. `wanted`: labels that the project's settings still ask for."""

    items: int
    items_by_labels: tuple[int, ...]
    open_items: int
    wanted: int
    labels: int
    skips: int
    simulated: int
    imported: int
    excluded: int
    flags: dict[Flag, int]
    days: tuple[tuple[date, int], ...]
    seconds: tuple[int, ...]
    annotators: tuple[Annotator, ...]


def overview(db: Database, project: Project, labels: Labels, said: Votes) -> Overview:
    items, counts, open_items, wanted = _coverage(db, project, said)
    gave = labels.preference != SKIP
    return Overview(
        items=items,
        items_by_labels=counts,
        open_items=open_items,
        wanted=wanted,
        labels=int(gave.sum()),
        skips=int((~gave).sum()),
        simulated=int((labels.simulated & gave).sum()),
        imported=int(((labels.kind == IMPORTED) & gave).sum()),
        excluded=_excluded(db, project.project_id),
        flags=_flags(labels.flags),
        days=_days(labels.at[gave]),
        seconds=_histogram(labels.dwell_ms[gave & (labels.dwell_ms > 0)]),
        annotators=_annotators(db, project.project_id, labels),
    )


def _flags(flags: Ints) -> dict[Flag, int]:
    """How many labels carry each flag, the most frequent first."""
    raised = flags[flags > 0]
    counts = {flag: int((raised & (1 << bit) > 0).sum()) for bit, flag in enumerate(FLAGS)}
    return dict(sorted(((flag, n) for flag, n in counts.items() if n), key=lambda each: -each[1]))


def _excluded(db: Database, project_id: str) -> int:
    sql = """select count(*) from (
                 select impression_id from label_events where project_id = ? and event in ('excluded', 'restored')
                 group by impression_id having arg_max(event, seq) = 'excluded')"""
    return int(db.value(sql, [project_id]))


class Coverage(NamedTuple):
    items: int
    by_labels: tuple[int, ...]
    open_items: int
    wanted: int


def _coverage(db: Database, project: Project, said: Votes) -> Coverage:
    """The items of the project's sources and how many more labels each should have (`labeling/overlap.py` has the rule)."""
    found = _items(db, project)
    item, known = found["item"], found["known"]
    table, names = said
    have, agreed = np.zeros(item.size, dtype=np.int64), np.zeros(item.size, dtype=bool)
    if names.size:
        at = np.minimum(np.searchsorted(names, item), names.size - 1)
        is_labelled = names[at] == item
        per_answer = np.bincount(table.item * 4 + table.category, minlength=4 * names.size).reshape(-1, 4)
        have = np.where(is_labelled, per_answer.sum(axis=1)[at], 0)
        agreed = is_labelled & (per_answer.max(axis=1)[at] >= 2)
    wanted = np.where(known, 0, _wanted(have, agreed, found["full"], project.settings))
    missing = np.maximum(wanted - have, 0)
    return Coverage(item.size, tuple(np.bincount(have, minlength=1).tolist()), int((missing > 0).sum()), int(missing.sum()))


def _wanted(have: Ints, agreed: NDArray[np.bool_], full: NDArray[np.bool_], settings: ProjectSettings) -> Ints:
    if not settings.adaptive:
        return np.full(have.size, settings.overlap, dtype=np.int64)
    undecided = np.minimum(np.maximum(2, have + 1), settings.max_overlap)
    return np.where(full, settings.max_overlap, np.where(agreed, 2, undecided))


def _items(db: Database, project: Project) -> dict[str, NDArray[Any]]:
    """`full`: always labelled by `max_overlap` people, as `labeling.overlap.always_full`; `known`: gold or decided."""
    threshold = int(project.settings.full_overlap * 2**64)
    full = f"sha256('full' || chr(0) || item_id) < '{threshold:016x}'" if project.settings.adaptive else "false"
    full = "true" if project.settings.adaptive and threshold >= 2**64 else full
    sources = list(project.settings.sources)
    mine = "select completion_id from completions where project_id = $project and model in (select unnest($sources::varchar[]))"
    if project.task == "pairwise":
        only = f"and completion_a in ({mine}) and completion_b in ({mine})" if sources else ""
        items = f"select pair_id as item_id from pairs where project_id = $project {only}"
    else:
        only = f"and completion_id in ({mine})" if sources else ""
        items = f"""select min_by(completion_id, (created_at, completion_id)) as item_id from completions
                    where project_id = $project {only} group by prompt_id, md5(trim(text, $blank))"""
    sql = f"""
        with known as (
            select item_id from gold where project_id = $project group by item_id having arg_max(outcome, created_at) != ''
            union select item_id from adjudications where project_id = $project
                  group by item_id having arg_max(outcome, created_at) != ''
        )
        select hash(item_id) as item, {full} as "full", item_id in (select item_id from known) as known from ({items})
    """
    bound: dict[str, object] = {"project": project.project_id} | ({"sources": sources} if sources else {})
    return db.columns(sql, bound | ({"blank": completions.BLANK} if project.task == "binary" else {}))


def _days(at: Ints) -> tuple[tuple[date, int], ...]:
    """Labels a day (UTC), days without any included, the last DAYS of them."""
    if not at.size:
        return ()
    numbers, n = np.unique(at // DAY_MS, return_counts=True)
    by_day = dict(zip(numbers.tolist(), n.tolist(), strict=True))
    last = int(numbers[-1])
    first = max(int(numbers[0]), last - DAYS + 1)
    return tuple((date(1970, 1, 1) + timedelta(days=day), by_day.get(day, 0)) for day in range(first, last + 1))


def _histogram(dwell_ms: Ints) -> tuple[int, ...]:
    """Labels in each bin of SECONDS_EDGES."""
    bins = np.searchsorted(SECONDS_EDGES, dwell_ms / 1000, side="right") - 1
    return tuple(np.bincount(bins, minlength=len(SECONDS_EDGES)).tolist()) if dwell_ms.size else ()


def _annotators(db: Database, project_id: str, labels: Labels) -> tuple[Annotator, ...]:
    """Those with labels that stand, most labels first."""
    n = len(labels.people)
    gave = labels.only(np.flatnonzero(labels.preference != SKIP))
    given = np.bincount(gave.annotator, minlength=n)
    skips = np.bincount(labels.annotator, minlength=n) - given
    last = np.zeros(n, dtype=np.int64)
    last[labels.annotator] = labels.at  # rows are in the order given: the last one stays
    check, echo = checks(db, project_id, labels), echoes(labels)
    gold = shares(check.annotator, check.right, n, "no gold item labelled yet")
    consistency = shares(echo.annotator, echo.before == echo.after, n, "nothing shown twice yet")
    flagged = shares(gave.annotator, gave.flags > 0, n, "no label yet")
    simulated = np.bincount(gave.annotator, weights=gave.simulated, minlength=n)
    times = _seconds(gave, n)
    found = [
        Annotator(
            labels.people[i],
            int(given[i]),
            int(skips[i]),
            times[i],
            gold[i],
            consistency[i],
            flagged[i],
            datetime.fromtimestamp(int(last[i]) / 1000, UTC),
            bool(simulated[i]),
        )
        for i in np.flatnonzero(given + skips)
    ]
    return tuple(sorted(found, key=lambda a: (-a.labels, a.annotator_id)))


def shares(annotator: Ints, is_so: NDArray[np.bool_], people: int, nothing: str) -> list[Share]:
    """Of each annotator's rows, the share for which it is so, with Wilson's interval."""
    n = np.bincount(annotator, minlength=people)
    k = np.bincount(annotator, weights=is_so, minlength=people)
    low, high = wilson(k, n)
    return [
        Share(float(k[i] / n[i]), float(low[i]), float(high[i]), int(n[i])) if n[i] else Share(None, note=nothing)
        for i in range(people)
    ]


def _seconds(labels: Labels, people: int) -> list[Seconds]:
    measured = np.flatnonzero(labels.dwell_ms > 0)
    annotator = labels.annotator[measured]
    ends = np.r_[0, np.cumsum(np.bincount(annotator, minlength=people))]
    times = labels.dwell_ms[measured][by_annotator(annotator, people)] / 1000
    found = []
    for i in range(people):
        mine = times[ends[i] : ends[i + 1]]
        low, middle, high = np.quantile(mine, [0.25, 0.5, 0.75]).tolist() if mine.size else (None, None, None)
        found.append(Seconds(middle, low, high, mine.size))
    return found
