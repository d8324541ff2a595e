"""Every page in a real browser over a workspace full of hostile texts: nothing runs, nothing is fetched, nothing is covered.

Prompts, answers, categories, references, names of projects, models, runs, files and columns, error texts, logs, notes and what a
judge said are all from the corpus. The Label page has a test of its own. The second half sends events that no page sends.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from conftest import SCREENSHOTS, free_port
from fakes import FakeEngine
from hostile import CORPUS
from openai_server import OpenAIServer, openai_server
from page_browser import open_part, settled

from data import completions, judgments, models, people, projects, prompts, runs
from data.engine import Message, ModelSpec
from data.records import Judgment, Project, Run, now
from data.rundir import RunDir
from data.settings import Settings
from studio.context import VISITOR_COOKIE, Studio, open_studio
from studio.prompts_tab import ROWS

pytestmark = pytest.mark.browser

NAME = (
    "<img src=https://evil.example/n.png onerror=window.__pwned=31><script>window.__pwned=32</script>\"'>"
    "<div style=position:fixed;inset:0;z-index:9999>${window.__pwned=33}"
)
FILE = "<img src=x onerror=window.__pwned=34>'\"&${window.__pwned=35}.jsonl"
LINK = "[click](javascript:window.__pwned=36) ![x](https://evil.example/m.png) <b>bold</b>"
PAGES = [
    "", "data", "data?tab=import", "data?tab=generate", "data?tab=export", "models", "label", "train", "runs", "runs?run=failed",
    "runs?run=training", "runs?run=compared", "runs-compare?runs=training,failed", "compare",
    "compare?run=training", "compare?result=compared",
]  # fmt: skip


class App(NamedTuple):
    url: str
    studio: Studio
    project: Project
    server: OpenAIServer


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    settings = Settings(home=tmp_path_factory.mktemp("hostile") / "workspace", port=free_port())
    said = " ".join(CORPUS[name] for name in ("script", "handlers", "overlay", "remote images", "style", "form"))
    with openai_server(FakeEngine(said)) as server, open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        project = seed(studio, server)
        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        yield App(f"http://127.0.0.1:{settings.port}", studio, project, server)
        demo.close(verbose=False)


# --- a workspace that means harm ---


def seed(studio: Studio, server: OpenAIServer) -> Project:
    db = studio.db
    projects.archive(db, projects.create(db, NAME + " archived").project_id)
    project = projects.create(db, NAME, guidelines="\n\n".join(CORPUS.values()))
    people.set_open_project(db, "local", project.project_id)
    for behaviour, kind in (("ok", "endpoint"), ("500", "endpoint"), ("ok", "judge")):
        spec = ModelSpec("endpoint", base=LINK, url=server.url(behaviour), key_env="").to_json()
        models.add(db, models.new(f"{kind} {behaviour} {NAME}", kind, spec))
    texts = [text if text.strip() else name for name, text in CORPUS.items()]
    asked = [
        prompts.new(
            project.project_id, [Message("system", NAME), Message("user", text)], (NAME, text), text[:5_000], NAME, FILE, NAME
        )
        for text in texts
    ]
    prompts.add(db, asked)
    written = [
        completions.new(prompt, said, "generated", f"{NAME} {k}", sample_index=k)
        for prompt, text in zip(asked, texts, strict=True)
        for k, said in enumerate((text, text + " "))
    ]
    completions.add(db, written)
    seed_runs(studio, project)
    seed_judgments(studio, project)
    (studio.settings.import_dir / FILE).write_text(
        "".join(
            json.dumps({NAME: 1, "prompt": text, "chosen": text, "rejected": NAME, "category": text[:50]}) + "\n" for text in texts
        )
        + json.dumps({NAME: NAME, "prompt": 7})
        + "\n{"
        + NAME
    )
    return project


def seed_runs(studio: Studio, project: Project) -> None:
    metrics = {"loss": 0.5, "rewards/accuracies": 0.5, "rewards/margins": 0.1}
    adapter = models.new(
        f"adapter {NAME}", "adapter", ModelSpec("local", NAME, NAME).to_json(), project.project_id, run_id="training"
    )
    models.add(studio.db, adapter)
    training = {"rows": 3, "steps": 2, "seconds": 1.0, "metrics": metrics, "model_id": adapter.model_id}
    add_run(studio, project, "training", "dpo", "finished", training, "")
    add_run(studio, project, "failed", "generate", "failed", {}, f"{NAME} {LINK}")
    estimate = {"value": 0.6, "low": 0.5, "high": 0.7, "n": 3, "n_prompts": 3}
    compared = {
        "n_prompts": 3, "n_comparisons": 3, "n_unscored": 1, "name_a": NAME, "name_b": NAME + " b", "judge_name": NAME + " judge",
        "warnings": [NAME, LINK],
        "win_rate": estimate, "verdict": NAME, "unscored_reasons": {NAME: 1},
    }  # fmt: skip
    add_run(studio, project, "compared", "compare", "finished", compared, "")
    add_run(studio, project, "lost", "hub_import", "lost", {"file": FILE, "rows": 3, "dataset": NAME}, "")


def add_run(studio: Studio, project: Project, run_id: str, kind: Any, status: Any, result: dict[str, Any], error: str) -> None:
    name, config = f"{run_id} {NAME}", {"args": {"name": NAME}}
    place = (run_id, project.project_id, "", kind, name, "training.dpo", status, "cpu", config, "", 0, 0.0, 0)
    run = Run(*place, {}, result, error, now(), now(), now())
    runs.add(studio.db, run)
    folder = RunDir.create(studio.settings.runs_dir / run_id, {"args": {"name": NAME}})
    (folder.path / "stdout.log").write_text("\n".join(CORPUS.values()))
    for text in (NAME, LINK, *CORPUS.values()):
        folder.event("log", text=text[:2_000])
        folder.event("metrics", step=1, loss=0.5, **{NAME: 1.0})
        folder.event("sample", step=0, split="held_out", prompt=text, text=text)


def seed_judgments(studio: Studio, project: Project) -> None:
    found = []
    for number, prompt in enumerate(prompts.of_project(studio.db, project.project_id, limit=10)):
        one, other = completions.of_prompts(studio.db, [prompt.prompt_id])[:2]
        key = judgments.judgment_id("compared", prompt.prompt_id, 0, NAME, NAME)
        pair = (NAME, NAME, one.completion_id, other.completion_id, NAME)
        said = (0.9, 0.8, 0.85, "a", False, "") if number % 3 else (None, None, None, "", None, NAME)
        raw = {"ab": prompt.text[:20_000], "ba": NAME, "error": LINK}
        found.append(Judgment(key, "compared", project.project_id, prompt.prompt_id, 0, *pair, *said, now(), raw))
    judgments.add(studio.db, found)


# --- what must not happen ---


@dataclass
class Watch:
    """What a page has tried."""

    page: Any
    url: str
    tried: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        ours = (self.url, "data:", "blob:")
        self.page.on("request", lambda r: None if r.url.startswith(ours) else self.tried.append(f"fetches {r.url}"))
        self.page.on("dialog", lambda dialog: (self.tried.append(f"says {dialog.message}"), dialog.dismiss()))
        self.page.on("popup", lambda popup: self.tried.append(f"opens {popup.url}"))
        self.page.on("pageerror", lambda error: self.tried.append(f"fails: {error}"))

    def visit(self, path: str) -> None:
        self.page.goto(f"{self.url}/{path}")
        self.page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
        self.check()

    def check(self, after_ms: int = 150) -> None:
        """Everything that can be opened is opened first."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        self.page.wait_for_timeout(after_ms)
        assert self.page.evaluate(LOOK) == [], self.page.url
        assert self.tried == [], self.page.url


