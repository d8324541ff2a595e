"""How long a comparison takes, stage by stage: `make bench-compare`.

200 held-out prompts x 8 samples x 2 models = 3,200 answers, then up to 3,200 judge's replies in 1,600 comparisons. First with
scripted models, so that only our own work is timed (requests, templates, verdicts, grading, files, statistics); then, where the
demo model is there, the real run as the app starts it: a child process, the demo model against itself with other seeds, judged
by itself.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.demo.world import sample_prompts
from data.engine import GenRequest, GenResult, LabelRequest, LabelResult, Message, ModelSpec
from data.rundir import RunDir, sha256_of
from evals import compare, engine_pool
from evals.compare_result import CompareResult, summary
from evals.judge_templates import DEMO_MODEL

PROMPTS, SAMPLES = 200, 8


@dataclass(frozen=True)
class Row:
    """A line of the table; `bar` is the most it may take."""

    what: str
    ours: float
    unit: str = "s"
    peer: float | None = None
    ratio: float | None = None
    bar: float | None = None
    met: bool = True


class Instant:
    """An engine that answers at once: what is left is our own time."""

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        for index, request in enumerate(requests):
            yield GenResult(index, f"Answer {request.seed % 5} to {request.messages[-1].content}", "stop", 12)

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        for index, request in enumerate(requests):
            p = 0.1 + 0.8 * (len(request.messages[0].content) % 7) / 7
            yield LabelResult(index, (math.log(p), math.log(0.99 - p)))

    def stream(self, request: GenRequest) -> Iterator[str]:
        yield ""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 0

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def make_run(folder: Path) -> RunDir:
    demo = ModelSpec("local", str(DEMO_MODEL)).to_json()
    rows = [
        {"prompt_id": f"p{i}", "messages": [{"role": "user", "content": prompt.prompt}]}
        for i, prompt in enumerate(sample_prompts(PROMPTS, "held_out", random.Random(0)))
    ]
    folder.parent.mkdir(parents=True)
    file = folder.parent / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args: dict[str, Any] = {
        "model_a": demo, "model_b": demo, "name_a": "one", "name_b": "other", "judge": demo, "judge_name": "demo",
        "samples": SAMPLES, "temperature": 0.8, "max_new_tokens": 48, "grader": "demo_world",
    }  # fmt: skip
    data = {"file": file.name, "sha256": sha256_of(file), "rows": len(rows)}
    run = RunDir.create(folder, {"run_id": "bench", "kind": "compare", "module": "evals.compare", "args": args, "data": data})
    file.rename(folder / file.name)
    return run


def our_own_time(folder: Path) -> float:
    engine_pool.open_engine = lambda spec, key="": Instant()  # type: ignore[assignment]
    started = time.monotonic()
    compare.main(make_run(folder))
    return time.monotonic() - started


def real_run(folder: Path) -> tuple[CompareResult, float]:
    run = make_run(folder)
    started = time.monotonic()
    with (folder / "stdout.log").open("wb") as out:
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run(
            [sys.executable, "-m", "evals.compare", str(folder)], check=True, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    took = time.monotonic() - started
    return CompareResult.from_json(next(event for event in run.tail().events if event["type"] == "result")), took


def main() -> None:
    home = Path(os.environ.get("STUDIO_HOME", "workspace"))
    with tempfile.TemporaryDirectory() as scratch:
        own = our_own_time(Path(scratch) / "own" / "run")
        rows = [Row("our own time for 3,200 answers and 1,600 comparisons", round(own, 2), bar=10, met=own <= 10)]
        if (DEMO_MODEL / "model.safetensors").exists():
            result, took = real_run(Path(scratch) / "real" / "run")
            print(*summary(result), sep="\n")
            rows += [Row(f"demo model: {stage}", seconds) for stage, seconds in result.seconds.items()]
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            rows.append(
                Row("demo model: processor time of the run, whatever else was running", round(used.ru_utime + used.ru_stime, 1))
            )
            rows.append(Row("demo model: the whole run, process start included", round(took, 1), bar=60, met=took <= 60))
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for row in rows:
        print(
            f"{row.what:<65} {row.ours:>8} {row.unit}"
            + (f"  (bar {row.bar:g}: {'met' if row.met else 'MISSED'})" if row.bar else "")
        )
    (home / "bench").mkdir(parents=True, exist_ok=True)
    (home / "bench" / "compare.json").write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
