"""The check before a run, by the model itself: `python -m training.preflight RUN_DIR`.

config.json: args = `training.config.run_args(model, config)` and `method`; data = the frozen rows that the run would get. Base and
parent are loaded as the run loads them, every row is rendered and counted by their own tokenizer, and a few real steps are done
and thrown away (`training/probe.py`). The result event is a `training.verdicts.Report`; what is wrong with the run is a verdict
in it, and no failure of the check. Where memory runs out, smaller batches are tried until one fits, so that the proposal is known
to work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from data.errors import BadInput, RunError, StudioError
from data.rundir import Loading, RunDir, run_child
from data.words import count
from training.config import MOST_HELD_OUT, Method, SamplingConfig, TrainConfig, method_named, read_args, steps_of
from training.knobs import knobs
from training.memory import Device, Shape, estimate, readable, shape_of
from training.methods import METHOD_FACTS
from training.rows import Dropped, Row, Rows, Some, check_template, excerpt, read_rows, usable_or_refuse
from training.verdicts import SHOWN, Cost, Example, Fix, Report, Verdict

if TYPE_CHECKING:
    from training.adapters import Trainable
    from training.probe import Plan, Probe

_LOOKED_AT = 1000  # rows whose rendering is compared; spread over all of them
_TIGHT = 0.8  # share of the free memory from which on the run may fail where another process wants some


def main(run: RunDir) -> dict[str, Any]:
    """What the run would come to; never a failure because of its rows or settings."""
    began = time.monotonic()
    args = run.config().get("args", {})
    method = method_named(str(args.get("method")))
    with run.loading("nothing was checked") as say:
        try:
            spec, config = read_args(method, args)
            frozen = read_rows(run, method)
            report = _check(run, method, spec, config, frozen, say, began)
        except StudioError as error:
            report = Report((Verdict("run", "stop", str(error)),))
    for verdict in report.verdicts:
        print(f"{verdict.level}: {verdict.sentence} {', '.join(e.prompt_id for e in verdict.examples)}".strip())
    return report.to_json()


def _check(run: RunDir, method: Method, spec: Any, config: TrainConfig, frozen: Rows, say: Loading, began: float) -> Report:
    say("loading the libraries")
    from training.probe import Plan, free_now, load, probe

    free = free_now()
    say("loading the base model")
    start = load(method, spec, config, frozen)
    dropped = Dropped()
    rows = usable_or_refuse(frozen, method, start.tokenizer, start.limit, dropped, say)
    foreign = list(ungraded(config.reward, rows, dropped)) if isinstance(config, SamplingConfig) else []
    if not rows.train:
        return Report(tuple(foreign))
    verdicts = [*left_out(dropped), cut(dropped, config, start.limit, _context(start)), template(start, rows.train, say)]
    if foreign:
        verdicts = [*foreign, *(v for v in verdicts if (v.check, v.level) != ("rows", "ok"))]
    for line in dropped.named():
        print(line)
    if any(verdict.level == "stop" for verdict in verdicts):
        return Report(tuple(verdicts))
    plan = Plan(run, method, spec, rows, dropped.lengths, say)
    looked = time.monotonic() - began  # the run reads, loads and counts as well
    found = probe(plan, config, start)
    del start
    if found is None:
        return Report((*verdicts, _smaller(plan, config, free)))
    cost = _cost(plan, config, found, looked, free)
    return Report((*verdicts, *_started(method, found), fits(cost, config)), cost)


# --- rows -----------------------------------------------------------------------------------------------------------------------


def left_out(dropped: Dropped) -> Iterator[Verdict]:
    """A verdict for each reason for which the trainer leaves rows out, by the trainer's own count."""
    for reason, some in dropped.reasons.items():
        sentence = f"{count(len(some.ids), 'row')} {_are(some.ids)} left out: {reason}."
        yield Verdict("rows", "warn", sentence, len(some.ids), _examples(some))
    if not dropped.reasons:
        yield Verdict("rows", "ok", f"All {count(len(dropped.lengths), 'row')} can be learned from.")