LOOK = """() => {
    const found = [];
    if (window.__pwned !== undefined) found.push('ran ' + window.__pwned);
    const wide = document.documentElement.scrollWidth - innerWidth;
    if (wide > 0) found.push('is ' + wide + ' pixels too wide');
    const foreign = 'script[src*=evil], link[href*=evil], [onerror], [onload], [onclick], [onfocus], [ontoggle], [onmouseover], '
        + 'iframe, object, embed, form[action], a[href^="javascript:" i], a[href^="data:" i], img[src^=http], img[src="x"], '
        + '[style*="inset:0"], [style*="inset: 0"], [style*="9999"]';
    for (const e of document.querySelectorAll(foreign)) found.push(e.outerHTML.slice(0, 200));
    for (const e of document.querySelectorAll('body *')) {
        const how = getComputedStyle(e), box = e.getBoundingClientRect();
        if (how.position === 'fixed' && how.visibility !== 'hidden' && how.pointerEvents !== 'none'
            && box.width > innerWidth * .8 && box.height > innerHeight * .8) found.push('covers: ' + e.outerHTML.slice(0, 200));
    }
    const nav = document.querySelector('.st-nav a'), at = nav.getBoundingClientRect();
    if (at.top >= 0 && !document.elementFromPoint(at.left + at.width / 2, at.top + at.height / 2)?.closest('.st-nav'))
        found.push('the navigation is covered');
    return found;
}"""


