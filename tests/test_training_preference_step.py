"""The preference step against TRL's trainers on the same rows and weights: loss, gradients and metrics are theirs.

Tiny random models of the families, in fp32: there a wrong mask, position, shift or normaliser is a thousand times larger than
rounding.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from data.engine import ModelSpec
from tests import tiny_model
from tests.training_runs import assistant, dpo_rows, make_run, sft_rows, user
from training import preference_memory, preference_ranks
from training.chat import TEMPLATE_KWARGS
from training.config import DPO_LOSSES
from training.fused_lora import fuse
from training.grouped_attention import GROUPED, take_up
from training.preference_memory import must_recompute, token_budget
from training.preference_objectives import Dpo, Kto, Objective, Orpo, Sft, SimPo, Whole
from training.preference_rows import Item, Layout, items, parts, with_others
from training.preference_step import BASE, Scorer, Scores, trusted_layout
from training.preference_trainer import Plan, PreferenceTrainer

pytestmark = pytest.mark.model
torch.set_num_threads(1)  # the models are so small that a second thread only waits

LIMIT = 48
SIZES: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "initializer_range": 0.2,
}  # fmt: skip
FAMILIES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "smollm": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True, "num_attention_heads": 3, "num_key_value_heads": 1}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
}
PAIRS = [
    {"prompt": user(f"What is {word}?"), "chosen": assistant(good), "rejected": assistant(bad)}
    for word, good, bad in [
        ("rain", "water", "no"),
        ("a long winter of snow", "it is cold for many weeks", "warm"),
        ("fog", "a low cloud that one walks through, and much more than fits", "hail and sleet"),
        ("dew", "drops", "something else"),
    ]
]
ANSWERS = [
    {"prompt": pair["prompt"], "completion": pair["chosen" if i % 3 else "rejected"], "label": bool(i % 3)}
    for i, pair in enumerate(PAIRS)
]


class Made(NamedTuple):
    trainer: Any
    tokenizer: Any
    rows: list[Item]


def tiny(family: str, attention: str = "sdpa", **more: Any) -> Any:
    config, cls, own = FAMILIES[family]
    torch.manual_seed(0)
    return cls._from_config(config(**{**SIZES, "vocab_size": 269, **own, **more}), attn_implementation=attention)


def with_lora(model: Any, scale: float = 0.1) -> Any:
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    disturb(model, scale)
    return model


def disturb(model: Any, scale: float) -> None:
    """Move the adapter, so that policy, reference and base all differ."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name and ".ref." not in name:
            parameter.data += torch.randn_like(parameter.data) * scale


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_model.save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def make(trainer: type, config: type, model: Any, tokenizer: Any, rows: list[dict[str, Any]], folder: Path, **args: Any) -> Made:
    """TRL's trainer over a PeftModel: its reference is the copy `ref`, taken before the adapter is moved."""
    data = Dataset.from_list([{**row, "chat_template_kwargs": TEMPLATE_KWARGS} for row in rows])
    settings = config(
        output_dir=str(folder), per_device_train_batch_size=len(rows), max_length=LIMIT, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, disable_tqdm=True, **args,
    )  # fmt: skip
    made = trainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer)
    disturb(made.model, 0.05)
    made.model.train()
    return Made(made, tokenizer, items(rows, tokenizer, LIMIT))


def theirs(made: Made) -> tuple[float, dict[str, torch.Tensor]]:
    made.trainer._metrics["train"].clear()
    batch = made.trainer.data_collator([made.trainer.train_dataset[i] for i in range(len(made.rows))])
    made.trainer.model.zero_grad()
    loss = made.trainer.compute_loss(made.trainer.model, batch)
    loss.backward()
    return float(loss), grads(made.trainer.model)


def ours(model: Any, rows: list[Item], objective: Objective, layout: Layout, budget: int = 10_000) -> Any:
    """Loss, gradients and metrics of the step, in parts."""
    scorer = Scorer(model, 0, layout)
    with torch.no_grad():
        if objective.needs_reference:
            rows = [row.refer(scorer.logps([row], "ref").sums[0].tolist()) for row in rows]
        kl = torch.zeros(())
        if rows[0].other:
            before = [scorer.logps([row.with_other()], name).sums[0, 0] for name in (None, "ref") for row in rows]
            kl = (sum(before[: len(rows)]) - sum(before[len(rows) :])).div(len(rows)).clamp(min=0)  # type: ignore[union-attr]
    whole = Whole(len(rows), sum(len(row.completions[0]) for row in rows), kl)
    model.zero_grad()
    total, order, found = 0.0, [], []
    for part in parts(rows, layout, budget):
        scores = scorer.logps(part)
        loss = objective.loss(part, scores, whole)
        loss.backward()
        total += float(loss)
        order += part
        found.append(scores.detach())
    return total, grads(model), objective.metrics(order, Scores.join(found), whole)


