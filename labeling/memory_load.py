"""Reads a project's memory from the tables, in a few statements over whole columns: a million labels take seconds, once.

The label events are read as of one `seq`, whatever is committed while this goes on; what comes later is taken in as news.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from data import adjudications, completions, gold, impressions, projects
from data.database import Database
from labeling.memory import STANDING, Asked, ProjectMemory
from labeling.track import REPEAT_AFTER, REPEAT_AMONG, Past

# What a label says of its item, sides undone, as in labeling/overlap.py.
_LETTER = """case when event not in ('cast', 'revised') or excluded then ''
    when preference = 'a' then if(left_completion_id < right_completion_id, 'f', 's')
    when preference = 'b' then if(left_completion_id < right_completion_id, 's', 'f')
    when preference = 'tie' then 't' when preference = 'both_bad' then 'x'
    when preference = 'good' then 'g' when preference = 'bad' then 'b' else '' end"""

# Everything of the labels in one statement, so that the label events are gone through once. A row of `ours` is an impression with
# its label; what comes out are rows of several kinds (`what`) in the same columns. `who` is one annotator or, of an item, all who
# have seen it, as JSON: few different texts, where lists would be a million strings.
_LABELS = f"""
    with ours as materialized (
        select i.impression_id, i.annotator_id, if($task = 'pairwise', i.pair_id, i.left_completion_id) as item_id, i.kind,
               i.repeat_of, i.served_at, s.first_seq, s.said_at, coalesce(s.extra, false) as extra,
               s.event is not null and s.event in ('cast', 'revised') as is_said, coalesce(s.excluded, false) as excluded,
               is_said and not excluded as counts, s.preference, if(is_said, {_LETTER}, '') as letter
        from impressions i left join ({STANDING}) s using (impression_id) where i.project_id = $project and i.task = $task
    ), recent as (
        select impression_id, annotator_id, letter, first_seq,
               row_number() over (partition by annotator_id order by first_seq desc) as age
        from ours where counts qualify age <= $recent
    )
    select 'item' as what, item_id as id, to_json(list_sort(list(distinct annotator_id)))::varchar as who,
           coalesce(string_agg(letter, '' order by letter) filter (kind in ('normal', 'imported')), '') as said,
           [] as ids, 0 as n1, 0 as n2, 0 as n3
    from ours group by item_id
    union all
    select 'person', '', annotator_id, '', list(impression_id) filter (letter != '' and said_at >= $today),
           count(*) filter (letter != ''), count(*) filter (counts and letter = ''), count(*) filter (counts)
    from ours group by annotator_id
    union all
    select 'extra', impression_id, '', '', [], 0, 0, 0 from ours where extra and is_said
    union all
    select 'waiting', impression_id, '', '', [], epoch_us(served_at), 0, 0
    from ours where not is_said and not excluded and kind != 'imported'
    union all
    select 'recent', impression_id, annotator_id, letter, [], first_seq, age, 0 from recent where letter != ''
    union all
    select 'echo', again.repeat_of, again.annotator_id, coalesce(first.letter, ''), [again.letter], 0, 0, 0
    from ours again left join ours first on first.impression_id = again.repeat_of where again.kind = 'repeat'
"""


def load(db: Database, project_id: str) -> ProjectMemory:
    """NotFound when there is no such project."""
    memory = ProjectMemory.empty(projects.get(db, project_id))
    memory.seq = int(db.value("select coalesce(max(seq), -1) from label_events where project_id = ?", (project_id,)))
    _load_prompts(db, memory)
    memory.decide("gold", ((g.item_id, g.outcome) for g in gold.current(db, project_id)))
    memory.decide("adjudications", ((a.item_id, a.outcome) for a in adjudications.current(db, project_id)))
    if memory.settings.policy != "stratified_random":
        sql = "select completion_a, completion_b, p, verdict from judgments where project_id = ? order by created_at, judgment_id"
        memory.judge(tuple(row.values()) for row in db.rows(sql, (project_id,)))
    labels = _read_labels(db, memory)
    same: dict[str, tuple[str, ...]] = {}  # a million labels have few different sets of annotators
    for row in labels["item"]:  # before the items, so that each goes to its place at once
        seers = same.get(row["who"])
        if seers is None:
            seers = same[row["who"]] = tuple(json.loads(row["who"]))
        memory.pool.know(row["id"], row["said"], seers)
    _load_items(db, memory)
    _load_people(db, memory, labels)
    return memory


def _read_labels(db: Database, memory: ProjectMemory) -> dict[str, list[dict[str, Any]]]:
    bound = {
        "project": memory.project_id,
        "task": memory.task,
        "seq": memory.seq,
        "today": datetime.now(UTC).date(),
        "recent": REPEAT_AMONG + REPEAT_AFTER if memory.settings.repeat_rate else 0,
    }
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in db.rows(_LABELS, bound):
        found[row["what"]].append(row)
    return found


def _load_prompts(db: Database, memory: ProjectMemory) -> None:
    sql = "select prompt_id, category, split from prompts where project_id = ?"
    found = db.rows(sql, (memory.project_id,))
    memory.prompts = {row["prompt_id"]: Asked(row["category"], row["split"] == "held_out") for row in found}


def _load_items(db: Database, memory: ProjectMemory) -> None:
    sources = list(memory.settings.sources)
    bound: dict[str, object] = {"project": memory.project_id, **({"sources": sources} if sources else {})}
    ours = "select completion_id from completions where project_id = $project and model in (select unnest($sources::varchar[]))"
    if memory.task == "pairwise":
        only = f" and completion_a in ({ours}) and completion_b in ({ours})" if sources else ""
        columns = "pair_id, prompt_id, completion_a, completion_b, rank"
        for row in db.rows(f"select {columns} from pairs where project_id = $project{only}", bound):
            memory.add_pair(**row)
        return
    only = f" and completion_id in ({ours})" if sources else ""
    sql = f"""select completion_id, prompt_id, md5(trim(text, $blank)) as digest from completions
              where project_id = $project{only} order by created_at, completion_id"""
    for row in db.rows(sql, {**bound, "blank": completions.BLANK}):
        memory.add_completion(**row)


def _load_people(db: Database, memory: ProjectMemory, labels: Mapping[str, list[dict[str, Any]]]) -> None:
    today = datetime.now(UTC).date().isoformat()
    for row in labels["person"]:
        track = memory.tracks[row["who"]]
        track.labelled, track.skipped, track.position = row["n1"], row["n2"], row["n3"]
        if row["ids"]:
            track.day, track.today = today, set(row["ids"])
    memory.extra = {row["id"] for row in labels["extra"]}
    for row in labels["echo"]:
        memory.tracks[row["who"]].echoes[row["id"]] = [row["said"], row["ids"][0]]
    shown = {
        i.impression_id: i for i in impressions.get_many(db, [r["id"] for what in ("recent", "waiting") for r in labels[what]])
    }
    for row in sorted(labels["recent"], key=lambda row: row["n1"]):
        track = memory.tracks[row["who"]]
        track.may_repeat(Past(track.position - row["n2"] + 1, shown[row["id"]], row["said"]))
    for row in sorted(labels["waiting"], key=lambda row: (row["n1"], row["id"])):
        memory.show(shown[row["id"]])
