"""What a run leaves behind becomes rows: candidates, verdicts, an adapter that can be chosen, a data set that can be imported.

Ids come from content or from the run, so taking the same output in twice adds nothing: a server that dies half way through does
it again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data import completions, judgments, models
from data.database import Database
from data.engine import ModelSpec
from data.errors import BadInput
from data.records import Completion, Judgment, ModelKind, Run, content_id, now
from data.rundir import read_line
from data.settings import Settings
from training.config import method_named
from training.methods import METHOD_FACTS, is_training

BATCH = 500
log = logging.getLogger(__name__)
R = TypeVar("R", Completion, Judgment)


class Taken(NamedTuple):
    """How far a file of JSON lines has been taken in, and the lines that were no use."""

    offset: int
    bad: int = 0


def outputs(db: Database, settings: Settings, run: Run, status: str) -> dict[str, Any]:
    """Take in what a run that has ended left in its folder, as far as it got; what to add to its result."""
    folder = settings.runs_dir / run.run_id
    if is_training(run.kind) or run.kind == "merge":
        if status in ("finished", "stopped"):
            return _model(db, run, folder)
    elif run.kind == "generate":
        return _bad_lines(candidates(db, run, folder, 0).bad)
    elif run.kind == "compare":
        return _bad_lines(candidates(db, run, folder, 0).bad + _verdicts(db, run, folder))
    elif run.kind == "hub_import" and status == "finished":
        return _data_set(settings, run, folder)
    return {}


def candidates(db: Database, run: Run, folder: Path, offset: int) -> Taken:
    """Completions (and the pairs they make) from completions.jsonl after `offset`, as far as whole lines are there."""
    bad = 0
    for lines, end in _batches(folder / "completions.jsonl", offset):
        rows = [_record(Completion, line, run) for line in lines]
        made = [row for row in rows if row is not None]
        known = _known_prompts(db, run, made)
        completions.add(db, [row for row in made if row.prompt_id in known], to_label=run.kind != "compare")
        bad += len(lines) - sum(row.prompt_id in known for row in made)
        offset = end
    return Taken(offset, bad)


def mend_model_paths(db: Database, settings: Settings) -> None:
    """A workspace that was moved or restored has what was trained elsewhere than the rows say, also where it lies below another."""
    rows = db.rows("select model_id, kind, run_id, spec from models where kind in ('base', 'adapter', 'reward')")
    specs = {row["model_id"]: json.loads(row["spec"]) for row in rows}
    moved = {}
    for row in (row for row in rows if row["run_id"]):
        part, name = ("adapter", "adapter") if specs[row["model_id"]].get("adapter") else ("base", "model")
        here = settings.runs_dir / row["run_id"] / name
        if here.is_dir():
            moved[specs[row["model_id"]].get(part)] = str(here)
    for model_id, spec in specs.items():
        mended = spec | {part: moved.get(spec.get(part), spec.get(part, "")) for part in ("base", "adapter")}
        if mended != spec:
            db.update("models", {"model_id": model_id}, spec=mended)


def _model(db: Database, run: Run, folder: Path) -> dict[str, Any]:
    """What was trained as a model to choose: over the base it began with or whole, then as a base or a reward model of its own."""
    args = run.config.get("args", {})
    parent = ModelSpec.from_json(args["model"])
    kind: ModelKind = METHOD_FACTS[method_named(run.kind)].makes if is_training(run.kind) else "base"
    if (folder / "adapter" / "adapter_config.json").exists():
        spec = ModelSpec("local", parent.base, str(folder / "adapter"), parent.quantize)
    elif (folder / "model" / "config.json").exists():
        kind = "base" if kind == "adapter" else kind
        spec = ModelSpec("local", str(folder / "model"))
    else:
        return {}
    model = models.new(
        run.name,
        kind,
        spec.to_json(),
        run.project_id,
        run.owner,
        run.run_id,
        str(args.get("model_id", "")),
        content_id("adapter", run.run_id),
    )
    return {"model_id": models.add(db, model).model_id}


def _verdicts(db: Database, run: Run, folder: Path) -> int:
    bad = 0
    for lines, _ in _batches(folder / "judgments.jsonl", 0):
        made = [row for line in lines if (row := _record(Judgment, line, run)) is not None]
        judgments.add(db, made)
        bad += len(lines) - len(made)
    return bad


def _data_set(settings: Settings, run: Run, folder: Path) -> dict[str, Any]:
    """Put the file where the import page finds it: what is taken in, and how, is chosen there after a look at it."""
    source = folder / Path(str(run.result.get("file", ""))).name
    if not source.is_file():
        raise BadInput("The download left no data file; start it again.")
    target = settings.import_dir / f"{run.run_id[:8]}-{source.name}"
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.replace(target)
    return {"file": target.name}


def _bad_lines(bad: int) -> dict[str, Any]:
    return {"unusable_lines": bad} if bad else {}


def _batches(file: Path, offset: int) -> Iterator[tuple[list[bytes], int]]:
    """Whole lines after `offset`, and where each batch ends."""
    if not file.is_file():
        return
    with file.open("rb") as f:
        f.seek(offset)
        lines: list[bytes] = []
        for line in f:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            lines.append(line)
            if len(lines) == BATCH:
                yield lines, offset
                lines = []
        if lines:
            yield lines, offset


def _record(kind: type[R], line: bytes, run: Run) -> R | None:
    """A line as a record of this run and project, whatever it says of itself; None when it is none."""
    try:
        raw = read_line(line)
        known = {f.name: raw[f.name] for f in fields(kind) if f.name in raw}
        return kind(**{**known, "run_id": run.run_id, "project_id": run.project_id, "created_at": now()})
    except (ValueError, TypeError, RecursionError) as error:
        log.warning("run %s wrote a line that is no %s: %s", run.run_id, kind.__name__, error)
        return None


def _known_prompts(db: Database, run: Run, made: Sequence[Completion]) -> set[str]:
    """Those of the project's prompts that are still there."""
    sql = "select prompt_id from prompts where project_id = ? and prompt_id in (select unnest(?::varchar[]))"
    return {row["prompt_id"] for row in db.rows(sql, [run.project_id, sorted({c.prompt_id for c in made})])}
