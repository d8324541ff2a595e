"""The demo model's tokenizer: a small byte-level BPE and the chat template, learned from the demo world.

Byte level, so that nothing a visitor types is unrepresentable. The world's words become one token each, so that a prompt
is a dozen tokens and sampling takes milliseconds. So do its numbers: digit by digit, a model of this size had learned
neither to copy nor to compare two of them after 1,400 steps.
"""

from __future__ import annotations

import random
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.demo.answers import flawed_answer, good_answer
from data.demo.tasks import FAMILIES
from data.demo.world import judge_prompt, prompts, task_of

VOCABULARY: Final = 1_536
SPECIAL: Final = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
SYSTEM_PROMPT: Final = "You are a helpful assistant."
MAX_POSITIONS: Final = 2_048

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] == 'system' -%}{{- '<|system|>' + message['content'] + '<|end|>' -}}"
    "{%- else -%}{{- '<|user|>' + message['content'] + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def _corpus(seed: int) -> list[str]:
    """Training-side texts: prompts, both kinds of answers, and the judge's question."""
    rng = random.Random(f"tokenizer:{seed}")
    texts = [SYSTEM_PROMPT, *(str(number) for number in range(31) for _ in range(400))]  # a number may open an answer
    for family in FAMILIES:
        pool = prompts(family, "train")
        for prompt in rng.choices(pool, k=1_500):
            good, flawed = good_answer(task_of(prompt), rng), flawed_answer(task_of(prompt), rng)
            texts += [judge_prompt(prompt, good, flawed), prompt, good, flawed]
    return texts


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer of 1,536 pieces with the chat template; "A" and "B" are one piece each after the generation prompt."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # in a fixed order, or the ids change from run to run
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(_corpus(seed), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", model_max_length=MAX_POSITIONS,
        padding_side="left", clean_up_tokenization_spaces=False,
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