@pytest.fixture
def watch(app: App, page: Any) -> Watch:
    return Watch(page, app.url)


# --- every page ---


@pytest.mark.parametrize("path", PAGES)
def test_a_page_of_hostile_texts_stays_a_page(app: App, watch: Watch, path: str) -> None:
    watch.visit(path)
    for closed in watch.page.locator("button.label-wrap:not(.open)").all():
        if closed.is_visible():
            closed.click()
    settled(watch.page)
    watch.check()
    watch.page.screenshot(path=SCREENSHOTS / f"hostile-{re.sub('[^a-z]+', '-', path or 'home')}.png")


def test_hostile_prompts_and_answers_are_opened(app: App, watch: Watch) -> None:
    page = watch.page
    total = prompts.count(app.studio.db, app.project.project_id)
    watch.visit("data")
    for first in range(0, total, ROWS):
        last = min(first + ROWS, total)
        page.locator("#prompts-rows", has_text=f"{first + 1}–{last} of {total} prompts").wait_for()
        for at in range(last - first):
            page.locator("#prompts-rows a[aria-expanded]").nth(at).click()
            page.locator("#prompts-rows tr", has=page.locator("a[aria-expanded=true]")).locator("+ tr .st-open").wait_for()
            watch.check(50)
            assert page.locator("#prompts-rows").evaluate("e => e.textContent.length") <= 1_500_000
        if last < total:
            page.get_by_role("button", name="Next").click()


def test_a_hostile_file_is_looked_at_and_taken_in(app: App, watch: Watch) -> None:
    page = watch.page
    watch.visit("data?tab=import")
    page.locator("#import-there input").click()
    page.get_by_role("option").filter(has_text="window.__pwned=34").click()
    page.locator("#import-look").click()
    page.locator("#import-go").wait_for()
    watch.check()
    page.screenshot(path=SCREENSHOTS / "hostile-preview.png", full_page=True)
    page.locator("#import-go").click()
    page.locator("#import-report .st-note").first.wait_for()
    watch.check()
    page.screenshot(path=SCREENSHOTS / "hostile-report.png", full_page=True)


def test_what_goes_wrong_is_told_harmlessly(app: App, watch: Watch) -> None:
    """Sentences in the corner of a page hold names of files and columns, and a server's words."""
    page = watch.page
    for name, content in ((f"empty {FILE}", "\n"), (f"columns {FILE}", json.dumps({NAME: NAME}) + "\n")):
        (app.studio.settings.import_dir / name).write_text(content)
        watch.visit("data?tab=import")
        page.locator("#import-there input").click()
        page.get_by_role("option").filter(has_text=name.split(" ")[0]).click()
        page.locator("#import-look").click()
        toast = page.locator(".toast-body")
        toast.first.wait_for()
        watch.check()
        assert "window.__pwned=3" in toast.first.inner_text(), "it is shown as the text that it is"
        page.screenshot(path=SCREENSHOTS / f"hostile-toast-{name.split(' ')[0]}.png")


