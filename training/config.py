"""Every knob of a training run, once: the form, the run folder's config.json and the trainers all read these
dataclasses.

Free of torch, so that the web process can draw the form from `fields()` (each field's metadata holds help, group,
choices, min, max and step). An instance is valid or does not exist: a bad value raises BadInput in words when it is
made. The defaults are the recipes measured on the demo model (`training/README.md` holds the table; those of bigger
bases are in `defaults.py`). The methods are flat classes: what they share comes first, then their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from data.checkers import CHECKERS
from data.engine import ModelSpec
from data.errors import BadInput
from training.knobs import check, knob, knobs

Method = Literal["sft", "dpo", "kto", "orpo", "simpo", "reward", "rloo", "grpo"]
METHODS: tuple[Method, ...] = ("sft", "dpo", "kto", "orpo", "simpo", "reward", "rloo", "grpo")


MOST_HELD_OUT: Final = 128  # prompts that a method answers which learns from its own answers: each costs one at every evaluation
_RATE_HELP = "The demo model wants about 1e-3; a hub model 1e-5 to 2e-4 (the recipe sets it for the base you choose)."
_TUNING_HELP = (
    "Over a large base 4 bits save memory; they cost time. All weights leave a whole model instead of an adapter and want about "
    "18 bytes of memory a weight."
)
DPO_LOSSES: Final[dict[str, str]] = {
    "sigmoid": "the usual one",
    "ipo": "does not run away on pairs that are easy to tell apart",
    "hinge": "done with a pair once its margin is reached",
    "robust": "a known share of the labels is wrong",
    "exo_pair": "soft labels, follows the optimum more exactly",
    "nca_pair": "keeps chosen answers from becoming unlikely",
    "bco_pair": "each answer for itself, good or bad",
    "apo_zero": "chosen answers are better than the model's own",
    "apo_down": "the model's own are better than the chosen answers",
    "sppo_hard": "self-play: a fixed gain for either side",
    "sigmoid_norm": "per token, so that long answers count no more",
    "discopop": "found by search, leans on pairs that are nearly told apart",
}
TUNINGS: Final[dict[str, str]] = {
    "qlora": "an adapter over the base in 4 bits",
    "lora": "an adapter over the base as it is",
    "full": "all weights",
}
REPORTERS: Final[dict[str, str]] = {
    "none": "nowhere else",
    "tensorboard": "files in the run's folder",
    "trackio": "a dashboard on this machine",
    "wandb": "Weights & Biases, with the account of this machine",
}
_EARLY_HELP = (
    "End after so many evaluations without a lower held-out loss (or a higher reward), and keep the best adapter; "
    "0 = train to the end."
)
_SAVE_HELP = "Steps between two checkpoints to go on from; 0 = every few minutes. A stop always leaves one."
_BACKEND_HELP = "studio is the fast way on one device, trl the library's own trainer (always taken on several)."
_SFT_WEIGHT_HELP = "Weight of an SFT loss on the chosen completions beside it; keeps them from becoming unlikely."
_BETA_HELP = "The demo model wants about 1: below 0.3 it forgets what it knows. A hub model wants 0.05 to 0.3."


@dataclass(frozen=True)
class TrainConfig:
    """What all methods have in common."""

    learning_rate: float = knob(1e-3, _RATE_HELP, "basic", min=1e-7, max=0.1)
    epochs: float = knob(3.0, "How often every row is seen.", "basic", min=0.01, max=100, step=1)
    batch_size: int = knob(8, "Rows a step on one device; halve it when memory runs out.", "basic", min=1, max=1024, step=1)
    tuning: str = knob("lora", _TUNING_HELP, "basic", choices=tuple(TUNINGS), meanings=tuple(TUNINGS.values()))
    lora_rank: int = knob(16, "More can learn more and weighs more.", "basic", min=1, max=512, step=1)
    accumulation: int = knob(1, "Batches summed before the weights move; rows a step = batch size × this.", min=1, max=1024, step=1)
    lora_alpha: int = knob(32, "Twice the rank is usual.", min=1, max=2048, step=1)
    max_length: int = knob(1024, "Prompt and completion together.", min=8, max=131072, step=1)
    schedule: str = knob(
        "cosine", "How the learning rate falls after the warm-up.", choices=("cosine", "linear", "constant_with_warmup")
    )
    warmup_share: float = knob(0.1, "Share of the steps in which the learning rate rises.", min=0.0, max=0.9, step=0.05)
    weight_decay: float = knob(0.0, "Pull of the trained weights towards zero.", min=0.0, max=1.0, step=0.01)
    max_grad_norm: float = knob(1.0, "Longer gradients are cut to this length.", min=0.001, max=1000, step=0.1)
    max_steps: int = knob(0, "Stop after this many steps; 0 = by epochs.", min=0, max=10_000_000, step=1)
    log_every: int = knob(1, "1 draws every step.", min=1, max=10_000, step=1)
    sample_prompts: int = knob(
        4, "Prompts that the model in training answers at the start, each quarter and the end, for you to read; 0 = none.",
        min=0, max=32, step=1,
    )  # fmt: skip
    report_to: str = knob(
        "none", "Where the figures go beside this page: into files or a dashboard of your own.",
        choices=tuple(REPORTERS), meanings=tuple(REPORTERS.values()),
    )  # fmt: skip
    eval_every: int = knob(
        0, "Steps between two evaluations on the held-out rows; 0 = after each epoch.", min=0, max=1_000_000, step=1
    )
    early_stop: int = knob(0, _EARLY_HELP, min=0, max=1000, step=1)
    save_every: int = knob(0, _SAVE_HELP, min=0, max=1_000_000, step=1)
    checkpointing: bool = knob(False, "Recompute activations instead of keeping them: less memory, about a third slower.")
    precision: str = knob("auto", "Arithmetic: auto takes bf16 where the device has it.", choices=("auto", "bf16", "fp32"))
    seed: int = knob(42, "Same seed, data, versions and device: same result.", min=0, max=2**31 - 1, step=1)

    def __post_init__(self) -> None:
        for each in knobs(type(self)):
            check(each, getattr(self, each.name))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SftConfig(TrainConfig):
    """Learn to say the completions; the loss is on the completion's tokens only."""

    packing: bool = knob(
        False, "Put several rows into one sequence, each seeing itself alone (by TRL; the studio's own step sorts rows by length)."
    )
    backend: str = knob("studio", _BACKEND_HELP, choices=("studio", "trl"))


