"""SFT as a run: parameters move, the adapter loads in plain peft, the same seed gives the same bytes, and a stop keeps the work."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from data.engine import ModelSpec
from data.errors import EngineError, RunError
from tests import tiny_model
from tests.training_runs import ROOT, adapter_weights, assistant, dpo_rows, events, make_run, sft_rows, start, user
from training import sft
from training.adapters import load_trainable
from training.callbacks import RunEvents
from training.config import SftConfig
from training.export import portable
from training.loop import Job
from training.rows import Rows

pytestmark = pytest.mark.model

FEW = {"max_steps": 3, "batch_size": 4, "lora_rank": 4, "max_length": 128}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save_model(tmp_path_factory.mktemp("base") / "tiny", hidden_size=64)


@pytest.mark.parametrize("tuning", ["qlora", "lora"])
def test_a_run_learns_and_reports(tmp_path: Path, base: Path, tuning: str) -> None:
    config = SftConfig(**FEW, tuning=tuning, learning_rate=0.01)
    run = make_run(tmp_path / "run", base, config, [*sft_rows(), *sft_rows(4, "held_out")])
    result = sft.main(run)
    weights = adapter_weights(run)
    assert len(weights) == 2 * 7 * 2, "A and B of seven linear layers in each of two blocks"
    assert all(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name), "every B left zero"
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert (result["adapter"], result["steps"], result["rows"], result["held_out_rows"]) == ("adapter", 3, 12, 4)
    losses = [event["loss"] for event in events(run, "metrics") if "loss" in event]
    assert len(losses) == 3
    assert result["first_loss"] == losses[0]
    assert result["metrics"]["eval_loss"] < losses[0]
    assert events(run, "progress")[-1]["done"] == 3


def test_the_adapter_loads_in_plain_peft_and_changes_the_model(tmp_path: Path, base: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = make_run(tmp_path / "run", base, SftConfig(**FEW, tuning="lora", learning_rate=0.01), sft_rows())
    sft.main(run)
    files = {path.name for path in (run.path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "README.md"}, "no pickle, no trainer state"
    ids = torch.tensor([[7, 8, 9, 10]])
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = plain(ids).logits
    tuned = PeftModel.from_pretrained(plain, str(run.path / "adapter"))
    assert (tuned(ids).logits - before).abs().max() > 1e-3
    readme = (run.path / "adapter" / "README.md").read_text()
    assert run.config()["data"]["sha256"] in readme
    assert str(tmp_path) not in readme


def test_a_base_of_the_application_is_recorded_relative_to_it(tmp_path: Path) -> None:
    inside = next(path for path in (ROOT / "data").iterdir() if path.is_dir())
    assert portable(str(inside)) == f"data/{inside.name}"
    assert portable(str(tmp_path)) == str(tmp_path)
    assert portable("org/name") == "org/name"
    assert portable("") == ""


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, base: Path) -> None:
    made = []
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        run = make_run(tmp_path / name, base, SftConfig(**FEW, seed=seed), sft_rows())
        sft.main(run)
        made.append((run.path / "adapter" / "adapter_model.safetensors").read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_an_evaluation_does_not_change_the_gradients_of_a_quantized_base(base: Path) -> None:
    """bitsandbytes repacks NF4 weights in eval mode on some CPUs, for a kernel without a backward."""
    from peft import get_peft_model

    start = load_trainable(ModelSpec("local", base=str(base)), SftConfig(lora_rank=4, precision="fp32"))
    model = get_peft_model(start.model, start.lora)
    ids = torch.tensor([[7, 8, 9, 10, 11, 12]])

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [p.grad.clone() for name, p in model.named_parameters() if "lora_B" in name and p.grad is not None]

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(ids)
    after = gradients()
    assert len(before) == len(after) == 14
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(old, new)


def test_a_stop_saves_the_adapter_within_a_step(tmp_path: Path, base: Path) -> None:
    config = SftConfig(epochs=100, batch_size=2, lora_rank=4, max_length=128, tuning="lora")
    run = make_run(tmp_path / "run", base, config, sft_rows(48))
    reached: list[int] = []
    over = threading.Event()

    def stop_it() -> None:
        while not (learned := events(run, "metrics")) and not over.wait(0.02):
            pass
        reached.append(max((event["step"] for event in learned), default=0))
        run.request_stop()

    watcher = threading.Thread(target=stop_it, daemon=True)
    watcher.start()
    try:
        result = sft.main(run)
    finally:
        over.set()  # a run that failed before its first step
    watcher.join()
    (at_stop,) = reached
    assert at_stop
    assert at_stop <= result["steps"] < 2400
    last = max(event["step"] for event in events(run, "metrics"))
    assert result["steps"] == last
    assert adapter_weights(run)


@pytest.mark.slow(reason="a process of its own each; a resumed run that is stopped so soon is not slow")
@pytest.mark.parametrize("phase", ["loading the base model", "loading the libraries"])
def test_a_stop_before_the_first_step_ends_the_run_without_an_adapter(tmp_path: Path, base: Path, phase: str) -> None:
    config = SftConfig(epochs=100, batch_size=2, lora_rank=4, max_length=128, tuning="lora")
    run = make_run(tmp_path / "run", base, config, sft_rows(48))
    child = start("sft", run)
    while not any(event["unit"] == phase for event in events(run, "progress")):
        assert child.poll() is None, run.log_tail()
        time.sleep(0.005)
    run.request_stop()
    assert child.wait() == 0
    assert [event["status"] for event in events(run, "status")] == ["running", "stopped"]
    (words,) = [event["text"] for event in events(run, "log")]
    assert words.startswith("Stopped while ")
    assert words.endswith("; no adapter was made.")
    assert not (run.path / "adapter").exists()
    assert not events(run, "metrics")
    assert not events(run, "result")


def test_a_stop_in_an_evaluation_keeps_the_steps_before_it(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop comes at the end of an epoch, just before its evaluation, which is not waited for; no older figure stands in."""

    def stop_at_the_second(told: RunEvents, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 12:
            told.run.request_stop()

    monkeypatch.setattr(RunEvents, "on_epoch_end", stop_at_the_second)
    config = SftConfig(epochs=4, batch_size=2, lora_rank=4, max_length=128, tuning="lora")
    run = make_run(tmp_path / "run", base, config, [*sft_rows(12), *sft_rows(6, "held_out")])
    result = sft.main(run)
    assert result["steps"] == 12
    assert [event["step"] for event in events(run, "metrics") if "eval_loss" in event] == [6]
    assert not [name for name in result["metrics"] if name.startswith("eval_")]
    assert adapter_weights(run)


def test_a_prompt_longer_than_the_context_is_left_out_and_named(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sft_rows()
    rows[3]["prompt"] = user("much too long " * 40)
    run = make_run(tmp_path / "run", base, SftConfig(**{**FEW, "max_length": 1024, "max_steps": 1}, tuning="lora"), rows)
    result = sft.main(run)
    assert result["rows"] == 11
    reasons = result["dropped"]["reasons"]
    assert list(reasons) == ["the prompt is longer than 256 tokens"]
    assert (reasons["the prompt is longer than 256 tokens"]["rows"], "train3" in json.dumps(result)) == (1, False)
    said = [event["text"] for event in events(run, "log")]
    assert any("1 row left out" in text and "much too long" in text for text in said)
    assert not any("train3" in text for text in said)
    assert "train3" in capsys.readouterr().out, "which row it was stands in the log"


def test_bad_bases_and_bad_data_are_refused_in_words(tmp_path: Path, base: Path) -> None:
    mute = tmp_path / "mute"
    tiny_model.save_model(mute)
    tiny_model.save_tokenizer(mute, chat_template=None)
    (mute / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(EngineError, match="no chat template"):
        sft.main(make_run(tmp_path / "a", mute, SftConfig(**FEW), sft_rows()))
    endless = tmp_path / "endless"
    tiny_model.save_model(endless)
    tiny_model.save_tokenizer(endless, tiny_model.CHAT_TEMPLATE.replace("+ '<|end|>'", ""))
    with pytest.raises(RunError, match="never stop"):
        sft.main(make_run(tmp_path / "b", endless, SftConfig(**FEW), sft_rows()))
    with pytest.raises(RunError, match="no column 'completion'"):
        sft.main(make_run(tmp_path / "c", base, SftConfig(**FEW), dpo_rows()))


def test_a_child_that_fails_says_why_in_its_events(tmp_path: Path, base: Path) -> None:
    run = make_run(tmp_path / "run", base, SftConfig(**FEW), sft_rows())
    config = json.loads((run.path / "config.json").read_text())
    config["args"]["train"]["learning_rate"] = -1
    (run.path / "config.json").write_text(json.dumps(config))
    assert start("sft", run).wait() == 1
    assert events(run, "error")[0]["message"] == "learning_rate must be at least 1e-07, not -1."
    assert events(run, "status")[-1]["status"] == "failed"


def test_the_demo_model_learns_an_answer(tmp_path: Path) -> None:
    config = SftConfig(epochs=4, batch_size=8, learning_rate=0.003)
    run = make_run(tmp_path / "run", tiny_model.DEMO_MODEL, config, sft_rows(24))
    result = sft.main(run)
    assert result["steps"] == 12
    assert events(run, "metrics")[-1]["loss"] < 0.7 * result["first_loss"]


def test_packed_rows_do_not_see_each_other_and_only_answers_count(tmp_path: Path, base: Path) -> None:
    """What stands in the first row of a sequence moves no logit and no loss of the second."""

    config = SftConfig(**{**FEW, "max_length": 64, "batch_size": 1}, tuning="lora", packing=True, precision="fp32")
    run = make_run(tmp_path / "run", base, config, sft_rows())
    start = load_trainable(ModelSpec("local", str(base)), config)
    rows = [{"prompt": user(ask), "completion": assistant(say)} for ask, say in (("abc", "defg"), ("hij", "klmn"))]
    trainer = sft.make_trainer(Job(run, config, start, Rows(rows, []), RunEvents(run, config), lambda *args: None))
    assert len(trainer.train_dataset) == 1, "both rows are in one sequence"
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert "attention_mask" not in batch, "the rows are told apart by their positions"
    first, second = (int(n) for n in trainer.train_dataset[0]["seq_lengths"])
    learned = batch["labels"][0] != -100
    ends = int(first - learned[:first].sum()), int(second - learned[first:].sum())
    assert 0 < int(learned[:first].sum()) < first
    assert 0 < int(learned[first:].sum()) < second, "prompts are not learned"
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, 3 : ends[0]] = 77
    with torch.no_grad():
        one, other = (
            trainer.model(**{k: v for k, v in each.items() if k in ("input_ids", "position_ids")}, use_cache=False).logits[0]
            for each in (batch, changed)
        )
    assert float((one[first - 1] - other[first - 1]).abs().max()) > 1e-3, "the change counts where it is seen"
    assert float((one[first:] - other[first:]).abs().max()) < 1e-5


@pytest.mark.parametrize("chosen", [{}, {"backend": "trl"}, {"packing": True}])
def test_each_way_learns_and_says_which_it_is(tmp_path: Path, base: Path, chosen: dict[str, object]) -> None:
    run = make_run(
        tmp_path / "run", base, SftConfig(**{**FEW, "batch_size": 24}, tuning="lora", learning_rate=0.01, **chosen), sft_rows(24)
    )  # type: ignore[arg-type]
    result = sft.main(run)
    losses = [event["loss"] for event in events(run, "metrics") if "loss" in event]
    assert losses[-1] < losses[0]
    assert result["metrics"]["mean_token_accuracy"] is not None
    said = " ".join(event["text"] for event in events(run, "log"))
    assert ("Trained by TRL." in said) == bool(chosen)
    assert ("rows of like length together" in said) == (not chosen)


def test_summed_batches_are_one_big_batch(tmp_path: Path, base: Path) -> None:
    """Every token of a step counts alike, however the step is cut: the adapter is the same."""
    whole: dict[str, object] = {"max_steps": 2, "lora_rank": 4, "max_length": 128, "tuning": "lora", "precision": "fp32"}
    made = []
    for name, batch, sums in (("one", 8, 1), ("four", 2, 4)):
        config = SftConfig(**whole, batch_size=batch, accumulation=sums, learning_rate=0.01)  # type: ignore[arg-type]
        run = make_run(tmp_path / name, base, config, sft_rows(8))
        sft.main(run)
        made.append(adapter_weights(run))
    for name, weight in made[0].items():
        assert float((weight - made[1][name]).abs().max()) < 1e-3, name
