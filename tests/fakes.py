"""An engine whose words are known: for tests where the text must be exact and the weights do not matter.

    FakeEngine("Paris.")                                  # always this
    FakeEngine(["one", "two"])                            # in turn, then from the beginning
    FakeEngine(lambda request: request.messages[-1].content.upper())
    FakeEngine(labels=lambda request: {"A": -0.1, "B": -2.4})

A text that is an EngineError becomes an error result (`stream` raises it). What was asked is kept in `asked`, `asked_labels`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from data.engine import GenRequest, GenResult, LabelRequest, LabelResult, Message
from data.errors import EngineError

Said = str | EngineError
Texts = Said | Sequence[Said] | Callable[[GenRequest], Said]
Labels = Mapping[str, float] | Callable[[LabelRequest], Mapping[str, float] | str | EngineError]


class FakeEngine:
    """`labels`: log-probabilities by label (a missing one is -inf); a text instead = an engine that gives none. `pause` is called
    before each piece and may block, so that a test can hold a reply half-way. Not thread-safe, except `cancel`."""

    def __init__(self, texts: Texts = "ok", labels: Labels | None = None, pause: Callable[[], None] | None = None) -> None:
        self.texts = texts
        self.labels = labels or {}
        self.pause = pause or (lambda: None)
        self.asked: list[GenRequest] = []
        self.asked_labels: list[LabelRequest] = []
        self.closed = False
        self._cancelled = threading.Event()

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        self._cancelled.clear()
        for index, request in enumerate(requests):
            said = self._say(request)
            self.pause()
            if self._cancelled.is_set():
                yield GenResult(index, "", "cancelled")
            elif isinstance(said, EngineError):
                yield GenResult(index, "", "error", error=str(said))
            else:
                words = said.split(" ")
                cut = len(words) > request.max_new_tokens
                text = " ".join(words[: request.max_new_tokens])
                yield GenResult(index, text, "length" if cut else "stop", min(len(words), request.max_new_tokens))

    def stream(self, request: GenRequest) -> Iterator[str]:
        """Word by word."""
        self._cancelled.clear()
        said = self._say(request)
        if isinstance(said, EngineError):
            raise said
        for n, word in enumerate(said.split(" ")[: request.max_new_tokens]):
            self.pause()
            if self._cancelled.is_set():
                return
            yield word if n == 0 else f" {word}"

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        self._cancelled.clear()
        for index, request in enumerate(requests):
            self.asked_labels.append(request)
            found = self.labels(request) if callable(self.labels) else self.labels
            if self._cancelled.is_set():
                yield LabelResult(index, (), error="It was cancelled.")
            elif isinstance(found, EngineError):
                yield LabelResult(index, (), error=str(found))
            elif isinstance(found, str):
                yield LabelResult(index, (), found)
            else:
                odds = tuple(found.get(label, -math.inf) for label in request.labels)
                yield LabelResult(index, odds, request.labels[max(range(len(odds)), key=odds.__getitem__)])

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self.closed = True

    def _say(self, request: GenRequest) -> Said:
        self.asked.append(request)
        if callable(self.texts):
            return self.texts(request)
        if isinstance(self.texts, str | EngineError):
            return self.texts
        return self.texts[(len(self.asked) - 1) % len(self.texts)]
