"""GGUF: the converter is found or the exact command is said; a stand-in for llama.cpp's script is run as the real one would be."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.engine import ModelSpec
from data.rundir import RunDir
from training.gguf import SCRIPT, VARIABLE, argv, command, find_converter

ROOT = Path(__file__).resolve().parent.parent
CONVERTER = """
import json, pathlib, sys, time
words = sys.argv[1:]
print("converting", *words)
if "sleep" in pathlib.Path(words[0]).name:
    time.sleep(60)
if "fail" in pathlib.Path(words[0]).name:
    sys.exit("this architecture is not supported")
pathlib.Path(words[2]).write_bytes(b"GGUF" + json.dumps(words).encode())
"""


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Path:
    folder = tmp_path / "llama; touch hacked.cpp"
    folder.mkdir()
    (folder / SCRIPT).write_text(CONVERTER)
    return folder


def model(tmp_path: Path, name: str = "model") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def start(run: RunDir, llama_cpp: Path | None) -> subprocess.Popen[bytes]:
    env = {**os.environ, VARIABLE: str(llama_cpp or "")}
    out = (run.path / "stdout.log").open("wb")
    return subprocess.Popen(
        [sys.executable, "-m", "training.gguf", str(run.path)], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
    )


def convert(folder: Path, llama_cpp: Path | None, spec: ModelSpec, **args: Any) -> RunDir:
    run = RunDir.create(folder, {"args": {"model": spec.to_json(), **args}})
    start(run, llama_cpp).wait()
    return run


def the(run: RunDir, kind: str) -> dict[str, Any]:
    return [event for event in run.tail().events if event["type"] == kind][-1]


def test_the_converter_writes_a_file(tmp_path: Path, llama_cpp: Path) -> None:
    source = model(tmp_path)
    run = convert(tmp_path / "run", llama_cpp, ModelSpec("local", str(source)), outtype="q8_0")
    assert the(run, "result")["file"] == "model.gguf", run.log_tail()
    words = json.loads((run.path / "model.gguf").read_bytes()[4:])
    assert words == [str(source), "--outfile", str(run.path / "model.gguf"), "--outtype", "q8_0"]
    assert not list(tmp_path.rglob("hacked*"))


def test_failures_are_said_in_words(tmp_path: Path, llama_cpp: Path) -> None:
    whole = ModelSpec("local", str(model(tmp_path)))
    cases = [
        (llama_cpp, ModelSpec("local", str(model(tmp_path, "fail"))), {}, "converter failed (exit status 1)"),
        (llama_cpp, ModelSpec("local", whole.base, "adapter"), {}, "merge the adapter"),
        (llama_cpp, whole, {"outtype": "q9"}, "Choose one of"),
        (None, whole, {}, f"set {VARIABLE}"),
    ]
    for number, (folder, spec, args, words) in enumerate(cases):
        run = convert(tmp_path / f"run{number}", folder, spec, **args)
        assert words in the(run, "error")["message"]
        assert not (run.path / "model.gguf").exists()
    assert "this architecture is not supported" in RunDir(tmp_path / "run0").log_tail()


def test_a_stop_ends_the_converter(tmp_path: Path, llama_cpp: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"args": {"model": ModelSpec("local", str(model(tmp_path, "sleep"))).to_json()}})
    child = start(run, llama_cpp)
    while "converting" not in run.log_tail():
        assert child.poll() is None
    run.request_stop()
    child.wait()
    assert the(run, "status")["status"] == "stopped"
    assert not (run.path / "model.gguf").exists()


def test_the_command_is_quoted_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_cpp: Path) -> None:
    hostile = "/home/a b/$(touch x)/model"
    words = shlex.split(command(hostile, "f16"))
    assert words == ["python", SCRIPT, hostile, "--outfile", "$(touch x).gguf", "--outtype", "f16"]
    assert argv("c.py", hostile, "o.gguf", "bf16")[1:] == ["c.py", hostile, "--outfile", "o.gguf", "--outtype", "bf16"]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_converter() is None
    monkeypatch.setenv(VARIABLE, str(llama_cpp))
    assert find_converter() == (llama_cpp / SCRIPT).resolve()
