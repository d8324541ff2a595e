"""Training settings: one list of knobs that a form can draw, valid or refused in words, the same on both sides of a run folder."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.engine import ModelSpec
from data.errors import BadInput
from training.config import METHODS, DpoConfig, KtoConfig, SftConfig, TrainConfig, config_class, from_json, read_args, run_args
from training.defaults import recipe
from training.knobs import knobs

SPEC = ModelSpec("local", base="some/model")


@pytest.mark.parametrize("method", METHODS)
def test_every_field_can_be_drawn_in_a_form(method: str) -> None:
    cls = config_class(method)
    drawn = knobs(cls)
    assert {knob.name for knob in drawn} == {f.name for f in dataclasses.fields(cls)}
    for knob in drawn:
        assert knob.kind in ("int", "float", "bool", "str")
        assert knob.group in ("basic", "advanced")
        assert len(knob.help) > 15
        assert knob.help.endswith((".", ")."))
        assert (knob.kind == "str") == bool(knob.choices or knob.name == "reward"), f"{knob.name}: words need choices"
        assert (knob.kind in ("int", "float")) == (knob.min is not None and knob.max is not None), (
            f"{knob.name}: numbers need bounds"
        )
    groups = [knob.group for knob in drawn]
    assert groups == sorted(groups, key="basic".__ne__), "basic knobs come first"
    assert 4 <= groups.count("basic") <= 7, "a newcomer sees few knobs"


@pytest.mark.parametrize("method", METHODS)
def test_settings_survive_the_run_folder(method: Any) -> None:
    config = recipe(method, 7_000_000_000)
    spec, back = read_args(method, run_args(SPEC, config))
    assert (spec, back) == (SPEC, config)
    assert from_json(method, {}) == config_class(method)()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"learning_rate": 0}, "at least 1e-07"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"epochs": "3"}, "a number, not '3'"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 2.5}, "a whole number"),
        ({"batch_size": True}, "a whole number"),
        ({"tuning": "half"}, "one of qlora, lora, full"),
        ({"quantize": True, "tuning": "lora"}, "no setting 'quantize'"),
        ({"schedule": "zigzag"}, "one of cosine"),
        ({"beta": 11}, "at most 10"),
        ({"rpo_alpha": 1.0}, "no setting 'rpo_alpha'"),
    ],
)
def test_a_bad_value_is_refused_in_words(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        from_json("dpo", raw)


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in dataclasses.fields(DpoConfig)]), st.one_of(st.integers(), st.floats(), st.text())
    )
)
def test_any_input_gives_a_config_or_one_sentence(raw: dict[str, Any]) -> None:
    refusal = ""
    try:
        from_json("dpo", raw)
    except BadInput as error:
        refusal = str(error)
    assert refusal.count(". ") == 0


def test_kto_needs_two_rows_a_batch_and_other_methods_do_not() -> None:
    with pytest.raises(BadInput, match="at least 2"):
        KtoConfig(batch_size=1)
    assert SftConfig(batch_size=1).batch_size == 1


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(BadInput, match="no training method 'ppo'"):
        config_class("ppo")
    with pytest.raises(BadInput, match="local base"):
        read_args("dpo", run_args(ModelSpec("endpoint", base="gpt", url="http://x/v1"), DpoConfig()))
    with pytest.raises(BadInput, match="'train'"):
        read_args("dpo", {"model": SPEC.to_json()})


@pytest.mark.parametrize("method", METHODS)
def test_bigger_bases_get_smaller_steps(method: str) -> None:
    demo, small, large = (recipe(method, n) for n in (2_000_000, 600_000_000, 7_000_000_000))
    assert recipe(method, 0) == large, "of a base whose size is not known"
    assert demo == config_class(method)()
    assert demo.learning_rate > small.learning_rate >= large.learning_rate
    assert (demo.tuning, small.tuning, large.tuning) == ("lora", "lora", "qlora"), "4 bits only for what would not fit"
    assert large.checkpointing
    assert isinstance(large, TrainConfig)


def test_few_rows_are_gone_over_more_often() -> None:
    epochs = [recipe("dpo", 2_000_000, rows).epochs for rows in (1, 40, 100, 200, 10_000, 0)]
    assert epochs == [10, 10, 6, 3, 3, 3]


def test_settings_are_free_of_torch() -> None:
    names = "torch transformers peft trl"
    code = f"import sys, training.config, training.memory, training.rows; print([m for m in {names.split()} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(("size", "share"), [(2_000_000, 0.3), (600_000_000, 0.1), (7_000_000_000, 0.1)])
@pytest.mark.parametrize("method", METHODS)
def test_all_weights_take_smaller_steps_than_an_adapter(method: str, size: int, share: float) -> None:
    full = recipe(method, size, tuning="full")
    assert full.tuning == "full"
    assert full.learning_rate == pytest.approx(recipe(method, size).learning_rate * share)
    assert recipe(method, size, tuning="lora").tuning == "lora"


def test_a_loss_says_what_it_is_for_and_what_it_lacks() -> None:
    loss = next(knob for knob in knobs(DpoConfig) if knob.name == "loss")
    assert len(loss.choices) == len(loss.meanings) == 12
    with pytest.raises(BadInput, match=r"needs a label smoothing above 0"):
        DpoConfig(loss="exo_pair")
    assert DpoConfig(loss="exo_pair", label_smoothing=0.001).loss == "exo_pair"
