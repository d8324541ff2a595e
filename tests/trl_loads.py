"""Loads exported files with `datasets` and trains a step on each with TRL's own trainers, for test_data_exporters.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import load_dataset
from tiny_model import save_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

TRAINERS: dict[str, Any] = {
    "dpo": (DPOTrainer, DPOConfig),
    "kto": (KTOTrainer, KTOConfig),
    "sft": (SFTTrainer, SFTConfig),
    "reward": (RewardTrainer, RewardConfig),
}


def first_loss(folder: Path, base: Path, name: str, lines: str, table: str) -> float:
    rows = load_dataset("json", data_files=lines, split="train", cache_dir=str(folder / "cache"))
    same = load_dataset("parquet", data_files=table, split="train", cache_dir=str(folder / "cache"))
    assert rows.to_list() == same.to_list(), name
    trainer_class, config_class = TRAINERS[name.split()[0]]
    args = config_class(
        output_dir=str(folder / name.replace(" ", "-")), max_steps=1, per_device_train_batch_size=4, logging_steps=1,
        use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = trainer_class(
        model=_model(name.split()[0], base),
        args=args,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.train()
    return float(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))


def _model(layout: str, base: Path) -> Any:
    if layout == "reward":
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    return AutoModelForCausalLM.from_pretrained(base)


def first_losses(folder: Path, files: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """By name, which begins with the layout; the files are JSON lines and Parquet."""
    base = save_model(folder / "base")
    return {name: first_loss(folder, base, name, *paths) for name, paths in files.items()}
