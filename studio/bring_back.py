"""A run that was trained elsewhere comes back: its folder becomes a run of the project, its adapter a model with its lineage.

What the archive says of itself is not believed. The parent, the frozen rows and the project are looked up here by their ids and
must fit; of the files only weights as safetensors, plain text and JSON are taken, under names that are known, and no path in the
archive is used as one. Taking the same archive twice adds nothing.
"""

from __future__ import annotations

import errno
import json
import lzma
import shutil
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from data import runs
from data.errors import BadInput, NotFound, WorkspaceError
from data.model_folder import read_object
from data.records import Run, content_id, now
from data.rundir import RunDir
from labeling import snapshots
from studio import ingest, returned
from studio.context import Studio, Viewer
from studio.rewards import with_reward_model
from training.config import as_said_now, from_json, method_named, run_args
from training.export import mark_root, portable, weights_sha256
from training.methods import module_of

_WEIGHTS = {"adapter": ("adapter_config.json", "adapter_model.safetensors", "README.md")}
_WHOLE = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md")
MOST_TEXT = 64 * 2**20
MOST_FILES = 100_000
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_SPARE = 2**30  # bytes that are left free on the disk
_UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_taking = threading.Lock()  # two tabs may bring the same archive
NO_RUN = "This archive holds no run folder; make it with the line in the carried folder's README.txt."


class Member(NamedTuple):
    """A file in the archive, and how many bytes it says it is: no more are ever read of it. `entry` is the file itself, since what
    is asked for by name may be another that is called the same, such as a link to a longer one."""

    name: str
    size: int
    entry: tarfile.TarInfo | zipfile.ZipInfo


class Archive(NamedTuple):
    """Files by their path below the run folder, and how to open one."""

    files: Mapping[str, Member]
    source: tarfile.TarFile | zipfile.ZipFile

    def open(self, name: str) -> IO[bytes]:
        entry = self.files[name].entry
        if isinstance(self.source, zipfile.ZipFile):
            return self.source.open(entry)  # type: ignore[arg-type]
        found = self.source.extractfile(entry)  # type: ignore[arg-type]
        if found is None:
            raise BadInput(NO_RUN)
        return found

    def text(self, name: str) -> str:
        if self.files[name].size > MOST_TEXT:
            raise BadInput(f"{name} in this archive is too long to be that of a run.")
        with self.open(name) as f:
            return f.read(MOST_TEXT).decode("utf-8", "replace")


def bring_back(studio: Studio, viewer: Viewer, file: Path) -> Run:
    """The finished run, taken in. BadInput or NotFound in words where it does not belong to the open project or has not ended."""
    with _taking, _opened(file) as archive:
        config, events = _config(archive), _events(archive)
        said = [str(e.get("status")) for e in events if e.get("type") == "status"]
        result = next((e for e in reversed(events) if e.get("type") == "result"), None)
        if result is None or not said or said[-1] not in ("finished", "stopped"):
            raise BadInput("This run has not ended with something to keep there; bring it back when it has.")
        run = _row(studio, viewer, config, events, said[-1])
        known = _known(studio, run)
        if known is not None and known.result.get("model_id"):
            return known
        folder = studio.settings.runs_dir / run.run_id
        if known is None:
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was cut off
            try:
                _unpack(archive, events, RunDir.create(folder, run.config), studio, run)
                runs.add(studio.db, run)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        made = "model" if as_said_now(run.config["args"]["train"]).get("tuning") == "full" else "adapter"
        told = returned.result(result) | {made: made, f"{made}_sha256": weights_sha256(folder / made)}
        runs.update(studio.db, run.run_id, result=told | ingest.outputs(studio.db, studio.settings, run, run.status))
    return runs.get(studio.db, run.run_id)


def _known(studio: Studio, run: Run) -> Run | None:
    with suppress(NotFound):
        return runs.get(studio.db, run.run_id)
    return None


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
    args = run_args(studio.keys.spec(parent), from_json(method, args["train"]))
    frozen = {"file": "data.parquet", "sha256": snapshot.sha256, "rows": snapshot.rows}
    run_id = content_id("carried", str(config.get("run_id")), project.project_id)
    known = {"versions": returned.versions(config.get("versions")), "git": returned.git(config.get("git"))}
    name = " ".join(str(config.get("name", "")).split())[:200] or method
    named = {"run_id": run_id, "project_id": project.project_id, "kind": method, "module": module_of(method), "name": name}
    started, ended = _time(events[0]), _time(events[-1])
    return Run(
        run_id=run_id, project_id=project.project_id, owner=viewer.owner, kind=method, name=name, module=module_of(method),
        status=status,  # type: ignore[arg-type]
        device="elsewhere",
        config={
            **named, **known, "data": frozen, "carried": True,
            "args": _graded(studio, viewer, args | {"model_id": parent.model_id, "model_name": parent.name}),
        },
        snapshot_id=snapshot.snapshot_id, pid=0, pid_created=0.0, event_offset=0, progress={}, result={}, error="",
        queued_at=now(), started_at=started, ended_at=ended,
    )  # fmt: skip


