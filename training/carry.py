"""A run as one file to carry to another machine: the run folder, the code that trains it, and how to start it there.

    <slug>/README.txt, requirements*.txt, data/, training/      the code, without the demo model's weights where they are not needed
    <slug>/runs/<slug>/config.json, data.parquet, parent/       the run; `parent` is the adapter that it goes on from
    <slug>/runs/<slug>/reward/                                  the adapter of the reward model that grades its answers
    <slug>/models/<name>/                                       its base, and the reward model's, where they are folders here
    <slug>/<slug>.sbatch, .yaml or job.sh                       what `training/launch_files.py` writes

Paths inside are relative to <slug>, where everything is run. What comes back is the run folder (`studio/bring_back.py`). Free of
torch.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import BadInput
from data.words import count
from training.export import ROOT, portable
from training.launch import Launch
from training.launch_files import Place, recipe

DEMO_MODEL = "data/demo/model"
MOST = 4 * 2**30  # bytes of bases that are carried along
_CODE = frozenset({".py", ".yaml", ".sql", ".json", ".jsonl", ".jinja", ".md"})
_FILES = ("LICENSE", "requirements.txt", "requirements-scale.txt")


class Carried(NamedTuple):
    """What goes along: the run's config.json and frozen rows."""

    config: Mapping[str, Any]
    rows: Path


def pack(carried: Carried, place: Place, launch: Launch, target: Path) -> Path:
    """Write the archive `target` (.tar.gz); a file of that name is replaced once the new one is whole."""
    made = recipe(place, launch)
    folders: dict[str, Path] = {}
    args = {name: value for name, value in carried.config["args"].items() if name != "launch"}
    args["model"] = _along(args["model"], f"{place.run_dir}/parent", folders)
    if args.get("reward_model"):
        args["reward_model"] = _along(args["reward_model"], f"{place.run_dir}/reward", folders)
    _check_weights(folders.values())
    _check_size(folder for name, folder in folders.items() if not name.startswith(place.run_dir))
    config = {**carried.config, "module": place.module, "args": args}
    texts = {f"{place.run_dir}/config.json": json.dumps(config, ensure_ascii=False, indent=2), "README.txt": _readme(place, launch)}
    if made.name:
        texts[made.name] = made.text
    part = target.with_name(f".{target.name}.part")
    try:
        with tarfile.open(part, "w:gz", compresslevel=1) as archive:
            for name, text in texts.items():
                _add_text(archive, f"{place.slug}/{name}", text)
            archive.add(carried.rows, f"{place.slug}/{place.run_dir}/{config['data']['file']}", filter=_plain)
            for name, file in _code():
                archive.add(file, f"{place.slug}/{name}", filter=_plain)
            for name, folder in folders.items():
                for file in _files(folder):
                    archive.add(file.resolve(), f"{place.slug}/{name}/{file.relative_to(folder).as_posix()}", filter=_plain)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # a full disk must not be kept full
    return target


def _along(spec: Mapping[str, Any], adapter_to: str, folders: dict[str, Path]) -> dict[str, Any]:
    """The model as it is named there; what of it lies here is added to `folders`, by its path there."""
    base, adapter = portable(str(spec["base"])), str(spec.get("adapter") or "")
    if adapter:
        folders[adapter_to] = Path(adapter)
    if (ROOT / base).is_dir() and not Path(base).is_absolute():
        folders[base] = ROOT / base
    elif (here := Path(base).expanduser()).is_dir():
        base = _name_of(here.resolve(), folders)
        folders[base] = here.resolve()
    return {**spec, "base": base, "adapter": adapter_to if adapter else ""}


def _name_of(folder: Path, folders: Mapping[str, Path]) -> str:
    """Where a base goes; two that are called alike are kept apart."""
    name = f"models/{folder.name if folder.name != 'model' else folder.parent.name}"
    while folders.get(name, folder) != folder:
        name += "-2"
    return name


def _check_weights(folders: Iterable[Path]) -> None:
    """Pickled weights stay behind, and a run without weights would fail there."""
    for folder in folders:
        if not any(file.suffix == ".safetensors" for file in _files(folder)):
            name = folder.name if folder.name not in ("adapter", "model") else folder.parent.name
            raise BadInput(f"{name} holds no weights as safetensors, which alone are carried; convert or train that model again.")


def _check_size(bases: Iterable[Path]) -> None:
    size = sum(file.stat().st_size for base in bases for file in _files(base))
    if size > MOST:
        raise BadInput(
            f"The base is {size / 2**30:.0f} GB in folders here, with that of a reward model if one grades: too much to carry; "
            "put it on the hub and train from there."
        )


def _code() -> Iterator[tuple[str, Path]]:
    for name in _FILES:
        if (ROOT / name).is_file():
            yield name, ROOT / name
    for package in ("data", "training"):
        for file in sorted((ROOT / package).rglob("*")):
            name = file.relative_to(ROOT).as_posix()
            if file.is_file() and file.suffix in _CODE and not name.startswith(DEMO_MODEL):
                yield name, file


def _files(folder: Path) -> list[Path]:
    """Weights as safetensors, and what describes them."""
    wanted = _CODE - {".py"} | {".safetensors", ".txt", ".model"}
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix in wanted)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    raw = text.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(raw), 0o644, int(time.time())
    archive.addfile(info, io.BytesIO(raw))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who owns a file here is nobody's business there."""
    info.uid, info.gid, info.uname, info.gname, info.mode = 0, 0, "", "", 0o644
    return info


def _readme(place: Place, launch: Launch) -> str:
    made = recipe(place, launch)
    extra = " -r requirements-scale.txt" if launch.kind == "ray" or launch.preset.startswith("zero") else ""
    install = f"python -m pip install -r requirements.txt{extra}\n" if launch.kind in ("accelerate", "ray") else ""
    return f"""A training run of Alignment Studio, to be run on {count(launch.processes, "device")}. In this folder:

{install}{made.commands}

`touch {place.run_dir}/stop` makes it save what it has and end within a step. When it has ended:

tar czf {place.slug}-back.tar.gz -C runs {place.slug}

and give that file to "Bring it back" on the Runs page.
"""
