"""The judge behind a real server: with log-probabilities, without, and with servers that answer nonsense."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from data.endpoint import EndpointEngine
from data.endpoint_http import EndpointLimits
from data.engine import GenRequest, LabelRequest, ModelSpec
from evals import compare
from evals.compare_result import CompareResult, summary
from evals.judge import Comparison, Judge
from evals.judge_templates import PAIRWISE
from evals.verdicts import Verdict
from tests.fakes import FakeEngine
from tests.openai_server import OpenAIServer, openai_server
from tests.test_evals_compare import lines, make_run

PAIRS = [Comparison("q1", "a good one", "a bad one"), Comparison("q2", "a bad one", "a good one"), Comparison("q3", "good", "good")]


def likes_good(request: LabelRequest | GenRequest) -> bool:
    shown_first = request.messages[-1].content.split("<answer_a>")[1].split("</answer_a>")[0]
    return "good" in shown_first


def label(request: LabelRequest) -> dict[str, float]:
    first = 0.8 if likes_good(request) else 0.1
    return {"A": math.log(first), "B": math.log(0.9 - first)}


def answer(request: GenRequest) -> str:
    """Answers prompts as a contestant would, and comparisons as a judge without log-probabilities would."""
    if "<answer_a>" not in request.messages[-1].content:
        return f"a good one {request.seed % 7}"
    return "The better answer is A." if likes_good(request) else "Verdict: B"


def engine_of(server: OpenAIServer, behaviour: str) -> EndpointEngine:
    limits = EndpointLimits(attempts=2, read_s=5, total_s=10, backoff_s=0.01)
    return EndpointEngine(ModelSpec("endpoint", "m", url=server.url(behaviour)), limits=limits)


def ask(server: OpenAIServer, behaviour: str) -> dict[int, Verdict]:
    return dict(Judge(engine_of(server, behaviour), PAIRWISE).verdicts(PAIRS))


def test_a_server_with_log_probs_is_read_from_them() -> None:
    with openai_server(FakeEngine(answer, labels=label)) as server:
        found = ask(server, "ok")
    assert [found[i].verdict for i in range(3)] == ["a", "b", "tie"]
    assert found[0].p == pytest.approx(8 / 9)
    assert found[0].ab.method == "logprobs"


@pytest.mark.parametrize("behaviour", ["nologprobs", "rejects-logprobs"])
def test_a_server_without_log_probs_is_read_from_its_text(behaviour: str) -> None:
    with openai_server(FakeEngine(answer, labels=label)) as server:
        found = ask(server, behaviour)
    assert [found[i].verdict for i in range(3)] == ["a", "b", "tie"]
    assert (found[0].p, found[0].ab.method) == (1.0, "text")


def test_a_server_that_babbles_scores_nothing() -> None:
    with openai_server(FakeEngine("Both are lovely, and A is a letter.", labels=label)) as server:
        found = ask(server, "nologprobs")
    assert [found[i].p for i in range(3)] == [None, None, 0.5], "only the equal answers need no judge"


NONSENSE = ["html", "truncated", "list", "nested", "empty", "shapeless", "error200", "filter", "badzip", "hangs-up"]


@pytest.mark.parametrize("behaviour", [*NONSENSE, "401", "404", "500"])
def test_nonsense_and_refusals_never_become_a_verdict(behaviour: str) -> None:
    with openai_server(FakeEngine(answer, labels=label)) as server:
        found = ask(server, behaviour)
    assert [found[i].p for i in range(3)] == [None, None, 0.5]
    assert all(found[i].unscored for i in range(2)), "the reason is told"


def test_a_compare_run_with_a_server_as_judge(tmp_path: Path) -> None:
    """Contestants and judge on real connections; what the server cannot do is said in the result."""
    with openai_server(FakeEngine(answer, labels=label)) as server:
        spec = ModelSpec("endpoint", "m", url=server.url("nologprobs")).to_json()
        other = ModelSpec("endpoint", "n", url=server.url("ok")).to_json()
        run = make_run(tmp_path / "r", model_a=spec, model_b=other, judge=spec)
        result = CompareResult.from_json(compare.main(run))
    assert (result.n_comparisons, result.n_unscored, result.failed) == (6, 0, 0)
    assert len(lines(run, "completions.jsonl")) == 12
    assert any("gives no log-probabilities" in sentence for sentence in summary(result))
    assert any("is Base itself" in sentence for sentence in result.warnings)
