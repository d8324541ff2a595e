"""The one thread that writes: it gathers what is waiting into one transaction, so that 50 annotators cost one fsync, not 50.

A piece of work is a function over a list of items. Works that wait side by side with the same `merge` key are run as one call
with all their items (one SQL statement for 200 labels instead of 200), others one by one, in the order in which they came. If
anything in a batch raises, the batch is rolled back and every work is tried again alone: only the one that fails gets the
exception. So a work's function may run twice and must do nothing but use its cursor. Whatever is raised, nobody waits for ever:
should the thread itself end (no memory left), whoever waits is told so, and whoever comes later.

A commit costs the same for one label as for fifty, and those who were just acknowledged are about to write again. So after a
commit with several works the next batch waits until as many have come, at most for half as long as that commit took (and never
more than 10 ms): a crowd is served in full batches, one person never waits."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from data.errors import WorkspaceError

MAX_BATCH = 256
MAX_PATIENCE_S = 0.01
log = logging.getLogger(__name__)


@dataclass
class Work:
    """`run(cursor, items)` returns one outcome per item, in order; an outcome that is an exception goes to that item's caller
    alone.

    `alone` work is called without a transaction, with no cursor (None): restore and backup.
    """

    run: Callable[[Any, list[Any]], Sequence[Any]]
    item: Any = None
    merge: Hashable = None
    alone: bool = False
    future: Future[Any] = field(default_factory=Future)


Commit = Callable[[Callable[[Any], list[Any]]], list[Any]]  # runs the function in a transaction; raises when nothing was stored


class Writer:
    """`commit(body)` is the database's: begin, `body(cursor)`, journal, commit; it raises when nothing was stored."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._crowd = 1  # works to expect: those of the last batch and those that came meanwhile
        self._patience_s = 0.0
        self._thread = threading.Thread(target=self._loop, name="studio-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise WorkspaceError("The workspace is closed; start the studio again.")
            self._queue.put(work)
        return work.future

    def wait(self, work: Work) -> Any:
        if self.is_me():
            raise RuntimeError("a write from inside a write or an on_commit callback would wait for itself")
        return self.submit(work).result()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def is_me(self) -> bool:
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """What was submitted before is still written."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        batch: list[Work] = []
        going_on = True
        try:
            while going_on:
                batch.clear()
                going_on = self._take(batch)
                for alone, works in groupby(batch, key=lambda w: w.alone):
                    if alone:
                        for work in works:
                            self._run_alone(work)
                    else:
                        self._run(list(works))
        except BaseException:
            log.exception("the writer has ended")
            self._give_up(batch)

    def _take(self, batch: list[Work]) -> bool:
        """Put what waits into the empty batch; False when nothing comes after it."""
        work = self._queue.get()
        until = time.monotonic() + self._patience_s
        while work is not None:
            batch.append(work)
            if len(batch) >= MAX_BATCH:
                return True
            try:
                work = self._queue.get(timeout=max(0.0, until - time.monotonic()) if len(batch) < self._crowd else 0)
            except queue.Empty:
                return True
        return False

    def _give_up(self, batch: list[Work]) -> None:
        with self._lock:
            self._closed = True
        while not self._queue.empty():
            batch += [work] if (work := self._queue.get()) is not None else []
        for work in batch:
            if not work.future.done():
                work.future.set_exception(WorkspaceError("The workspace can no longer be written to; start the studio again."))

    def _run(self, works: list[Work]) -> None:
        works = [w for w in works if w.future.set_running_or_notify_cancel()]
        if not works:
            return
        started = time.monotonic()
        try:
            outcomes = self._commit(lambda cursor: _call(cursor, works))
        except BaseException as error:  # an exit, too, is its caller's and not this thread's
            if len(works) == 1:
                works[0].future.set_exception(error)
                return
            outcomes = [self._retry(work) for work in works]
        self._patience_s = min((time.monotonic() - started) / 2, MAX_PATIENCE_S)
        self._crowd = min(len(works) + self._queue.qsize(), MAX_BATCH)
        for work, outcome in zip(works, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                work.future.set_exception(outcome)
            else:
                work.future.set_result(outcome)

    def _retry(self, work: Work) -> Any:
        try:
            return self._commit(lambda cursor: _call(cursor, [work]))[0]
        except BaseException as error:
            return error

    def _run_alone(self, work: Work) -> None:
        if not work.future.set_running_or_notify_cancel():
            return
        try:
            work.future.set_result(work.run(None, [work.item])[0])
        except BaseException as error:
            work.future.set_exception(error)


def _call(cursor: Any, works: Sequence[Work]) -> list[Any]:
    """Run works side by side with the same key as one call; the outcomes in the works' order."""
    outcomes: list[Any] = []
    for key, group in groupby(works, key=lambda w: w.merge or id(w)):
        together = list(group)
        got = list(together[0].run(cursor, [w.item for w in together]))
        if len(got) != len(together):
            raise RuntimeError(f"{key} gave {len(got)} outcomes for {len(together)} items")
        outcomes += got
    return outcomes
