"""Merging an adapter into its base: the weights are the sum, the answers stay, what cannot be merged is refused in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.engine import Message, ModelSpec
from data.rundir import RunDir, sha256_of
from training.merge import main, parity

from tiny_model import DEMO_MODEL, save_adapter  # isort: skip

pytestmark = pytest.mark.model
ROOT = Path(__file__).resolve().parent.parent
ASKED = ("What is the capital\u2028of France?", "What is 3 + 4?", "Sort these words: pear, apple, fig", "Spell the word cat.")


def to_merge(folder: Path, spec: ModelSpec) -> RunDir:
    lines = "".join(json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False) + "\n" for text in ASKED)
    file = folder.parent / "asked.jsonl"
    file.write_text(lines, encoding="utf-8")
    data = {"file": "prompts.jsonl", "sha256": sha256_of(file), "rows": len(ASKED)}
    run = RunDir.create(folder, {"args": {"model": spec.to_json()}, "data": data})
    file.rename(folder / "prompts.jsonl")
    return run


def merge(folder: Path, spec: ModelSpec) -> RunDir:
    run = to_merge(folder, spec)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "stdout.log").open("wb") as out:
        words = [sys.executable, "-m", "training.merge", str(folder)]
        subprocess.run(words, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
    return run


def the(run: RunDir, kind: str) -> dict[str, Any]:
    return [event for event in run.tail().events if event["type"] == kind][-1]


def test_a_merged_model_is_base_plus_adapter_and_answers_as_they_do(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    adapter = save_adapter(tmp_path / "adapter", DEMO_MODEL, scale=0.02)
    run = to_merge(tmp_path / "run", ModelSpec("local", str(DEMO_MODEL), str(adapter), quantize=True))
    result = main(run)
    assert (result["prompts"], result["model"]) == (len(ASKED), "model")
    assert result["same"] >= len(ASKED) - 1  # a tie may turn where the sum is rounded to bf16
    base, merged, lora = (
        load_file(folder / name)
        for folder, name in (
            (DEMO_MODEL, "model.safetensors"),
            (run.path / "model", "model.safetensors"),
            (adapter, "adapter_model.safetensors"),
        )
    )
    assert merged.keys() == base.keys()
    name = "model.layers.1.mlp.up_proj"
    a, b = (lora[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
    config = json.loads((adapter / "adapter_config.json").read_text())
    wanted = base[f"{name}.weight"].float() + b @ a * config["lora_alpha"] / config["r"]
    assert torch.allclose(merged[f"{name}.weight"].float(), wanted, atol=1e-3, rtol=1e-2)
    assert not torch.equal(merged[f"{name}.weight"], base[f"{name}.weight"])
    assert merged[f"{name}.weight"].dtype == base[f"{name}.weight"].dtype == torch.bfloat16
    assert f"{result['same']} of {len(ASKED)} greedy answers" in the(run, "log")["text"]
    assert not list((run.path / "model").glob("*.bin"))


def test_answers_that_differ_are_counted_and_shown() -> None:
    asked = [(Message("user", f"Question {i}"),) for i in range(8)]
    found = parity(asked, ["same"] * 8, ["same"] * 2 + ["other"] * 6)
    assert (found.prompts, found.same, len(found.differ)) == (8, 2, 5)
    assert found.differ[0] == ("Question 2", "same", "other")
    assert found.sentence.startswith("2 of 8 ")
    assert "no prompt" in parity([], [], []).sentence


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec("local", str(DEMO_MODEL)), "Only an adapter over a local base"),
        (ModelSpec("endpoint", "gpt", url="http://127.0.0.1:1/v1"), "Only an adapter over a local base"),
        pytest.param(
            ModelSpec("local", str(DEMO_MODEL), "/nowhere/adapter"),
            "There is no adapter folder",
            marks=pytest.mark.slow(reason="loads the base first; opening any model says the same"),
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_in_words(tmp_path: Path, spec: ModelSpec, words: str) -> None:
    run = merge(tmp_path / "run", spec)
    assert words in the(run, "error")["message"]
    assert the(run, "status")["status"] == "failed"
    assert not (run.path / "model").exists()
