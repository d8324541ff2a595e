"""The house's rules of import, read from the source: which folder may use which, and where the heavy libraries may appear."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("data", "training", "labeling", "evals", "studio", "app")  # each may import those before it
WEB = {"gradio", "fastapi", "starlette", "uvicorn"}
TORCH = {"torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "ray", "deepspeed"}
FREE_AT_IMPORT = {"training/config.py", "training/launch.py", "training/launch_files.py", "training/carry.py"} | {
    "training/engines.py",
    "training/memory.py",
}
DATASETS_OUTSIDE = {"data/hub.py"}
BAD_NAMES = {"datasets.py", "types.py", "queue.py", "inspect.py", "logging.py", "trl.py", "evaluate.py"}


class Import(NamedTuple):
    """A module that `file` imports; `inside`: in a function, so not when the file itself is imported."""

    file: str
    line: int
    module: str
    inside: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def sources() -> list[Path]:
    return [ROOT / "app.py", *(f for layer in LAYERS[:-1] for f in sorted((ROOT / layer).rglob("*.py")))]


def imports(file: Path) -> Iterator[Import]:
    """Every import but those that only a type checker sees."""
    name = file.relative_to(ROOT).as_posix()

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(name, child.lineno, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}:{child.lineno} imports relatively"
                yield Import(name, child.lineno, child.module or "", inside)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            else:
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False)


@functools.cache
def every() -> list[Import]:
    return [found for file in sources() for found in imports(file)]


def test_imports_go_down_only() -> None:
    up = [
        f"{i.file}:{i.line} imports {i.module}"
        for i in every()
        if i.top in LAYERS and LAYERS.index(i.top) > LAYERS.index(i.file.split("/")[0].removesuffix(".py"))
    ]
    assert up == []


def test_the_web_is_in_studio_alone() -> None:
    assert [i for i in every() if i.top in WEB and not i.file.startswith(("studio/", "app.py"))] == []


def test_one_file_knows_the_database_engine() -> None:
    assert {i.file for i in every() if i.top == "duckdb"} == {"data/connection.py"}


def test_torch_is_in_training_alone() -> None:
    assert [i for i in every() if i.top in TORCH and not i.file.startswith("training/")] == []
    assert [
        i for i in every() if i.top == "datasets" and not i.file.startswith("training/") and i.file not in DATASETS_OUTSIDE
    ] == []


def test_what_the_web_process_imports_of_training_is_free_of_torch() -> None:
    heavy = [i for i in every() if i.top in TORCH | {"datasets"} and not i.inside and i.file in FREE_AT_IMPORT]
    assert heavy == []


def test_nothing_is_made_to_run_foreign_code() -> None:
    dangerous = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
    assert [i for i in every() if i.top in dangerous] == []
    flagged = []
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "shell"):
                safe = isinstance(node.value, ast.Constant) and node.value.value is False
                flagged += [] if safe else [f"{file.relative_to(ROOT)}:{node.value.lineno} sets {node.arg}"]
    assert flagged == []


def test_file_names_shadow_no_library() -> None:
    assert [f for f in sources() if f.name in BAD_NAMES] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("file", [f for f in sources() if f.name != "__init__.py"], ids=lambda f: f.relative_to(ROOT).as_posix())
def test_every_file_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{file.name} has no docstring"
