"""Freezes what people said into an immutable training set: a Parquet file in TRL's columns, its sha256, and a manifest of what
fell out.

    preference   prompt, chosen, rejected      DPO, reward model
    binary       prompt, completion, label     KTO
    sft          prompt, completion            SFT on what was chosen or called good
    prompts      prompt, reference             RLOO and GRPO: the project's prompts; labels play no part

All conversational, with `prompt_id` and the prompt's stored `split` beside them, and a `weight` where people's agreement is
to count (`data/votes.py`). Rows are shuffled with a seed here,
once: TRL's KTO goes through them in the file's order. The same labels and settings give the same bytes, so freezing twice is
one snapshot. A child process is given the file, never the database.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data import completions, projects, prompts, votes
from data.database import Database
from data.errors import BadInput, NotFound
from data.records import Prompt, Snapshot, SnapshotLayout, content_id, from_row, now, to_row
from data.rundir import sha256_of
from data.settings import Settings
from data.votes import Chosen, Filters, Rules
from data.words import count
from labeling import manifest as manifests
from labeling.aggregate import REASONS, PairRow, SingleRow, Tally, preference_rows, sft_rows, single_rows, tally
from labeling.row_checks import sieve
from training.verdicts import Sieve

MIN_TRAIN_ROWS = 4
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMAS: dict[SnapshotLayout, pa.Schema] = {
    "preference": pa.schema([("prompt", _TURNS), ("chosen", _TURNS), ("rejected", _TURNS)]),
    "binary": pa.schema([("prompt", _TURNS), ("completion", _TURNS), ("label", pa.bool_())]),
    "sft": pa.schema([("prompt", _TURNS), ("completion", _TURNS)]),
    "prompts": pa.schema([("prompt", _TURNS), ("reference", pa.string())]),
}
_NOUNS: dict[SnapshotLayout, str] = {
    "preference": "preferences",
    "binary": "good or bad answers",
    "sft": "good answers",
    "prompts": "prompts",
}
Row = dict[str, Any]


def freeze(
    db: Database,
    settings: Settings,
    project_id: str,
    layout: SnapshotLayout,
    *,
    filters: Filters = Filters(),
    rules: Rules = Rules(),
    leave_out: tuple[Sieve, ...] = (),
    seed: int = 0,
    min_train_rows: int = MIN_TRAIN_ROWS,
) -> Snapshot:
    """The snapshot of all labels that stand now. BadInput, saying how many more labels are needed, when there is too little.

    `leave_out`: rows that are not wanted beside what filters and rules say (`labeling/row_checks.py`); they are counted like
    everything else that falls out.
    """
    project = projects.get(db, project_id)
    chosen, result, rows = _gather(db, project_id, layout, filters, rules, leave_out, seed)
    _enough(rows, layout, result, min_train_rows)
    random.Random(seed).shuffle(rows)
    part = settings.export_dir / "snapshots" / f".{project_id}-{secrets.token_hex(4)}.part"  # two tabs may freeze at once
    try:
        sha256 = _write(part, _schema(layout, rules), rows)
        snapshot_id = content_id(project_id, layout, seed, asdict(filters), asdict(rules), *sorted(leave_out), sha256)
        file = part.with_name(f"{snapshot_id}.parquet")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    of_labels = manifests.of_labels(db, project_id, chosen, filters, rules)
    manifest = _manifest(layout, rows, result, of_labels, leave_out, seed, project.name)
    manifest |= {"sha256": sha256, **manifests.trust(db, project, chosen)}
    path = file.relative_to(settings.home).as_posix()
    snapshot = Snapshot(snapshot_id, project_id, layout, path, sha256, len(rows), manifest, now())
    db.insert("snapshots", [to_row(snapshot)])
    return get(db, snapshot_id)


class Preview(NamedTuple):
    """What `freeze` would write now: its manifest without hash, agreement and bias card, and its rows before they are shuffled."""

    manifest: dict[str, Any]
    rows: list[Row]


def preview(
    db: Database,
    project_id: str,
    layout: SnapshotLayout,
    *,
    filters: Filters = Filters(),
    rules: Rules = Rules(),
    leave_out: tuple[Sieve, ...] = (),
    seed: int = 0,
) -> Preview:
    """Nothing is stored, too few rows are no error."""
    project = projects.get(db, project_id)
    chosen, result, rows = _gather(db, project_id, layout, filters, rules, leave_out, seed)
    of_labels = manifests.of_labels(db, project_id, chosen, filters, rules)
    return Preview(_manifest(layout, rows, result, of_labels, leave_out, seed, project.name), rows)


def stamp(db: Database, project_id: str) -> str:
    """Another one as soon as anything that decides a project's rows has changed: prompts, labels, gold answers and decisions only
    grow."""
    counts = (
        db.value(f"select count(*) from {table} where project_id = ?", [project_id])
        for table in ("prompts", "label_events", "gold", "adjudications")
    )
    return "-".join(map(str, counts))


def get(db: Database, snapshot_id: str) -> Snapshot:
    row = db.row("select * from snapshots where snapshot_id = ?", [snapshot_id])
    if row is None:
        raise NotFound("There is no such snapshot; freeze the labels again.")
    return from_row(Snapshot, row)


def of_project(db: Database, project_id: str, limit: int = 50) -> list[Snapshot]:
    """Newest first."""
    rows = db.rows(
        "select * from snapshots where project_id = ? order by created_at desc, snapshot_id limit ?", [project_id, limit]
    )
    return [from_row(Snapshot, row) for row in rows]


def file_of(settings: Settings, snapshot: Snapshot) -> Path:
    """The snapshot's file; BadInput when it is gone or is not what was frozen."""
    file = settings.home / snapshot.path
    if not file.is_file() or sha256_of(file) != snapshot.sha256:
        raise BadInput("The snapshot's file is missing or was changed; freeze the labels again.")
    return file


