"""Reads a project's memory from the tables, in a few statements over whole columns: a million labels take seconds, once.

The label events are read as of one `seq`, whatever is committed while this goes on; what comes later is taken in as news.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from data import adjudications, completions, gold, impressions, projects
from data.database import Database
from data.records import Impression, from_row
from labeling.memory import STANDING, Asked, ProjectMemory
from labeling.track import REPEAT_AFTER, REPEAT_AMONG, Past

# What a label says of its item, sides undone, as in labeling/overlap.py.
_LETTER = """case preference when 'a' then if(left_completion_id < right_completion_id, 'f', 's')
    when 'b' then if(left_completion_id < right_completion_id, 's', 'f')
    when 'tie' then 't' when 'both_bad' then 'x' when 'good' then 'g' when 'bad' then 'b' else '' end"""
_OURS = "i.project_id = $project and i.task = $task"
_COUNTS = "event in ('cast', 'revised') and not excluded"


def load(db: Database, project_id: str) -> ProjectMemory:
    """NotFound when there is no such project."""
    memory = ProjectMemory.empty(projects.get(db, project_id))
    memory.seq = int(db.value("select coalesce(max(seq), -1) from label_events where project_id = ?", (project_id,)))
    _load_prompts(db, memory)
    memory.decide("gold", ((g.item_id, g.outcome) for g in gold.current(db, project_id)))
    memory.decide("adjudications", ((a.item_id, a.outcome) for a in adjudications.current(db, project_id)))
    if memory.settings.policy != "stratified_random":
        sql = "select completion_a, completion_b, p, verdict from judgments where project_id = ? order by created_at, judgment_id"
        memory.judge(_tuples(db, sql, (project_id,)))
    _load_said(db, memory)
    _load_items(db, memory)
    _load_people(db, memory)
    _load_waiting(db, memory)
    return memory


def _tuples(db: Database, sql: str, params: Sequence[object] | Mapping[str, object]) -> Iterator[tuple[Any, ...]]:
    for row in db.rows(sql, params):
        yield tuple(row.values())


def _bound(memory: ProjectMemory) -> dict[str, object]:
    return {"project": memory.project_id, "task": memory.task, "seq": memory.seq}


def _item(memory: ProjectMemory) -> str:
    return "i.pair_id" if memory.task == "pairwise" else "i.left_completion_id"


def _load_prompts(db: Database, memory: ProjectMemory) -> None:
    found = _tuples(db, "select prompt_id, category, split = 'held_out' from prompts where project_id = ?", (memory.project_id,))
    memory.prompts = {prompt_id: Asked(category, held_out) for prompt_id, category, held_out in found}


def _load_said(db: Database, memory: ProjectMemory) -> None:
    """Who has seen which item and what was said of it: before the items, so that each goes to its place at once."""
    sql = f"""
        select {_item(memory)} as item_id, list(distinct i.annotator_id) as seers,
               coalesce(string_agg({_LETTER}, '' order by {_LETTER}) filter (i.kind in ('normal', 'imported') and {_COUNTS}), '')
        from impressions i left join ({STANDING}) s using (impression_id)
        where {_OURS} group by item_id
    """
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # a million labels have few different sets of annotators
    for item_id, seers, said in _tuples(db, sql, _bound(memory)):
        who = tuple(sorted(seers))
        memory.pool.know(item_id, said, same.setdefault(who, who))


def _load_items(db: Database, memory: ProjectMemory) -> None:
    sources = list(memory.settings.sources)
    bound: dict[str, object] = {"project": memory.project_id, **({"sources": sources} if sources else {})}
    ours = "select completion_id from completions where project_id = $project and model in (select unnest($sources::varchar[]))"
    if memory.task == "pairwise":
        only = f" and completion_a in ({ours}) and completion_b in ({ours})" if sources else ""
        columns = "pair_id, prompt_id, completion_a, completion_b, rank"
        for row in _tuples(db, f"select {columns} from pairs where project_id = $project{only}", bound):
            memory.add_pair(*row)
        return
    only = f" and completion_id in ({ours})" if sources else ""
    sql = f"""select completion_id, prompt_id, md5(trim(text, $blank)) from completions
              where project_id = $project{only} order by created_at, completion_id"""
    for row in _tuples(db, sql, {**bound, "blank": completions.BLANK}):
        memory.add_completion(*row)


def _load_people(db: Database, memory: ProjectMemory) -> None:
    today = datetime.now(UTC).date()
    sql = f"""
        select i.annotator_id, count(*) filter (preference != 'skip'), count(*) filter (preference = 'skip'),
               list(s.impression_id) filter (preference != 'skip' and s.said_at >= $today), count(*)
        from ({STANDING}) s join impressions i using (impression_id) where {_OURS} and {_COUNTS} group by all
    """
    for who, labelled, skipped, of_today, given in _tuples(db, sql, {**_bound(memory), "today": today}):
        track = memory.tracks[who]
        track.labelled, track.skipped, track.position = labelled, skipped, given
        if of_today:
            track.day, track.today = today.isoformat(), set(of_today)
    sql = f"select impression_id from ({STANDING}) where extra and event in ('cast', 'revised')"
    memory.extra = {row[0] for row in _tuples(db, sql, {"project": memory.project_id, "seq": memory.seq})}
    _load_echoes(db, memory)
    if memory.settings.repeat_rate:
        _load_recent(db, memory)


def _load_echoes(db: Database, memory: ProjectMemory) -> None:
    """The repeats: what was answered then and again."""
    said = f"select i.impression_id, {_LETTER} as said from ({STANDING}) s join impressions i using (impression_id) where {_COUNTS}"
    sql = f"""
        with said as ({said})
        select i.annotator_id, i.repeat_of, coalesce(first.said, ''), coalesce(again.said, '')
        from impressions i left join said first on first.impression_id = i.repeat_of
             left join said again on again.impression_id = i.impression_id
        where {_OURS} and i.kind = 'repeat'
    """
    for who, repeat_of, then, again in _tuples(db, sql, _bound(memory)):
        memory.tracks[who].echoes[repeat_of] = [then, again]


def _load_recent(db: Database, memory: ProjectMemory) -> None:
    """The last labels of each annotator, in the order in which they were given: what may be repeated."""
    sql = f"""
        select i.annotator_id, s.impression_id, {_LETTER} as said,
               row_number() over (partition by i.annotator_id order by s.first_seq desc) as age
        from ({STANDING}) s join impressions i using (impression_id) where {_OURS} and {_COUNTS}
        qualify age <= $most order by s.first_seq
    """
    found = list(_tuples(db, sql, {**_bound(memory), "most": REPEAT_AMONG + REPEAT_AFTER}))
    shown = {i.impression_id: i for i in impressions.get_many(db, [row[1] for row in found])}
    for who, impression_id, said, age in found:
        track = memory.tracks[who]
        if said:
            track.may_repeat(Past(track.position - age + 1, shown[impression_id], said))


def _load_waiting(db: Database, memory: ProjectMemory) -> None:
    sql = f"""
        select i.* from impressions i anti join (
            select impression_id from ({STANDING}) where event in ('cast', 'revised') or excluded
        ) s using (impression_id)
        where {_OURS} and i.kind != 'imported' order by i.served_at, i.impression_id
    """
    for row in db.rows(sql, _bound(memory)):
        memory.show(from_row(Impression, row))
