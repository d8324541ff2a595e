"""How much memory a training run will want, before it starts; arithmetic on the base's config.json, free of torch.

Weights: NF4 with double quantisation costs 4.127 bits a weight (QLoRA, arXiv 2305.14314, section 3); embeddings and
head stay in bf16. What is trained (the adapter, or all weights) is fp32 with its gradient and AdamW's two moments: 16
bytes a weight; where that is the whole model, bf16 copies of its weights are computed with. Activations
follow Korthikanti et al. (arXiv 2205.05198): about 34 bytes a token, hidden unit and layer without recomputation, 2
with it, attention scores left out because SDPA never stores them; the logits of one chunk come on top. Where the model
answers by itself, all answers of a step are sampled at once, with a cache of keys and values, before any is learned from; a
reward model that grades them is held beside it. Arithmetic is taken to be bf16. An estimate, to be read as "fits" or
"does not", not to the megabyte.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from data.errors import BadInput
from data.model_folder import read_object
from training.config import Method, SamplingConfig, TrainConfig
from training.methods import METHOD_FACTS

_NF4_BYTES = 4.127 / 8
_BF16, _FP32 = 2, 4
_NO_SIZE = 10**9  # of a layer, or of how many there are
_TRAINED = 16  # fp32 weight, gradient and two moments
_PER_TOKEN = 34
_PER_TOKEN_RECOMPUTED = 2
_PER_TOKEN_ADAPTED = 54  # measured, of the methods that TRL computes: peft keeps an fp32 copy of what each adapter reads
_HEAD_TOKENS, _HEAD_WORDS = 1024, 32768  # TRL's head looks at so many answer tokens and words of the vocabulary at once
_HEAD_COPIES = 36  # bytes for each of them, beside the logits: the torch operations that take the place of its kernel on a CPU
_SAMPLED = 12  # of an answer's next token, for each word of the vocabulary: its logits, as they were and as a distribution
_SEQUENCES: dict[Method, int] = {
    "sft": 1,
    "dpo": 2,
    "kto": 2,
    "orpo": 2,
    "simpo": 2,
    "reward": 2,
    "rloo": 1,
    "grpo": 1,
}  # forwarded together for each row: chosen and rejected, or the KL row


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


def estimate(shape: Shape, method: Method, config: TrainConfig, tokens: int = 0, grader: Shape | None = None) -> MemoryEstimate:
    """Peak memory of a run; `tokens` is the longest row, the limit when it is not known; `grader` the base of the reward model."""
    length = min(tokens or config.max_length, config.max_length)
    sampled = 0
    if isinstance(config, SamplingConfig):
        length += config.max_completion_length
        sampled = config.batch_size * config.accumulation * (length * shape.cached * _BF16 + shape.vocabulary * _SAMPLED)
    rows = config.batch_size * _SEQUENCES[method]
    others = shape.parameters - shape.linear_parameters
    weights = shape.linear_parameters * (_NF4_BYTES if config.tuning == "qlora" else _BF16) + others * _BF16
    adapter = shape.layers * sum(config.lora_rank * (inwards + outwards) for inwards, outwards in shape.linears())
    trained = shape.parameters if config.tuning == "full" else adapter
    per_token = _PER_TOKEN_ADAPTED if METHOD_FACTS[method].by_trl and config.tuning != "full" else _PER_TOKEN
    kept = rows * length * shape.hidden * shape.layers * (_PER_TOKEN_RECOMPUTED if config.checkpointing else per_token)
    working = rows * length * shape.hidden * per_token + _head(shape, method, rows * length)
    if METHOD_FACTS[method].samples and config.tuning == "full" and getattr(config, "beta", 0.0) > 0:
        weights += shape.parameters * _FP32  # the model before the run, to compare with
    if grader:
        weights += grader.parameters * _BF16
    return MemoryEstimate(round(weights), trained * _TRAINED, max(kept + working, sampled))


def _head(shape: Shape, method: Method, tokens: int) -> int:
    """Bytes of the logits that are looked at together; a reward model has none."""
    facts = METHOD_FACTS[method]
    if facts.makes == "reward":
        return 0
    if facts.samples:
        words = min(shape.vocabulary, _HEAD_WORDS)
        return min(tokens, _HEAD_TOKENS) * (_HEAD_WORDS * _BF16 + words * _HEAD_COPIES)
    return min(tokens, 4096) * shape.vocabulary * 4


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
