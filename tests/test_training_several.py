"""Two real processes over gloo, started by `accelerate launch` or Ray: they learn what one learns from the same rows, and they end
together.

Each start costs four imports of torch and TRL, so all but one of these tests are slow.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("torch")

import torch

from data.rundir import RunDir
from tests import tiny_model
from tests.training_runs import ROOT, adapter_weights, dpo_rows, events, kto_rows, make_run, prompt_rows, sft_rows
from training.config import (
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    OrpoConfig,
    RewardConfig,
    RlooConfig,
    SftConfig,
    SimpoConfig,
    TrainConfig,
)
from training.launch import Launch
from training.ranks import even_batch

pytestmark = pytest.mark.model
FEW: dict[str, Any] = {"max_steps": 3, "tuning": "lora", "precision": "fp32", "max_length": 128}
SAME = (
    "loss", "grad_norm", "rewards/margins", "learning_rate", "num_tokens", "eval_loss", "eval_rewards/margins", "reward",
    "reward_std", "kl", "completions/mean_length", "eval_reward", "eval_kl", "nll_loss", "log_odds_ratio", "rewards/accuracies",
    "entropy", "eval_nll_loss",
)  # fmt: skip
ROWS = {
    "dpo": [*dpo_rows(24), *dpo_rows(6, "held_out")],
    "kto": [*kto_rows(12, 12), *kto_rows(4, 4, "held_out")],
    "reward": [*dpo_rows(24), *dpo_rows(6, "held_out")],
    "orpo": [*dpo_rows(17), *dpo_rows(5, "held_out")],
    "simpo": [*dpo_rows(17), *dpo_rows(5, "held_out")],
    "sft": [*sft_rows(24), *sft_rows(6, "held_out")],
    "rloo": [*prompt_rows(16), *prompt_rows(6, "held_out")],
    "grpo": [*prompt_rows(16), *prompt_rows(6, "held_out")],
}


def run_of(folder: Path, method: str, config: TrainConfig, launch: Launch | None = None) -> RunDir:
    """As `studio/jobs.py` writes it."""
    run = make_run(folder, tiny_model.DEMO_MODEL, config, ROWS[method])
    record = run.config() | {"kind": method}
    record["args"] |= {"launch": launch.to_json()} if launch else {}
    (run.path / "config.json").write_text(json.dumps(record))
    return run


def begin(run: RunDir, module: str = "training.launch", *more: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (run.path / "stdout.log").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(run.path), *more], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
        )


def begin_as_if(run: RunDir, module: str, preset: str = "ddp") -> None:
    """The run by two processes of another module than its method's, which something is different in; to its end."""
    argv = ["--config_file", f"training/launch_presets/{preset}.yaml", "--num_processes", "2", "--num_machines", "1"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *argv, "--main_process_port", "0"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (run.path / "stdout.log").open("wb") as out:  # no pipe, which a process that is left over would keep open
        done = subprocess.run(
            [*command, "--module", module, str(run.path)], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    assert done.returncode == 0, run.log_tail()


def until(run: RunDir, child: subprocess.Popen[bytes], there: Callable[[], object]) -> None:
    while not there():
        assert child.poll() is None, run.log_tail()
        time.sleep(0.1)


def statuses(run: RunDir) -> list[str]:
    return [event["status"] for event in events(run, "status")]


def processes_of(run: RunDir) -> list[psutil.Process]:
    """All that work in the run's folder, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(run.path) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """A test that fails leaves no run behind that would train for hours."""
    yield
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(tmp_path) in part for part in process.cmdline()):
                process.kill()


def check_learned_the_same(run: RunDir, one: RunDir, stray: float = 0.0, same: Sequence[str] = SAME) -> None:
    """Loss by loss and weight by weight, within fp32. `stray`: the share of weights that may be elsewhere, because their gradient
    is nothing but rounding, of which Adam makes a whole step."""
    several, alone = (events(each, "metrics") for each in (run, one))
    assert len(several) == len(alone) > FEW["max_steps"]
    for mine, other in zip(several, alone, strict=True):
        for name in same:
            assert (name in mine) == (name in other)
            near = 2e-3 if name == "eval_loss" else 2e-5  # SFT's held-out loss is a mean of the batches' means over tokens
            assert mine.get(name, 0) == pytest.approx(other.get(name, 0), abs=near, rel=2e-5), (name, mine["step"])
    mine, other = adapter_weights(run), adapter_weights(one)
    assert mine.keys() == other.keys()
    apart = torch.cat([(mine[name] - other[name]).abs().flatten() for name in mine])
    assert float((apart > 1e-4).float().mean()) <= stray


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One process with the rows of both in each batch."""
    from training import dpo

    config = DpoConfig(**FEW, batch_size=8, sft_weight=0.0, backend="trl")
    run = run_of(tmp_path_factory.mktemp("one") / "run", "dpo", config)
    dpo.main(run)
    return run


HALF = DpoConfig(**FEW, batch_size=4, sft_weight=0.0)


@pytest.mark.slow  # two processes with their imports
def test_two_processes_learn_what_one_learns_from_the_same_batches(tmp_path: Path, one: RunDir) -> None:
    run = run_of(tmp_path / "run", "dpo", HALF, Launch())
    assert begin(run).wait() == 0, run.log_tail()
    check_learned_the_same(run, one)
    assert statuses(run) == ["running", "finished"], "one process alone tells how it goes"
    assert events(run, "result")[0]["first_loss"] == pytest.approx(0.693147, abs=1e-5)
    assert [event["text"] for event in events(run, "log")] == ["Trained by TRL."]
    assert (run.path / "rank-1.log").exists()
    assert not (run.path / "rank-1.jsonl").exists()
    assert run.log_tail().count("'train_loss'") == 1


@pytest.mark.slow  # Ray starts a cluster: half a minute
def test_ray_trains_the_same_on_two_workers(tmp_path: Path, one: RunDir) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-scale.txt")
    run = run_of(tmp_path / "run", "dpo", HALF, Launch("ray"))
    assert begin(run, "training.ray_job").wait() == 0, run.log_tail()
    check_learned_the_same(run, one)
    assert statuses(run) == ["running", "finished"]
    assert (run.path / "rank-1.log").exists()


@pytest.mark.slow  # two processes with their imports
@pytest.mark.parametrize(("tuning", "precision"), [("lora", "fp32"), ("lora", "bf16"), ("qlora", "bf16")])
def test_weights_that_are_cut_up_learn_the_same_and_are_saved_whole(
    tmp_path: Path, one: RunDir, tuning: str, precision: str
) -> None:
    config = DpoConfig(**{**FEW, "precision": precision, "tuning": tuning}, batch_size=4, sft_weight=0.0)
    run = run_of(tmp_path / "run", "dpo", config)
    begin_as_if(run, "tests.fsdp_on_cpu", "fsdp")
    assert events(run, "result")[0]["cut_up"] == [True]
    if precision == "fp32":
        check_learned_the_same(run, one)
    else:
        assert adapter_weights(run).keys() == adapter_weights(one).keys()


@pytest.mark.slow  # two processes with their imports
@pytest.mark.skipif(not find_spec("deepspeed"), reason="DeepSpeed is an extra: pip install -r requirements-scale.txt")
@pytest.mark.parametrize(("tuning", "precision"), [("lora", "fp32"), ("lora", "bf16"), ("full", "fp32")])
def test_weights_that_deepspeed_cuts_up_learn_the_same_and_are_saved_whole(
    tmp_path: Path, one: RunDir, monkeypatch: pytest.MonkeyPatch, tuning: str, precision: str
) -> None:
    """All weights are as the base's files hold them, in bf16."""
    from safetensors.torch import load_file

    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    config = DpoConfig(**{**FEW, "precision": precision, "tuning": tuning}, batch_size=4, sft_weight=0.0)
    run = run_of(tmp_path / "run", "dpo", config)
    begin_as_if(run, "tests.zero_on_cpu", "zero3")
    (said,) = events(run, "result")
    assert said["cut_up"] == [True]
    assert said["first_loss"] == pytest.approx(0.693147, abs=1e-4)
    if tuning == "full":
        base, made = (load_file(folder / "model.safetensors") for folder in (tiny_model.DEMO_MODEL, run.path / "model"))
        assert {name: weight.shape for name, weight in made.items()} == {name: weight.shape for name, weight in base.items()}
        assert all(not torch.equal(weight, base[name]) for name, weight in made.items() if weight.dim() > 1)  # norms round back
    elif precision == "fp32":
        check_learned_the_same(run, one)
    else:
        assert adapter_weights(run).keys() == adapter_weights(one).keys()


@pytest.mark.slow  # two processes with their imports
def test_sft_counts_the_tokens_of_all_processes(tmp_path: Path) -> None:
    """Its loss is a mean over tokens, of which each process has another number; in NF4, and all the same what one learns."""
    from training import sft

    one = run_of(tmp_path / "one", "sft", SftConfig(**{**FEW, "tuning": "qlora"}, batch_size=8, backend="trl"))
    sft.main(one)
    run = run_of(tmp_path / "run", "sft", SftConfig(**{**FEW, "tuning": "qlora"}, batch_size=4), Launch())
    assert begin(run).wait() == 0, run.log_tail()
    check_learned_the_same(run, one, stray=1e-5)


@pytest.mark.slow  # two processes with their imports
def test_kto_trains_on_several(tmp_path: Path) -> None:
    """Not what one process learns: its KL is that of the rows of a batch on one device."""
    run = run_of(tmp_path / "run", "kto", KtoConfig(**FEW, batch_size=4), Launch())
    assert begin(run).wait() == 0, run.log_tail()
    metrics = events(run, "metrics")
    assert metrics[0]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert metrics[0]["loss"] > metrics[-2]["loss"] > metrics[-1]["eval_loss"] > 0
    assert (run.path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow  # two processes with their imports
def test_a_reward_model_on_several_learns_what_one_learns(tmp_path: Path) -> None:
    from training import reward

    one = run_of(tmp_path / "one", "reward", RewardConfig(**FEW, batch_size=8))
    alone = reward.main(one)
    run = run_of(tmp_path / "run", "reward", RewardConfig(**FEW, batch_size=4), Launch())
    assert begin(run).wait() == 0, run.log_tail()
    check_learned_the_same(run, one)
    assert statuses(run) == ["running", "finished"]
    (said,) = events(run, "result")
    assert said["first_loss"] == pytest.approx(0.693147, abs=1e-5)
    assert said["right"] == alone["right"], "all held-out pairs are scored once"


@pytest.mark.slow  # two processes with their imports
@pytest.mark.parametrize(
    ("method", "kind", "more"),
    [
        ("orpo", OrpoConfig, {"accumulation": 2}),
        ("simpo", SimpoConfig, {"sft_weight": 0.5}),
    ],
)
def test_our_own_step_in_two_processes_learns_what_it_learns_in_one(
    tmp_path: Path, method: str, kind: Any, more: dict[str, Any]
) -> None:
    """One batch of an epoch is a single row, so one of the processes has none of it."""
    settings = {**FEW, "max_steps": 5, **more}
    one = run_of(tmp_path / "one", method, kind(**settings, batch_size=8))
    importlib.import_module(f"training.{method}").main(one)
    run = run_of(tmp_path / "run", method, kind(**settings, batch_size=4), Launch())
    assert begin(run).wait() == 0, run.log_tail()
    check_learned_the_same(run, one)
    assert statuses(run) == ["running", "finished"]
    (told,) = [event["text"] for event in events(run, "log")]
    assert told.startswith("Trained by the studio's own code")


SAMPLING: dict[str, Any] = {
    **FEW, "num_generations": 4, "max_completion_length": 16, "max_length": 256, "lora_rank": 4,
}  # fmt: skip


def sampled_by_one(folder: Path, method: str, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    from transformers import GenerationMixin

    from tests import sampled_alike

    run = run_of(folder, method, config)
    monkeypatch.setattr(GenerationMixin, "generate", GenerationMixin.generate)  # put back afterwards
    sampled_alike.main(run)
    return run


@pytest.mark.slow  # two processes with their imports
@pytest.mark.parametrize(
    ("method", "kind", "more", "preset"),
    [
        ("rloo", RlooConfig, {"accumulation": 2}, "ddp"),
        ("grpo", GrpoConfig, {"beta": 0.1}, "ddp"),
        ("rloo", RlooConfig, {"beta": 0.5}, "fsdp"),
    ],
    ids=["rloo", "grpo", "rloo-cut-up"],
)
def test_two_processes_learn_what_one_learns_from_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, kind: Any, more: dict[str, Any], preset: str
) -> None:
    """The answers of both are held against each other, and only what there is of both is graded."""
    one = sampled_by_one(tmp_path / "one", method, kind(**SAMPLING, **more, batch_size=16), monkeypatch)
    run = run_of(tmp_path / "run", method, kind(**SAMPLING, **more, batch_size=8))
    begin_as_if(run, "tests.sampled_alike" if preset == "ddp" else "tests.fsdp_on_cpu", preset)
    # entropy is a mean over tokens, then over a step's parts: two processes part the same answers in another way
    same = [name for name in SAME if name != "entropy" or "accumulation" not in more]
    check_learned_the_same(run, one, same=same)
    learned = [event for event in events(run, "metrics") if "loss" in event]
    assert all(event["reward_std"] > 0 and event["grad_norm"] > 0 for event in learned), "there was something to learn"
    assert statuses(run) == ["running", "finished"]


@pytest.mark.slow  # Ray starts a cluster: half a minute
def test_ray_workers_learn_from_a_reward_model(tmp_path: Path) -> None:
    """Each grades its own answers by a copy of the reward model; prompts that nothing is left of are the same ones for both."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-scale.txt")
    from data.engine import ModelSpec
    from training import reward

    scorer = run_of(tmp_path / "scorer", "reward", RewardConfig(**{**FEW, "max_steps": 2, "tuning": "lora"}, batch_size=8))
    reward.main(scorer)
    run = run_of(tmp_path / "run", "rloo", RlooConfig(**SAMPLING, batch_size=8, reward="some-id"), Launch("ray"))
    record = run.config()
    record["args"]["reward_model"] = ModelSpec("local", str(tiny_model.DEMO_MODEL), str(scorer.path / "adapter")).to_json()
    (run.path / "config.json").write_text(json.dumps(record))
    assert begin(run, "training.ray_job").wait() == 0, run.log_tail()
    assert statuses(run) == ["running", "finished"]
    steps = [event for event in events(run, "metrics") if "loss" in event]
    assert [event["step"] for event in steps] == [1, 2, 3]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert steps[0]["reward"] == pytest.approx(steps[0]["rewards/model/mean"])
    assert steps[0]["reward_std"] > 0
    assert any(w.abs().max() > 0 for name, w in adapter_weights(run).items() if "lora_B" in name)


@pytest.mark.slow  # three starts of two processes with their imports
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("grpo", GrpoConfig(**{**SAMPLING, "max_steps": 12}, batch_size=8, beta=0.1)),
        ("orpo", OrpoConfig(**{**FEW, "max_steps": 400}, batch_size=4)),
    ],
    ids=["grpo", "orpo"],
)
def test_a_run_is_stopped_on_several_and_goes_on_as_one_that_never_was(tmp_path: Path, method: str, config: TrainConfig) -> None:
    """TRL's trainer and our own; the one that samples goes on from the random state of each process."""
    whole, run = (run_of(tmp_path / name, method, config, Launch()) for name in ("whole", "stopped"))
    assert begin(whole).wait() == 0, whole.log_tail()
    child = begin(run)
    until(run, child, lambda: any("loss" in event for event in events(run, "metrics")))
    run.request_stop()
    assert child.wait() == 0, run.log_tail()
    assert statuses(run)[-1] == "stopped"
    at = events(run, "result")[0]["steps"]
    assert 0 < at < config.max_steps
    (run.path / "stop").unlink()
    assert begin(run).wait() == 0, run.log_tail()
    assert statuses(run)[-1] == "finished"
    assert events(run, "result")[-1]["resumed_from"] == at
    mine, other = adapter_weights(run), adapter_weights(whole)
    assert all(torch.equal(mine[name], other[name]) for name in other)


@pytest.mark.slow  # two processes with their imports
def test_a_stop_is_heard_by_all_at_the_same_step(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "dpo", DpoConfig(**{**FEW, "max_steps": 5000}, batch_size=4), Launch())
    child = begin(run)
    until(run, child, lambda: len(events(run, "metrics")) >= 2)
    run.request_stop()
    assert child.wait() == 0, run.log_tail()
    assert statuses(run) == ["running", "stopped"]
    assert events(run, "result")[0]["steps"] < 5000
    assert (run.path / "adapter" / "adapter_model.safetensors").exists()
    assert processes_of(run) == []


@pytest.mark.slow  # two processes with their imports
def test_a_process_that_is_killed_ends_the_run_in_words(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "dpo", DpoConfig(**{**FEW, "max_steps": 5000}, batch_size=4), Launch())
    child = begin(run)
    until(run, child, lambda: len(events(run, "metrics")) >= 1)
    (second,) = [process for process in processes_of(run) if process.environ().get("RANK") == "1"]
    second.kill()
    assert child.wait() == 1
    assert statuses(run)[-1] == "failed"
    assert events(run, "error")[-1]["message"].startswith("Process 2 of 2 was killed, most likely because memory ran out")
    assert processes_of(run) == []


@pytest.mark.slow  # two processes with their imports
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "dpo", DpoConfig(**{**FEW, "max_steps": 5000}, batch_size=4), Launch())
    child = begin(run)
    until(run, child, lambda: len(events(run, "metrics")) >= 1)
    child.kill()
    child.wait()
    while processes_of(run):
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("processes", "rows", "batch", "even"),
    [(1, 9, 8, 5), (1, 65, 64, 33), (1, 16, 8, 8), (1, 3, 8, 3), (1, 0, 8, 8), (2, 9, 8, 5), (2, 17, 8, 5)],
)
def test_held_out_rows_fall_into_batches_of_like_size(
    monkeypatch: pytest.MonkeyPatch, processes: int, rows: int, batch: int, even: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert even_batch(rows, batch) == even
