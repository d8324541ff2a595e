"""The engine on a local model: batches by token budget, adapters by path, label logits, streams; see `data/engine.py`.

    engine = LocalEngine(ModelSpec("local", "data/demo/model", adapter="runs/x/adapter"))

`generation` and `labelling` are generators that do one forward a turn and then give the hand back: `generate` simply drains one,
the model worker (`training/serve.py`) takes turns between several, which is how two models stream side by side from one resident
base. An adapter is named by its folder in the request and mixed into the batch through peft's `adapter_names`. Not thread-safe,
except `cancel`.

The same request with the same seed gives the same text, alone or in any batch: exactly so with a small model on a CPU (fp32), and
up to rounding in bf16, where a neighbour can tip a close call.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from peft import PeftModel

from data.engine import GenRequest, GenResult, LabelRequest, LabelResult, Message, ModelSpec
from data.errors import EngineError
from training.chat import end_of_turn_ids, render_prompt
from training.decoding import Budget, Cohort, Row, cohorts
from training.detokenize import TextBuffer
from training.forward import BASE, Forward, left_padded
from training.label_logits import LabelPrompt, label_batches, read_labels, spellings
from training.models import attach_adapter, check_adapter, context_length, device, load_base, load_tokenizer

T = TypeVar("T")
MAX_ADAPTERS = 8  # held beside one base; the one used longest ago goes first
NO_MEMORY = "The device has no memory left for this request; ask for fewer tokens or choose a smaller model."


@dataclass(frozen=True)
class Piece:
    """Text that `requests[index]` of a stream gained."""

    index: int
    text: str


class Call:
    """One call in progress; `cancel()` from any thread ends it at the next turn."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class LocalEngine:
    """One resident base with its adapters. Opening it raises EngineError for a base or adapter that cannot be used."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.tokenizer = load_tokenizer(spec.base)
        self.model: Any = load_base(spec)
        self.forward: Any = Forward(self.model)
        self.ends = end_of_turn_ids(self.tokenizer, self.model)
        self.context = context_length(self.model)
        self._adapters: OrderedDict[str, None] = OrderedDict()
        self._in_use: Counter[str] = Counter()
        self._calls: set[Call] = set()
        self.adapter(spec.adapter)

    # --- the contract -----------------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        for turn in self.generation(requests, Call()):
            yield from (event for event in turn if isinstance(event, GenResult))

    def stream(self, request: GenRequest) -> Iterator[str]:
        for turn in self.generation([request], Call(), streaming=True):
            for event in turn:
                if isinstance(event, Piece):
                    yield event.text
                elif event.finish_reason == "error":
                    raise EngineError(event.error)

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        for turn in self.labelling(requests, Call()):
            yield from turn

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(render_prompt(self.tokenizer, messages))

    def cancel(self) -> None:
        for call in tuple(self._calls):
            call.cancel()

    def close(self) -> None:
        self.cancel()
        self.model = self.forward = None
        self._adapters.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- generation, one forward a turn -----------------------------------------------------------------------------------------

    def generation(self, requests: Sequence[GenRequest], call: Call, streaming: bool = False) -> Iterator[list[Piece | GenResult]]:
        """Yield after every forward what it brought, perhaps nothing; each request ends in exactly one GenResult."""
        self._calls.add(call)
        rows: list[Row] = []
        try:
            rows, refused = self._rows(requests, streaming)
            yield refused
            waiting = list(cohorts(rows, self._budget()))
            while waiting:
                batch = waiting.pop(0)
                try:
                    yield from self._decode(batch, call)
                except torch.OutOfMemoryError:
                    if streaming or len(batch) == 1:
                        yield [_failed(row, NO_MEMORY) for row in batch if row.reason is None]
                    else:
                        waiting[:0] = _halves([row.restart() for row in batch if row.reason is None])
        finally:
            self._calls.discard(call)
            self._in_use.subtract(row.adapter for row in rows)

    def _decode(self, batch: list[Row], call: Call) -> Iterator[list[Piece | GenResult]]:
        cohort = Cohort(self.forward, batch, self.ends, self.tokenizer.pad_token_id)
        while cohort.rows and not call.cancelled:
            turn: list[Piece | GenResult] = []
            for row in cohort.step():
                if row.streaming and row.piece:
                    turn.append(Piece(row.index, row.piece))
                if row.reason is not None:
                    turn.append(_result(row))
            yield turn
        for row in cohort.rows:
            row.end("cancelled")
        yield [_result(row) for row in cohort.rows]

    def _rows(self, requests: Sequence[GenRequest], streaming: bool) -> tuple[list[Row], list[Piece | GenResult]]:
        rows: list[Row] = []
        refused: list[Piece | GenResult] = []
        for index, request in enumerate(requests):
            try:
                ids = self._fitting(request.messages, request.max_new_tokens)
                adapter = self.adapter(self.spec.adapter if request.adapter is None else request.adapter)
            except EngineError as error:
                refused.append(GenResult(index, "", "error", error=str(error)))
                continue
            self._in_use[adapter] += 1
            limit = min(request.max_new_tokens, self.context - len(ids))
            rows.append(Row(index, request, ids, adapter, limit, TextBuffer(self.tokenizer, request.stop, streaming), streaming))
        return rows, refused

    def _fitting(self, messages: Sequence[Message], new_tokens: int = 1) -> list[int]:
        if new_tokens < 1:
            raise EngineError("Ask for at least one new token.")
        ids = render_prompt(self.tokenizer, messages)
        if len(ids) >= self.context:
            raise EngineError(
                f"The prompt is {len(ids):,} tokens long and the model's context holds {self.context:,}; shorten the prompt."
            )
        return ids

    # --- label logits -----------------------------------------------------------------------------------------------------------

    def labelling(self, requests: Sequence[LabelRequest], call: Call) -> Iterator[list[LabelResult]]:
        """As `generation`: one forward a turn."""
        self._calls.add(call)
        prompts: list[LabelPrompt] = []
        try:
            prompts, refused = self._label_prompts(requests)
            yield refused
            waiting = label_batches(prompts, self._budget())
            while waiting:
                batch = waiting.pop(0)
                if call.cancelled:
                    yield [LabelResult(p.index, (), error="It was cancelled.") for p in batch]
                    continue
                try:
                    yield self._label_batch(batch)
                except torch.OutOfMemoryError:
                    if len(batch) == 1:
                        yield [LabelResult(batch[0].index, (), error=NO_MEMORY)]
                    else:
                        waiting[:0] = _halves(batch)
        finally:
            self._calls.discard(call)
            self._in_use.subtract(prompt.adapter for prompt in prompts)

    def _label_prompts(self, requests: Sequence[LabelRequest]) -> tuple[list[LabelPrompt], list[LabelResult]]:
        prompts: list[LabelPrompt] = []
        refused: list[LabelResult] = []
        for index, request in enumerate(requests):
            try:
                ids = self._fitting(request.messages)
                spellings(self.tokenizer, request.labels)
                adapter = self.adapter(self.spec.adapter if request.adapter is None else request.adapter)
            except EngineError as error:
                refused.append(LabelResult(index, (), error=str(error)))
                continue
            self._in_use[adapter] += 1
            prompts.append(LabelPrompt(index, ids, adapter, request.labels))
        return prompts, refused

    @torch.inference_mode()
    def _label_batch(self, batch: Sequence[LabelPrompt]) -> list[LabelResult]:
        ids, mask = left_padded([p.ids for p in batch], self.tokenizer.pad_token_id, self.forward.device)
        logits = self.forward.logits(ids, mask, [p.adapter for p in batch])
        odds = torch.log_softmax(logits, dim=-1).cpu()
        return [read_labels(self.tokenizer, prompt, row) for prompt, row in zip(batch, odds, strict=True)]

    # --- adapters and memory ----------------------------------------------------------------------------------------------------

    def adapter(self, folder: str) -> str:
        """peft's name of the adapter in `folder` ('' = none), attached when it is not yet; EngineError when it is broken."""
        if not folder:
            return BASE
        name = _adapter_name(Path(folder))
        if name not in self._adapters:
            config = check_adapter(self.model, folder)
            if config.get("use_dora") or config.get("bias", "none") != "none":
                raise EngineError(f"The adapter {Path(folder).name} uses DoRA or biases, which cannot be mixed; export it merged.")
            self._make_room()
            self.model = attach_adapter(self.model, folder, name).eval()
            self.forward.hook_adapters()
            self._adapters[name] = None
        self._adapters.move_to_end(name)
        return name

    def _make_room(self) -> None:
        idle = [name for name in self._adapters if not self._in_use[name]]
        if len(self._adapters) >= MAX_ADAPTERS and idle and isinstance(self.model, PeftModel):
            self.model.delete_adapter(idle[0])
            del self._adapters[idle[0]]

    @property
    def busy(self) -> bool:
        return bool(self._calls)

    def _budget(self) -> Budget:
        config = self.model.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None) or 1
        head = getattr(config, "head_dim", None) or config.hidden_size // (getattr(config, "num_attention_heads", None) or 1)
        a_token = 2 * config.num_hidden_layers * heads * head * self.model.dtype.itemsize
        if device().type == "cuda":
            free, _ = torch.cuda.mem_get_info()
            return Budget(256, max(1, int(free * 0.4 / a_token)), 65_536)
        return Budget(64, max(1, int(min(2**30, psutil.virtual_memory().available * 0.2) / a_token)), 8_192)


def _adapter_name(folder: Path) -> str:
    """Changes with the file, so an adapter that was trained again under the same path is not taken for the old one."""
    try:
        stat = (folder / "adapter_model.safetensors").stat()
    except OSError:
        return "missing"  # check_adapter says what is wrong; nothing is ever attached under this name
    return "a" + hashlib.sha256(f"{folder.resolve()}:{stat.st_mtime_ns}:{stat.st_size}".encode()).hexdigest()[:16]


def _halves(batch: list[T]) -> list[list[T]]:
    middle = (len(batch) + 1) // 2
    return [part for part in (batch[:middle], batch[middle:]) if part]


def _result(row: Row) -> GenResult:
    return GenResult(row.index, row.buffer.text, row.reason or "cancelled", row.tokens, row.error)


def _failed(row: Row, why: str) -> GenResult:
    row.end("error", why)
    return _result(row)
