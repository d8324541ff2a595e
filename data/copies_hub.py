"""Copies of the journal in a private data set of the Hugging Face hub, for a machine without a mounted bucket.

Every few seconds, as for a folder, while the hub's share of commits lasts (it takes 128 an hour); who labels without a pause is
then copied every 36 seconds. The token is the library's own (`HF_TOKEN` or a sign-in on this machine) and is never stored here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile

from data.copies_place import Content
from data.errors import WorkspaceError
from data.hub_client import api

PREFIX = "hf://datasets/"
EVERY_S = 5.0
SAVED, A_SHARE_S = 25.0, 36.0  # commits that may follow each other, and how soon there is one more: never above 125 in an hour
T = TypeVar("T")


class HubPlace:
    """`name` is hf://datasets/owner/name; it is made, private, when it is not there."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock, self._left, self._counted_at = clock, SAVED, clock()
        self._repo = name.removeprefix(PREFIX).strip("/")
        if self._repo.count("/") != 1:
            raise WorkspaceError(f"{name!r} is no data set; write hf://datasets/owner/name, or a folder.")
        self._api = api()

    @property
    def every_s(self) -> float:
        """Seconds until the next commit is within the hub's limit."""
        return max(EVERY_S, (1 - self._share()) * A_SHARE_S)

    def _share(self) -> float:
        """Commits that may be made now."""
        now = self._clock()
        self._left = min(SAVED, self._left + (now - self._counted_at) / A_SHARE_S)
        self._counted_at = now
        return self._left

    def sizes(self) -> dict[str, int]:
        def ask() -> dict[str, int]:
            self._api.create_repo(self._repo, repo_type="dataset", private=True, exist_ok=True)
            entries = self._api.list_repo_tree(self._repo, repo_type="dataset", recursive=True)
            return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}

        return self._in_words(ask)

    def put(self, files: Mapping[str, Content]) -> None:
        def add() -> None:
            added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
            self._commit(added, f"{len(added)} more")

        for content in files.values():
            if isinstance(content, Path):
                content.stat()  # OSError for one that has gone meanwhile, as with a folder: the place is not at fault
        if files:
            self._in_words(add)

    def get(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(name, target := Path(folder, "got"))
            return target.read_bytes()

    def fetch(self, name: str, target: Path) -> None:
        def download() -> None:
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # beside it: another disk might be too small
                Path(self._api.hf_hub_download(self._repo, name, repo_type="dataset", local_dir=folder)).replace(target)

        self._in_words(download)

    def remove(self, names: Iterable[str]) -> None:
        removed = [CommitOperationDelete(path_in_repo=name) for name in names]
        if removed:
            self._in_words(lambda: self._commit(removed, f"{len(removed)} merged"))

    def _commit(self, operations: Iterable[CommitOperationAdd | CommitOperationDelete], message: str) -> None:
        self._left = self._share() - 1
        self._api.create_commit(self._repo, list(operations), commit_message=message, repo_type="dataset")

    def _in_words(self, fn: Callable[[], T]) -> T:
        try:
            return fn()
        except Exception as error:  # the library passes on the errors of whatever HTTP client it uses; the sentence says which
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise WorkspaceError(f"{self.name} cannot be used ({reason}); check its name, HF_TOKEN and the network.") from error
