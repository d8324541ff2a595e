"""A whole model as one GGUF file for llama.cpp and what builds on it: `python -m training.gguf RUN_DIR`.

    args   model (a local spec without an adapter: merge first), outtype

llama.cpp's own converter does the work, because every family is special there. It is looked for in the folder that STUDIO_LLAMA_CPP
names (a checkout of llama.cpp) and on the PATH; where it is not, `command` is what to type. It runs in this Python and, for most
families, needs one package more than the studio does (`pip install sentencepiece`). Free of torch.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal, get_args

from data.engine import ModelSpec
from data.errors import RunError
from data.rundir import LOOK_S, RunDir, Stopped, run_child

OutType = Literal["bf16", "f16", "q8_0", "f32"]
OUT_TYPES: Final = get_args(OutType)
SCRIPT: Final = "convert_hf_to_gguf.py"
VARIABLE: Final = "STUDIO_LLAMA_CPP"
_MAGIC = b"GGUF"
_LOG = "the log has its words."
_LAST = 4000  # letters of the log in which the converter's last words stand
_WHY = (  # what it says -> what to say of it
    (
        r"BPE pre-tokenizer was not recognized",
        "llama.cpp does not know this model's tokenizer and would split text otherwise: no GGUF file can be made of it. It knows "
        "those of the hub's families (Llama, Qwen, Mistral, SmolLM, Gemma and others), not one made anew like the demo model's.",
    ),
    (
        r"Model (\S+) is not supported",
        "llama.cpp's converter does not know the architecture {0}; a newer checkout of llama.cpp may.",
    ),
    (
        r"No module named '(?:gguf|conversion)\b",
        f"llama.cpp's converter misses files of its own; set {VARIABLE} to a whole checkout of llama.cpp.",
    ),
    (
        r"No module named '([\w.]+)'",
        "llama.cpp's converter needs {0}, which is not installed here; run `pip install {0}` and start again.",
    ),
)


def find_converter() -> Path | None:
    """llama.cpp's converter, None where it is not installed."""
    folder = os.environ.get(VARIABLE, "")
    named = Path(folder).expanduser() / SCRIPT if folder else None
    if named is not None and named.is_file():
        return named.resolve()
    found = shutil.which(SCRIPT)
    return Path(found).resolve() if found else None


def argv(converter: str, model: str, out: str, outtype: OutType) -> list[str]:
    return [sys.executable, converter, model, "--outfile", out, "--outtype", outtype]


def command(model: str, outtype: OutType = "bf16") -> str:
    """What to type in a checkout of llama.cpp, quoted for a shell."""
    return shlex.join(["python", SCRIPT, model, "--outfile", f"{Path(model).parent.name or 'model'}.gguf", "--outtype", outtype])


def main(run: RunDir) -> dict[str, Any]:
    """Convert; the file lies in the run's folder."""
    args = run.config().get("args", {})
    spec = ModelSpec.from_json(dict(args["model"])) if isinstance(args.get("model"), dict) else ModelSpec("local")
    outtype, converter = args.get("outtype", "bf16"), find_converter()
    if spec.kind != "local" or spec.adapter or not (Path(spec.base) / "config.json").is_file():
        raise RunError("Only a whole model in a folder becomes a GGUF file; merge the adapter into its base first.")
    if outtype not in OUT_TYPES:
        raise RunError(f"Choose one of {', '.join(OUT_TYPES)}.")
    if converter is None:
        raise RunError(f"llama.cpp's {SCRIPT} is not installed here; set {VARIABLE} to a checkout of llama.cpp.")
    out = run.path / "model.gguf"
    run.event("progress", done=0, total=0, unit="converting", loading=True)
    try:
        _convert(run, argv(str(converter), spec.base, str(out), outtype))
    except (RunError, Stopped):
        out.unlink(missing_ok=True)  # half of one
        raise
    if not out.is_file() or out.open("rb").read(len(_MAGIC)) != _MAGIC:
        raise RunError(f"The converter ended without a GGUF file; {_LOG}")
    return {"file": out.name, "bytes": out.stat().st_size, "outtype": outtype}


def _convert(run: RunDir, words: list[str]) -> None:
    """Run the converter, its output in this run's log; it ends with the run."""
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        while child.poll() is None:
            if run.stop_requested:
                raise Stopped("Stopped while converting; no GGUF file was made.")
            time.sleep(LOOK_S)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode:
        raise RunError(why(run.log_tail()[-_LAST:]) or f"llama.cpp's converter failed (exit status {child.returncode}); {_LOG}")


def why(log: str) -> str:
    """A converter's last words as a sentence; '' where they are not known."""
    for words, sentence in _WHY:
        if found := re.search(words, log):
            return sentence.format(*found.groups())
    return ""


if __name__ == "__main__":
    run_child(main)
