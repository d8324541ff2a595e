"""Recipes as files: every one of them is settings that a run takes as they are, and says where it comes from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data.engine import ModelSpec
from data.errors import BadInput
from training.config import METHODS, DpoConfig, config_class, read_args, run_args
from training.recipe_files import FOLDER, parse, recipe_file, recipe_files, recipes_for


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.iterdir()))
def test_every_file_is_a_run(name: str) -> None:
    recipe = recipe_file(name)
    assert type(recipe.config) is config_class(recipe.method)
    spec, config = read_args(recipe.method, json.loads(json.dumps(run_args(ModelSpec("local", recipe.base), recipe.config))))
    assert (spec.base, config) == (recipe.base, recipe.config)
    raw = json.loads((FOLDER / f"{name}.json").read_text())
    assert all(getattr(config, field) == value for field, value in raw["train"].items()), "nothing is lost on the way"
    assert len(recipe.title) < 60
    assert min(len(recipe.source), len(recipe.note), len(recipe.data)) > 10


def test_zephyr_is_as_published() -> None:
    """The Alignment Handbook's figures, by today's names."""
    full, small = recipe_file("zephyr-7b-dpo-full"), recipe_file("zephyr-7b-dpo-qlora")
    assert isinstance(full.config, DpoConfig)
    assert isinstance(small.config, DpoConfig)
    assert (full.rows_a_step, small.rows_a_step) == (128, 16)
    assert (full.config.beta, small.config.beta, full.config.sft_weight) == (0.01, 0.01, 0)
    assert (full.config.learning_rate, small.config.learning_rate) == (5e-7, 5e-6)
    assert (full.config.tuning, small.config.tuning, small.config.lora_rank, small.config.lora_alpha) == ("full", "qlora", 128, 128)
    assert full.launch is not None
    assert (full.launch.preset, full.launch.devices) == ("zero3", 8)
    sft, sft_small = recipe_file("zephyr-7b-sft-full"), recipe_file("zephyr-7b-sft-qlora")
    assert (sft.rows_a_step, sft_small.rows_a_step) == (128, 8)
    assert (sft.config.learning_rate, sft_small.config.learning_rate) == (2e-5, 2e-4)
    assert sft.config.max_length == sft_small.config.max_length == 2048


def test_a_method_is_offered_its_own() -> None:
    assert {recipe.name for method in METHODS for recipe in recipes_for(method)} == {recipe.name for recipe in recipe_files()}
    assert all(recipe.method == "dpo" for recipe in recipes_for("dpo"))
    assert "quick-100" in {recipe.name for recipe in recipes_for("dpo")}
    assert recipes_for("nothing") == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"rpo_alpha": 1}}, "no setting 'rpo_alpha'"),
        ({"method": "ppo2"}, "no training method"),
        ({"launch": {"preset": "zero9"}}, "no such way"),
        ({"secret": 1}, "no part 'secret'"),
        ({"method": "orpo", "train": {}, "launch": {"preset": "fsdp"}}, "whole copies"),
    ],
)
def test_what_is_no_recipe_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    raw = json.loads((FOLDER / "zephyr-7b-dpo-full.json").read_text())
    with pytest.raises(BadInput, match=words):
        parse("x", {**raw, **change})


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match="no recipe 'mine'"):
        recipe_file("mine")
