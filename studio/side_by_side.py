"""Several models answer one prompt at the same time, as one stream.

Two Gradio events on one button run one after the other, so the streams are merged here: a thread each, one generator that
yields what all of them have written so far, at most twenty times a second. A model that fails says so in its own place; the
others go on.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from data.engine import GenRequest, Message, ModelSpec
from data.errors import EngineError, LimitReached, StudioError
from data.records import Model, Preference
from studio.context import Studio

PER_SECOND = 20
MAX_CHARACTERS = 100_000  # of one answer: a model that never ends must not fill the page
REMEMBERED = 500
log = logging.getLogger("studio.side_by_side")


class Column(NamedTuple):
    """One model's answer so far; `error` in words when it failed."""

    text: str
    done: bool
    error: str


@dataclass(frozen=True)
class Asked:
    """A prompt and who answers it, in the order shown (which is shuffled), kept by the server so that a vote can be blind.

    `named`: this browser has been told who wrote what. `whole`: every answer is written to its end. `voted`: what is stored.
    """

    owner: str
    project_id: str
    prompt: str
    request: GenRequest
    chosen: tuple[Model, ...]
    texts: tuple[str, ...] = ()
    named: bool = False
    whole: bool = False
    voted: Preference | None = None


class Memory:
    """The latest questions by a random token: the browser is told the token, never a model's name."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, asked: Asked) -> str:
        token = secrets.token_hex(16)
        with self._lock:
            self._asked[token] = asked
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        return token

    def get(self, token: str, owner: str, project_id: str) -> Asked:
        """LimitReached in words when it is not there or not theirs."""
        with self._lock:
            asked = self._asked.get(token)
        if asked is None or asked.owner != owner or asked.project_id != project_id:
            raise LimitReached("This question is too long ago; ask again.")
        return asked

    def answer(self, token: str, texts: Sequence[str], whole: bool = False) -> None:
        self._change(token, texts=tuple(texts), whole=whole)

    def name(self, token: str) -> None:
        """Remember, before the names go out, that from now on no vote on it is blind."""
        self._change(token, named=True)

    def vote(self, token: str, preference: Preference) -> None:
        """Remember the vote that is stored; it shows the names."""
        self._change(token, voted=preference, named=True)

    def _change(self, token: str, **fields: Any) -> None:
        with self._lock:
            if token in self._asked:
                self._asked[token] = replace(self._asked[token], **fields)


def streams(studio: Studio, asked: Asked) -> list[Callable[[], Iterator[str]]]:
    """What to call for each model's pieces of text."""
    return [_stream(studio, model, asked.request) for model in asked.chosen]


def _stream(studio: Studio, model: Model, request: GenRequest) -> Callable[[], Iterator[str]]:
    spec, key = ModelSpec.from_json(model.spec), studio.keys.of(model)
    return lambda: studio.inference.stream(spec, request, key)


def merge(sources: Sequence[Callable[[], Iterator[str]]], stop: threading.Event) -> Iterator[list[Column]]:
    """The columns so far, whenever one has grown, at most PER_SECOND times a second; ends when all are done.

    `stop` ends the reading; it is also set when the consumer goes away.
    """
    columns = [Column("", False, "") for _ in sources]
    changed = threading.Condition()
    fresh = True

    def put(index: int, column: Column) -> None:
        nonlocal fresh
        with changed:
            columns[index] = column
            fresh = True
            changed.notify()

    def read(index: int, source: Callable[[], Iterator[str]]) -> None:
        text, error = "", ""
        try:
            for piece in source():
                text += piece
                if len(text) > MAX_CHARACTERS:
                    error = f"It was cut after {MAX_CHARACTERS:,} characters."
                    break
                put(index, Column(text, False, ""))
                if stop.is_set():
                    break
        except StudioError as failed:
            error = str(failed)
        except BaseException:
            log.exception("a stream failed")
            error = str(EngineError("The model stopped in the middle; the app's log says why. Ask again."))
        finally:  # whatever it was: else its column would be waited for without end
            put(index, Column(text, True, error))

    def grown() -> bool:
        return fresh

    threads = [threading.Thread(target=read, args=(i, s), daemon=True) for i, s in enumerate(sources)]
    try:
        for thread in threads:
            thread.start()
        while True:
            with changed:
                changed.wait_for(grown)
                fresh, now = False, list(columns)
            yield now
            if all(column.done for column in now):
                return
            time.sleep(1 / PER_SECOND)
    finally:
        stop.set()


def ask(prompt: str, system: str, temperature: float, max_new_tokens: int, seed: int) -> GenRequest:
    """One request for all models."""
    messages = [Message("system", system)] if system.strip() else []
    return GenRequest((*messages, Message("user", prompt)), max_new_tokens, temperature, seed=seed)
