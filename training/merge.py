"""An adapter melted into its base, as one model that needs no peft: `python -m training.merge RUN_DIR`.

    args   model (a local spec with an adapter)
    data   prompts.jsonl, lines of {"messages": [...]}: what the merged model's answers are checked on

The weights are merged into the base as it is stored (bf16 for most), never into its 4-bit form, whose rounding the adapter did not
learn to mend. Then the folder is opened anew and must answer as base and adapter do: the result says how many of the greedy answers
are the same, and the first that are not stand in the log. Rounding the sum to bf16 can turn a token that was nearly a tie; more
than that means that the two are not the same model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.engine import Engine, GenRequest, Message, ModelSpec
from data.errors import RunError
from data.rundir import Meter, RunDir, cancel_on_stop, run_child
from training.engines import open_engine

MAX_PROMPTS = 32
_TOKENS = 64  # of each answer
_SHOWN = 5
_LETTERS = 120
_NO_MODEL = "no merged model was made"


class Parity(NamedTuple):
    """Greedy answers of base and adapter beside those of the merged model. `differ`: (prompt, before, after)."""

    prompts: int
    same: int
    differ: list[tuple[str, str, str]]

    @property
    def sentence(self) -> str:
        if not self.prompts:
            return "There was no prompt to compare the merged model with base and adapter on."
        return f"{self.same} of {self.prompts} greedy answers of the merged model are those of base and adapter, letter by letter."


def main(run: RunDir) -> dict[str, Any]:
    """Merge, save, open again, compare."""
    config = run.config()
    spec = _spec(config.get("args", {}))
    asked = read_prompts(run, config.get("data", {}))
    folder = run.path / "model"
    with run.loading(_NO_MODEL) as say:
        say("loading the libraries")
        from training.models import load_tokenizer

        say("loading the base model")
        save_merged(spec, load_tokenizer(spec.base), folder)
        say("opening the adapter to compare with")
        before = open_engine(ModelSpec("local", spec.base, spec.adapter))
    meter = Meter(run, "answers")
    first = _answers(run, before, asked, meter, 0)
    found = parity(asked, first, _answers(run, open_engine(ModelSpec("local", str(folder))), asked, meter, len(asked)))
    print(found.sentence)
    run.event("log", text=found.sentence)
    for prompt, old, new in found.differ:
        run.event("log", text=f"“{_short(prompt)}” was answered “{_short(old)}” and is answered “{_short(new)}”.")
    return {"model": "model", "prompts": found.prompts, "same": found.same}


def save_merged(spec: ModelSpec, tokenizer: Any, folder: Path) -> None:
    """Base plus adapter as a model folder in the base's own number format."""
    from transformers import AutoConfig

    from training.export import save_plain
    from training.models import attach_adapter, load_base

    stored = AutoConfig.from_pretrained(spec.base, trust_remote_code=False).dtype
    base = load_base(ModelSpec("local", spec.base), dtype=stored)
    merged = attach_adapter(base, spec.adapter).merge_and_unload(safe_merge=True)  # safe: a weight that is no number is an error
    save_plain(merged, tokenizer, folder, spec.base)


def parity(asked: Sequence[Sequence[Message]], before: Sequence[str], after: Sequence[str]) -> Parity:
    """How many answers are the same; the first few that are not."""
    pairs = list(zip(asked, before, after, strict=True))
    differ = [(turns[-1].content, old, new) for turns, old, new in pairs if old != new]
    return Parity(len(pairs), len(pairs) - len(differ), differ[:_SHOWN])


def read_prompts(run: RunDir, data: dict[str, Any]) -> list[tuple[Message, ...]]:
    """The frozen prompts, at most MAX_PROMPTS; none where the run has none."""
    if not data.get("file"):
        return []
    file = run.check_data(str(data["file"]), str(data.get("sha256", "")))
    try:
        rows = [json.loads(line) for line in file.read_bytes().splitlines()[:MAX_PROMPTS]]
        return [tuple(Message(turn["role"], turn["content"]) for turn in row["messages"]) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError("The prompts to compare on cannot be read; start the run again.") from error


def _short(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= _LETTERS else one[: _LETTERS - 1] + "…"


def _spec(args: dict[str, Any]) -> ModelSpec:
    spec = ModelSpec.from_json(dict(args["model"])) if isinstance(args.get("model"), dict) else ModelSpec("local")
    if spec.kind != "local" or not spec.base or not spec.adapter:
        raise RunError("Only an adapter over a local base can be merged; choose one on the Models page.")
    return spec


def _answers(run: RunDir, engine: Engine, asked: Sequence[Sequence[Message]], meter: Meter, done: int) -> list[str]:
    """The engine's greedy answers, in order; it is closed."""
    answers = [""] * len(asked)
    requests = [GenRequest(tuple(turns), max_new_tokens=_TOKENS, temperature=0.0) for turns in asked]
    try:
        with cancel_on_stop(run, engine.cancel):
            for number, result in enumerate(engine.generate(requests), 1):
                if result.finish_reason == "error":
                    raise RunError(f"A prompt could not be answered ({result.error}), so the merged model was not checked.")
                answers[result.index] = result.text
                meter(done + number, 2 * len(asked))
    finally:
        engine.close()
    return answers


if __name__ == "__main__":
    run_child(main)
