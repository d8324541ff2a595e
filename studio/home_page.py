"""Home: the loop as five steps with their counts, the one thing to do next, and the projects."""

from __future__ import annotations

from typing import Literal

import gradio as gr

from data import projects
from data.errors import BadInput
from data.records import Project
from studio.context import Studio, Viewer
from studio.copies_line import copies_line, copies_missing
from studio.frame import PRIVATE, Top, as_text, block, choice, guarded
from studio.next_step import Overview, may_be_all_labelled, next_of, overview, steps_of
from studio.render import Column, Html, ago, badge, esc, loop, next_step, notes, run_link, shorten, table, took

RECENT_RUNS = 5
TASKS = [("Two answers side by side: which is better?", "pairwise"), ("One answer at a time: good or bad?", "binary")]


class HomePage:
    title, path = "Home", ""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        self.head = block(elem_id="home-head")
        self.start = block(elem_id="home-start")
        self.recent = block(elem_id="home-runs")
        local = not self._studio.settings.visitor
        with gr.Accordion("Projects", open=False, visible=local, elem_id="home-projects"):
            self._build_projects()
        self.timer = gr.Timer(2.0, active=False)  # ticks only while a run is going
        shown = [self.top.html, self.head, self.start, self.recent, self.switch, self.hidden, self.archived, self.timer]
        demo.load(guarded(self.show), outputs=shown, show_progress="hidden", **PRIVATE)
        self.timer.tick(guarded(self.refresh), outputs=[self.start, self.recent, self.timer], show_progress="hidden", **PRIVATE)
        self.switch.input(guarded(self.open), self.switch, shown, **PRIVATE)
        self.make.click(guarded(self.create), [self.name, self.task, self.guidelines], [*shown, self.name], **PRIVATE)
        self.hide.click(guarded(self.archive), None, shown, **PRIVATE)
        self.back.click(guarded(self.bring_back), self.hidden, shown, **PRIVATE)
        self.save_name.click(guarded(self.rename), self.new_name, [*shown, self.new_name], **PRIVATE)

    def _build_projects(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(elem_classes="st-panel", min_width=280):
                self.switch = choice(label="Open project", elem_id="home-switch")
                self.new_name = gr.Textbox("", label="New name for it", max_length=200, placeholder="Leave as it is")
                with gr.Row():
                    self.save_name = gr.Button("Rename", size="md", scale=0, min_width=120)
                    self.hide = gr.Button("Archive", size="md", scale=0, min_width=120)
                block('<p class="st-sub"><a href="./project">How it is labelled</a>: guidelines, labels an item, checks.</p>')
                block('<p class="st-sub">An archived project is hidden from this list; nothing of it is deleted.</p>')
                with gr.Group(visible=False) as self.archived:
                    self.hidden = choice(label="Archived projects", elem_id="home-archived")
                    self.back = gr.Button("Bring it back", size="md")
            with gr.Column(elem_classes="st-panel", min_width=280):
                self.name = gr.Textbox("", label="Name of a new project", max_length=200, elem_id="home-name")
                self.task = gr.Radio(TASKS, value="pairwise", label="How people label")
                self.guidelines = gr.Textbox(
                    "",
                    label="What makes an answer good?",
                    info="Shown to everyone who labels. You can leave it empty.",
                    lines=2,
                    max_length=10_000,
                )
                with gr.Row():
                    self.make = gr.Button("Make the project", variant="primary", scale=0, min_width=200, elem_id="home-make")

    # --- handlers ---

    def show(self, request: gr.Request) -> list[object]:
        viewer = self._studio.viewer(request)
        return self._all(viewer, self._studio.project(viewer))

    def refresh(self, request: gr.Request) -> list[object]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        seen = self._seen(viewer, project)
        return [self._start(seen, project), _recent(seen), gr.Timer(active=seen.active is not None)]

    def open(self, project_id: str, request: gr.Request) -> list[object]:
        viewer = self._studio.viewer(request)
        return self._all(viewer, self._studio.open_project(viewer, project_id))

    def create(self, name: str, task: Literal["pairwise", "binary"], guidelines: str, request: gr.Request) -> list[object]:
        viewer = self._owner_of_projects(request)
        project = projects.create(self._studio.db, name, task, guidelines=guidelines.strip())
        self._studio.open_project(viewer, project.project_id)
        return [*self._all(viewer, project), ""]

    def rename(self, name: str, request: gr.Request) -> list[object]:
        viewer = self._owner_of_projects(request)
        project = self._studio.project(viewer)
        projects.rename(self._studio.db, project.project_id, name)
        return [*self._all(viewer, self._studio.project(viewer)), ""]

    def archive(self, request: gr.Request) -> list[object]:
        viewer = self._owner_of_projects(request)
        project = self._studio.project(viewer)
        if len(self._studio.projects(viewer)) == 1:
            raise BadInput("This is the only project; make another one before you archive it.")
        projects.archive(self._studio.db, project.project_id)
        gr.Info(as_text(f"{project.name} is archived."), title="Done")
        return self._all(viewer, self._studio.project(viewer))

    def bring_back(self, project_id: str | None, request: gr.Request) -> list[object]:
        viewer = self._owner_of_projects(request)
        if project_id not in {p.project_id for p in projects.archived(self._studio.db)}:
            raise BadInput("Choose an archived project first.")
        projects.bring_back(self._studio.db, str(project_id))
        return self._all(viewer, self._studio.open_project(viewer, str(project_id)))

    def _owner_of_projects(self, request: gr.Request) -> Viewer:
        viewer = self._studio.viewer(request)
        if viewer.is_visitor:
            raise BadInput("A visitor has one project; run the studio on your own machine for more.")
        return viewer

    # --- what is shown ---

    def _all(self, viewer: Viewer, project: Project) -> list[object]:
        choices = [(p.name, p.project_id) for p in self._studio.projects(viewer)]
        hidden = [] if viewer.is_visitor else [(p.name, p.project_id) for p in projects.archived(self._studio.db)]
        seen = self._seen(viewer, project)
        return [
            self.top.show(viewer, project),
            _head(project.name, _what(project)),
            self._start(seen, project),
            _recent(seen),
            gr.Dropdown(choices, value=project.project_id),
            gr.Dropdown(hidden, value=hidden[0][1] if hidden else None),
            gr.update(visible=bool(hidden)),
            gr.Timer(active=seen.active is not None),
        ]

    def _seen(self, viewer: Viewer, project: Project) -> Overview:
        seen = overview(self._studio.db, project)
        if not may_be_all_labelled(seen.counts, project.task):
            return seen
        left = self._studio.assignment.progress(viewer.annotator_id, project.project_id).left
        return seen._replace(all_labelled=left == 0)

    def _start(self, seen: Overview, project: Project) -> Html:
        n = next_of(seen, project.task)
        mended = notes([] if project.owner else [*self._studio.db.notices, *copies_missing(self._studio)])
        return Html(
            f'<div class="st-start">{mended}{copies_line(self._studio) if not project.owner else ""}{loop(steps_of(seen, n.place))}'
            f"{next_step(n.title, n.text, n.action, n.link, n.others)}</div>"
        )


def _what(project: Project) -> str:
    if project.is_demo:
        return (
            "A small model answers short questions, often badly. "
            "Say which answers are better, train it on that, and see whether it improved."
        )
    if project.task == "pairwise":
        return "Say which of two answers is better, train a model on that, and see whether it improved."
    return "Say which answers are good, train a model on that, and see whether it improved."


def _head(title: str, says: str) -> Html:
    return Html(f'<div class="st-head"><h1>{esc(title)}</h1><p>{esc(says)}</p></div>')


def _recent(seen: Overview) -> Html:
    if not seen.recent:
        return Html("")
    columns = [Column("Recent runs", "clip"), Column("Status", "tight"), Column("Took", "num", wide=True), Column("Started", "num")]
    rows = [
        (
            Html(f'<a href="./{run_link(r)}">{esc(shorten(r.name, 80))}</a>'),
            badge(r.status),
            took(r),
            ago(r.started_at or r.queued_at),
        )
        for r in seen.recent[:RECENT_RUNS]
    ]
    return table(columns, rows, label="Recent runs")
