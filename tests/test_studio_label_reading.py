"""Reading on the Label page: folding, raw text, differences, scrolling together, long answers, and how much of them was seen."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conftest import SCREENSHOTS
from label_browser import LOOK, READY, Site, posted, press, saved, shown, visit
from labelling import seed_project, seed_texts

from studio.label_page.assets import PREFIX

pytestmark = pytest.mark.browser

LONG = "\n\n".join(f"Paragraph {i}: " + "some words that fill a line of the answer " * 6 for i in range(40))
VERY_LONG = "\n".join(f"Line {i}: " + "words of a very long answer " * 8 for i in range(220))  # over 50,000 characters


def is_on(page: Any, name: str) -> bool:
    return bool(page.evaluate("name => document.querySelector('.al').classList.contains(`al-is-${name}`)", name))


def test_prompt_and_system_prompt_fold_and_stay_folded(site: Site, page: Any) -> None:
    texts = [(f"What is {i}?", f"One {i}", f"Another {i}") for i in range(6)]
    site.open(seed_texts(site.db, texts, system="You are careful."))
    visit(page, site.url)
    assert page.locator(".al-prompt .al-asked .al-rendered").is_visible()
    assert not page.locator(".al-more .al-rendered").is_visible()
    page.locator(".al-more summary").click()
    press(page, "1")
    assert page.locator(".al-more .al-rendered").is_visible()
    page.keyboard.press("p")
    assert not page.locator(".al-prompt .al-asked .al-rendered").is_visible()
    assert page.locator(".al-asked-short").is_visible()  # its first words stay
    page.wait_for_timeout(50)
    for _ in range(2):  # one of those built ahead, and a new visit
        press(page, "1")
        assert not page.locator(".al-prompt .al-asked .al-rendered").is_visible()
        visit(page, site.url)


def test_raw_text_stays_raw(site: Site, page: Any) -> None:
    site.open(seed_texts(site.db, [(f"Say it {i}", f"This is **bold** {i}", f"_Other_ words altogether {i}") for i in range(4)]))
    visit(page, site.url)
    page.keyboard.press("r")
    press(page, "1")
    assert page.locator(".al-pane .al-raw").all()[0].is_visible()
    visit(page, site.url)
    raw = page.locator(".al-pane .al-raw").all_inner_texts()
    assert any("**bold**" in text for text in raw)
    page.get_by_role("button", name="Raw text").click()
    assert not page.locator(".al-pane .al-raw").all()[0].is_visible()


# --- differences ---

COMPARE = """async ([url, pairs]) => {
    const { common, compare } = await import(url);
    return pairs.map(([a, b]) => {
        const found = common(a, b, a.length + b.length);
        const whole = compare(a.join(" "), b.join(" "));
        const kept = (words, stays) => words.filter((_, i) => stays[i]);
        return {edits: found.edits, left: kept(a, found.left), right: kept(b, found.right),
            texts: whole && [whole.left, whole.right].map((runs) => runs.map((run) => run.text).join("")),
        };
    });
}"""


def longest_common(a: list[str], b: list[str]) -> int:
    """Its length, by the textbook's table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return row[-1]


def test_differences_are_the_fewest_there_are(site: Site, page: Any) -> None:
    """Against the textbook's table on random word lists: as few edits, what is kept is the same on both sides, no text is lost."""
    rng = random.Random(5)
    pairs: list[tuple[list[str], list[str]]] = [([], []), (["a"], []), ([], ["b", "c"])]
    for _ in range(150):
        words = "abcdefgh"[: rng.randint(1, 8)]
        a = [rng.choice(words) for _ in range(rng.randint(0, 40))]
        b = [w for w in a if rng.random() > 0.2] if rng.random() < 0.6 else [rng.choice(words) for _ in range(rng.randint(0, 40))]
        pairs.append((a, b))
    page.goto(f"{site.url}/label")
    found = page.evaluate(COMPARE, [f"{site.url}/{PREFIX}/diff.js", pairs])
    offered = 0
    for (a, b), got in zip(pairs, found, strict=True):
        kept = longest_common(a, b)
        assert got["edits"] == len(a) + len(b) - 2 * kept
        assert got["left"] == got["right"]
        assert len(got["left"]) == kept
        is_near = min(len(a), len(b)) >= 12 and 2 * kept >= 0.75 * (len(a) + len(b))
        assert (got["texts"] is not None) == is_near
        offered += is_near
        if is_near:
            assert got["texts"] == [" ".join(a), " ".join(b)]
    assert offered > 20


