"""One contender of `make bench-train`, in a process of its own that works only when it is its turn.

    python -m tests.bench.train_contender JSON      # a line on stdin = go on; a line of JSON on stdout = what that took

Turns: the trainer is made ready (rows tokenised, the reference computed where the contender does that before the first step), then
one optimiser step each, loading its rows and logging the step before it included. All train the same rows from the same random
weights through a Trainer's loop: LoRA r16 on all linear layers, AdamW, as many steps.

    trl-default   TRL as it comes (bf16 autocast over fp32 weights, recomputed activations, the reference in every step)
    trl-tuned     bf16 weights, activations kept, the reference computed before, its disk cache at hand
    studio        this repository's step, its cache at hand
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TextIO

Who = Literal["trl-default", "trl-tuned", "studio"]
Method = Literal["dpo", "kto", "orpo", "sft"]
END: Final = 2
LLAMA: Final[dict[str, Any]] = {"pad_token_id": END, "bos_token_id": 1, "eos_token_id": END, "max_position_embeddings": 8192}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "SmolLM2-135M": {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
        "vocab_size": 49_152, "tie_word_embeddings": True, "rope_theta": 100_000.0,
    },
    "Llama-1B": {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True, "head_dim": 64,
    },
    "Llama-8B": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14_336, "vocab_size": 128_256, "tie_word_embeddings": False,
    },
}  # fmt: skip
Tokens = list[int]
Pair = tuple[Tokens, Tokens, Tokens]  # prompt, chosen, rejected


@dataclass(frozen=True)
class Contender:
    """Who trains what. `folder` outlasts the process: caches lie there."""

    who: Who
    folder: str
    method: Method = "dpo"
    pairs: int = 4
    prompt: tuple[int, int] = (94, 276)  # tokens, from and to
    completion: tuple[int, int] = (56, 235)
    batch: int = 4  # pairs a step; KTO takes them apart
    steps: int = 4
    beta: float = 0.1
    shape: str = "SmolLM2-135M"
    layers: int = 0  # 0 = as many as the shape has
    nf4: bool = False

    @property
    def sizes(self) -> dict[str, Any]:
        sizes = LLAMA | SHAPES[self.shape]
        return sizes | ({"num_hidden_layers": self.layers} if self.layers else {})

    @property
    def rows_a_step(self) -> int:
        return self.batch * (2 if self.method == "kto" else 1)


class Turn(NamedTuple):
    """Seconds of the clock and of the processor; peak memory so far in MB, the GPU's where there is one."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def pairs_of(contender: Contender) -> list[Pair]:
    """Random token ids; the extremes of the lengths are among them."""
    rng = random.Random(0)
    count, vocabulary = contender.pairs, contender.sizes["vocab_size"]
    prompts = [*contender.prompt, *(rng.randint(*contender.prompt) for _ in range(count - 2))]
    completions = [*contender.completion, *(rng.randint(*contender.completion) for _ in range(2 * count - 2))]
    rng.shuffle(completions)
    words = iter([[rng.randrange(10, vocabulary) for _ in range(n)] for n in [*prompts, *completions]])
    asked = [next(words) for _ in range(count)]
    return [(prompt, [*next(words)[:-1], END], [*next(words)[:-1], END]) for prompt in asked]


# --- turns ----------------------------------------------------------------------------------------------------------------------


