"""What is typed or submitted for a run past one device: argument lists and files, whatever a run is called."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from data.errors import BadInput
from data.rundir import RunDir
from training import launch, ray_job
from training.config import METHODS
from training.launch import (
    PRESETS,
    ROOT,
    End,
    Failure,
    Launch,
    Preset,
    accelerate_argv,
    check_method,
    conclude,
    failures,
    main,
    of_run,
    ray_argv,
    why,
)
from training.launch_files import Place, Recipe, recipe, slug
from training.methods import module_of

HOSTILE = [
    "$(touch /tmp/owned); rm -rf ~",
    "`id` && echo",
    "name'; DROP TABLE runs; --",
    'a"b\n#SBATCH --partition=other\n',
    "../../etc/passwd",
    "--output=/etc/x",
    "${HOME}\x00\u202e",
    "日本語",
    "",
]
PLACE = Place("dpo-on-12-preferences", "training.dpo", bucket="me/dpo-run")
ZERO3 = Launch("accelerate", "zero3", 8)


class Asked(BaseException):
    """Ends a program where it would reach out."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    args = {"launch": Launch().to_json()}
    return RunDir.create(tmp_path / "run", {"kind": "dpo", "args": args})


# --- arguments ----------------------------------------------------------------------------------------------------------------


def test_accelerate_launch_of_one_machine() -> None:
    assert accelerate_argv("training.dpo", "runs/x", ZERO3) == [
        "accelerate", "launch", "--config_file", "training/launch_presets/zero3.yaml", "--num_processes", "8",
        "--num_machines", "1", "--main_process_port", "0", "--module", "training.dpo", "runs/x",
    ]  # fmt: skip


def test_a_ray_job() -> None:
    assert ray_argv("runs/x", Launch("ray", devices=4)) == ["python", "-m", "training.ray_job", "runs/x", "--processes", "4"]
    assert ray_argv("runs/x", Launch("ray", devices=4, nodes=2), "auto")[-4:] == ["--processes", "8", "--address", "auto"]


