"""A trained adapter or model as a repository of the Hugging Face hub: `python -m data.hub_model RUN_DIR`.

    args   repository (owner/name), license (an id of the hub's list), private, folder (of safetensors, in this workspace)
    README.md   the card, in the run's folder

A run, because it needs the network and may take minutes. What goes up is chosen by name, safetensors and small JSON and text files,
so that nothing else in the folder is published; all of it goes as one commit. The card stays in the run's folder, so that without a
network nothing is lost. The token is huggingface_hub's own (HF_TOKEN, or `hf auth login`); it is neither stored nor shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RunError
from data.hub_push import check_target, explain, make_repository
from data.rundir import RunDir, run_child

PUBLISHED = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model"})
PRIVATE_FILES = frozenset({"studio.json", "training_args.json", "trainer_state.json"})


@dataclass(frozen=True)
class Wanted:
    """Where to push which folder; every part is checked before it reaches a library."""

    repository: str
    folder: str
    license: str = "other"
    private: bool = True


def read_args(args: Mapping[str, Any]) -> Wanted:
    """RunError for anything that is no name of a repository, no licence or no folder of weights."""
    try:
        wanted = Wanted(**args)
    except TypeError as error:
        raise RunError("The run does not say where to push; start it again from the Runs page.") from error
    check_target(wanted.repository, wanted.license, wanted.private, "model", "my-adapter", "Runs")
    if not files_of(Path(str(wanted.folder))):
        raise RunError("There are no weights to push; the run that made them may have been removed.")
    return wanted


def files_of(folder: Path) -> list[Path]:
    """What of the folder is published; nothing where it holds no safetensors."""
    if not folder.is_dir() or not any(folder.glob("*.safetensors")):
        return []
    wanted = (file for file in folder.iterdir() if file.is_file() and not file.is_symlink())
    return sorted(file for file in wanted if file.suffix in PUBLISHED and file.name not in PRIVATE_FILES)


def published(file: Path) -> str | bytes:
    """The file itself, or what stands for it: an adapter says where its base lies, which on this machine is nobody's business."""
    if file.name != "adapter_config.json":
        return str(file)
    described = json.loads(file.read_text(encoding="utf-8"))
    base = Path(str(described.get("base_model_name_or_path") or ""))
    if not base.is_absolute() and not str(base).startswith("~"):
        return str(file)
    described["base_model_name_or_path"] = base.name
    return (json.dumps(described, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def main(run: RunDir) -> dict[str, Any]:
    wanted = read_args(run.config().get("args", {}))
    card = run.path / "README.md"
    if not card.is_file():
        raise RunError("The run has no model card; start it again from the Runs page.")
    files = files_of(Path(wanted.folder))
    size = sum(file.stat().st_size for file in files)
    seen = "private" if wanted.private else "public"
    run.event("log", text=f"Pushing {len(files) + 1} files ({size / 1e6:.1f} MB) to {wanted.repository}, {seen}.")
    try:
        commit = _push(wanted, [*files, card])
    except RunError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        raise explain(error, wanted.repository) from error
    return {"repository": wanted.repository, "files": len(files) + 1, "bytes": size, "private": wanted.private, "commit": commit}


def _push(wanted: Wanted, files: list[Path]) -> str:
    from huggingface_hub import CommitOperationAdd

    from data import hub_client

    api = hub_client.api()
    make_repository(api, wanted.repository, "model", wanted.private)
    added = [CommitOperationAdd(file.name, published(file)) for file in files]
    return str(api.create_commit(wanted.repository, added, commit_message="Push from Alignment Studio", repo_type="model").oid)


if __name__ == "__main__":
    run_child(main)
