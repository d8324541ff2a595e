"""Conversations written as one text (HH transcripts, ChatML, the Alpaca template) or as lists of messages, all into messages.

What a training file calls its prompt is often only implied: it is what the chosen and the rejected conversation share. `share`
finds it. All of it is pure; what cannot be read raises RowError with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.engine import Message, Role


class RowError(Exception):
    """Why one row cannot be used, in words; the other rows go on."""


class Shared(NamedTuple):
    """The turns that two conversations share, and the answer in which each ends."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


_HH = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
# A turn's end is searched for from its beginning: one expression for both would look through all of a long text at each beginning.
_CHATML, _CHATML_END = re.compile(r"<\|im_start\|>(system|user|assistant)\n"), "<|im_end|>"
_ASKED, _CONTEXT, _ANSWER = re.compile(r"### Instruction:[^\S\n]*\n"), re.compile(r"\n### Input:[^\S\n]*\n"), "\n### Response:"
_BLANK = re.compile(r"\s*\n")
_ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
_LOOKS_LIKE_MESSAGES = re.compile(r'\s*\[\s*\{\s*"(?:role|content|from|value)"\s*:')


def is_transcript(text: object) -> bool:
    """Whether a text is a dialogue as Anthropic's HH data write it."""
    return isinstance(text, str) and text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def from_transcript(text: str) -> tuple[Message, ...]:
    """Turns of a `\\n\\nHuman: ... \\n\\nAssistant: ...` text; turns of the same speaker in a row are one turn."""
    parts = _HH.split(text)
    if len(parts) < 3 or parts[0].strip():
        raise RowError("the text is not a dialogue of “Human:” and “Assistant:” turns")
    turns = [
        Message("user" if who == "Human" else "assistant", said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return merged(turns)


def from_text(text: str) -> tuple[Message, ...] | None:
    """A text that marks its turns (HH, ChatML, Alpaca template) as messages; None when it marks none."""
    if is_transcript(text):
        return from_transcript(text)
    if "<|im_start|>" in text:
        turns = list(_chatml(text))
        return merged(turns) if turns else None
    if found := _alpaca(text):
        asked, context, answer = (part.strip() for part in found)
        return Message("user", f"{asked}\n\n{context}" if context else asked), Message("assistant", answer)
    return None


def _chatml(text: str) -> Iterator[Message]:
    at = 0
    while (turn := _CHATML.search(text, at)) and (end := text.find(_CHATML_END, turn.end())) >= 0:
        yield Message(_ROLES[turn[1]], text[turn.end() : end].strip())
        at = end + len(_CHATML_END)


def _alpaca(text: str) -> tuple[str, str, str] | None:
    """Instruction, input ('' = none) and response; None where one of the marks is missing."""
    if not (asked := _ASKED.search(text)):
        return None
    start, end = _until_the_answer(text, asked.end())
    if end < 0:
        return None
    if context := _CONTEXT.search(text, start, end + 1):
        begin, stop = _until_the_answer(text, context.end())
        if stop >= 0:
            return text[start : context.start()], text[begin:stop], text[stop + len(_ANSWER) :]
    return text[start:end], "", text[end + len(_ANSWER) :]


def _until_the_answer(text: str, at: int) -> tuple[int, int]:
    """Where a part begins, after blank lines, and ends; the end is negative where no answer follows."""
    if (blank := _BLANK.match(text, at)) and (end := text.find(_ANSWER, blank.end())) >= 0:
        return blank.end(), end
    return at, text.find(_ANSWER, at)


def merged(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Turns of the same role in a row as one, a blank line between them: chat templates want speakers to alternate."""
    together: list[Message] = []
    for turn in turns:
        if together and together[-1].role == turn.role:
            together[-1] = Message(turn.role, f"{together[-1].content}\n\n{turn.content}".strip())
        else:
            together.append(turn)
    return tuple(together)


def conversation(value: object) -> tuple[Message, ...] | None:
    """A list of messages (`role`/`content` or `from`/`value`), also when written as JSON in a cell; None when it is none."""
    if isinstance(value, str) and _LOOKS_LIKE_MESSAGES.match(value):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list):
        return None
    if not value:
        raise RowError("the conversation has no messages")
    return tuple(_message(turn, number) for number, turn in enumerate(value, 1))


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(f"message {number} is not an object with role and content")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    known = _ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise RowError(f"message {number} has the role {str(role)[:30]!r}; only system, user and assistant can be used")
    if isinstance(content, list):
        content = _parts(content, number)
    if not isinstance(content, str):
        raise RowError(f"message {number} has no text")
    return Message(known, clean(content, f"message {number}"))


def _parts(content: list[Any], number: int) -> str:
    """Content written as parts: texts are joined, anything else (an image) is refused."""
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        raise RowError(f"message {number} holds something other than text, such as an image")
    return "\n".join(str(text) for text in texts)


def clean(text: str, what: str) -> str:
    """The text as it is; RowError when it is not Unicode (a lone half of a surrogate pair, as `\\ud83d` in JSON)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(f"{what} holds half a character (a lone surrogate)") from None
    return text


def split_answer(turns: Sequence[Message]) -> tuple[tuple[Message, ...], str | None]:
    """Prompt and answer: the assistant's last turn (turns, if several in a row) split off, None when the user has the last word."""
    end = len(turns)
    while end and turns[end - 1].role == "assistant":
        end -= 1
    answer = "\n\n".join(turn.content for turn in turns[end:])
    return ends_with_user(turns[:end]), answer if end < len(turns) else None


def ends_with_user(turns: Sequence[Message]) -> tuple[Message, ...]:
    if not turns or turns[-1].role != "user":
        raise RowError("the prompt does not end with a user's turn")
    if not turns[-1].content.strip():
        raise RowError("the prompt is empty")
    return tuple(turns)


def share(chosen: Sequence[Message], rejected: Sequence[Message]) -> Shared:
    """The turns both conversations begin with, and their last answers; everything before these must be the same."""
    (prompt, answer), (other_prompt, other_answer) = split_answer(chosen), split_answer(rejected)
    if answer is None or other_answer is None:
        name = "chosen" if answer is None else "rejected"
        raise RowError(f"the {name} conversation does not end with an answer")
    if prompt != other_prompt:
        raise RowError("the two conversations differ before their last answer, so they are no pair of answers to one prompt")
    return Shared(prompt, answer, other_answer)


def share_text(chosen: str, rejected: str) -> Shared:
    """The same for plain texts: the prompt is what both begin with, up to a space."""
    end = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        end += 1
    if end < len(chosen) or end < len(rejected):
        end = max(chosen.rfind(" ", 0, end), chosen.rfind("\n", 0, end)) + 1
    prompt = chosen[:end].strip()
    if not prompt or (end == len(chosen) == len(rejected)):
        raise RowError("chosen and rejected share no beginning that could be the prompt, and there is no prompt column")
    return Shared((Message("user", prompt),), chosen[end:].strip(), rejected[end:].strip())
