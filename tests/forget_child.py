"""Forgets a person in a process of its own that dies at a chosen step, as a power cut would have it.

    python tests/forget_child.py HOME ANNOTATOR STEP

`STEP` counts what leaves a trace on the disk: commits, renames, deletions. Past the last one the child ends by itself and says
how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import forget
from data.database import Database
from data.journal import Journal
from data.settings import Settings

steps = 0


def counted(kind: Any, name: str, wanted: int) -> None:
    """Die before the `wanted`th of these calls."""
    real: Callable[..., Any] = getattr(kind, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        global steps
        steps += 1
        if steps == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(kind, name, call)


def main(home: str, annotator_id: str, wanted: str) -> None:
    db = Database(Settings(Path(home)))
    for kind, name in ((Path, "replace"), (Path, "unlink"), (Journal, "append"), (Journal, "drop_before_baseline")):
        counted(kind, name, int(wanted))
    forget.person(db, annotator_id)
    print(steps)
    os._exit(0)  # no orderly end: what is promised holds when `person` returns


if __name__ == "__main__":
    main(*sys.argv[1:])