def cut(dropped: Dropped, config: TrainConfig, limit: int, context: int) -> Verdict:
    """Whether answers are cut, or prompts too long, at the length limit; the fix is the limit that cuts nothing."""
    if not dropped.truncated and dropped.longest <= limit:
        return Verdict("length limit", "ok", f"Nothing is cut: the longest row has {dropped.longest:,} of {limit:,} tokens.")
    short = dropped.truncated
    what = f"{count(len(short.ids), 'row has an answer', 'rows have an answer')} that is cut" if short else "Prompts are too long"
    whole = f"; the longest row has {dropped.longest:,} tokens"
    fix = None
    if dropped.longest <= context:
        fix = Fix(f"Allow {dropped.longest:,} tokens", {"max_length": dropped.longest})
    else:
        whole += f", and the model reads at most {context:,}"
    examples = _examples(short) if short else ()
    return Verdict("length limit", "warn", f"{what} at {limit:,} tokens{whole}.", len(short.ids) if short else 0, examples, fix)


def ungraded(reward: str, rows: Rows, dropped: Dropped) -> Iterator[Verdict]:
    """Prompts that the rules cannot grade, which the run leaves out; they are taken out here too, with their lengths."""
    from training.grading import gradable, rules_of

    rules = rules_of(reward)
    graded = [gradable(rules, row) for part in rows for row in part]
    foreign = [row for row, fits in zip([*rows.train, *rows.held_out], graded, strict=True) if not fits]
    if rules is None or not foreign:
        return
    dropped.lengths[:] = [length for length, fits in zip(dropped.lengths, graded, strict=True) if fits]
    for part in rows:
        part[:] = [row for row in part if gradable(rules, row)]
    sentence = f"“{rules.title}” cannot grade answers to {count(len(foreign), 'prompt')}, which {_are(foreign)} left out"
    examples = tuple(Example("", excerpt(row)) for row in foreign[:SHOWN])
    none = "" if rows.train else "; none is left, so choose another reward"
    yield Verdict("reward", "warn" if rows.train else "stop", f"{sentence}{none}.", len(foreign), examples)


def _are(some: Sequence[object]) -> str:
    return "is" if len(some) == 1 else "are"


