"""Is a completion fit to be shown? Flags set when it is written and kept with it; nothing is ever thrown away for them.

- `empty`: nothing visible. `truncated`: the model was cut off. `error_text`: a server's error message instead of an answer.
- `identity_leak`: the text says which model wrote it ("I am Claude", "a language model trained by Google"), which ends the
  blinding. Only what a text says of *itself* counts: an answer about ChatGPT is no leak.

What leaks is configurable. A pattern is a plain phrase ("our in-house model Orion"), found as whole words whatever the case and
the spacing. Between slashes it is a regular expression, and since Python's matcher cannot be interrupted, only one whose cost is
bounded beforehand is taken: no `*` or `+`, no back-references, no look-around, at most MAX_WAYS ways to match at any place, and
MAX_STEPS steps for all of them.
Texts are scanned at both ends only (`SCANNED` characters each), so a megabyte costs as little as a page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from data.errors import BadInput
from data.records import Flag

SCANNED = 8_000
MAX_PATTERN = 200  # characters
MAX_PATTERNS = 100
MAX_WAYS = 100
MAX_STEPS = MAX_WAYS * MAX_PATTERN
_MANY = 10**9
_ERROR_LENGTH = 400  # characters: an answer that explains an error is longer than the error

_KIND = (
    r"(?:(?:an? |the )?(?:(?:ai|large|virtual|helpful|friendly) )?(?:(?:ai|language) )?"
    r"(?:assistant|model|chatbot|llm|ai|bot|system),? )"
)
_NAMES = (
    r"(?:chat ?gpt|gpt ?-?[2345]|claude|gemini|gemma|bard|palm 2|lamda|llama|qwen|tongyi|mistral|mixtral|deepseek|grok|copilot"
    r"|phi ?-?[1234]|command r|vicuna|open ?assistant|chatglm|glm ?-?[1234]|baichuan|internlm|ernie|kimi|zephyr|smollm|olmo|tulu"
    r"|nemotron|bloomz)"
)
_MAKERS = (
    r"(?:openai|anthropic|google|deepmind|meta|alibaba|mistral|deepseek|xai|microsoft|cohere|lmsys|hugging ?face|tsinghua|zhipu"
    r"|baidu|moonshot|01\.ai|nvidia|ibm|ai2|the allen institute|stability ai|databricks|the technology innovation institute)"
)
_MADE = r"(?:developed|created|trained|made|built|designed|fine-tuned) by"
DEFAULT_LEAKS: tuple[str, ...] = (
    rf"/(?:i am|i'm|my name is|call me|you are (?:chatting|talking|speaking) (?:to|with)) (?:{_KIND}(?:called |named )?)?{_NAMES}/",
    rf"/(?:as|i am|i'm|i was|i have been|i've been),? {_KIND}?(?:that was |who was )?{_MADE} {_MAKERS}/",
    rf"/(?:i am|i'm|as),? {_KIND}(?:from|of|by) {_MAKERS}/",
)

# What servers and proxies say instead of an answer. Only at the start of a short text.
_ERROR = re.compile(
    r"(?:\{ ?[\"']error[\"']|(?:internal server error|bad gateway|service (?:temporarily )?unavailable|gateway time-?out)\b"
    r"|(?:http )?(?:error )?(?:code )?(?:429|500|502|503|504):? (?:too many|internal|bad gateway|service|gateway|client|server)\b"
    r"|(?:api|network|server|connection|request) error\b|too many requests\b|rate limit (?:exceeded|reached)|\$moderation\$"
    r"|network error due to high traffic|traceback \(most recent call last\)|cuda out of memory|request timed out"
    r"|(?:an )?error (?:occurred|in processing|while (?:generating|processing))|the model is (?:currently )?(?:overloaded|loading))"
)
_UNSEEN = "\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # soft hyphen, zero width, direction marks
_INVISIBLE = re.compile(f"[{_UNSEEN}]+")
_VISIBLE = re.compile(rf"[^\s{_UNSEEN}]")
_EMPHASIS = re.compile(r"[*_`]")
_SPACE = re.compile(r"\s+")


def flags_of_text(text: str, finish_reason: str = "", leak_patterns: Sequence[str] = DEFAULT_LEAKS) -> tuple[Flag, ...]:
    """The flags of a completion, in the order of `Flag`. Raises BadInput for a pattern that `check_patterns` refuses."""
    seen = _normalised(text)
    flags: list[Flag] = []
    if not _VISIBLE.search(text):
        flags.append("empty")
    if finish_reason == "length":
        flags.append("truncated")
    if finish_reason == "error" or (len(text) <= _ERROR_LENGTH and _ERROR.match(seen)):
        flags.append("error_text")
    if any(pattern.search(seen) for pattern in _compiled(tuple(leak_patterns))):
        flags.append("identity_leak")
    return tuple(flags)


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns as they will be used, blank ones left out; raises BadInput with a sentence about the first bad one."""
    kept = tuple(pattern.strip() for pattern in patterns if pattern.strip())
    _compiled(kept)
    return kept


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    if len(patterns) > MAX_PATTERNS:
        raise BadInput(f"At most {MAX_PATTERNS} phrases that give a model away can be set; there are {len(patterns)}.")
    return tuple(_compile(pattern) for pattern in patterns)


