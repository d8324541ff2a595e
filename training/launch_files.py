"""A run elsewhere, as files: a Slurm batch script, a SkyPilot task, a script for Hugging Face Jobs, and the commands around each.

Pure functions of a launch and of where things lie; `python -m training.launch` does what can be done on this machine. Everything
is meant to be read before it is run, in the folder that was carried there (`training/carry.py`): it holds the run, its frozen
rows and the code that trains them. Whatever a user named is quoted, or put into a name of letters, digits and dashes first.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import NamedTuple

from data.errors import BadInput
from training.launch import Launch, accelerate_argv, accelerate_argv_of_node, check_method, ray_argv

IMAGE = "python:3.11"
MARGIN_H = 1  # hours a job may take beyond training: to install, load and save
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FLAVORS = {  # of Hugging Face Jobs: GPUs of a kind -> the machine that has so many
    "A100": {1: "a100-large", 4: "a100x4", 8: "a100x8"},
    "H200": {1: "h200", 2: "h200x2", 4: "h200x4", 8: "h200x8"},
    "L40S": {1: "l40sx1", 4: "l40sx4", 8: "l40sx8"},
    "A10G": {1: "a10g-large", 2: "a10g-largex2", 4: "a10g-largex4"},
    "L4": {1: "l4x1", 4: "l4x4"},
    "T4": {1: "t4-medium"},
}
GPUS = tuple(_FLAVORS)


class Place(NamedTuple):
    """Where a run goes: its folder's name there, the kind of GPU, hours at most, and a bucket on the hub (Jobs alone)."""

    slug: str
    module: str
    gpu: str = "A100"
    hours: int = 4
    bucket: str = ""

    @property
    def run_dir(self) -> str:
        return f"runs/{self.slug}"


def _setup(launch: Launch) -> str:
    """DeepSpeed is an extra."""
    extra = " -r requirements-scale.txt" if launch.preset in ("zero2", "zero3") else ""
    return f"python -m pip install --quiet -r requirements.txt{extra}"


class Recipe(NamedTuple):
    """What to type, and the file it needs ('' for none). `name` is what the file is called."""

    commands: str
    name: str = ""
    text: str = ""


def slug(name: str) -> str:
    """A run's name as a folder's: letters, digits and dashes, the same to every shell, disk and scheduler."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return plain or "run"


def check_place(place: Place, launch: Launch) -> None:
    """BadInput where the place cannot take the launch."""
    check_method(place.module, launch)
    if place.gpu not in GPUS:
        raise BadInput(f"Choose one of these GPUs: {', '.join(GPUS)}.")
    if type(place.hours) is not int or not 1 <= place.hours <= 24 * 14:
        raise BadInput("The time limit must be from 1 hour to 14 days.")
    if launch.kind == "hf_jobs":
        if launch.nodes > 1:
            raise BadInput("A Hugging Face job has one machine; choose Slurm, SkyPilot or Ray for several.")
        if launch.devices not in _FLAVORS[place.gpu]:
            have = ", ".join(str(n) for n in _FLAVORS[place.gpu])
            raise BadInput(f"Hugging Face Jobs has machines with {have} of the {place.gpu}; choose so many devices.")
        if not _HUB_NAME.fullmatch(place.bucket):
            raise BadInput("Give the bucket on the hub that the result goes to, as your-name/some-name.")


def recipe(place: Place, launch: Launch) -> Recipe:
    """What to run, for this launch; BadInput says what does not fit."""
    check_place(place, launch)
    if launch.kind == "slurm":
        return Recipe(f"sbatch {place.slug}.sbatch", f"{place.slug}.sbatch", sbatch(place, launch))
    if launch.kind == "skypilot":
        return Recipe(_sky_commands(place), f"{place.slug}.yaml", skypilot(place, launch))
    if launch.kind == "hf_jobs":
        return Recipe(_jobs_commands(place, launch), "job.sh", hf_job(place, launch))
    if launch.kind == "ray":
        there = "auto" if launch.nodes > 1 else ""
        return Recipe(shlex.join(ray_argv(place.run_dir, launch, there)))
    if launch.nodes == 1:
        return Recipe(shlex.join(accelerate_argv(place.module, place.run_dir, launch)))
    node = accelerate_argv_of_node(place.module, place.run_dir, launch, "$RANK", "$HEAD", "29500")
    said = "# on each machine, with RANK its number from 0 and HEAD the first one's address:\n"
    return Recipe(said + _with_variables(node))


def sbatch(place: Place, launch: Launch) -> str:
    """One task a machine, each of which starts its own processes; all end when one fails."""
    node = accelerate_argv_of_node(place.module, place.run_dir, launch, "$SLURM_NODEID", "$HEAD", "29500")
    return f"""#!/bin/bash
