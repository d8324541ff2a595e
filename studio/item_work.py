"""What is decided about items on the Quality page: disagreements by a researcher with a reason, and gold, whose answer is known.

Votes are shown by pseudonym: who decides should weigh what was said, not who said it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from data import adjudications, gold, people, prompts
from data.database import Database
from data.errors import BadInput
from data.pseudonyms import Pseudonyms
from data.records import Adjudication, Gold, Outcome, Project
from studio import quality_words as words
from studio.context import Studio
from studio.item_tab import Row
from studio.render import Html, ago, count, empty, esc

Known = TypeVar("Known", Gold, Adjudication)
NEWCOMER = "a newcomer"  # whose first label came after the names were looked up: next time they have theirs


class Disagreements:
    name = "disagreements"
    title = "Items on which people differ. What you decide counts instead of their votes, and stays beside them with your reason."
    views: Sequence[tuple[str, str]] = (("Open", "open"), ("Decided", "decided"))
    headings = ("Votes", "Majority")
    raw: Mapping[str, Sequence[str]] = {
        "open": ("majority", "labels", "said"),
        "decided": ("decided", "by", "at", "reason"),
    }
    do, undo, reason, searchable = "Decide", "Take it back", "Reason", False

    def __init__(self, studio: Studio) -> None:
        self._db = studio.db

    def find(self, project: Project, view: str, search: str, limit: int | None = None, offset: int = 0) -> Iterator[Row]:
        return self._decided(project, limit, offset) if view == "decided" else self._open(project, limit, offset)

    def _open(self, project: Project, limit: int | None, offset: int) -> Iterator[Row]:
        names = defaultdict(lambda: NEWCOMER, Pseudonyms(self._db, project.project_id).everybody())
        for item in adjudications.open_items(self._db, project.project_id, limit, offset):
            votes = Counter(said.outcome for said in item.said)
            says = ", ".join(f"{n} × {words.OUTCOME_NAMES[outcome]}" for outcome, n in votes.most_common())
            by_name = [f"{names[said.annotator_id]}: {words.OUTCOME_NAMES[said.outcome]}" for said in item.said]
            majority = words.OUTCOME_NAMES[item.majority] if item.majority else "none"
            said = ", ".join(f"{names[said.annotator_id]} {said.outcome}" for said in item.said)
            below = Html(f'<p class="st-sub">{esc(", ".join(by_name))}</p>')
            yield Row(item.item_id, item.prompt_id, item.among, says, majority, (item.majority, len(item.said), said), below)

    def _decided(self, project: Project, limit: int | None, offset: int) -> Iterator[Row]:
        names, pseudonyms = people.names(self._db), Pseudonyms(self._db, project.project_id)
        every = adjudications.current(self._db, project.project_id)
        for each, prompt_id in _newest(self._db, project, every, limit, offset):
            yield Row(
                each.item_id,
                prompt_id,
                len(every),
                words.OUTCOME_NAMES[each.outcome],
                f"{names.get(each.actor) or 'A researcher'}, {ago(each.created_at)}: {each.reason}",
                (each.outcome, pseudonyms.of(each.actor), each.created_at, each.reason),
                Html(f'<p class="st-sub">{esc(each.reason)}</p>'),
            )

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
    views: Sequence[tuple[str, str]] = (("Suggested", "suggested"), ("Known now", "gold"), ("Any item", "any"))
    headings = ("Right answer", "Where from")
    raw: Mapping[str, Sequence[str]] = {
        "suggested": ("outcome", "labels"),
        "gold": ("outcome", "source", "by", "at", "note"),
        "any": ("gold",),
    }
    do, undo, reason, searchable = "Make it known", "Withdraw", "Note", True

    def __init__(self, studio: Studio) -> None:
        self._db = studio.db

    def find(self, project: Project, view: str, search: str, limit: int | None = None, offset: int = 0) -> Iterator[Row]:
        if view == "gold":
            return self._gold(project, search, limit, offset)
        return self._any(project, search, limit, offset) if view == "any" else self._suggested(project, search, limit, offset)

    def _suggested(self, project: Project, search: str, limit: int | None, offset: int) -> Iterator[Row]:
        for each in gold.suggest(self._db, project.project_id, search=search, limit=limit, offset=offset):
            says, agree = words.OUTCOME_NAMES[each.outcome], f"all {count(each.labels, 'person', 'people')} agree"
            yield Row(each.item_id, each.prompt_id, each.among, says, agree, (each.outcome, each.labels))

    def _gold(self, project: Project, search: str, limit: int | None, offset: int) -> Iterator[Row]:
        names, pseudonyms = people.names(self._db), Pseudonyms(self._db, project.project_id)
        every = gold.current(self._db, project.project_id)
        if search:
            there = _prompts(self._db, project, [each.item_id for each in every], search)
            every = [each for each in every if each.item_id in there]
        for each, prompt_id in _newest(self._db, project, every, limit, offset):
            yield Row(
                each.item_id,
                prompt_id,
                len(every),
                words.OUTCOME_NAMES[each.outcome],
                f"{_whence(each, names)}, {ago(each.created_at)}",
                (each.outcome, each.source, pseudonyms.of(each.actor), each.created_at, each.note),
                Html(f'<p class="st-sub">{esc(each.note)}</p>') if each.note else Html(""),
            )

    def _any(self, project: Project, search: str, limit: int | None, offset: int) -> Iterator[Row]:
        if project.task == "pairwise":
            item = "select pair_id as item_id, prompt_id, rank, created_at from pairs where project_id = $project"
        else:
            item = """select completion_id as item_id, prompt_id, sample_index as rank, created_at
                      from completions where project_id = $project"""
        sql = f"""select item_id, prompt_id, count(*) over () from ({item})
                  where $search = '' or prompt_id in ({prompts.WITH_WORDS})
                  order by rank, created_at, item_id limit $limit offset $offset"""
        known = {each.item_id: each.outcome for each in gold.current(self._db, project.project_id)}
        bound = {"project": project.project_id, "search": search, "limit": limit, "offset": offset}
        for item_id, prompt_id, among in self._db.stream(sql, bound):
            outcome = known.get(item_id, "")
            yield Row(item_id, prompt_id, among, words.OUTCOME_NAMES[outcome] if outcome else "–", "", (outcome,))

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
        return empty("No item is known yet: choose one under “Any item”." if view == "gold" else "No item matches.")

    def is_decided(self, project: Project, item_id: str) -> bool:
        return any(each.item_id == item_id for each in gold.current(self._db, project.project_id))

    def decide(self, project: Project, item_id: str, outcome: Outcome, reason: str, actor: str) -> str:
        agreed = gold.agreed(self._db, project.project_id, item_id)
        source: gold.Source = "unanimous" if agreed == outcome else "entered"
        gold.add(self._db, project.project_id, item_id, outcome, actor, source, reason)
        return f"It is a known item: {words.OUTCOME_NAMES[outcome]}."

    def take_back(self, project: Project, item_id: str, reason: str, actor: str) -> str:
        if not self.is_decided(project, item_id):
            raise BadInput("This is not a known item.")
        gold.withdraw(self._db, project.project_id, item_id, actor, reason)
        return "It is no known item any more; what people said to it stays."


def _newest(db: Database, project: Project, every: Sequence[Known], limit: int | None, offset: int) -> Iterator[tuple[Known, str]]:
    """Of what was decided one by one, oldest first: the last of it with its prompt."""
    some = every[::-1][offset:][:limit]
    asked = _prompts(db, project, [each.item_id for each in some])
    return ((each, asked.get(each.item_id, "")) for each in some)


def _prompts(db: Database, project: Project, item_ids: Sequence[str], search: str = "") -> dict[str, str]:
    """item -> prompt, of those with these words in their prompt."""
    table, key = ("pairs", "pair_id") if project.task == "pairwise" else ("completions", "completion_id")
    sql = f"""select {key} as item_id, prompt_id from {table} where {key} in (select unnest($ids::varchar[]))
              and ($search = '' or prompt_id in ({prompts.WITH_WORDS}))"""
    bound = {"ids": list(item_ids), "project": project.project_id, "search": search}
    return {row["item_id"]: row["prompt_id"] for row in db.rows(sql, bound)} if item_ids else {}


def _whence(each: Gold, names: dict[str, str]) -> str:
    return "everybody agreed" if each.source == "unanimous" else names.get(each.actor) or "entered"
