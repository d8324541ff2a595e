"""Turns what a model or an imported file wrote into HTML that is safe to put beside a vote button.

The text is hostile until shown otherwise, so this is an allow-list: Markdown without raw HTML, no image is ever loaded (a
remote image tells its server who labels what, and when), a link shows where it leads and cannot be clicked, nothing carries an
id, a style or a handler. Math is left as escaped TeX in `<span class="al-tex">` for KaTeX in the browser. Text that is too long
for Markdown is shown as it is, and text that is too long for a page is cut, with a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_MARKDOWN = 32_000  # characters; Markdown's worst cases are quadratic: 0.7 s here, 2.6 s at twice as many
MAX_NESTING = 100
MAX_MARKS = {"[": 3_000, "\\begin{": 300}  # those whose search for an end is the slowest
MAX_SHOWN = 200_000  # characters; above it a browser's layout takes seconds
_MAX_URL = 120


class Rendered(NamedTuple):
    """`html` for the page, `raw` for the "as written" view, `note` in words when not all of it is shown."""

    html: str
    raw: str
    note: str


@lru_cache(maxsize=512)
def render(text: str) -> Rendered:
    """Safe HTML of `text`, the text itself (cut where it must be) and what was cut."""
    raw = _printable(text[:MAX_SHOWN])
    note = said_of_cut(text)
    if len(raw) > MAX_MARKDOWN:
        return _plain(raw, note or "This text is very long, so it is shown as written.")
    if any(raw.count(mark) > many for mark, many in MAX_MARKS.items()):
        return _plain(raw, "This text is full of unusual markup, so it is shown as written.")
    env: dict[Any, Any] = {}
    tokens = _MARKDOWN.parse(raw, env)
    if any(token.level >= MAX_NESTING - 2 for token in tokens):  # the parser drops what is nested deeper
        return _plain(raw, "This text is nested very deeply, so it is shown as written.")
    return Rendered(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env), raw, note)


def said_of_cut(text: str) -> str:
    """What to say beside `text[:MAX_SHOWN]`, '' where that is all of it."""
    return f"Only the first {MAX_SHOWN:,} of {len(text):,} characters are shown." if len(text) > MAX_SHOWN else ""


def _plain(raw: str, note: str) -> Rendered:
    return Rendered(f'<pre class="al-plain">{escapeHtml(raw)}</pre>', raw, note)


def _printable(text: str) -> str:
    """Without NUL and lone surrogates, which JSON and browsers disagree about."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


# --- what links, images and math become -----------------------------------------------------------------------------


def _image(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    alt = renderer.renderInlineAsText(tokens[index].children or [], options, env)
    return f'<span class="al-image">image not loaded{": " + escapeHtml(alt) if alt else ""}</span>'


def _link_open(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return '<span class="al-link">'


def _link_close(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    start = next(i for i in range(index, -1, -1) if tokens[i].type == "link_open")
    url = str(tokens[start].attrGet("href") or "")
    shown = "".join(t.content for t in tokens[start + 1 : index])
    if shown in (url, url.removeprefix("mailto:")):
        return "</span>"
    if len(url) > _MAX_URL:
        url = url[:_MAX_URL] + "…"
    return f'</span> <span class="al-url">({escapeHtml(url)})</span>'


def _tex(display: bool) -> Any:
    def rule(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        name = "al-tex al-display" if display else "al-tex"
        span = f'<span class="{name}">{escapeHtml(tokens[index].content.strip())}</span>'
        return f"<p>{span}</p>" if tokens[index].block else span

    return rule


# --- \( \) and \[ \] ------------------------------------------------------------------------------------------------


def _bracket_inline(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    if opening not in (r"\(", r"\["):
        return False
    closing = r"\)" if opening == r"\(" else r"\]"
    if state.env.get(closing) is state.src:  # this paragraph has no such end: it is not searched again
        return False
    end = state.src.find(closing, state.pos + 2)
    if end < 0:
        state.env[closing] = state.src
        return False
    if end == state.pos + 2:
        return False
    if not silent:
        token = state.push("math_inline_double" if opening == r"\[" else "math_inline", "math", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _bracket_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    if not first.startswith(r"\["):
        return False
    for line in range(start, min(end, start + 200)):  # an equation of more lines than this is none
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].rstrip()
        if not text or state.sCount[line] < state.blkIndent:
            return False
        if text.endswith(r"\]"):
            break
    else:
        return False
    if silent:
        return True
    token = state.push("math_block", "math", 0)
    token.block = True
    token.content = state.getLines(start, line + 1, state.blkIndent, False).strip()[2:-2]
    token.map = [start, line + 1]
    state.line = line + 1
    return True


def _markdown() -> MarkdownIt:
    md = MarkdownIt("js-default", {"html": False, "linkify": False, "breaks": True, "maxNesting": MAX_NESTING})
    # A dollar followed by a space or a digit is money more often than math.
    md.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    md.use(amsmath_plugin)
    md.inline.ruler.before("escape", "bracket_math", _bracket_inline)
    md.block.ruler.before("fence", "bracket_math_block", _bracket_block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    md.add_render_rule("image", _image)
    md.add_render_rule("link_open", _link_open)
    md.add_render_rule("link_close", _link_close)
    md.add_render_rule("math_inline", _tex(display=False))
    for name in ("math_inline_double", "math_block", "amsmath"):
        md.add_render_rule(name, _tex(display=True))
    return md


_MARKDOWN = _markdown()
