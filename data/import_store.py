"""Storing what an import read: prompts, imported completions and, for people's labels, impressions of kind "imported".

An imported label goes through the same door as one cast here: an impression says which answer stood on which side, the label says
a or b, and `data/labels.py` resolves it. So snapshots, agreement and bias treat it alike. Every id derives from content. The side
of the chosen answer is drawn by a hash of annotator and pair: were it always the left, the preference for a side could not be
told from the preference for an answer.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data import completions, impressions, labels, people, prompts
from data.database import Database
from data.normalise import Item, Vote
from data.records import Completion, Impression, LabelEvent, Pair, Preference, Prompt, content_id, now, to_row

NAMESPACE = uuid.UUID("6f0c1e9c-52f5-5b7c-9a0e-6d1f4a1b8a11")


class Stored(NamedTuple):
    prompts: int = 0
    completions: int = 0
    preferences: int = 0
    duplicates: int = 0


@dataclass
class Batch:
    """Items made into records; `rows` holds each item's ids, so that it can be told which of them were there already."""

    project_id: str
    source: str
    prompts: dict[str, Prompt] = field(default_factory=dict)
    completions: dict[str, Completion] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    impressions: dict[str, Impression] = field(default_factory=dict)
    events: dict[str, LabelEvent] = field(default_factory=dict)
    rows: list[frozenset[str]] = field(default_factory=list)
    characters: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, made: Iterable[Item]) -> None:
        for item in made:
            prompt = prompts.new(
                self.project_id, item.messages, item.follow_up, item.reference, item.category, self.source, item.external_id
            )
            self.prompts.setdefault(prompt.prompt_id, prompt)
            answers = [completions.new(prompt, answer.text, "imported", answer.model) for answer in item.answers]
            for answer in answers:
                self.completions.setdefault(answer.completion_id, answer)
            events = self._labels(item, prompt, answers)
            self.rows.append(frozenset([prompt.prompt_id, *(a.completion_id for a in answers), *events]))
            self.characters += sum(len(m.content) for m in item.messages) + sum(len(a.text) for a in item.answers)

    def _labels(self, item: Item, prompt: Prompt, answers: Sequence[Completion]) -> list[str]:
        """Impressions and events for the item's votes; the events' ids. Two answers with the same text are no pair."""
        pair = _pair(prompt, answers) if len(answers) == 2 else None
        if len(answers) == 2 and pair is None:
            return []
        if pair is not None:
            self.pairs.setdefault(pair.pair_id, pair)
        made = []
        for vote in item.votes:
            shown, preference = _impression(vote, prompt, answers, pair, item.as_shown)
            event_id = str(uuid.uuid5(NAMESPACE, shown.impression_id))
            self.impressions.setdefault(shown.impression_id, shown)
            self.events.setdefault(
                event_id,
                LabelEvent(
                    event_id, shown.impression_id, self.project_id, vote.annotator_id, "cast", preference, simulated=vote.simulated
                ),
            )
            made.append(event_id)
        return made


def store(db: Database, batch: Batch) -> Stored:
    """Store the batch; what was new, and how many of its rows brought nothing new. Repeating it after a crash completes it."""
    if not batch.rows:
        return Stored()
    old_prompts = _there(db, "select prompt_id as id from prompts where prompt_id in (select unnest(?::varchar[]))", batch.prompts)
    old_answers = _there(
        db, "select completion_id as id from completions where completion_id in (select unnest(?::varchar[]))", batch.completions
    )
    old_events = _there(db, "select event_id as id from label_events where event_id in (select unnest(?::uuid[]))", batch.events)
    new_prompts = prompts.add(db, list(batch.prompts.values()))
    new_answers = completions.add(db, list(batch.completions.values()))
    events = [event for event in batch.events.values() if event.event_id not in old_events]
    _add_pairs(db, batch)
    for annotator_id in sorted({event.annotator_id for event in events}):
        people.ensure(db, annotator_id, annotator_id.removeprefix("imported:"), "imported")
    impressions.add(db, list(batch.impressions.values()))
    labels.append(db, events)
    return Stored(new_prompts, new_answers, len(events), _duplicates(batch.rows, old_prompts | old_answers | old_events))


def _duplicates(rows: Sequence[frozenset[str]], there: set[str]) -> int:
    count, seen = 0, set(there)
    for ids in rows:
        count += ids <= seen
        seen |= ids
    return count


def _there(db: Database, sql: str, ids: Iterable[str]) -> set[str]:
    return {str(row["id"]) for row in db.rows(sql, [list(ids)])}


def _add_pairs(db: Database, batch: Batch) -> None:
    """The labelled pairs that `completions.add` did not make (it pairs each text once and not with everything)."""
    there = _there(db, "select pair_id as id from pairs where pair_id in (select unnest(?::varchar[]))", batch.pairs)
    missing = [pair for pair in batch.pairs.values() if pair.pair_id not in there]
    if not missing:
        return
    sql = "select prompt_id, count(*) as n from pairs where prompt_id in (select unnest(?::varchar[])) group by prompt_id"
    ranks = {row["prompt_id"]: int(row["n"]) for row in db.rows(sql, [sorted({pair.prompt_id for pair in missing})])}
    rows = []
    for pair in missing:
        rank = ranks.get(pair.prompt_id, 0)
        ranks[pair.prompt_id] = rank + 1
        rows.append({**to_row(pair), "rank": rank})
    db.insert("pairs", rows)


def _pair(prompt: Prompt, answers: Sequence[Completion]) -> Pair | None:
    if answers[0].text.strip() == answers[1].text.strip():
        return None
    one, other = sorted(answer.completion_id for answer in answers)
    return Pair(content_id(one, other), prompt.project_id, prompt.prompt_id, one, other, 0, now())


def _impression(
    vote: Vote, prompt: Prompt, answers: Sequence[Completion], pair: Pair | None, as_shown: bool
) -> tuple[Impression, Preference]:
    """What the person saw, and their preference in its words. The id holds the preference: in a file, two people who disagree may
    go under one name."""
    left, right, preference = answers[0].completion_id, "", vote.said
    if pair is not None:
        right = answers[1].completion_id
        if not as_shown and left_is_second(vote.annotator_id, pair.pair_id) == (left == pair.completion_a):
            left, right = right, left
        sides = {
            "first": "a" if left == answers[0].completion_id else "b",
            "second": "a" if right == answers[0].completion_id else "b",
        }
        preference = sides.get(vote.said, vote.said)  # type: ignore[assignment]
    at = now()
    shown = Impression(
        impression_id=content_id("imported", prompt.project_id, vote.annotator_id, left, right, preference, vote.key),
        project_id=prompt.project_id,
        annotator_id=vote.annotator_id,
        prompt_id=prompt.prompt_id,
        pair_id=pair.pair_id if pair is not None else "",
        left_completion_id=left,
        right_completion_id=right,
        task="pairwise" if pair is not None else "binary",
        kind="imported",
        policy="imported",
        probability=1.0,
        served_at=at,
        lease_expires_at=at,
    )
    return shown, preference  # type: ignore[return-value]


def left_is_second(annotator_id: str, pair_id: str) -> bool:
    """Whether the pair's second completion is put on the left: a fair coin, the same for ever."""
    return hashlib.sha256(f"side\0{annotator_id}\0{pair_id}".encode()).digest()[0] & 1 == 1
