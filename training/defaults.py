"""What a run's settings are before anybody changes them: by the method, the size of the base and the number of rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from training.config import TUNINGS, SamplingConfig, TrainConfig, config_class, steps_of

_DEMO_SIZE, _SMALL_SIZE = 20_000_000, 3_000_000_000  # parameters up to which a recipe is meant
_DEMO_STEPS, _DEMO_EPOCHS = 75, 10.0  # of few labels: as many steps as 200 take, in at most so many rounds
_ANSWERING_STEPS = 25  # where each step writes its answers first
_FULL_RATE, _DEMO_FULL_RATE = 0.1, 0.3  # of an adapter's learning rate, for a hub model and for the demo model


def recipe(method: str, parameters: int, rows: int = 0, tuning: str = "") -> TrainConfig:
    """Settings to start from for a base with so many parameters: the demo model's, a small model's, or QLoRA for 7B and the like,
    which 0 (unknown) gets too: it harms a small one least. Four bits are for what would not fit otherwise, on a CPU as on a GPU:
    over a small base they save nothing, take longer, and the adapter is then used over weights it was not trained on.

    `rows`: how many there are to train on, 0 = unknown; with few of them the demo model goes over them more often. The rates for
    real models are those of published recipes (TRL's and the Alignment Handbook's); they are starting points. `tuning`: one of
    TUNINGS, "" = what suits the size; all weights move together, so a step on them is a tenth to a third of one on an adapter.
    """
    cls = config_class(method)
    tuning = tuning if tuning in TUNINGS else ""
    if 0 < parameters < _DEMO_SIZE:
        slower = _DEMO_FULL_RATE if tuning == "full" else 1.0
        demo = replace(cls(), tuning=tuning or cls().tuning, learning_rate=cls().learning_rate * slower)
        a_round = steps_of(replace(demo, epochs=1.0), rows)
        often = (_ANSWERING_STEPS if method in ("rloo", "grpo") else _DEMO_STEPS) / a_round if rows else 0
        return replace(demo, epochs=float(min(_DEMO_EPOCHS, max(demo.epochs, math.ceil(often)))))
    small = 0 < parameters < _SMALL_SIZE
    rates = {"sft": 2e-4, "reward": 1e-4} | dict.fromkeys(("dpo", "kto", "orpo", "simpo"), 5e-5 if small else 5e-6)
    rates |= dict.fromkeys(("rloo", "grpo"), 2e-5 if small else 1e-5)
    shared: dict[str, Any] = {
        "learning_rate": rates[method] * (_FULL_RATE if tuning == "full" else 1.0),
        "epochs": 3.0 if small else 1.0,
        "batch_size": 4,
        "accumulation": 2 if small else 4,
        "tuning": tuning or ("lora" if small else "qlora"),
        "checkpointing": not small,
    }
    if method in ("dpo", "kto", "orpo"):
        shared["beta"] = 0.1
    if issubclass(cls, SamplingConfig):
        shared |= {"epochs": 1.0, "batch_size": 8, "accumulation": 8, "num_generations": 8, "max_completion_length": 256}
        shared["beta"] = 0.05 if method == "rloo" else 0.0
    if method in ("dpo", "simpo"):
        shared["sft_weight"] = 0.1
    return cls(**shared)
