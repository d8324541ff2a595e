"""What a generation is asked to do, and what of it is done: its arguments, its prompts, and the answers an earlier start wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from data.engine import Message, ModelSpec
from data.errors import RunError
from data.records import Prompt
from data.rundir import RunDir


@dataclass(frozen=True)
class GenerateArgs:
    """The run's arguments; `labeling/generate.py` says what each is."""

    model: ModelSpec
    model_name: str
    model_id: str = ""
    n: int = 4
    temperature: float = 0.8
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int | None = None
    system: str = ""

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> GenerateArgs:
        """RunError in words for what cannot be run."""
        try:
            args = GenerateArgs(**{**raw, "model": ModelSpec.from_json(raw["model"])})
            sound = args.n >= 1 and args.max_new_tokens >= 1 and args.temperature >= 0 and 0 < args.top_p <= 1
        except (TypeError, KeyError) as error:
            raise RunError("The run's settings are incomplete or of another version; start it again from the Data page.") from error
        if not sound:
            raise RunError("Ask for at least one answer and one token, a temperature of 0 or more and a top-p above 0 and up to 1.")
        return args


@dataclass
class Asked:
    """One prompt and its answers so far."""

    prompt: Prompt
    texts: set[str] = field(default_factory=set)
    used: set[int] = field(default_factory=set)  # sample indices that were asked for
    failed: int = 0

    def fresh(self, count: int) -> list[int]:
        """The lowest sample indices not asked for yet."""
        indices: list[int] = []
        while len(indices) < count:
            index = next(i for i in range(len(self.used) + 1) if i not in self.used)
            self.used.add(index)
            indices.append(index)
        return indices


def read_prompts(run: RunDir, config: Mapping[str, Any], system: str = "") -> list[Prompt]:
    """The frozen prompts, each once; RunError names the line that cannot be read."""
    data = config.get("data") or {}
    file = run.check_data(str(data.get("file", "")), str(data.get("sha256", "")))
    found: dict[str, Prompt] = {}
    for number, row in _rows(file):
        try:
            messages = tuple(Message(m["role"], str(m["content"])) for m in row["messages"])
            prompt_id = str(row["prompt_id"])
        except (KeyError, TypeError) as error:
            raise RunError(f"Row {number} of {file.name} is no prompt with prompt_id and messages; start the run again.") from error
        if system and not any(m.role == "system" for m in messages):
            messages = (Message("system", system), *messages)
        prompt = Prompt(prompt_id, str(config.get("project_id", "")), messages, (), "", "", "", "", "train", datetime.now(UTC))
        found.setdefault(prompt_id, prompt)
    if not found:
        raise RunError("There are no prompts to answer: choose some, or import them on the Data page.")
    return list(found.values())


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_table(file).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise RunError(f"{file.name} is no readable Parquet file; start the run again.") from error
        for number, row in enumerate(rows, start=1):
            held = row.get("messages")
            yield number, {**row, "messages": json.loads(held) if isinstance(held, str) else held}
        return
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):  # as text it would also split at U+2028 and the like
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise RunError(f"Row {number} of {file.name} is no JSON; start the run again.") from error


class Written(NamedTuple):
    """Answers in the file; `truncated` and `empty` of them."""

    completions: int = 0
    truncated: int = 0
    empty: int = 0


def resume(file: Path, asked: Mapping[str, Asked]) -> Written:
    """Learn what an earlier start wrote, and count it. Half a line, cut off by a kill, is removed."""
    if not file.exists():
        return Written()
    raw = file.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with file.open("r+b") as f:
            f.truncate(len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    for row in rows:
        one = asked.get(row["prompt_id"])
        if one is not None:
            one.texts.add(row["text"].strip())
            one.used.add(int(row["sample_index"]))
    truncated = sum(row["finish_reason"] == "length" for row in rows)
    return Written(len(rows), truncated, sum(not row["text"].strip() for row in rows))