def grads(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and ".ref." not in name}


def assert_same(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == other.keys()
    assert max(float(grad.abs().max()) for grad in other.values()) > 1e-2, "there is something to compare"
    for name, grad in other.items():
        torch.testing.assert_close(mine[name], grad, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


# --- DPO ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dpo(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("dpo")
    return make(DPOTrainer, DPOConfig, with_lora(tiny("llama")), tokenizer, PAIRS, folder, beta=0.3, label_smoothing=0.1)


def test_rows_become_trls_tokens(dpo: Made) -> None:
    for row, other in zip(dpo.rows, dpo.trainer.train_dataset, strict=True):
        assert list(row.prompt) == other["prompt_ids"]
        room = LIMIT - len(row.prompt)
        assert [list(c) for c in row.completions] == [other["chosen_ids"][:room], other["rejected_ids"][:room]]
    assert any(len(row.prompt) + len(row.completions[0]) == LIMIT for row in dpo.rows), "one is cut"


@pytest.mark.parametrize("layout", ["shared", "apart"])
@pytest.mark.parametrize("sft", [0.0, 0.7])
@pytest.mark.parametrize("kind", DPO_LOSSES)
def test_every_dpo_loss_and_its_gradients_are_trls(dpo: Made, kind: str, sft: float, layout: Layout) -> None:
    dpo.trainer.loss_types = [kind, "sft"] if sft else [kind]
    dpo.trainer.loss_weights = [1.0, sft] if sft else [1.0]
    loss, gradients = theirs(dpo)
    metrics = {name: values[-1] for name, values in dpo.trainer._metrics["train"].items()}
    mine, my_gradients, my_metrics = ours(dpo.trainer.model, dpo.rows, Dpo(kind, 0.3, sft, 0.1), layout)
    assert mine == pytest.approx(loss, abs=1e-4, rel=1e-5)
    assert_same(my_gradients, gradients)
    del metrics["num_tokens"]
    metrics["logps/drift"] = (metrics["rewards/chosen"] + metrics["rewards/rejected"]) / 2 / 0.3  # which TRL's DPO does not tell
    assert abs(metrics["logps/drift"]) > 0.01
    assert my_metrics == pytest.approx(metrics, abs=1e-3)


@pytest.mark.parametrize("budget", [1, 90, 10_000])
def test_a_step_in_parts_is_the_same_step(dpo: Made, budget: int) -> None:
    dpo.trainer.loss_types, dpo.trainer.loss_weights = ["sigmoid", "sft"], [1.0, 0.5]
    loss, gradients = theirs(dpo)
    mine, my_gradients, _ = ours(dpo.trainer.model, dpo.rows, Dpo("sigmoid", 0.3, 0.5), "shared", budget)
    assert mine == pytest.approx(loss, abs=1e-4)
    assert_same(my_gradients, gradients)


@pytest.mark.parametrize(
    ("family", "attention"),
    [*((family, "sdpa") for family in FAMILIES), ("llama", "eager"), *((family, GROUPED) for family in FAMILIES)],
)
def test_every_family_that_shares_the_prompt_equals_trl(family: str, attention: str, tokenizer: Any, tmp_path: Path) -> None:
    """TRL through peft's layers and the model's own attention, ours through fused layers and the attention named."""
    model = tiny(family, "eager" if attention == GROUPED else attention)
    made = make(DPOTrainer, DPOConfig, with_lora(model), tokenizer, PAIRS, tmp_path, beta=0.3)
    loss, gradients = theirs(made)
    fuse(made.trainer.model)
    assert attention != GROUPED or take_up(model)
    assert model.config._attn_implementation == attention
    assert trusted_layout(model, 0, LIMIT) == "shared"
    mine, my_gradients, _ = ours(made.trainer.model, made.rows, Dpo("sigmoid", 0.3), "shared")
    assert mine == pytest.approx(loss, abs=1e-4)
    assert_same(my_gradients, gradients)


@pytest.mark.parametrize("budget", [1, 90, 10_000])
def test_sft_and_its_gradients_are_trls(tokenizer: Any, tmp_path: Path, budget: int) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ANSWERS]
    made = make(SFTTrainer, SFTConfig, with_lora(tiny("qwen3")), tokenizer, rows, tmp_path, completion_only_loss=True)
    loss, gradients = theirs(made)
    metrics = {name: values[-1] for name, values in made.trainer._metrics["train"].items()}
    mine, my_gradients, my_metrics = ours(made.trainer.model, made.rows, Sft(), "shared", budget)
    assert mine == pytest.approx(loss, abs=1e-4)
    assert_same(my_gradients, gradients)
    assert my_metrics == pytest.approx({name: metrics[name] for name in my_metrics}, abs=1e-3)


# --- the others ---------------------------------------------------------------------------------------------------------------


def test_kto_and_its_gradients_are_trls(tokenizer: Any, tmp_path: Path) -> None:
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.7}
    made = make(KTOTrainer, KTOConfig, with_lora(tiny("llama")), tokenizer, ANSWERS, tmp_path, beta=0.3, **weights)
    loss, gradients = theirs(made)
    metrics = {name: values[-1] for name, values in made.trainer._metrics["train"].items()}
    assert metrics["kl"] > 0, "the KL term counts here"
    rows = with_others(items(ANSWERS, tokenizer, None), len(ANSWERS), LIMIT)
    mine, my_gradients, my_metrics = ours(made.trainer.model, rows, Kto(0.3, (1.0, 1.7)), "apart", 60)
    assert mine == pytest.approx(loss, abs=1e-4)
    assert_same(my_gradients, gradients)
    del metrics["num_tokens"]
    assert my_metrics == pytest.approx(metrics, abs=1e-3)


