"""A training run on several devices of this machine, or packed to be carried to another one; no page, no Gradio.

`Prepared` is what a run will be, from the Train page's form or from a run that exists (`of_run`). `start_here` queues it as any
other run; it waits until every device is free. `pack_up` makes the file to carry.
"""

from __future__ import annotations

import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import BadInput
from data.records import Model, Run
from data.words import count
from labeling import snapshots
from studio import run_launch
from studio.again import config_of, frozen_file, parent_of, train_rows
from studio.context import Studio, Viewer
from studio.rewards import with_reward_model
from studio.train_plan import TrainPlan
from studio.visitors import RunSize
from training import carry
from training.config import Method, TrainConfig, method_named, run_args, steps_of
from training.launch import Launch, check_method
from training.launch_files import Place, check_place
from training.methods import module_of

HERE = {"accelerate": "training.launch", "ray": "training.ray_job"}
NO_RAY = "Ray is not installed here; install it with `pip install -r requirements-scale.txt` and start the studio again."


class Prepared(NamedTuple):
    """A training run that has not been started: what it learns, from which frozen rows, over which model."""

    method: Method
    name: str
    config: TrainConfig
    parent: Model
    rows: Path
    data: dict[str, Any]
    snapshot_id: str
    train_rows: int


def of_run(studio: Studio, viewer: Viewer, run: Run) -> Prepared:
    """The same run once more: its settings, frozen rows and parent. BadInput where one of them is gone."""
    return Prepared(
        method_named(run.kind), run.name, config_of(run), parent_of(studio, viewer, run), frozen_file(studio, run),
        dict(run.config["data"]), run.snapshot_id, train_rows(studio, run),
    )  # fmt: skip


def of_plan(studio: Studio, viewer: Viewer, plan: TrainPlan, name: str) -> Prepared:
    """What the Train page's controls say, its rows frozen."""
    snapshot = plan.freeze(studio, studio.project(viewer))
    data = {"file": "data.parquet", "sha256": snapshot.sha256, "rows": snapshot.rows}
    rows, train = snapshots.file_of(studio.settings, snapshot), int(snapshot.manifest["rows"]["train"])
    return Prepared(plan.method, name, plan.config, plan.parent, rows, data, snapshot.snapshot_id, train)


def args_of(studio: Studio, prepared: Prepared) -> dict[str, Any]:
    """The `args` of its config.json."""
    parent = prepared.parent
    named = {"model_id": parent.model_id, "model_name": parent.name}
    return run_args(studio.keys.spec(parent), prepared.config) | named


def start_here(studio: Studio, viewer: Viewer, prepared: Prepared, launch: Launch) -> Run:
    """Queue it with several processes on this machine."""
    check_method(module_of(prepared.method), launch)
    if launch.kind not in HERE or launch.nodes > 1:
        raise BadInput("Only accelerate and Ray on one machine can be started from here; use the command or the file instead.")
    if launch.kind == "ray" and find_spec("ray") is None:
        raise BadInput(NO_RAY)
    most = len(studio.jobs.gpus) or max(2, os.cpu_count() or 1)
    if launch.devices > most:
        raise BadInput(
            f"This machine has {count(most, 'device')} to train on; choose that many at most, or carry the run to a bigger one."
        )
    return studio.start_run(
        viewer,
        prepared.method,
        HERE[launch.kind],
        prepared.name,
        {"args": args_of(studio, prepared) | {"launch": launch.to_json()}, "data": prepared.data},
        {str(prepared.data["file"]): prepared.rows},
        [prepared.parent],
        RunSize(steps=steps_of(prepared.config, prepared.train_rows)),
        prepared.snapshot_id,
    )


def pack_up(studio: Studio, viewer: Viewer, prepared: Prepared, place: Place, launch: Launch) -> Path:
    """The file to carry, in the export folder. Its config.json says where it belongs when it comes back."""
    check_place(place, launch)
    graded, _ = with_reward_model(studio, viewer, {"args": args_of(studio, prepared)}, ())
    config = {
        "run_id": uuid.uuid4().hex,
        "project_id": studio.project(viewer).project_id,
        "snapshot_id": prepared.snapshot_id,
        "kind": prepared.method,
        "name": prepared.name,
        "args": graded["args"],
        "data": prepared.data,
        "versions": run_launch.versions(),
        "git": run_launch.git(),
    }
    name = f"{place.slug}-{str(config['run_id'])[:8]}.tar.gz"
    return carry.pack(carry.Carried(config, prepared.rows), place, launch, studio.settings.export_dir / name)