def template(start: Trainable, rows: Sequence[Row], say: Loading) -> Verdict:
    """Every row by the rule that the trainer applies to its first one: the prompt as sampling renders it, the turn ended."""
    step = max(1, len(rows) // _LOOKED_AT)
    looked = rows[::step]
    wrong: dict[str, list[Row]] = {}
    for number, row in enumerate(looked):
        say("comparing the rendering", number, len(looked))
        try:
            check_template(start.tokenizer, row, start.ends)
        except RunError as error:
            wrong.setdefault(str(error), []).append(row)
    if not wrong:
        return Verdict(
            "template",
            "ok",
            f"Prompts read the same with and without an answer, and answers end their turn ({len(looked):,} looked at).",
        )
    sentence, found = max(wrong.items(), key=lambda each: len(each[1]))
    examples = tuple(Example("", excerpt(row)) for row in found[:SHOWN])
    if rows[0] in found or len(found) * 2 > len(looked):
        return Verdict("template", "stop", sentence, len(found), examples)
    return Verdict("template", "warn", f"In {count(len(found), 'row')}: {sentence}", len(found), examples)


def _examples(some: Some) -> tuple[Example, ...]:
    """The ids, the first with how its prompt begins."""
    return tuple(Example(prompt_id, "" if n else some.example) for n, prompt_id in enumerate(some.ids[:SHOWN]))


def _context(start: Trainable) -> int:
    from training.models import context_length

    return context_length(start.model)


# --- steps ----------------------------------------------------------------------------------------------------------------------


def _started(method: Method, found: Probe) -> Iterator[Verdict]:
    if found.first_loss is not None:
        why = "no answer scores higher yet" if METHOD_FACTS[method].makes == "reward" else "the reference is the model before"
        yield Verdict("start", "ok", f"The first loss is {found.first_loss:.3f}, as it must be: {why}.")


def _cost(plan: Plan, config: TrainConfig, found: Probe, looked: float, free: int) -> Cost:
    """The whole run's time from the measured parts; rows are looked at once more when they become tokens."""
    train, held_out = len(plan.rows.train), len(plan.rows.held_out)
    if isinstance(config, SamplingConfig):
        held_out = min(held_out, MOST_HELD_OUT)
    steps = steps_of(config, train)
    evaluations = _evaluations(plan.method, config, steps, train) if held_out else 0
    return Cost(
        steps=steps,
        ready_s=looked + found.ready_s,
        reference_s=found.reference_s,
        training_s=steps * config.accumulation * found.batch_s,
        evaluation_s=evaluations * held_out * found.held_out_row_s,
        peak=found.peak,
        free=free,
        estimated=_estimated(plan, config, free),
        longest_s=steps * config.accumulation * found.longest_s,
    )


def _estimated(plan: Plan, config: TrainConfig, free: int) -> int:
    """Bytes by calculation, those of a reward model that grades among them; 0 where they cannot be told."""
    judge = plan.run.config()["args"].get("reward_model") or {}
    try:
        grader = shape_of(str(judge["base"])) if judge else None
        shape = shape_of(plan.spec.base)
        return estimate(shape, plan.method, config, max(plan.lengths, default=0), grader, _device(shape, config, free)).total
    except BadInput:
        return 0


def _device(shape: Shape, config: TrainConfig, free: int) -> Device:
    import torch

    from training.adapters import uses_bf16
    from training.preference_memory import TOKENS_CPU, token_budget

    gpu = torch.cuda.is_available()
    part = token_budget(free, shape.hidden, shape.layers, config.checkpointing) if gpu else TOKENS_CPU
    return Device(gpu, uses_bf16(config), part)


def _evaluations(method: Method, config: TrainConfig, steps: int, rows: int) -> int:
    """How often the run looks at its held-out rows: what learns from its own answers before its first step as well, and a reward
    model once more when it counts on how many it is right."""
    once_more = METHOD_FACTS[method].by_trl
    if config.eval_every:
        return steps // config.eval_every + once_more
    each = config.num_generations * config.num_iterations if isinstance(config, SamplingConfig) else 1
    seen = steps * config.batch_size * config.accumulation / each  # rows, again and again
    epochs = config.epochs if not config.max_steps else seen / max(1, rows)
    return max(1, round(epochs)) + once_more


def fits(cost: Cost, config: TrainConfig) -> Verdict:
    """Whether the measured peak leaves room."""
    told = f"A step was done with {readable(cost.peak)} of {readable(cost.free)} free"
    if cost.estimated:
        told += f"; weights, what is trained and activations come to {readable(cost.estimated)} by calculation"
    if cost.peak <= _TIGHT * cost.free:
        return Verdict("memory", "ok", f"{told}.")
    return Verdict("memory", "warn", f"{told}: too little room if anything else runs beside it.", fix=halved(config))


class _Try(NamedTuple):
    label: str
    changes: dict[str, Any]


def _smaller(plan: Plan, config: TrainConfig, free: int) -> Verdict:
    """Memory ran out: the first of the smaller ways that a step was really done in, as a fix."""
    from training.probe import give_back, probe

    sentence = f"Memory runs out: {count(config.batch_size, 'row')} at once do not fit into {readable(free)}"
    for number, attempt in enumerate(_tries(config)):
        give_back()
        plan.say(f"trying again: {attempt.label.lower()}", number)
        if probe(plan, replace(config, **attempt.changes), timed=0) is not None:
            return Verdict("memory", "stop", f"{sentence}. {attempt.label} fits.", fix=Fix(attempt.label, attempt.changes))
    return Verdict("memory", "stop", f"{sentence}, and nor does one; choose a smaller base or shorter rows.")


def _tries(config: TrainConfig) -> Iterator[_Try]:
    """Ever smaller batches with as many rows a step, then the smallest with less kept in memory."""
    while smaller := halved(config):
        config = replace(config, **smaller.settings)
        yield _Try(smaller.label, dict(smaller.settings))
    if not config.checkpointing:
        changes = {"batch_size": config.batch_size, "accumulation": config.accumulation, "checkpointing": True}
        yield _Try(f"{count(config.batch_size, 'row')} at once, with checkpointing", changes)


def halved(config: TrainConfig) -> Fix | None:
    """Half the batch, twice the accumulation: the same rows a step. None where a batch cannot be halved."""
    least = next(int(knob.min or 1) for knob in knobs(type(config)) if knob.name == "batch_size")
    half = config.batch_size // 2
    if half < least or (isinstance(config, SamplingConfig) and half % config.num_generations):
        return None
    changes = {"batch_size": half, "accumulation": config.accumulation * -(-config.batch_size // half)}
    return Fix(f"{count(half, 'row')} at once, {changes['accumulation']} times a step", changes)


if __name__ == "__main__":
    run_child(main)
