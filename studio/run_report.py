"""What came of a run, in words and a few numbers, with the next thing to do. Pure: a run's row in, HTML out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from data.checkers import CHECKERS
from data.errors import BadInput
from data.records import Run
from data.words import number
from evals.compare_result import CompareResult, summary
from evals.winrate import Estimate
from labeling.intervals import wilson
from studio.render import Html, button, count, duration, facts, figures, note, notes, percent, percents, win_bar
from studio.verdict_list import cost_facts, verdict_list
from training.config import from_json, steps_of
from training.methods import is_training, makes_adapter
from training.verdicts import Report

LAST = "mean of the last steps"  # the charts show the last one alone
_IDS = re.compile(r" \((?:[0-9a-f]{16,}|row \d+)(?:, (?:[0-9a-f]{16,}|row \d+))*(?: and \d+ more)?\)")


def report(run: Run, said: Sequence[str] = (), link: bool = True) -> Html:
    """The outcome of a run that has ended, '' while it is going; `said` are its own notes, `link` leads to the answers."""
    parts: list[str] = []
    if run.error:
        parts.append(note(run.error, "bad"))
    elif run.status == "lost":
        parts.append(
            note(
                "The run's process ended without a word (memory may have run out); start it again.",
                "bad",
            )
        )
    told = notes(list(dict.fromkeys(without_ids(sentence) for sentence in said)), "")  # one that was resumed repeats some
    outcome = _result(run) if run.result else Html("")
    parts += [outcome, told] if is_training(run.kind) else [told, outcome]  # of a training the figures are what is looked for
    if run.kind == "compare" and run.result and link:
        parts.append(button("Look at the answers", f"compare?result={run.run_id}"))
    return Html("".join(f'<div class="st-part">{part}</div>' for part in parts if part))


def without_ids(sentence: str) -> str:
    """A run's own sentence without the prompt ids in brackets, which are for its log."""
    return _IDS.sub("", sentence)


def after(run: Run) -> Html:
    """What to do with a training run that has ended beside comparing its model, '' where there is nothing."""
    if not is_training(run.kind) or run.status in ("queued", "running"):
        return Html("")
    links = [button("Run again with a change", f"again?run={run.run_id}", quiet=True)]
    if run.kind == "reward" and run.result.get("model_id"):
        links = [button("Let it grade a training (RLOO)", "train?method=rloo"), *links]
    if run.result.get("model_id") and makes_adapter(run.kind):
        links = [
            button("Try it beside the one before", f"compare?run={run.run_id}&tab=chat", quiet=True),
            button("Generate with it", f"data?tab=generate&run={run.run_id}", quiet=True),
            button("Train on from it", f"train?run={run.run_id}", quiet=True),
            *links,
        ]
    return Html(f'<div class="st-actions">{"".join(links)}</div>')


def _result(run: Run) -> Html:
    if is_training(run.kind):
        return training(run)
    if run.kind == "compare":
        return comparison(CompareResult.from_json(run.result)) if run.result.get("n_prompts") else Html("")
    if run.kind == "generate":
        return generation(run)
    if run.kind == "preflight":
        return preflight(run)
    return {"hub_push": hub_push, "hub_model": hub_push, "merge": merged, "gguf": gguf}.get(run.kind, hub_import)(run)