@pytest.mark.parametrize("objective", [Orpo(0.4), SimPo(2.0, 0.5, 0.3)], ids=["orpo", "simpo"])
def test_methods_without_a_reference_follow_their_formula(tokenizer: Any, objective: Orpo | SimPo) -> None:
    """From the model's own logits, written out row by row, with gradients by plain autograd."""
    model = with_lora(tiny("qwen3"))
    rows = items(PAIRS, tokenizer, LIMIT)
    means, nll, tokens = [], torch.zeros(()), 0
    for row in rows:
        for number, completion in enumerate(row.completions):
            ids = torch.tensor([[*row.prompt, *completion]])
            logps = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
            own = logps[torch.arange(len(completion)), list(completion)]
            means.append(own.mean())
            if number == 0:
                nll, tokens = nll - own.sum(), tokens + len(completion)
    chosen, rejected = torch.stack(means[::2]), torch.stack(means[1::2])
    if isinstance(objective, Orpo):
        odds = [p / (1 - p) for p in (chosen.exp(), rejected.exp())]
        expected = nll / tokens - 0.4 * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1]))).mean()
    else:
        expected = -torch.log(torch.sigmoid(2.0 * (chosen - rejected) - 0.5)).mean() + 0.3 * nll / tokens
    expected.backward()
    gradients = grads(model)
    mine, my_gradients, metrics = ours(model, rows, objective, "shared", 90)
    assert mine == pytest.approx(float(expected), abs=1e-4)
    assert_same(my_gradients, gradients)
    assert metrics["nll_loss"] == pytest.approx(float(nll) / tokens, abs=1e-4)


