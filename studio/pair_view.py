"""A pair, or a single answer, as a researcher sees it on the Quality page: the texts without their models' names."""

from __future__ import annotations

from collections.abc import Sequence

from data import completions, prompts
from data.database import Database
from data.records import Prompt
from studio.render import Answer, Html, answers, quote


def of_sides(db: Database, prompt_id: str, shown: Sequence[tuple[str, str, str]]) -> Html:
    """`shown`: (completion id, title, what stands at the right of the title), in order; '' ids are left out."""
    texts = {c.completion_id: c.text for c in completions.get_many(db, [c for c, _, _ in shown if c])}
    asked = prompts.get_many(db, [prompt_id])
    said = [Answer(title, texts[c], side) for c, title, side in shown if c in texts]
    return Html(f'<div class="st-open">{_prompt(asked[0]) if asked else ""}{answers(said)}</div>')


def of_item(db: Database, task: str, item_id: str) -> Html:
    """An item in its own order; '' when it is not there."""
    if task == "binary":
        found = completions.get_many(db, [item_id])
        return of_sides(db, found[0].prompt_id, [(item_id, "The answer", "")]) if found else Html("")
    row = db.row("select prompt_id, completion_a, completion_b from pairs where pair_id = ?", [item_id])
    if row is None:
        return Html("")
    return of_sides(db, row["prompt_id"], [(row["completion_a"], "Answer 1", ""), (row["completion_b"], "Answer 2", "")])


def _prompt(prompt: Prompt) -> str:
    turns = [*((m.role, m.content) for m in prompt.messages), *(("then", text) for text in prompt.follow_up)]
    return "".join(quote(content, "" if role == "user" else role) for role, content in turns)
