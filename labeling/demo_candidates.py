"""The candidates that ship with the demo, so that a first label needs no model: `python -m labeling.demo_candidates`.

Writes data/demo/candidates.jsonl again: four answers of the demo model at temperature 0.8, by the code of any generation run, for
the demo's first training prompts and, so that some labels test what is learned from the others, its first held-out ones: one in
five, as in a project of one's own. Run it after the demo model has been trained again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from data import prompts
from data.demo.world import PROMPTS_FILE
from data.engine import Message, ModelSpec
from data.rundir import RunDir, sha256_of
from data.splits import Split, split_of
from labeling import generate

PROMPTS: Final[dict[Split, int]] = {"train": 75, "held_out": 19}
ARGS: Final[dict[str, Any]] = {"model_name": "Demo model", "n": 4, "temperature": 0.8, "max_new_tokens": 64, "seed": 0}
DEMO: Final = PROMPTS_FILE.parent


def main() -> None:
    texts: list[str] = [json.loads(line)["prompt"] for line in PROMPTS_FILE.read_text(encoding="utf-8").splitlines()]
    chosen = [text for split, n in PROMPTS.items() for text in [t for t in texts if split_of(t) == split][:n]]
    asked: dict[str, str] = {prompts.new("demo", [Message("user", text)]).prompt_id: text for text in chosen}
    answers: dict[str, list[dict[str, Any]]] = {text: [] for text in chosen}
    with tempfile.TemporaryDirectory() as folder:
        for raw in _generate(Path(folder), asked):
            kept = ("text", "sampling", "seed", "sample_index", "finish_reason")
            answers[asked[raw["prompt_id"]]].append({name: raw[name] for name in kept})
    rows: list[dict[str, Any]] = []
    for text, found in answers.items():
        rows.append({"prompt": text, "completions": sorted(found, key=lambda one: int(one["sample_index"]))})
    out = DEMO / "candidates.jsonl"
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{sum(len(found) for found in answers.values())} answers to {len(rows)} prompts written to {out}")


def _generate(folder: Path, asked: dict[str, str]) -> list[dict[str, Any]]:
    """All answers, by a generation run in `folder`."""
    lines = [{"prompt_id": i, "messages": [{"role": "user", "content": text}]} for i, text in asked.items()]
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    spec = ModelSpec(kind="local", base=str(DEMO / "model")).to_json()
    source: dict[str, Any] = {"file": "prompts.jsonl", "sha256": sha256_of(data), "rows": len(lines)}
    run = RunDir.create(folder / "run", {"args": {**ARGS, "model": spec}, "data": source})
    data.replace(run.path / data.name)
    generate.main(run)
    raw = (run.path / "completions.jsonl").read_bytes()
    return [json.loads(line) for line in raw.split(b"\n") if line]


if __name__ == "__main__":
    main()
