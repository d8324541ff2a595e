"""A conversation as token ids: the one rendering that sampling, training and counting share.

    ids = render_prompt(tokenizer, messages)     # with the generation prompt
    ends = end_of_turn_ids(tokenizer, model)     # any of these ends a reply; training must teach the same
    column = [TEMPLATE_KWARGS] * rows            # TRL's `chat_template_kwargs`, so that it renders as we do

A model asked in other ids than it was trained on answers worse; one that was never taught to end its turn rambles on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from jinja2 import TemplateError

from data.engine import Message
from data.errors import EngineError

Tokenizer = Any  # transformers' tokenizer base class, whose import path moves between releases

# Text that looks like a control token ("<|end|>" typed by a visitor or written by a model) is encoded as text, so it cannot end
# a turn or speak as another role. Models that can think aloud answer at once: a candidate is compared by its answer.
TEMPLATE_KWARGS: Final = {"enable_thinking": False, "sanitize_control_tokens": True}


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of the conversation with the generation prompt; EngineError where the model's template refuses it."""
    return _render(tokenizer, messages, add_generation_prompt=True)


def end_of_turn_ids(tokenizer: Tokenizer, model: Any = None) -> frozenset[int]:
    """Ids that end a reply: what the chat template writes after an assistant's text, the tokenizer's EOS and the model's own.

    Many models' EOS differs from their template's end of turn; stopping at the first alone lets them ramble on as the user.
    """
    ends = {tokenizer.eos_token_id}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends.update(configured if isinstance(configured, list) else [configured])
    ends.add(_template_end(tokenizer))
    return frozenset(int(i) for i in ends if i is not None)


def _template_end(tokenizer: Tokenizer) -> int | None:
    """The first control token after the assistant's text, None where the template writes none."""
    special = set(tokenizer.all_special_ids) | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    texts = [_render(tokenizer, [Message("user", "x"), Message("assistant", text)], False) for text in ("a", "b")]
    tail = 0
    while tail < min(map(len, texts)) and texts[0][-1 - tail] == texts[1][-1 - tail]:
        tail += 1
    return next((i for i in texts[0][len(texts[0]) - tail :] if i in special), None)


def _render(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    try:
        ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False, **TEMPLATE_KWARGS
        )
    except (TemplateError, ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        roles = ", ".join(dict.fromkeys(m.role for m in messages))
        raise EngineError(f"The model's chat template refuses these turns ({roles}): {error}") from error
    return [int(i) for i in ids]
