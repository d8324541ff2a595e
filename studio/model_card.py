"""The card of what a run trained, written from its lineage: what it began with, what each step learned from, how far those labels
can be trusted, how it was trained and how it compares. Names and prompts are anybody's text, so none of it is taken as Markdown.

Pure but for reading rows; `card(studio, viewer, run, license)` is the README.md of a hub repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data import models, runs, words
from data.errors import NotFound
from data.hub import NAME
from data.records import Run
from evals.compare_result import CompareResult, summary
from labeling import snapshots
from studio.context import Studio
from training.config import as_said_now
from training.export import root_of
from training.methods import is_training

MAX_STEPS = 20  # of a lineage: more would be a circle


class Step(NamedTuple):
    """One training run of the line, with what was frozen for it."""

    run: Run
    manifest: Mapping[str, Any]


def lineage(studio: Studio, run: Run) -> list[Step]:
    """The training runs that led here, the first one first. A merged model's line is that of its adapter."""
    line: list[Step] = []
    at: Run | None = run
    while at is not None and len(line) < MAX_STEPS:
        if is_training(at.kind):
            line.append(Step(at, _manifest(studio, at)))
        at = _parent(studio, at)
    return line[::-1]


def card(studio: Studio, run: Run, license: str) -> str:
    line = lineage(studio, run)
    base = root_of(str(run.config["args"]["model"]["base"]))
    adapter = bool(run.result.get("adapter"))
    head = ["---", f"library_name: {'peft' if adapter else 'transformers'}", f"license: {license}"]
    if NAME.fullmatch(base) and not Path(base).exists():
        head.append(f"base_model: {base}")
    methods = sorted({step.run.kind for step in line})
    scores = run.kind == "reward"
    head += [
        f"pipeline_tag: text-{'classification' if scores else 'generation'}",
        f"tags: [{', '.join([*methods, *(['lora'] if adapter else []), 'trl'])}]",
        "---",
    ]
    parts = ["\n".join(head), f"# {plain(run.name)}\n", _what(line, base, adapter), _use(base, adapter, scores)]
    parts += [_step(number, step) for number, step in enumerate(line, 1)]
    parts += [_compared(studio, run), _versions(run)]
    return "\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Anybody's text without Markdown or HTML, on one line."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~])", r"\\\1", " ".join(text.split()))


def _what(line: list[Step], base: str, adapter: bool) -> str:
    how = ", then ".join(step.run.kind.upper() for step in line)
    what = "A LoRA adapter" if adapter else "A model"
    return f"{what} trained by {how or 'merging'} from {plain(base)}, with [Alignment Studio](#how-it-was-made).\n"


def _use(base: str, adapter: bool, scores: bool) -> str:
    kind, head = ("AutoModelForSequenceClassification", ", num_labels=1") if scores else ("AutoModelForCausalLM", "")
    over = f"{kind}.from_pretrained({base!r}{head})"
    made = f"PeftModel.from_pretrained({over}, HERE)" if adapter else f"{kind}.from_pretrained(HERE)"
    imports = ["from peft import PeftModel"] if adapter else []
    code = "\n".join([*imports, f"from transformers import {kind}", "", f"model = {made}"])
    return f"```python\n{code}\n```\n\n## How it was made\n"


def _step(number: int, step: Step) -> str:
    run, data = step.run, step.run.config.get("data") or {}
    result, settings = step.run.result, as_said_now(step.run.config["args"]["train"])
    lines = [f"### {number}. {run.kind.upper()}: {plain(run.name)}\n"]
    lines.append(f"- learned from {int(result.get('rows') or 0):,} rows in {int(result.get('steps') or 0):,} steps")
    lines.append(f"- the frozen file's sha256 is `{data.get('sha256', '?')}`")
    lines += _trust(step.manifest)
    shown = {name: value for name, value in (result.get("metrics") or {}).items() if isinstance(value, int | float)}
    if shown:
        lines.append(
            "- at the end: "
            + ", ".join(f"{name} {words.number(value, '.4g')}" for name, value in sorted(shown.items()) if _telling(name))
        )
    rows = "\n".join(f"| {name} | {plain(str(value))} |" for name, value in settings.items())
    return "\n".join(lines) + f"\n\n<details><summary>Settings</summary>\n\n| setting | value |\n|---|---|\n{rows}\n\n</details>\n"


def _telling(name: str) -> bool:
    return name.removeprefix("eval_") in ("loss", "rewards/accuracies", "rewards/margins", "kl", "reward", "accuracy")


def _trust(manifest: Mapping[str, Any]) -> list[str]:
    if not manifest:
        return []
    labels = manifest["labels"]
    lines = [f"- labels: {labels['people']:,} by people, {labels['imported']:,} imported, {labels['simulated']:,} simulated"]
    alpha = (manifest.get("agreement") or {}).get("alpha") or {}
    if alpha.get("value") is not None:
        between = (
            f" (95 % interval {words.number(alpha['low'], '.2f')} to {words.number(alpha['high'], '.2f')})"
            if alpha.get("low") is not None
            else ""
        )
        lines.append(f"- agreement of those who labelled, Krippendorff's alpha: {words.number(alpha['value'], '.2f')}{between}")
    if dropped := manifest.get("dropped"):
        lines.append("- fell out: " + ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in dropped.items()))
    return lines


def _compared(studio: Studio, run: Run) -> str:
    """Comparisons of this very model, the newest first."""
    mine = str(run.result.get("model_id", ""))
    lines = []
    for other in runs.of_project(studio.db, run.project_id):
        args = other.config.get("args", {})
        asked = mine and mine in (args.get("model_id_a"), args.get("model_id_b"))
        if asked and other.kind == "compare" and other.result.get("n_prompts"):
            lines.append("- " + " ".join(plain(sentence) for sentence in summary(CompareResult.from_json(other.result))))
    return "## How it compares\n\n" + "\n".join(lines[:5]) + "\n" if lines else ""


def _versions(run: Run) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in (run.config.get("versions") or {}).items())
    digest = run.result.get("adapter_sha256") or run.result.get("model_sha256")
    same = f" The weights' sha256 is `{digest}`." if digest else ""
    return f"## Versions\n\n{plain(versions) or 'not recorded'}.{same}\n"


def _manifest(studio: Studio, run: Run) -> Mapping[str, Any]:
    try:
        return snapshots.get(studio.db, run.snapshot_id).manifest if run.snapshot_id else {}
    except NotFound:
        return {}


def _parent(studio: Studio, run: Run) -> Run | None:
    """The run that made the model this one began with, None where it is no run of the studio's."""
    try:
        model = models.get(studio.db, str(run.config["args"].get("model_id", "")))
        return runs.get(studio.db, model.run_id) if model.run_id and model.run_id != run.run_id else None
    except NotFound:
        return None
