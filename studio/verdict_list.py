"""Verdicts and costs of a check before a run, as HTML: the worst first, each with a mark and a word beside its colour, and what is
fine folded away. Pure: `training.verdicts` in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence

from studio.render import Html, count, esc, facts, figures
from training.memory import readable
from training.verdicts import Cost, Level, Verdict, worst_first

_LONGER = 1.2  # times as long: worth a word
_MARKS: dict[Level, tuple[str, str]] = {"stop": ("✕", "Stops the run"), "warn": ("!", "Worth a look"), "ok": ("✓", "Fine")}


def verdict_list(verdicts: Sequence[Verdict], fixable: bool = False) -> Html:
    """'' for none. `fixable`: with the buttons that mend; a click on one is told by its check's name in `data-fix`."""
    told = worst_first(verdicts)
    worth = [v for v in told if v.level != "ok"]
    fine = [v for v in told if v.level == "ok"]
    shown = f'<ul class="st-checks">{"".join(_item(v, fixable) for v in worth)}</ul>' if worth else ""
    if not fine:
        return Html(shown)
    folded = f'<ul class="st-checks">{"".join(_item(v, fixable) for v in fine)}</ul>'
    head = f'<span class="mark ok" aria-hidden="true">✓</span>{esc(count(len(fine), "check is", "checks are"))} fine'
    return Html(f"{shown}<details class=st-fine><summary>{head}</summary>{folded}</details>")


def _item(verdict: Verdict, fixable: bool) -> str:
    mark, word = _MARKS[verdict.level]
    prompts = list(dict.fromkeys(e.prompt for e in verdict.examples if e.prompt))
    like = "".join(f"<li>“{esc(prompt)}”</li>" for prompt in prompts)
    more = max(0, verdict.rows - len(prompts))
    rest = f"<li>and {more:,} more</li>" if prompts and more else ""
    examples = f'<ul class="like">{like}{rest}</ul>' if prompts and verdict.level != "ok" else ""
    fix = verdict.fix if fixable else None
    button = f'<button type="button" class="st-fix" data-fix="{esc(verdict.check)}">{esc(fix.label)}</button>' if fix else ""
    return (
        f'<li class="{verdict.level}"><span class="mark {verdict.level}" aria-hidden="true">{mark}</span>'
        f"<div><p><b>{word}:</b> {figures(verdict.sentence)}</p>{examples}</div>{button}</li>"
    )


def cost_facts(cost: Cost) -> Html:
    """Time and memory, as measured."""
    parts = [("getting ready", cost.ready_s), ("the reference", cost.reference_s), ("evaluations", cost.evaluation_s)]
    told = [f"{name} {about(seconds)}" for name, seconds in parts if seconds >= max(1.0, cost.seconds / 10)]
    of = f", of it {', '.join(told)}" if told else ""
    if cost.longest_s > _LONGER * cost.training_s:
        of += f"; up to {about(cost.seconds - cost.training_s + cost.longest_s)} should its answers grow to their limit"
    return facts(
        [
            ("Takes about", about(cost.seconds), f"{count(cost.steps, 'step')} on this machine{of}"),
            ("Needs in memory", readable(cost.peak), f"of {readable(cost.free)} free"),
        ]
    )


def about(seconds: float) -> str:
    """A time nobody should set a watch by: "40 seconds", "3 minutes", "2.5 hours"."""
    if seconds < 10:
        return count(max(1, round(seconds)), "second")
    if seconds < 100:
        return f"{round(seconds / 10) * 10} seconds"
    if seconds < 5400:
        return count(round(seconds / 60), "minute")
    hours = f"{seconds / 3600:.1f}".removesuffix(".0")
    return f"{hours} hours"