def in_words(manifest: dict[str, Any]) -> list[str]:
    """What fell out, a sentence part each: "3 pairs called a tie"."""
    return [count(n, *REASONS[reason]) for reason, n in manifest["dropped"].items() if n and reason in REASONS]


# --- what there is --------------------------------------------------------------------------------------------------


_NO_VOTES = Chosen([], {}, Counter(), Counter(), Counter())


class _Gathered(NamedTuple):
    chosen: Chosen
    result: Tally
    rows: list[Row]


def _gather(
    db: Database,
    project_id: str,
    layout: SnapshotLayout,
    filters: Filters,
    rules: Rules,
    leave_out: tuple[Sieve, ...],
    seed: int,
) -> _Gathered:
    votes.check(filters, rules)
    if layout == "prompts":
        return _Gathered(_NO_VOTES, tally((), {}, rules), [_asked(p) for p in prompts.of_project(db, project_id)])
    chosen = votes.choose(db, project_id, filters)
    result = tally(chosen.votes, chosen.known, rules)
    sifted = sieve(_rows(db, result, layout, seed), layout, leave_out)
    result.drop("contradiction", sifted.contradictions)
    result.drop("repeat", sifted.repeats)
    return _Gathered(chosen, result, sifted.rows)


def _rows(db: Database, result: Tally, layout: SnapshotLayout, seed: int) -> list[Row]:
    texts = {c.completion_id: c.text for c in completions.get_many(db, sorted(result.prompts))}
    asked = {p.prompt_id: p for p in prompts.get_many(db, sorted(set(result.prompts.values())))}
    if layout == "preference":
        pairs = sorted(preference_rows(result, texts, random.Random(seed)))
        return [_row(row, asked[row.prompt_id], texts, layout) for row in pairs]
    singles = sorted(single_rows(result, texts) if layout == "binary" else sft_rows(result, texts))
    return [_row(row, asked[row.prompt_id], texts, layout) for row in singles]


def _row(row: PairRow | SingleRow, prompt: Prompt, texts: dict[str, str], layout: SnapshotLayout) -> Row:
    asked: Row = {"prompt": [m._asdict() for m in prompt.messages], "weight": row.weight}
    if isinstance(row, PairRow):
        said: Row = {"chosen": _answer(texts[row.chosen]), "rejected": _answer(texts[row.rejected])}
    else:
        said = {"completion": _answer(texts[row.completion])} | ({"label": row.good} if layout == "binary" else {})
    return asked | said | {"prompt_id": prompt.prompt_id, "split": prompt.split}


def _asked(prompt: Prompt) -> Row:
    turns = [m._asdict() for m in prompt.messages]
    return {"prompt": turns, "reference": prompt.reference, "weight": 1.0, "prompt_id": prompt.prompt_id, "split": prompt.split}


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _enough(rows: Sequence[Row], layout: SnapshotLayout, result: Tally, wanted: int) -> None:
    train = [row for row in rows if row["split"] == "train"]
    if len(train) < wanted:
        held_out = len(rows) - len(train)
        if layout == "prompts":
            raise BadInput(f"There are {len(train)} prompts for training; bring {wanted} or more.")
        raise BadInput(
            f"There are {len(train)} {_NOUNS[layout]} for training"
            + (f" ({held_out} more belong to held-out prompts)" if held_out else "")
            + (f"; {_most(result)}" if _most(result) else "")
            + f". Label about {_more(len(train), len(rows), wanted)} more."
        )
    if layout == "binary" and len({row["label"] for row in train}) < 2:
        there, missing = ("good", "bad") if train[0]["label"] else ("bad", "good")
        raise BadInput(f"All {len(train)} answers for training are {there}; label at least one that is {missing}.")


def _more(train: int, total: int, wanted: int) -> int:
    """Labels still needed: every fifth prompt is held out, so a few more than are missing."""
    return wanted - train if total > train else -(-(wanted - train) * 5 // 4)


def _most(result: Tally) -> str:
    return ", ".join(count(n, *REASONS[reason]) for reason, n in result.dropped.most_common(2) if n)


# --- what is written ------------------------------------------------------------------------------------------------


def _schema(layout: SnapshotLayout, rules: Rules) -> pa.Schema:
    more = [pa.field("weight", pa.float64())] if rules.aggregation == "weighted" else []
    return pa.schema([*_SCHEMAS[layout], *more, pa.field("prompt_id", pa.string()), pa.field("split", pa.string())])


def _write(part: Path, schema: pa.Schema, rows: Sequence[Row]) -> str:
    part.parent.mkdir(parents=True, exist_ok=True)
    plain = [{name: row[name] for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(plain, schema=schema), part, compression="zstd")
    return sha256_of(part)


def _manifest(
    layout: SnapshotLayout,
    rows: Sequence[Row],
    result: Tally,
    of_labels: dict[str, Any],
    leave_out: tuple[Sieve, ...],
    seed: int,
    project: str,
) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "layout": layout,
        "columns": _schema(layout, result.rules).names,
        "project": project,
        "seed": seed,
        "leave_out": sorted(leave_out),
        **of_labels,
        "votes_an_item": {str(n): items for n, items in sorted(result.votes_an_item.items())},
        "rows": {split: sum(1 for row in rows if row["split"] == split) for split in ("train", "held_out")},
        "prompts": len({row["prompt_id"] for row in rows}),
        "dropped": {reason: result.dropped[reason] for reason in REASONS if result.dropped[reason]},
    }
    if layout == "binary":
        manifest["good"] = sum(1 for row in rows if row["label"])
        manifest["bad"] = len(rows) - manifest["good"]
    return manifest
