"""The reward model as a run: it starts at ln 2, parts good from bad, loads in plain peft with its head, goes on from an adapter."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file

from data.engine import ModelSpec
from data.errors import EngineError, RunError
from data.rundir import RunDir
from tests import tiny_model
from tests.training_runs import adapter_weights, assistant, dpo_rows, events, kto_rows, make_run, sft_rows, user
from training import reward, sft
from training.config import RewardConfig, SftConfig
from training.grading import grader
from training.models import load_base
from training.reward_model import RewardModel, is_reward_adapter, is_reward_model
from training.rows import Rows

pytestmark = pytest.mark.model

FEW = {"max_steps": 6, "batch_size": 4, "lora_rank": 4, "max_length": 128, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, dict[str, Any]]:
    """One QLoRA run that the tests look at together."""
    run = make_run(
        tmp_path_factory.mktemp("reward") / "run",
        base,
        RewardConfig(**FEW, tuning="qlora"),
        [*dpo_rows(24), *dpo_rows(5, "held_out")],
    )
    return run, reward.main(run)


def test_the_loss_begins_at_ln_2_and_the_scores_part(trained: tuple[RunDir, dict[str, Any]]) -> None:
    run, result = trained
    metrics = [event for event in events(run, "metrics") if "loss" in event]
    assert result["first_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert metrics[-1]["loss"] < 0.6
    assert metrics[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert metrics[-1]["margin"] > 0.2
    assert {"accuracy", "margin", "mean_reward", "num_tokens", "tokens_per_second"} <= set(metrics[0])
    assert (result["steps"], result["rows"], result["held_out_rows"]) == (6, 24, 5)
    assert 0 <= result["right"] <= 5
    assert all(weights.abs().max() > 0 for name, weights in adapter_weights(run).items() if "lora_B" in name)


def test_the_adapter_loads_in_plain_peft_with_its_head(base: Path, trained: tuple[RunDir, dict[str, Any]]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = trained[0].path / "adapter"
    assert not [file for file in folder.iterdir() if file.suffix in (".bin", ".pt")]
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    plain.config.pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(plain, str(folder)).eval()
    assert float(model.base_model.model.score.weight.abs().max()) > 0
    ours = RewardModel.load(ModelSpec("local", str(base), str(folder)))
    for text in ("sun!", "no"):
        turns = [*user("Say sun 0"), *assistant(text)]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            theirs = float(model(**ids).logits[0, 0])
        assert ours.score([user("Say sun 0")], [assistant(text)]) == [pytest.approx(theirs, abs=1e-4)]


def test_answers_score_the_same_in_any_company(base: Path, trained: tuple[RunDir, dict[str, Any]]) -> None:
    model = RewardModel.load(ModelSpec("local", str(base), str(trained[0].path / "adapter")))
    answers = [assistant(text) for text in ("sun!", "no", "a much longer answer that says a lot", "")]
    together = model.score([user("Say sun")] * 4, answers)
    assert together == pytest.approx([model.score([user("Say sun")], [answer])[0] for answer in answers], abs=1e-5)
    assert together[0] > together[1]


def test_it_goes_on_from_an_adapter_and_stands_alone(tmp_path: Path, base: Path) -> None:
    """The parent's weights are where it starts; what it saves needs the base only."""
    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW, tuning="lora"), sft_rows())
    sft.main(parent)
    run = make_run(
        tmp_path / "reward",
        base,
        RewardConfig(**FEW | {"max_steps": 1, "learning_rate": 1e-7, "lora_rank": 9}, tuning="lora"),
        dpo_rows(),
        parent.path / "adapter",
    )
    result = reward.main(run)
    assert result["first_loss"] == pytest.approx(math.log(2), abs=1e-4)
    mine, theirs = adapter_weights(run), adapter_weights(parent)
    shared = [name for name in mine if ".lora_" in name]
    assert sorted(shared) == sorted(theirs)
    assert all(torch.allclose(mine[name].float(), theirs[name].float(), atol=1e-5) for name in shared)
    RewardModel.load(ModelSpec("local", str(base), str(run.path / "adapter")))


def test_what_is_no_reward_model_is_not_taken_for_one(tmp_path: Path, base: Path) -> None:
    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW | {"max_steps": 1}), sft_rows())
    sft.main(parent)
    assert not is_reward_adapter(parent.path / "adapter")
    for folder in (str(parent.path / "adapter"), ""):
        with pytest.raises(EngineError, match="no reward model"):
            RewardModel.load(ModelSpec("local", str(base), folder))