def choose(page: Any, box: str, *names: str) -> None:
    """Set a multiple choice to the models that start so."""
    while page.locator(f"{box} .token-remove, {box} button.remove").count():
        page.locator(f"{box} .token-remove, {box} button.remove").first.click()
    for name in names:
        page.locator(f"{box} input").first.click()
        page.get_by_role("option").filter(has_text=name).first.click()
    page.keyboard.press("Escape")


def test_hostile_models_answer_side_by_side(app: App, watch: Watch) -> None:
    """While it streams, when it is done, and when the names are shown."""
    page = watch.page
    seen = threading.Event()
    app.server.engine.pause = lambda: seen.wait(0.05)
    watch.visit("compare")
    choose(page, "#ask-models", "endpoint ok", "endpoint 500")
    page.locator("#ask-prompt textarea").fill(CORPUS["script"] + NAME)
    page.locator("#ask-go").click()
    page.locator("#ask-answers .text.live", has_text="__pwned").first.wait_for()
    watch.check()
    seen.set()
    page.locator("#ask-stop").wait_for(state="hidden")
    watch.check()
    page.screenshot(path=SCREENSHOTS / "hostile-answers.png", full_page=True)
    watch.visit("models")
    page.locator("#try-model input").click()
    page.get_by_role("option").filter(has_text="endpoint ok").first.click()
    page.locator("#try-go").click()
    page.locator("#try-answer .st-answer", has_text="__pwned").wait_for()
    watch.check()


def test_hostile_judgments_are_looked_at(app: App, watch: Watch) -> None:
    page = watch.page
    watch.visit("compare?result=compared")
    total = len(judgments.of_run(app.studio.db, "compared"))
    for at in range(1, total + 1):
        page.locator("#results-example", has_text=f"Example {at} of {total}").wait_for()
        watch.check()
        page.locator("#results-next").click()


def test_hostile_runs_are_looked_at(app: App, watch: Watch) -> None:
    page = watch.page
    watch.visit("runs")
    for run_id in ("failed", "training", "compared", "lost"):
        page.locator(f"#run-list a[data-run={run_id}]").click()
        page.locator("#run-detail h2", has_text=run_id).wait_for()
        watch.check()
    open_part(page, page.locator("#run-log-box button").first)
    page.locator(".st-log", has_text="__pwned").wait_for()
    watch.check()


# --- events that no page sends ---


FORGED: list[Any] = [
    None, "", "x", -1, 10**30, 1.5, True, [], {}, [[]], "\0", "x" * 300_000, {"path": "/etc/passwd"},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "orig_name": "../../x", "url": "http://evil.example/x"},
    [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], {"__type__": "update", "value": NAME}, ["../../etc/passwd"],
    "/etc/passwd", {"id": 1, "prompt": "../x"}, "${window.__pwned}", "NaN",
]  # fmt: skip
INTERNALS = re.compile(
    r"""Traceback|File "|site-packages|\.py\b|/work|/tmp|/usr|/etc|/home|/root|<class|Error\b(?!")|gradio\.|object at 0x"""
)


