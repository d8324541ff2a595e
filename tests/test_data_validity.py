"""Flags of completions: what gives a model away, what is no answer, and that no pattern can hang the studio."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import BadInput
from data.validity import DEFAULT_LEAKS, MAX_PATTERN, MAX_PATTERNS, SCANNED, check_patterns, flags_of_text


@pytest.mark.parametrize(
    "text",
    [
        "I am Claude, made by Anthropic.",
        "Hello! I'm **ChatGPT**, a large language model.",
        "I’m an AI assistant called Gemini, happy to help.",
        "As an AI language model developed by OpenAI, I cannot do that.",
        "As an AI assistant created by Anthropic I would rather not.",
        "I am a large language model, trained by Google.",
        "I was created by Alibaba Cloud.",
        "My name is Llama.",
        "I\u200b am\nQwen2? No: I am Qwen.",
        "I am an AI assistant from DeepSeek.",
        "i'm GPT-4",
        "You are talking to Mistral.",
        "Sure. " * 3000 + "By the way, I am Claude.",
    ],
)
def test_identity_leaks(text: str) -> None:
    assert flags_of_text(text) == ("identity_leak",)


@pytest.mark.parametrize(
    "text",
    [
        "ChatGPT was developed by OpenAI and Claude by Anthropic.",
        "The llama is a camelid; I am fond of llamas.",
        "As Google says, don't be evil.",
        "I am a language model, so I have no name.",
        "I was called by Google recruiters.",
        "I am claudette.",
        "My name is Anna and I work at Google.",
        "Gemini is a sign of the zodiac. I am one of the twins.",
    ],
)
def test_talking_about_models_is_no_leak(text: str) -> None:
    assert flags_of_text(text) == ()


def test_own_phrases() -> None:
    own = [*DEFAULT_LEAKS, "Project Orion", r"/build-\d{2,4}/"]
    assert flags_of_text("This is project\n  ORION speaking", "stop", own) == ("identity_leak",)
    assert flags_of_text("see build-1234 of it", "stop", own) == ("identity_leak",)
    assert flags_of_text("projects Orionis, build-12345", "stop", own) == ()
    assert flags_of_text("I am Claude", "stop", []) == ()
    assert check_patterns([" a b ", "", "  "]) == ("a b",)


@pytest.mark.parametrize(
    ("text", "finish_reason", "flags"),
    [
        ("", "stop", ("empty",)),
        (" \n\u200b\ufeff\u00ad ", "stop", ("empty",)),
        ("", "length", ("empty", "truncated")),
        ("An answer that was cut", "length", ("truncated",)),
        ("Half an answer", "error", ("error_text",)),
        ("Internal Server Error", "", ("error_text",)),
        ("**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE**", "", ("error_text",)),
        ('{"error": {"message": "overloaded"}}', "", ("error_text",)),
        ("Error 429: Too many requests", "", ("error_text",)),
        ("Traceback (most recent call last):\n  File", "", ("error_text",)),
        ("Rate limit exceeded, try again in 20s", "", ("error_text",)),
        ("500 apples cost 5 euros.", "stop", ()),
        ("Error handling in Python uses try and except.", "stop", ()),
        ("Traceback (most recent call last): means that " + "Python explains the error. " * 30, "stop", ()),
        (" " * 9000 + "x" + " " * 9000, "stop", ()),
        ("An answer.", "cancelled", ()),
    ],
)
def test_empty_truncated_and_errors(text: str, finish_reason: str, flags: tuple[str, ...]) -> None:
    assert flags_of_text(text, finish_reason) == flags


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("/(/", "cannot be used"),
        ("/(a+)+$/", "write {1,20} instead"),
        ("/a*b/", "write {1,20} instead"),
        ("/a{2,}/", "write {1,20} instead"),
        ("/(a{1,30}){1,30}/", "too many ways"),
        ("/" + "a?" * 12 + "a" * 12 + "/", "too many ways"),
        ("/(a|aa)(a|aa)(a|aa)(a|aa)(a|aa)(a|aa)(a|aa)/", "too many ways"),
        ("/(a|aa){1111}x/", "too many ways"),  # of the many a repeat that long has, none may be overlooked
        ("/((){3333}){3333}a/", "too many ways"),  # one way only, in eleven million steps at each place
        (r"/\w{3333}(a|bb){5}x/", "too many ways"),
        (r"/(a)\1/", "not supported"),
        ("/(?=a)b/", "not supported"),
        ("/(?:)/", "matches every text"),
        ("/a?/", "matches every text"),
        ("***", "no letter or digit"),
        ("x" * (MAX_PATTERN + 1), "longer than 200"),
        ("/a{1,99999999999999999999}/", "cannot be used"),
    ],
)
def test_patterns_that_could_hang_or_flag_everything_are_refused(pattern: str, why: str) -> None:
    with pytest.raises(BadInput, match=re.escape(why)):
        check_patterns([pattern])
    with pytest.raises(BadInput):
        flags_of_text("text", "stop", [pattern])


def test_too_many_patterns() -> None:
    with pytest.raises(BadInput, match="At most 100"):
        check_patterns([f"name {i}" for i in range(MAX_PATTERNS + 1)])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@given(st.text(alphabet="ab(|)?{},123[]^$.\\w:*+-", max_size=30))
@settings(max_examples=80)
def test_any_pattern_is_refused_or_quick(inner: str) -> None:
    """Whatever is typed between slashes: a sentence, or an answer on the worst text (a hang fails the run)."""
    pattern = f"/{inner}/"
    with contextlib.suppress(BadInput):
        check_patterns([pattern])
        assert set(flags_of_text("ab " * 6000 + "a" * 2000, "stop", [pattern])) <= {"identity_leak"}


@pytest.mark.parametrize("piece", ["i am a ", "as an ai language model ", "a", " ", "*", "I'm the large language ", "\u202e", "ﷺ"])
def test_a_megabyte_is_scanned_at_its_ends(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert "identity_leak" not in flags_of_text(text)
    middle = "x " * SCANNED + "I am Claude" + " x" * SCANNED
    assert flags_of_text(middle) == ()
    assert flags_of_text(middle + " I am Claude") == ("identity_leak",)
