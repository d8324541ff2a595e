"""Recipes as files: `training/recipes/<name>.json`, a method's settings for a purpose, with where they come from.

    recipes_for("dpo")                # those of one method, by title, for the Train page
    recipe_file("zephyr-7b-dpo-full") # one by its name

A file holds `title`, `method`, `train` (settings as in a run's config.json; what is missing takes its default), `base` and `data`
it was made for, `source`, `note`, and `launch` where it wants several devices. Rows a step = batch size × accumulation × devices.
Each file is read and checked at its first use, and by a test. Free of torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data.errors import BadInput
from training.config import Method, TrainConfig, from_json, method_named
from training.launch import Launch, check_method
from training.methods import module_of

FOLDER = Path(__file__).with_name("recipes")
_PARTS = {"title", "method", "train", "base", "data", "source", "note", "launch"}


@dataclass(frozen=True)
class RecipeFile:
    """One file. `launch` None = made for one device."""

    name: str
    title: str
    method: Method
    config: TrainConfig
    base: str
    data: str
    source: str
    note: str
    launch: Launch | None

    @property
    def rows_a_step(self) -> int:
        return self.config.batch_size * self.config.accumulation * (self.launch.processes if self.launch else 1)


@cache
def recipe_files() -> tuple[RecipeFile, ...]:
    """All of them, by title; BadInput names a file that is no recipe."""
    return tuple(sorted((_read(file) for file in FOLDER.glob("*.json")), key=lambda recipe: recipe.title))


def recipes_for(method: str) -> tuple[RecipeFile, ...]:
    return tuple(recipe for recipe in recipe_files() if recipe.method == method)


def recipe_file(name: str) -> RecipeFile:
    for recipe in recipe_files():
        if recipe.name == name:
            return recipe
    raise BadInput(f"There is no recipe {name!r}; choose one from the list.")


def _read(file: Path) -> RecipeFile:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return parse(file.stem, raw)
    except (OSError, ValueError, KeyError, TypeError, BadInput) as error:
        raise BadInput(f"The recipe {file.name} cannot be used: {error}") from error


def parse(name: str, raw: Mapping[str, Any]) -> RecipeFile:
    """A recipe from its file's content; BadInput for what it should not hold."""
    if unknown := sorted(set(raw) - _PARTS):
        raise BadInput(f"it has no part {unknown[0]!r}.")
    method = method_named(raw["method"])
    launch = Launch.from_json(raw["launch"]) if raw.get("launch") else None
    if launch:
        check_method(module_of(method), launch)
    config = from_json(method, raw["train"])
    texts = {part: str(raw[part]) for part in ("title", "base", "data", "source", "note")}
    return RecipeFile(name=name, method=method, config=config, launch=launch, **texts)
