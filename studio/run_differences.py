"""Several training runs side by side in tables: what was set differently, how each ended, and who won against whom.

Pure: rows of the database in, HTML out. Runs are told apart by the colour that they have on the charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.records import Run
from data.words import number
from evals.compare_result import CompareResult
from evals.winrate import Estimate
from studio.form import NAMES
from studio.render import Column, Html, badge, count, duration, esc, percent, percents, run_link, shorten, table
from studio.run_report import graded_by
from studio.run_verdict import Verdict, interval
from training.config import as_said_now
from training.methods import short_name

NOTHING = "–"


class Seen(NamedTuple):
    """A run that is compared: `name` is its own among these, `held_out` the rows it is tested on (0 = unknown)."""

    run: Run
    name: str
    verdict: Verdict | None
    held_out: int


def differences(seen: Sequence[Seen]) -> Html:
    """Settings, data and parent that are not the same in all of them; '' for fewer than two runs."""
    if len(seen) < 2:
        return Html("")
    every = [settings(one) for one in seen]
    names = list(dict.fromkeys(name for each in every for name in each))
    rows = [[name, *(each.get(name, NOTHING) for each in every)] for name in names]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    same = len(rows) - len(differing)
    if not differing:
        return Html(f'<p class="st-sub">All {same} settings are the same, the rows and the parent too.</p>')
    columns = [Column("Setting", "tight"), *(Column(shorten(one.name, 40)) for one in seen)]
    drawn = table(columns, [[row[0], *row[1:]] for row in differing], label="Settings that differ")
    return Html(f'{drawn}<p class="st-sub">{count(same, "other setting")} {"is" if same == 1 else "are"} the same.</p>')


def settings(one: Seen) -> dict[str, str]:
    """Everything that a run was given, by its name on the Train page."""
    run = one.run
    args, data = run.config.get("args", {}), run.config.get("data", {})
    told = {
        "Method": short_name(run.kind),
        "Started from": str(
            args.get("model_name") or args.get("model", {}).get("adapter") or args.get("model", {}).get("base", "")
        ),
        "Frozen labels": str(data.get("sha256") or run.snapshot_id or "")[:8],
        "Rows to learn from": _number(run.result.get("rows")),
        "Rows held out": _number(one.held_out or None),
    }
    return told | {
        NAMES.get(key, key.replace("_", " ").capitalize()): graded_by(run) if key == "reward" else _value(value)
        for key, value in as_said_now(args.get("train", {})).items()
    }


def ends(seen: Sequence[Seen]) -> Html:
    """A row a run: status, verdict, held-out figures with their interval, steps, time."""
    rewarded = any("eval_reward" in (one.run.result.get("metrics") or {}) for one in seen)
    columns = [
        Column("Run"), Column("Verdict"), Column("Held-out loss", "num"),
        *([Column("Held-out reward", "num")] if rewarded else []), Column("Prefers the good answer", "num", wide=True),
        Column("Reward margin", "num", wide=True), Column("Steps", "num", wide=True), Column("Time", "num", wide=True),
    ]  # fmt: skip
    return table(columns, [_end(place, one, rewarded) for place, one in enumerate(seen)], label="How each run ended")


def _end(place: int, one: Seen, rewarded: bool) -> list[object]:
    run, metrics = one.run, one.run.result.get("metrics") or {}
    link = Html(f'<a class="st-swatch k{place}" href="./{run_link(run)}">{esc(one.name)}</a>')
    verdict = one.verdict.title if one.verdict else NOTHING
    return [
        link,
        verdict if run.status == "finished" else Html(f"{badge(run.status)} {esc(verdict)}"),
        _figure(None if "eval_reward" in metrics else metrics.get("eval_loss"), 3),
        *([_figure(metrics.get("eval_reward"), 2)] if rewarded else []),
        _accuracy(metrics.get("eval_rewards/accuracies", metrics.get("eval_accuracy")), one.held_out),
        _figure(metrics.get("eval_rewards/margins"), 2),
        _number(run.result.get("steps")),
        duration(run.result.get("seconds")) or NOTHING,
    ]


def wins(seen: Sequence[Seen], comparisons: Sequence[Run]) -> Html:
    """Finished comparisons of these runs' models, newest first, each with its interval and a way to the answers."""
    mine = {str(one.run.result["model_id"]) for one in seen if one.run.result.get("model_id")}
    rows: list[list[object]] = []
    for run in comparisons:
        args = run.config.get("args", {})
        if (
            run.status != "finished"
            or not run.result.get("n_prompts")
            or not mine & {args.get("model_id_a"), args.get("model_id_b")}
        ):
            continue
        result = CompareResult.from_json(run.result)
        shown = result.win_rate if result.win_rate is not None and result.win_rate.value is not None else result.rule_win_rate
        rows.append(
            [
                Html(f'<a href="./compare?result={esc(run.run_id)}">{esc(result.name_b)} against {esc(result.name_a)}</a>'),
                _estimate(shown),
                _gain(result.accuracy_gain),
                f"{result.judge_name or 'the rules'}, {count(result.n_prompts, 'prompt')}",
            ]
        )
    if not rows:
        return Html(
            '<p class="st-sub">None of these has been compared with another model yet: open a run and press '
            "“Compare before and after”.</p>"
        )
    columns = [
        Column("Comparison"),
        Column("Win rate", "num"),
        Column("By the rules", "num", wide=True),
        Column("Judged by", wide=True),
    ]
    return table(columns, rows, label="Win rates")


def _estimate(found: Estimate | None) -> str:
    if found is None or found.value is None:
        return NOTHING
    return percent(found.value) + (
        f" ({percents(found.low, found.high)})" if found.low is not None and found.high is not None else ""
    )


def _gain(found: Estimate | None) -> str:
    if found is None or found.value is None:
        return NOTHING
    span = (
        f" ({number(100 * found.low, '+.0f')} to {number(100 * found.high, '+.0f')})"
        if found.low is not None and found.high is not None
        else ""
    )
    return f"{number(100 * found.value, '+.0f')} points{span}"


def _accuracy(share: Any, rows: int) -> str:
    if not isinstance(share, int | float):
        return NOTHING
    return f"{percent(share)} ({percents(*interval(share, rows))})" if rows else percent(share)


def _figure(value: Any, digits: int) -> str:
    return number(value, f".{digits}f") if isinstance(value, int | float) else NOTHING


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else NOTHING


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else shorten(str(value), 60)


def own_names(runs: Sequence[Run]) -> Mapping[str, str]:
    """By run id: its name, with a number where two are called the same."""
    names: dict[str, str] = {}
    for run in runs:
        same = sum(other.name == run.name for other in runs[: len(names)])
        names[run.run_id] = f"{run.name} ({same + 1})" if same else run.name
    return names
