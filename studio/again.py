"""A training run once more, as a new run or by going on where it ended.

`start_again`: the same frozen rows, parent, method and seed, with no setting changed or with a few. It is behind "Run again with a
change", behind every run of a grid and behind Reproduce. The rows are the very file of the first run, its sha256 checked: the
labels may be others by now, and then two runs would differ in more than was meant. `go_on` is the run itself: its folder, its id,
its curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data import models
from data.errors import BadInput, NotFound, RunError
from data.records import Model, Run
from data.resume import Checkpoint, newest
from data.rundir import RunDir
from labeling import snapshots
from studio.context import Studio, Viewer
from studio.visitors import RunSize
from training.config import TrainConfig, from_json, steps_of
from training.methods import is_training

NO_TRAINING = "Only a training run can be run again; choose one on the Runs page."


def config_of(run: Run, changes: Mapping[str, Any] = {}) -> TrainConfig:
    """The run's settings with `changes` made; BadInput names a setting that its method does not have or a value it cannot be."""
    train = _train(run)
    return from_json(run.kind, {**train, **changes})


def start_again(
    studio: Studio, viewer: Viewer, run: Run, changes: Mapping[str, Any] = {}, name: str = "", group_id: str = ""
) -> Run:
    """Queue `run` once more with `changes` to its settings. Its config says of which run it is a repetition (`again_of`) and what
    was changed (`changes`).

    BadInput when it was no training run, when its frozen rows are gone or changed, or when the model it began with was removed.
    """
    config = config_of(run, changes)
    file, args, data = frozen_file(studio, run), dict(run.config["args"]), dict(run.config["data"])
    parent = parent_of(studio, viewer, run)
    args |= {"model": studio.keys.spec(parent).to_json(), "train": config.to_json()}
    before = config_of(run).to_json()
    changed = {knob: value for knob, value in config.to_json().items() if value != before[knob]}
    return studio.start_run(
        viewer,
        run.kind,
        run.module,
        name or run.name,
        {"args": args, "data": data, "again_of": run.run_id, "changes": changed},
        {str(data["file"]): file},
        [parent],
        RunSize(steps=steps_of(config, train_rows(studio, run))),
        run.snapshot_id,
        group_id,
    )


def frozen_file(studio: Studio, run: Run) -> Path:
    """The file the run learned from: its own copy or, where that is gone, the snapshot's. BadInput when neither is as it was."""
    data = run.config.get("data") or {}
    own = RunDir(studio.settings.runs_dir / run.run_id)
    try:
        return own.check_data(str(data["file"]), str(data["sha256"]))
    except KeyError as error:
        raise BadInput(NO_TRAINING) from error
    except RunError as error:
        if not run.snapshot_id:
            raise BadInput("The rows that this run learned from are gone; start a new run on the Train page.") from error
    snapshot = snapshots.get(studio.db, run.snapshot_id)
    if snapshot.sha256 != data["sha256"]:
        raise BadInput("The snapshot is not the one that this run learned from; start a new run on the Train page.")
    return snapshots.file_of(studio.settings, snapshot)


def parent_of(studio: Studio, viewer: Viewer, run: Run) -> Model:
    """The model that the run began with; BadInput when it is not to be chosen any more."""
    model_id = str(run.config["args"].get("model_id", ""))
    try:
        return studio.model(viewer, model_id)
    except NotFound as error:
        name = models.get(studio.db, model_id).name if model_id else str(run.config["args"]["model"].get("base", ""))
        raise BadInput(f"{name}, the model this run began with, was removed; start a new run on the Train page.") from error


def train_rows(studio: Studio, run: Run) -> int:
    """How many rows the run trains on, as far as is known: those of its snapshot, or all of the file's."""
    if run.snapshot_id:
        try:
            return int(snapshots.get(studio.db, run.snapshot_id).manifest["rows"]["train"])
        except (NotFound, KeyError):
            pass
    return int((run.config.get("data") or {}).get("rows") or 0)


def _train(run: Run) -> dict[str, Any]:
    args = run.config.get("args") or {}
    if not isinstance(args.get("train"), dict) or not isinstance(args.get("model"), dict):
        raise BadInput(NO_TRAINING)
    return dict(args["train"])


def checkpoint_of(studio: Studio, run: Run) -> Checkpoint | None:
    """Where a training run that has not finished would go on, None where it cannot."""
    if not is_training(run.kind) or run.status not in ("stopped", "failed", "lost"):
        return None
    return newest(studio.settings.runs_dir / run.run_id)


def go_on(studio: Studio, viewer: Viewer, run: Run) -> None:
    """Queue the run itself again: in its own folder, from its newest checkpoint, its curve going on where it ended.

    BadInput when there is no checkpoint, or when the model it left at its stop is in use: its weights would change under what was
    measured with them, or trained on top of them.
    """
    if checkpoint_of(studio, run) is None:
        raise BadInput("This run has no checkpoint to go on from; run it again instead.")
    with studio.visitors.starting:  # nothing is trained on top of it meanwhile
        if _is_used(studio, run):
            raise BadInput(
                "The model that this run left when it stopped has been used, and going on would change its weights; train on from "
                "it, or run it again."
            )
        studio.visitors.check_run(studio.project(viewer), [], RunSize())
        studio.jobs.resume(run.run_id)


def _is_used(studio: Studio, run: Run) -> bool:
    """Whether anything was written, compared or trained with what the run left."""
    sql = """select 1 from models m where m.run_id = $run and (
                 exists (select 1 from completions c where c.model_id = m.model_id)
                 or exists (select 1 from models child where child.parent_model_id = m.model_id)
                 or exists (select 1 from runs r where r.run_id != $run and contains(r.config, m.model_id)))"""
    return studio.db.row(sql, {"run": run.run_id}) is not None
