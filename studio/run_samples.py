"""What the model in training answered to a few prompts, at several moments of the run: prompt, first answer, latest answer.

From the `sample` events of a run (`training/samples.py` writes them). Pure: events in, HTML out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.render import Html, esc, safe_text, shorten

Samples = Sequence[Mapping[str, Any]]  # `sample` events, oldest first
LONGEST = 4_000  # letters of an answer


def samples(events: Samples) -> Html:
    """One block a prompt: before, now, and the moments between behind one click; '' without any."""
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if isinstance(event.get("prompt"), str) and isinstance(event.get("text"), str) and isinstance(event.get("step"), int):
            by_prompt.setdefault(event["prompt"], []).append(event)
    if not by_prompt:
        return Html("")
    held_out = all(event.get("split") == "held_out" for event in events)
    sub = "Prompts that it does not learn from" if held_out else "Prompts that it learns from (none were held out)"
    blocks = "".join(_block(prompt, told) for prompt, told in by_prompt.items())
    return Html(
        f'<section class="st-samples" aria-label="Sample answers"><h2 class="st-h2">What it answers as it learns</h2>'
        f'<p class="st-sub">{sub}; always the likeliest answer, so that what changes is the model.</p>{blocks}</section>'
    )


def _block(prompt: str, told: list[Mapping[str, Any]]) -> Html:
    latest = {int(event["step"]): event for event in told}  # a step that was taken again after a resume counts once
    moments = [latest[step] for step in sorted(latest)]
    first, last, between = moments[0], moments[-1], moments[1:-1]
    cards = [_answer(first)] if len(moments) == 1 else [_answer(first), _answer(last)]
    more = "".join(_answer(event) for event in between)
    folded = (
        f'<details class="st-more"><summary>{len(between)} in between</summary><div class="st-answers">{more}</div></details>'
        if between
        else ""
    )
    return Html(
        f'<article class="st-sample"><p class="st-quote">{esc(shorten(prompt, 600))}</p>'
        f'<div class="st-answers">{"".join(cards)}</div>{folded}</article>'
    )


def _answer(event: Mapping[str, Any]) -> Html:
    step = int(event["step"])
    title = "Before" if step == 0 else f"After step {step:,}"
    text = str(event["text"])[:LONGEST]
    cut = ' <span class="st-muted">cut here</span>' if event.get("cut") else ""
    inner = safe_text(text) if text.strip() else Html('<p class="st-muted">(says nothing)</p>')
    return Html(
        f'<section class="st-answer" aria-label="{esc(title)}"><header><span>{esc(title)}</span></header>'
        f'<div class="text">{inner}{cut}</div></section>'
    )
