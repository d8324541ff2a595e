"""The methods of training, one row each: what pages, run folders and checks need to know of them without loading any of them.

A new method is a row here, a config class in `config.py` and a module `training/<method>.py`. Free of torch.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from data.records import ModelKind, SnapshotLayout
from training.config import Method


class MethodFacts(NamedTuple):
    """`title` says what the method does, `fits` whom it suits. `row`: what it learns from, one and many. `makes`: the kind of
    model its run leaves."""

    title: str
    fits: str
    layout: SnapshotLayout
    row: tuple[str, str]
    makes: ModelKind = "adapter"

    @property
    def samples(self) -> bool:
        """Whether it learns from a reward on the model's own answers to prompts."""
        return self.layout == "prompts"

    @property
    def by_trl(self) -> bool:
        """Whether its steps are always TRL's."""
        return self.samples or self.makes == "reward"

    @property
    def paired(self) -> bool:
        """Whether a row holds a chosen and a rejected answer."""
        return self.layout == "preference"


_ROW = ("preference", "preferences")
METHOD_FACTS: Final[dict[Method, MethodFacts]] = {
    "dpo": MethodFacts(
        "Prefer better over worse (DPO)", "The usual choice once two answers to a prompt have been compared.",
        "preference", _ROW,
    ),
    "kto": MethodFacts(
        "Tell good from bad (KTO)", "For answers that were called good or bad one by one; compared ones serve as well.",
        "binary", ("answer called good or bad", "answers called good or bad"),
    ),
    "sft": MethodFacts(
        "Imitate good answers (SFT)", "A first step for a base that does not answer in the form you want yet.",
        "sft", ("good answer", "good answers"),
    ),
    "orpo": MethodFacts(
        "Imitate and prefer in one (ORPO)", "SFT and preference in one run, for a base that has had neither.",
        "preference", _ROW,
    ),
    "simpo": MethodFacts(
        "Prefer by a margin (SimPO)",
        "Like DPO, but per token, so that long answers count no more, and with nothing that holds it to the start.",
        "preference", _ROW,
    ),
    "reward": MethodFacts(
        "Score answers (reward model)", "Makes a model that scores answers as your labels do; RLOO and GRPO learn from it.",
        "preference", _ROW, "reward",
    ),
    "rloo": MethodFacts(
        "Earn rewards on its own answers (RLOO)",
        "RLHF: the model answers, a reward model grades. Slower, and reaches answers that nobody has written.",
        "prompts", ("prompt", "prompts"),
    ),
    "grpo": MethodFacts(
        "Earn rewards, group by group (GRPO)",
        "The same, graded within a group of answers: for what can be checked, such as sums.",
        "prompts", ("prompt", "prompts"),
    ),
}  # fmt: skip


def is_training(kind: str) -> bool:
    """Whether a run of this kind trains a model."""
    return kind in METHOD_FACTS


def makes_adapter(kind: str) -> bool:
    """Whether a run of this kind leaves a model that answers prompts, which can be compared and trained on."""
    return any(method == kind and facts.makes == "adapter" for method, facts in METHOD_FACTS.items())


def short_name(kind: str) -> str:
    """What a run of this method is called in few letters: DPO, reward model."""
    return {"reward": "reward model", "simpo": "SimPO"}.get(kind, kind.upper())


def module_of(method: Method) -> str:
    return f"training.{method}"
