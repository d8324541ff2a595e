"""What is labelled in a project, by its id: a pair, or a completion in binary tasks. For what is said about items as such (gold,
adjudications), where a wrong id or a word of the other task would lie there unseen for ever."""

from __future__ import annotations

from typing import Literal

from data.cursor import Cursor
from data.errors import BadInput, NotFound
from data.records import Outcome, Task

OUTCOMES: dict[Task, tuple[Outcome, ...]] = {"pairwise": ("first", "second", "tie", "both_bad"), "binary": ("good", "bad")}

# The labels that stand, one per person and item (of a person's several the last), with sides undone; a pair's first completion
# is the one with the smaller id. Gold items and repeats do not count here. Binds $project.
SAID = """
    select if(i.task = 'pairwise', i.pair_id, i.left_completion_id) as item_id, i.prompt_id, l.annotator_id,
           case l.preference when 'a' then if(i.left_completion_id < i.right_completion_id, 'first', 'second')
                             when 'b' then if(i.left_completion_id < i.right_completion_id, 'second', 'first')
                             else l.preference end as outcome
    from current_labels l join impressions i using (impression_id) join projects p on p.project_id = l.project_id
    where l.project_id = $project and i.task = p.task and i.kind in ('normal', 'imported') and l.preference != 'skip'
    qualify row_number() over (partition by item_id, l.annotator_id order by l.seq desc) = 1
"""


def check(cursor: Cursor, project_id: str, item_id: str, outcome: Outcome | Literal[""]) -> None:
    """NotFound when the project has no such item, BadInput when its task has no such answer; '' (none) is always allowed."""
    task: Task | None = cursor.value("select task from projects where project_id = ?", [project_id])
    if task is None:
        raise NotFound("There is no such project.")
    table, key = ("pairs", "pair_id") if task == "pairwise" else ("completions", "completion_id")
    if cursor.row(f"select 1 from {table} where {key} = ? and project_id = ?", [item_id, project_id]) is None:
        raise NotFound("This project has no such item.")
    if outcome and outcome not in OUTCOMES[task]:
        raise BadInput(f"{outcome!r} is no answer to an item of this project; choose one of: {', '.join(OUTCOMES[task])}.")
