"""How a run ended whose process said nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from data.rundir import RunDir
from studio.run_ending import ending_of


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (-signal.SIGKILL, "was killed by the system"),
        (-signal.SIGSEGV, "crashed (SIGSEGV)"),
        (-(signal.SIGRTMIN + 1), f"crashed (signal {signal.SIGRTMIN + 1})"),
        (0, "ended without a word"),
        (None, "ended without a word"),
    ],
)
def test_a_silent_end_is_told_by_the_exit_code(tmp_path: Path, code: int | None, says: str) -> None:
    run = RunDir.create(tmp_path / "run", {})
    run.event("status", status="running")
    found = ending_of(run, lambda: code)
    assert (found.status, says in found.error) == ("lost", True)
