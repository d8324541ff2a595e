"""Would a PPO of our own be worth having beside RLOO? A trial on the demo world, at the same number of sampled answers.

    .venv/bin/python -m tests.bench.ppo_trial REWARD_ADAPTER [--seed N] [--rounds 25] [--updates 2]

TRL has dropped PPO; this is the whole of it: a value head on the policy's hidden states, generalised advantage estimation
(Schulman et al., arXiv 1506.02438), the clipped objective (arXiv 1707.06347) and a price on every token's distance from the start
(Ouyang et al., arXiv 2203.02155). It samples, renders, scores and starts as `training/rloo.py` does: LoRA over the demo model, a
reward model's score at the last token. `training/README.md` has what came of it. It is a trial and no method of the studio.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model

from data.checkers.demo_world import grade
from data.demo.world import sample_prompts
from data.engine import Message, ModelSpec
from training.adapters import hold_in_float32, load_trainable, uses_bf16
from training.chat import render_prompt
from training.config import RlooConfig
from training.reward_model import RewardModel
from training.rows import Rows

MODEL = Path(__file__).resolve().parents[2] / "data" / "demo" / "model"


@dataclass(frozen=True)
class Settings:
    """`batch` answers a round, gone over `updates` times in halves; the rest as in the papers."""

    rounds: int = 25
    batch: int = 64
    updates: int = 2
    learning_rate: float = 1e-3
    beta: float = 0.05
    clip: float = 0.2
    discount: float = 1.0
    trace: float = 0.95
    value_weight: float = 0.5
    longest: int = 48


class Batch(NamedTuple):
    """Answers as sampled; (rows, tokens) over the answers' tokens alone, `mask` 1 where one was written."""

    ids: torch.Tensor  # prompt and answer, padded on the left and on the right
    attention: torch.Tensor
    mask: torch.Tensor
    logps: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