def training(run: Run) -> Html:
    """Loss and preference accuracy at the end, rows, time."""
    result, metrics = run.result, run.result.get("metrics") or {}
    graded = graded_by(run)
    rows: list[tuple[str, object, object]] = [
        ("Learned from", count(int(result.get("rows") or 0), "prompt" if graded else "row"), _held_out(result)),
        ("Steps", f"{result.get('steps', 0):,}{_of_all(run)}", f"in {duration(result.get('seconds'))}"),
    ]
    if graded:
        rows.append(("Graded by", graded, ""))
    if metrics.get("eval_reward") is not None:
        rows.append(("Reward on held-out prompts", number(metrics["eval_reward"], ".2f"), "at the end"))
    elif metrics.get("reward") is not None:
        rows.append(("Reward", number(metrics["reward"], ".2f"), LAST))
    elif metrics.get("loss") is not None:
        held_out = metrics.get("eval_loss")
        rows.append(
            (
                "Loss over the last steps",
                f"{metrics['loss']:.3f}",
                f"{held_out:.3f} on held-out rows" if held_out is not None else LAST,
            )
        )
    if (right := result.get("right")) is not None and result.get("held_out_rows"):
        pairs = int(result["held_out_rows"])
        rows.append(("Scores the good answer higher", percent(right / pairs), _of_pairs(right, pairs)))
    for key, name, as_percent in (
        ("rewards/accuracies", "Prefers the good answer", True),
        ("rewards/margins", "Reward margin", False),
    ):
        if metrics.get(key) is not None:
            held_out = metrics.get(f"eval_{key}")
            shown = percent if as_percent else _margin
            rows.append((name, shown(metrics[key]), f"{shown(held_out)} on held-out rows" if held_out is not None else LAST))
    return facts(rows)


def graded_by(run: Run) -> str:
    """What graded the answers of a run that learned from its own, by name; '' for any other."""
    args = run.config.get("args") or {}
    word = str((args.get("train") or {}).get("reward") or "")
    return CHECKERS[word].title if word in CHECKERS else str(args.get("reward_name") or "a reward model") if word else ""


def _of_all(run: Run) -> str:
    """Of how many steps, where a run was stopped before its last one."""
    config = (run.config.get("args") or {}).get("train")
    if run.status != "stopped" or not isinstance(config, Mapping):
        return ""
    try:
        all_of_them = steps_of(from_json(run.kind, config), int(run.result.get("rows") or 0))
    except BadInput:  # a setting that this release does not have any more
        return ""
    return f" of {all_of_them:,}" if all_of_them > int(run.result.get("steps") or 0) else ""


def held_out_right(result: Mapping[str, Any]) -> str:
    """A reward model's accuracy in words, with Wilson's interval; '' where no held-out pair was scored."""
    pairs, right = int(result.get("held_out_rows") or 0), result.get("right")
    if not pairs or right is None:
        return ""
    return f"{percent(right / pairs)} {_of_pairs(right, pairs)}"


def _of_pairs(right: int, pairs: int) -> str:
    low, high = wilson(right, pairs)
    return f"of {count(pairs, 'held-out pair')} (95 %: {percents(float(low), float(high))})"


def _margin(value: float) -> str:
    return number(value, ".2f")


def _held_out(result: Mapping[str, Any]) -> str:
    held_out, dropped = int(result.get("held_out_rows") or 0), int((result.get("dropped") or {}).get("rows") or 0)
    said = [f"{held_out:,} held out"] if held_out else []
    return ", ".join([*said, f"{dropped:,} left out"] if dropped else said)


def comparison(result: CompareResult) -> Html:
    """Win rate on a line, the numbers with their intervals, the sentences."""
    shown = result.win_rate if result.win_rate is not None and result.win_rate.value is not None else result.rule_win_rate
    picture: str = ""
    if shown is not None and shown.value is not None:
        low, high = shown.low if shown.low is not None else shown.value, shown.high if shown.high is not None else shown.value
        picture = win_bar(shown.value, low, high, f"{result.name_a} better", f"{result.name_b} better")
    by = f"by {result.judge_name}" if result.judge_name else "by the rules"
    rows: list[tuple[str, object, object]] = []
    if shown is not None:
        rows.append((f"Win rate of {result.name_b}", _value(shown), _interval(shown, by)))
    for name, estimate, small in (
        ("Ties", result.tie_rate, "count half"),
        ("Judge flips with the order", result.flip_rate, ""),
        (f"{result.name_a} right, by the rules", result.accuracy_a, ""),
        (f"{result.name_b} right, by the rules", result.accuracy_b, ""),
        ("Judge agrees with the rules", result.judge_accuracy, ""),
    ):
        if estimate is not None and estimate.value is not None:
            rows.append((name, _value(estimate), _interval(estimate, small)))
    first, *rest = summary(result)[: -len(result.warnings) or None]
    said = "".join(f"<li>{figures(sentence)}</li>" for sentence in rest)
    more = f"<details class=st-more><summary>In full sentences</summary><ul class=st-said>{said}</ul></details>" if said else ""
    return Html(f'<p class="st-verdict">{figures(first)}</p>{picture}{facts(rows)}{notes(result.warnings)}{more}')


