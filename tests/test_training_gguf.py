"""GGUF: the converter is found or the exact command is said; a stand-in for llama.cpp's script is run as the real one would be."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from data.engine import ModelSpec
from data.rundir import RunDir
from training.gguf import SCRIPT, VARIABLE, argv, command, find_converter, why

ROOT = Path(__file__).resolve().parent.parent
CONVERTER = """
import json, pathlib, sys, time
words = sys.argv[1:]
print("converting", *words, flush=True)
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
        assert child.poll() is None, run.log_tail()
        time.sleep(0.01)
    run.request_stop()
    child.wait()
    assert the(run, "status")["status"] == "stopped"
    assert not (run.path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("  File conversion/base.py\nModuleNotFoundError: No module named 'sentencepiece'", "run `pip install sentencepiece`"),
        ("import gguf\nModuleNotFoundError: No module named 'gguf'", f"set {VARIABLE} to a whole checkout"),
        ("ModuleNotFoundError: No module named 'conversion.base'", f"set {VARIABLE} to a whole checkout"),
        ("ERROR:hf-to-gguf:Model BetaForCausalLM is not supported", "does not know the architecture BetaForCausalLM;"),
        ("NotImplementedError: BPE pre-tokenizer was not recognized - update", "does not know this model's tokenizer"),
        ("RuntimeError: 7", ""),
    ],
)
def test_the_converters_last_words_become_a_sentence(log: str, words: str) -> None:
    assert (words in why(log)) if words else why(log) == ""


# --- with the real one --------------------------------------------------------------------------------------------------------

CHECKOUT = Path(os.environ.get(VARIABLE) or "/nowhere")
VOCABULARY = CHECKOUT / "models" / "ggml-vocab-qwen2.gguf"
real = pytest.mark.skipif(
    not (VOCABULARY.is_file() and find_spec("sentencepiece")),
    reason=f"{VARIABLE} names no checkout of llama.cpp, or its converter's sentencepiece is not installed here",
)
# Qwen2's own, which its vocabulary file names only
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def qwen2(folder: Path) -> Path:
    """Random weights under Qwen2's real tokenizer, put together from the vocabulary that llama.cpp tests with."""
    import torch
    from gguf import GGUFReader
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    fields = GGUFReader(VOCABULARY).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    plain = {token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 1}
    tokenizer = Tokenizer(models.BPE(vocab=plain, merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.normalizer = normalizers.NFC()
    parts = [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token, kind in zip(tokens, kinds, strict=True) if kind == 3])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2, "tie_word_embeddings": True}
    ends = {"eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id, "bos_token_id": None}
    made = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokens), **sizes, **more, **ends)).to(torch.bfloat16)
    made.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@real
@pytest.mark.model
@pytest.mark.slow  # the converter imports torch and transformers anew
def test_llama_cpp_writes_a_file_that_answers_as_the_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.syspath_prepend(CHECKOUT / "gguf-py")
    from gguf import GGUFReader

    source = qwen2(tmp_path / "qwen2")
    run = convert(tmp_path / "run", CHECKOUT, ModelSpec("local", str(source)), outtype="f32")
    assert the(run, "status")["status"] == "finished", run.log_tail()
    written = GGUFReader(run.path / the(run, "result")["file"])
    with safe_open(source / "model.safetensors", "pt") as weights:
        assert len(written.tensors) == len(list(weights.keys()))
    assert written.fields["tokenizer.ggml.pre"].contents() == "qwen2"
    simple = shutil.which("llama-simple")
    if simple is None:
        pytest.skip(
            "the file was written and read back; llama.cpp's llama-simple is not on the PATH, so nothing was sampled from it"
        )
    prompt = "Hello world, I am"
    tokenizer, model = (kind.from_pretrained(source) for kind in (AutoTokenizer, AutoModelForCausalLM))
    asked = tokenizer(prompt, return_tensors="pt")
    answer = model.to(torch.float32).generate(**asked, do_sample=False, max_new_tokens=16)[0]
    done = subprocess.run([simple, "-m", run.path / "model.gguf", "-n", "16", prompt], capture_output=True)
    assert done.stdout.decode().strip() == tokenizer.decode(answer).strip()


@real
@pytest.mark.slow  # the converter imports torch and transformers anew
def test_llama_cpp_does_not_know_the_demo_models_tokenizer(tmp_path: Path) -> None:
    run = convert(tmp_path / "run", CHECKOUT, ModelSpec("local", str(ROOT / "data" / "demo" / "model")))
    assert the(run, "error")["message"].startswith("llama.cpp does not know this model's tokenizer")
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
