"""What is decided about items on the Quality page: disagreements by a researcher with a reason, and gold, whose answer is known.

Votes are shown by pseudonym: who decides should weigh what was said, not who said it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data import adjudications, gold, people
from data.database import Database
from data.errors import BadInput
from data.pseudonyms import Pseudonyms
from data.records import Gold, Outcome, Project
from studio import quality_words as words
from studio.context import Studio
from studio.item_tab import Row
from studio.render import Html, ago, count, empty, esc

MOST = 2_000  # items in a list


class Disagreements:
    name = "disagreements"
    title = "Items on which people differ. What you decide counts instead of their votes, and stays beside them with your reason."
    views: Sequence[tuple[str, str]] = (("Open", "open"), ("Decided", "decided"))
    headings = ("Votes", "Majority")
    do, undo, reason, searchable = "Decide", "Take it back", "Reason", False

    def __init__(self, studio: Studio) -> None:
        self._db = studio.db

    def find(self, project: Project, view: str, search: str) -> list[Row]:
        if view == "decided":
            return self._decided(project)
        names = Pseudonyms(self._db, project.project_id)
        rows = []
        for item in adjudications.open_items(self._db, project.project_id, MOST):
            votes = Counter(words.OUTCOME_NAMES[said.outcome] for said in item.said)
            by_name = ", ".join(f"{names.of(said.annotator_id)}: {words.OUTCOME_NAMES[said.outcome]}" for said in item.said)
            says = ", ".join(f"{n} × {outcome}" for outcome, n in votes.most_common())
            majority = words.OUTCOME_NAMES[item.majority] if item.majority else "none"
            rows.append(Row(item.item_id, item.prompt_id, says, majority, Html(f'<p class="st-sub">{esc(by_name)}</p>')))
        return rows

    def _decided(self, project: Project) -> list[Row]:
        names = people.names(self._db)
        found = list(reversed(adjudications.current(self._db, project.project_id)))[:MOST]
        prompts = _prompts(self._db, project, [each.item_id for each in found])
        return [
            Row(
                each.item_id,
                prompts.get(each.item_id, ""),
                words.OUTCOME_NAMES[each.outcome],
                f"{names.get(each.actor) or 'A researcher'}, {ago(each.created_at)}: {each.reason}",
                Html(f'<p class="st-sub">{esc(each.reason)}</p>'),
            )
            for each in found
            if each.outcome
        ]

    def nothing(self, project: Project, view: str) -> Html:
        if view == "decided":
            return empty("Nothing has been decided yet.")
        if project.settings.overlap < 2 and not project.settings.adaptive:
            return empty("This project asks for one label an item, so nobody can differ.", "project", "Ask for two")
        return empty("Nobody differs on any item.")

    def is_decided(self, project: Project, item_id: str) -> bool:
        return any(each.item_id == item_id for each in adjudications.current(self._db, project.project_id))

    def decide(self, project: Project, item_id: str, outcome: Outcome, reason: str, actor: str) -> str:
        adjudications.add(self._db, project.project_id, item_id, outcome, reason, actor)
        return f"Decided: {words.OUTCOME_NAMES[outcome]}."

    def take_back(self, project: Project, item_id: str, reason: str, actor: str) -> str:
        adjudications.add(self._db, project.project_id, item_id, "", reason, actor)
        return "The decision is taken back; the votes count again."


class GoldItems:
    name = "gold"
    title = (
        "Items whose right answer is known. They are mixed in now and then, look like any other, and tell how well people label."
    )
    views: Sequence[tuple[str, str]] = (("Suggested", "suggested"), ("Gold now", "gold"), ("Any item", "any"))
    headings = ("Right answer", "Where from")
    do, undo, reason, searchable = "Make it gold", "Withdraw", "Note", True

    def __init__(self, studio: Studio) -> None:
        self._db = studio.db

    def find(self, project: Project, view: str, search: str) -> list[Row]:
        if view == "suggested":
            found = gold.suggest(self._db, project.project_id)
            rows = [
                Row(s.item_id, s.prompt_id, words.OUTCOME_NAMES[s.outcome], f"all {count(s.labels, 'person', 'people')} agree")
                for s in found
            ]
        elif view == "gold":
            rows = self._gold(project)
        else:
            return self._any(project, search)
        if not search:
            return rows
        matching = {row.prompt_id for row in self._any(project, search)}
        return [row for row in rows if row.prompt_id in matching]

    def _gold(self, project: Project) -> list[Row]:
        found = list(reversed(gold.current(self._db, project.project_id)))[:MOST]
        prompts, names = _prompts(self._db, project, [each.item_id for each in found]), people.names(self._db)
        return [
            Row(
                each.item_id,
                prompts.get(each.item_id, ""),
                words.OUTCOME_NAMES[each.outcome],
                f"{_whence(each, names)}, {ago(each.created_at)}",
                Html(f'<p class="st-sub">{esc(each.note)}</p>') if each.note else Html(""),
            )
            for each in found
            if each.outcome
        ]

    def _any(self, project: Project, search: str) -> list[Row]:
        if project.task == "pairwise":
            item = "select pair_id as item_id, prompt_id, rank, created_at from pairs where project_id = $project"
        else:
            item = """select completion_id as item_id, prompt_id, sample_index as rank, created_at
                      from completions where project_id = $project"""
        sql = f"""select item_id, i.prompt_id from ({item}) i join prompts p using (prompt_id)
                  where contains(lower(p.messages), lower($search)) order by i.rank, i.created_at, item_id limit $most"""
        found = self._db.rows(sql, {"project": project.project_id, "search": search, "most": MOST})
        known = {each.item_id: each.outcome for each in gold.current(self._db, project.project_id)}
        return [
            Row(
                row["item_id"], row["prompt_id"], words.OUTCOME_NAMES[known[row["item_id"]]] if row["item_id"] in known else "–", ""
            )
            for row in found
        ]

    def nothing(self, project: Project, view: str) -> Html:
        if view == "suggested":
            most = max(project.settings.overlap, project.settings.max_overlap if project.settings.adaptive else 0)
            if most < gold.MIN_UNANIMOUS:
                return empty(
                    f"Items are suggested when {gold.MIN_UNANIMOUS} people agree on them; this project asks for fewer labels.",
                    "project",
                    "Change that",
                )
            return empty(f"Items are suggested when {gold.MIN_UNANIMOUS} people agree on them; there is none yet.")
        return empty("No item is gold yet: choose one under “Any item”." if view == "gold" else "No item matches.")

    def is_decided(self, project: Project, item_id: str) -> bool:
        return any(each.item_id == item_id for each in gold.current(self._db, project.project_id))

    def decide(self, project: Project, item_id: str, outcome: Outcome, reason: str, actor: str) -> str:
        agreed = {s.item_id: s.outcome for s in gold.suggest(self._db, project.project_id)}
        source: gold.Source = "unanimous" if agreed.get(item_id) == outcome else "entered"
        gold.add(self._db, project.project_id, item_id, outcome, actor, source, reason)
        return f"It is gold: {words.OUTCOME_NAMES[outcome]}."

    def take_back(self, project: Project, item_id: str, reason: str, actor: str) -> str:
        if not self.is_decided(project, item_id):
            raise BadInput("This item is not gold.")
        gold.withdraw(self._db, project.project_id, item_id, actor, reason)
        return "It is gold no more; what people said to it stays."


def _prompts(db: Database, project: Project, item_ids: Sequence[str]) -> dict[str, str]:
    """item -> prompt."""
    table, key = ("pairs", "pair_id") if project.task == "pairwise" else ("completions", "completion_id")
    sql = f"select {key} as item_id, prompt_id from {table} where {key} in (select unnest(?::varchar[]))"
    return {row["item_id"]: row["prompt_id"] for row in db.rows(sql, [list(item_ids)])} if item_ids else {}


def _whence(each: Gold, names: dict[str, str]) -> str:
    return "everybody agreed" if each.source == "unanimous" else names.get(each.actor) or "entered"