@pytest.mark.parametrize("folder", HOSTILE)
def test_a_folder_is_one_argument_whatever_it_is_called(folder: str) -> None:
    assert accelerate_argv("training.dpo", folder, ZERO3)[-1] == folder
    assert shlex.split(shlex.join(ray_argv(folder, Launch("ray"))))[3] == folder


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"devices": 0}, "number of devices"),
        ({"devices": 2.0}, "number of devices"),
        ({"nodes": 5000}, "number of machines"),
        ({"kind": "ssh"}, "no such way"),
        ({"preset": "../ddp"}, "no such way"),
        ({"kind": "ray", "preset": "zero3"}, "whole model is on every device"),
        ({"shell": "x"}, "no setting 'shell'"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Launch.from_json({**Launch().to_json(), **wrong})


def test_a_launch_survives_the_runs_config() -> None:
    assert Launch.from_json(json.loads(json.dumps(ZERO3.to_json()))) == ZERO3


# --- files --------------------------------------------------------------------------------------------------------------------


def test_the_batch_script_for_slurm() -> None:
    made = recipe(PLACE, Launch("slurm", "zero3", 8, 2))
    assert made.commands == "sbatch dpo-on-12-preferences.sbatch"
    assert made.text == (ROOT / "tests" / "files" / "launch" / "two-machines.sbatch").read_text()


def test_the_task_for_skypilot() -> None:
    made = recipe(PLACE, Launch("skypilot", "fsdp", 8, 2))
    assert made.text == (ROOT / "tests" / "files" / "launch" / "two-machines.yaml").read_text()
    assert made.commands.splitlines()[0] == "sky launch --cluster dpo-on-12-preferences dpo-on-12-preferences.yaml"


def test_the_job_on_the_hub_pushes_what_it_makes_before_its_disk_is_gone() -> None:
    made = recipe(PLACE, Launch("hf_jobs", "ddp", 4))
    assert made.text == (ROOT / "tests" / "files" / "launch" / "job.sh").read_text()
    assert made.commands.splitlines()[2] == (
        "hf jobs run --flavor a100x4 --timeout 5h --secrets HF_TOKEN --volume hf://buckets/me/dpo-run:/carried:ro python:3.11 "
        "bash /carried/job.sh"
    )


def test_the_hubs_own_program_takes_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed by the installed `hf`, which is stopped before it reaches the network."""
    from huggingface_hub import HfApi
    from huggingface_hub.cli.hf import app

    asked: list[dict[str, Any]] = []

    def run_job(self: Any, **given: Any) -> None:
        asked.append(given)
        raise Asked

    monkeypatch.setattr(HfApi, "run_job", run_job)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    argv = shlex.split(recipe(PLACE, Launch("hf_jobs", "ddp", 4)).commands.splitlines()[2])
    with pytest.raises(Asked):
        app(argv[1:], standalone_mode=False)
    (given,) = asked
    assert (given["image"], given["command"], given["timeout"]) == ("python:3.11", ["bash", "/carried/job.sh"], "5h")
    assert given["flavor"] == "a100x4"


@pytest.mark.parametrize("kind", ["accelerate", "slurm", "skypilot", "hf_jobs", "ray"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_reaches_no_shell(kind: Any, name: str, tmp_path: Path) -> None:
    """A run's name becomes letters, digits and dashes; what is left of it cannot end a quote, a line or a path."""
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", slug(name))
    made = recipe(PLACE._replace(slug=slug(name)), Launch(kind, devices=4))
    plain = recipe(PLACE._replace(slug="run"), Launch(kind, devices=4))
    assert Recipe(*(part.replace(slug(name), "run") for part in made)) == plain


@pytest.mark.parametrize("kind", ["slurm", "hf_jobs"])
def test_a_shell_reads_the_scripts(kind: Any, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(recipe(PLACE, Launch(kind, "zero3", 4)).text)
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True).stderr == ""


def test_a_sky_task_is_yaml_whose_commands_a_shell_reads(tmp_path: Path) -> None:
    import yaml

    task = yaml.safe_load(recipe(PLACE, Launch("skypilot", "zero3", 8, 2)).text)
    assert (task["resources"]["accelerators"], task["num_nodes"]) == ("A100:8", 2)
    assert subprocess.run(["bash", "-n", "-c", task["run"]], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    ("place", "launch", "words"),
    [
        (PLACE, Launch("hf_jobs", devices=3), "machines with 1, 4, 8 of the A100"),
        (PLACE, Launch("hf_jobs", devices=4, nodes=2), "one machine"),
        (PLACE._replace(bucket="me/x; rm"), Launch("hf_jobs", devices=4), "bucket on the hub"),
        (PLACE._replace(gpu="RTX"), Launch("slurm"), "one of these GPUs"),
        (PLACE._replace(hours=0), Launch("slurm"), "time limit"),
        (PLACE._replace(module="training.simpo"), Launch("slurm", "fsdp"), "SimPO trains in whole copies"),
    ],
)
def test_what_a_place_cannot_take_is_refused(place: Place, launch: Launch, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        recipe(place, launch)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_method_trains_on_several_and_our_own_step_in_whole_copies(preset: Preset) -> None:
    refused = set()
    for method in METHODS:
        try:
            check_method(module_of(method), Launch(preset=preset))
        except BadInput:
            refused.add(method)
    assert refused == (set() if preset == "ddp" else {"orpo", "simpo"})


def environment_of(preset: str) -> dict[str, str]:
    """What `accelerate launch` itself would give to the processes, from the argument list that is run or printed."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    argv = accelerate_argv("training.dpo", "runs/x", Launch("accelerate", preset))  # type: ignore[arg-type]
    argv[argv.index("--config_file") + 1] = str(ROOT / PRESETS / f"{preset}.yaml")
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(argv[2:]))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return dict(prepare_deepspeed_cmd_env(args)[1])
    return dict(prepare_multi_gpu_env(args))


@pytest.mark.model
@pytest.mark.parametrize(("preset", "cut_up"), [("ddp", ""), ("fsdp", "fsdp"), ("zero2", ""), ("zero3", "zero3")])
def test_accelerate_takes_every_preset_as_it_is_meant(preset: str, cut_up: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins are made from the environment, as in each of the processes; DeepSpeed itself need not be installed for that."""
    torch = pytest.importorskip("torch")
    from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

    from training import models
    from training.ranks import sharding

    for name, value in environment_of(preset).items():
        monkeypatch.setenv(name, value)
    assert sharding() == cut_up
    stored = models.quantization().bnb_4bit_quant_storage
    assert stored == (models.compute_dtype() if preset == "fsdp" else torch.uint8)
    if preset == "fsdp":
        plugin = FullyShardedDataParallelPlugin()
        assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.state_dict_type.name) == (2, True, "FULL_STATE_DICT")
    if preset.startswith("zero"):
        config = DeepSpeedPlugin().deepspeed_config
        assert config["zero_optimization"]["stage"] == int(preset[-1])
        gathered = config["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save")
        assert gathered == (preset == "zero3"), "else nothing whole could be saved"


# --- the end in words ---------------------------------------------------------------------------------------------------------

LOST = "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"
SUMMARY = """
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 1)  (SIGTERM)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 2)
"""


def test_the_process_that_failed_for_a_reason_of_its_own_is_named() -> None:
    said = [Failure("1", 0, LOST), Failure("2", 1, "Memory ran out; halve the batch size.")]
    assert why(said, "", 2) == "Memory ran out; halve the batch size. (process 2 of 2; all were ended)"
    assert why([Failure("1", 0, "The loss is no number."), Failure("2", 1, LOST)], "", 2) == "The loss is no number."


def test_a_process_that_was_killed_is_named() -> None:
    said = why([Failure("1", 0, LOST)], SUMMARY.format(code=-9), 2)
    assert said.startswith("Process 2 of 2 was killed, most likely because memory ran out, so all were ended; halve")
    assert "crashed (SIGSEGV)" in why([], SUMMARY.format(code=-11), 2)
    assert "One of the 2 processes ended without a word" in why([Failure("1", 0, LOST)], "", 2)


def test_the_end_that_the_first_process_told_stands(run: RunDir) -> None:
    end = End(run)
    run.event("status", status="running")
    assert not end.is_said()
    run.event("status", status="finished")
    assert end.is_said()
    run.event("status", status="queued")  # it goes on from a checkpoint
    assert not end.is_said()
    run.event("status", status="finished")
    assert conclude(run, 2, 1) == 0
    assert [e["status"] for e in run.tail().events] == ["running", "finished", "queued", "finished"]


def test_what_hangs_after_the_end_and_does_not_hear_that_is_ended_by_force(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LEAVE_S", 0.0)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as hangs:
        assert hangs.stdout is not None
        hangs.stdout.readline()
        run.event("status", status="finished")
        assert launch._wait(run, hangs) == -signal.SIGKILL


def test_a_stop_is_heard_while_ray_waits_for_room(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    run.request_stop()
    with pytest.raises(Ended):
        ray_job._leave(run)
    assert [e["status"] for e in run.tail().events if e["type"] == "status"] == ["stopped"]


def test_an_end_of_an_earlier_life_is_not_taken_for_this_ones(run: RunDir) -> None:
    run.event("status", status="running")
    run.event("status", status="stopped")
    of_run(run)
    assert not End(run).is_said()
    of_run(run)
    assert [e["status"] for e in run.tail().events] == ["running", "stopped", "queued"]


def test_a_run_that_was_ended_in_the_middle_is_no_failure(run: RunDir) -> None:
    run.request_stop()
    assert conclude(run, 2, 1) == 0
    assert run.tail().events == []


def test_only_the_first_process_writes_events_and_hears_a_stop(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.request_stop()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not run.stop_requested
    run.event("status", status="running")
    run.event("error", message="Memory ran out.")
    assert not (run.path / "events.jsonl").exists()
    with (run.path / "rank-1.jsonl").open("a") as f:
        f.write('{"type": "error", "mess')  # killed while it wrote
    assert [(f.rank, f.words) for f in failures(run) if f.words] == [(1, "Memory ran out.")]
    monkeypatch.setenv("RANK", "0")
    assert run.stop_requested


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "dpo", "args": {}}, "does not say on how many devices"),
        ({"kind": "orpo", "args": {"launch": {"preset": "zero2"}}}, "ORPO trains in whole copies"),
        ({"kind": "dpo", "args": {"launch": {"devices": "2; rm -rf /"}}}, "number of devices"),
    ],
)
def test_a_run_that_cannot_be_launched_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], words: str
) -> None:
    run = RunDir.create(tmp_path / "run", config)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # SIGTERM is to end the tests' process, not to stop this run
    assert main(run) == 1
    said = run.tail().events
    assert re.search(words, said[0]["message"])
    assert said[-1]["status"] == "failed"
