"""Side by side: one prompt, two or more models, names hidden until revealed, and a vote that becomes a label."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import gradio as gr

from data import completions, impressions, prompts
from data.engine import Message
from data.errors import BadInput
from data.records import Impression, Model, Preference, Project, content_id
from labeling import preferences
from studio.choices import before_after, options, outside_world, writers
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, choice, guarded
from studio.render import Answer, Html, answers, empty, esc, note
from studio.side_by_side import Asked, Column, Memory, ask, merge, streams

MAX_MODELS = 4
MAX_PROMPT = 20_000
VOTES: list[tuple[str, Preference]] = [
    ("Answer 1 is better", "a"),
    ("Answer 2 is better", "b"),
    ("Tie", "tie"),
    ("Both bad", "both_bad"),
]
SAME = "Both wrote the same, so there is nothing to prefer."
OPEN = "No vote here: it counts only where the names are hidden until it is given. Tick “Hide which is which” and ask again."


class Sampling(NamedTuple):
    temperature: float
    max_new_tokens: int


class AskTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._memory = Memory()
        self._voting = threading.Lock()  # held from the look whether a vote is there to the one that stores it

    def build(self) -> None:
        with gr.Column(elem_classes="st-panel"):
            self.models = choice(multiselect=True, max_choices=MAX_MODELS, label="Models", elem_id="ask-models")
            self.prompt = gr.Textbox("", label="Prompt", lines=2, max_lines=12, max_length=MAX_PROMPT, elem_id="ask-prompt")
            with gr.Row(equal_height=True):
                self.go = gr.Button("Ask them", variant="primary", size="lg", scale=0, min_width=160, elem_id="ask-go")
                self.halt = gr.Button("Stop", size="lg", visible=False, scale=0, min_width=100, elem_id="ask-stop")
                self.blind = gr.Checkbox(True, label="Hide which is which", scale=0, min_width=200, elem_id="ask-blind")
            with gr.Accordion("How they answer", open=False), gr.Row():
                self.temperature = gr.Slider(0, 2, 0.8, step=0.05, label="Temperature", info="0: always the likeliest word.")
                self.tokens = gr.Slider(16, 2048, 256, step=16, label="Longest answer, in tokens")
                self.system = gr.Textbox("", label="System message", max_length=MAX_PROMPT, info="Leave empty for none.")
        self.says = block(elem_id="ask-says")
        self.answers = block(elem_id="ask-answers")
        with gr.Row(visible=False, elem_id="ask-votes") as self.votes:  # each of the first two under its answer
            self.buttons = [gr.Button(text, size="md", min_width=110) for text, _ in VOTES]
        self.voted = block(elem_id="ask-voted")
        with gr.Row(elem_classes="st-maybe"):
            self.reveal = gr.Button("Show which is which", size="md", scale=0, min_width=200, visible=False, elem_id="ask-reveal")
        self.token = gr.Textbox("", visible=False)
        self.shown = [self.models, self.prompt, self.answers]
        self._wire()

    def _wire(self) -> None:
        inputs = [self.models, self.prompt, self.system, self.temperature, self.tokens, self.blind]
        outputs = [self.answers, self.says, self.token, self.votes, self.voted, self.reveal, self.halt]
        streaming: dict[str, Any] = {"concurrency_limit": 8, "show_progress": "hidden", **PRIVATE}
        asked = gr.on([self.go.click, self.prompt.submit], guarded(self.ask), inputs, outputs, **streaming)
        self.halt.click(
            guarded(self.stopped),
            self.token,
            [self.votes, self.reveal, self.halt],
            cancels=[asked],
            show_progress="hidden",
            **PRIVATE,
        )
        after = [self.answers, self.votes, self.voted, self.reveal]
        self.reveal.click(guarded(self.show_names), self.token, after, show_progress="hidden", **PRIVATE)
        for number, button in enumerate(self.buttons):
            button.click(guarded(_VOTES[number].__get__(self)), self.token, after, show_progress="hidden", **PRIVATE)

    # --- handlers ---

    def load(self, viewer: Viewer, project: Project, run_id: str) -> list[Any]:
        """Models to choose from, with before and after chosen, and a prompt to begin with."""
        found = writers(self._studio, viewer)
        first = [model_id for model_id in before_after(found, run_id) if model_id]
        held_out = prompts.of_project(self._studio.db, project.project_id, "held_out", limit=40)
        suggestion = random.choice(held_out).text if held_out else ""
        nothing = (
            empty("Their answers appear here, side by side.") if found else empty("There is no model yet.", "models", "Add one")
        )
        return [gr.Dropdown(options(self._studio, found), value=first), suggestion, nothing]

    def ask(
        self,
        request: gr.Request,
        model_ids: list[str],
        prompt: str,
        system: str,
        temperature: float,
        tokens: float,
        blind: bool,
    ) -> Iterator[list[Any]]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        chosen = self._chosen(viewer, project, model_ids)
        if not prompt.strip():
            raise BadInput("Write a prompt first.")
        if len(prompt) > MAX_PROMPT or len(system) > MAX_PROMPT:
            raise BadInput(f"A prompt has at most {MAX_PROMPT:,} characters here.")
        if blind:
            chosen = random.sample(chosen, len(chosen))
        generation = ask(prompt.strip(), system, *_sampling(temperature, tokens), seed=secrets.randbelow(2**31))
        asked = Asked(viewer.owner, project.project_id, prompt.strip(), generation, tuple(chosen), named=not blind)
        token = self._memory.add(asked)
        hide, stop = gr.update(visible=False), threading.Event()
        names = _names(asked, hidden=blind)
        one = prompts.new(project.project_id, [Message("user", prompt.strip())])
        warning = outside_world(chosen, [one], "it will babble", viewer.is_visitor)
        waiting = draw_columns(names, [Column("", False, "")] * len(chosen))
        yield [waiting, warning, token, hide, "", hide, gr.update(visible=True)]
        columns: list[Column] = []
        with self._studio.visitors.streams.hold(viewer.owner):
            for columns in merge(streams(self._studio, asked), stop):
                self._memory.answer(token, [c.text for c in columns])
                yield [draw_columns(names, columns), *[gr.skip()] * 6]
        can_vote, said = _votable(columns, blind)
        self._memory.answer(token, [c.text for c in columns], whole=not any(c.error for c in columns))
        yield [
            draw_columns(names, columns),
            gr.skip(),
            gr.skip(),
            gr.update(visible=can_vote),
            said,
            gr.update(visible=blind),
            hide,
        ]

    def stopped(self, token: str, request: gr.Request) -> list[Any]:
        return [gr.update(visible=False)] * 3

    def show_names(self, token: str, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        asked = self._memory.get(token, viewer.owner, self._studio.project(viewer).project_id)
        self._memory.name(token)
        hide = gr.update(visible=False)
        return [_revealed(asked), hide, gr.skip(), hide]

    def vote_a(self, token: str, request: gr.Request) -> list[Any]:
        return self._vote(token, "a", request)

    def vote_b(self, token: str, request: gr.Request) -> list[Any]:
        return self._vote(token, "b", request)

    def vote_tie(self, token: str, request: gr.Request) -> list[Any]:
        return self._vote(token, "tie", request)

    def vote_bad(self, token: str, request: gr.Request) -> list[Any]:
        return self._vote(token, "both_bad", request)

    # --- the vote ---

    def _vote(self, token: str, preference: Preference, request: gr.Request) -> list[Any]:
        """Store what was preferred as a label of the project, then show who was who. The first vote stands, and none is taken
        from somebody who knows the names or has not seen both answers to their end, whatever the browser sends."""
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        asked = self._memory.get(token, viewer.owner, project.project_id)
        hide = gr.update(visible=False)
        if len(asked.texts) != 2:
            raise BadInput("A vote needs exactly two answers; choose two models.")
        if len({text.strip() for text in asked.texts}) == 1:
            return [_revealed(asked), hide, note(SAME), hide]
        if not asked.whole:
            raise BadInput("Wait until both answers are written.")
        with self._voting:
            now = self._memory.get(token, viewer.owner, project.project_id)
            if now.voted is None:
                if now.named:
                    raise BadInput("You have seen who wrote which answer, so a vote would not be blind; ask again to vote.")
                with self._studio.visitors.room(project, 1, 2, sum(map(len, (asked.prompt, *asked.texts)))):
                    self._studio.visitors.check_labels(project, 1)
                    impression = self._store(viewer, project, asked)
                    preferences.cast(self._studio.db, viewer.annotator_id, impression, preference)
                self._memory.vote(token, preference)  # and not before: a vote that could not be stored can be given again
        said = next(text for text, vote in VOTES if vote == (now.voted or preference))
        return [_revealed(asked), hide, note(f"You said: {said}. Stored as one more label of this project.", "good"), hide]

    def _store(self, viewer: Viewer, project: Project, asked: Asked) -> str:
        """Prompt, both answers, their pair and the showing of it; the impression's id."""
        db = self._studio.db
        prompt = prompts.new(project.project_id, asked.request.messages, source="compare")
        prompts.add(db, [prompt])
        r = asked.request
        sampling = {"temperature": r.temperature, "max_new_tokens": r.max_new_tokens}
        both = [
            completions.new(prompt, text, "generated", model.name, model.model_id, sampling=sampling, seed=r.seed)
            for model, text in zip(asked.chosen, asked.texts, strict=True)
        ]
        completions.add(db, both)
        left, right = (c.completion_id for c in both)
        shown = datetime.now(UTC)
        impression = Impression(
            impression_id=secrets.token_hex(16),
            project_id=project.project_id,
            annotator_id=viewer.annotator_id,
            prompt_id=prompt.prompt_id,
            pair_id=content_id(*sorted((left, right))),
            left_completion_id=left,
            right_completion_id=right,
            task="pairwise",
            kind="normal",
            policy="compare",
            probability=1.0,
            served_at=shown,
            lease_expires_at=shown + timedelta(minutes=2),
        )
        impressions.add(db, [impression])
        return impression.impression_id

    def _chosen(self, viewer: Viewer, project: Project, model_ids: Sequence[str]) -> list[Model]:
        wanted = list(dict.fromkeys(model_ids or []))
        if not 1 <= len(wanted) <= MAX_MODELS:
            raise BadInput(f"Choose one to {MAX_MODELS} models.")
        chosen = [self._studio.model(viewer, model_id) for model_id in wanted]
        self._studio.visitors.check_models(project, chosen)
        return chosen


