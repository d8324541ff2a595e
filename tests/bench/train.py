"""How fast and how big a training step is, against TRL: `make bench-train`, or `python -m tests.bench.train --rounds 1 --steps 1`.

Every contender runs in a process of its own (its peak memory is the process's), one after the other, round by round; the figures
are medians over rounds of a step's median time. All train the same rows on the same random weights through a Trainer's loop,
optimiser included; the reference's log-probabilities are computed before the first step where a contender can do that.

    trl-default   TRL as it comes (bf16 autocast over fp32 weights, recomputed activations, the reference in every step)
    trl-tuned     bf16 weights, activations kept, the reference computed before
    studio        this repository's step
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.table import Row, at_least, publish

CONTENDERS = ("trl-default", "trl-tuned", "studio")
PACKAGES = ("torch", "transformers", "trl", "peft")
VOCABULARY, END = 49_152, 2
SHAPE: dict[str, Any] = {  # SmolLM2-135M
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
    "vocab_size": VOCABULARY, "max_position_embeddings": 8192, "tie_word_embeddings": True, "rope_theta": 100_000.0,
    "pad_token_id": END, "bos_token_id": 1, "eos_token_id": END,
}  # fmt: skip
PAIRS, PROMPT, COMPLETION = 4, (94, 276), (56, 235)  # rows a step, lengths in tokens
BETA = 0.1


class Figures(NamedTuple):
    """Of one process: seconds a step, of the clock and of the processor, peak resident memory in MB, the losses."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    losses: list[float]


def pairs() -> list[tuple[list[int], list[int], list[int]]]:
    """Prompt, chosen and rejected token ids; the extremes of the lengths are among them."""
    rng = random.Random(0)
    prompts = [*PROMPT, *(rng.randint(*PROMPT) for _ in range(PAIRS - 2))]
    completions = [*COMPLETION, *(rng.randint(*COMPLETION) for _ in range(2 * PAIRS - 2))]
    rng.shuffle(completions)
    words = iter([[rng.randrange(10, VOCABULARY) for _ in range(n)] for n in [*prompts, *completions]])
    asked = [next(words) for _ in range(PAIRS)]
    return [(prompt, [*next(words)[:-1], END], [*next(words)[:-1], END]) for prompt in asked]


# --- one contender, in a process of its own -----------------------------------------------------------------------------------


