"""Fetch a model from the hub in a thread, with progress a page can ask for.

What is fetched is what loading needs (weights as safetensors, configuration, tokenizer), never code or pickles. The hub's
own cache holds it, so a download that was broken off keeps the files that are whole and fetches the others when it is asked for
again.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from data.errors import BadInput, StudioError
from studio.local_models import PATTERNS, check_folder, folder_of

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
UNREACHABLE = "The hub cannot be reached from here; copy the model's folder to this machine and give its path instead."
T = TypeVar("T")
log = logging.getLogger("studio.model_download")


@dataclass(frozen=True)
class Download:
    """`total` is 0 until it is known; `done` and `error` are final."""

    hub_id: str
    arrived: Callable[[], None]  # called once it is here
    total: int = 0
    folder: Path | None = None
    left: frozenset[str] = frozenset()  # parts of files that a process which was killed has left there: nothing goes on with them
    done: bool = False
    error: str = ""

    @property
    def fetched(self) -> int:
        """Bytes on the disk, those of files that are not whole yet included."""
        return sum(size for name, size in _blobs(self.folder).items() if name not in self.left)


class Downloads:
    """One at a time; a second one waits to be asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Download | None = None

    @property
    def now(self) -> Download | None:
        """The download that is going on, or the last one."""
        with self._lock:
            return self._now

    def start(self, hub_id: str, arrived: Callable[[], None]) -> Download:
        """BadInput when the name is none or another download is going on."""
        if not HUB_ID.fullmatch(hub_id):
            raise BadInput(f"{hub_id} is neither a folder on this machine nor a hub name like owner/model.")
        with self._lock:
            if self._now is not None and not self._now.done and not self._now.error:
                raise BadInput(f"{self._now.hub_id} is still being fetched; wait for it.")
            download = Download(hub_id, arrived)
            before, self._now = self._now, download
            try:
                threading.Thread(target=self._fetch, args=(download,), name="model-download", daemon=True).start()
            except RuntimeError as error:
                self._now = before  # else this one would be waited for, and never be over
                raise BadInput("There is no memory to fetch a model just now; free some and try again.") from error
            return download

    def _fetch(self, download: Download) -> None:
        try:
            total, folder = _size(download.hub_id)
            left = frozenset(name for name in _blobs(folder) if name.endswith(".incomplete"))
            download = replace(download, total=total, folder=folder, left=left)
            self._set(download)
            _snapshot(download.hub_id)
            check_folder(str(folder_of(download.hub_id)), download.hub_id)
            download.arrived()
            self._set(replace(download, done=True))
        except StudioError as error:
            self._set(replace(download, error=str(error)))
        except Exception as error:
            log.exception("fetching %s failed", download.hub_id)
            self._set(replace(download, error=f"Fetching {download.hub_id} failed ({type(error).__name__}); try again."))

    def _set(self, download: Download) -> None:
        with self._lock:
            self._now = download


def _blobs(folder: Path | None) -> dict[str, int]:
    """The sizes of the files in the cache folder of a model, by name; one may be moved away while it is looked at."""
    found = {}
    for file in (folder / "blobs").glob("*") if folder else ():
        with suppress(FileNotFoundError):
            found[file.name] = file.stat().st_size
    return found


def _size(hub_id: str) -> tuple[int, Path]:
    """Bytes to fetch and the cache folder they go to; BadInput in words for what the hub refuses."""
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    info = _ask(hub_id, lambda: HfApi().model_info(hub_id, files_metadata=True, timeout=20))
    wanted = [f for f in info.siblings or [] if any(fnmatch(f.rfilename, p) for p in PATTERNS)]
    if not any(f.rfilename.endswith(".safetensors") for f in wanted):
        raise BadInput(f"{hub_id} has no weights in safetensors; choose another model.")
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    return sum(f.size or 0 for f in wanted), folder


def _snapshot(hub_id: str) -> None:
    from huggingface_hub import snapshot_download

    from data import hub_client

    hub_client.limit_silence()
    broken = f"{hub_id} broke off while it was fetched; try again: the files that are whole are kept."
    _ask(hub_id, lambda: snapshot_download(hub_id, allow_patterns=PATTERNS), broken)


def _ask(hub_id: str, call: Callable[[], T], silent: str = UNREACHABLE) -> T:
    """`call()`, with what the hub and the network may raise turned into sentences; `silent` where nothing answers."""
    import httpx2
    from huggingface_hub import errors

    try:
        return call()
    except errors.GatedRepoError as error:
        raise BadInput(f"{hub_id} is gated: accept its terms on the hub and set HF_TOKEN before you start the app.") from error
    except errors.RepositoryNotFoundError as error:
        raise BadInput(f"The hub knows no model {hub_id} (or it is private); check the spelling.") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx2.TransportError, ConnectionError) as error:
        raise BadInput(silent) from error
    except errors.HfHubHTTPError as error:
        raise BadInput(f"The hub refused {hub_id}: {error}".splitlines()[0]) from error
    except OSError as error:
        raise BadInput(f"{hub_id} could not be stored ({error.strerror or error}); free some space and try again.") from error
