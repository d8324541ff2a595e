"""An LLM as a judge of two answers: both orders, label log-probabilities first, a verdict or the reason why there is none.

For each comparison the judge is asked twice, with either answer first, since every judge we know of leans towards one slot
(AlpacaEval 2's by 4 to 1). An engine that gives log-probabilities answers in one forward pass an order; where it gives none, or
where the judge mostly wants to say something else than a label, it is asked again for a text, which is parsed strictly. What
stays unread is unscored.

    for index, verdict in Judge(engine, template_for(spec)).verdicts(comparisons): ...

The same comparison is asked once, however often and in whichever direction it occurs; equal answers are a tie without asking.
Seeds come from what is compared, so the order of the rows changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data.engine import Engine, GenRequest, LabelRequest, LabelResult, ModelSpec
from evals.judge_templates import JudgeTemplate
from evals.verdicts import IDENTICAL, MIN_MASS, Reading, Verdict, combine, read_logprobs, read_text, unscored

NO_REPLY = "the judge gave no reply"
GIVE_UP_AFTER = 32  # retries in a row without one verdict: this judge does not answer in the form asked for
RETRY_TEMPERATURE = 0.7

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Comparison:
    """One question and two answers to it."""

    question: str
    a: str
    b: str


class _Ask(NamedTuple):
    """A question with the answers in the order they are shown."""

    question: str
    first: str
    second: str


@dataclass(frozen=True)
class Judge:
    """`adapter` as in LabelRequest: the judge may share an engine with the models it judges.

    `min_mass`: how much probability the labels must hold together. `retries`: how often an order is asked again, for a text.
    """

    engine: Engine
    template: JudgeTemplate
    adapter: str | None = None
    min_mass: float = MIN_MASS
    tie_band: float = 0.0
    retries: int = 2
    reply_tokens: int = 256

    def verdicts(self, comparisons: Sequence[Comparison], tick: Tick | None = None) -> Iterator[tuple[int, Verdict]]:
        """Yield (index, verdict) once for every comparison, in any order; `tick(done, total)` counts replies and may raise to stop.

        Raises EngineError when the judge cannot be reached at all; a reply that fails leaves its comparison unscored.
        """
        waiting: dict[_Ask, list[int]] = {}
        for index, comparison in enumerate(comparisons):
            if comparison.a.strip() == comparison.b.strip():
                yield index, combine(IDENTICAL, IDENTICAL, self.tie_band)
            else:
                for ask in _both_orders(comparison):
                    waiting.setdefault(ask, []).append(index)
        readings: dict[_Ask, Reading] = {}
        for ask, reading in self._read_all(list(waiting), tick or (lambda done, total: None)):
            readings[ask] = reading
            for index in waiting[ask]:
                ab, ba = _both_orders(comparisons[index])
                if ab in readings and ba in readings:
                    yield index, combine(readings[ab], readings[ba], self.tie_band)

    def _read_all(self, asks: Sequence[_Ask], tick: Tick) -> Iterator[tuple[_Ask, Reading]]:
        requests = [LabelRequest(self.template.render(*ask), self.template.labels, self.adapter) for ask in asks]
        unread = {ask: unscored(NO_REPLY) for ask in asks}
        done: set[int] = set()
        for result in self.engine.label_logprobs(requests):
            if result.index in done or not 0 <= result.index < len(asks):
                continue
            done.add(result.index)
            tick(len(done), len(asks))
            ask, reading = asks[result.index], self._read(result)
            if reading.p is None:
                unread[ask] = reading
            else:
                del unread[ask]
                yield ask, reading
        for ask, reading in self._retried(unread):
            tick(len(asks), len(asks))
            yield ask, reading

    def _read(self, result: LabelResult) -> Reading:
        if result.error:
            return unscored(result.error, result.text)
        if result.logprobs:
            return read_logprobs(result.logprobs, result.text, self.min_mass)
        return read_text(result.text, self.template.labels)

    def _retried(self, unread: dict[_Ask, Reading]) -> Iterator[tuple[_Ask, Reading]]:
        """Ask again for a text, a group at a time, until it is read, the tries are used up or a whole group was in vain."""
        retries, left = self.retries, list(unread.items())
        while left:
            group, left = dict(left[:GIVE_UP_AFTER]), left[GIVE_UP_AFTER:]
            for attempt in range(1, retries + 1):
                group |= self._ask_in_words([ask for ask, reading in group.items() if reading.p is None], attempt)
            if all(reading.p is None for reading in group.values()):
                retries = 0
            yield from group.items()

    def _ask_in_words(self, asks: Sequence[_Ask], attempt: int) -> dict[_Ask, Reading]:
        """One more try for each; only what was answered comes back. First greedily, with room to reason, then with some luck."""
        requests = [
            GenRequest(
                self.template.render(*ask),
                max_new_tokens=self.reply_tokens,
                temperature=0.0 if attempt == 1 else RETRY_TEMPERATURE,
                seed=seed_of(self.template.name, ask.question, *sorted((ask.first, ask.second)), attempt),
                sample_index=attempt,
                adapter=self.adapter,
            )
            for ask in asks
        ]
        read: dict[_Ask, Reading] = {}
        for result in self.engine.generate(requests) if requests else ():
            if not 0 <= result.index < len(asks):
                continue
            if result.finish_reason in ("error", "cancelled"):
                reading = unscored(result.error or NO_REPLY, result.text, attempt + 1)
            else:
                reading = read_text(result.text, self.template.labels, attempt + 1)
            read[asks[result.index]] = reading
        return read


def _both_orders(comparison: Comparison) -> tuple[_Ask, _Ask]:
    question, a, b = comparison.question, comparison.a, comparison.b
    return _Ask(question, a, b), _Ask(question, b, a)


def seed_of(*parts: object) -> int:
    """A seed in [0, 2^31) that depends on the parts alone."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True, default=str).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