@dataclass(frozen=True)
class DpoConfig(TrainConfig):
    """Learn from pairs: the chosen completion becomes likelier than the rejected one, relative to the model before the run."""

    beta: float = knob(
        1.0, "Higher keeps it closer to the model before the run. " + _BETA_HELP, "basic", min=0.001, max=10, step=0.05
    )
    loss: str = knob("sigmoid", "What a pair's lead counts for.", choices=tuple(DPO_LOSSES), meanings=tuple(DPO_LOSSES.values()))
    sft_weight: float = knob(1.0, _SFT_WEIGHT_HELP, min=0.0, max=10, step=0.1)
    label_smoothing: float = knob(
        0.0, "Share of labels taken to be wrong (robust and exo_pair only).", min=0.0, max=0.49, step=0.01
    )
    backend: str = knob("studio", _BACKEND_HELP, choices=("studio", "trl"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise BadInput("The loss exo pair needs a label smoothing above 0, such as 0.001.")


@dataclass(frozen=True)
class KtoConfig(TrainConfig):
    """Learn from single completions labelled good or bad."""

    batch_size: int = knob(
        8, "Rows a step on one device, at least 2: every batch needs a good and a bad one.", "basic", min=2, max=1024, step=1
    )
    beta: float = knob(
        1.0, "Higher keeps it closer to the model before the run. " + _BETA_HELP, "basic", min=0.001, max=10, step=0.05
    )
    desirable_weight: float = knob(0.0, "Weight of the good rows; 0 = from the balance of the data.", min=0.0, max=100, step=0.1)
    undesirable_weight: float = knob(0.0, "Weight of the bad rows; 0 = from the balance of the data.", min=0.0, max=100, step=0.1)
    backend: str = knob("studio", _BACKEND_HELP, choices=("studio", "trl"))


@dataclass(frozen=True)
class OrpoConfig(TrainConfig):
    """Learn from pairs without a reference, so in one stage and from a base that has not been tuned."""

    beta: float = knob(
        0.25, "Weight of the odds ratio beside imitation (lambda), 0.1 to 0.5.", "basic", min=0.001, max=10, step=0.05
    )


@dataclass(frozen=True)
class SimpoConfig(TrainConfig):
    """Learn from pairs without a reference: the chosen completion's mean log-probability leads the rejected one's by a margin."""

    beta: float = knob(2.0, "Scale of the reward: higher parts the answers further.", "basic", min=0.001, max=10, step=0.05)
    margin: float = knob(0.5, "How far, in reward, a chosen answer should be ahead.", "basic", min=0.0, max=10, step=0.1)
    sft_weight: float = knob(1.0, _SFT_WEIGHT_HELP, min=0.0, max=10, step=0.1)


@dataclass(frozen=True)
class RewardConfig(TrainConfig):
    """Learn from pairs to score answers: the chosen completion gets a higher number than the rejected one."""

    center: float = knob(
        0.01, "Pull of the scores towards zero, so that they stay comparable; 0 = none (TRL: center_rewards_coefficient).",
        min=0.0, max=1.0, step=0.01,
    )  # fmt: skip


@dataclass(frozen=True)
class SamplingConfig(TrainConfig):
    """What the methods have in common that learn from a reward on the model's own answers."""

    reward: str = knob(next(iter(CHECKERS)), "Rules that check an answer, or one of your reward models.", "basic")
    batch_size: int = knob(
        64, "Answers a step on one device, a multiple of the answers to a prompt.", "basic", min=2, max=4096, step=1
    )
    num_generations: int = knob(8, "They are compared with each other.", min=2, max=64, step=1)
    max_completion_length: int = knob(48, "Longer ones are cut.", min=1, max=32768, step=1)
    temperature: float = knob(1.0, "1 samples from the model as it is.", min=0.1, max=2.0, step=0.1)
    num_iterations: int = knob(1, "More use each answer longer, and stray further.", min=1, max=16, step=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.num_generations:
            raise BadInput(
                f"The rows a step (batch_size, now {self.batch_size}) must be a multiple of the answers to each prompt "
                f"(num_generations, now {self.num_generations}), so that a prompt's answers stay together."
            )


@dataclass(frozen=True)
class RlooConfig(SamplingConfig):
    """Learn from a reward on the model's own answers, each against the mean of the others to its prompt."""

    epochs: float = knob(
        1.0, "How often every prompt is answered; too often, and a reward model is outwitted.", "basic", min=0.01, max=100, step=1
    )
    beta: float = knob(
        0.05, "Price of moving away from the model before the run, in reward for each nat.", "basic", min=0.0, max=10, step=0.01
    )
    normalize_advantages: bool = knob(True, "Scale the advantages of a batch to one spread, whatever the scale of the reward.")


@dataclass(frozen=True)
class GrpoConfig(SamplingConfig):
    """Learn from a reward on the model's own answers, each in units of its prompt's spread."""

    beta: float = knob(
        0.0,
        "Weight of the distance from the model before the run; 0 = only the rewards count.",
        "basic",
        min=0.0,
        max=10,
        step=0.01,
    )
    loss: str = knob("dapo", "How the tokens of the answers are averaged.", choices=("dapo", "grpo", "dr_grpo", "bnpo"))


_CLASSES: dict[Method, type[TrainConfig]] = {
    "sft": SftConfig,
    "dpo": DpoConfig,
    "kto": KtoConfig,
    "orpo": OrpoConfig,
    "simpo": SimpoConfig,
    "reward": RewardConfig,
    "rloo": RlooConfig,
    "grpo": GrpoConfig,
}


def method_named(word: str) -> Method:
    """The method of that name; BadInput for any other word."""
    for method in METHODS:
        if method == word:
            return method
    raise BadInput(f"There is no training method {word!r}; choose one of {', '.join(METHODS)}.")


def config_class(method: str) -> type[TrainConfig]:
    """The dataclass of a method; BadInput for any other word."""
    return _CLASSES[method_named(method)]


def from_json(method: str, raw: Mapping[str, Any]) -> TrainConfig:
    """A config from a form or a run folder; a missing field takes its default, an unknown one is BadInput.

    Runs of before stay readable.
    """
    cls = config_class(method)
    raw = as_said_now(raw)
    unknown = sorted(set(raw) - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise BadInput(f"{method.upper()} has no setting {unknown[0]!r}; remove it.")
    return cls(**raw)


def as_said_now(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings in the words of today: `quantize` is how runs used to say `tuning`."""
    if "quantize" not in raw or "tuning" in raw:
        return dict(raw)
    tuning = "qlora" if raw["quantize"] else "lora"
    return {"tuning" if name == "quantize" else name: tuning if name == "quantize" else value for name, value in raw.items()}


def run_args(model: ModelSpec, config: TrainConfig) -> dict[str, Any]:
    """The `args` of a training run's config.json; `model.adapter` is the parent the run goes on from."""
    return {"model": model.to_json(), "train": config.to_json()}


def read_args(method: Method, args: Mapping[str, Any]) -> tuple[ModelSpec, TrainConfig]:
    """The other way round; BadInput says which part is missing."""
    for part in ("model", "train"):
        if not isinstance(args.get(part), Mapping):
            raise BadInput(f"The run's config.json has no {part!r} among its args; start the run again.")
    spec = ModelSpec.from_json(dict(args["model"]))
    if spec.kind != "local" or not spec.base:
        raise BadInput("Only a local base model can be trained; choose a base instead of an endpoint.")
    return spec, from_json(method, args["train"])


def steps_of(config: TrainConfig, rows: int) -> int:
    """How many steps a run over so many rows takes, on one device."""
    if config.max_steps:
        return config.max_steps
    each, again = (config.num_generations, config.num_iterations) if isinstance(config, SamplingConfig) else (1, 1)
    return math.ceil(math.ceil(rows * each / (config.batch_size * config.accumulation)) * again * config.epochs)


def sampled_tokens(config: TrainConfig, steps: int, held_out: int = 0) -> int:
    """How many tokens of its own answers a run of so many steps may write at most, those to `held_out` prompts before the first
    step and at each evaluation among them; 0 where it writes none."""
    if not isinstance(config, SamplingConfig):
        return 0
    batches = math.ceil(steps / config.num_iterations)
    rounds = 1 + math.ceil(steps / config.eval_every if config.eval_every else min(steps, config.epochs))
    answers = batches * config.batch_size * config.accumulation + rounds * min(held_out, MOST_HELD_OUT)
    return answers * config.max_completion_length
