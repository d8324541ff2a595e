"""A few real steps of a run that is not going to be: how long one takes, and how much memory.

    found = probe(plan, config)      # None where memory ran out

The method's own `make_trainer` makes the trainer that the run would have, over a handful of the run's rows: the longest batch comes
first, because it decides the memory, then ordinary ones, because they decide the time. Nothing of it is kept. Needs torch; a base
is loaded anew for each call, as the trainer changes it.

Where the model answers by itself (RLOO, GRPO) a step is a whole one: all answers of its batches are sampled at once, graded and
learned from. In the first the longest prompts are answered up to the last token that is allowed, so that its memory is the most
that any step can take; in the others as the model would, to prompts drawn from all. Where answers are learned from several times,
the steps that sample and those that do not are timed apart, and counted as often as the run has them.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import random
import resource
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from transformers import TrainerCallback

from data.engine import ModelSpec
from data.rundir import Loading, RunDir, Stopped
from training.adapters import Trainable, load_trainable
from training.callbacks import RunEvents, StoppedEvaluating
from training.config import Method, SamplingConfig, TrainConfig
from training.loop import Job
from training.memory import free_memory
from training.methods import module_of
from training.out_of_memory import is_out_of_memory
from training.preference_rows import items
from training.preference_trainer import PreferenceTrainer, reference_cache
from training.rows import Row, Rows

_ORDINARY = 3  # batches that are timed
_ENOUGH_S = 15.0  # so long; then one timed step is enough


class Plan(NamedTuple):
    """What a run would train on. `lengths`: tokens of each row, the training rows first."""

    run: RunDir
    method: Method
    spec: ModelSpec
    rows: Rows
    lengths: Sequence[int]
    say: Loading


class Probe(NamedTuple):
    """Seconds of one batch of the run's ordinary rows, of a held-out row, and of the whole reference; bytes at the peak.
    `longest_s`: of a batch whose answers all are as long as they may be, 0 where the model writes none."""

    first_loss: float | None
    ready_s: float
    batch_s: float
    held_out_row_s: float
    reference_s: float
    peak: int
    longest_s: float = 0.0


class Aside(RunDir):
    """The run's folder for a trainer whose events nobody should see."""

    def event(self, type: Any, **data: Any) -> None:
        pass


class Clock(TrainerCallback):
    """How long each step took, from its beginning to the next one's: what a run does between two counts as well. Ends the training
    when it has gone on for long enough, after a whole `cycle` of steps beside the first one."""

    def __init__(self, cycle: int = 1) -> None:
        self._cycle = cycle
        self._began: list[float] = []

    @property
    def took(self) -> list[float]:
        return [later - sooner for sooner, later in pairwise(self._began)]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began.append(time.monotonic())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        whole = len(self._began) > self._cycle and not len(self._began) % self._cycle
        if whole and time.monotonic() - self._began[0] > _ENOUGH_S:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began.append(time.monotonic())


class ToTheLimit(TrainerCallback):
    """The answers of the first step go on to the last token that is allowed, whatever the model would say."""

    def __init__(self, trainer: Any) -> None:
        self._sampling = trainer.generation_config
        self._sampling.min_new_tokens = self._sampling.max_new_tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._sampling.min_new_tokens = None


def probe(plan: Plan, config: TrainConfig, start: Trainable | None = None, timed: int = _ORDINARY) -> Probe | None:
    """None where memory ran out. `start`: a loaded base, which is used up. `timed`: so many ordinary batches after the longest one.

    StudioError where the run itself would fail.
    """
    try:
        stay_within_free()
        return _probe(plan, config, start, timed)
    except StoppedEvaluating as error:
        raise Stopped(plan.say.farewell) from error
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what memory ran out of
    return None


def load(method: Method, spec: ModelSpec, config: TrainConfig, rows: Rows) -> Trainable:
    """The base as the run loads it: some methods have a way of their own."""
    own = getattr(importlib.import_module(module_of(method)), "load", None)
    start: Trainable = (own or load_trainable)(spec, config, rows)
    return start


