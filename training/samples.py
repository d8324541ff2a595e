"""What the model in training answers to a few prompts, at the start, each quarter of the steps and the end: `sample` events.

    trainer.add_callback(Samples(run, config, start, rows, events))     # `training/loop.py`, for every method

Numbers can look well while the answers fall apart, so a person sees both. Prompts are held-out ones where there are any, rendered
as everywhere (`training/chat.py`); the likeliest answer is taken, so that what changes between two moments is the model. Training
must not notice: nothing random is drawn, the random states and each module's mode are put back all the same, and the time does not
count as training's. A moment takes SECONDS at most: what is not ready then is shown cut. A stop ends it between two tokens. Where
several processes train there are no samples: each would have to take part in every token.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import GenerationMixin, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.engine import GenRequest, Message
from data.errors import EngineError
from data.rundir import RunDir
from training.adapters import Trainable, uses_bf16
from training.callbacks import RunEvents
from training.chat import render_prompt
from training.config import TrainConfig
from training.decoding import Cohort
from training.decoding import Row as Reply
from training.detokenize import TextBuffer
from training.forward import BASE, Forward
from training.rows import Rows

MOMENTS = 4  # after the start: quarters
TOKENS = 96  # of an answer
SECONDS = 20.0


class Samples(TrainerCallback):
    """Writes `sample` events {step, split, prompt, text, cut}; does nothing where the model cannot write (a reward model)."""

    def __init__(self, run: RunDir, config: TrainConfig, start: Trainable, rows: Rows, events: RunEvents) -> None:
        self.run, self.events = run, events
        self._bf16, self._start = uses_bf16(config), start
        self._split = "held_out" if rows.held_out else "train"
        self._asked = spread(rows.held_out or rows.train, config.sample_prompts)
        self._said: set[int] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            self._asked = []
        if state.global_step == 0:  # else the run goes on from a checkpoint
            self._say(state, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        quarters = MOMENTS if state.max_steps >= 2 * MOMENTS else 1  # a run of a few steps: its end alone
        if state.global_step in {round(state.max_steps * part / quarters) for part in range(1, quarters + 1)}:
            self._say(state, kwargs["model"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._say(state, kwargs["model"])  # of a run that ended early

    def _say(self, state: TrainerState, model: Any) -> None:
        writer = model.get_base_model() if isinstance(model, PeftModel) else model
        if not self._asked or state.global_step in self._said or not isinstance(writer, GenerationMixin):
            return
        if self.run.stop_requested:
            return
        self._said.add(state.global_step)
        started = time.monotonic()
        try:
            with untouched(model), torch.autocast(writer.device.type, torch.bfloat16, enabled=self._bf16):
                replies = self._answers(writer, started + SECONDS)
        except Exception as error:  # whatever a family of models cannot do here: to watch it must not end the run
            self._asked = []
            traceback.print_exc()
            self.run.event("log", text=f"No sample answers: {type(error).__name__} while the model wrote; training goes on.")
            return
        if not self.run.stop_requested:
            for prompt, reply in zip(self._asked, replies, strict=True):
                self.run.event("sample", step=state.global_step, split=self._split, prompt=prompt[-1].content, **reply)
        self.events.paused(time.monotonic() - started)

    def _answers(self, writer: Any, until: float) -> list[dict[str, Any]]:
        """Text of each, and whether it was cut by its length or the time."""
        tokenizer = self._start.tokenizer
        rows: list[Reply] = []
        refused: dict[int, str] = {}
        for index, messages in enumerate(self._asked):
            try:
                ids = render_prompt(tokenizer, messages)
            except EngineError as error:
                refused[index] = str(error)
                continue
            request = GenRequest(messages, TOKENS, temperature=0.0)
            limit = max(1, min(TOKENS, self._start.limit - len(ids)))
            rows.append(Reply(index, request, ids, BASE, limit, TextBuffer(tokenizer, (), False)))
        cohort = Cohort(Forward(writer), rows, self._start.ends, tokenizer.pad_token_id)
        while cohort.rows and time.monotonic() < until and not self.run.stop_requested:
            cohort.step()
        for row in cohort.rows:
            row.end("length")
        told = {row.index: {"text": row.buffer.text or row.error, "cut": row.reason == "length"} for row in rows}
        return [told.get(index, {"text": refused.get(index, ""), "cut": False}) for index in range(len(self._asked))]


def spread(rows: Sequence[dict[str, Any]], wanted: int) -> list[tuple[Message, ...]]:
    """So many different prompts, from all over the rows; always the same ones of the same rows."""
    known = {tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]): None for row in rows if row.get("prompt")}
    every = list(known)
    count = min(wanted, len(every))
    return [every[i * len(every) // count] for i in range(count)]


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module's mode and all random states are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            random.setstate(python)
            np.random.set_state(numpy_state)
