"""A random Llama with a byte-level tokenizer and a chat template, made in a second: real weights for tests of the machinery.

It babbles, but what it babbles is reproducible, and its adapters change it. What must be answered well is tested on the demo model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import training  # noqa: F401  # sets how torch's threads wait, before torch is imported

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|eos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
DEMO_MODEL = Path(__file__).resolve().parent.parent / "data" / "demo" / "model"


def save_tokenizer(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIAL, *alphabet, "ĠA", "ĠB", "he", "in", "an"]
    bpe = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [("Ġ", "A"), ("Ġ", "B"), ("h", "e"), ("i", "n"), ("a", "n")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|eos|>", additional_special_tokens=SPECIAL[2:]
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_model(folder: Path, seed: int = 0, context: int = 256, **overrides: Any) -> Path:
    """A model folder as a hub model has it: config, safetensors, tokenizer, chat template; a short context, to be exceeded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = save_tokenizer(folder)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **{**shape, "num_key_value_heads": 2, **overrides}, vocab_size=len(tokenizer), max_position_embeddings=context,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, seed: int = 1, scale: float = 0.2, **overrides: Any) -> Path:
    """A LoRA adapter that visibly changes what `base` writes (B is not zero)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **overrides})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=scale)
    model.save_pretrained(folder)
    return folder
