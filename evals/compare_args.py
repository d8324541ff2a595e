"""What a compare run is asked to do, checked in words before a model is loaded, and what a reader must know about its judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data.checkers import demo_world
from data.engine import ModelSpec
from data.errors import RunError
from data.records import Prompt
from evals.judge import self_judging
from evals.judge_templates import is_demo_model

Grader = Callable[[Prompt, str], bool | None]  # None where the rules do not cover the prompt


def by_demo_world(prompt: Prompt, text: str) -> bool | None:
    """Whether the answer is good by the demo world's rules, which cover single questions of that world."""
    covered = len(prompt.messages) == 1 and demo_world.covers(prompt.text)
    return demo_world.grade(prompt.text, text).good if covered else None


GRADERS: dict[str, Grader] = {"demo_world": by_demo_world}


@dataclass(frozen=True)
class CompareArgs:
    """The run's arguments; the module docstring says what each is."""

    model_a: ModelSpec
    model_b: ModelSpec
    name_a: str
    name_b: str
    model_id_a: str = ""
    model_id_b: str = ""
    judge: ModelSpec | None = None
    judge_name: str = ""
    samples: int = 1
    temperature: float = 0.8
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0
    grader: str = ""

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> CompareArgs:
        """RunError in words for what cannot be run."""
        try:
            specs = {name: ModelSpec.from_json(raw[name]) for name in ("model_a", "model_b")}
            judge = ModelSpec.from_json(raw["judge"]) if raw.get("judge") else None
            args = CompareArgs(**{**raw, **specs, "judge": judge})
        except (TypeError, KeyError) as error:
            raise RunError("The comparison's settings are incomplete or of another version; start it again.") from error
        if args.samples < 1 or args.max_new_tokens < 1 or args.temperature < 0:
            raise RunError("A comparison needs at least one sample, one token and a temperature of 0 or more.")
        if args.temperature == 0 and args.samples > 1:
            raise RunError("At temperature 0 every sample of a prompt is the same: ask for one sample, or raise the temperature.")
        if args.grader not in ("", *GRADERS):
            raise RunError(f"There is no grader by rule named {args.grader!r}; known: {', '.join(GRADERS)}.")
        if args.name_a == args.name_b:
            args = replace(args, name_b=f"{args.name_b} (2)")
        return replace(args, judge_name="" if args.judge is None else args.judge_name or args.judge.base)


def warnings(args: CompareArgs, prompts: Sequence[Prompt]) -> Iterator[str]:
    """What a reader of the result must know about its judge, in sentences."""
    if args.judge is None:
        return
    if kin := self_judging(args.judge, [(args.name_a, args.model_a), (args.name_b, args.model_b)]):
        yield kin
    strange = sum(by_demo_world(prompt, "") is None for prompt in prompts)
    if is_demo_model(args.judge) and strange:
        outside = f"{strange:,} of {len(prompts):,} prompts are outside it"
        yield f"The demo model can only judge its own world, and {outside}: choose another judge for them."