def _graded(studio: Studio, viewer: Viewer, args: dict[str, Any]) -> dict[str, Any]:
    """With the reward model that graded, as it is known here; without it where it has been removed."""
    with suppress(NotFound):
        return dict(with_reward_model(studio, viewer, {"args": args}, ())[0]["args"])
    return args


def _unpack(archive: Archive, events: list[dict[str, Any]], run: RunDir, studio: Studio, row: Run) -> None:
    """Into the run's folder: what it said, the frozen rows as they are here, and the weights."""
    whole = as_said_now(row.config["args"]["train"]).get("tuning") == "full"
    wanted = [path for path in archive.files if _fits(path, whole)]
    if not any(path.endswith(".safetensors") for path in wanted):
        raise BadInput("This run folder holds no weights as safetensors, so there is nothing to bring back.")
    _check_room(run.path, sum(archive.files[path].size for path in wanted))
    (run.path / "events.jsonl").write_text(returned.lines(events), encoding="utf-8")
    if "stdout.log" in archive.files:
        (run.path / "stdout.log").write_text(archive.text("stdout.log"), encoding="utf-8")
    shutil.copyfile(snapshots.file_of(studio.settings, snapshots.get(studio.db, row.snapshot_id)), run.path / "data.parquet")
    (run.path / ("model" if whole else "adapter")).mkdir()
    for path in wanted:
        with archive.open(path) as source, (run.path / path).open("wb") as target:
            shutil.copyfileobj(source, target)
    folder, base = run.path / ("model" if whole else "adapter"), str(row.config["args"]["model"]["base"])
    described = _check_weights(folder)
    if whole:
        mark_root(folder, base)
    else:  # its base lay elsewhere there
        described["base_model_name_or_path"] = portable(base)
        (folder / "adapter_config.json").write_text(json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _fits(path: str, whole: bool) -> bool:
    """Whether a file of the archive is one of those that are taken."""
    folder, _, name = path.partition("/")
    return folder == "model" and "/" not in name and name.endswith(_WHOLE) if whole else name in _WEIGHTS.get(folder, ())


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free - _SPARE:
        raise BadInput(f"The weights in this archive take {size / 1e9:,.1f} GB, more than is free here; free some space first.")


def _check_weights(folder: Path) -> dict[str, Any]:
    """The weights' description. Whole files, before anything is listed as a model; whether they fit the base is seen when it is
    loaded."""
    from safetensors import SafetensorError, safe_open

    try:
        for file in folder.glob("*.safetensors"):
            with safe_open(str(file), framework="numpy") as tensors:
                if not list(tensors.keys()):
                    raise BadInput("The weights in this run folder are empty.")
        name = "config.json" if folder.name == "model" else "adapter_config.json"
        described = read_object(folder / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise BadInput("The weights in this run folder are damaged; make the archive again.") from error
    return described


def _config(archive: Archive) -> dict[str, Any]:
    try:
        config = json.loads(archive.text("config.json"))
    except (ValueError, RecursionError) as error:
        raise BadInput(NO_RUN) from error
    if not isinstance(config, dict):
        raise BadInput(NO_RUN)
    return config


def _events(archive: Archive) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in archive.text("events.jsonl").split("\n"):
        with suppress(ValueError, RecursionError):
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
                every = (Member(info.filename, info.file_size, info) for info in source.infolist() if not info.is_dir())
                yield Archive(_below(every), source)
        else:
            with tarfile.open(file, "r:*") as source:
                yield Archive(_below(Member(info.name, info.size, info) for info in source if info.isfile()), source)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise WorkspaceError(f"What came back cannot be stored ({error.strerror}); free some space and try again.") from error
        raise BadInput("This is no archive that can be read (.tar.gz or .zip); copy it again.") from error


def _below(members: Iterable[Member]) -> dict[str, Member]:
    """Files below the run folder by their paths: that of the one events.jsonl with a config.json beside it."""
    parts: dict[PurePosixPath, Member] = {}
    for member in members:
        parts[PurePosixPath(member.name)] = member
        if len(parts) > MOST_FILES:
            raise BadInput(NO_RUN)
    homes = [p.parent for p in parts if p.name == "events.jsonl" and p.parent / "config.json" in parts]
    if len(homes) != 1:
        raise BadInput(NO_RUN)
    return {p.relative_to(homes[0]).as_posix(): member for p, member in parts.items() if p.is_relative_to(homes[0])}


def _time(event: Mapping[str, Any]) -> datetime:
    """When it was said; now where that cannot be: the clock there may be wrong."""
    try:
        at = datetime.fromisoformat(str(event.get("at")))
    except ValueError:
        return now()
    return at if at.tzinfo and _EARLIEST <= at <= now() else now()
