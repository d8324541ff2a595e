"""`python -m tests.sampled_alike RUN_DIR`: a training run whose answers do not depend on how many processes share out the prompts.

Each answer is sampled from the model as ever, but from a seed of its own: that of its prompt and of which answer to it this is. So
several processes are given the same answers as one, and must learn the same from them.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationMixin

from data.rundir import RunDir, run_child


def alike(generate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`GenerationMixin.generate`, row by row."""

    def sample(self: Any, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, **named: Any) -> torch.Tensor:
        asked, answers = Counter[tuple[int, ...]](), []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            prompt = ids[mask.bool()][None]
            key = tuple(prompt[0].tolist())
            asked[key] += 1
            with torch.random.fork_rng():
                torch.manual_seed(hash((key, asked[key])))
                whole = generate(self, input_ids=prompt, attention_mask=torch.ones_like(prompt), **named)
            answers.append(whole[0, prompt.shape[1] :])
        pad = named["generation_config"].pad_token_id
        padded = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)
        return torch.cat([input_ids, padded], dim=1)

    return sample


def main(run: RunDir) -> Any:
    GenerationMixin.generate = alike(GenerationMixin.generate)  # type: ignore[method-assign]
    return importlib.import_module(f"training.{run.config()['kind']}").main(run)


if __name__ == "__main__":
    run_child(main)
