"""Copies of the runs that have ended, beside the journal's (`data/copies.py`), and how they come back.

    <place>/runs/<id>.json      the files of its folder and their bytes, written before the first of them
    <place>/runs/<id>/...       the folder without its checkpoints

Which run is there whole is never taken from a name: each of its files must be there with the bytes that it has here or, at the
start on an empty disk, with those that its list says. Of a run whose copy was cut off, what is whole comes back. Copies that were
made before there were lists come back as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data.copies_place import Content, Place
from data.settings import Settings

FILE = re.compile(r"runs/([0-9A-Za-z._-]+)/.+")
_LIST = re.compile(r"runs/([0-9A-Za-z._-]+)\.json")
TOGETHER = 16 * 1024 * 1024  # bytes of small runs that are put at once: the hub counts commits


class _Ended(NamedTuple):
    """A run to be copied: its list, then its files."""

    run_id: str
    files: dict[str, Content]
    bytes: int


def whole(settings: Settings, sizes: Mapping[str, int]) -> set[str]:
    """The runs of which every file that is here is there as well, as long as it is here."""
    there = {match[1] for name in sizes if (match := FILE.fullmatch(name))}
    return {run_id for run_id in there if all(sizes.get(name) == file.stat().st_size for name, file in _files(settings, run_id))}


def copying(settings: Settings, place: Place, ended: Sequence[str], known: set[str]) -> Iterator[None]:
    """Put those that are not known to be there, small ones together; `known` holds them as soon as they are. Pauses after each put,
    for what must not wait so long.

    One that has gone on since it was copied is no longer known when it has ended once more; nor is one whose files changed while
    they were copied. What a file keeps from being copied, unreadable or too long for the place, is told when the others are there.
    """
    known.intersection_update(ended)
    waiting: list[_Ended] = []
    problems: list[OSError] = []
    for run_id in [each for each in ended if each not in known]:
        waiting.append(_listed(settings, run_id))
        if sum(each.bytes for each in waiting) >= TOGETHER:
            problems += _put(settings, place, waiting, known)
            waiting.clear()
            yield
    if waiting:
        problems += _put(settings, place, waiting, known)
    if problems:
        raise problems[0]


def _put(settings: Settings, place: Place, waiting: Sequence[_Ended], known: set[str]) -> list[OSError]:
    """Together, or each alone where one of them keeps all from being put."""
    try:
        place.put({name: content for each in waiting for name, content in each.files.items()})
        known.update(each.run_id for each in waiting if _listed(settings, each.run_id) == each)
    except OSError as error:
        return [each for one in waiting for each in _put(settings, place, [one], known)] if len(waiting) > 1 else [error]
    return []


def _listed(settings: Settings, run_id: str) -> _Ended:
    files = dict(_files(settings, run_id))
    sizes = {name: file.stat().st_size for name, file in files.items()}
    listed = {_list_of(run_id): json.dumps(sizes).encode()} if files else {}
    return _Ended(run_id, {**listed, **files}, sum(sizes.values()))


def _list_of(run_id: str) -> str:
    return f"runs/{run_id}.json"


def _files(settings: Settings, run_id: str) -> Iterator[tuple[str, Path]]:
    root = settings.runs_dir / run_id
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f != "checkpoints")
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield f"runs/{run_id}/{file.relative_to(root).as_posix()}", file


# --- back ---------------------------------------------------------------------------------------------------------------------


def bring_back(place: Place, sizes: Mapping[str, int], to: Path) -> int:
    """Every run's files below `to`, but for those that were cut off or are of another time than its list; of how many runs
    something is missing."""
    found: dict[str, list[str]] = {match[1]: [] for name in sizes if (match := _LIST.fullmatch(name))}
    for name in sizes:
        if (match := FILE.fullmatch(name)) and ".." not in PurePosixPath(name).parts:
            found.setdefault(match[1], []).append(name)
    torn = 0
    for run_id, names in found.items():
        listed = _read_list(place, run_id, sizes)
        for name in names if listed is None else _fitting(listed, names, sizes):
            _fetch(place, name, to / name)
        torn += listed is not None and any(sizes.get(name) != size for name, size in listed.items())
    return torn


def _fetch(place: Place, name: str, target: Path) -> None:
    """There for good when it returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place.fetch(name, target)
    with target.open("rb") as f:
        os.fsync(f.fileno())


def _fitting(listed: Mapping[str, int], names: Collection[str], sizes: Mapping[str, int]) -> Iterator[str]:
    return (name for name in names if listed.get(name) == sizes[name])


def _read_list(place: Place, run_id: str, sizes: Mapping[str, int]) -> dict[str, int] | None:
    """None where there is none, what is called so is another's, or it was cut off itself: then nothing was written after it."""
    if _list_of(run_id) not in sizes:
        return None
    try:
        raw = json.loads(place.get(_list_of(run_id)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not all(_is_entry(run_id, name, size) for name, size in raw.items()):
        return None
    return raw


def _is_entry(run_id: str, name: str, size: object) -> bool:
    return name.startswith(f"runs/{run_id}/") and isinstance(size, int)
