"""What is known of a model's files without loading them: where they are, how many parameters, how far a download is.

Nothing here imports torch or transformers; `huggingface_hub` does the fetching, in a thread of its own, file by file.
"""

from __future__ import annotations

from pathlib import Path

from data.errors import BadInput
from data.model_folder import read_object

WEIGHTS = ("*.safetensors", "*.bin")
# What is fetched of a hub model, and so what must be there of one that was: never code or pickles.
PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]


def folder_of(base: str) -> Path | None:
    """The folder of a local model, or of a hub model that has been downloaded whole; None when it is neither."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True, allow_patterns=PATTERNS))
    except (LocalEntryNotFoundError, HFValidationError, ValueError):
        return None


def base_name(where: str) -> str:
    """How a spec names it: the whole path of a folder, a hub model by its name."""
    folder = Path(where).expanduser()
    return str(folder.resolve()) if folder.is_dir() else where


def parameters_of(base: str) -> int:
    """About how many parameters, from the size of the weight files (two bytes each); 0 when it is not here."""
    folder = folder_of(base) if base else None
    if folder is None:
        return 0
    for pattern in WEIGHTS:
        size = sum(file.stat().st_size for file in folder.glob(pattern))
        if size:
            return size // 2
    return 0


def check_folder(path: str, name: str = "") -> Path:
    """A folder that holds a model this app can open; BadInput says what is missing. `name`: what a person knows it by, else the
    folder's own."""
    folder = Path(path).expanduser()
    name = name or folder.name
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}; give the folder that holds the model's config.json.")
    if (folder / "adapter_config.json").is_file():
        raise BadInput(f"{name} is an adapter, not a whole model; add the base it belongs to.")
    config = folder / "config.json"
    if not config.is_file():
        raise BadInput(f"{name} holds no config.json; give the folder that does.")
    try:
        read_object(config)
    except (OSError, ValueError) as error:
        raise BadInput(f"{name}/config.json is damaged; copy the model again.") from error
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        raise BadInput(f"{name} holds no weights (*.safetensors); copy the whole model.")
    if not _has_chat_template(folder):
        raise BadInput(f"{name} has no chat template, so it cannot be asked as a chat model; take its instruct version.")
    return folder.resolve()


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        return bool(read_object(folder / "tokenizer_config.json").get("chat_template"))
    except (OSError, ValueError):
        return False
