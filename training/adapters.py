"""What the trainers share: a base made ready for training, the arguments common to all of TRL's trainers, and the end of a run.

Imported inside the trainers' `main`, because it needs torch. Everything that differs between methods stays in `sft.py`, `dpo.py`,
`kto.py`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel

from data.engine import ModelSpec
from data.errors import RunError
from data.resume import FOLDER, discard
from data.rundir import RunDir
from training import reporting
from training.chat import TEMPLATE_KWARGS, Tokenizer, end_of_turn_ids
from training.checkpoints import Checkpoints
from training.config import KtoConfig, Method, TrainConfig
from training.export import Lineage, save_adapter, save_model, weights_sha256
from training.loop import Job
from training.models import attach_adapter, context_length, has_bf16, load_base, load_tokenizer
from training.ranks import even_batch, is_first, several, sharding, wait_for_all, whole_weights
from training.rows import NO_ROWS, Dropped, Row, Rows, longest_text

_SHORT = 1000  # letters of a row whose attention scores weigh nothing


class Trainable(NamedTuple):
    """A base with its tokenizer. `lora` makes a new adapter; it is None over a parent adapter, which is trained on instead, and
    where all weights are trained."""

    model: Any
    tokenizer: Tokenizer
    lora: LoraConfig | None
    limit: int  # longest sequence in tokens: the setting or the model's context, whichever is less
    ends: frozenset[int]  # token ids at which generation stops
    parent: dict[str, torch.Tensor]  # the parent adapter's weights by parameter name, empty without one


def load_trainable(spec: ModelSpec, config: TrainConfig, rows: Rows = NO_ROWS) -> Trainable:
    """The base of `spec` as `config.tuning` says, under its parent adapter if it has one; `rows` are what it will see.

    Full tuning holds all weights in fp32, a parent adapter merged into them: steps of 1e-6 would round to nothing in bf16.
    """
    full = config.tuning == "full"
    tokenizer = load_tokenizer(spec.base)
    dtype = torch.float32 if full else _dtype(config)
    model: Any = load_base(replace(spec, quantize=config.tuning == "qlora"), for_training=True, dtype=dtype)
    if model.device.type == "cpu" and longest_text(rows) < _SHORT:
        model.set_attn_implementation("eager")  # on a CPU the fused kernel's backward takes a sixth of a step over short rows
    limit = min(config.max_length, context_length(model))
    ends = end_of_turn_ids(tokenizer, model)
    if full:
        whole = attach_adapter(model, spec.adapter).merge_and_unload() if spec.adapter else model
        return Trainable(whole.requires_grad_(True), tokenizer, None, limit, ends, {})
    if spec.adapter:
        model = attach_adapter(model, spec.adapter, trainable=True)
        parent = {name: p.detach().float().clone() for name, p in model.named_parameters() if p.requires_grad}
        return Trainable(model, tokenizer, None, limit, ends, parent)
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return Trainable(model, tokenizer, lora, limit, ends, {})


def common_args(run: RunDir, config: TrainConfig, rows: Rows, limit: int) -> dict[str, Any]:
    """Arguments that mean the same to every trainer of TRL; no pickle."""
    on_gpu = torch.cuda.is_available()
    check_devices()
    return {
        "output_dir": str(run.path / FOLDER),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": _held_out_batch(config, len(rows.held_out)),
        "gradient_accumulation_steps": config.accumulation,
        "gradient_checkpointing": config.checkpointing,
        "max_length": limit,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_share,  # below 1 it is a share of the steps
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "logging_steps": config.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # else a loss that is not a number is replaced by the average so far
        "eval_strategy": ("steps" if config.eval_every else "epoch") if rows.held_out else "no",
        "eval_steps": config.eval_every or None,
        "save_strategy": "no",  # `training/checkpoints.py` says when
        **reporting.arguments(run, config.report_to),
        "disable_tqdm": True,
        "seed": config.seed,
        "use_cpu": not on_gpu,  # without it TRL's bf16 default raises where there is no GPU
        "bf16": uses_bf16(config),
        "dataloader_pin_memory": on_gpu,
        "ddp_backend": "gloo" if several() and not on_gpu else None,
        "ddp_find_unused_parameters": False if several() else None,  # there are none, and looking for them costs every step
    }


def check_devices() -> None:
    """RunError where accelerate would leave every process its own copy without a word."""
    if sharding() and not torch.cuda.is_available():
        raise RunError("Weights are cut up among GPUs only (FSDP, DeepSpeed); choose whole copies (DDP) on a CPU.")


def _held_out_batch(config: TrainConfig, rows: int) -> int:
    """KTO's rows were dealt into batches, and stay in them."""
    return config.batch_size if isinstance(config, KtoConfig) else even_batch(rows, config.batch_size)


