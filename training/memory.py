"""How much memory a training run will want, before it starts; arithmetic on the base's config.json, free of torch.

Weights: NF4 with double quantisation costs 4.127 bits a weight (QLoRA, arXiv 2305.14314, section 3); embeddings and
head stay in bf16. What is trained (the adapter, or all weights) is fp32 with its gradient and AdamW's two moments: 16
bytes a weight; where that is the whole model, bf16 copies of its weights are computed with. Activations are counted
after Korthikanti et al. (arXiv 2205.05198): what each layer keeps for the backward pass, or with recomputation its
input and all of one layer. On a CPU rows are short enough for the scores of attention to be kept as well; a GPU's
kernels never store them. Our own step computes a batch in parts and looks at few logits at once. TRL's computes all of it,
keeps more of what its adapters read, and takes 4,096 tokens by 32,768 words of logits at a time, which without its GPU kernel is
several copies of them in fp32: on a CPU that is more than all else. Where the model
answers by itself, all answers of a step are sampled at once, with a cache of keys and values, before any is learned from; a
reward model that grades them is held beside it. An estimate, to be read as "fits" or "does not", not to the megabyte:
`tests/test_training_memory.py` holds it against what runs really hold.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from data.errors import BadInput
from data.model_folder import read_object
from training.config import Method, SamplingConfig, SftConfig, TrainConfig
from training.methods import METHOD_FACTS

_NF4_BYTES = 4.127 / 8
_BF16, _FP32 = 2, 4
_NO_SIZE = 10**9  # of a layer, or of how many there are
_TRAINED = 16  # fp32 weight, gradient and two moments
_OUR_LOGITS = 64 << 20  # bytes of fp32 logits that our own step looks at together
_OUR_EAGER, _TRLS_EAGER = 512, 125  # tokens of a row, about, up to which attention's scores are kept on a CPU
_HEAD_TOKENS, _HEAD_WORDS = 4096, 32768  # TRL's head looks at so many tokens and words of the vocabulary at once
_HEAD_COPIES = 29  # bytes for each of them, beside the logits: the torch operations that take the place of its kernel on a CPU
_SAMPLED = 12  # of an answer's next token, for each word of the vocabulary: its logits, as they were and as a distribution
_PAIR = 2  # answers to a prompt that are forwarded together: the chosen and the rejected one


@dataclass(frozen=True)
class Shape:
    """What decides a decoder's size. Biases and norms of other families are left out: they weigh nothing."""

    hidden: int
    layers: int
    feed_forward: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers, which is what NF4 holds and what the adapter stands beside."""
        return self.layers * sum(rows * columns for rows, columns in self.linears())

    @property
    def parameters(self) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.linear_parameters + (2 * self.layers + 1) * self.hidden

    @property
    def cached(self) -> int:
        """Numbers that a token leaves in the cache while answers are sampled: its keys and values in each layer."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each linear layer of one block: q, k, v, o, gate, up, down."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        h, f = self.hidden, self.feed_forward
        return (h, q), (h, kv), (h, kv), (q, h), (h, f), (h, f), (f, h)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, by what they hold."""

    weights: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.activations

    def sentence(self) -> str:
        """For the page: the sum, and what it is made of."""
        parts = (("weights", self.weights), ("what is trained and its optimiser", self.trained), ("activations", self.activations))
        return f"About {readable(self.total)}: " + ", ".join(f"{name} {readable(size)}" for name, size in parts) + "."


def shape_of(base: str) -> Shape:
    """The shape of a local model folder, from its config.json; BadInput when that cannot be read."""
    try:
        raw = read_object(Path(base) / "config.json")
        raw = raw.get("text_config", raw)
        heads = int(raw["num_attention_heads"])
        shape = Shape(
            hidden=int(raw["hidden_size"]),
            layers=int(raw["num_hidden_layers"]),
            feed_forward=int(raw["intermediate_size"]),
            vocabulary=int(raw["vocab_size"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or int(raw["hidden_size"]) // heads),
            tied=bool(raw.get("tie_word_embeddings", False)),
        )
        if not all(0 < size < _NO_SIZE for name, size in vars(shape).items() if name != "tied"):
            raise ValueError("sizes that no decoder has")
        return shape
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadInput(
            f"The memory a run needs cannot be told in advance: {Path(base).name} has no config.json of a decoder."
        ) from error


@dataclass(frozen=True)
class Device:
    """Where a run computes. `part`: tokens that our own step takes at once there, 0 = a whole batch."""

    gpu: bool = True
    bf16: bool = True
    part: int = 0

    @property
    def number(self) -> int:
        """Bytes of one."""
        return _BF16 if self.bf16 else _FP32


def estimate(
    shape: Shape, method: Method, config: TrainConfig, tokens: int = 0, grader: Shape | None = None, device: Device = Device()
) -> MemoryEstimate:
    """Peak memory of a run; `tokens` is the longest row, the limit when it is not known; `grader` the base of the reward model."""
    by_trl, full = _by_trl(method, config), config.tuning == "full"
    packed = isinstance(config, SftConfig) and config.packing
    length = min(tokens or config.max_length, config.max_length) if not packed else config.max_length
    sampled = 0
    if isinstance(config, SamplingConfig):
        length += config.max_completion_length
        sampled = config.batch_size * config.accumulation * (length * shape.cached * device.number + shape.vocabulary * _SAMPLED)
    width = length * (_PAIR if METHOD_FACTS[method].paired else 1)
    at_once = config.batch_size * width
    if not by_trl and device.part:
        at_once = min(at_once, max(width, device.part))
    layer = at_once * _of_a_layer(
        shape, by_trl and not full, device, 0 if length > (_TRLS_EAGER if by_trl else _OUR_EAGER) else length
    )
    kept = layer * shape.layers if not config.checkpointing else at_once * shape.hidden * shape.layers * device.number
    head = 0
    if METHOD_FACTS[method].makes != "reward":
        head = _trls_head(shape, at_once, device) if by_trl else _our_head(shape, at_once, full, device)
    adapter = shape.layers * sum(config.lora_rank * (inwards + outwards) for inwards, outwards in shape.linears())
    trained = shape.parameters if full else adapter
    weights = _weights(shape, method, config, device)
    if grader:
        weights += grader.parameters * (device.number if device.gpu else _FP32)  # what only samples or grades on a CPU is fp32
    return MemoryEstimate(round(weights), trained * _TRAINED, round(max(kept + max(layer, head), sampled)))


def _by_trl(method: Method, config: TrainConfig) -> bool:
    """Whether TRL trains, on one device."""
    return METHOD_FACTS[method].by_trl or getattr(config, "backend", "studio") == "trl" or getattr(config, "packing", False)


def _weights(shape: Shape, method: Method, config: TrainConfig, device: Device) -> float:
    """Bytes of the model that is computed with, and of the copy that it is compared with where all its weights are trained."""
    if config.tuning != "full":
        others = shape.parameters - shape.linear_parameters
        linear = shape.linear_parameters * (_NF4_BYTES if config.tuning == "qlora" else device.number)
        return linear + others * device.number
    compared = METHOD_FACTS[method].samples and getattr(config, "beta", 0.0) > 0
    compared |= method in ("dpo", "kto") and _by_trl(method, config)
    return shape.parameters * ((_BF16 if device.bf16 else 0) + (_FP32 if compared else 0))


def _of_a_layer(shape: Shape, adapted: bool, device: Device, seen: int) -> int:
    """Bytes that a token leaves in one layer for the backward pass: what the norms, the linear layers and attention have read.

    `adapted`: by peft's adapters, each of which keeps what it reads in a number format of its own. `seen`: tokens whose scores are
    kept on a CPU.
    """
    number, queries = device.number, shape.heads * shape.head_dim
    norms = 2 * shape.hidden * (_FP32 + number)
    attention = 2 * (queries + shape.kv_heads * shape.head_dim) * number
    feed_forward = 4 * shape.feed_forward * number
    copies = (4 * shape.hidden + shape.feed_forward) * number if adapted else 0
    scores = 0 if device.gpu else shape.heads * seen * (number + (_FP32 if adapted else 0))
    return norms + attention + feed_forward + copies + scores


def _our_head(shape: Shape, tokens: int, trained: bool, device: Device) -> int:
    """Bytes of the logits that our own step looks at together: as they are and in fp32; a trained head computes them once more,
    with their gradient."""
    looked_at = min(tokens, max(16, _OUR_LOGITS // (_FP32 * shape.vocabulary)))
    return looked_at * shape.vocabulary * (device.number + (5 if trained else 1) * _FP32)


def _trls_head(shape: Shape, tokens: int, device: Device) -> int:
    """Bytes of the logits that TRL looks at together."""
    words = min(shape.vocabulary, _HEAD_WORDS)
    return min(tokens, _HEAD_TOKENS) * (_HEAD_WORDS * device.number + (0 if device.gpu else words * _HEAD_COPIES))


def free_memory() -> int:
    """Bytes this process may still take: what the machine has left or, in a container, what its limit leaves, whichever is less."""
    import psutil

    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Files that are cached count as free: they go when memory is wanted. Unlimited where there is no limit or none can be read."""
    try:
        limit = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return sys.maxsize


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
