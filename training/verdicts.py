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


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """In the order in which a person should read them."""
    return sorted(verdicts, key=lambda verdict: LEVELS.index(verdict.level))


def stops(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The reasons not to start."""
    return [verdict for verdict in verdicts if verdict.level == "stop"]
