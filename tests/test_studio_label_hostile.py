"""What a model wrote does nothing to the Label page, and nothing there says which model it was."""

from __future__ import annotations

from typing import Any

import pytest
from hostile import CORPUS
from label_browser import LOOK, Site, press, saved, visit
from labelling import MODEL_NAME, RUN_ID, seed_project, seed_texts

pytestmark = pytest.mark.browser

FORBIDDEN = ["script", "iframe", "img", "form", "a[href]", "object", "style", "link", "[id]", "[onerror]", "[onload]"]


def test_the_hostile_corpus_runs_nothing_loads_nothing_and_keeps_the_layout(site: Site, page: Any) -> None:
    names = sorted(CORPUS)
    texts = [(CORPUS[n] if CORPUS[n].strip() else n, CORPUS[n], CORPUS[names[k - 1]] + " ") for k, n in enumerate(names)]
    project = seed_texts(site.db, [(t[0] + f"\n\n({k})", t[1], t[2]) for k, t in enumerate(texts)], system=CORPUS["handlers"])
    site.open(project)
    foreign: list[str] = []
    trouble: list[str] = []
    page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((site.url, "data:", "blob:")) else None)
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("popup", lambda popup: trouble.append(popup.url))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    visit(page, site.url)
    for k in range(len(names)):
        page.evaluate("document.querySelectorAll('.al-more').forEach(d => d.open = true)")
        page.wait_for_timeout(50)
        seen = page.evaluate(
            """forbidden => ({
            pwned: window.__pwned,
            wide: document.documentElement.scrollWidth - innerWidth,
            bar: document.querySelector('.al-votes').getBoundingClientRect().toJSON(),
            top: document.elementFromPoint(innerWidth / 2, document.querySelector('.al-votes').getBoundingClientRect().top + 20)
                .closest('.al-dock') !== null,
            held: document.querySelector('.al-item').textContent.length,
            forbidden: [...document.querySelectorAll(forbidden.map(what => '.al-item ' + what))].map(e => e.outerHTML),
        })""",
            FORBIDDEN,
        )
        assert seen["pwned"] is None
        assert seen["wide"] <= 0
        assert seen["top"], "the vote bar is covered"
        assert seen["bar"]["bottom"] <= 800
        assert seen["forbidden"] == []
        assert seen["held"] <= 1_500_000, "a text goes to the browser without an end"
        if k % 3 == 0:
            page.keyboard.press("r")
            page.wait_for_timeout(30)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            page.keyboard.press("r")
        if k + 1 < len(names):
            press(page, "s")
    assert foreign == []
    assert trouble == []


def test_nothing_that_reaches_the_browser_says_who_wrote_an_answer(site: Site, page: Any) -> None:
    project = seed_project(site.db, 30)
    site.open(project)
    seen: list[str] = []

    def keep(response: Any) -> None:
        if "font" not in response.headers.get("content-type", ""):
            seen.append(f"{response.url} {response.headers} {response.text()}")

    page.on("response", keep)
    visit(page, site.url)
    for key in ("1", "2", "3", "4", "s"):
        press(page, key)
    page.keyboard.press("u")
    page.wait_for_timeout(LOOK)
    saved(page)
    visit(page, site.url)
    page.keyboard.press("u")
    page.wait_for_timeout(500)
    seen.append(page.content())
    seen.append(page.evaluate("JSON.stringify(localStorage)"))
    secrets = {MODEL_NAME, RUN_ID}
    for table in ("completion", "prompt", "pair"):
        secrets |= {
            r["id"] for r in site.db.rows(f"select {table}_id as id from {table}s where project_id = ?", [project.project_id])
        }
    assert len(secrets) > 100
    assert len(seen) > 10
    assert [s for s in secrets for text in seen if s in text] == []