_FAMILIES = re.compile(
    r"smollm|qwen|qwq|llama|vicuna|alpaca|mistral|mixtral|gemma|gemini|gpt|claude|deepseek|olmo|tulu|phi|falcon|granite|command|yi|glm|kimi"
)
_CHECK_IT = "Hold its verdicts against people's labels."
_RELATED = {"qwq": "qwen", "vicuna": "llama", "alpaca": "llama", "mixtral": "mistral", "gemini": "gemma", "tulu": "olmo"}


def family(spec: ModelSpec) -> str:
    """The model family that the base's name tells, '' when it tells none."""
    words = re.split(r"[^a-z]+", spec.base.rstrip("/").rsplit("/", 1)[-1].lower())
    for word in words:
        if found := _FAMILIES.match(word):
            return _RELATED.get(found[0], found[0])
    return ""


def self_judging(judge: ModelSpec, contestants: Sequence[tuple[str, ModelSpec]]) -> str:
    """One sentence of warning when the judge is, or is kin to, what it judges; '' when it is not. Kin favour each other's style."""
    for name, spec in contestants:
        if (spec.kind, spec.base, spec.adapter, spec.url) == (judge.kind, judge.base, judge.adapter, judge.url):
            return f"The judge is {name} itself, one of the two compared: it may favour its own answers. {_CHECK_IT}"
    same_base = [name for name, spec in contestants if (spec.kind, spec.base, spec.url) == (judge.kind, judge.base, judge.url)]
    if same_base:
        return f"The judge is built on the same base model as {' and '.join(same_base)}: it may favour their style. {_CHECK_IT}"
    kin = [name for name, spec in contestants if family(spec) and family(spec) == family(judge)]
    if kin:
        return (
            f"The judge is of the same model family ({family(judge)}) as {' and '.join(kin)}: a judge of another family is fairer."
        )
    return ""
