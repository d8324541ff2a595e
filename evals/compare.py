"""Compare two models over a prompt set, as a run: `python -m evals.compare RUN_DIR`.

Each model answers every prompt `samples` times; sample i of A meets sample i of B before the judge, in both orders, and before
the rules where those cover the prompt. Models over one base share an engine and a batch, the judge too where it is the same
base; of different local bases only one is in memory at a time.

The folder's config.json:
    args    model_a, model_b   ModelSpec as JSON
            name_a, name_b     what they are called in the result; model_id_a, model_id_b: their rows
            judge              ModelSpec as JSON, or null: only the rules judge;  judge_name
            samples            answers a prompt and model (1)
            temperature (0.8), top_p (1.0), max_new_tokens (256), seed (0)
            grader             "demo_world", or "" = no grader by rule
    data    file: JSON lines or Parquet with prompt_id and messages; sha256

Leaves completions.jsonl and judgments.jsonl (records.Completion and Judgment without created_at) and a result event
(compare_result.CompareResult).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from data import completions, judgments
from data.engine import GenRequest, GenResult, ModelSpec, storable
from data.errors import RunError
from data.records import Completion, Judgment, Prompt
from data.rundir import Meter, RunDir, cancel_on_stop, run_child
from evals.compare_args import GRADERS, CompareArgs, warnings
from evals.compare_result import FAILED, NO_JUDGE, headline, summary, tally
from evals.engine_pool import Engines, adapter_of, base_of, timed
from evals.judge import Comparison, Judge, seed_of
from evals.judge_templates import question_text, template_for
from evals.verdicts import Verdict, nobody
from labeling.generate_args import read_prompts

Answers = dict[tuple["Side", str, int], Completion]  # by (side, prompt_id, sample_index)


class Side(NamedTuple):
    """One of the two models."""

    letter: str
    spec: ModelSpec
    name: str
    model_id: str


@dataclass(frozen=True)
class Job:
    """A compare run: its folder, what it was asked, and what both stages share."""

    run: RunDir
    run_id: str
    args: CompareArgs
    prompts: tuple[Prompt, ...]
    engines: Engines

    @property
    def a(self) -> Side:
        return Side("a", self.args.model_a, self.args.name_a, self.args.model_id_a)

    @property
    def b(self) -> Side:
        return Side("b", self.args.model_b, self.args.name_b, self.args.model_id_b)


def main(run: RunDir) -> Mapping[str, Any]:
    """The result event; Stopped when the run was asked to stop, with everything so far in the two files."""
    config = run.config()
    args = CompareArgs.from_json(config.get("args", {}))
    prompts = tuple(read_prompts(run, config))
    seconds: dict[str, float] = {}
    with Engines(run) as engines, cancel_on_stop(run, engines.cancel):
        job = Job(run, str(config.get("run_id", run.path.name)), args, prompts, engines)
        with timed(seconds, "generate"):
            answers = write_answers(job)
        with timed(seconds, "judge"):
            rows = write_judgments(job, answers)
    result = tally(rows, args.name_a, args.name_b, args.judge_name)
    cut_off = Counter(side.letter for (side, _, _), answer in answers.items() if answer.finish_reason == "length")
    result = replace(
        result,
        cut_off_a=cut_off["a"],
        cut_off_b=cut_off["b"],
        seconds={**seconds, "of_it_loading": round(engines.loading, 2)},
        warnings=(*warnings(args, prompts), *engines.notes),
    )
    result = replace(result, verdict=headline(result))
    print(*summary(result), sep="\n")
    return result.to_json()


def write_answers(job: Job) -> Answers:
    """Stage 1: every answer, as it comes, to completions.jsonl; one batch for both models where they share a base.

    RunError when a model could not answer at all; single failures are left out and make their comparison unscored.
    """
    args = job.args
    bases = list(dict.fromkeys(base_of(side.spec) for side in (job.a, job.b)))
    if args.judge is not None:
        bases.sort(key=lambda base: base == base_of(args.judge or base))  # the judge's last, so that it stays open
    answers: Answers = {}
    failures: dict[str, str] = {}
    done, total = 0, 2 * len(job.prompts) * args.samples
    meter = Meter(job.run, "answers")
    with (job.run.path / "completions.jsonl").open("w", encoding="utf-8", buffering=1) as out:  # a stop may end the process
        for base in bases:
            sides = [side for side in (job.a, job.b) if base_of(side.spec) == base]
            wanted = [(side, prompt, i) for prompt in job.prompts for side in sides for i in range(args.samples)]
            requests = [_request(args, *one) for one in wanted]
            for result in job.engines.get(base).generate(requests):
                meter((done := done + 1), total)
                side, prompt, i = wanted[result.index]
                if result.finish_reason in ("error", "cancelled"):
                    failures[side.name] = result.error or "it was cancelled"
                    continue
                answer = _completion(job, side, prompt, requests[result.index], result)
                answers[side, prompt.prompt_id, i] = answer
                out.write(_line(answer))
    _must_have_answered(job, answers, failures)
    return answers


def _must_have_answered(job: Job, answers: Answers, failures: Mapping[str, str]) -> None:
    answered = {side for side, _, _ in answers}
    for side in (job.a, job.b):
        if side not in answered:
            raise RunError(
                f"{side.name} answered none of the {len(job.prompts):,} prompts: {failures.get(side.name, 'it said nothing')}"
            )


def _request(args: CompareArgs, side: Side, prompt: Prompt, sample_index: int) -> GenRequest:
    """A seed that depends on nothing but what is asked of whom; each sample has its own, since endpoints know no sample index."""
    return GenRequest(
        prompt.messages,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=seed_of(args.seed, prompt.prompt_id, side.letter, sample_index),
        sample_index=sample_index,
        adapter=adapter_of(side.spec),
    )


def _completion(job: Job, side: Side, prompt: Prompt, request: GenRequest, result: GenResult) -> Completion:
    sampling = {"temperature": request.temperature, "top_p": request.top_p, "max_new_tokens": request.max_new_tokens}
    return completions.new(
        prompt,
        storable(result.text),
        "generated",
        side.name,
        side.model_id,
        job.run_id,
        sampling,
        request.seed,
        request.sample_index,
        result.finish_reason,
    )


def write_judgments(job: Job, answers: Answers) -> list[Judgment]:
    """Stage 2: sample i of A against sample i of B, to judgments.jsonl as the verdicts come; with the rules' opinion of both."""
    pairs = [
        (prompt, i, answers.get((job.a, prompt.prompt_id, i)), answers.get((job.b, prompt.prompt_id, i)))
        for prompt in job.prompts
        for i in range(job.args.samples)
    ]
    rows: list[Judgment] = []
    with (job.run.path / "judgments.jsonl").open("w", encoding="utf-8", buffering=1) as out:
        for index, verdict in _verdicts(job, pairs):
            rows.append(_judgment(job, *pairs[index], verdict))
            out.write(_line(rows[-1]))
    return rows