def test_what_a_config_says_is_only_words(tmp_path: Path, base: Path) -> None:
    """Odd or hostile, it is a model that loads or one sentence about it; a reward model is one however its kind is written."""
    folder = tmp_path / "odd"
    shutil.copytree(base, folder)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def write(**more: object) -> ModelSpec:
        (folder / "config.json").write_text(json.dumps(said | more), encoding="utf-8")
        return ModelSpec("local", str(folder))

    for kinds in ([1, None], None, "LlamaForCausalLM"):
        load_base(write(architectures=kinds))
        assert not is_reward_model(folder)
    for kinds in ("LlamaForSequenceClassification", ["LlamaForSequenceClassification"]):
        with pytest.raises(EngineError, match="scores answers and writes none"):
            load_base(write(architectures=kinds, id2label={"0": "score"}))
        assert is_reward_model(folder)
    odd: list[dict[str, object]] = [
        {name: value} for name in ("hidden_size", "model_type") for value in ("x", 3, None, [1], {"a": []})
    ]
    odd += [{"num_attention_heads": 0}, {"rope_parameters": "x"}, {"quantization_config": 3}, {"layer_types": 3}, {"dtype": {}}]
    for more in odd:
        with pytest.raises(EngineError) as caught:
            load_base(write(**more))
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)
    (folder / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(EngineError, match=r"damaged file: config.json is no JSON; copy or download the model again\."):
        load_base(ModelSpec("local", str(folder)))
    assert not is_reward_model(folder)


def test_all_weights_make_a_model_that_scores_wherever_it_is_loaded(tmp_path: Path, base: Path) -> None:
    """Begun from an adapter, which is merged in: at ln 2, a plain folder, what grades RLOO, and nothing that could write."""
    from transformers import AutoModelForSequenceClassification

    parent = make_run(tmp_path / "sft", base, SftConfig(**FEW, tuning="lora"), sft_rows())
    sft.main(parent)
    config = RewardConfig(**FEW | {"learning_rate": 5e-3}, tuning="full")
    run = make_run(tmp_path / "run", base, config, [*dpo_rows(24), *dpo_rows(5, "held_out")], parent.path / "adapter")
    result = reward.main(run)
    folder = run.path / "model"
    assert (result["model"], result["first_loss"]) == ("model", pytest.approx(math.log(2), abs=1e-4))
    assert [event["loss"] for event in events(run, "metrics") if "loss" in event][-1] < 0.6
    assert 0 <= result["right"] <= 5
    assert not (run.path / "adapter").exists()
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(after) - set(before) == {"score.weight"}
    assert all(not torch.equal(before[name], after[name]) for name in after if name in before)
    assert "AutoModelForSequenceClassification" in (folder / "README.md").read_text(encoding="utf-8")
    assert is_reward_model(folder)
    assert not is_reward_model(base)
    ours, plain = RewardModel.load(ModelSpec("local", str(folder))), AutoModelForSequenceClassification.from_pretrained(folder)
    ids = ours._ids([*user("Say sun 0"), *assistant("sun!")])
    with torch.no_grad():
        theirs = float(plain(input_ids=torch.tensor([ids])).logits[0, 0])
    scores = ours.score([user("Say sun 0")] * 2, [assistant("sun!"), assistant("no")])
    assert scores[0] == pytest.approx(theirs, abs=1e-4)
    assert scores[0] > scores[1]
    grade = grader(graded_by(run, ModelSpec("local", str(folder))), "its-id", Rows([], []))
    assert grade([user("Say sun 0")], [assistant("sun!")]) == [pytest.approx(theirs, abs=1e-4)]
    with pytest.raises(EngineError, match="scores answers and writes none"):
        load_base(ModelSpec("local", str(folder)))


def graded_by(run: RunDir, spec: ModelSpec) -> RunDir:
    record = run.config()
    record["args"]["reward_model"] = spec.to_json()
    (run.path / "config.json").write_text(json.dumps(record))
    return run


def test_rows_of_another_kind_are_refused_and_odd_ones_left_out(tmp_path: Path, base: Path) -> None:
    with pytest.raises(RunError, match="no column 'chosen'"):
        reward.main(make_run(tmp_path / "kto", base, RewardConfig(**FEW), kto_rows()))
    rows = dpo_rows(6)
    rows[0]["rejected"] = rows[0]["chosen"]
    rows[1]["chosen"] = assistant(" ")
    rows[2]["rejected"] = assistant("word " * 200)
    result = reward.main(make_run(tmp_path / "odd", base, RewardConfig(**FEW | {"max_steps": 1}), rows))
    assert result["rows"] == 3
    assert set(result["dropped"]["reasons"]) == {
        "both answers are the same", "an answer is empty", "prompt and answer are longer than 128 tokens",
    }  # fmt: skip


def test_a_head_that_is_not_new_is_refused(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import reward_model

    real = reward_model.load_scoring

    def grown(*args: Any) -> Any:
        start = real(*args)
        torch.nn.init.normal_(start.model.base_model.model.score.modules_to_save["default"].weight, std=5.0)
        return start

    monkeypatch.setattr(reward_model, "load_scoring", grown)
    with pytest.raises(RunError, match=r"ln 2"):
        reward.main(make_run(tmp_path / "run", base, replace(RewardConfig(), batch_size=8), dpo_rows()))


def test_the_lineage_says_how_to_load_it(trained: tuple[RunDir, dict[str, Any]]) -> None:
    folder = trained[0].path / "adapter"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForSequenceClassification" in readme
    assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
