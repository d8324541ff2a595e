"""Hostile text: whatever comes in, only an allow-list of tags without addresses, ids, styles or handlers comes out."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from hostile import CORPUS
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from studio.render_text import MAX_MARKDOWN, MAX_SHOWN, render

TAGS = frozenset(
    {"p", "br", "strong", "em", "s", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "hr"}
    | {"table", "thead", "tbody", "tr", "th", "td", "span"}
)
CLASSES = re.compile(r"al-[a-z]+( al-display)?|language-\S+")


class Strict(HTMLParser):
    """Fails on any tag or attribute that is not on the list."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            allowed = (
                (name == "class" and CLASSES.fullmatch(value or ""))
                or (tag == "ol" and name == "start" and (value or "").isdigit())
                or (tag in ("td", "th") and name == "style" and re.fullmatch(r"text-align:(left|right|center)", value or ""))
            )
            assert allowed, (tag, name, value)

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError("a declaration")

    def handle_pi(self, data: str) -> None:
        raise AssertionError("a processing instruction")


def check(text: str) -> str:
    html = render(text).html
    Strict().feed(html)
    return html


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_the_hostile_corpus_comes_out_harmless(name: str) -> None:
    check(CORPUS[name])


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("<>[]()!\\$`*_~|#&;:\"'=/ \n\tabx1-"), max_size=200))
def test_markup_soup_comes_out_harmless(text: str) -> None:
    check(text)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_text_at_all(text: str) -> None:
    check(text)


def test_a_link_shows_where_it_leads_and_leads_nowhere() -> None:
    html = check('[our site](https://evil.example/x "title") and <https://plain.example> and [j](javascript:alert(1))')
    assert '<span class="al-link">our site</span> <span class="al-url">(https://evil.example/x)</span>' in html
    assert '<span class="al-link">https://plain.example</span>' in html
    assert "[j](javascript:alert(1))" in html


def test_an_image_is_named_and_not_loaded() -> None:
    assert "image not loaded: a cat" in check("![a cat](https://evil.example/cat.png)")
    assert "evil.example" not in check("![a cat](https://evil.example/cat.png)")


def test_math_is_left_for_katex_and_money_is_not_math() -> None:
    html = check("It costs $5, or $6 for two. But $a<b$, \\(c\\), \\[d\\] and\n\n$$\ne\n$$\n\n\\begin{align}f\\end{align}")
    assert "costs $5, or $6 for two" in html
    assert re.findall(r'<span class="(al-tex[^"]*)">([^<]*)</span>', html) == [
        ("al-tex", "a&lt;b"),
        ("al-tex", "c"),
        ("al-tex al-display", "d"),
        ("al-tex al-display", "e"),
        ("al-tex al-display", "\\begin{align}f\\end{align}"),
    ]


def test_a_display_formula_keeps_its_lines_whatever_they_begin_with() -> None:
    html = check("so\n\\[\na\n= b\n- c\n\\]\nend")
    assert '<span class="al-tex al-display">a\n= b\n- c</span>' in html
    assert "<li>" not in html
    assert check("- item\n  \\[\n  x\n  \\]").count("al-display") == 1
    assert "al-tex" not in check("an open \\[ bracket\n\nand a \\] later")


def test_a_second_paragraph_of_equal_length_keeps_its_formula() -> None:
    one, other = "aa \\(yyyy", "aa \\(yy\\)"
    assert len(one) == len(other)
    assert check(f"{one}\n\n{other}").count('class="al-tex">yy<') == 1


def test_long_text_is_shown_as_written_and_too_long_text_is_cut_with_a_word() -> None:
    plain = render("# " + "x " * MAX_MARKDOWN)
    assert plain.html.startswith('<pre class="al-plain"># x')
    assert "shown as written" in plain.note
    cut = render("y" * (MAX_SHOWN + 5))
    assert len(cut.raw) == MAX_SHOWN
    assert cut.note == "Only the first 200,000 of 200,005 characters are shown."


def test_what_is_nested_too_deeply_is_not_dropped() -> None:
    deep = "\n".join("  " * k + f"- level {k}" for k in range(70))
    assert "level 69" in check(deep)
    assert "nested very deeply" in render(deep).note


@pytest.mark.parametrize(
    "piece", ["[", "*a ", "$", "\\(", "\\[\n", "\\begin{equation}\n", "> ", "`", "|a", "![a](", "[a]: b\n", "<a "]
)
def test_no_text_takes_long(piece: str) -> None:
    started = time.process_time()
    check(piece * (MAX_MARKDOWN // len(piece)))
    assert time.process_time() - started < 3


def test_nul_and_half_characters_become_something_a_browser_takes() -> None:
    rendered: Any = render("a\0b\ud800c")
    assert rendered.raw == "a\ufffdb?c"
    rendered.html.encode()
