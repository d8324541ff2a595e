"""What a check before a run comes to: fine, worth knowing, or a reason not to start; and what would mend it.

The studio's own checks of the rows (`labeling/row_checks.py`) and the check by the model itself (`training/preflight.py`) both
speak in these, so a page shows them in one list. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from data.errors import BadInput

Level = Literal["ok", "warn", "stop"]
LEVELS: tuple[Level, ...] = ("stop", "warn", "ok")  # the worst first
Sieve = Literal["contradictions", "repeats"]
SIEVES: tuple[Sieve, ...] = ("contradictions", "repeats")
SHOWN = 3  # rows that a verdict shows; the log names more


@dataclass(frozen=True)
class Example:
    """A row that is meant: its prompt's id, for the log, and how the prompt begins, for a person."""

    prompt_id: str
    prompt: str


@dataclass(frozen=True)
class Fix:
    """A change that a button makes: settings of the run to set, and rows to leave out when the labels are frozen."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sieve: tuple[Sieve, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """`check` names the check in one word; `rows` are how many are meant, `examples` the first of them."""

    check: str
    level: Level
    sentence: str
    rows: int = 0
    examples: tuple[Example, ...] = ()
    fix: Fix | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Verdict:
        """BadInput when it is none: a run folder may have been written by anybody."""
        try:
            fix = raw.get("fix")
            if raw["level"] not in LEVELS:
                raise ValueError(raw["level"])
            return Verdict(
                str(raw["check"]),
                raw["level"],
                str(raw["sentence"]),
                int(raw.get("rows", 0)),
                tuple(Example(str(e["prompt_id"]), str(e["prompt"])) for e in raw.get("examples", ())),
                None if fix is None else _fix(fix),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput("The check left a verdict that cannot be read; check again.") from error


def _fix(raw: Mapping[str, Any]) -> Fix:
    return Fix(str(raw["label"]), dict(raw.get("settings", {})), tuple(s for s in raw.get("sieve", ()) if s in SIEVES))


@dataclass(frozen=True)
class Cost:
    """What a run would take, from steps that were really done: seconds of each part, bytes at the peak and what was free before.

    `estimated`: bytes by the arithmetic of `training/memory.py`, which knows nothing of the libraries; 0 = it cannot tell.
    `longest_s`: the training's seconds, were all of the model's own answers to grow to their limit; 0 where it writes none.
    """

    steps: int
    ready_s: float
    reference_s: float
    training_s: float
    evaluation_s: float
    peak: int
    free: int
    estimated: int = 0
    longest_s: float = 0.0

    @property
    def seconds(self) -> float:
        """From the start of its process to the saved weights."""
        return self.ready_s + self.reference_s + self.training_s + self.evaluation_s


@dataclass(frozen=True)
class Report:
    """A check's whole outcome; `cost` is None where no step could be done."""

    verdicts: tuple[Verdict, ...]
    cost: Cost | None = None

    def to_json(self) -> dict[str, Any]:
        return {"verdicts": [v.to_json() for v in self.verdicts], "cost": asdict(self.cost) if self.cost else None}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Report:
        """BadInput when it is none."""
        try:
            cost = raw.get("cost")
            return Report(tuple(map(Verdict.from_json, raw["verdicts"])), Cost(**cost) if cost else None)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput("The check left nothing that can be read; check again.") from error


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """In the order in which a person should read them."""
    return sorted(verdicts, key=lambda verdict: LEVELS.index(verdict.level))


def stops(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The reasons not to start."""
    return [verdict for verdict in verdicts if verdict.level == "stop"]
