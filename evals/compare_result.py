"""What a comparison found, and how to say it: pure functions from judgments to numbers with intervals, and from those to sentences.

Shares are B's against A's; a tie counts half. Nothing here loads a model, so a page can read a stored result and show
`summary(result)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from data.records import Judgment
from data.words import number
from evals.winrate import Estimate, difference, share, win_rate

NO_JUDGE = "no judge was asked"
FAILED = "one of the two models gave no answer"


@dataclass(frozen=True)
class CompareResult:
    """The result event of a compare run. Estimates are None where nobody judged (`judge_name` "") or no rule covers a prompt.

    `win_rate` counts hard verdicts, `soft_win_rate` the mean probability. `rule_*` and `accuracy_*` come from the grader by rule:
    its win rate of B, the share of good answers of each, and `accuracy_gain` = B - A. `judge_accuracy`: how often the judge
    sides with the rules where those prefer one answer, mean of both orders.
    """

    name_a: str
    name_b: str
    judge_name: str
    n_prompts: int
    n_comparisons: int
    n_unscored: int
    win_rate: Estimate | None = None
    soft_win_rate: Estimate | None = None
    tie_rate: Estimate | None = None
    flip_rate: Estimate | None = None
    first_slot: Estimate | None = None
    rule_win_rate: Estimate | None = None
    accuracy_a: Estimate | None = None
    accuracy_b: Estimate | None = None
    accuracy_gain: Estimate | None = None
    judge_accuracy: Estimate | None = None
    unscored_reasons: dict[str, int] = field(default_factory=dict)  # the most frequent ones
    failed: int = 0  # comparisons without an answer of both models
    cut_off_a: int = 0  # answers that ended at the token limit
    cut_off_b: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    warnings: tuple[str, ...] = ()
    verdict: str = ""  # the headline in one sentence

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> CompareResult:
        """Read back a result event; unknown keys (its time and type) are left out."""
        known = {f.name: raw[f.name] for f in fields(CompareResult) if f.name in raw}
        for name, value in known.items():
            if isinstance(value, Mapping) and "value" in value:
                known[name] = Estimate(**value)
        return CompareResult(**{**known, "warnings": tuple(known.get("warnings", ()))})


def tally(judgments: Sequence[Judgment], name_a: str, name_b: str, judge_name: str) -> CompareResult:
    """All the numbers of a comparison from its judgments; stage times, warnings and the verdict are the caller's to add."""
    prompts = [row.prompt_id for row in judgments]
    unscored = [row.unscored for row in judgments if row.p is None] if judge_name else []
    result = CompareResult(
        name_a,
        name_b,
        judge_name,
        n_prompts=len(set(prompts)),
        n_comparisons=len(judgments),
        n_unscored=len(unscored),
        failed=sum(row.unscored == FAILED for row in judgments),
        unscored_reasons=_most_frequent(unscored),
    )
    by_judge = _by_judge(judgments, prompts) if judge_name else {}
    return replace(result, **by_judge, **_by_rule(judgments))


def _by_judge(judgments: Sequence[Judgment], prompts: Sequence[str]) -> dict[str, Any]:
    hard = {"a": 0.0, "b": 1.0, "tie": 0.5, "": float("nan")}
    found = win_rate(
        [hard[row.verdict] for row in judgments],
        prompts,
        flipped=[_number(row.flipped) for row in judgments],
        first_slot=[_number(None if row.p_ab is None or row.p_ba is None else (row.p_ab + 1 - row.p_ba) / 2) for row in judgments],
    )
    return {
        "win_rate": found.win_rate,
        "soft_win_rate": share([_number(None if row.p is None else 1 - row.p) for row in judgments], prompts),
        "tie_rate": found.tie_rate,
        "flip_rate": found.flip_rate,
        "first_slot": found.first_slot,
    }


def _by_rule(judgments: Sequence[Judgment]) -> dict[str, Any]:
    graded = [row for row in judgments if row.rule_a is not None and row.rule_b is not None]
    if not graded:
        return {}
    prompts = [row.prompt_id for row in graded]
    a, b = [float(row.rule_a or 0) for row in graded], [float(row.rule_b or 0) for row in graded]
    decided = [row for row in graded if row.rule_a != row.rule_b and row.p_ab is not None and row.p_ba is not None]
    right = [sum(_sides_with(p, bool(row.rule_a)) for p in (row.p_ab, row.p_ba)) / 2 for row in decided]
    return {
        "rule_win_rate": share([(1 + y - x) / 2 for x, y in zip(a, b, strict=True)], prompts),
        "accuracy_a": share(a, prompts),
        "accuracy_b": share(b, prompts),
        "accuracy_gain": difference(b, prompts, a, prompts),
        "judge_accuracy": share(right, [row.prompt_id for row in decided]) if decided else None,
    }


def _sides_with(p: float | None, a_is_good: bool) -> float:
    return 0.5 if p is None or p == 0.5 else float((p > 0.5) == a_is_good)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _most_frequent(reasons: Sequence[str], limit: int = 5) -> dict[str, int]:
    counted = {reason: reasons.count(reason) for reason in set(reasons)}
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:limit])


