"""Recipes, measured: which settings make the demo model better from a given number of labels, on labels drawn more than once?

    make bench-recipe      (.venv/bin/python -m tests.bench.recipe [quick] [full] [plain] [rewards] [--seeds 0 1] [--only TEXT])

`quick` is the grid behind `training/recipes/quick-100.json` (100 labels), `full` tunes all weights on 200, `plain` is methods
without a reference on 200, `rewards` samples answers to 200 prompts, graded by the rules or by a reward model of 200 labels.
Labels are given by the demo world's rules on the model's own samples; a seed draws other prompts, other samples, other held-out
prompts. A point is trained by the method's own module in this process and graded by the rules on 200 held-out prompts × 4 answers
at temperature 0.8; its interval is clustered by prompt, over all seeds. What is done is kept in `$STUDIO_HOME/bench/recipe.jsonl`
and not done again.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.checkers.demo_world import grade, prefer
from data.demo.world import sample_prompts
from data.engine import GenRequest, Message, ModelSpec
from data.records import Split
from data.rundir import RunDir, sha256_of
from evals.judge import seed_of
from evals.winrate import difference
from tests.bench.table import Row, publish
from training.config import Method, config_class, run_args
from training.methods import METHOD_FACTS

MODEL = Path(__file__).resolve().parents[2] / "data" / "demo" / "model"
HELD_OUT, SAMPLES, CANDIDATES, TOKENS = 200, 4, 4, 48
JUDGE = "reward model"


class Point(NamedTuple):
    """One row of the grid: what is trained, from how many labels, with what beside the method's defaults."""

    method: Method
    labels: int
    settings: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"{self.method} {self.labels} " + " ".join(f"{name}={value}" for name, value in self.settings)


def point(method: Method, labels: int, **settings: Any) -> Point:
    return Point(method, labels, tuple(settings.items()))


def _quick(method: Method, learning_rate: float, epochs: float, **more: Any) -> Point:
    return point(method, 100, tuning="lora", learning_rate=learning_rate, epochs=epochs, **more)


GRIDS: dict[str, tuple[Point, ...]] = {
    "plain": (
        *(point("orpo", 200, tuning="lora", learning_rate=rate, epochs=3.0, beta=0.25) for rate in (1e-3, 2e-3)),
        point("orpo", 200, tuning="lora", learning_rate=1e-3, epochs=3.0, beta=1.0),
        *(point("simpo", 200, tuning="lora", epochs=3.0, beta=2.0, margin=0.5, sft_weight=weight) for weight in (1.0, 0.0)),
    ),
    "full": (
        *(point("sft", 200, tuning="full", learning_rate=rate, epochs=3.0) for rate in (1e-4, 3e-4, 3e-5, 1e-3)),
        *(point("dpo", 200, tuning="full", learning_rate=rate, epochs=3.0) for rate in (1e-4, 3e-4, 3e-5)),
    ),
    "rewards": (
        *(point("grpo", 200, tuning="lora", epochs=epochs) for epochs in (1.0, 3.0)),
        *(point("rloo", 200, tuning="lora", reward=JUDGE, epochs=epochs) for epochs in (1.0, 3.0)),
    ),
    "quick": (
        *(_quick("dpo", 1e-3, epochs, beta=1.0, sft_weight=1.0) for epochs in (3.0, 5.0, 8.0, 12.0)),
        *(_quick("dpo", 2e-3, epochs, beta=1.0, sft_weight=1.0) for epochs in (3.0, 5.0, 8.0)),
        _quick("dpo", 5e-4, 8.0, beta=1.0, sft_weight=1.0),
        *(_quick("dpo", 1e-3, 8.0, beta=beta, sft_weight=1.0) for beta in (0.3, 2.0)),
        *(_quick("dpo", 1e-3, 8.0, beta=1.0, sft_weight=weight) for weight in (0.0, 3.0)),
        *(_quick("dpo", 1e-3, 8.0, beta=1.0, sft_weight=1.0, loss=loss) for loss in ("apo_zero", "hinge")),
        *(_quick("sft", 1e-3, epochs) for epochs in (5.0, 8.0)),
        _quick("orpo", 1e-3, 8.0, beta=0.25),
        _quick("simpo", 1e-3, 8.0, beta=2.0, margin=0.5, sft_weight=1.0),
        _quick("kto", 1e-3, 8.0, beta=1.0),
    ),
}


class Sampled(NamedTuple):
    """A prompt with its answers."""

    prompt: str
    answers: tuple[str, ...]


def sample(spec: ModelSpec, prompts: Sequence[str], count: int, seed: int) -> list[Sampled]:
    from training.local_engine import LocalEngine

    asked = [  # the same luck for every prompt would make their answers alike, and 200 of them as sure as a few
        GenRequest((Message("user", p),), max_new_tokens=TOKENS, temperature=0.8, seed=seed_of(seed, p), sample_index=i)
        for p in prompts
        for i in range(count)
    ]
    texts = {result.index: result.text for result in LocalEngine(spec).generate(asked)}
    said = [texts[number] for number in range(len(asked))]
    return [Sampled(p, tuple(said[n * count : (n + 1) * count])) for n, p in enumerate(prompts)]