def _probe(plan: Plan, config: TrainConfig, start: Trainable | None, timed: int) -> Probe:
    began = time.monotonic()
    start = start or load(plan.method, plan.spec, config, plan.rows)
    module = importlib.import_module(module_of(plan.method))
    aside = Aside(plan.run.path)
    chosen = _choose(plan, config)
    small = shortened(config, timed)
    plan.say("preparing a few rows")
    trainer = module.make_trainer(Job(aside, small, start, chosen, RunEvents(aside, small), plan.say))
    check = getattr(module, "checked_first_loss", None)
    first_loss = check(trainer) if check else None
    ready_s = time.monotonic() - began
    cycle = _cycle(config)
    clock = Clock(cycle)
    trainer.add_callback(clock)
    _longest_first(trainer, config.batch_size)
    plan.say("measuring a few steps")
    trainer.args.eval_strategy, trainer.args.eval_on_start = "no", False
    trainer.train()
    plan.say("measuring an evaluation")
    held_out_row_s = _evaluation(trainer, chosen)
    reference_s = _reference(plan, config, start, trainer, held_out_row_s)
    longest, ordinary = clock.took[:cycle], clock.took[cycle:] or clock.took
    if isinstance(config, SamplingConfig):
        return Probe(
            first_loss, ready_s, _of_a_batch(ordinary, config), held_out_row_s, reference_s, peak(), _of_a_batch(longest, config)
        )
    batch_s = sum(ordinary) / len(ordinary) * _typical(plan, chosen)
    return Probe(first_loss, ready_s, batch_s, held_out_row_s, reference_s, peak())


def shortened(config: TrainConfig, timed: int) -> TrainConfig:
    """A few steps with nothing around them; what is measured is told to no reporter."""
    steps = _cycle(config) * (1 + timed)
    quick: dict[str, Any] = {"epochs": 1.0, "max_steps": steps, "log_every": 1, "report_to": "none"}
    if isinstance(config, SamplingConfig):  # the answers of all batches of a step are sampled at once: it is kept whole
        quick["num_iterations"] = _cycle(config)
    else:
        quick["accumulation"] = 1
    return replace(config, **quick, schedule="constant_with_warmup", warmup_share=0.0)


def _cycle(config: TrainConfig) -> int:
    """Steps after which it begins anew: one that samples answers and, where they are learned from again, one that does not."""
    return min(2, config.num_iterations) if isinstance(config, SamplingConfig) else 1


def _of_a_batch(took: Sequence[float], config: SamplingConfig) -> float:
    """Seconds of a batch, from those of whole steps that sample answers and learn from old ones in turn."""
    cycle, again = _cycle(config), config.num_iterations - 1
    sampled, learned = took[::cycle], took[1::cycle] if again else (0.0,)
    step_s = (sum(sampled) / len(sampled) + again * sum(learned) / len(learned)) / config.num_iterations
    return step_s / config.accumulation


# --- which rows -----------------------------------------------------------------------------------------------------------------


def _choose(plan: Plan, config: TrainConfig) -> Rows:
    """The longest rows, some at random, and a batch of held-out ones; good and bad answers alike where rows are labelled."""
    rng = random.Random(config.seed)
    train = list(zip(plan.rows.train, plan.lengths, strict=False))
    if isinstance(config, SamplingConfig):
        return _choose_prompts(plan.rows, [row for row, _ in sorted(train, key=lambda each: -each[1])], config, rng)
    longest = _both(sorted(train, key=lambda each: -each[1]), config.batch_size)
    rest = [each for each in train if not any(each[0] is other[0] for other in longest)]
    rng.shuffle(rest)
    some = _both(rest, _ORDINARY * config.batch_size)
    held_out = plan.rows.held_out or plan.rows.train
    return Rows([row for row, _ in [*longest, *some]], rng.sample(held_out, min(len(held_out), config.batch_size)))


