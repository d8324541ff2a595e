"""Train the demo model from scratch: two million parameters on the generated world, in half an hour on two cores.

    python -m training.pretrain_demo [--out data/demo/model] [--resume] [--steps N]
    python -m training.pretrain_demo --polish FOLDER --out OTHER      # the last stage alone, on finished weights

Two kinds of rows are learned together, in separate forwards whose losses are summed: answers to prompts (loss on the
answer only) and the judge's question (loss on the label only). For three quarters of the steps almost all answers are
good, so that facts and forms are learned well; in the last quarter 45 % are flawed, so that samples differ in quality.
Near the end the judge also sees pairs of the model's own samples, because those are what it will be asked about. A short
second stage (POLISH) leans on both: more flaws, so that alignment has more to mend, and mostly pairs of own samples.
Only prompts of the training side of the split are used; this is asserted on every row. Each step's rows are drawn from
the seed and the step's number, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.checkers.demo_world import prefer
from data.demo.answers import flawed_answer, good_answer
from data.demo.tasks import FAMILIES
from data.demo.world import AnswerPair, answer_pair, judge_prompt, prompts, task_of
from data.splits import split_of
from training.demo_sampling import sample_answers
from training.demo_tokenizer import MAX_POSITIONS, SYSTEM_PROMPT, train_tokenizer

MODEL_DIR: Final = Path(__file__).resolve().parent.parent / "data" / "demo" / "model"


@dataclass(frozen=True)
class Recipe:
    """All that decides what the demo model becomes; the defaults are how the committed weights were made."""

    seed: int = 0
    steps: int = 2_200
    answer_rows: int = 64
    judge_rows: int = 20
    late_judge_rows: int = 32  # once there are own samples
    learning_rate: float = 2e-3
    muon_factor: float = 2.0  # of the learning rate, for the matrices between the embeddings
    warmup: int = 100
    early_flaws: float = 0.05
    late_flaws: float = 0.45
    late_from: float = 0.75  # share of the steps after which answers are flawed
    own_samples_at: tuple[float, ...] = (0.82, 0.91)  # shares of the steps at which the judge gets own samples
    own_prompts: int = 1_500
    judge_weight: float = 2.0  # half of a verdict's tokens are its trivial end of turn
    own_share: float = 0.5  # of the judge rows, once there are own samples
    hidden: int = 192
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512


POLISH: Final = Recipe(
    seed=1, steps=350, judge_rows=48, late_judge_rows=48, learning_rate=5e-4, warmup=20, early_flaws=0.55, late_flaws=0.55,
    own_samples_at=(0.0, 0.4), own_prompts=2_500, own_share=0.7,
)  # fmt: skip


class Row(NamedTuple):
    """A user turn, the reply to learn, and whether a system turn stands before it."""

    user: str
    reply: str
    system: bool = False


@dataclass
class Progress:
    """What a resumed run needs besides the weights: the next step, and the pairs of own samples drawn so far."""

    step: int = 0
    own_pairs: list[AnswerPair] = field(default_factory=list)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A freshly initialised model in float32, its embeddings tied."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # on rows this short the fused kernel's backward takes 40 % of the step
    )  # fmt: skip
    return LlamaForCausalLM(config)


def build_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embeddings and the norms.

    Muon reaches the same loss in fewer steps than AdamW alone, and at this size a step costs hardly more.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _draw_prompt(rng: random.Random) -> str:
    family = rng.choices(FAMILIES, [2 if family == "sums" else 1 for family in FAMILIES])[0]
    prompt = rng.choice(prompts(family, "train"))
    assert split_of(prompt) == "train"
    return prompt


def answer_rows(recipe: Recipe, step: int, rng: random.Random) -> list[Row]:
    """The answers to learn at a step."""
    share = recipe.late_flaws if step >= recipe.late_from * recipe.steps else recipe.early_flaws
    rows = []
    for _ in range(recipe.answer_rows):
        prompt = _draw_prompt(rng)
        answer = flawed_answer if rng.random() < share else good_answer
        rows.append(Row(prompt, answer(task_of(prompt), rng), rng.random() < 0.1))
    return rows


def judge_rows(recipe: Recipe, own_pairs: Sequence[AnswerPair], rng: random.Random) -> list[Row]:
    """The verdicts to learn at a step; the better answer stands first in half of them."""
    rows = []
    for _ in range(recipe.late_judge_rows if own_pairs else recipe.judge_rows):
        own = bool(own_pairs) and rng.random() < recipe.own_share
        pair = rng.choice(own_pairs) if own else answer_pair(_draw_prompt(rng), rng)
        rows.append(Row(judge_prompt(pair.prompt, pair.a, pair.b), pair.better))
    return rows


def own_sample_pairs(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, rng: random.Random
) -> list[AnswerPair]:
    """Pairs of the model's own answers to training prompts, of which the rules call one good; each in both orders."""
    chosen = [_draw_prompt(rng) for _ in range(recipe.own_prompts)]
    drawn = [sample_answers(model, tokenizer, chosen, temperature, rng.randrange(2**31)) for temperature in (0.8, 1.0, 0.8)]
    pairs: dict[AnswerPair, None] = {}  # an ordered set
    for prompt, *answers in zip(chosen, *drawn, strict=True):
        for a, b in ((answers[0], answers[1]), (answers[1], answers[2]), (answers[2], answers[0])):
            choice = prefer(prompt, a, b)
            if choice in ("a", "b"):
                better = choice.upper()
                pairs[AnswerPair(prompt, a, b, better)] = None
                pairs[AnswerPair(prompt, b, a, "B" if better == "A" else "A")] = None
    return list(pairs)