def rows_for(method: Method, labels: int, sampled: Sequence[Sampled], seed: int) -> list[dict[str, Any]]:
    """As many labelled rows as asked for, in the columns of the method: the rules decide, one decided pair a prompt."""
    rng, rows = random.Random(f"label {seed}"), []
    layout = METHOD_FACTS[method].layout
    for prompt, answers in sampled:
        turn = {"prompt": [{"role": "user", "content": prompt}], "prompt_id": prompt[:60], "split": "train"}
        if layout == "prompts":
            rows.append({**turn, "reference": None})
            continue
        shown = rng.sample(list(answers), len(answers))
        if layout == "binary":
            rows += [{**turn, "completion": _said(text), "label": grade(prompt, text).good} for text in shown[:2]]
            continue
        decided = [(a, b) for a, b in itertools.permutations(shown, 2) if prefer(prompt, a, b) == "a"]
        if not decided:
            continue
        chosen, rejected = decided[0]
        if layout == "sft":
            rows.append({**turn, "completion": _said(chosen)})
        else:
            rows.append({**turn, "chosen": _said(chosen), "rejected": _said(rejected)})
    if len(rows) < labels:
        sys.exit(f"only {len(rows)} of {labels} labels could be given")
    return rows[:labels]


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


class World:
    """One seed's prompts, samples and the share of good answers before any training."""

    def __init__(self, seed: int, home: Path) -> None:
        self.seed, self.home, base = seed, home / str(seed), ModelSpec("local", str(MODEL))
        self.train = sample(base, self._prompts(420, "train"), CANDIDATES, seed)
        self.held_out = self._prompts(HELD_OUT, "held_out")
        self.before = self.graded(base)

    def _prompts(self, count: int, split: Split) -> list[str]:
        return [p.prompt for p in sample_prompts(count, split, random.Random(f"recipe:{split}:{self.seed}"))]  # type: ignore[arg-type]

    @functools.cached_property
    def judge(self) -> ModelSpec:
        """A reward model of 200 labels."""
        return trained(point("reward", 200, tuning="lora", epochs=3.0), self).spec

    def graded(self, spec: ModelSpec) -> list[float]:
        """Of every answer on the held-out prompts whether it is good, prompt by prompt."""
        found = sample(spec, self.held_out, SAMPLES, 1000 + self.seed)
        return [float(grade(prompt, answer).good) for prompt, answers in found for answer in answers]


class Trained(NamedTuple):
    """What a run left, and the processor seconds of the training alone."""

    spec: ModelSpec
    steps: int
    cpu_seconds: float


def trained(point: Point, world: World) -> Trained:
    """Train it once, by the method's own module."""
    import pyarrow
    import pyarrow.parquet

    config = config_class(point.method)(**dict(point.settings), seed=world.seed)
    run_folder = world.home / str(point).replace(" ", "_")
    args = run_args(ModelSpec("local", str(MODEL)), config)
    if ("reward", JUDGE) in point.settings:
        args["reward_model"] = world.judge.to_json()
    table = pyarrow.Table.from_pylist(rows_for(point.method, point.labels, world.train, world.seed))
    world.home.mkdir(exist_ok=True)
    frozen = world.home / "data.parquet"
    pyarrow.parquet.write_table(table, frozen)
    run = RunDir.create(run_folder, {"args": args, "data": {"file": "data.parquet", "sha256": sha256_of(frozen)}, "versions": {}})
    frozen.rename(run_folder / "data.parquet")
    started = time.process_time()
    result = importlib.import_module(f"training.{point.method}").main(run)
    seconds = time.process_time() - started
    whole = ModelSpec("local", str(run_folder / "model"))
    spec = whole if config.tuning == "full" else ModelSpec("local", str(MODEL), str(run_folder / "adapter"))
    return Trained(spec, result["steps"], round(seconds, 1))


def measure(point: Point, world: World) -> dict[str, Any]:
    """Train it once and grade it."""
    made = trained(point, world)
    return {"after": world.graded(made.spec), "cpu_seconds": made.cpu_seconds, "steps": made.steps}


def rows_of(points: Sequence[Point], done: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int]) -> Iterator[Row]:
    """The table: points gained over all seeds that were done."""
    for each in points:
        found = [(seed, done[str(each), seed]) for seed in seeds if (str(each), seed) in done]
        if not found:
            continue
        keys = [f"{seed}:{i // SAMPLES}" for seed, one in found for i in range(len(one["after"]))]
        before, after = ([x for _, one in found for x in one[side]] for side in ("before", "after"))
        gain = difference(after, keys, before, keys)
        assert gain.value is not None
        assert gain.low is not None
        assert gain.high is not None
        half = 50 * (gain.high - gain.low)
        by_seed = ", ".join(f"{100 * (sum(one['after']) - sum(one['before'])) / len(one['after']):+.1f}" for _, one in found)
        seconds = sum(one["cpu_seconds"] for _, one in found) / len(found)
        yield Row(f"{each} ({by_seed}; {seconds:.0f} s of processor)", f"{100 * gain.value:+.1f} ± {half:.1f}", "points")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train each point of a grid and grade it.")
    parser.add_argument("grids", nargs="*", choices=[*GRIDS, []], help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", default="", help="points whose name holds this text")
    flags = parser.parse_args()
    points = [each for name in flags.grids or GRIDS for each in GRIDS[name] if flags.only in str(each)]
    kept = Path(os.environ.get("STUDIO_HOME", "workspace")) / "bench" / "recipe.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    done = {(one["point"], one["seed"]): one for one in map(json.loads, lines)}
    with tempfile.TemporaryDirectory() as home:
        for seed in flags.seeds:
            world: World | None = None
            for each in points:
                if (str(each), seed) in done:
                    continue
                world = world or World(seed, Path(home))
                one = {"point": str(each), "seed": seed, "before": world.before, **measure(each, world)}
                done[str(each), seed] = one
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(one) + "\n")
                print(next(rows_of([each], done, flags.seeds)), flush=True)
    publish("recipe", list(rows_of(points, done, flags.seeds)), ("torch", "transformers", "peft", "trl"))


if __name__ == "__main__":
    main()
