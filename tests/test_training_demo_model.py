"""The demo model: what is committed is what the card says, and its pretraining learns, resumes and stays on its side."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from data.demo.world import AnswerPair, answer_pair  # noqa: E402
from data.splits import split_of  # noqa: E402
from training import demo_report, pretrain_demo  # noqa: E402
from training.demo_sampling import Question, probability_of_a, sample_answers  # noqa: E402
from training.pretrain_demo import MODEL_DIR, Recipe, Row  # noqa: E402

pytestmark = pytest.mark.model

TINY = Recipe(
    steps=6,
    answer_rows=4,
    judge_rows=4,
    late_judge_rows=4,
    warmup=2,
    own_samples_at=(0.5,),
    own_prompts=2,
    hidden=32,
    layers=1,
    feed_forward=32,
)
Loaded = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return demo_report.load()


def test_the_weights_are_small_and_bf16() -> None:
    files = [path for path in MODEL_DIR.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    with safe_open(MODEL_DIR / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        assert {piece.get_dtype() for piece in shapes} == {"BF16"}
    config = json.loads((MODEL_DIR / "config.json").read_text())
    assert config["max_position_embeddings"] >= 2_048
    assert config["tie_word_embeddings"]


def test_the_model_has_at_most_five_million_parameters(loaded: Loaded) -> None:
    assert 1_500_000 < sum(p.numel() for p in loaded[0].parameters()) <= 5_000_000


def test_the_chat_template_marks_the_assistant_and_ends_the_turn(loaded: Loaded) -> None:
    _, tokenizer = loaded
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert text == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello.<|end|>"
    opened = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert opened == text.removesuffix("Hello.<|end|>")
    marked = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "Hello.<|end|>"
    assert said[-1] == tokenizer.eos_token_id


def test_the_labels_are_one_token_after_the_generation_prompt(loaded: Loaded) -> None:
    _, tokenizer = loaded
    opened = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    head = tokenizer(opened, add_special_tokens=False)["input_ids"]
    for label in ("A", "B"):
        assert tokenizer(opened + label, add_special_tokens=False)["input_ids"] == [*head, tokenizer.convert_tokens_to_ids(label)]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60).filter(lambda text: "<|" not in text))
def test_no_text_is_unrepresentable(text: str) -> None:
    tokenizer = _tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def _tokenizer() -> PreTrainedTokenizerFast:
    if not hasattr(_tokenizer, "kept"):
        _tokenizer.kept = demo_report.load()[1]  # type: ignore[attr-defined]
    return _tokenizer.kept  # type: ignore[attr-defined,no-any-return]


def test_it_answers_held_out_prompts(loaded: Loaded) -> None:
    rows = [row.prompt for row in demo_report.held_out_prompts(200, seed=1)]
    greedy, _ = demo_report.goodness(*loaded, rows, 0.0)
    sampled, _ = demo_report.goodness(*loaded, rows, 0.8)
    assert demo_report.share(greedy).value >= 0.75
    # Wider than the acceptance of 45 to 70 %: one sample of 200 prompts is off by seven points now and then.
    assert 0.40 <= demo_report.share(sampled).value <= 0.75


def test_it_judges_the_worlds_pairs(loaded: Loaded) -> None:
    rng = random.Random(5)
    pairs = [answer_pair(row.prompt, rng) for row in demo_report.held_out_prompts(200, seed=2)]
    assert demo_report.judging(*loaded, [Question(pair.prompt, pair.a, pair.b) for pair in pairs]).right.value >= 0.80


@pytest.mark.slow
def test_acceptance() -> None:
    figures = demo_report.measure(samples=4)
    assert figures.greedy.value >= 0.75
    assert 0.45 <= figures.sampled.value <= 0.70
    assert figures.world_pairs.right.value >= 0.85
    assert figures.own_samples.right.value >= 0.85


def test_the_card_states_the_stored_figures() -> None:
    stored = json.loads((MODEL_DIR / "metrics.json").read_text())
    card = (MODEL_DIR / "README.md").read_text()
    for value in (stored["greedy"], stored["sampled"], stored["world_pairs"]["right"], stored["own_samples"]["right"]):
        assert f"{value['value']:.1%}" in card


def test_sampling_is_seeded_and_keeps_the_order(loaded: Loaded) -> None:
    rows = [row.prompt for row in demo_report.held_out_prompts(20)]
    assert sample_answers(*loaded, rows, 0.8, seed=3) == sample_answers(*loaded, rows, 0.8, seed=3)
    assert sample_answers(*loaded, rows, 0.8, seed=3) != sample_answers(*loaded, rows, 0.8, seed=4)
    greedy = sample_answers(*loaded, rows, 0.0)
    assert sample_answers(*loaded, rows[::-1], 0.0, batch_size=7)[::-1] == greedy


def test_padding_does_not_change_a_verdict(loaded: Loaded) -> None:
    questions = [
        Question("What is 7 + 12?", "19", "20"),
        Question("Name two fruits as a numbered list.", "1. apple\n2. pear", "no"),
    ]
    together = probability_of_a(*loaded, questions)
    alone = [probability_of_a(*loaded, [question])[0] for question in questions]
    assert together == pytest.approx(alone, abs=0.03)


def test_only_training_prompts_are_learned() -> None:
    rng = random.Random(0)
    late = Recipe(answer_rows=300, judge_rows=300)
    rows = pretrain_demo.answer_rows(late, late.steps - 1, rng)
    assert all(split_of(row.user) == "train" for row in rows)
    judged = pretrain_demo.judge_rows(late, [], rng)
    assert all(split_of(row.user.split("Question: ")[1].split("\nAnswer A: ")[0]) == "train" for row in judged)
    assert 0.4 < sum(row.reply == "A" for row in judged) / len(judged) < 0.6


def test_own_pairs_are_used_once_there_are_some() -> None:
    own = [AnswerPair("What is 7 + 12?", "own good", "own bad", "A")]
    rows = pretrain_demo.judge_rows(Recipe(late_judge_rows=200), own, random.Random(0))
    assert 0.35 < sum("own good" in row.user for row in rows) / 200 < 0.65


def test_the_loss_is_on_the_reply_only() -> None:
    tokenizer = _tokenizer()
    model = pretrain_demo.build_model(TINY, tokenizer)
    one, two = Row("What is 7 + 12?", "19"), Row("Spell 'garden' with dashes.", "g-a-r-d-e-n")
    together = pretrain_demo.loss_of(model, tokenizer, [one, two]).item()
    counts = [len(tokenizer(row.reply, add_special_tokens=False)["input_ids"]) + 1 for row in (one, two)]
    alone = [_slow_loss(model, tokenizer, row) for row in (one, two)]
    assert together == pytest.approx(sum(a * n for a, n in zip(alone, counts, strict=True)) / sum(counts), abs=1e-4)


def _slow_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, row: Row) -> float:
    """The same loss by transformers' own labels, one row at a time."""
    turns = [{"role": "user", "content": row.user}, {"role": "assistant", "content": row.reply}]
    marked = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = torch.tensor([marked["input_ids"]]), torch.tensor([marked["assistant_masks"]])
    return model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss.item()  # type: ignore[no-any-return]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = _tokenizer()
    whole = pretrain_demo.train(TINY, tokenizer, tmp_path / "whole.pt", resume=False)
    checkpoint = tmp_path / "cut.pt"
    step = pretrain_demo._step

    def stop_at_four(*args: object) -> tuple[float, float]:
        if args[5] == 4:
            model, optimizer, progress = args[0], args[2], args[4]
            pretrain_demo._save_checkpoint(checkpoint, model, optimizer, progress)  # type: ignore[arg-type]
            raise KeyboardInterrupt
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrain_demo, "_step", stop_at_four)
    with pytest.raises(KeyboardInterrupt):
        pretrain_demo.train(TINY, tokenizer, checkpoint, resume=False)
    monkeypatch.setattr(pretrain_demo, "_step", step)
    resumed = pretrain_demo.train(TINY, tokenizer, checkpoint, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-5), name


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    recipe = Recipe()
    rates = [pretrain_demo.learning_rate(recipe, step) for step in range(recipe.steps)]
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates[-1] == pytest.approx(recipe.learning_rate / 10, rel=0.01)
    assert rates[0] < rates[50] < rates[99]