_VOTES = (AskTab.vote_a, AskTab.vote_b, AskTab.vote_tie, AskTab.vote_bad)  # in the order of VOTES


def _sampling(temperature: float, tokens: float) -> Sampling:
    if not 0 <= temperature <= 2 or not 1 <= tokens <= 2048:
        raise BadInput("The temperature goes from 0 to 2, and an answer has 1 to 2,048 tokens.")
    return Sampling(float(temperature), int(tokens))


def _names(asked: Asked, hidden: bool) -> list[str]:
    return [f"Answer {n}" if hidden else m.name for n, m in enumerate(asked.chosen, 1)]


def draw_columns(names: Sequence[str], columns: Sequence[Column]) -> Html:
    """While it is written the text is shown as it is; Markdown comes when it is done."""
    if all(c.done for c in columns):
        finished = answers([Answer(name, c.text) for name, c in zip(names, columns, strict=True)])
        return Html(
            finished + "".join(note(f"{name}: {c.error}", "bad") for name, c in zip(names, columns, strict=True) if c.error)
        )
    cards = "".join(
        f'<section class="st-answer"><header><span>{esc(name)}</span><span>{_doing(c)}</span></header>'
        f'<div class="text live">{esc(c.text)}{"" if c.done else "<i class=st-caret></i>"}</div></section>'
        for name, c in zip(names, columns, strict=True)
    )
    return Html(f'<div class="st-answers" aria-busy="true">{cards}</div>')


def _votable(columns: Sequence[Column], blind: bool) -> tuple[bool, Html]:
    """Whether a vote is taken, and what to say when two wrote the same or their names were never hidden."""
    texts = [c.text.strip() for c in columns]
    whole = len(texts) == 2 and all(texts) and not any(c.error for c in columns)
    same = whole and len(set(texts)) == 1
    if whole and not same and not blind:
        return False, Html(f'<p class="st-sub">{esc(OPEN)}</p>')
    return whole and not same, note(SAME) if same else Html("")


def _doing(column: Column) -> str:
    """The first answer waits until the model is in memory, which takes a few seconds."""
    return "" if column.done else "writing" if column.text else "loading the model"


def _revealed(asked: Asked) -> Html:
    return answers([Answer(f"{n}: {m.name}", text) for n, (m, text) in enumerate(zip(asked.chosen, asked.texts, strict=False), 1)])
