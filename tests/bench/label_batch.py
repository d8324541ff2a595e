"""How long the next batch takes beside a million labels: `measure_next_batch(home)`, part of `make bench-label`.

The workspace is made here by bulk statements (a million labels by fifty people, three a pair, and open pairs left), which no
user could make; what is measured then is the app's own way: `Assignment.serve`, which stores its impressions, and the next
batch after the last one was labelled.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import projects
from data.database import Database
from data.records import ProjectSettings
from data.settings import Settings
from labeling import preferences
from labeling.assignment import Assignment
from labeling.preferences import Vote

LABELS, OVERLAP, PEOPLE, OPEN_PAIRS = 1_000_000, 3, 50, 30_000
PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))  # of the four completions of a prompt
PAIRS_A_PROMPT = len(PAIRS)
BATCH, ROUNDS = 30, 200


def build(home: Path, labels: int = LABELS) -> tuple[Database, str]:
    """A workspace with so many labels, in bulk: the journal knows nothing of them, so it cannot be rebuilt from it."""
    db = Database(Settings(home=home))
    project = projects.create(db, "A million labels", settings=ProjectSettings(overlap=OVERLAP))
    n_pairs = labels // OVERLAP + OPEN_PAIRS
    n_prompts = -(-n_pairs // PAIRS_A_PROMPT)
    p, at = project.project_id, "timestamptz '2026-01-01 00:00:00+00' + i * interval 1 second"
    prompt = f"md5('p' || i // {PAIRS_A_PROMPT})[:24]"
    one, other = (
        f"md5('c' || i // {PAIRS_A_PROMPT} || '-' || {list(ks)}[i % {PAIRS_A_PROMPT} + 1])[:24]" for ks in zip(*PAIRS, strict=True)
    )
    pair = f"""select least({one}, {other}) as a, greatest({one}, {other}) as b, md5('pair' || i)[:24] as pair, i
               from range({n_pairs}) r(i)"""
    shown = f"""select *, {prompt} as prompt, 'person-' || ((i * 7 + k * 11) % {PEOPLE}) as who,
                       md5('i' || i || '-' || k)[:24] as shown, hash(i * 3 + k) % 2 = 0 as flipped
                from ({pair}) p, range({OVERLAP}) s(k) where i < {labels // OVERLAP}"""
    text = "repeat('The answer is that it depends on what is meant by the question, see below. ', 6)"
    asked = """'[{"role": "user", "content": "Question ' || i || '"}]'"""
    sides = "if(flipped, b, a), if(flipped, a, b)"
    for sql in (
        f"""insert into prompts select md5('p' || i)[:24], '{p}', {asked}, '[]', '', 'topic-' || i % 12, 'bench', '',
                   if(i % 5 = 0, 'held_out', 'train'), {at} from range({n_prompts}) r(i)""",
        f"""insert into completions select md5('c' || i || '-' || k)[:24], md5('p' || i)[:24], '{p}', {text} || i || k, 'generated',
                   'model', 'm', 'r', '{{}}', 0, k, 'stop', {at}, '[]' from range({n_prompts}) r(i), range(4) s(k)""",
        f"insert into pairs select pair, '{p}', {prompt}, a, b, i % {PAIRS_A_PROMPT}, {at} from ({pair})",
        f"""insert into impressions select shown, '{p}', who, prompt, pair, {sides}, 'pairwise', 'normal', 'stratified_random', 0,
                   {at}, {at}, '' from ({shown})""",
        f"""insert into label_events select uuid(), i * {OVERLAP} + k, shown, '{p}', who, 'cast', 'a', {sides}, '', 9000, true,
                   null, {at}, '', '[]', '[]', 1.0, '' from ({shown})""",
        "checkpoint",
    ):
        db._file.connection.execute(sql)
    return db, p


def measure_next_batch(home: Path, labels: int = LABELS, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds and milliseconds: `load_s`, then p50 and p95 of one batch of 30 for the next of fifty people, who labelled theirs."""
    db, project_id = build(home, labels)
    try:
        ours = Assignment(db)
        people = [f"person-{k}" for k in range(PEOPLE)]
        random.Random(0).shuffle(people)
        started = time.perf_counter()
        ours.progress(people[0], project_id)
        load = time.perf_counter() - started
        batches, votes = [], []
        for k in range(rounds):
            who = people[k % PEOPLE]
            started = time.perf_counter()
            served = ours.serve(who, project_id, BATCH)
            batches.append(time.perf_counter() - started)
            assert len(served) == BATCH, "the open pairs ran out"
            said = [Vote(str(uuid.uuid4()), s.impression.impression_id, "cast", "a") for s in served]
            started = time.perf_counter()
            assert all(o.accepted for o in preferences.record(db, who, said, simulated=True, assignment=ours))
            votes.append(time.perf_counter() - started)
        return {
            "labels": float(db.value("select count(*) from label_events")),
            "load_s": load,
            **{f"batch_{name}_ms": value for name, value in _quantiles(batches).items()},
            **{f"store_{BATCH}_votes_{name}_ms": value for name, value in _quantiles(votes).items()},
        }
    finally:
        db.close()


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {name: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in (("p50", 0.5), ("p95", 0.95))}


def main(home: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = measure_next_batch(Path(home or folder) / "workspace")
    for name, value in found.items():
        print(f"{name:24} {value:12.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