def advantages_of(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, s: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantages, returns): each token's discounted sum of what came better than the value head thought."""
    found, last = torch.zeros_like(rewards), torch.zeros(rewards.shape[0])
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] * mask[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(last)
        last = (rewards[:, t] + s.discount * following - values[:, t] + s.discount * s.trace * last) * mask[:, t]
        found[:, t] = last
    return found, found + values


def whitened(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    mean = (x * mask).sum() / mask.sum()
    spread = (((x - mean) * mask) ** 2).sum() / mask.sum()
    return (x - mean) * torch.rsqrt(spread + 1e-8) * mask


class Ppo:
    """Trains a LoRA adapter over the demo model against a reward model."""

    def __init__(self, reward: RewardModel, settings: Settings, seed: int) -> None:
        self.s, self.reward = settings, reward
        torch.manual_seed(seed)
        config = RlooConfig(tuning="lora")
        start = load_trainable(ModelSpec("local", str(MODEL)), config, Rows([], []))
        assert start.lora is not None
        start.model.set_attn_implementation("eager")
        self.tokenizer, self.ends, self.low = start.tokenizer, sorted(start.ends), uses_bf16(config)
        self.model: Any = get_peft_model(start.model, start.lora)
        hold_in_float32(self.model, {})
        self.value = torch.nn.Linear(self.model.config.hidden_size, 1)
        torch.nn.init.zeros_(self.value.weight)
        torch.nn.init.zeros_(self.value.bias)
        self.trained = [p for p in self.model.parameters() if p.requires_grad] + list(self.value.parameters())
        self.optimizer = torch.optim.AdamW(self.trained, lr=settings.learning_rate, weight_decay=0.0)

    def train(self, prompts: list[str], seed: int) -> None:
        rng, s = random.Random(seed), self.s
        order: list[str] = []
        for number in range(s.rounds):
            while len(order) < s.batch:
                order += rng.sample(prompts, len(prompts))
            asked, order = order[: s.batch], order[s.batch :]
            warm = min(1.0, (number + 1) / max(1.0, 0.1 * s.rounds))
            rate = s.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * number / s.rounds))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            batch, scores, good = self.sampled(asked)
            for _ in range(s.updates):
                shuffled = torch.randperm(s.batch)
                for half in shuffled.chunk(2):
                    self.step(Batch(*(part[half] for part in batch)))
            print(
                f"round {number + 1}: reward {scores.mean():.3f}, good {good:.2f}, length {batch.mask.sum(1).mean():.1f}",
                flush=True,
            )

    def sampled(self, asked: list[str]) -> tuple[Batch, torch.Tensor, float]:
        """Answers to the prompts with all that the updates need of the model before them."""
        rendered = [render_prompt(self.tokenizer, [Message("user", p)]) for p in asked]
        width = max(map(len, rendered))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rendered])
        attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rendered])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            whole = self.model.generate(
                input_ids=ids, attention_mask=attention, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True,
                max_new_tokens=self.s.longest, eos_token_id=self.ends, pad_token_id=pad,
            )  # fmt: skip
        said = whole[:, width:]
        ended = torch.isin(said, torch.tensor(self.ends)).int()
        mask = ((ended.cumsum(1) - ended) == 0).float()  # up to the first end, which counts
        texts = self.tokenizer.batch_decode([row[m.bool()] for row, m in zip(said, mask, strict=True)], skip_special_tokens=True)
        user = [[{"role": "user", "content": p}] for p in asked]
        scores = torch.tensor(self.reward.score(user, [[{"role": "assistant", "content": t}] for t in texts]))
        good = sum(grade(p, t).good for p, t in zip(asked, texts, strict=True)) / len(asked)
        attention = torch.cat([attention, mask.long()], 1)
        with torch.no_grad():
            logps, values = self.scored(whole, attention, said.shape[1])
            with self.model.disable_adapter():
                reference, _ = self.scored(whole, attention, said.shape[1])
        rewards = -self.s.beta * (logps - reference) * mask
        rewards[torch.arange(len(asked)), mask.sum(1).long() - 1] += scores
        advantages, returns = advantages_of(rewards, values * mask, mask, self.s)
        return Batch(whole, attention, mask, logps, values, whitened(advantages, mask), returns), scores, good

    def scored(self, ids: torch.Tensor, attention: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probabilities, values) of the last so many tokens, each from the state before it."""
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            out = self.model(
                input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False, output_hidden_states=True
            )
        logits = out.logits[:, -tokens - 1 : -1].float()
        logps = logits.log_softmax(-1).gather(-1, ids[:, -tokens:, None]).squeeze(-1)
        return logps, self.value(out.hidden_states[-1][:, -tokens - 1 : -1].float()).squeeze(-1)

    def step(self, b: Batch) -> None:
        logps, values = self.scored(b.ids, b.attention, b.mask.shape[1])
        ratio = (logps - b.logps).exp()
        clipped = ratio.clamp(1 - self.s.clip, 1 + self.s.clip)
        policy = -torch.min(ratio * b.advantages, clipped * b.advantages)
        near = b.values + (values - b.values).clamp(-self.s.clip, self.s.clip)
        value = 0.5 * torch.max((values - b.returns) ** 2, (near - b.returns) ** 2)
        loss = ((policy + self.s.value_weight * value) * b.mask).sum() / b.mask.sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description="PPO on the demo world, to be compared with RLOO.")
    parser.add_argument("reward", type=Path, help="a reward run's adapter over the demo model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=Path("ppo-adapter"))
    flags = parser.parse_args()
    prompts = [p.prompt for p in sample_prompts(200, "train", random.Random(f"bench:train:{flags.seed}"))]
    reward = RewardModel.load(ModelSpec("local", str(MODEL), str(flags.reward)))
    ppo = Ppo(reward, Settings(rounds=flags.rounds, updates=flags.updates, learning_rate=flags.rate), 42 + flags.seed)
    started, spent = time.monotonic(), time.process_time()
    ppo.train(prompts, flags.seed)
    print(f"{time.monotonic() - started:.0f} s, {time.process_time() - spent:.0f} s of processor time")
    ppo.model.save_pretrained(str(flags.out))


if __name__ == "__main__":
    main()
