"""What a training run takes, counted so that no machine's load moves it: tokens that go through a model, and bytes held at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tokens:
    """A clock whose second is a token that a model embeds, to stand where `time` stands."""

    def __init__(self) -> None:
        self.seen = 0

    def monotonic(self) -> float:
        return float(self.seen)


@contextmanager
def counting_tokens() -> Iterator[Tokens]:
    """Tokens through every model inside, those of sampling one by one among them."""
    clock = Tokens()

    def count(module: torch.nn.Module, given: tuple[Any, ...], out: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Embedding):
            clock.seen += given[0].numel()

    handle = register_module_forward_hook(count)
    try:
        yield clock
    finally:
        handle.remove()


class Bytes(TorchDispatchMode):
    """The most bytes that tensors made or read inside have held at once, a loaded model's weights among them; each piece of memory
    counts once, until nobody holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves((made, args)):
            if isinstance(each, torch.Tensor):
                self._hold(each.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._held:
            return
        self._held.add(key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.now -= size
