"""Completions, immutable once stored, and the pairs made of them.

Pairs are made when completions arrive, in the same transaction. Their rank says which pair of a prompt comes first: labelling
rank 0 of all prompts before rank 1 spreads the work over prompts, and within a prompt the order is that of a round-robin
tournament, so that few labels already involve every completion. Completions with the same text make no pair: nobody can prefer
one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from data.cursor import Cursor
from data.database import Database
from data.errors import NotFound
from data.lookup import among
from data.records import Completion, Flag, Pair, Prompt, content_id, from_row, now, to_row
from data.validity import DEFAULT_LEAKS, flags_of_text

MAX_PARTNERS = 12  # a new completion is paired with at most so many others: 20 imported models a prompt need not make 190 pairs
Origin = Literal["generated", "imported"]


class Counts(NamedTuple):
    """`prompts` have at least one completion, `pairable` at least one pair."""

    completions: int
    pairs: int
    prompts: int
    pairable: int
    models: tuple[str, ...]


def new(
    prompt: Prompt,
    text: str,
    origin: Origin,
    model: str,
    model_id: str = "",
    run_id: str = "",
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    sample_index: int = 0,
    finish_reason: str = "",
) -> Completion:
    """A completion with its id: the hash of all that made it, so that taking in a run's output twice adds nothing."""
    settings = dict(sampling or {})
    identity = content_id(prompt.prompt_id, origin, model, model_id, run_id, sorted(settings.items()), seed, sample_index, text)
    return Completion(
        completion_id=identity,
        prompt_id=prompt.prompt_id,
        project_id=prompt.project_id,
        text=text,
        origin=origin,
        model=model,
        model_id=model_id,
        run_id=run_id,
        sampling=settings,
        seed=seed,
        sample_index=sample_index,
        finish_reason=finish_reason,
        created_at=now(),
    )


def add(db: Database, completions: Sequence[Completion], to_label: bool = True) -> int:
    """Store them and the pairs they make; how many were new. NotFound when a prompt is not there.

    Without `to_label` they make no pairs: a judge has compared them, and people's time goes to what can be trained on.
    """

    completions = _flagged(db, completions)

    def store(cursor: Cursor) -> int:
        wanted = sorted({c.prompt_id for c in completions})
        sql = "select prompt_id from prompts where prompt_id in (select unnest(?::varchar[]))"
        if len(cursor.rows(sql, [wanted])) != len(wanted):
            raise NotFound("A completion belongs to a prompt that is not there (any more); nothing was stored.")
        added = cursor.insert("completions", [to_row(c) for c in completions])
        if to_label:
            cursor.insert("pairs", [to_row(pair) for pair in _new_pairs(cursor, added)])
        return len(added)

    return db.write(store) if completions else 0


def get_many(db: Database, completion_ids: Sequence[str]) -> list[Completion]:
    """Those that exist, in no particular order."""
    if not completion_ids:
        return []
    marks, params = among(completion_ids)
    return [from_row(Completion, row) for row in db.rows(f"select * from completions where completion_id in {marks}", params)]


def texts(db: Database, completion_ids: Iterable[str]) -> dict[str, str]:
    """The texts of those that exist, and nothing else of them."""
    ids = sorted(set(completion_ids))
    if not ids:
        return {}
    marks, params = among(ids)
    found = db.rows(f"select completion_id, text from completions where completion_id in {marks}", params)
    return {row["completion_id"]: row["text"] for row in found}


def get(db: Database, completion_id: str) -> Completion:
    found = get_many(db, [completion_id])
    if not found:
        raise NotFound("There is no such completion.")
    return found[0]


def of_prompts(db: Database, prompt_ids: Sequence[str]) -> list[Completion]:
    """All completions of these prompts, oldest first."""
    sql = """select * from completions where prompt_id in (select unnest(?::varchar[]))
             order by created_at, sample_index, completion_id"""
    return [from_row(Completion, row) for row in db.rows(sql, [list(prompt_ids)])] if prompt_ids else []


class Facts(NamedTuple):
    """What of a completion matters when it is labelled, without its text: `digest` is that of the text without its margins."""

    length: int
    digest: str
    flags: tuple[Flag, ...]


BLANK = " \t\n\r\f\v"  # what does not make two answers different


_facts: dict[str, Facts] = {}  # by id, which is a hash of all that made the completion: what was true once stays true
MAX_FACTS = 200_000


def facts(db: Database, completion_ids: Iterable[str]) -> dict[str, Facts]:
    """Of those that exist."""
    ids = set(completion_ids)
    known = {i: one for i in ids if (one := _facts.get(i)) is not None}
    fresh = _read_facts(db, sorted(ids - known.keys()))
    if len(_facts) + len(fresh) > MAX_FACTS:
        _facts.clear()
    _facts.update(fresh)
    return known | fresh