# Submit it in the carried folder, which every machine must see under the same path: sbatch {place.slug}.sbatch
# `scancel --signal=TERM` ends it; `touch {place.run_dir}/stop` makes it save what it has and end within a step.
#SBATCH --job-name={place.slug}
#SBATCH --nodes={launch.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={launch.devices}
#SBATCH --time={place.hours + MARGIN_H}:00:00
#SBATCH --output={place.slug}-%j.log

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
{_setup(launch)}
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export HEAD
srun --kill-on-bad-exit=1 bash -c {shlex.quote("exec " + _with_variables(node))}
"""


def skypilot(place: Place, launch: Launch) -> str:
    """The carried folder is the workdir; SkyPilot runs `run` on every machine. JSON strings are YAML's quoted scalars."""
    node = accelerate_argv_of_node(place.module, place.run_dir, launch, "$SKYPILOT_NODE_RANK", "$HEAD", "29500")
    return f"""name: {place.slug}
resources:
  accelerators: {json.dumps(f"{place.gpu}:{launch.devices}")}
num_nodes: {launch.nodes}
workdir: .
setup: |
  {_setup(launch)}
run: |
  set -euo pipefail
  HEAD="$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"
  {_with_variables(node)}
"""


def hf_job(place: Place, launch: Launch) -> str:
    """The job's disk is gone when it ends, so what it has made goes into the bucket every five minutes and at the end."""
    train = shlex.join(accelerate_argv(place.module, place.run_dir, launch))
    there = shlex.quote(f"hf://buckets/{place.bucket}/{place.run_dir}")
    return f"""#!/bin/bash
# Run by Hugging Face Jobs over the carried folder, which it finds in /carried.
set -euo pipefail
cp -r /carried /tmp/work
cd /tmp/work
{_setup(launch)}
push() {{ hf buckets sync --quiet {place.run_dir} {there}; }}
(while sleep 300; do push || true; done) &
code=0
{train} || code=$?
push
exit "$code"
"""


def _sky_commands(place: Place) -> str:
    return f"""sky launch --cluster {place.slug} {place.slug}.yaml
rsync -a {place.slug}:sky_workdir/{place.run_dir}/ {place.run_dir}/
sky down {place.slug}"""


def _jobs_commands(place: Place, launch: Launch) -> str:
    """Jobs end after 30 minutes unless told otherwise."""
    bucket = f"hf://buckets/{place.bucket}"
    machine = ["--flavor", _FLAVORS[place.gpu][launch.devices], "--timeout", f"{place.hours + MARGIN_H}h", "--secrets", "HF_TOKEN"]
    carried = ["--volume", f"{bucket}:/carried:ro"]
    return "\n".join(
        shlex.join(argv)
        for argv in (
            ["hf", "buckets", "create", place.bucket, "--private", "--exist-ok"],
            ["hf", "buckets", "sync", ".", bucket],
            ["hf", "jobs", "run", *machine, *carried, IMAGE, "bash", "/carried/job.sh"],
            ["hf", "buckets", "sync", f"{bucket}/{place.run_dir}", place.run_dir],
        )
    )


def _with_variables(argv: list[str]) -> str:
    """The argument list for a shell, where "$NAME" is the shell's own variable and everything else is quoted."""
    return " ".join(f'"{part}"' if re.fullmatch(r"\$[A-Z_]+", part) else shlex.quote(part) for part in argv)