_Pair = tuple[Prompt, int, Completion | None, Completion | None]


def _verdicts(job: Job, pairs: Sequence[_Pair]) -> Iterator[tuple[int, Verdict]]:
    both = [index for index, (_, _, a, b) in enumerate(pairs) if a is not None and b is not None]
    yield from ((index, nobody(FAILED)) for index in sorted(set(range(len(pairs))) - set(both)))
    if job.args.judge is None:
        yield from ((index, nobody(NO_JUDGE)) for index in both)
        return
    spec = job.args.judge
    comparisons = [
        Comparison(question_text(prompt.messages), a.text, b.text) for prompt, _, a, b in pairs if a is not None and b is not None
    ]
    judge = Judge(job.engines.get(base_of(spec)), template_for(spec), adapter_of(spec))
    for position, verdict in judge.verdicts(comparisons, Meter(job.run, "verdicts")):
        yield both[position], verdict


def _judgment(
    job: Job, prompt: Prompt, sample_index: int, a: Completion | None, b: Completion | None, verdict: Verdict
) -> Judgment:
    grade = GRADERS.get(job.args.grader)
    return Judgment(
        judgment_id=judgments.judgment_id(job.run_id, prompt.prompt_id, sample_index, job.a.name, job.b.name),
        run_id=job.run_id,
        project_id=prompt.project_id,
        prompt_id=prompt.prompt_id,
        sample_index=sample_index,
        model_a=job.a.name,
        model_b=job.b.name,
        completion_a=a.completion_id if a else "",
        completion_b=b.completion_id if b else "",
        judge=job.args.judge_name,
        p_ab=verdict.p_ab,
        p_ba=verdict.p_ba,
        p=verdict.p,
        verdict=verdict.verdict,
        flipped=verdict.flipped,
        unscored=verdict.unscored,
        created_at=datetime.now(UTC),
        raw={"ab": verdict.ab.to_json(), "ba": verdict.ba.to_json()},
        rule_a=grade(prompt, a.text) if grade and a else None,
        rule_b=grade(prompt, b.text) if grade and b else None,
    )


def _line(row: Completion | Judgment) -> str:
    """ASCII, so that no reader takes U+2028 for a line's end; the times are given when the rows are stored."""
    return json.dumps({k: v for k, v in vars(row).items() if k != "created_at"}, allow_nan=False) + "\n"


if __name__ == "__main__":
    run_child(main)
