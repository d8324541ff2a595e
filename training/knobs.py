"""One setting of a training run, as a field of a frozen dataclass: what a form needs to draw it and a config to check it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Any, Literal, NamedTuple

from data.errors import BadInput

Group = Literal["basic", "advanced"]


class Knob(NamedTuple):
    """One field as a form shows it; `kind` is int, float, bool or str."""

    name: str
    kind: Literal["int", "float", "bool", "str"]
    default: Any
    help: str
    group: Group
    choices: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()  # of the choices, one each
    min: float | None = None
    max: float | None = None
    step: float | None = None


def knob(
    default: Any,
    help: str,
    group: Group = "advanced",
    *,
    choices: tuple[str, ...] = (),
    meanings: tuple[str, ...] = (),
    min: float | None = None,
    max: float | None = None,
    step: float | None = None,
) -> Any:
    """A dataclass field with what its `Knob` will hold."""
    meta = {"help": help, "group": group, "choices": choices, "meanings": meanings, "min": min, "max": max, "step": step}
    return field(default=default, metadata=meta)


def knobs(cls: type) -> tuple[Knob, ...]:
    """The fields of a config class in the order of a form: basic ones first."""
    rows = [Knob(f.name, str(f.type), f.default, **f.metadata) for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return tuple(sorted(rows, key=lambda knob: knob.group != "basic"))


def check(knob: Knob, value: Any, called: str = "") -> None:
    """BadInput in words for a value that the setting cannot have; `called`: what the person who gave it knows it as."""
    name = called or knob.name
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
    wanted = {"int": "a whole number", "float": "a number", "bool": "on or off", "str": "a word"}
    if type(value) not in kinds[knob.kind]:
        raise BadInput(f"{name} must be {wanted[knob.kind]}, not {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{name} must be a finite number.")
    if knob.choices and value not in knob.choices:
        raise BadInput(f"{name} must be one of {', '.join(knob.choices)}, not {value!r}.")
    low, high = knob.min, knob.max
    if low is not None and value < low:
        raise BadInput(f"{name} must be at least {low:g}, not {value:g}.")
    if high is not None and value > high:
        raise BadInput(f"{name} must be at most {high:g}, not {value:g}.")