def test_differences_are_marked_in_near_identical_answers_only(site: Site, page: Any) -> None:
    near = "The capital of France is Paris, which lies on the river Seine and has about two million people."
    texts = [
        ("Near", near, near.replace("two million", "nine million").replace("lies", "stands")),
        ("Far", "Something else entirely is written here, about the weather of last week.", near),
        ("Spaces", near, near.replace(". ", ".\n\n").replace(", ", ",  ")),
    ]
    site.open(seed_texts(site.db, texts))
    visit(page, site.url)
    seen = {}
    for _ in texts:
        asked = page.locator(".al-asked .al-rendered").inner_text()
        tool = page.get_by_role("button", name="Differences")
        seen[asked] = (is_on(page, "diff"), tool.is_visible(), page.locator(".al-mark:visible").all_inner_texts())
        if asked == "Near":
            page.screenshot(path=SCREENSHOTS / "label-differences.png")
            page.keyboard.press("d")
            assert not is_on(page, "diff")
            assert page.locator(".al-pane .al-rendered").all()[0].is_visible()
            page.keyboard.press("d")
        if asked == "Spaces":
            assert page.locator(".al-same").is_visible()
        page.keyboard.press("s")
        page.wait_for_timeout(2 * LOOK)
    on, offered, marks = seen["Near"]
    assert on
    assert offered
    assert sorted(marks) == ["lies", "nine", "stands", "two"]
    assert seen["Far"] == (False, False, [])
    assert seen["Spaces"] == (True, True, [])


def test_differences_switched_off_stay_off(site: Site, page: Any) -> None:
    site.open(seed_project(site.db, 6))
    visit(page, site.url)
    assert is_on(page, "diff")
    page.keyboard.press("d")
    press(page, "1")
    assert not is_on(page, "diff")
    visit(page, site.url)
    assert not is_on(page, "diff")


# --- scrolling, and what was seen ---


def scroll(page: Any, side: str, top: float | str) -> None:
    """By hand, as far as the page can tell; `end` for the end."""
    page.evaluate(
        """([side, top]) => {
            const text = document.querySelector(`.al-pane[data-side="${side}"] .al-scroll`);
            text.scrollTop = top === "end" ? text.scrollHeight : top * (text.scrollHeight - text.clientHeight);
        }""",
        [side, top],
    )
    page.wait_for_timeout(100)


def places(page: Any) -> list[float]:
    script = "[...document.querySelectorAll('.al-scroll')].map(t => t.scrollTop / Math.max(1, t.scrollHeight - t.clientHeight))"
    return list(page.evaluate(script))


