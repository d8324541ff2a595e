"""A project's labels as numpy columns, read in one pass: what the quality report is computed from.

A million labels are read in about a second because no row becomes a Python object: words become small codes and ids become 64-bit
hashes inside the database (two of a million ids share a hash once in 30 million projects). Which labels stand is the view
`current_labels`, what an item is and how sides are undone is as in `data/items.py`.

Lengths and Markdown belong to completions, which never change: they are counted in the database once a process and completion
(`Styles`) and looked up by hash.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from data import gold
from data.database import Database
from data.records import Flag, Project
from data.style import markdown_sql
from labeling.bias_card import SKIP
from labeling.label_table import BINARY, FOUR_WAY, LabelTable, in_pair_order, label_table

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Bools = NDArray[np.bool_]

NORMAL, GOLD, REPEAT, IMPORTED = range(4)
MOST_NEW = 2_000  # label events that are read on to what was read before; more are read anew with everything
GOOD, BAD = 5, 6  # after the five of a pairwise project

FLAGS: tuple[Flag, ...] = get_args(Flag)  # by the bit that stands for each
_BITS = " + ".join(f"contains(l.flags, '\"{flag}\"')::integer * {1 << bit}" for bit, flag in enumerate(FLAGS))
_LABELS = f"""
    with who as (select unnest($people::varchar[]) as annotator_id, unnest(range(len($people::varchar[]))) as code)
    select who.code as annotator, l.seq as seq, hash(l.impression_id) as impression, hash(i.repeat_of) as repeat_of,
           hash(if(i.task = 'pairwise', i.pair_id, i.left_completion_id)) as item,
           hash(i.left_completion_id) as "left", hash(i.right_completion_id) as "right",
           i.left_completion_id > i.right_completion_id as swapped,
           case l.preference when 'a' then 0 when 'b' then 1 when 'tie' then 2 when 'both_bad' then 3 when 'skip' then 4
                             when 'good' then 5 else 6 end::utinyint as preference,
           case i.kind when 'normal' then 0 when 'gold' then 1 when 'repeat' then 2 else 3 end::utinyint as kind,
           l.dwell_ms as dwell_ms, l.simulated as simulated, if(l.flags = '[]', 0, {_BITS}) as flags, epoch_ms(l.created_at) as at
    from current_labels l join impressions i using (impression_id) join who on who.annotator_id = l.annotator_id
    where l.project_id = $project and i.task = $task {{only}} order by l.seq
