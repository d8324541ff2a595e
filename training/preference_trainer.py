"""A preference method as a training loop: transformers' Trainer around our own step.

The Trainer gives what is the same everywhere: optimiser, schedule, accumulation, callbacks, evaluation, events. Ours is what it is
fed (`preference_rows`), how a batch's loss is computed (`preference_step`, `preference_objectives`), and the reference's
log-probabilities, which are known before the first step: from the cache, or computed once with the model as it is then. The model
before the run is the reference of its rows, so no second copy of it is held. One device; of the methods that TRL has not, several
(`preference_ranks`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel, get_peft_model
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, set_seed

from data.engine import ModelSpec
from data.errors import RunError
from data.rundir import RunDir
from data.words import count
from training.adapters import Trainable, common_args, hold_in_float32, uses_bf16
from training.callbacks import RunEvents
from training.config import TrainConfig
from training.fused_lora import fuse
from training.loop import Job
from training.preference_memory import must_recompute, part_tokens
from training.preference_objectives import Objective, Whole
from training.preference_ranks import add_up_gradients, of_all, share
from training.preference_rows import Item, Layout, deal, parts
from training.preference_step import BASE, Scorer, Scores, quicken, trusted_layout
from training.ranks import processes, whole_copies
from training.reference_cache import ReferenceCache, cache_folder, weights_id
from training.rows import Say, longest_text

_LETTERS = 4  # of a text a token, as `longest_text` counts both turns; roughly


class Plan(NamedTuple):
    """What a method asks of the loop: its loss, its rows as tokens. `dealt`: the rows come in batches and stay in them (KTO)."""

    objective: Objective
    train: Sequence[Item]
    held_out: Sequence[Item]
    dealt: bool = False


def studio_layout(job: Job, several: bool = False) -> Layout | None:
    """How our own step would lay out the rows; None when TRL has to train: asked for, several devices, a family that disagrees.

    `several`: whether it may also be one of several processes with a whole copy each.
    """
    fits = several and whole_copies() if processes() > 1 else torch.cuda.device_count() <= 1
    if not fits or getattr(job.config, "backend", "studio") != "studio":
        return None
    start = job.start
    quicken(start.model, longest_text(job.rows) // _LETTERS)
    return trusted_layout(start.model, start.tokenizer.pad_token_id, start.limit, uses_bf16(job.config))


def studio_trainer(job: Job, plan: Plan, layout: Layout) -> PreferenceTrainer:
    """Ready to train, the reference computed or read, what it does said in the run's log."""
    run, config, start = job.run, job.config, job.start
    common = common_args(run, config, job.rows, start.limit)
    del common["max_length"]  # TRL's alone
    set_seed(config.seed)
    model = start.model if start.lora is None else get_peft_model(start.model, start.lora)
    hold_in_float32(model, start.parent)
    scorer = Scorer(model, start.tokenizer.pad_token_id, layout, uses_bf16(config))
    if not config.checkpointing and must_recompute(model, plan.train, layout):
        common["gradient_checkpointing"] = True
        run.event("log", text="Memory is short, so activations are computed again instead of kept: about a third slower.")
    trainer = PreferenceTrainer(TrainingArguments(**common), scorer, plan, job.events, job.split)
    how = "each prompt is computed once for both answers" if layout == "shared" else "each answer with a copy of its prompt"
    if len(plan.train[0].completions) == 1 and not plan.dealt:
        how = "rows of like length together"
    run.event("log", text=f"Trained by the studio's own code instead of TRL's: {how}.")
    if plan.objective.needs_reference:
        cache = reference_cache(run, config, start, scorer)
        trainer.refer(cache, over_parent=start.lora is None, say=job.say)
        if cache and cache.hits:
            run.event("log", text=f"Reference: {count(cache.hits, 'answer')} known from earlier runs, {cache.misses} computed.")
    return trainer


def reference_cache(run: RunDir, config: TrainConfig, start: Trainable, scorer: Scorer) -> ReferenceCache | None:
    """The cache of this run's reference; None when the weights cannot be told from others."""
    spec = ModelSpec.from_json(run.config()["args"]["model"])
    revision = getattr(start.model.config, "_commit_hash", None)
    try:
        reference = {
            "base": f"{spec.base}@{revision}" if revision else weights_id(spec.base),
            "parent": weights_id(spec.adapter) if spec.adapter else "",
            "template": start.tokenizer.chat_template,
            "arithmetic": [config.tuning, scorer.autocast, str(scorer.model.dtype), scorer.device.type, scorer.layout],
        }
    except OSError:
        return None
    return ReferenceCache(cache_folder(run), reference)


