"""Run folders for the training tests: frozen Parquet, config.json as `studio/jobs.py` writes it, and a child to run it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.demo.world import sample_prompts
from data.engine import ModelSpec
from data.rundir import RunDir, sha256_of
from training.config import TrainConfig, run_args

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("sun", "moon", "rain", "snow", "wind", "hail", "fog", "dew", "ice", "mist", "gale", "heat")


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def dpo_rows(n: int = 12, split: str = "train") -> list[dict[str, Any]]:
    words = (WORDS * (n // len(WORDS) + 1))[:n]
    return [
        {
            "prompt_id": f"{split}{i}",
            "split": split,
            "prompt": user(f"Say {word} {i}"),
            "chosen": assistant(f"{word}!"),
            "rejected": assistant("no"),
        }
        for i, word in enumerate(words)
    ]


def kto_rows(good: int = 6, bad: int = 6, split: str = "train") -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": f"{split}{i}",
            "split": split,
            "prompt": user(f"Say {i}"),
            "completion": assistant(f"{i}!" if i < good else "no"),
            "label": i < good,
        }
        for i in range(good + bad)
    ]


def sft_rows(n: int = 12, split: str = "train") -> list[dict[str, Any]]:
    return [
        {"prompt_id": row["prompt_id"], "split": split, "prompt": row["prompt"], "completion": row["chosen"]}
        for row in dpo_rows(n, split)
    ]


def prompt_rows(n: int = 4, split: str = "train", seed: int = 0) -> list[dict[str, Any]]:
    """Prompts of the demo world, as a snapshot of prompts holds them."""
    drawn = sample_prompts(n, split, random.Random(seed))  # type: ignore[arg-type]
    return [{"prompt_id": p.prompt, "split": split, "prompt": user(p.prompt), "reference": ""} for p in drawn]


def make_run(
    folder: Path,
    base: Path | str,
    config: TrainConfig,
    rows: Sequence[Mapping[str, Any]],
    adapter: Path | str = "",
    samples: bool = False,
) -> RunDir:
    """A run folder ready to start; its data file lies inside it. Without `samples` nothing is answered while it trains: a tiny
    model babbles to the limit."""
    config = config if samples else replace(config, sample_prompts=0)
    import pyarrow
    import pyarrow.parquet

    folder.parent.mkdir(parents=True, exist_ok=True)
    frozen = folder.parent / f"{folder.name}.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), frozen)
    spec = ModelSpec("local", base=str(base), adapter=str(adapter))
    data = {"file": "data.parquet", "sha256": sha256_of(frozen), "rows": len(rows)}
    run = RunDir.create(folder, {"args": run_args(spec, config), "data": data, "versions": {}})
    frozen.rename(folder / "data.parquet")
    return run


def start(method: str, run: RunDir, **happens: object) -> subprocess.Popen[bytes]:
    """`happens`: what is to befall it, as `tests/training_child.py` has it."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in happens.items()}}
    module = ["tests.training_child", method] if happens else [f"training.{method}"]
    with (run.path / "stdout.log").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", *module, str(run.path)], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
        )


def events(run: RunDir, type: str) -> list[dict[str, Any]]:
    return [event for event in run.tail().events if event["type"] == type]


def adapter_weights(run: RunDir) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(run.path / "adapter" / "adapter_model.safetensors"))