def _choose_prompts(rows: Rows, by_length: Sequence[Row], config: SamplingConfig, rng: random.Random) -> Rows:
    """The longest prompts of one step, and some for the others from all, so that they are as long as prompts are on average."""
    step = config.batch_size * config.accumulation // config.num_generations
    some = rng.sample(rows.train, min(len(rows.train), _ORDINARY * step))
    return Rows([*by_length[:step], *some], rng.sample(rows.held_out, min(len(rows.held_out), config.batch_size)))


def _both(rows: Sequence[tuple[Row, int]], wanted: int) -> list[tuple[Row, int]]:
    """The first so many, half of them good and half bad where they are labelled."""
    good = [each for each in rows if each[0].get("label", True)]
    bad = [each for each in rows if not each[0].get("label", True)]
    if not good or not bad:
        return list(rows[:wanted])
    half = max(1, wanted // 2)
    taken = [*good[:half], *bad[:half]]
    return [*taken, *[*good[half:], *bad[half:]][: max(0, wanted - len(taken))]]


def _longest_first(trainer: Any, batch: int) -> None:
    """The longest rows make the first batch; where answers are sampled, they are as long as they may be."""
    if isinstance(trainer, PreferenceTrainer):
        trainer.rows.sort(key=lambda item: -item.length)
        trainer._dealt = True  # they stay in this order
        return
    if hasattr(trainer, "num_generations"):
        trainer.shuffle_dataset = False  # `_choose_prompts` has put them in this order
        trainer.add_callback(ToTheLimit(trainer))
        return
    data = trainer.train_dataset
    if not hasattr(data, "select"):
        return
    sizes = [sum(len(value) for value in row.values() if isinstance(value, list)) for row in data]
    longest = sorted(range(len(data)), key=lambda i: -sizes[i])[:batch]
    trainer.train_dataset = data.select([*longest, *(i for i in range(len(data)) if i not in set(longest))])
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)


def _typical(plan: Plan, chosen: Rows) -> float:
    """Tokens of a row of the run's over those of a row that was timed."""
    known = {id(row): length for row, length in zip(plan.rows.train, plan.lengths, strict=False)}
    every = list(known.values())
    timed = sorted(known[id(row)] for row in chosen.train)
    timed = timed[: -max(1, len(timed) // (1 + _ORDINARY))] or timed  # the first batch held the longest and is not counted
    return (sum(every) / len(every)) / (sum(timed) / len(timed))


# --- the parts of a run that are no step --------------------------------------------------------------------------------------


def _evaluation(trainer: Any, chosen: Rows) -> float:
    if not chosen.held_out:
        return 0.0
    began = time.monotonic()
    trainer.evaluate()
    return (time.monotonic() - began) / len(chosen.held_out)


def _reference(plan: Plan, config: TrainConfig, start: Trainable, trainer: Any, row_s: float) -> float:
    """Seconds for the log-probabilities under the reference that no earlier run has left; TRL computes them within its steps."""
    if not isinstance(trainer, PreferenceTrainer) or not trainer.objective.needs_reference:
        return 0.0
    rows = [*plan.rows.train, *plan.rows.held_out]
    cache = reference_cache(plan.run, config, start, trainer.scorer)
    if cache is None:
        return len(rows) * row_s
    missing = 0
    for number, item in enumerate(items(rows, start.tokenizer, start.limit)):
        plan.say("looking for the reference that earlier runs computed", number, len(rows))
        missing += any(cache.get(item.prompt, completion) is None for completion in item.completions)
    return missing * row_s


# --- memory ---------------------------------------------------------------------------------------------------------------------


def peak() -> int:
    """Bytes: of the device, or of this process from its start with all its libraries."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_now() -> int:
    """Bytes a run could take, had this process not begun."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    return free_memory() + int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """What memory ran out of, to the system: C's allocator keeps what it may need again. Call it where nothing holds any of it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def stay_within_free() -> None:
    """Make an allocation beyond the free memory fail in here, as a sentence, before the system ends a process at will.

    The system counts what is reserved, given back or not, so the limit is to be set anew before each try. Only where memory is
    the machine's own, and on Linux.
    """
    status = Path("/proc/self/status")
    if torch.cuda.is_available() or not status.is_file():
        return
    held = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmData"))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = held + free_memory()
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard))