def worker(contender: str, steps: int) -> None:
    losses, times = _train(contender, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    print(json.dumps(Figures(wall, cpu, peak, losses)._asdict()), flush=True)


def _train(contender: str, steps: int) -> tuple[list[float], list[tuple[float, float]]]:
    """The losses, and the seconds of each step after the first: of the clock, of the processor."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

    class Clock(TrainerCallback):
        times: list[tuple[float, float]] = []
        began = (0.0, 0.0)

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = (time.perf_counter(), time.process_time())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.times.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))

    torch.manual_seed(0)
    dtype = torch.float32 if contender == "trl-default" else torch.bfloat16
    model = LlamaForCausalLM._from_config(LlamaConfig(**SHAPE), attn_implementation="sdpa", dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder, "max_steps": 1 + steps, "per_device_train_batch_size": PAIRS, "learning_rate": 1e-4,
            "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "seed": 0,
            "use_cpu": not torch.cuda.is_available(),
        }  # fmt: skip
        trainer = _studio(model, common) if contender == "studio" else _trl(model, common, contender == "trl-tuned")
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], clock.times[1:]


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def _trl(model: Any, common: dict[str, Any], tuned: bool) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    own = {"gradient_checkpointing": False, "precompute_ref_log_probs": True} if tuned else {}
    names = ("prompt", "chosen", "rejected")
    rows = [{name: " ".join(map(_word, ids)) for name, ids in zip(names, pair, strict=True)} for pair in pairs()]
    rows = [{**row, "chosen": " " + row["chosen"], "rejected": " " + row["rejected"]} for row in rows]
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(**common, **own, beta=BETA),
        train_dataset=Dataset.from_list(rows),
        processing_class=_words(),
        peft_config=_lora(),
    )
    found = [tuple(trainer.train_dataset[i][f"{name}_ids"] for name in names) for i in range(PAIRS)]
    assert found == [tuple(pair) for pair in pairs()], "TRL trains on the very tokens"
    return trainer


def _studio(model: Any, common: dict[str, Any]) -> Any:
    import torch
    from peft import get_peft_model
    from transformers import TrainingArguments

    from training.models import has_bf16
    from training.preference_objectives import Dpo
    from training.preference_rows import Item
    from training.preference_step import Scorer, quicken, trusted_layout
    from training.preference_trainer import Plan, PreferenceTrainer

    model = model if has_bf16() else model.to(torch.float32)
    quicken(model, max(sum(map(len, pair)) for pair in pairs()))
    layout = trusted_layout(model, END, 1024, has_bf16())
    assert layout == "shared"
    scorer = Scorer(get_peft_model(model, _lora()), END, layout, has_bf16())
    rows = [Item(tuple(prompt), (tuple(chosen), tuple(rejected))) for prompt, chosen, rejected in pairs()]
    args = TrainingArguments(**common, bf16=has_bf16())
    trainer = PreferenceTrainer(args, scorer, Plan(Dpo("sigmoid", BETA), rows, []))
    trainer.refer(None, over_parent=False, say=lambda what, done, total: None)
    return trainer


def _words() -> Any:
    """A tokenizer in which the word w7 is token 7."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({_word(i): i for i in range(VOCABULARY)}, unk_token=_word(0)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=_word(END), pad_token=_word(END), unk_token=_word(0))


def _word(token: int) -> str:
    """Special tokens are found inside other words, so theirs are none."""
    return {0: "<unknown>", END: "<end>"}.get(token, f"w{token}")


# --- all of them ----------------------------------------------------------------------------------------------------------------


def measure(contender: str, steps: int) -> Figures:
    command = [sys.executable, "-m", "tests.bench.train", "--worker", contender, "--steps", str(steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    figures = Figures(**json.loads(done.stdout.strip().splitlines()[-1]))
    took = f"{figures.seconds:.1f} s a step ({figures.cpu_seconds:.1f} s of the processor)"
    print(f"{contender}: {took}, {figures.peak_mb:.0f} MB, losses {figures.losses}", flush=True)
    return figures


def table(found: dict[str, list[Figures]]) -> list[Row]:
    seconds = {name: statistics.median(f.seconds for f in runs) for name, runs in found.items()}
    peak = {name: statistics.median(f.peak_mb for f in runs) for name, runs in found.items()}
    what = f"DPO, SmolLM2-135M shape, LoRA r16, {PAIRS} pairs of {PROMPT[0]}-{PROMPT[1]} + {COMPLETION[0]}-{COMPLETION[1]} tokens"
    rows = []
    for peer, bar in (("trl-default", 3.5), ("trl-tuned", 2.5)):
        ratio = seconds[peer] / seconds["studio"]
        row = at_least(f"{what}: against {peer}", ratio, bar)
        rows.append(
            Row(row.what, round(seconds["studio"], 2), "s/step", round(seconds[peer], 2), round(ratio, 2), row.bar, row.met)
        )
    most = max(peak["trl-default"], peak["trl-tuned"])
    rows.append(
        Row("peak memory of the process, against TRL's (tuned, default)", round(peak["studio"]), "MB",
            f"{peak['trl-tuned']:.0f}, {peak['trl-default']:.0f}", round(most / peak["studio"], 2), "<= TRL tuned",
            peak["studio"] <= peak["trl-tuned"])
    )  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a process, after one that is not")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.worker:
        worker(flags.worker, flags.steps)
        return 0
    found: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    for _ in range(flags.rounds):
        for name in CONTENDERS:
            found[name].append(measure(name, flags.steps))
    return 0 if publish("train", table(found), PACKAGES) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