def _value(estimate: Estimate) -> str:
    return percent(estimate.value) if estimate.value is not None else "–"


def _interval(estimate: Estimate, small: str) -> str:
    if estimate.low is None or estimate.high is None:
        return small
    span = f"95 %: {percents(estimate.low, estimate.high)}"
    return f"{span}, {small}" if small else span


def generation(run: Run) -> Html:
    """How many answers there are, what went wrong with the others, and the way to label them."""
    r = run.result
    rows: list[tuple[str, object, object]] = [("Answers", f"{r.get('completions', r.get('rows', 0)):,}", "")]
    for key, name, small in (
        ("prompts", "Prompts", ""),
        ("duplicates", "The same as another", "left out: they make no pair"),
        ("errors", "Failed", "the model gave no answer"),
        ("truncated", "Cut off", "ended at the longest answer allowed"),
        ("empty", "Empty", "kept as the model's silence"),
    ):
        if r.get(key):
            rows.append((name, f"{r[key]:,}", small))
    failed = note(f"The first failure: {r['first_error']}", "warn") if r.get("first_error") else ""
    links = button("Label them", "label") + button("See them", "data", quiet=True)
    return Html(f'{facts(rows)}{failed}<div class="st-actions">{links}</div>')


def preflight(run: Run) -> Html:
    """What a check before a run found, and the way back to the settings it was of."""
    report = Report.from_json(run.result)
    cost = cost_facts(report.cost) if report.cost else ""
    back = button("Back to training", "train", quiet=True)
    return Html(f'<div class="st-stack">{cost}{verdict_list(report.verdicts)}<div class="st-actions">{back}</div></div>')


def hub_import(run: Run) -> Html:
    """A data set that has arrived, and the way to take it in."""
    file = str(run.result.get("file", ""))
    rows: list[tuple[str, object, object]] = [("Rows", f"{run.result.get('rows', 0):,}", file)]
    return Html(
        f'{facts(rows)}<div class="st-actions">{button("Choose what to take in", "data?tab=import&file=" + quote(file))}</div>'
    )


def hub_push(run: Run) -> Html:
    """A data set or a model that is on the hub now."""
    seen = "only you can see it" if run.result.get("private") else "everybody can see it"
    where = ("On the hub", str(run.result.get("dataset") or run.result.get("repository") or ""), seen)
    if run.kind == "hub_push":
        return facts([where, ("Rows", f"{run.result.get('rows', 0):,}", "with a card")])
    return facts([where, ("Files", f"{run.result.get('files', 0):,}", "with a card")])


def merged(run: Run) -> Html:
    """What its own sentence, which stands above, leaves to be said."""
    prompts, same = int(run.result.get("prompts") or 0), int(run.result.get("same") or 0)
    if same == prompts:
        return Html("")
    return note(
        "Where the two differ, a token was nearly a tie and the sum was rounded; if most differ, do not use the merged model."
    )


def gguf(run: Run) -> Html:
    size = float(run.result.get("bytes") or 0)
    return facts([("File", str(run.result.get("file", "")), "in the run's folder"), ("Size", f"{size / 1e6:,.1f} MB", "")])