# --- in words -------------------------------------------------------------------------------------------------------------


def summary(result: CompareResult) -> list[str]:
    """The result in plain sentences, the headline first; every share with its interval."""
    by_rules = _rules if result.win_rate is not None else lambda result: ""  # else they are the headline
    says = (headline, _ties_and_flips, by_rules, _judge_against_rules, _cut_off, _left_out)
    return [sentence for say in says if (sentence := say(result))] + list(result.warnings)


def headline(result: CompareResult) -> str:
    """Who is preferred, in one sentence with its uncertainty; by the judge, else by the rules."""
    found = result.win_rate
    if found is None:
        return _rules(result) or "Nobody has judged these answers yet: neither a judge nor a rule was there to do it."
    if found.value is None:
        return f"The judge gave no verdict in any of the {result.n_comparisons:,} comparisons."
    better, worse, shown = result.name_b, result.name_a, found
    if found.excludes(0.5) and found.value < 0.5:
        better, worse, shown = result.name_a, result.name_b, mirrored(found)
    half = ", ties counting half" if result.tie_rate is not None and result.tie_rate.value else ""
    sentence = f"{better} is preferred to {worse} in {in_percent(shown)} of {_over(shown)}{half}."
    if found.low is None:
        return f"{sentence} One prompt is too few for an interval."
    return sentence if found.excludes(0.5) else f"No detectable difference: {sentence}"


def _over(found: Estimate) -> str:
    return f"{found.n:,} comparison{'s' * (found.n != 1)} over {found.n_prompts:,} prompt{'s' * (found.n_prompts != 1)}"


def _ties_and_flips(result: CompareResult) -> str:
    ties, flips, slot = result.tie_rate, result.flip_rate, result.first_slot
    if ties is None or ties.value is None or flips is None or slot is None:
        return ""
    sentence = f"Ties, which count half: {in_percent(ties)}; the judge changed its mind with the order in {in_percent(flips)}"
    if slot.excludes(0.5) and slot.value is not None:
        sentence += f", leaning to the answer shown {'first' if slot.value > 0.5 else 'second'} (both orders cancel that out)"
    return sentence + "."


def _rules(result: CompareResult) -> str:
    gain, a, b = result.accuracy_gain, result.accuracy_a, result.accuracy_b
    if gain is None or a is None or b is None or gain.value is None:
        return ""
    sentence = f"By the rules {result.name_b} answers well in {in_percent(b)} and {result.name_a} in {in_percent(a)}: "
    if gain.low is None or gain.high is None:
        return sentence + f"{_points(gain.value)} points, over one prompt, which is too few for an interval."
    sentence += f"{_points(gain.value)} points (95 % interval {_points(gain.low)} to {_points(gain.high)})"
    return sentence + ("." if gain.excludes(0) else ", no detectable difference.")


def _points(share: float) -> str:
    return number(100 * share, "+.0f")


def _judge_against_rules(result: CompareResult) -> str:
    right, by_rule = result.judge_accuracy, result.rule_win_rate
    if right is None or right.value is None or by_rule is None:
        return ""
    sentence = f"Where the rules prefer one answer the judge sides with them in {in_percent(right)}"
    return f"{sentence}; by the rules {result.name_b}'s win rate is {in_percent(by_rule)}."


def _cut_off(result: CompareResult) -> str:
    cut = [(result.name_a, result.cut_off_a), (result.name_b, result.cut_off_b)]
    told = [f"{count:,} of {name}'s answers ended at the token limit" for name, count in cut if count]
    return f"{' and '.join(told)}: a judge sees them cut off." if told else ""


def _left_out(result: CompareResult) -> str:
    if not result.judge_name or not result.n_unscored:
        return ""
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in result.unscored_reasons.items())
    return f"{result.n_unscored:,} of {result.n_comparisons:,} comparisons could not be scored and count for nobody: {reasons}."


def mirrored(found: Estimate) -> Estimate:
    """The same share seen from the other side."""
    flip: Callable[[float | None], float | None] = lambda x: None if x is None else 1 - x  # noqa: E731
    return Estimate(flip(found.value), flip(found.high), flip(found.low), found.se, found.n, found.n_prompts, found.note)


def in_percent(found: Estimate) -> str:
    """ "63 % (95 % interval 57–69 %)"; without an interval the share alone."""
    if found.value is None:
        return "no share"
    if found.low is None or found.high is None:
        return f"{_percent(found.value)} %"
    return f"{_percent(found.value)} % (95 % interval {_percent(found.low)}–{_percent(found.high)} %)"


def _percent(x: float) -> str:
    """Whole percents, but one decimal where rounding would hide on which side of a half, of nothing or of everything a share is."""
    whole = round(100 * x)
    return f"{100 * x:.1f}" if whole in (0, 50, 100) and abs(100 * x - whole) >= 0.05 else str(whole)
