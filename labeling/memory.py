"""What `labeling/assignment.py` remembers of one project: its pool, what each annotator has on the screen, and their counts.

Loaded from the tables once, then kept level with them by `take`, which is given every committed change in order. Taking in the
same row twice changes nothing for items and impressions; label events are told apart by their `seq`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data import impressions, projects
from data.database import Database
from data.journal import Change
from data.records import Impression, Task
from labeling.pool import Item, Pool

# The labels as of one event, whatever has been committed since: what is read in several queries must be of one moment.
_STANDING = """
    select e.impression_id, e.preference from (
        select impression_id, preference, event from label_events
        where project_id = $project and seq <= $seq and event in ('cast', 'revised', 'retracted')
        qualify row_number() over (partition by impression_id order by seq desc) = 1
    ) e anti join (
        select impression_id from label_events
        where project_id = $project and seq <= $seq and event in ('excluded', 'restored')
        qualify row_number() over (partition by impression_id order by seq desc) = 1 and event = 'excluded'
    ) x using (impression_id)
    where e.event in ('cast', 'revised')
"""
_OURS = "i.project_id = $project and i.task = $task"


class Shown(NamedTuple):
    """An impression that has no label yet."""

    impression: Impression
    item_id: str


@dataclass
class ProjectMemory:
    project_id: str
    task: Task
    pool: Pool
    seq: int = -1  # newest label event taken in
    shown: dict[str, dict[str, Shown]] = field(default_factory=lambda: defaultdict(dict))  # annotator -> impression id -> it
    labelled: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # annotator -> labels that are no skip
    skipped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    categories: dict[str, str] = field(default_factory=dict)
    texts: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))  # binary: prompt -> hashes of its texts

    @staticmethod
    def load(db: Database, project_id: str, overlap: int) -> ProjectMemory:
        """NotFound when there is no such project."""
        memory = ProjectMemory(project_id, projects.get(db, project_id).task, Pool(overlap))
        memory.seq = int(db.value("select coalesce(max(seq), -1) from label_events where project_id = ?", (project_id,)))
        memory._load_labels(db)
        memory._load_items(db)
        memory._load_waiting(db)
        return memory

    # --- from the tables ---

    def _load_labels(self, db: Database) -> None:
        """Who has seen what and how often it was labelled: before the items, so that each goes to its place at once."""
        item = "i.pair_id" if self.task == "pairwise" else "i.left_completion_id"
        seen = f"select {item} as item_id, list(distinct annotator_id) as seers from impressions i where {_OURS} group by {item}"
        for row in db.rows(seen, {"project": self.project_id, "task": self.task}):
            for annotator_id in row["seers"]:
                self.pool.see(row["item_id"], annotator_id)
        ours = f"with standing as ({_STANDING}) select * from standing s join impressions i using (impression_id) where {_OURS}"
        counts = f"select {item} as item_id, count(*) as n from ({ours}) i where preference != 'skip' group by all"
        for row in db.rows(counts, self._bound):
            self.pool.count(row["item_id"], row["n"])
        counts = f"select annotator_id, preference = 'skip' as skipped, count(*) as n from ({ours}) group by all"
        for row in db.rows(counts, self._bound):
            (self.skipped if row["skipped"] else self.labelled)[row["annotator_id"]] = row["n"]

    @property
    def _bound(self) -> dict[str, object]:
        return {"project": self.project_id, "task": self.task, "seq": self.seq}

    def _load_items(self, db: Database) -> None:
        found = db.rows("select prompt_id, category from prompts where project_id = ?", (self.project_id,))
        self.categories = {row["prompt_id"]: row["category"] for row in found}
        if self.task == "pairwise":
            columns = "pair_id, prompt_id, completion_a, completion_b, rank"
            self._add_pairs(db.rows(f"select {columns} from pairs where project_id = ?", (self.project_id,)))
        else:
            sql = "select completion_id, prompt_id, text from completions where project_id = ? order by created_at, completion_id"
            self._add_completions(db.rows(sql, (self.project_id,)))

    def _load_waiting(self, db: Database) -> None:
        sql = f"""
            with standing as ({_STANDING})
            select impression_id from impressions i
            where {_OURS} and kind != 'imported'
              and not exists (select 1 from standing s where s.impression_id = i.impression_id)
        """
        ids = [row["impression_id"] for row in db.rows(sql, self._bound)]
        for impression in sorted(impressions.get_many(db, ids), key=lambda i: i.served_at):
            self.show(impression)

    # --- from commits ------------------------------------------------------------------------------------------------

    def take(self, db: Database, change: Change) -> None:
        """Take in the rows of one committed insert that belong to this project."""
        rows = [row for row in change.rows if row.get("project_id") == self.project_id]
        if change.table == "prompts":
            self.categories.update((row["prompt_id"], row["category"]) for row in rows)
        elif change.table == "pairs" and self.task == "pairwise":
            self._add_pairs(rows)
        elif change.table == "completions" and self.task == "binary":
            self._add_completions(rows)
        elif change.table == "impressions":
            self._add_impressions(db, [row for row in rows if row["task"] == self.task])
        elif change.table == "label_events":
            self._add_events(db, [row for row in rows if row["seq"] > self.seq])

    def _add_pairs(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            category = self.categories.get(row["prompt_id"], "")
            self.pool.add(Item(row["pair_id"], row["prompt_id"], row["completion_a"], row["completion_b"], row["rank"], category))

    def _add_completions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The same text twice is one item: nobody should judge it twice."""
        for row in rows:
            digest = hashlib.sha256(row["text"].strip().encode()).digest()[:16]
            known = self.texts[row["prompt_id"]]
            if digest not in known:
                category = self.categories.get(row["prompt_id"], "")
                self.pool.add(Item(row["completion_id"], row["prompt_id"], row["completion_id"], "", len(known), category))
                known.add(digest)

    def _add_impressions(self, db: Database, rows: Iterable[Mapping[str, Any]]) -> None:
        """Impressions that somebody else wrote (imports), and those that were read at the load already; our own are known."""
        new = [row for row in rows if row["impression_id"] not in self.shown[row["annotator_id"]]]
        for row in new:
            self.pool.see(self._item_of(row["pair_id"], row["left_completion_id"]), row["annotator_id"])
        open_ids = [row["impression_id"] for row in new if row["kind"] != "imported"]
        labelled = self._standing(db, open_ids) if open_ids else {}
        for impression in impressions.get_many(db, [i for i in open_ids if i not in labelled]):
            self.show(impression)

    def _add_events(self, db: Database, rows: Sequence[Mapping[str, Any]]) -> None:
        of = {row["impression_id"]: self.shown[row["annotator_id"]].get(row["impression_id"]) for row in rows}
        others = [impression_id for impression_id, shown in of.items() if shown is None]
        standing = self._standing(db, others) if others else {}
        known = {i: shown.impression for i, shown in of.items() if shown} | {
            i.impression_id: i for i in impressions.get_many(db, others)
        }
        for row in rows:
            impression = known.get(row["impression_id"])
            if impression is not None and impression.task == self.task:
                now = row["preference"] if row["event"] in ("cast", "revised") else ""
                self._change_label(impression, standing.get(impression.impression_id, ""), now, excluded=row["event"] == "excluded")
                standing[impression.impression_id] = now
            self.seq = max(self.seq, row["seq"])

    def _standing(self, db: Database, impression_ids: Sequence[str]) -> dict[str, str]:
        """The preference of each impression as far as it has been taken in; none where it was taken back."""
        sql = f"with standing as ({_STANDING}) select * from standing where impression_id in (select unnest($ids::varchar[]))"
        found = db.rows(sql, {"project": self.project_id, "seq": self.seq, "ids": list(impression_ids)})
        return {row["impression_id"]: row["preference"] for row in found}

    def _change_label(self, impression: Impression, was: str, now: str, excluded: bool) -> None:
        """One impression's label goes from `was` to `now`; '' = none."""
        who, item_id = impression.annotator_id, self._item_of(impression.pair_id, impression.left_completion_id)
        self.skipped[who] += (now == "skip") - (was == "skip")
        change = (now not in ("", "skip")) - (was not in ("", "skip"))
        self.labelled[who] += change
        if change and item_id in self.pool.items:
            self.pool.count(item_id, change)
        if now or excluded:
            self.shown[who].pop(impression.impression_id, None)
            self.pool.release(item_id, who)
        elif was:
            self.show(impression)

    def show(self, impression: Impression) -> None:
        """Put an impression that has no label on its annotator's screen."""
        item_id = self._item_of(impression.pair_id, impression.left_completion_id)
        self.pool.see(item_id, impression.annotator_id)
        self.pool.lease(item_id, impression.annotator_id, impression.lease_expires_at.timestamp())
        self.shown[impression.annotator_id][impression.impression_id] = Shown(impression, item_id)

    def _item_of(self, pair_id: str, left_completion_id: str) -> str:
        return pair_id if self.task == "pairwise" else left_completion_id