def _read_facts(db: Database, ids: Sequence[str]) -> dict[str, Facts]:
    if not ids:
        return {}
    marks, params = among(ids)
    sql = f"""select completion_id, length(text) as length, md5(trim(text, ?)) as digest, flags
              from completions where completion_id in {marks}"""
    found = db.rows(sql, [BLANK, *params])
    return {row["completion_id"]: Facts(row["length"], row["digest"], tuple(json.loads(row["flags"]))) for row in found}


def pair_id_of(one: str, other: str) -> str:
    """The id of the pair of two completions, whichever is named first."""
    return content_id(*sorted((one, other)))


def of_run(db: Database, run_id: str) -> list[Completion]:
    sql = "select * from completions where run_id = ? order by created_at, sample_index, completion_id"
    return [from_row(Completion, row) for row in db.rows(sql, [run_id])]


def pairs_of(db: Database, project_id: str, limit: int | None = None) -> list[Pair]:
    """In labelling order: one pair of every prompt before a second pair of any."""
    sql = "select * from pairs where project_id = ? order by rank, created_at, pair_id limit ?"
    return [from_row(Pair, row) for row in db.rows(sql, [project_id, limit])]


def counts(db: Database, project_id: str) -> Counts:
    sql = """
    select (select count(*) from completions where project_id = $p) as completions,
           (select count(*) from pairs where project_id = $p) as pairs,
           (select count(distinct prompt_id) from completions where project_id = $p) as prompts,
           (select count(distinct prompt_id) from pairs where project_id = $p) as pairable,
           (select coalesce(list(distinct model order by model), []) from completions where project_id = $p) as models
    """
    row = db.row(sql, {"p": project_id})
    assert row is not None
    return Counts(**{**row, "models": tuple(row["models"])})


def candidates(db: Database, project_id: str) -> int:
    """How many there are to label and train on: all but those that a comparison wrote for its judge."""
    sql = """select count(*) from completions where project_id = $p
             and run_id not in (select run_id from runs where project_id = $p and kind = 'compare')"""
    return int(db.value(sql, {"p": project_id}))


def _flagged(db: Database, completions: Sequence[Completion]) -> list[Completion]:
    """With the flags of their texts, by the built-in phrases that give a model away and their project's own."""
    leaks: dict[str, tuple[str, ...]] = {}
    for project_id in {c.project_id for c in completions}:
        stored = db.value("select settings from projects where project_id = ?", [project_id])
        leaks[project_id] = (*DEFAULT_LEAKS, *json.loads(stored or "{}").get("leak_phrases", ()))
    return [replace(c, flags=flags_of_text(c.text, c.finish_reason, leaks[c.project_id])) for c in completions]


def _new_pairs(cursor: Cursor, added: Sequence[Mapping[str, Any]]) -> Iterator[Pair]:
    fresh = {row["completion_id"] for row in added}
    prompt_ids = sorted({row["prompt_id"] for row in added})
    sql = """select completion_id, prompt_id, project_id, text from completions
             where prompt_id in (select unnest(?::varchar[])) order by created_at, sample_index, completion_id"""
    by_prompt: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in cursor.rows(sql, [prompt_ids]) if prompt_ids else []:
        by_prompt[row["prompt_id"]].setdefault(row["text"].strip(), row)
    sql = "select prompt_id, count(*) as n from pairs where prompt_id in (select unnest(?::varchar[])) group by prompt_id"
    ranks = {row["prompt_id"]: row["n"] for row in (cursor.rows(sql, [prompt_ids]) if prompt_ids else [])}
    for prompt_id, texts in by_prompt.items():
        yield from _pairs_of_prompt(list(texts.values()), fresh, ranks.get(prompt_id, 0))


def _pairs_of_prompt(distinct: Sequence[Mapping[str, Any]], fresh: set[str], rank: int) -> Iterator[Pair]:
    partners: dict[str, int] = defaultdict(int)
    for i, j in round_robin(len(distinct)):
        one, other = sorted((distinct[i]["completion_id"], distinct[j]["completion_id"]))
        newcomers = [c for c in (one, other) if c in fresh]
        if not newcomers or all(partners[c] >= MAX_PARTNERS for c in newcomers):
            continue
        for c in newcomers:
            partners[c] += 1
        row = distinct[i]
        yield Pair(pair_id_of(one, other), row["project_id"], row["prompt_id"], one, other, rank, now())
        rank += 1


def round_robin(n: int) -> Iterable[tuple[int, int]]:
    """All pairs of n players in tournament order (circle method): each round has everybody once."""
    circle: list[int | None] = [*range(n), *([None] if n % 2 else [])]
    for _ in range(len(circle) - 1):
        for one, other in zip(circle[: len(circle) // 2], reversed(circle[len(circle) // 2 :]), strict=True):
            if one is not None and other is not None:
                yield one, other
        circle.insert(1, circle.pop())
