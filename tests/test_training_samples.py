"""Answers of the model in training: they change as it learns, nothing of the training changes by them, and a stop is heard."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from data.engine import GenRequest, Message, ModelSpec
from tests import tiny_model
from tests.training_runs import adapter_weights, assistant, dpo_rows, events, make_run, sft_rows, user
from training import dpo, samples, sft
from training.config import DpoConfig, SftConfig
from training.local_engine import LocalEngine
from training.samples import spread, untouched

pytestmark = pytest.mark.model

FEW: dict[str, Any] = {"max_steps": 8, "batch_size": 4, "lora_rank": 4, "max_length": 128, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout, so that a draw too many would show."""
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64, attention_dropout=0.1)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "TOKENS", 16)  # the tiny model never ends by itself


@pytest.mark.parametrize(
    ("main", "config"),
    [
        (sft.main, SftConfig(**FEW)),
        (dpo.main, DpoConfig(**FEW)),
        (dpo.main, DpoConfig(**FEW, backend="trl", tuning="lora", checkpointing=True)),
    ],
    ids=["sft by TRL in 4 bits", "dpo by our step in 4 bits", "dpo by TRL with checkpointing"],
)
def test_the_adapter_is_the_same_byte_for_byte_with_and_without_samples(tmp_path: Path, base: Path, main: Any, config: Any) -> None:
    from dataclasses import replace

    rows = [*dpo_rows(), *dpo_rows(4, "held_out")] if isinstance(config, DpoConfig) else [*sft_rows(), *sft_rows(4, "held_out")]
    runs = [
        make_run(tmp_path / name, base, c, rows, samples=True)
        for name, c in (("on", config), ("off", replace(config, sample_prompts=0)))
    ]
    for run in runs:
        main(run)
    on, off = (adapter_weights(run) for run in runs)
    assert on.keys() == off.keys()
    assert all(torch.equal(on[name], off[name]) for name in on)
    told = events(runs[0], "sample")
    assert sorted({event["step"] for event in told}) == [0, 2, 4, 6, 8]
    assert [event["prompt"] for event in told if event["step"] == 0] == [row["prompt"][-1]["content"] for row in rows[-4:]]
    assert {event["split"] for event in told} == {"held_out"}
    assert len({event["text"] for event in told}) > 4, "the model has learned nothing that shows"
    assert events(runs[1], "sample") == []
    assert [e["loss"] for e in events(runs[0], "metrics") if "loss" in e] == [
        e["loss"] for e in events(runs[1], "metrics") if "loss" in e
    ]


def test_the_last_answers_are_those_that_the_adapter_gives_everywhere_else(tmp_path: Path, base: Path) -> None:
    config = SftConfig(**FEW, tuning="lora", precision="fp32", sample_prompts=2)
    run = make_run(tmp_path / "run", base, config, [*sft_rows(), *sft_rows(4, "held_out")], samples=True)
    sft.main(run)
    last = [event for event in events(run, "sample") if event["step"] == 8]
    engine = LocalEngine(ModelSpec("local", str(base), str(run.path / "adapter")))
    asked = [GenRequest((Message("user", event["prompt"]),), samples.TOKENS, temperature=0.0) for event in last]
    assert {result.index: result.text for result in engine.generate(asked)} == {i: event["text"] for i, event in enumerate(last)}
    engine.close()


def test_a_stop_is_heard_between_two_tokens_and_before_the_first_step(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data.rundir import Stopped

    run = make_run(tmp_path / "run", base, SftConfig(**FEW, tuning="lora"), sft_rows(), samples=True)
    steps: list[int] = []
    step = samples.Cohort.step

    def stopping(cohort: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            run.request_stop()
        return step(cohort)

    monkeypatch.setattr(samples.Cohort, "step", stopping)
    with pytest.raises(Stopped):
        sft.main(run)
    assert len(steps) == 3
    assert events(run, "sample") == []


def test_what_takes_too_long_is_cut_and_what_cannot_write_ends_no_run(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SECONDS", 0.0)
    run = make_run(tmp_path / "slow", base, SftConfig(**FEW, tuning="lora", sample_prompts=1), sft_rows(), samples=True)
    sft.main(run)
    assert {(event["text"], event["cut"], event["split"]) for event in events(run, "sample")} == {("", True, "train")}

    def broken(*args: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(samples, "Cohort", broken)
    run = make_run(tmp_path / "broken", base, SftConfig(**FEW, tuning="lora"), sft_rows(), samples=True)
    assert sft.main(run)["steps"] == 8
    assert events(run, "sample") == []
    assert [event["text"] for event in events(run, "log") if "sample answers" in event["text"]] == [
        "No sample answers: RuntimeError while the model wrote; training goes on."
    ]


def test_random_states_and_modes_are_put_back(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2).eval())
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = (torch.rand(1).item(), random.random(), float(np.random.rand()))
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    with untouched(model):
        assert not model[0].training
        torch.rand(9), random.random(), np.random.rand(9)
    assert (torch.rand(1).item(), random.random(), float(np.random.rand())) == expected
    assert [model.training, model[0].training, model[1].training] == [True, True, False]


def test_prompts_come_from_all_over_and_none_twice() -> None:
    rows = [{"prompt": user(f"{i // 2}"), "completion": assistant("x")} for i in range(20)]
    assert [prompt[0].content for prompt in spread(rows, 4)] == ["0", "2", "5", "7"]
    assert len(spread(rows, 99)) == 10
    assert spread(rows, 0) == spread([], 4) == []