@pytest.mark.parametrize("processes", [3, 5])
@pytest.mark.parametrize("objective", [Orpo(0.4), SimPo(2.0, 0.5, 0.3)], ids=["orpo", "simpo"])
def test_the_shares_of_several_processes_add_up_to_the_step(
    tokenizer: Any, objective: Orpo | SimPo, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four rows three processes have unlike shares, and of five one has none; here they take turns in one process."""
    model = with_lora(tiny("qwen3"))
    rows = items(PAIRS, tokenizer, LIMIT)
    settings = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", gradient_checkpointing=False)
    trainer = PreferenceTrainer(settings, Scorer(model, 0, "shared"), Plan(objective, rows, []))
    trainer.current_gradient_accumulation_steps = 1
    alone = float(trainer._over_parts(rows, "train"))
    gradients, metrics = grads(model), {name: seen[-1][0] for name, seen in trainer._seen["train"].items()}
    model.zero_grad()

    asked: list[list[torch.Tensor]] = []
    monkeypatch.setattr(preference_ranks, "add_up", lambda tensors: asked.append(list(tensors)))
    monkeypatch.setattr(preference_ranks, "processes", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(preference_ranks, "rank", lambda rank=rank: rank)
        trainer._over_parts(rows, "train")
    loss, columns = (sum(parts) for parts in zip(*asked, strict=True))
    assert float(loss) == pytest.approx(alone, abs=1e-6)
    assert_same(grads(model), gradients)
    found = objective.metrics(rows, Scores(*columns), trainer._whole(rows))
    assert found == pytest.approx({name: metrics[name] for name in found}, abs=1e-5)

    model.zero_grad()
    preference_ranks.add_up_gradients(model)
    assert all(not g.any() for g in asked[-1]), "a process without rows adds nothing, and does not stay away"
    assert len(asked[-1]) == len(gradients)


# --- what can be trusted ------------------------------------------------------------------------------------------------------


def test_what_stands_in_the_chosen_completion_does_not_reach_the_rejected_one() -> None:
    scorer = Scorer(with_lora(tiny("qwen3")).eval(), 0, "shared")
    rows = [Item((5, 6, 7), (tuple(chosen), (8, 9, 10))) for chosen in ([11, 12, 13], [200, 201, 202])]
    with torch.no_grad():
        one, other = (scorer.logps([row]).sums[0] for row in rows)
    assert one[0] != other[0]
    assert float(one[1] - other[1]) == 0.0


def test_a_family_with_a_sliding_window_gets_each_answer_apart() -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": 269}
    mistral = MistralForCausalLM._from_config(MistralConfig(**sizes, sliding_window=32), attn_implementation="sdpa")
    assert trusted_layout(mistral, 0, LIMIT) == "apart"
    assert trusted_layout(mistral, 0, 32) == "shared", "no row is longer than the window"
    gemma = Gemma3ForCausalLM._from_config(
        Gemma3TextConfig(**{**sizes, "sliding_window": 16, "num_hidden_layers": 6, "head_dim": 8}), attn_implementation="sdpa"
    )
    assert trusted_layout(gemma, 0, LIMIT) == "apart"


def test_a_family_with_layers_that_are_no_attention_gets_each_answer_apart() -> None:
    """Convolutions and recurrences carry one completion over into the next; each is then as the model's own forward gives it."""
    torch.manual_seed(0)
    kinds = ["conv", "full_attention", "conv"]
    model = Lfm2ForCausalLM._from_config(Lfm2Config(**{**SIZES, "vocab_size": 269}, layer_types=kinds), attn_implementation="sdpa")
    assert trusted_layout(model, 0, LIMIT) == "apart"
    scorer, rows = Scorer(model.eval(), 0, "apart"), [Item((5, 6, 7), ((11, 12), (8, 9, 10, 13))), Item((5,), ((6,), (7, 8)))]
    with torch.no_grad():
        found = scorer.logps(rows).sums
        plain = [[sum(values) for values in scorer.plain(row)] for row in rows]
    torch.testing.assert_close(found, torch.tensor(plain), atol=1e-4, rtol=1e-4)


def test_a_family_whose_logits_are_bent_after_the_head_is_left_to_trl() -> None:
    torch.manual_seed(0)
    config = Gemma3TextConfig(**{**SIZES, "vocab_size": 269, "head_dim": 8, "final_logit_softcapping": 2.0})
    assert trusted_layout(Gemma3ForCausalLM._from_config(config, attn_implementation="sdpa"), 0, LIMIT) is None


def test_a_mask_that_is_ignored_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    forward = type(model.model).forward
    monkeypatch.setattr(type(model.model), "forward", lambda self, *a, **k: forward(self, *a, **{**k, "attention_mask": None}))
    assert trusted_layout(model, 0, LIMIT) == "apart"


def test_a_family_with_learned_positions_shares_too() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=269, n_embd=48, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa").eval()
    assert trusted_layout(model, 0, LIMIT) == "shared", "its positions restart for the second completion as those of the others do"
    rows = [Item((5, 6, 7), ((11, 12), (8, 9, 10, 13))), Item((5,), ((6,), (7, 8)))]
    scorer = Scorer(model, 0, "shared")
    with torch.no_grad():
        plain = [[sum(values) for values in scorer.plain(row)] for row in rows]
        torch.testing.assert_close(scorer.logps(rows).sums, torch.tensor(plain), atol=1e-4, rtol=1e-4)


def test_the_base_and_adapters_by_name_are_scored_in_turn() -> None:
    base = tiny("llama").eval()
    bare = Scorer(copy.deepcopy(base), 0, "shared")
    scorer = Scorer(with_lora(base), 0, "shared")
    row = Item((5, 6, 7), ((11, 12), (8, 9, 10)))
    with torch.no_grad():
        active, plain = scorer.logps([row]).sums, scorer.logps([row], BASE).sums
        torch.testing.assert_close(plain, bare.logps([row]).sums)
        assert (active - plain).abs().min() > 1e-3
        torch.testing.assert_close(scorer.logps([row], "default").sums, active)


def test_what_fits_on_a_gpu_decides_how_much_is_computed_at_once() -> None:
    small, llama_8b = (576, 30), (4096, 32)
    assert token_budget(80 << 30, *small, recomputed=False) == 16384
    assert 500 < token_budget(8 << 30, *llama_8b, recomputed=False) < 700
    assert token_budget(40 << 30, *llama_8b, recomputed=True) == 16384


def test_activations_are_kept_where_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    rows = [Item((1,) * 10, ((2,) * 5, (3,) * 5)), Item((1,) * 30, ((2,) * 5, (3,) * 15))]
    kept = 60 * SIZES["hidden_size"] * SIZES["num_hidden_layers"]  # bytes a token
    for layout, longest in (("shared", 50), ("apart", 90)):
        for free, short in ((2 * longest * kept, False), (2 * longest * kept - 2, True)):
            monkeypatch.setattr(preference_memory, "free_bytes", lambda device, free=free: free)
            assert must_recompute(model, rows, layout) is short  # type: ignore[arg-type]


def test_a_head_that_is_trained_gets_its_gradient() -> None:
    model = tiny("llama")
    row = Item((5, 6, 7), ((11, 12), (8, 9, 10)))
    Scorer(model, 0, "shared").logps([row]).sums.sum().backward()
    mine = model.lm_head.weight.grad.clone()
    model.zero_grad()
    for completion in row.completions:
        logps = model(input_ids=torch.tensor([[*row.prompt, *completion]])).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
        logps[torch.arange(len(completion)), list(completion)].sum().backward()
    torch.testing.assert_close(mine, model.lm_head.weight.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_held_out_figures_do_not_depend_on_how_the_rows_fall_into_batches(tmp_path: Path, method: str) -> None:
    """Nine rows in batches of eight: the last one must not count as much as the eight before it."""
    from training import dpo, sft
    from training.adapters import load_trainable
    from training.callbacks import RunEvents
    from training.config import DpoConfig, SftConfig
    from training.loop import Job
    from training.rows import Rows

    base = tiny_model.save_model(tmp_path / "base")
    shared: dict[str, Any] = {"batch_size": 4, "max_length": 128, "tuning": "lora", "precision": "fp32"}
    config = DpoConfig(**shared, sft_weight=0.0) if method == "dpo" else SftConfig(**shared)
    made = dpo_rows if method == "dpo" else sft_rows
    odd = [{**row, "chosen": assistant("so " * i + "!"), "completion": assistant("so " * i + "!")} for i, row in enumerate(made(9))]
    run = make_run(tmp_path / "run", base, config, made())
    rows = Rows(made(4), odd if method == "dpo" else [{k: v for k, v in row.items() if k != "chosen"} for row in odd])
    start = load_trainable(ModelSpec("local", str(base)), config, rows)
    job = Job(run, config, start, rows, RunEvents(run, config), lambda what, done=0, total=0: None)
    trainer = (dpo if method == "dpo" else sft).make_trainer(job)
    torch.manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    found = {}
    for size in (9, 8, 5, 1):
        trainer.args.per_device_eval_batch_size = size
        found[size] = {name: value for name, value in trainer.evaluate().items() if name in FIGURES[method]}
    assert len(found[9]) == len(FIGURES[method])
    for size, figures in found.items():
        assert figures == pytest.approx(found[9], abs=1e-4), size


FIGURES = {
    "dpo": {"eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"},
    "sft": {"eval_loss", "eval_mean_token_accuracy"},
}