"""
_TOUCHED = "select impression_id from label_events where project_id = $project and seq > $after"


@dataclass(frozen=True)
class Labels:
    """One row a label that stands, in the order given. `annotator` indexes `people`; ids are hashes; `at` is in milliseconds.

    `preference` is as shown (a = the left answer), coded as in `labeling.bias_card`, then GOOD and BAD; `swapped`: the pair's first
    completion was on the right. `repeat_of`: the hash of the impression that is repeated. `flags` has a bit for each of FLAGS.
    """

    people: tuple[str, ...]
    annotator: Ints
    seq: Ints
    impression: Hashes
    repeat_of: Hashes
    item: Hashes
    left: Hashes
    right: Hashes
    swapped: Bools
    preference: Ints
    kind: Ints
    dwell_ms: Ints
    simulated: Bools
    flags: Ints
    at: Ints

    def __len__(self) -> int:
        return self.annotator.size

    def only(self, kept: Bools | Ints | slice) -> Labels:
        columns = {name: column[kept] for name, column in vars(self).items() if name != "people"}
        return replace(self, **columns)

    @property
    def in_pair_order(self) -> Ints:
        return in_pair_order(self.preference, self.swapped)


class Read(NamedTuple):
    """`events` and `last` (a `seq`): how many label events there were, and the newest."""

    labels: Labels
    task: str
    events: int
    last: int


class Known(NamedTuple):
    """Of a completion: characters, and how much Markdown."""

    length: Ints
    markdown: Ints


def load(db: Database, project: Project, before: Read | None = None) -> Read:
    """The labels of the project's task that stand. With what was read `before`, only what has changed since is read: where one
    label has come to a million, that is thirty times less work."""
    sql = "select count(*) as events, max(seq) as seq from label_events where project_id = ?"
    row = db.row(sql, [project.project_id])
    assert row is not None
    events, last = int(row["events"]), int(row["seq"] or 0)
    sql = "select distinct annotator_id from label_events where project_id = ? order by annotator_id"
    people = [str(row["annotator_id"]) for row in db.rows(sql, [project.project_id])]
    if before is not None and before.task == project.task and set(before.labels.people) <= set(people):
        sql = "select count(*) from label_events where project_id = ? and seq > ? and seq <= ?"
        new = int(db.value(sql, [project.project_id, before.last, last]))
        if new == events - before.events and new <= MOST_NEW:  # none has gone
            names = [*before.labels.people, *(name for name in people if name not in before.labels.people)]
            return Read(_changed(db, project, before, names), project.task, events, last)
    return Read(_read(db, project, people), project.task, events, last)


def _read(db: Database, project: Project, people: list[str], after: int | None = None) -> Labels:
    """`after`: only impressions about which something was said after this `seq`."""
    bound: dict[str, object] = {"project": project.project_id, "task": project.task, "people": people}
    only = ""
    if after is not None:  # as a list, which the database takes into the view; a subquery it would apply to the whole of it
        touched = db.rows(f"select distinct impression_id from ({_TOUCHED})", {"project": project.project_id, "after": after})
        bound["touched"], only = [row["impression_id"] for row in touched], "and list_contains($touched, l.impression_id)"
    found = db.columns(_LABELS.format(only=only), bound)
    for name in ("annotator", "seq", "preference", "kind", "dwell_ms", "flags", "at"):
        found[name] = found[name].astype(np.int64)
    return Labels(tuple(people), **found)


def _changed(db: Database, project: Project, before: Read, people: list[str]) -> Labels:
    bound = {"project": project.project_id, "after": before.last}
    touched = db.columns(f"select distinct hash(impression_id) as impression from ({_TOUCHED})", bound)["impression"]
    new = _read(db, project, people, before.last)
    kept = before.labels.only(np.flatnonzero(positions(touched, before.labels.impression) < 0) if touched.size else slice(None))
    columns = {name: np.concatenate([column, getattr(new, name)]) for name, column in vars(kept).items() if name != "people"}
    whole = Labels(tuple(people), **columns)
    return whole if (np.diff(whole.seq) > 0).all() else whole.only(np.argsort(whole.seq, kind="stable"))


class Votes(NamedTuple):
    """What counts for an item, sides undone, skips missing; `items[n]` is the hash of the table's item n, ascending."""

    table: LabelTable
    items: Hashes


def votes(labels: Labels, task: str) -> Votes:
    """Normal and imported labels; no gold, whose answers are too certain to say how people agree, and no repeats."""
    counts = np.flatnonzero((labels.kind == NORMAL) | (labels.kind == IMPORTED))
    items, number = np.unique(labels.item[counts], return_inverse=True)
    answer = in_pair_order(labels.preference[counts], labels.swapped[counts])
    if task == "binary":
        return Votes(label_table(number, labels.annotator[counts], np.where(answer == SKIP, -1, answer - GOOD), BINARY), items)
    return Votes(label_table(number, labels.annotator[counts], np.where(answer >= SKIP, -1, answer), FOUR_WAY), items)


# --- what is known besides --------------------------------------------------------------------------------------------------


class Echo(NamedTuple):
    """One row an item that a person was shown twice and answered twice, skips left out; answers in pair order."""

    annotator: Ints
    before: Ints
    after: Ints


def echoes(labels: Labels) -> Echo:
    again = labels.only(np.flatnonzero((labels.kind == REPEAT) & (labels.preference != SKIP)))
    at = positions(labels.impression, again.repeat_of)
    found = at >= 0
    found[found] = labels.preference[at[found]] != SKIP
    again, at = again.only(found), at[found]
    return Echo(again.annotator, labels.only(at).in_pair_order, again.in_pair_order)