def loss_of(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> torch.Tensor:
    """Mean cross-entropy in nats over the reply's tokens and its end of turn; the head runs on those positions only."""
    heads, replies = [], []
    for row in rows:
        system = [{"role": "system", "content": SYSTEM_PROMPT}] if row.system else []
        messages = [*system, {"role": "user", "content": row.user}]
        heads.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        replies.append(row.reply + tokenizer.eos_token)
    head_ids = tokenizer(heads, add_special_tokens=False)["input_ids"]
    reply_ids = tokenizer(replies, add_special_tokens=False)["input_ids"]
    longest = max(len(head) + len(reply) for head, reply in zip(head_ids, reply_ids, strict=True))
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    targets = torch.full((len(rows), longest), -100)
    for index, (head, reply) in enumerate(zip(head_ids, reply_ids, strict=True)):
        ids[index, : len(head) + len(reply)] = torch.tensor(head + reply)
        targets[index, len(head) - 1 : len(head) + len(reply) - 1] = torch.tensor(reply)
    # Padding stands on the right and attention is causal, so no mask of it is needed.
    hidden = model.model(input_ids=ids).last_hidden_state
    kept = targets != -100
    return nn.functional.cross_entropy(model.lm_head(hidden[kept]).float(), targets[kept])


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))


def _save_checkpoint(path: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    own = [list(pair) for pair in progress.own_pairs]
    state = {"step": progress.step, "own": own, "model": model.state_dict(), "optimizers": [one.state_dict() for one in optimizers]}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _load_checkpoint(path: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer]) -> Progress:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(state["step"], [AnswerPair(*pair) for pair in state["own"]])


def train(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, checkpoint: Path, resume: bool, model: LlamaForCausalLM | None = None
) -> LlamaForCausalLM:
    """The trained model, in float32: a fresh one, or the given one trained on.

    Saves its state to `checkpoint` every 200 steps and at the end, and picks it up on `resume`.
    """
    model = model or build_model(recipe, tokenizer)
    optimizers = build_optimizers(model, recipe)
    progress = _load_checkpoint(checkpoint, model, optimizers) if resume and checkpoint.exists() else Progress()
    own_steps = {int(share * recipe.steps) for share in recipe.own_samples_at}
    started, first = time.monotonic(), progress.step
    for step in range(first, recipe.steps):
        rng = random.Random(f"pretrain:{recipe.seed}:{step}")
        if step in own_steps and recipe.own_prompts:
            progress.own_pairs = own_sample_pairs(model, tokenizer, recipe, rng)
            print(f"step {step}: {len(progress.own_pairs)} own pairs", flush=True)
        losses = _step(model, tokenizer, optimizers, recipe, progress, step, rng)
        progress.step = step + 1
        if progress.step % 50 == 0 or progress.step == recipe.steps:
            elapsed = time.monotonic() - started
            left = elapsed / (progress.step - first) * (recipe.steps - progress.step)
            print(
                f"step {progress.step}/{recipe.steps}  answer loss {losses[0]:.3f}  judge loss {losses[1]:.3f}  "
                f"{elapsed / 60:.1f} min, {left / 60:.1f} min left",
                flush=True,
            )
        if progress.step % 200 == 0 or progress.step == recipe.steps:
            _save_checkpoint(checkpoint, model, optimizers, progress)
    return model


def _step(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    optimizers: Sequence[torch.optim.Optimizer],
    recipe: Recipe,
    progress: Progress,
    step: int,
    rng: random.Random,
) -> tuple[float, float]:
    """One update; returns the answer loss and the judge loss, in nats a token."""
    model.train()
    for optimizer, factor in zip(optimizers, (recipe.muon_factor, 1.0), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = factor * learning_rate(recipe, step)
    losses = []
    batches = (answer_rows(recipe, step, rng), 1.0), (judge_rows(recipe, progress.own_pairs, rng), recipe.judge_weight)
    for rows, weight in batches:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, tokenizer, rows)
        (weight * loss).backward()  # the two graphs never live at once, and their gradients add up
        losses.append(loss.item())
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses[0], losses[1]


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (bf16 safetensors), configuration, tokenizer and chat template to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, top_k=0, top_p=1.0, max_new_tokens=48,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # The class's name of transformers 5 is unknown to servers that still run on 4; this one is known to both.
    config = out / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))


def main() -> None:
    """Parse the flags, train both stages, save."""
    parser = argparse.ArgumentParser(description="Train the demo model from scratch.")
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder the finished model is written to")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="updates of the first stage; fewer for a quick look")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--polish", type=Path, metavar="FOLDER", help="do the last stage alone, on the weights in FOLDER")
    flags = parser.parse_args()
    recipe = Recipe(seed=flags.seed, steps=flags.steps)
    home = Path(os.environ.get("STUDIO_HOME", "workspace"))
    first, last = home / f"pretrain_demo_{recipe.seed}_{recipe.steps}.pt", home / f"pretrain_demo_{recipe.seed}_polish.pt"
    started, cpu = time.monotonic(), time.process_time()
    if flags.polish:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(flags.polish)
        model = LlamaForCausalLM.from_pretrained(flags.polish, dtype=torch.float32, attn_implementation="eager")
    else:
        tokenizer = train_tokenizer(recipe.seed)
        model = train(recipe, tokenizer, first, flags.resume)
    model = train(POLISH, tokenizer, last, flags.resume, model)
    save_model(model, tokenizer, flags.out)
    for checkpoint in (first, last):
        checkpoint.unlink(missing_ok=True)
    parameters = sum(p.numel() for p in model.parameters())
    seconds = {"wall_s": round(time.monotonic() - started), "cpu_s": round(time.process_time() - cpu)}
    print(json.dumps({"out": str(flags.out), "parameters": parameters, **seconds}))


if __name__ == "__main__":
    main()