class PreferenceTrainer(Trainer):
    """Trains the active adapter of `scorer.model`; call `refer` first where the objective needs a reference."""

    def __init__(
        self, args: TrainingArguments, scorer: Scorer, plan: Plan, events: RunEvents | None = None, split: int = 1
    ) -> None:
        self.scorer, self.objective, self._dealt = scorer, plan.objective, plan.dealt
        self.rows, self.held_out = list(plan.train), list(plan.held_out)
        self._split = split  # a batch is always taken in parts: when memory ran out, in smaller ones of fewer rows
        self._budget = part_tokens(scorer.model, args.gradient_checkpointing) // split
        self._seen: dict[str, dict[str, list[tuple[float, float]]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._tokens = 0
        super().__init__(
            model=scorer.model,
            args=args,
            train_dataset=self.rows,
            eval_dataset=self.held_out or None,
            callbacks=[events] if events else None,
        )
        self.model_accepts_loss_kwargs = False
        _prepare(self.model, args)

    # --- the reference --------------------------------------------------------------------------------------------------------

    def refer(self, cache: ReferenceCache | None, over_parent: bool, say: Say) -> None:
        """Give every row the reference's log-probabilities, before the first step. `over_parent`: the adapter as it is is the
        reference, else the base."""
        if not self.objective.needs_reference:
            return
        wanted = [row for item in [*self.rows, *self.held_out] for row in ([item, item.with_other()] if item.other else [item])]
        known = _Reference(self.scorer, cache, None if over_parent else BASE, self._budget)
        known.learn(wanted, say)
        self.rows, self.held_out = ([item.refer(known.of(item)) for item in part] for part in (self.rows, self.held_out))

    # --- data -----------------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        size = self.args.per_device_train_batch_size * processes()
        sampler = _Batches(self.rows, size, self.args.seed, in_order=self._dealt)
        return _Loader(self.rows, batch_sampler=sampler, collate_fn=list)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        rows = self.held_out if self._dealt else sorted(self.held_out, key=lambda item: item.length)
        sampler = _Batches(rows, self.args.per_device_eval_batch_size * processes(), 0, in_order=True)
        return _Loader(rows, batch_sampler=sampler, collate_fn=list)

    # --- a step ---------------------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[list[Item]], Any]:
        """A step's batches, and the mean number of tokens that they imitate."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(item.completions[0]) for batch in batches for item in batch) / max(1, len(batches))

    def training_step(self, model: Any, inputs: list[Item], num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        loss = self._over_parts(inputs, "train", num_items_in_batch)
        if self.accelerator.sync_gradients:
            add_up_gradients(self.scorer.model)
        return loss / self.current_gradient_accumulation_steps

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        with torch.no_grad():
            return self._over_parts(inputs, "eval"), None, None

    def _over_parts(self, items: list[Item], mode: str, tokens: float | None = None) -> torch.Tensor:
        """The batch's loss; in training the gradient of this process's share of the rows is added up part by part."""
        whole = self._whole(items, tokens)
        total, order, found = torch.zeros((), device=self.scorer.device), [], []
        for part in self._parts(share(items), self.scorer.layout):
            loss, scores = self._part(part, whole)
            if mode == "train":
                (loss / self.current_gradient_accumulation_steps).backward()
            total += loss.detach()
            order += part
            found.append(scores.detach())
        order, scores = of_all(items, total, order, found)
        self._note(mode, order, scores, whole)
        if mode == "eval":
            self._seen[mode]["loss"].append((float(total), self.objective.size(whole)))
        return total

    def _parts(self, items: Sequence[Item], layout: Layout) -> Iterator[list[Item]]:
        rows = max(1, math.ceil(len(items) / self._split))
        for first in range(0, len(items), rows):
            yield from parts(items[first : first + rows], layout, self._budget)

    def _part(self, items: list[Item], whole: Whole) -> tuple[torch.Tensor, Scores]:
        """The rows' share of their batch's loss."""
        scores = self.scorer.logps(items)
        return self.objective.loss(items, scores, whole), scores

    def _whole(self, items: list[Item], tokens: float | None = None) -> Whole:
        kl = torch.zeros((), device=self.scorer.device)
        if items[0].other:
            with torch.no_grad():
                for part in self._parts([item.with_other().refer(item.reference[1:]) for item in items], "apart"):
                    reference = torch.tensor([item.reference[0] for item in part], device=kl.device)
                    kl += (self.scorer.logps(part).sums[:, 0] - reference).sum()
            kl = (kl / len(items)).clamp(min=0)
        return Whole(len(items), tokens or sum(len(item.completions[0]) for item in items), kl)

    def batch_loss(self, items: list[Item], objective: Objective) -> float:
        """The loss of some rows under another objective, without a trace in the metrics."""
        kept, self.objective = self.objective, objective
        try:
            whole = self._whole(items)
            with torch.no_grad():
                found = [self._part(part, whole)[0] for part in self._parts(items, self.scorer.layout)]
        finally:
            self.objective = kept
        return float(sum(float(loss) for loss in found))

    # --- what it says ---------------------------------------------------------------------------------------------------------

    def _note(self, mode: str, items: list[Item], scores: Scores, whole: Whole) -> None:
        for name, value in self.objective.metrics(items, scores, whole).items():
            self._seen[mode][name].append((value, self.objective.size(whole)))
        if mode == "train":
            self._tokens += sum(len(item.prompt) + len(completion) for item in items for completion in item.completions)
        self._seen[mode]["num_tokens"] = [(self._tokens, 1.0)]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the means of what was seen, each batch counted by its size: the last one is often smaller. So is the held-out loss,
        where transformers counts every batch alike if it cannot tell their sizes."""
        mode = "train" if self.model.training else "eval"
        prefix = "eval_" if mode == "eval" else ""
        logs.update({f"{prefix}{name}": _mean(seen) for name, seen in self._seen[mode].items()})
        super().log(logs, start_time)
        self._seen[mode].clear()

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # not told, and not to be guessed from a batch that is no dictionary


def _mean(seen: Sequence[tuple[float, float]]) -> float:
    """Of values with their weights."""
    return sum(value * weight for value, weight in seen) / sum(weight for _, weight in seen)


class _Reference:
    """Log-probabilities under the reference of whatever rows are asked for."""

    def __init__(self, scorer: Scorer, cache: ReferenceCache | None, adapter: str | None, budget: int) -> None:
        self._scorer, self._cache, self._adapter, self._budget = scorer, cache, adapter, budget
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}

    def of(self, item: Item) -> tuple[float, ...]:
        """Of the row's completions, then of the other prompt's if it has one."""
        return tuple(
            self._known[item.prompt, completion] for completion in (*item.completions, *([item.other] if item.other else []))
        )

    def learn(self, items: Sequence[Item], say: Say) -> None:
        missing = [item for item in items if not self._from_cache(item)]
        self._scorer.model.eval()
        done = 0
        with torch.no_grad():
            for part in parts(missing, self._scorer.layout, self._budget):
                say("computing the reference", done, len(missing))
                self._keep(part, self._scorer.logps(part, self._adapter))
                done += len(part)

    def _from_cache(self, item: Item) -> bool:
        found = [self._cache.get(item.prompt, completion) if self._cache else None for completion in item.completions]
        for completion, value in zip(item.completions, found, strict=True):
            if value is not None:
                self._known[item.prompt, completion] = value
        return None not in found

    def _keep(self, part: Sequence[Item], scores: Scores) -> None:
        rows = [
            (item.prompt, completion, value)
            for item, values in zip(part, scores.sums.tolist(), strict=True)
            for completion, value in zip(item.completions, values, strict=True)
        ]
        if not all(math.isfinite(value) for _, _, value in rows):
            raise RunError("The model before the run gives a log-probability that is no number; choose another base.")
        self._known |= {(prompt, completion): value for prompt, completion, value in rows}
        if self._cache:
            self._cache.put(rows)


class _Batches:
    """Indices of an epoch's batches: dealt anew each epoch, or the rows in their order."""

    def __init__(self, rows: Sequence[Item], size: int, seed: int, in_order: bool) -> None:
        self._lengths, self._size, self._seed, self._epoch = [row.length for row in rows], size, seed, 0
        self._in_order = in_order

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        if not self._in_order:
            return iter(deal(self._lengths, self._size, self._seed, self._epoch))
        order = range(len(self._lengths))
        return iter([list(order[start : start + self._size]) for start in range(0, len(order), self._size)])


class _Loader(DataLoader):
    """Tells its sampler which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


def _prepare(model: Any, args: TrainingArguments) -> None:
    """No dropout, so that policy and reference agree at the start; gradients through recomputed layers of a frozen base."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    fuse(model)
    if args.gradient_checkpointing and isinstance(model, PeftModel):
        model.enable_input_require_grads()
