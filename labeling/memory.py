"""What `labeling/assignment.py` remembers of one project: its pool, its annotators, which items are gold or decided.

Loaded from the tables once (`labeling/memory_load.py`), then kept level with them by `take`, which is given every committed
change in order. Taking in the same row twice changes nothing for items and impressions; label events are told apart by their
`seq`. Gold and repeats take no place in an item's overlap: they count for their annotator and for nothing else.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data import completions, impressions
from data.database import Database
from data.journal import Change
from data.records import Impression, ImpressionKind, Outcome, Project, ProjectSettings, Task
from labeling.overlap import LETTERS, letter
from labeling.pool import Item, Judged, Pool
from labeling.track import Label, Shown, Track, day_of

COUNTED: tuple[ImpressionKind, ...] = ("normal", "imported")
NO_LABEL = Label()

# How labels stand as of one event, whatever has been committed since: what is read in several queries must be of one moment.
STANDING = """
    select impression_id, o.first_seq, coalesce(o.event, '') as event, coalesce(o.preference, '') as preference, o.said_at,
           coalesce(o.extra, false) as extra, coalesce(x.excluded, false) as excluded
    from (
        select impression_id, min(seq) as first_seq, arg_max(event, seq) as event, arg_max(preference, seq) as preference,
               arg_max(created_at, seq) as said_at, contains(arg_max(flags, seq), '"extra"') as extra
        from label_events where project_id = $project and seq <= $seq and event in ('cast', 'revised', 'retracted')
        group by impression_id
    ) o full join (
        select impression_id, arg_max(event, seq) = 'excluded' as excluded
        from label_events where project_id = $project and seq <= $seq and event in ('excluded', 'restored')
        group by impression_id
    ) x using (impression_id)