def _compile(pattern: str) -> re.Pattern[str]:
    is_ours = pattern in DEFAULT_LEAKS
    if len(pattern) > MAX_PATTERN and not is_ours:
        raise BadInput(f"“{pattern[:40]}…” is longer than {MAX_PATTERN} characters: shorten it.")
    if not (len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/")):
        phrase = _normalised(pattern)
        if not phrase:
            raise BadInput(f"“{pattern}” has no letter or digit to look for.")
        return _whole_words(re.escape(phrase))
    inner = pattern[1:-1]
    try:
        cost = _Cost(1, 1) if is_ours else _cost(_parser.parse(inner))
        compiled = _whole_words(inner)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadInput(f"“{pattern}” cannot be used as a regular expression: {error}.") from None
    if cost.ways > MAX_WAYS or cost.ways * cost.steps > MAX_STEPS:
        raise BadInput(f"“{pattern}” can match in too many ways: use fewer ?, | and {{…}}, or a plain phrase.")
    if compiled.fullmatch(""):
        raise BadInput(f"“{pattern}” matches every text: make some part of it required.")
    return compiled


def _whole_words(inner: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{inner})(?!\w)", re.IGNORECASE)


class _Cost(NamedTuple):
    """Upper bounds on the ways an expression can match at one place and on the steps of one of them, hence on the work."""

    ways: int
    steps: int


def _cost(parsed: Any) -> _Cost:
    """Refuses what has no bound."""
    ways, steps = 1, 0
    for kind, argument in parsed:
        part = _cost_of(kind, argument)
        ways, steps = min(ways * part.ways, _MANY), min(steps + part.steps, _MANY)
    return _Cost(ways, max(1, steps))  # nothing, over and over, takes its time too


def _cost_of(kind: Any, argument: Any) -> _Cost:
    if kind is _constants.BRANCH:
        branches = [_cost(branch) for branch in argument[1]]
        return _Cost(sum(each.ways for each in branches), max(each.steps for each in branches))
    if kind is _constants.SUBPATTERN:
        return _cost(argument[-1])
    if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
        low, high, inner = argument
        if high == _constants.MAXREPEAT:
            raise re.error("* and + and {n,} have no end, write {1,20} instead")
        once = _cost(inner)
        ways = high - low + 1 if once.ways == 1 else _MANY if high > 30 else sum(once.ways**n for n in range(low, high + 1))
        return _Cost(min(ways, _MANY), min(high * once.steps, _MANY))
    if kind in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY, _constants.AT):
        return _Cost(1, 1)
    raise re.error("look-around, back-references and the like are not supported")


def _normalised(text: str) -> str:
    """Both ends of the text, lower case, without emphasis, invisible characters and repeated white space; straight quotes."""
    if len(text) > 2 * SCANNED:
        text = text[:SCANNED] + "\n" + text[-SCANNED:]
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("‘", "'")
    return _SPACE.sub(" ", _EMPHASIS.sub("", _INVISIBLE.sub("", text))).strip()
