"""The loop, measured: does a model get better from two hundred labels, how sure is that, and how long does it take?

    make bench-loop     (.venv/bin/python -m tests.bench.loop [dpo] [sft] [kto] [--tuning qlora lora] [--model FOLDER] [--seed N])

For each method a fresh workspace goes once around with the product's own parts: prompts -> a generate run -> labels -> a frozen
snapshot -> a training run with the method's default settings, once by QLoRA (larger bases' default) and once by LoRA (small ones')
-> a compare run of base and adapter. The annotator is simulated by the demo world's rules; labels are given on training prompts,
and the comparison is on 200 held-out prompts with 8 samples each at temperature 0.8. The rules see what the judge (the demo model
itself, both orders) can only estimate, so its win rate stands beside the true one. Every interval is clustered by prompt. A
method's seconds are wall time of its whole loop, the start of each process included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import people, projects, prompts, runs
from data.checkers.demo_world import grade, prefer
from data.database import Database
from data.demo.world import sample_prompts
from data.engine import Message, ModelSpec
from data.records import Preference, Prompt, Run, RunKind, SnapshotLayout, Task
from data.rundir import RunDir, sha256_of
from data.settings import Settings
from evals.compare_result import CompareResult, in_percent, summary
from evals.winrate import Estimate
from labeling import preferences, snapshots
from labeling.assignment import Assignment, Served
from studio.jobs import Jobs
from tests.bench.table import Row, below, publish
from training.config import Method, config_class, run_args

ANNOTATOR = "rules"
MODEL = Path(__file__).resolve().parents[2] / "data" / "demo" / "model"
TUNING_NAMES = {"qlora": "QLoRA", "lora": "LoRA"}
MAX_SECONDS = 120
MAX_TOKENS = 48


@dataclass(frozen=True)
class Plan:
    """What a method is given and what it must reach. `labels` are those that teach it: decided pairs or graded answers."""

    task: Task
    layout: SnapshotLayout
    labels: int
    prompts: int
    bar: float  # points gained on held-out prompts


PLANS: dict[Method, Plan] = {
    "dpo": Plan("pairwise", "preference", 200, 200, 12),
    "sft": Plan("pairwise", "sft", 200, 200, 12),
    "kto": Plan("binary", "binary", 400, 130, 8),
    "orpo": Plan("pairwise", "preference", 200, 200, 8),
    "simpo": Plan("pairwise", "preference", 200, 200, 8),
}
USUAL: tuple[Method, ...] = ("dpo", "sft", "kto")  # what the Train page offers


@dataclass
class Turn:
    """One method's way around: seconds by stage, and what the comparison found."""

    method: Method
    tuning: str
    seconds: dict[str, float] = field(default_factory=dict)
    result: CompareResult | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"  {self} {name}: {self.seconds[name]} s", flush=True)

    def __str__(self) -> str:
        return f"{self.method.upper()}, {TUNING_NAMES[self.tuning]}"


class Workspace:
    """A temporary workspace with the parts of the app that need no browser."""

    def __init__(self, home: Path, spec: ModelSpec, task: Task) -> None:
        self.settings = Settings(home=home)
        self.db = Database(self.settings)
        self.jobs = Jobs(self.settings, self.db, poll_s=0.1)
        self.spec = spec
        self.project = projects.create(self.db, "bench", task)
        people.ensure(self.db, ANNOTATOR, "The world's rules", "simulated")

    def close(self) -> None:
        self.jobs.close()
        self.db.close()

    def add_prompts(self, count: int, split: str, seed: int) -> list[Prompt]:
        drawn = sample_prompts(count, split, random.Random(f"bench:{split}:{seed}"))  # type: ignore[arg-type]
        made = [prompts.new(self.project.project_id, [Message("user", p.prompt)], category=p.family) for p in drawn]
        assert {p.split for p in made} == {split}
        prompts.add(self.db, made)
        return made

    def run(self, kind: RunKind, module: str, args: Mapping[str, Any], data: Path) -> Run:
        """Start a run as the pages do and wait for its end."""
        frozen = {"file": data.name, "sha256": sha256_of(data)}
        run = self.jobs.start(kind, module, kind, self.project.project_id, {"args": args, "data": frozen}, {data.name: data})
        while run.status in ("queued", "running"):
            time.sleep(0.05)
            run = runs.get(self.db, run.run_id)
        if run.status != "finished":
            log = RunDir(self.settings.runs_dir / run.run_id).log_tail(3000)
            sys.exit(f"the {kind} run {run.status}: {run.error}\n{log}")
        return run

    def write_prompts(self, name: str, asked: list[Prompt]) -> Path:
        file = self.settings.home / f"{name}.jsonl"
        rows = [{"prompt_id": p.prompt_id, "messages": [m._asdict() for m in p.messages]} for p in asked]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    def label(self, wanted: int, choose: Callable[[Served], Preference], teaches: frozenset[Preference]) -> int:
        """Label what is served, one batch after the other, until `wanted` labels teach something; how many were given."""
        assignment = Assignment(self.db)
        given = taught = 0
        while taught < wanted:
            served = assignment.serve(ANNOTATOR, self.project.project_id, 20)
            if not served:
                sys.exit(f"only {taught} of {wanted} labels could be given: generate on more prompts")
            chosen = [(item, choose(item)) for item in served]
            votes = []
            for item, preference in chosen:
                if taught < wanted:
                    votes.append(preferences.Vote(str(uuid.uuid4()), item.impression.impression_id, "cast", preference))
                    taught += preference in teaches
            outcomes = preferences.record(self.db, ANNOTATOR, votes, simulated=True)
            assert all(outcome.accepted for outcome in outcomes)
            given += len(votes)
        return given