"""


class Asked(NamedTuple):
    """What of a prompt decides where its items lie."""

    category: str
    held_out: bool


UNKNOWN = Asked("", False)


@dataclass
class ProjectMemory:
    project_id: str
    task: Task
    settings: ProjectSettings
    pool: Pool
    seq: int = -1  # newest label event taken in
    tracks: dict[str, Track] = field(default_factory=lambda: defaultdict(Track))
    gold: dict[str, str] = field(default_factory=dict)  # item -> outcome
    extra: set[str] = field(default_factory=set)  # impressions whose label came when the item had enough
    pending: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # item -> impression -> letter
    adjudicated: set[str] = field(default_factory=set)
    prompts: dict[str, Asked] = field(default_factory=dict)
    texts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # binary: prompt -> hashes of its texts

    @staticmethod
    def empty(project: Project) -> ProjectMemory:
        return ProjectMemory(project.project_id, project.task, project.settings, Pool(project.settings))

    def item_of(self, impression: Impression) -> str:
        return impression.pair_id if self.task == "pairwise" else impression.left_completion_id

    def adopt(self, before: ProjectMemory) -> None:
        """Keep what no table has: the leases as they were renewed or ended, who is at work, votes under way."""
        for item_id, annotator_id, _ in self.pool.leases():
            self.pool.release(item_id, annotator_id)
        for item_id, annotator_id, until in before.pool.leases():
            if any(shown.item_id == item_id for shown in self.tracks[annotator_id].shown.values()):
                self.pool.lease(item_id, annotator_id, until)
        for annotator_id, track in before.tracks.items():
            self.tracks[annotator_id].asked_at = track.asked_at
        self.pending = before.pending

    def revive(self, until: float) -> None:
        """After a start: what people had on their screens is leased to them until then, what came later for its own term. Where
        several had an item on theirs, those who got it last come first: whoever had it before had let it go."""
        waiting = [shown for track in self.tracks.values() for shown in track.shown.values() if shown.impression.kind in COUNTED]
        for item_id, annotator_id, _ in self.pool.leases():
            self.pool.release(item_id, annotator_id)
        for impression, item_id in sorted(waiting, key=lambda shown: shown.impression.served_at, reverse=True):
            if self.pool.open_for(item_id, impression.annotator_id):
                self.pool.lease(item_id, impression.annotator_id, max(until, impression.lease_expires_at.timestamp()))

    # --- from commits ------------------------------------------------------------------------------------------------

    def take(self, db: Database, change: Change) -> None:
        """Take in the rows of one committed insert that belong to this project."""
        rows = [row for row in change.rows if row.get("project_id") == self.project_id]
        if not rows:
            return
        if change.table == "prompts":
            self.prompts.update((row["prompt_id"], Asked(row["category"], row["split"] == "held_out")) for row in rows)
        elif change.table == "pairs" and self.task == "pairwise":
            for row in self._from_sources(db, rows):
                self.add_pair(row["pair_id"], row["prompt_id"], row["completion_a"], row["completion_b"], row["rank"])
        elif change.table == "completions" and self.task == "binary":
            self._take_completions(rows)
        elif change.table == "impressions":
            self._take_impressions(db, [row for row in rows if row["task"] == self.task])
        elif change.table == "label_events":
            self._take_events(db, [row for row in rows if row["seq"] > self.seq])
        elif change.table in ("gold", "adjudications"):
            self.decide(change.table, ((row["item_id"], row["outcome"]) for row in rows))
        elif change.table == "judgments":
            self.judge((row["completion_a"], row["completion_b"], row["p"], row["verdict"]) for row in rows)

    def add_pair(self, pair_id: str, prompt_id: str, completion_a: str, completion_b: str, rank: int) -> None:
        self.pool.add(Item(pair_id, prompt_id, completion_a, completion_b, rank, *self.prompts.get(prompt_id, UNKNOWN)))

    def add_completion(self, completion_id: str, prompt_id: str, digest: str) -> None:
        """The same text twice is one item: nobody should judge it twice."""
        known = self.texts[prompt_id]
        if digest not in known:
            self.pool.add(Item(completion_id, prompt_id, completion_id, "", len(known), *self.prompts.get(prompt_id, UNKNOWN)))
            known.add(digest)

    def decide(self, table: str, rows: Iterable[tuple[str, str]]) -> None:
        """The answers of items are known, or are not any more ('')."""
        for item_id, outcome in rows:
            if table == "gold":
                self.gold.pop(item_id, None)
                if outcome:
                    self.gold[item_id] = outcome
            elif outcome:
                self.adjudicated.add(item_id)
            else:
                self.adjudicated.discard(item_id)
            self.pool.decide(item_id, item_id in self.gold or item_id in self.adjudicated)

    def judge(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """What judges said of pairs, oldest first: the newest verdict counts."""
        if self.task != "pairwise" or self.settings.policy == "stratified_random":
            return
        for one, other, p, verdict in rows:
            if p is None or not verdict:
                continue
            item_id, mirrored = completions.pair_id_of(one, other), one > other
            said: Outcome = "tie" if verdict == "tie" else "first" if (verdict == "a") != mirrored else "second"
            self.pool.judge(item_id, Judged(1 - p if mirrored else p, LETTERS[said]))

    def _from_sources(self, db: Database, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        if not self.settings.sources:
            return rows
        ids = {row[side] for row in rows for side in ("completion_a", "completion_b")}
        kept = {c.completion_id for c in completions.get_many(db, sorted(ids)) if c.model in self.settings.sources}
        return [row for row in rows if row["completion_a"] in kept and row["completion_b"] in kept]

    def _take_completions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            if not self.settings.sources or row["model"] in self.settings.sources:
                self.add_completion(row["completion_id"], row["prompt_id"], digest_of(row["text"]))

    def _take_impressions(self, db: Database, rows: Iterable[Mapping[str, Any]]) -> None:
        """Impressions that somebody else wrote (imports), and those that were read at the load already; our own are known."""
        new = [row for row in rows if row["impression_id"] not in self.tracks[row["annotator_id"]].shown]
        for row in new:
            self.pool.see(row["pair_id"] if self.task == "pairwise" else row["left_completion_id"], row["annotator_id"])
        open_ids = [row["impression_id"] for row in new if row["kind"] != "imported"]
        standing = self._standing(db, open_ids)
        for impression in impressions.get_many(db, [i for i in open_ids if not standing.get(i, NO_LABEL).preference]):
            if not standing.get(impression.impression_id, NO_LABEL).excluded:
                self.show(impression)

    # --- labels ------------------------------------------------------------------------------------------------------

    def _take_events(self, db: Database, rows: Sequence[Mapping[str, Any]]) -> None:
        known: dict[str, Impression] = {}
        for row in rows:
            if shown := self.tracks[row["annotator_id"]].shown.get(row["impression_id"]):
                known[row["impression_id"]] = shown.impression
        others = sorted({row["impression_id"] for row in rows} - known.keys())
        labels = self._standing(db, others)
        known |= {i.impression_id: i for i in impressions.get_many(db, others)}
        for row in rows:
            impression = known.get(row["impression_id"])
            if impression is not None and impression.task == self.task:
                was = labels.get(impression.impression_id, NO_LABEL)
                labels[impression.impression_id] = now = after(was, row)
                self.change_label(impression, was, now)
            self.seq = max(self.seq, row["seq"])

    def _standing(self, db: Database, impression_ids: Sequence[str]) -> dict[str, Label]:
        """How the labels of these impressions stand, as far as they have been taken in."""
        if not impression_ids:
            return {}
        sql = f"select * from ({STANDING}) where impression_id in (select unnest($ids::varchar[]))"
        found = db.rows(sql, {"project": self.project_id, "seq": self.seq, "ids": list(impression_ids)})
        return {row["impression_id"]: label_of(row) for row in found}

    def change_label(self, impression: Impression, was: Label, now: Label) -> None:
        """One impression's label goes from `was` to `now`, in all that is counted."""
        track, item_id = self.tracks[impression.annotator_id], self.item_of(impression)
        sides = impression.left_completion_id, impression.right_completion_id
        before, answer = letter(was.counts, *sides), letter(now.counts, *sides)
        track.count(impression, was, now, answer)
        if impression.kind in COUNTED:
            self.pool.say(item_id, before, answer)
        (self.extra.add if now.preference and now.extra else self.extra.discard)(impression.impression_id)
        self.settle_vote(item_id, impression.impression_id)
        if now.preference or now.excluded:
            track.shown.pop(impression.impression_id, None)
            if impression.kind in COUNTED:
                self.pool.release(item_id, impression.annotator_id)
        elif impression.kind != "imported":
            self.show(impression)

    def show(self, impression: Impression) -> None:
        """Put an impression that has no label on its annotator's screen."""
        item_id = self.item_of(impression)
        self.pool.see(item_id, impression.annotator_id)
        if impression.kind in COUNTED:
            self.pool.lease(item_id, impression.annotator_id, impression.lease_expires_at.timestamp())
        track = self.tracks[impression.annotator_id]
        track.shown[impression.impression_id] = Shown(impression, item_id)
        if impression.repeat_of:
            track.repeat(impression.repeat_of)

    # --- votes under way ---------------------------------------------------------------------------------------------

    def is_extra(self, impression: Impression, preference: str) -> bool:
        """Whether a label comes when its item has enough without it; from here on it counts until it is taken in or given up."""
        item_id, track = self.item_of(impression), self.tracks[impression.annotator_id]
        if impression.kind not in COUNTED or impression.task != self.task or item_id not in self.pool.items:
            return False
        under_way = self.pending[item_id]
        if impression.impression_id not in track.shown and impression.impression_id not in under_way:
            return impression.impression_id in self.extra  # it stands already and keeps its place
        said = letter(preference, impression.left_completion_id, impression.right_completion_id)
        others = "".join(by for other, by in under_way.items() if other != impression.impression_id)
        under_way[impression.impression_id] = said
        return bool(said) and self.pool.is_complete(item_id, self.pool.said(item_id) + others)

    def settle_vote(self, item_id: str, impression_id: str) -> None:
        if (under_way := self.pending.get(item_id)) is not None:
            under_way.pop(impression_id, None)
            if not under_way:
                del self.pending[item_id]


def label_of(row: Mapping[str, Any]) -> Label:
    """A row of STANDING."""
    preference = row["preference"] if row["event"] in ("cast", "revised") else ""
    return Label(preference, day_of(row["said_at"] or ""), row["extra"], row["excluded"])


def after(was: Label, row: Mapping[str, Any]) -> Label:
    """How a label stands once this event is taken in."""
    if row["event"] in ("excluded", "restored"):
        return was._replace(excluded=row["event"] == "excluded")
    preference = row["preference"] if row["event"] in ("cast", "revised") else ""
    return Label(preference, day_of(row["created_at"]), '"extra"' in row["flags"], was.excluded)


def digest_of(text: str) -> str:
    return hashlib.md5(text.strip(completions.BLANK).encode(), usedforsecurity=False).hexdigest()