def test_answers_scroll_each_for_itself_or_together(site: Site, page: Any) -> None:
    site.open(seed_texts(site.db, [(f"Long ones {i}", LONG, LONG[: len(LONG) // 2] + f" and so on {i}") for i in range(3)]))
    visit(page, site.url)
    scroll(page, "a", 0.5)
    assert places(page) == [pytest.approx(0.5, abs=0.02), 0]
    page.keyboard.press("y")
    scroll(page, "a", 0.25)
    assert places(page) == [pytest.approx(0.25, abs=0.02)] * 2
    scroll(page, "b", 0.8)
    assert places(page) == [pytest.approx(0.8, abs=0.02)] * 2
    page.wait_for_timeout(200)
    assert places(page) == [pytest.approx(0.8, abs=0.02)] * 2  # they do not push each other on
    press(page, "1")
    scroll(page, "b", 0.4)
    assert places(page) == [pytest.approx(0.4, abs=0.02)] * 2
    page.get_by_role("button", name="Scroll together").click()
    scroll(page, "a", 0)
    assert places(page) == [0, pytest.approx(0.4, abs=0.02)]


def test_what_was_on_the_screen_goes_with_the_answer(site: Site, page: Any) -> None:
    texts = [(f"Long {i}", LONG + f" {i}", LONG[::-1] + f" {i}") for i in range(3)] + [("Short", "One word.", "Another word.")]
    site.open(seed_texts(site.db, texts))
    visit(page, site.url)
    sent = posted(page)
    shares = {}
    ways = [[], ["a"], ["a", "b"]]  # the answers that are scrolled to their end
    for _ in texts:
        short = page.locator(".al-asked .al-rendered").inner_text() == "Short"
        way = [] if short else ways.pop(0)
        for side in way:
            scroll(page, side, "end")
        seen = press(page, "1")
        shares[seen["id"]] = "short" if short else "".join(way)
    saved(page)
    by_way = {shares[event["impression"]]: event["read_share"] for event in sent}
    assert by_way["short"] == 1
    assert by_way["ab"] == 1
    assert 0 < by_way[""] < 0.5
    assert by_way["a"] == pytest.approx(by_way[""], abs=0.1)  # the answer that was read less counts


OPENED_BEHIND = """{
    let hidden = true, waiting = [];
    const painted = window.requestAnimationFrame.bind(window);
    Object.defineProperty(document, "hidden", {get: () => hidden});
    window.requestAnimationFrame = (drawn) =>
        hidden && String(drawn).includes("MessageChannel") ? waiting.push(drawn) : painted(drawn);
    window.comeToTheFront = () => {
        hidden = false;
        document.dispatchEvent(new Event("visibilitychange"));
        waiting.forEach((drawn) => painted(drawn));
    };
}"""


def test_a_page_opened_behind_another_is_looked_at_from_when_it_is_seen(site: Site, page: Any) -> None:
    """What it waited there is no part of the look, and takes nothing from it: the label would be told as too fast."""
    site.open(seed_project(site.db, 5))
    page.add_init_script(OPENED_BEHIND)
    page.goto(f"{site.url}/label")
    page.wait_for_selector('.al[data-state="ready"][data-armed=""]')
    page.evaluate("comeToTheFront()")
    page.wait_for_selector(READY)
    page.wait_for_timeout(LOOK)
    sent = posted(page)
    press(page, "1")
    saved(page)
    assert [event["dwell_ms"] >= 120 for event in sent] == [True]


def test_a_jump_back_and_forth_keeps_the_place_and_adds_up_what_was_seen(site: Site, page: Any) -> None:
    site.open(seed_texts(site.db, [(f"Long {i}", LONG + f" {i}", LONG[::-1] + f" {i}") for i in range(3)]))
    visit(page, site.url)
    first = press(page, "1")
    here = shown(page)
    scroll(page, "b", 0.6)
    page.locator(f'.al-card[data-id="{first["id"]}"]').click()
    page.wait_for_selector(f'.al[data-armed="{first["id"]}"]')
    sent = posted(page)
    for side in "ab":
        scroll(page, side, "end")
    page.keyboard.press("2")
    page.wait_for_selector(f'.al[data-armed="{here["id"]}"]')
    assert places(page) == [0, pytest.approx(0.6, abs=0.02)]
    saved(page)
    assert [(e["event"], e["read_share"]) for e in sent] == [("revised", 1)]
    assert sent[0]["dwell_ms"] > LOOK


def test_very_long_answers_are_whole_and_laid_out_in_parts(site: Site, page: Any) -> None:
    """What is far from the screen costs no layout; every line is there all the same: raw, as Markdown, and too long for that."""
    markdown = "\n\n".join(f"Paragraph **{i}** with some words in it, and more of them." for i in range(400))
    site.open(seed_texts(site.db, [("Say much", VERY_LONG, markdown)]))
    visit(page, site.url)
    seen = page.evaluate(
        """() => [...document.querySelectorAll(".al-answer")].map((answer) => {
            const [rendered, raw] = answer.children;
            const parts = [...rendered.querySelectorAll(".al-block")];
            const lines = (all) => [...all].map((part) => part.textContent).join("\\n");
            return {plain: rendered.querySelector("pre.al-plain") !== null, text: lines(parts), raw: lines(raw.children),
                parts: parts.length, lazy: parts.every((part) => getComputedStyle(part).contentVisibility === "auto")};
        })"""
    )
    plain = next(one for one in seen if one["plain"])
    rendered = next(one for one in seen if not one["plain"])
    assert plain["raw"] == plain["text"] == VERY_LONG
    assert rendered["raw"] == markdown
    assert rendered["text"] == markdown.replace("**", "").replace("\n\n", "\n")
    assert plain["parts"] > 10
    assert rendered["parts"] == 400
    assert plain["lazy"]
    assert rendered["lazy"]


def test_code_is_copied_with_a_button(site: Site, page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = "for x in (2, 3):\n    print(x)\n"
    site.open(seed_texts(site.db, [("Write a loop", f"Here:\n\n```python\n{code}```", "I would rather not.")]))
    visit(page, site.url)
    page.locator(".al-code").hover()
    page.get_by_role("button", name="Copy this code").click()
    page.locator(".al-copy", has_text="Copied").wait_for()
    page.evaluate("() => { navigator.clipboard.readText().then((text) => { window.copied = text; }); }")
    page.wait_for_function("code => window.copied === code", arg=code)
    assert page.locator(READY).count() == 1