def trl_trainer(kind: Any, job: Job, args: Any, rows: Rows, **more: Any) -> Any:
    """One of TRL's trainers over the job's base, ready to train; `more` are arguments of this trainer alone."""
    job.run.event("log", text="Trained by TRL.")
    if job.split > 1:  # the same rows a step, fewer of them at a time
        args.per_device_train_batch_size //= job.split
        args.per_device_eval_batch_size = args.per_device_train_batch_size
        args.gradient_accumulation_steps *= job.split
        if getattr(args, "steps_per_generation", None):  # counted in these smaller batches too
            args.steps_per_generation *= job.split
    trainer = kind(
        model=job.start.model,
        args=args,
        train_dataset=as_dataset(rows.train),
        eval_dataset=as_dataset(rows.held_out),
        processing_class=job.start.tokenizer,
        peft_config=job.start.lora,
        callbacks=[job.events],
        **more,
    )
    hold_in_float32(trainer.model, job.start.parent)
    return trainer


def uses_bf16(config: TrainConfig) -> bool:
    return has_bf16() if config.precision == "auto" else config.precision == "bf16"


def _dtype(config: TrainConfig) -> torch.dtype:
    return torch.bfloat16 if uses_bf16(config) else torch.float32


def reference_model(start: Trainable) -> Any:
    """What TRL compares with where all weights are trained: a copy, because nothing can be switched off; None for an adapter."""
    full = not isinstance(start.model, PeftModel) and start.lora is None
    return copy.deepcopy(start.model).requires_grad_(False).eval() if full else None


def as_dataset(rows: Sequence[Row]) -> Dataset | None:
    """Rows for TRL, told to render its chat template as sampling does; None when there are none."""
    return Dataset.from_list([{**row, "chat_template_kwargs": TEMPLATE_KWARGS} for row in rows]) if rows else None


def hold_in_float32(model: torch.nn.Module, parent: dict[str, torch.Tensor]) -> None:
    """Trained weights in float32, a parent's as they were: TRL rounds a QLoRA adapter to bf16.

    There a small learning rate rounds to no change at all, and the policy would start beside its own reference.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parent.get(name, parameter.data).float().to(parameter.device)


def finish(
    run: RunDir, method: Method, spec: ModelSpec, config: TrainConfig, checkpoints: Checkpoints, first_loss: float | None
) -> dict[str, Any]:
    """Save the adapter or the whole model, whether training ended or was stopped, and say what came out; a run that is over needs
    no checkpoints."""
    trainer, events = checkpoints.trainer, checkpoints.events
    steps = int(trainer.state.global_step)
    best = checkpoints.keep_best()
    record = run.config()
    lineage = Lineage(
        method, spec.base, spec.adapter, config.to_json(), record.get("data", {}), record.get("versions", {}), events.final(), best
    )
    full = config.tuning == "full"
    made = "model" if full else "adapter"
    weights = whole_weights(trainer) if full or sharding() else None  # every process must take part
    if is_first() and full:
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_model(model, weights or {}, load_tokenizer(spec.base), run.path / made, lineage)
    elif is_first():
        save_adapter(trainer.model, run.path / made, lineage, weights)
    wait_for_all()
    if is_first() and not run.stop_requested:
        discard(run.path)
    return {
        made: made,
        f"{made}_sha256": weights_sha256(run.path / made),
        "steps": steps,
        "seconds": round(time.monotonic() - events.started, 1),
        "first_loss": first_loss,
        "metrics": events.final(),
    } | checkpoints.result()


def log_dropped(run: RunDir, dropped: Dropped) -> None:
    """Say how many rows are left out or cut, and why; which ones they are stands in the log."""
    for sentence in dropped.sentences():
        run.event("log", text=sentence)
    for line in dropped.named():
        print(line)