class Turns:
    """Waits for its turn and answers what it took. It keeps stdout to itself; what libraries print goes to stderr."""

    def __init__(self) -> None:
        self._answers: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._wall = self._cpu = 0.0

    def begin(self) -> None:
        if not sys.stdin.readline():
            sys.exit("nobody waits for an answer any more")
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        peak = _peak_mb()  # waits for the GPU
        self.say(Turn(time.perf_counter() - self._wall, time.process_time() - self._cpu, peak)._asdict())

    def say(self, answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    turns = Turns()
    raw = json.loads(sys.argv[1])
    contender = Contender(**{name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()})
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            turns.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            turns.end()
            if state.global_step < state.max_steps:
                turns.begin()

    model = _model(contender)
    torch.manual_seed(0)  # every adapter starts alike: TRL sets the seed of its arguments before it makes one
    turns.begin()
    trainer = _studio(model, contender) if contender.who == "studio" else _trl(model, contender)
    turns.end()
    trainer.add_callback(Clock())
    trainer.train()
    turns.say({"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]})


# --- models and arguments -------------------------------------------------------------------------------------------------------


def _model(contender: Contender) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from training.models import compute_dtype, device

    if contender.nf4:
        return _nf4(contender)
    torch.manual_seed(0)
    dtype = torch.float32 if contender.who == "trl-default" else compute_dtype()
    with torch.device(device()):
        return LlamaForCausalLM._from_config(LlamaConfig(**contender.sizes), attn_implementation="sdpa", dtype=dtype)


def _nf4(contender: Contender) -> Any:
    """The same weights as a folder, loaded as the studio loads them."""
    from dataclasses import replace

    from data.engine import ModelSpec
    from training.models import load_base

    base = Path(contender.folder) / f"base-{contender.shape}-{contender.layers}"
    if not base.exists():
        _model(replace(contender, nf4=False)).save_pretrained(base)
    return load_base(ModelSpec("local", str(base), quantize=True), for_training=True)


def _arguments(contender: Contender) -> dict[str, Any]:
    """The folder is the same for every run, because it is in the key of TRL's cache of the reference, as all arguments are."""
    import torch

    return {
        "output_dir": str(Path(contender.folder) / "trainer"), "max_steps": contender.steps,
        "per_device_train_batch_size": contender.rows_a_step,
        "learning_rate": 1e-4, "logging_steps": 1 if contender.steps < 10 else 10, "report_to": "none", "save_strategy": "no",
        "disable_tqdm": True, "seed": 0, "use_cpu": not torch.cuda.is_available(),
    }  # fmt: skip


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


# --- ours -----------------------------------------------------------------------------------------------------------------------


def _studio(model: Any, contender: Contender) -> Any:
    from peft import get_peft_model
    from transformers import TrainingArguments

    from training.models import has_bf16
    from training.preference_objectives import Dpo, Kto, Orpo, Sft
    from training.preference_rows import Item, with_others
    from training.preference_step import Scorer, quicken, trusted_layout
    from training.preference_trainer import Plan, PreferenceTrainer
    from training.reference_cache import ReferenceCache

    longest = contender.prompt[1] + 2 * contender.completion[1]
    quicken(model, longest)
    layout = trusted_layout(model, END, longest, has_bf16())
    assert layout == "shared", layout
    scorer = Scorer(get_peft_model(model, _lora()), END, layout, has_bf16())
    rows = [Item(tuple(prompt), (tuple(chosen), tuple(rejected))) for prompt, chosen, rejected in pairs_of(contender)]
    plan = Plan(Dpo("sigmoid", contender.beta) if contender.method == "dpo" else Orpo(contender.beta), rows, [])
    if contender.method == "kto":
        apart = [Item(row.prompt, (answer,), good) for row in rows for answer, good in zip(row.completions, (True, False))]  # noqa: B905
        plan = Plan(Kto(contender.beta), with_others(apart, contender.rows_a_step, longest), [], dealt=True)
    if contender.method == "sft":
        plan = Plan(Sft(), [Item(row.prompt, row.completions[:1]) for row in rows], [])
    trainer = PreferenceTrainer(TrainingArguments(**_arguments(contender), bf16=has_bf16()), scorer, plan)
    cache = ReferenceCache(Path(contender.folder), {"shape": contender.shape, "layers": contender.layers, "nf4": contender.nf4})
    trainer.refer(cache, over_parent=False, say=lambda what, done, total: None)
    return trainer


# --- TRL's ----------------------------------------------------------------------------------------------------------------------


def _trl(model: Any, contender: Contender) -> Any:
    tuned = contender.who == "trl-tuned"
    own: dict[str, Any] = {"gradient_checkpointing": False} if tuned else {}
    if tuned and contender.method in ("dpo", "kto"):
        own["precompute_ref_log_probs"] = True
    if contender.method != "sft":
        own["beta"] = contender.beta
    trainer, config = _classes(contender.method)
    made = trainer(
        model=model,
        args=config(**_arguments(contender), **own),
        train_dataset=_dataset(contender),
        processing_class=_words(contender.sizes["vocab_size"]),
        peft_config=_lora(),
    )
    _check_tokens(made.train_dataset, contender)
    return made


def _classes(method: Method) -> tuple[Any, Any]:
    if method == "orpo":
        os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOTrainer, ORPOConfig
    import trl

    if method == "sft":
        return trl.SFTTrainer, trl.SFTConfig
    return (trl.DPOTrainer, trl.DPOConfig) if method == "dpo" else (trl.KTOTrainer, trl.KTOConfig)


def _dataset(contender: Contender) -> Any:
    """From a file: only such a data set has a place for TRL's cache of the reference."""
    from datasets import load_dataset

    rows: list[dict[str, Any]] = []
    for pair in pairs_of(contender):
        prompt, chosen, rejected = (" ".join(map(_word, ids)) for ids in pair)
        if contender.method == "kto":
            rows += [
                {"prompt": prompt, "completion": f" {text}", "label": good} for text, good in ((chosen, True), (rejected, False))
            ]
        elif contender.method == "sft":
            rows.append({"prompt": prompt, "completion": f" {chosen}"})
        else:
            rows.append({"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}"})
    file = Path(contender.folder) / f"{contender.method}-{contender.pairs}.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_dataset("json", data_files=str(file), split="train", cache_dir=str(Path(contender.folder) / "datasets"))


def _check_tokens(found: Any, contender: Contender) -> None:
    """TRL trains on the very tokens."""
    pair, row = pairs_of(contender)[0], found[0]
    names = {"dpo": ("prompt_ids", "chosen_ids"), "kto": ("prompt_ids", "completion_ids")}.get(contender.method)
    whole = "input_ids" if contender.method == "sft" else "chosen_input_ids"
    tokens = [*row[names[0]], *row[names[1]]] if names else row[whole]
    assert tokens == [*pair[0], *pair[1]], f"{tokens[:5]} … {tokens[-5:]} instead of {pair[0][:5]} … {pair[1][-5:]}"


def _words(vocabulary: int) -> Any:
    """A tokenizer in which the word w7 is token 7."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({_word(i): i for i in range(vocabulary)}, unk_token=_word(0)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=_word(END), pad_token=_word(END), unk_token=_word(0))


def _word(token: int) -> str:
    """Special tokens are found inside other words, so theirs are none."""
    return {0: "<unknown>", END: "<end>"}.get(token, f"w{token}")


def to_json(contender: Contender) -> str:
    return json.dumps(asdict(contender))


if __name__ == "__main__":
    main()
