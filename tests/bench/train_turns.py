"""Contenders of `make bench-train` take turns: one process each, one at work at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from tests.bench.train_contender import Contender, Turn, to_json


class Found(NamedTuple):
    """What a contender took: before the first step, and for each step; its losses as logged."""

    prepared: Turn
    steps: list[Turn]
    losses: list[float]

    @property
    def step_seconds(self) -> float:
        return sum(turn.seconds for turn in self.steps)

    @property
    def peak_mb(self) -> float:
        return self.steps[-1].peak_mb


def alternate(contenders: Sequence[Contender]) -> list[Found]:
    """All at the same pace: everybody's next step after everybody's last. SystemExit when one dies."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(contender)) for contender in contenders]
        prepared = [_turn(process, contender, "ready") for process, contender in zip(processes, contenders, strict=True)]
        steps: list[list[Turn]] = [[] for _ in contenders]
        for number in range(1, contenders[0].steps + 1):
            for process, contender, turns in zip(processes, contenders, steps, strict=True):
                turns.append(_turn(process, contender, f"step {number}/{contender.steps}"))
        losses = [_answer(process, contender)["losses"] for process, contender in zip(processes, contenders, strict=True)]
    for contender, values in zip(contenders, losses, strict=True):
        print(f"  {_name(contender)}: losses {values}", flush=True)
    return [Found(*found) for found in zip(prepared, steps, losses, strict=True)]


@contextmanager
def _process(contender: Contender) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.train_contender", to_json(contender)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _turn(process: subprocess.Popen[str], contender: Contender, what: str) -> Turn:
    assert process.stdin is not None
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except OSError:
        pass  # it has ended, which the answer's absence says better
    turn = Turn(**_answer(process, contender))
    took = f"{turn.seconds:.1f} s, {turn.cpu_seconds:.1f} s of the processor, {turn.peak_mb:.0f} MB"
    print(f"  {_name(contender)} {what}: {took}", flush=True)
    return turn


def _answer(process: subprocess.Popen[str], contender: Contender) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        code = process.wait()
        why = f"signal {-code}; was memory short?" if code < 0 else f"exit code {code}, see above"
        sys.exit(f"{_name(contender)} ended without a result ({why})")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _name(contender: Contender) -> str:
    return f"{contender.who}{' nf4' if contender.nf4 else ''} {contender.method}"
