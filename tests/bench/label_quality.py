"""How long the Quality page takes to compute with 1,000,000 labels stored: each tab, cold (just started) and after a new label.

    python -m tests.bench.label_quality         # needs no model; the seeding takes about a minute on a quiet machine

Fifty annotators, 200,000 pairs of 400,000 answers of 200 to 800 characters (a third with Markdown), five labels a pair, 5 % of them
repeats, 2 % gold. The rows are written straight into the file, which the store then opens as its own.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from data import people, projects
from data.database import Database
from data.records import Project, ProjectSettings
from data.settings import Settings
from labeling.label_report import Reports

LABELS = 1_000_000
ANNOTATORS = 50
OVERLAP = 5
ROUNDS = 3
TABS = ("overview", "agreement", "cards")

_SEED = (
    """insert into prompts select substr(md5('p' || i), 1, 24), $p, '[{"role": "user", "content": "Question"}]', '[]', '', '',
           'bench', '', 'train', now() from range($items::bigint) t(i)""",
    """insert into completions select substr(md5('c' || i), 1, 24), substr(md5('p' || (i // 2)), 1, 24), $p,
           repeat('Some words of an answer that goes on. ', (5 + i % 16)::int)
           || case when i % 3 = 0 then chr(10) || '- **item** one' || chr(10) || '- item two' else '' end,
           'generated', 'model ' || (i % 4), '', '', '{}', 0, i % 2, 'stop', now(), '[]' from range(2 * $items::bigint) t(i)""",
    """insert into pairs select substr(md5('pair' || i), 1, 24), $p, substr(md5('p' || i), 1, 24),
           least(substr(md5('c' || (2 * i)), 1, 24), substr(md5('c' || (2 * i + 1)), 1, 24)),
           greatest(substr(md5('c' || (2 * i)), 1, 24), substr(md5('c' || (2 * i + 1)), 1, 24)), 0, now()
           from range($items::bigint) t(i)""",
    """insert into impressions select md5('i' || i), $p, 'annotator' || (i % $people::bigint),
           substr(md5('p' || (i // $k::bigint)), 1, 24), substr(md5('pair' || (i // $k::bigint)), 1, 24),
           substr(md5('c' || (2 * (i // $k::bigint) + hash(i) % 2)), 1, 24),
           substr(md5('c' || (2 * (i // $k::bigint) + 1 - hash(i) % 2)), 1, 24), 'pairwise',
           case when i % 20 = 19 then 'repeat' when i % 50 = 7 then 'gold' else 'normal' end, 'stratified_random', 1.0,
           now(), now(),
           case when i % 20 = 19 then md5('i' || (i - 10 * $people::bigint)) else '' end from range($n::bigint) t(i)""",
    """insert into label_events select uuid(), i, md5('i' || i), $p, 'annotator' || (i % $people::bigint), 'cast',
           case when hash(i, 1) % 10 < 7 then ['a', 'b', 'tie', 'both_bad'][1 + (hash(i // $k::bigint) % 4)::int]
                else ['a', 'b', 'tie', 'both_bad', 'skip'][1 + (hash(i, 2) % 5)::int] end,
           '', '', '', 900 + hash(i, 3) % 60000, false, now(), now() - to_seconds((($n::bigint - i) // 4)::bigint), '', '[]',
           case when i % 40 = 0 then '["too_fast"]' else '[]' end, 1.0, '' from range($n::bigint) t(i)""",
    """insert into gold select 'g' || i, $p, substr(md5('pair' || i), 1, 24), 'first', 'entered', 'bench', '', now()
           from range(500) t(i)""",
)  # fmt: skip


def seed(home: Path, labels: int = LABELS) -> Project:
    """A workspace with one project of so many labels."""
    settings = Settings(home=home)
    db = Database(settings)
    project = projects.create(db, "Bench", settings=ProjectSettings(overlap=OVERLAP, max_overlap=OVERLAP))
    db.close()
    con = duckdb.connect(str(settings.db_path))
    bound = {"p": project.project_id, "n": labels, "items": labels // OVERLAP, "people": ANNOTATORS, "k": OVERLAP}
    for sql in _SEED:
        con.execute(sql, {name: value for name, value in bound.items() if f"${name}" in sql})
    con.execute("checkpoint")
    con.close()
    return project


def measure_quality(home: Path, labels: int = LABELS, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds: `cold_s` for the first tab after a start, `<tab>_s` for each tab when a label has come since it was last open,
    `page_s` the slowest of these, `again_s` for a tab that nothing has changed for; medians of the rounds. `overview_cpu_s`:
    processor time of the first tab, in two threads for the most part: what a busy machine stretches."""
    project = seed(home, labels)
    db = Database(Settings(home=home))
    try:
        cold = [_took(lambda: Reports(db).overview(project)) for _ in range(rounds)]
        reports = Reports(db)
        reports.overview(project)
        reports.forget(project.project_id)
        before = time.process_time()
        reports.overview(project)
        cpu = time.process_time() - before
        first_cards = _took(lambda: reports.cards(project))
        took: dict[str, list[float]] = {tab: [] for tab in TABS}
        again = []
        for round_ in range(rounds):
            for tab in TABS:
                _one_more(db, project, f"{round_}{tab}")
                took[tab].append(_took(lambda tab=tab: getattr(reports, tab)(project)))  # type: ignore[misc]
                again.append(_took(lambda tab=tab: getattr(reports, tab)(project)))  # type: ignore[misc]
    finally:
        db.close()
    each = {f"{tab}_s": statistics.median(times) for tab, times in took.items()}
    return {
        "cold_s": statistics.median(cold),
        **each,
        "page_s": max(each.values()),
        "first_cards_s": first_cards,
        "again_s": statistics.median(again),
        "overview_cpu_s": cpu,
    }


def shown_to(home: Path, annotator_id: str, count: int) -> list[str]:
    """Impressions of this person's own, not labelled yet, in the one project, which they have open."""
    db = Database(Settings(home=home))
    try:
        project = projects.get(db, str(db.value("select project_id from impressions limit 1")))
        people.ensure(db, annotator_id, "You", "local")
        people.set_open_project(db, annotator_id, project.project_id)
        row = db.row("select * from impressions where kind = 'normal' limit 1")
        assert row is not None
        ids = [uuid.uuid4().hex for _ in range(count)]
        db.insert("impressions", [{**row, "impression_id": one, "annotator_id": annotator_id} for one in ids])
        return ids
    finally:
        db.close()


def opened(browser: Any, url: str) -> float:
    """Seconds from asking for the page to the figures on it; `browser` is a context, which keeps what it has fetched before."""
    page = browser.new_page()
    started = time.perf_counter()
    page.goto(f"{url}/quality?tab=overview")
    page.wait_for_function(
        "document.querySelector('#quality-overview .st-facts, #quality-overview table') !== null", timeout=60_000
    )
    took = time.perf_counter() - started
    page.close()
    return took


def _one_more(db: Database, project: Project, name: str) -> None:
    """Somebody revises a label."""
    sql = "select * from label_events where project_id = ? limit 1 offset ?"
    row = db.row(sql, [project.project_id, len(name) * 1000])
    assert row is not None
    db.insert("label_events", [{**row, "event_id": str(uuid.uuid4()), "event": "revised", "preference": "tie", "seq": next(_SEQ)}])


_SEQ = itertools.count(10 * LABELS)


def _took(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.environ.get("STUDIO_HOME")) as folder:
        before = time.process_time()
        measured = measure_quality(Path(folder) / "home")
        print(
            f"load {os.getloadavg()[0]:.1f} cpu {time.process_time() - before:.0f} s", {k: round(v, 2) for k, v in measured.items()}
        )
