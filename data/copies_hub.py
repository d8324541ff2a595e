"""Copies of the journal in a private data set of the Hugging Face hub, for a machine without a mounted bucket.

The hub counts commits, so this place is brought level once a minute, not every few seconds. The token is the library's own
(`HF_TOKEN` or a sign-in on this machine) and is never stored here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import RepoFile

from data.errors import WorkspaceError

PREFIX = "hf://datasets/"
T = TypeVar("T")


class HubPlace:
    """`name` is hf://datasets/owner/name; it is made, private, when it is not there."""

    every_s = 60.0

    def __init__(self, name: str) -> None:
        self.name = name
        self._repo = name.removeprefix(PREFIX).strip("/")
        if self._repo.count("/") != 1:
            raise WorkspaceError(f"{name!r} is no data set; write hf://datasets/owner/name, or a folder.")
        self._api = HfApi()

    def sizes(self) -> dict[str, int]:
        def ask() -> dict[str, int]:
            self._api.create_repo(self._repo, repo_type="dataset", private=True, exist_ok=True)
            entries = self._api.list_repo_tree(self._repo, repo_type="dataset", recursive=True)
            return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}

        return self._in_words(ask)

    def put(self, files: Mapping[str, bytes]) -> None:
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        if added:
            self._in_words(lambda: self._commit(added, f"{len(added)} more"))

    def get(self, name: str) -> bytes:
        def fetch() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                return Path(self._api.hf_hub_download(self._repo, name, repo_type="dataset", local_dir=folder)).read_bytes()

        return self._in_words(fetch)

    def remove(self, names: Iterable[str]) -> None:
        removed = [CommitOperationDelete(path_in_repo=name) for name in names]
        if removed:
            self._in_words(lambda: self._commit(removed, f"{len(removed)} merged"))

    def _commit(self, operations: Iterable[CommitOperationAdd | CommitOperationDelete], message: str) -> None:
        self._api.create_commit(self._repo, list(operations), commit_message=message, repo_type="dataset")

    def _in_words(self, fn: Callable[[], T]) -> T:
        try:
            return fn()
        except Exception as error:  # the library passes on the errors of whatever HTTP client it uses; the sentence says which
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise WorkspaceError(f"{self.name} cannot be used ({reason}); check its name, HF_TOKEN and the network.") from error