def told(client: httpx.Client, fn_index: int, data: list[Any], **more: Any) -> str:
    """Everything the app answers to one event of a session of its own."""
    session = uuid.uuid4().hex[:10]
    joined = client.post("/gradio_api/queue/join", json={"fn_index": fn_index, "data": data, "session_hash": session, **more})
    if joined.status_code != 200:
        return joined.text
    said = []
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                message = json.loads(line[6:])
                if message["msg"] == "log" or message.get("success") is False:
                    said.append(line)
                if message["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                    break
    return "\n".join(said)


def forge(client: httpx.Client, values_of: Any) -> list[str]:
    """What the app answers to each handler of every page."""
    said: list[str] = []
    found = [d for d in client.get("/config").json()["dependencies"] if d["backend_fn"]]
    assert len(found) > 40
    for n, dependency in enumerate(found):
        for values in values_of(n, len(dependency["inputs"])):
            more = {"event_data": FORGED[n % len(FORGED)], "trigger_id": [None, -1, 0, 10**6][n % 4]} if n % 2 else {}
            said.append(told(client, dependency["id"], values, **more))
    return said


@pytest.mark.slow(reason="every handler of every page, twice")
def test_a_forged_event_is_answered_with_a_sentence(app: App) -> None:
    """Every handler, called with values of every wrong kind and with too few of them. The workspace's own folder may be named to
    its owner, who copies files there."""
    with httpx.Client(base_url=app.url, timeout=120) as client:
        said = forge(client, lambda n, wanted: ([FORGED[(n + k) % len(FORGED)] for k in range(wanted)], []))
    for answer in said:
        assert not INTERNALS.search(answer.replace(str(app.studio.settings.home), "")), answer[:2_000]
    assert sum("could not read what the page sent" in answer for answer in said) > 20


@pytest.mark.slow
def test_a_visitors_forged_event_tells_no_path_at_all(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "workspace", port=free_port(), visitor=True)
    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        url, cookies = f"http://127.0.0.1:{settings.port}", {VISITOR_COOKIE: "a" * 32}
        with httpx.Client(base_url=url, timeout=120, cookies=cookies) as client:
            said = forge(client, lambda n, wanted: ([FORGED[(n + k) % len(FORGED)] for k in range(wanted)],))
            config = client.get("/config").text
        demo.close(verbose=False)
    for answer in said:
        assert not INTERNALS.search(answer), answer[:2_000]
    assert str(settings.home) not in config


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/gradio_api/queue/join", {"fn_index": 99_999, "data": [], "session_hash": "x"}),
        ("/gradio_api/queue/join", {"fn_index": "x", "data": {}, "session_hash": 7}),
        ("/gradio_api/queue/join", {"data": []}),
        ("/gradio_api/queue/join", [1]),
        ("/gradio_api/run/predict", {"data": ["/etc/passwd"]}),
        ("/gradio_api/run/x", {"data": [], "fn_index": 0}),
        ("/gradio_api/api/predict", {"data": [], "fn_index": 3}),
        ("/gradio_api/call/load", {"data": []}),
        ("/gradio_api/cancel", {"session_hash": 1}),
        ("/gradio_api/component_server", {"component_id": 1, "fn_name": "__init__", "data": [], "session_hash": "x"}),
        ("/gradio_api/upload", {}),
        ("/gradio_api/reset", {}),
    ],
)
def test_a_forged_request_is_answered_with_a_sentence(app: App, path: str, body: Any) -> None:
    answer = httpx.post(f"{app.url}{path}", json=body, timeout=60)
    assert not INTERNALS.search(answer.text), answer.text
    assert "pydantic" not in answer.text


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd", "/gradio_api/nope", "/api/nope"]
)
def test_a_program_gets_json(app: App, path: str) -> None:
    answer = httpx.get(f"{app.url}{path}", timeout=60, headers={"accept": "text/html"})
    assert answer.status_code in (403, 404)
    assert answer.json()["error"].endswith(".")
    assert "passwd" not in answer.text


@pytest.mark.parametrize("path", ["nope", "data/nope", "download/nope", "%3Cscript%3Ewindow.__pwned=1%3C/script%3E"])
def test_an_address_that_is_none_leads_home(app: App, watch: Watch, path: str) -> None:
    page = watch.page
    answer = page.goto(f"{app.url}/{path}")
    assert answer.status == 404
    assert "no page at this address" in page.locator("h1").inner_text() or "no longer here" in page.locator("p").inner_text()
    assert page.evaluate("window.__pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.screenshot(path=SCREENSHOTS / "not-found.png")
    page.get_by_role("link", name="Go to Home").click()
    page.wait_for_function("document.querySelector('.st-where')?.textContent.length > 0")
    assert watch.tried == []
