"""Start a comparison as a run: from the Compare page with everything chosen there, or in one click after a training run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import prompts
from data.errors import BadInput
from data.records import Model, Prompt, Run
from data.rundir import sha256_of
from studio.choices import before_after, covered, judges, writers
from studio.context import Studio, Viewer
from studio.visitors import RunSize

PROMPTS, SAMPLES = 60, 2  # of a comparison that nobody has set up
NO_PROMPTS = "There are no such prompts in this project; choose others, or import some on the Data page."


@dataclass(frozen=True)
class Comparison:
    """Who is compared on what; without a judge only the demo world's rules decide."""

    before: Model
    after: Model
    judge: Model | None
    asked: tuple[Prompt, ...]
    samples: int = SAMPLES
    temperature: float = 0.8
    max_new_tokens: int = 256


def start(studio: Studio, viewer: Viewer, wanted: Comparison) -> Run:
    """BadInput when there is nothing to compare; LimitReached where a visitor asks for too much."""
    if wanted.before.model_id == wanted.after.model_id:
        raise BadInput("Both are the same model; choose two different ones.")
    if not wanted.asked:
        raise BadInput(NO_PROMPTS)
    chosen = [wanted.before, wanted.after, *([wanted.judge] if wanted.judge else [])]
    with tempfile.TemporaryDirectory() as folder:
        file = write_prompts(Path(folder) / "prompts.jsonl", wanted.asked)
        config = {
            "args": _args(studio, wanted),
            "data": {"file": file.name, "sha256": sha256_of(file), "rows": len(wanted.asked)},
        }
        name = f"{wanted.before.name} against {wanted.after.name}"
        size = RunSize(len(wanted.asked), 2 * wanted.samples)
        return studio.start_run(viewer, "compare", "evals.compare", name, config, {file.name: file}, chosen, size)


def after_training(studio: Studio, viewer: Viewer, run_id: str) -> Comparison:
    """The model before and after a training run, on held-out prompts, with the first judge there is."""
    found = writers(studio, viewer)
    pair = before_after(found, run_id)
    by_id = {m.model_id: m for m in found}
    if by_id.get(pair.after) is None or by_id[pair.after].run_id != run_id or pair.before not in by_id:
        raise BadInput("This run has left no model to compare, or the one it began with was removed.")
    project = studio.project(viewer)
    asked = prompts.of_project(studio.db, project.project_id, "held_out", PROMPTS)
    judge = next(iter(judges(studio, viewer)), None)
    return Comparison(by_id[pair.before], by_id[pair.after], judge, tuple(asked))


def write_prompts(file: Path, asked: Sequence[Prompt]) -> Path:
    """The frozen input of a run that asks prompts: one JSON object a line."""
    rows = ({"prompt_id": p.prompt_id, "messages": [m._asdict() for m in p.messages]} for p in asked)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def _args(studio: Studio, wanted: Comparison) -> dict[str, Any]:
    return {
        "model_a": studio.keys.spec(wanted.before).to_json(),
        "model_b": studio.keys.spec(wanted.after).to_json(),
        "name_a": wanted.before.name,
        "name_b": wanted.after.name,
        "model_id_a": wanted.before.model_id,
        "model_id_b": wanted.after.model_id,
        "judge": studio.keys.spec(wanted.judge).to_json() if wanted.judge else None,
        "judge_name": wanted.judge.name if wanted.judge else "",
        "samples": wanted.samples,
        "temperature": wanted.temperature,
        "max_new_tokens": wanted.max_new_tokens,
        "grader": "demo_world" if any(covered(p) for p in wanted.asked) else "",
    }
