"""A run that was trained elsewhere comes back: its folder becomes a run of the project, its adapter a model with its lineage.

What the archive says of itself is not believed. The parent, the frozen rows and the project are looked up here by their ids and
must fit; of the files only weights as safetensors, plain text and JSON are taken, under names that are known, and no path in the
archive is used as one. Taking the same archive twice adds nothing.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from data import runs
from data.errors import BadInput, NotFound
from data.records import Run, content_id, now
from data.rundir import RunDir
from labeling import snapshots
from studio import ingest
from studio.context import Studio, Viewer
from training.config import from_json, method_named, run_args
from training.methods import module_of

_TEXTS = ("events.jsonl", "stdout.log")
_WEIGHTS = {"adapter": ("adapter_config.json", "adapter_model.safetensors", "README.md")}
_WHOLE = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md")
MOST_TEXT = 64 * 2**20
NO_RUN = "This archive holds no run folder; make it with the line in the carried folder's README.txt."


class Archive(NamedTuple):
    """Files by their path below the run folder, and how to open one."""

    files: Mapping[str, str]
    source: tarfile.TarFile | zipfile.ZipFile

    def open(self, name: str) -> IO[bytes]:
        if isinstance(self.source, zipfile.ZipFile):
            return self.source.open(self.files[name])
        found = self.source.extractfile(self.files[name])
        if found is None:
            raise BadInput(NO_RUN)
        return found

    def text(self, name: str) -> str:
        with self.open(name) as f:
            return f.read(MOST_TEXT).decode("utf-8", "replace")


def bring_back(studio: Studio, viewer: Viewer, file: Path) -> Run:
    """The finished run, taken in. BadInput or NotFound in words where it does not belong to the open project or has not ended."""
    with _opened(file) as archive:
        config, events = _config(archive), _events(archive)
        said = [str(e.get("status")) for e in events if e.get("type") == "status"]
        result = next((e for e in reversed(events) if e.get("type") == "result"), None)
        if result is None or not said or said[-1] not in ("finished", "stopped"):
            raise BadInput("This run has not ended with something to keep there; bring it back when it has.")
        run = _row(studio, viewer, config, events, said[-1])
        with suppress(NotFound):
            return runs.get(studio.db, run.run_id)
        folder = studio.settings.runs_dir / run.run_id
        try:
            _unpack(archive, RunDir.create(folder, run.config), studio, run)
            runs.add(studio.db, run)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    told = {key: value for key, value in result.items() if key not in ("type", "at")}
    runs.update(studio.db, run.run_id, result=told)
    run = runs.get(studio.db, run.run_id)
    runs.update(studio.db, run.run_id, result={**run.result, **ingest.outputs(studio.db, studio.settings, run, run.status)})
    return runs.get(studio.db, run.run_id)


def _row(studio: Studio, viewer: Viewer, config: Mapping[str, Any], events: list[dict[str, Any]], status: str) -> Run:
    """The run as this studio would have written it, from what is known here."""
    project, args, data = studio.project(viewer), config.get("args"), config.get("data")
    if config.get("project_id") != project.project_id:
        raise BadInput("This run belongs to another project; open that one and bring it back there.")
    if not isinstance(args, dict) or not isinstance(data, dict) or not isinstance(args.get("train"), dict):
        raise BadInput(NO_RUN)
    method = method_named(str(config.get("kind")))
    snapshot = snapshots.get(studio.db, str(config.get("snapshot_id")))
    if snapshot.project_id != project.project_id or snapshot.sha256 != data.get("sha256"):
        raise BadInput("The rows that this run learned from are not those that were frozen here; carry it anew.")
    parent = studio.model(viewer, str(args.get("model_id")))
    train = from_json(method, args["train"])
    frozen = {"file": "data.parquet", "sha256": snapshot.sha256, "rows": snapshot.rows}
    run_id = content_id("carried", str(config.get("run_id")), project.project_id)
    known = {name: config[name] for name in ("versions", "git") if isinstance(config.get(name), dict)}
    name = " ".join(str(config.get("name", "")).split())[:200] or method
    named = {"run_id": run_id, "project_id": project.project_id, "kind": method, "module": module_of(method), "name": name}
    started, ended = _time(events[0]), _time(events[-1])
    return Run(
        run_id=run_id, project_id=project.project_id, owner=viewer.owner, kind=method, name=name, module=module_of(method),
        status=status,  # type: ignore[arg-type]
        device="elsewhere",
        config={
            **named, **known, "data": frozen, "carried": True,
            "args": run_args(studio.keys.spec(parent), train) | {"model_id": parent.model_id, "model_name": parent.name},
        },
        snapshot_id=snapshot.snapshot_id, pid=0, pid_created=0.0, event_offset=0, progress={}, result={}, error="",
        queued_at=now(), started_at=started, ended_at=ended,
    )  # fmt: skip


def _unpack(archive: Archive, run: RunDir, studio: Studio, row: Run) -> None:
    """Into the run's folder: what it said, the frozen rows as they are here, and the weights."""
    for name in _TEXTS:
        if name in archive.files:
            (run.path / name).write_text(archive.text(name), encoding="utf-8")
    shutil.copyfile(snapshots.file_of(studio.settings, snapshots.get(studio.db, row.snapshot_id)), run.path / "data.parquet")
    whole = row.config["args"]["train"]["tuning"] == "full"
    kept = 0
    for path in archive.files:
        folder, _, name = path.partition("/")
        fits = folder == "model" and "/" not in name and name.endswith(_WHOLE) if whole else name in _WEIGHTS.get(folder, ())
        if fits:
            (run.path / folder).mkdir(exist_ok=True)
            with archive.open(path) as source, (run.path / folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            kept += name.endswith(".safetensors")
    if not kept:
        raise BadInput("This run folder holds no weights as safetensors, so there is nothing to bring back.")
    _check_weights(run.path / ("model" if whole else "adapter"))


def _check_weights(folder: Path) -> None:
    """Whole files, before anything is listed as a model; whether they fit the base is seen when it is loaded."""
    from safetensors import SafetensorError, safe_open

    try:
        for file in folder.glob("*.safetensors"):
            with safe_open(str(file), framework="numpy") as tensors:
                if not list(tensors.keys()):
                    raise BadInput("The weights in this run folder are empty.")
        name = "config.json" if folder.name == "model" else "adapter_config.json"
        json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise BadInput("The weights in this run folder are damaged; make the archive again.") from error


def _config(archive: Archive) -> dict[str, Any]:
    try:
        config = json.loads(archive.text("config.json"))
    except ValueError as error:
        raise BadInput(NO_RUN) from error
    if not isinstance(config, dict):
        raise BadInput(NO_RUN)
    return config


def _events(archive: Archive) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in archive.text("events.jsonl").splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                found.append(event)
    return found or [{}]


@contextmanager
def _opened(file: Path) -> Iterator[Archive]:
    """The one run folder inside, wherever in the archive it lies; BadInput where there is none."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as source:
                names = [info.filename for info in source.infolist() if not info.is_dir()]
                yield Archive(_below(names), source)
        else:
            with tarfile.open(file, "r:*") as source:
                yield Archive(_below([info.name for info in source if info.isfile()]), source)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise BadInput("This is no archive that can be read (.tar.gz or .zip); copy it again.") from error


def _below(names: list[str]) -> dict[str, str]:
    """Paths below the run folder -> names in the archive: that of the one events.jsonl with a config.json beside it."""
    parts = {PurePosixPath(name): name for name in names}
    homes = [p.parent for p in parts if p.name == "events.jsonl" and p.parent / "config.json" in parts]
    if len(homes) != 1:
        raise BadInput(NO_RUN)
    return {p.relative_to(homes[0]).as_posix(): name for p, name in parts.items() if p.is_relative_to(homes[0])}


def _time(event: Mapping[str, Any]) -> datetime:
    try:
        at = datetime.fromisoformat(str(event.get("at")))
    except ValueError:
        return now()
    return at if at.tzinfo else now()
