"""Candidates for a prompt set, as a run: `python -m labeling.generate RUN_DIR`.

n answers a prompt, no two of the same text, because two equal answers teach nothing. A text that comes twice is sampled again,
hotter each time; what is still the same after that is given up and counted. Each answer is written as it comes, so a run that was
killed is continued by starting it again over the same folder: what is written is not asked for twice. Prompts are done a few
hundred at a time, all n answers of each, so labelling can begin while the rest is still being written.

The folder's config.json:
    args    model              ModelSpec as JSON;  model_name, model_id: what the answers are stored under
            n (4), temperature (0.8), top_p (1.0), max_new_tokens (256)
            seed               an integer; absent or null = another for every run, made from its id
            system             put before prompts that have no system message ("")
    data    file: JSON lines or Parquet with prompt_id and messages; sha256

Leaves completions.jsonl (records.Completion without created_at) and a result event (GenerateResult).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from data import completions
from data.engine import Engine, GenRequest, GenResult, storable
from data.errors import RunError
from data.records import Prompt
from data.rundir import SAY_S, RunDir, cancel_on_stop, run_child
from labeling.generate_args import Asked, GenerateArgs, read_prompts, resume
from training.engines import open_engine

PROMPTS_AT_ONCE = 256
RETRIES = 3  # times a text that came twice is sampled again
HOTTER = 0.2  # added to the temperature each time
MAX_TEMPERATURE = 2.0


@dataclass
class GenerateResult:
    """What there is now, an earlier start's answers included; only `seconds` are of this start.

    Of `asked` answers, `completions` are there, `duplicates` were given up because they said the same as another, `errors` failed
    (`first_error` says why) and the rest was not asked for before a stop. Of those that are there, `truncated` ended at
    max_new_tokens and `empty` have no text.
    """

    prompts: int
    asked: int
    completions: int = 0
    duplicates: int = 0
    errors: int = 0
    truncated: int = 0
    empty: int = 0
    seconds: float = 0.0
    first_error: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Job:
    """A generation under way: what is shared by its steps."""

    run: RunDir
    run_id: str
    args: GenerateArgs
    engine: Engine
    out: BinaryIO
    result: GenerateResult
    total: int
    started: float = field(default_factory=time.monotonic)
    already: int = 0  # answers that an earlier start had written
    said: float = 0.0

    @property
    def seed(self) -> int:
        return _number(self.run_id) if self.args.seed is None else self.args.seed


def main(run: RunDir) -> Mapping[str, Any]:
    """The result event; RunError when the model cannot be opened or answers nothing."""
    config = run.config()
    args = GenerateArgs.from_json(config.get("args") or {})
    asked = {prompt.prompt_id: Asked(prompt) for prompt in read_prompts(run, config, args.system)}
    file = run.path / "completions.jsonl"
    there = resume(file, asked)
    result = GenerateResult(len(asked), args.n * len(asked), there.completions, truncated=there.truncated, empty=there.empty)
    with run.loading("the answers there are were kept" if there.completions else "nothing was written") as say:
        say("loading the model" if args.model.kind == "local" else "opening the endpoint")
        opened = open_engine(args.model)
    with closing(opened) as engine, file.open("ab") as out, cancel_on_stop(run, engine.cancel):
        total = max(result.asked, there.completions)
        run_id = str(config.get("run_id", run.path.name))
        job = Job(run, run_id, args, engine, out, result, total, already=there.completions)
        todo = [one for one in asked.values() if len(one.texts) < args.n]
        for start in range(0, len(todo), PROMPTS_AT_ONCE):
            if run.stop_requested:
                break
            write_answers(job, todo[start : start + PROMPTS_AT_ONCE])
        notes = getattr(engine, "notes", None)
        result.notes = tuple(notes()) if notes else ()
    if not result.completions and result.first_error:
        raise RunError(f"{args.model_name} answered none of the {len(asked):,} prompts: {result.first_error}")
    result.seconds = round(time.monotonic() - job.started, 2)
    _progress(job, last=True)
    return asdict(result)


def write_answers(job: Job, batch: Sequence[Asked]) -> None:
    """All answers to a few hundred prompts: n each, then again for those that came twice."""
    retries = RETRIES if job.args.temperature > 0 else 0  # at temperature 0 it would say the same for ever
    for attempt in range(retries + 1):
        wanted = [(one, i) for one in batch for i in one.fresh(job.args.n - len(one.texts) - one.failed)]
        if not wanted or job.run.stop_requested:
            return
        temperature = min(job.args.temperature + HOTTER * attempt, max(MAX_TEMPERATURE, job.args.temperature))
        requests = [_request(job, one.prompt, i, temperature) for one, i in wanted]
        failures: list[str] = []
        for reply in job.engine.generate(requests):
            one, _ = wanted[reply.index]
            if reply.finish_reason == "error":
                one.failed += 1
                failures.append(reply.error)
            elif reply.finish_reason != "cancelled":
                _take(job, one, requests[reply.index], reply)
            _progress(job)
        _count_failures(job, failures, len(requests))
    if not job.run.stop_requested:
        job.result.duplicates += sum(max(0, job.args.n - len(one.texts) - one.failed) for one in batch)


def _take(job: Job, one: Asked, request: GenRequest, reply: GenResult) -> None:
    """Write an answer down, unless the prompt has one of the same text."""
    text = storable(reply.text)
    if text.strip() in one.texts:
        return
    one.texts.add(text.strip())
    args = job.args
    sampling: dict[str, Any] = {"temperature": round(request.temperature, 3), "top_p": args.top_p}
    sampling["max_new_tokens"] = args.max_new_tokens
    if args.system:
        sampling["system"] = args.system
    row = completions.new(
        one.prompt,
        text,
        "generated",
        args.model_name,
        args.model_id,
        job.run_id,
        sampling,
        request.seed,
        request.sample_index,
        reply.finish_reason,
    )
    line = {name: value for name, value in asdict(row).items() if name != "created_at"}  # the time is given when it is stored
    job.out.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    job.out.flush()
    job.result.completions += 1
    job.result.truncated += reply.finish_reason == "length"
    job.result.empty += not text.strip()


def _count_failures(job: Job, failures: Sequence[str], asked: int) -> None:
    """RunError when nothing but one and the same error comes back: the rest would fail like it."""
    if not failures:
        return
    job.result.errors += len(failures)
    job.result.first_error = job.result.first_error or failures[0]
    job.run.event("log", text=f"{len(failures):,} answers failed: {failures[0]}")
    if len(failures) == asked and len(set(failures)) == 1 and asked > 1 and not job.run.stop_requested:
        kept = f" {job.result.completions:,} answers are kept; start it again to go on." if job.result.completions else ""
        raise RunError(failures[0] + kept)


def _request(job: Job, prompt: Prompt, index: int, temperature: float) -> GenRequest:
    return GenRequest(
        prompt.messages,
        max_new_tokens=job.args.max_new_tokens,
        temperature=temperature,
        top_p=job.args.top_p,
        seed=_number(job.seed, prompt.prompt_id),  # the same luck for every prompt would make their answers alike
        sample_index=index,
    )


def _progress(job: Job, last: bool = False) -> None:
    """At most twice a second. The ETA counts what this start has done, not what it found."""
    now = time.monotonic()
    if not last and now - job.said < SAY_S:
        return
    job.said = now
    took, made = now - job.started, job.result.completions - job.already
    done = job.result.completions + job.result.duplicates + job.result.errors
    left = max(0, job.total - done)
    eta = 0.0 if last else round(took / made * left, 1) if made else None
    job.run.event("progress", done=done, total=job.total, unit="answers", seconds=round(took, 1), eta_s=eta)


def _number(*parts: object) -> int:
    """31 bits that depend on the parts alone."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4], "big") >> 1


if __name__ == "__main__":
    run_child(main)
