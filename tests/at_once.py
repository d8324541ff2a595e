"""Threads that begin at the same moment. One that cannot begin, or fails, ends the waiting of the others and fails the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


def at_once(works: Sequence[Callable[[], object]]) -> None:
    """Do all of it at the same time, each in a thread of its own; returns when all have ended."""
    together = threading.Barrier(len(works))
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            together.wait()
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # no memory for so many
        together.abort()
        raise
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
