"""Several values of a few settings, tried as runs that share everything else: rows, parent, seed and so the reference's numbers.

`combinations` turns what a person typed ("0.1, 0.5" for beta, "sigmoid, ipo" for loss) into one set of changes a run; `start`
queues them as a group. How long it will take is told from runs of the same kind on the same base, or not at all.
"""

from __future__ import annotations

import itertools
import math
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data import runs
from data.errors import BadInput, LimitReached
from data.records import Run
from data.words import count
from studio.again import start_again
from studio.context import Studio, Viewer
from studio.form import label_of
from studio.render import duration
from studio.run_groups import name_said, value_said
from training.config import TrainConfig, config_class, from_json, steps_of
from training.knobs import Knob, check, knobs

MAX_RUNS, MAX_SETTINGS = 24, 3
FIRST = ("beta", "learning_rate", "loss", "epochs", "lora_rank", "seed")  # what is tried most
NEVER = ("log_every", "backend", "sample_prompts", "report_to")  # change nothing that is learned
KNOWN = 5  # earlier runs that tell how long one takes
ALONE = "A visitor has one run at a time; run the studio on your own machine to try several settings."

Changes = dict[str, Any]
First = Callable[[Changes, str, str], Run]


class Setting(NamedTuple):
    """A setting's name and what was typed for it."""

    name: str
    values: str


def settings_of(method: str) -> list[tuple[str, str]]:
    """The settings of a method that can be tried, as (what a person reads, name), the usual ones first."""
    mine = [knob for knob in knobs(config_class(method)) if knob.name not in NEVER]
    mine.sort(key=lambda knob: FIRST.index(knob.name) if knob.name in FIRST else len(FIRST))
    return [(label_of(knob), knob.name) for knob in mine]


def combinations(method: str, base: TrainConfig, wanted: Sequence[Setting]) -> list[Changes]:
    """One set of changes a run, in the order they were typed; a single empty one where nothing is to change.

    BadInput for a value that a setting cannot have, a setting that is named twice, and more than MAX_RUNS.
    """
    named = [each for each in wanted if each.name and each.values.strip()]
    if len({each.name for each in named}) < len(named):
        raise BadInput("A setting is chosen twice; put all its values into one line.")
    lists = [[(each.name, value) for value in values_of(method, each)] for each in named[:MAX_SETTINGS]]
    if (number := math.prod(len(values) for values in lists)) > MAX_RUNS:  # before they are made: it may be millions
        raise BadInput(f"These make {number:,} runs, and at most {MAX_RUNS} go together; take some values out.")
    mine = {knob.name: knob for knob in knobs(config_class(method))}
    for name, value in itertools.chain(*lists):
        check(mine[name], value, label_of(mine[name]))
    made = [dict(chosen) for chosen in itertools.product(*lists)]
    for changes in made:
        from_json(method, {**base.to_json(), **changes})
    return made


def values_of(method: str, typed: Setting) -> list[Any]:
    """The values between the commas, each once; BadInput names what is none."""
    knob = next((k for k in knobs(config_class(method)) if k.name == typed.name), None)
    if knob is None:
        raise BadInput(f"{method.upper()} has no setting {typed.name!r}; choose another.")
    found = [_value(knob, part.strip()) for part in typed.values.split(",") if part.strip()]
    return list(dict.fromkeys(found))


def _value(knob: Knob, text: str) -> Any:
    words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
    try:
        if knob.kind == "bool":
            return words[text.lower()]
        if knob.kind == "int":
            return int(text)
        return float(text) if knob.kind == "float" else text.replace(" ", "_") if knob.choices else text
    except (ValueError, KeyError) as error:
        kinds = {"bool": "on or off", "int": "a whole number", "float": "a number"}
        raise BadInput(f"{text!r} is no value for {label_of(knob)}: give {kinds[knob.kind]}.") from error


def name_of(method: str, changes: Mapping[str, Any]) -> str:
    """ "DPO · beta 0.1, learning rate 0.001"."""
    said = ", ".join(f"{name_said(name)} {value_said(value)}" for name, value in changes.items())
    return f"{method.upper()} · {said}" if said else ""


def start(studio: Studio, viewer: Viewer, method: str, made: Sequence[Changes], of: Run | None, first: First | None = None) -> Run:
    """Queue one run for each set of changes; the first of them. `first(changes, name, group)` starts one from nothing, where there
    is no run `of` which they are repetitions; every set names the same settings, so the others can be repetitions of that one."""
    if len(made) > 1 and viewer.is_visitor:
        raise LimitReached(ALONE)
    group = uuid.uuid4().hex if len(made) > 1 else ""
    started: list[Run] = []
    try:
        for changes in made:
            name = name_of(method, changes)
            if of is not None:
                started.append(start_again(studio, viewer, of, changes, name or of.name, group))
            elif not started:
                assert first is not None
                started.append(first(changes, name, group))
            else:
                started.append(start_again(studio, viewer, started[0], changes, name, group))
    except BaseException:
        studio.jobs.stop_group(group)
        raise
    return started[0]


def preview(
    studio: Studio, project_id: str, base: str, method: str, config: TrainConfig, made: Sequence[Changes], rows: int
) -> str:
    """ "6 runs of 30 to 60 steps, one after the other; about 4 min in all."."""
    steps = [steps_of(from_json(method, {**config.to_json(), **changes}), rows) for changes in made]
    span = f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,} to {max(steps):,}"
    takes = seconds_of(runs.of_project(studio.db, project_id, limit=200), method, base, config, sum(steps), len(steps))
    if len(made) == 1:
        return f"1 run of {span} steps" + (f"; about {duration(takes)}." if takes else ".")
    long = f"about {duration(takes)} in all" if takes else "how long they take will be known after the first"
    return f"{count(len(made), 'run')} of {span} steps, one after the other; {long}."


def seconds_of(earlier: Sequence[Run], method: str, base: str, config: TrainConfig, steps: int, n_runs: int) -> float | None:
    """How long so many steps in so many runs take, from the last runs of this method on this base; None without any."""
    known = [run for run in earlier if run.kind == method and run.status == "finished" and _base(run) == base and _per_row(run)]
    if not known:
        return None
    row = statistics.median(_per_row(run) for run in known[:KNOWN])
    beside = statistics.median(_beside(run) for run in known[:KNOWN])
    return row * steps * config.batch_size * config.accumulation + beside * n_runs


def _base(run: Run) -> str:
    return str((run.config.get("args") or {}).get("model", {}).get("base", ""))


def _per_row(run: Run) -> float:
    """Seconds a row and step; 0 where the run does not tell."""
    train = (run.config.get("args") or {}).get("train") or {}
    rows = int(run.result.get("steps") or 0) * int(train.get("batch_size") or 0) * int(train.get("accumulation") or 0)
    return float(run.result.get("seconds") or 0) / rows if rows else 0.0


def _beside(run: Run) -> float:
    """Seconds of the run that are no steps: loading, the reference, saving."""
    if run.started_at is None or run.ended_at is None:
        return 0.0
    whole = run.earlier_s + (run.ended_at - run.started_at).total_seconds()
    return max(0.0, whole - float(run.result.get("seconds") or 0))