def pairwise(item: Served) -> Preference:
    return prefer(item.prompt.text, item.left, item.right)


def binary(item: Served) -> Preference:
    return "good" if grade(item.prompt.text, item.left).good else "bad"


def go_round(turn: Turn, home: Path, spec: ModelSpec, seed: int) -> None:
    """Prompts, candidates, labels, snapshot, training, comparison."""
    method, plan, cpu_before = turn.method, PLANS[turn.method], _cpu_seconds()
    workspace = Workspace(home, spec, plan.task)
    try:
        with turn.stage("generate"):
            asked = workspace.add_prompts(plan.prompts, "train", seed)
            args = {"model": spec.to_json(), "model_name": "base", "n": 4, "max_new_tokens": MAX_TOKENS, "seed": seed}
            workspace.run("generate", "labeling.generate", args, workspace.write_prompts("train", asked))
        with turn.stage("label"):
            if plan.task == "pairwise":
                given = workspace.label(plan.labels, pairwise, frozenset({"a", "b"}))
            else:
                given = workspace.label(plan.labels, binary, frozenset({"good", "bad"}))
        with turn.stage("freeze"):
            frozen = snapshots.freeze(workspace.db, workspace.settings, workspace.project.project_id, plan.layout)
        print(f"  {method}: {given} labels, {frozen.rows} rows, dropped {frozen.manifest['dropped']}", flush=True)
        with turn.stage("train"):
            config = config_class(method)(seed=seed, tuning=turn.tuning)
            file = snapshots.file_of(workspace.settings, frozen)
            trained = workspace.run(method, f"training.{method}", run_args(spec, config), file)
            turn.trained = trained.result
        with turn.stage("compare"):
            tuned = ModelSpec("local", spec.base, str(workspace.settings.runs_dir / trained.run_id / "adapter"), spec.quantize)
            held_out = workspace.add_prompts(200, "held_out", seed)
            compare = {
                "model_a": spec.to_json(), "model_b": tuned.to_json(), "name_a": "base", "name_b": method,
                "judge": spec.to_json(), "judge_name": "demo judge", "samples": 8, "temperature": 0.8,
                "max_new_tokens": MAX_TOKENS, "seed": seed, "grader": "demo_world",
            }  # fmt: skip
            done = workspace.run("compare", "evals.compare", compare, workspace.write_prompts("held_out", held_out))
            turn.result = CompareResult.from_json(done.result)
    finally:
        workspace.close()
    turn.cpu_seconds = _cpu_seconds() - cpu_before
    for sentence in summary(turn.result):
        print(f"  {sentence}", flush=True)


def _cpu_seconds() -> float:
    """Of this process and the runs that have ended: what a loop costs whatever else the machine is doing."""
    return sum(os.times()[:4])


def rows_of(turn: Turn) -> list[Row]:
    """The figures of one method and the bars they are held to."""
    result, bar, name = turn.result, PLANS[turn.method].bar, str(turn)
    assert result is not None
    before, after, gain = _shown(result.accuracy_a), _shown(result.accuracy_b), _shown(result.accuracy_gain)
    judged, ruled = _shown(result.win_rate), _shown(result.rule_win_rate)
    points, low, high = 100 * gain.value, 100 * gain.low, 100 * gain.high
    same_side = (judged.value - 0.5) * (ruled.value - 0.5) > 0
    enough = points >= bar and low > 0
    return [
        Row(f"{name}: good answers before", in_percent(before)),
        Row(f"{name}: good answers after", in_percent(after)),
        Row(
            f"{name}: gained ({low:+.1f} to {high:+.1f})",
            round(points, 1),
            "points",
            bar=f">= {bar:g}, interval above 0",
            met=enough,
        ),
        Row(f"{name}: judge's win rate", in_percent(judged), bar="interval above 50 %", met=judged.low > 0.5),
        Row(f"{name}: rules' win rate", in_percent(ruled), bar="on the judge's side of 50 %", met=same_side),
        Row(f"{name}: judge right where the rules prefer one", in_percent(_shown(result.judge_accuracy))),
        *[Row(f"{name}: {stage}", seconds, "s") for stage, seconds in turn.seconds.items()],
        Row(f"{name}: training steps alone", turn.trained["seconds"], "s"),
        Row(f"{name}: processor time of the whole loop", round(turn.cpu_seconds, 1), "s"),
        below(f"{name}: whole loop", sum(turn.seconds.values()), MAX_SECONDS, "s"),
    ]


def _shown(found: Estimate | None) -> Any:
    """The estimate, once it is sure that it has a value and an interval."""
    if found is None or found.value is None or found.low is None or found.high is None:
        sys.exit("the comparison has a figure without an interval: too little could be scored")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Go around the loop with each method and measure it.")
    parser.add_argument("methods", nargs="*", choices=[*PLANS, []], help="default: dpo sft kto")
    parser.add_argument("--tuning", nargs="+", choices=TUNING_NAMES, default=[*TUNING_NAMES])
    parser.add_argument("--model", type=Path, default=MODEL, help="a model of the demo world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="loop", help="of the JSON file")
    flags = parser.parse_args()
    spec = ModelSpec("local", base=str(flags.model))
    rows: list[Row] = []
    for method in flags.methods or USUAL:
        for tuning in flags.tuning:
            turn = Turn(method, tuning)
            print(turn, flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-loop-") as home:
                go_round(turn, Path(home), spec, flags.seed)
            rows += rows_of(turn)
    sys.exit(0 if publish(flags.name, rows, ("torch", "transformers", "peft", "trl", "bitsandbytes")) else 1)


if __name__ == "__main__":
    main()
