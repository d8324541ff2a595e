"""Length and Markdown of an answer, and that hostile texts are counted as quickly as others."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.database import Database
from data.style import Style, markdown_sql, style_of

RICH = """# Plan

Some **bold** words, __also bold__, `code` and more **bold text**.

- one
* two
+ three
  - nested
1. first
2) second

```python
# no header
- no list
**no bold** `nothing`
```

### End
"""


def test_what_is_counted() -> None:
    style = style_of(RICH)
    assert style == Style(len(RICH), headers=2, bold=3, lists=6, code=2)
    assert style.markdown == 13


@pytest.mark.parametrize(
    "plain",
    [
        "",
        "Just a sentence.",
        "2 * 3 * 4 = 24 and 2 ** 3 ** 1",
        "#hashtag",
        "snake__case__name and __ init __",
        "3.5 metres\n-5 degrees",
        "- \n* \n1. ",
        "a lone ` back-tick",
        "*italic* and _italic_",
    ],
)
def test_what_is_not_markdown(plain: str) -> None:
    assert style_of(plain) == Style(len(plain))


def test_an_unclosed_block_goes_to_the_end() -> None:
    assert style_of("text\n```\n# a\n- b") == Style(16, code=1)
    assert style_of("~~~\n```\n~~~\n# seen") == Style(18, headers=1, code=1)


@given(st.text(alphabet="#*_-`~ab1. \n", max_size=200))
@settings(max_examples=80)
def test_adding_a_plain_paragraph_adds_nothing_but_length(text: str) -> None:
    before, after = style_of(text), style_of("A plain line.\n" + text)
    assert after.length == before.length + 14
    assert after[1:] == before[1:]


@pytest.mark.parametrize("piece", ["**", "**a ", "__a", "`", "# ", "- ", "1", "```\n", "\n", " ", "~~~", "-\n"])
def test_a_megabyte_of_anything_is_counted(piece: str) -> None:
    """Hangs for ever, and not only a little longer, if a pattern backtracks over more than its line."""
    text = piece * (1_000_000 // len(piece))
    assert style_of(text).length == len(text)


PIECES = ("# ", "## ", "- ", "1. ", "**", "__", "`", "```", "~~~", "\n", "\n", " ", "a", "b c", "_", "*", "\t", "   ")


def test_the_database_counts_the_same(db: Database, shared_data: Path) -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 40))) for _ in range(3000)] + [RICH, "text\n```\n# a\n- b"]
    lines = (shared_data / "alpaca_eval" / "annotations").glob("*.jsonl")
    texts += [str(value) for file in sorted(lines) for line in file.open() for value in json.loads(line).values()][:3000]
    sql = f"select {markdown_sql('text')} as n from (select unnest($texts::varchar[]) as text)"
    assert db.columns(sql, {"texts": texts})["n"].tolist() == [style_of(text).markdown for text in texts]