class Check(NamedTuple):
    """One row a label on an item whose answer is known."""

    annotator: Ints
    right: Bools


def checks(db: Database, project_id: str, labels: Labels) -> Check:
    """Skips left out; by the answers that are gold now."""
    known = {g.item_id: g.outcome for g in gold.current(db, project_id)}
    if not known:
        return Check(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))
    words = {"first": 0, "second": 1, "tie": 2, "both_bad": 3, "good": GOOD, "bad": BAD}
    sql = "select hash(unnest($ids::varchar[])) as item, unnest($codes::integer[]) as code"
    found = db.columns(sql, {"ids": list(known), "codes": [words[outcome] for outcome in known.values()]})
    asked = labels.only(np.flatnonzero((labels.kind == GOLD) & (labels.preference != SKIP)))
    at = positions(found["item"], asked.item)
    asked, at = asked.only(at >= 0), at[at >= 0]
    return Check(asked.annotator, asked.in_pair_order == found["code"][at])


def positions(among: Hashes, wanted: Hashes) -> Ints:
    """Where each wanted hash stands in `among` (the last place of several), -1 where it does not; fast where few are wanted."""
    names, which = np.unique(wanted, return_inverse=True)
    if not names.size:
        return np.zeros(0, dtype=np.int64)
    number = np.minimum(np.searchsorted(names, among), names.size - 1)
    there = np.flatnonzero(names[number] == among)
    place = np.full(names.size, -1, dtype=np.int64)
    place[number[there]] = there
    return place[which]


class Styles:
    """Lengths and Markdown of completions, counted once and kept: 24 bytes each. Safe from any thread."""

    KEPT = 2_000_000  # completions, of the projects looked at last

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Hashes, Known]] = OrderedDict()

    def of(self, project_id: str, wanted: Hashes) -> Known:
        """Of the completions with these hashes, in their order; 0 for one that is not there."""
        with self._lock:
            there, known = self._complete(project_id)
        at = np.minimum(np.searchsorted(there, wanted), max(there.size - 1, 0))
        if not there.size:
            nothing = np.zeros(wanted.size, dtype=np.int64)
            return Known(nothing, nothing)
        is_there = there[at] == wanted
        return Known(np.where(is_there, known.length[at], 0), np.where(is_there, known.markdown[at], 0))

    def _complete(self, project_id: str) -> tuple[Hashes, Known]:
        empty = np.zeros(0, dtype=np.int64)
        there, known = self._known.pop(project_id, (np.zeros(0, dtype=np.uint64), Known(empty, empty)))
        n = int(self._db.value("select count(*) from completions where project_id = ?", [project_id]))
        if n != there.size:
            there, known = self._count(project_id, there, known)
        self._known[project_id] = there, known
        while len(self._known) > 1 and sum(ids.size for ids, _ in self._known.values()) > self.KEPT:
            self._known.popitem(last=False)
        return there, known

    def _count(self, project_id: str, there: Hashes, known: Known) -> tuple[Hashes, Known]:
        """With those that have come since; from the start when some have gone."""
        ids = self._db.columns("select hash(completion_id) as id from completions where project_id = ?", [project_id])["id"]
        if there.size and not np.isin(there, ids, assume_unique=True).all():
            there, known = there[:0], Known(known.length[:0], known.markdown[:0])
        new = np.setdiff1d(ids, there, assume_unique=True)
        only = "and hash(completion_id) in (select unnest($new::ubigint[]))" if there.size else ""
        sql = f"""select hash(completion_id) as id, length(text) as length, {markdown_sql("text")} as markdown
                  from completions where project_id = $project {only}"""
        found = self._db.columns(sql, {"project": project_id} | ({"new": new.tolist()} if only else {}))
        ids = np.concatenate([there, found["id"]])
        order = np.argsort(ids)
        length = np.concatenate([known.length, found["length"].astype(np.int64)])[order]
        return ids[order], Known(length, np.concatenate([known.markdown, found["markdown"].astype(np.int64)])[order])
