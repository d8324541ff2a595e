"""Import: a file (uploaded, or already in the import folder), a data set of the hub, or prompts typed in.

Nothing is written before the preview has been seen: what the file is taken to be, a few rows as they will be, and every row
that cannot be used with its line. What the browser sends back is the file's name alone; it is looked up in this person's own
folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from data import import_folder, importers, prompts
from data.columns import LAYOUTS, ColumnMap
from data.engine import Message
from data.errors import BadInput, LimitReached
from data.importers import ImportReport, Preview, Problem
from data.normalise import Item
from data.records import Project
from studio.context import Studio, Viewer
from studio.frame import PRIVATE, block, choice, goes_to, guarded
from studio.render import Column, Html, button, count, esc, note, notes, run_link, shorten, table
from studio.visitors import MAX_UNPACKED, RunSize

KINDS = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz"]
SHOWN_PROBLEMS = 20
SAID = {
    "first": "the first is better",
    "second": "the second is better",
    "tie": "tie",
    "both_bad": "both bad",
    "skip": "skipped",
    "good": "good",
    "bad": "bad",
}
# A file above the limit is refused before a byte of it travels, with the sentence that says what to do instead.
TOO_BIG = """
const box = () => document.querySelector('#import-upload');
const check = e => {
  if (!box()?.contains(e.target)) return;
  const files = [...(e.dataTransfer?.files || e.target.files || [])];
  const big = files.find(file => file.size > LIMIT);
  element.replaceChildren();
  if (!big) return;
  e.stopImmediatePropagation();
  e.preventDefault();
  const said = document.createElement('span');
  said.className = 'st-note bad';
  said.setAttribute('role', 'alert');
  said.textContent = `${big.name} has ${(big.size / 1048576).toFixed(0)} MB. SENTENCE`;
  element.append(said);
};
document.addEventListener('change', check, true);
document.addEventListener('drop', check, true);
"""
GENERATE = "data?tab=generate&for=new"
CHANGEABLE = ("prompt", "system", "completion", "chosen", "rejected", "left", "right", "label", "reference", "category")


class ImportTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        local = not self._studio.settings.visitor
        limit = self._studio.settings.max_upload_bytes // 2**20
        with gr.Row(equal_height=False, elem_classes="st-even"):
            with gr.Column(elem_classes="st-panel", min_width=300):
                hint = f"JSONL, JSON, CSV, TSV or Parquet, gzipped or not, up to {limit} MB."
                block(f'<h2 class="st-h2">From a file</h2><p class="st-sub">{hint}</p>')
                self.upload = gr.File(label="File", show_label=False, file_types=KINDS, height=130, elem_id="import-upload")
                block(elem_id="import-too-big", js_on_load=too_big(self._studio))
                with gr.Column(visible=False) as self.folder:  # while a file lies there
                    self.there = choice(label="Or a file in the import folder", elem_id="import-there")
                    with gr.Row():
                        self.look = gr.Button("Look at it", size="md", scale=0, min_width=130, elem_id="import-look")
                if local:  # what is hidden is sent to the browser all the same
                    where = esc(self._studio.settings.import_dir)
                    block(f'<p class="st-sub st-path">Larger files: copy them to {where} and reload this page.</p>')
            with gr.Column(elem_classes="st-panel", min_width=300):
                block('<h2 class="st-h2">Type them in</h2>')
                self.typed = gr.Textbox(
                    "", label="Prompts, one a line", lines=5, max_lines=14, max_length=200_000, elem_id="import-typed"
                )
                with gr.Row():
                    self.add = gr.Button("Add them", size="md", scale=0, min_width=130, elem_id="import-add")
                self.added = block(elem_id="import-added")
            with gr.Column(elem_classes="st-panel", min_width=300, visible=local):
                block('<h2 class="st-h2">From the hub</h2>')
                self.hub = gr.Textbox("", label="Data set", placeholder="owner/name", max_length=200, elem_id="import-hub")
                self.hub_split = gr.Textbox("train", label="Split", max_length=50)
                with gr.Row():
                    self.fetch = gr.Button("Fetch it", size="md", scale=0, min_width=130, elem_id="import-fetch")
        self.preview = block(elem_id="import-preview")
        with gr.Accordion("The columns mean something else", open=False, visible=False) as self.change, gr.Row():
            self.layout = gr.Dropdown(
                [(words, name) for name, words in LAYOUTS.items()], label="What the file is", filterable=False, min_width=260
            )
            self.columns = [choice(label=field.replace("_", " ").capitalize(), min_width=160) for field in CHANGEABLE]
        with gr.Row(elem_classes="st-maybe"):
            self.go = gr.Button("Import", variant="primary", size="lg", scale=0, min_width=220, visible=False, elem_id="import-go")
        self.report = block(elem_id="import-report")
        self.file = gr.Textbox("", visible=False)
        self.where = gr.Textbox("", visible=False)
        self.looked = [self.preview, self.change, self.layout, *self.columns, self.go, self.report, self.file]
        self.shown = [self.folder, self.there, *self.looked]
        self._wire()

    def _wire(self) -> None:
        self.upload.upload(guarded(self.uploaded), self.upload, [*self.shown, self.upload], **PRIVATE)
        self.look.click(guarded(self.chosen), self.there, self.looked, **PRIVATE)
        meaning = [self.layout, *self.columns]
        gr.on([c.input for c in meaning], guarded(self.changed), [self.file, *meaning], [self.preview, self.go], **PRIVATE)
        self.go.click(guarded(self.load_file), [self.file, *meaning], [self.report, self.go], **PRIVATE)
        self.add.click(guarded(self.add_typed), self.typed, [self.added, self.typed], **PRIVATE)
        goes_to(self.fetch.click(guarded(self.fetch_hub), [self.hub, self.hub_split], self.where, **PRIVATE), self.where)

    # --- handlers ---

    def load(self, viewer: Viewer, wanted: str) -> list[Any]:
        """`wanted` is a file that a run has brought; anything else is only listed."""
        if wanted:
            return [*self._there(viewer), *self._look(viewer, Path(wanted))]
        return [*self._there(viewer), *self._nothing()]

    def uploaded(self, file: str | None, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        if not file:
            return [*self._there(viewer), *self._nothing(), None]
        source = Path(file)
        path = import_folder.copy_upload(self._studio.settings, source, source.name, viewer.owner)
        source.unlink(missing_ok=True)
        self._studio.visitors.tidy_uploads(viewer.owner)
        return [*self._there(viewer), *self._look(viewer, Path(path.name)), None]

    def chosen(self, name: str | None, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        if not name and viewer.is_visitor:
            raise BadInput("Upload a file first.")
        if not name:
            raise BadInput(f"Choose a file first; copy files of any size to {self._studio.settings.import_dir}.")
        return self._look(viewer, Path(name))

    def changed(self, request: gr.Request, file: str, layout: str, *columns: str | None) -> list[Any]:
        """The preview as the changed columns make it; nothing is written."""
        viewer = self._studio.viewer(request)
        if not file:
            raise BadInput("Look at a file first.")
        mapping = self._mapping(viewer, file, layout, columns)
        seen = self._read(viewer, Path(file), mapping)
        return [_preview(seen), _button(seen)]

    def load_file(self, request: gr.Request, file: str, layout: str, *columns: str | None) -> list[Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        if not file:
            raise BadInput("Look at a file first.")
        mapping = self._mapping(viewer, file, layout, columns)
        seen = self._read(viewer, Path(file), mapping)
        if viewer.is_visitor and not seen.complete:
            raise LimitReached("This file has too many rows for a visitor's project; run the studio on your own machine for it.")
        with self._studio.visitors.room(project, seen.prompts, seen.answers, seen.characters):
            done = importers.load(self._studio.db, project.project_id, Path(file), mapping, owner=viewer.owner)
        return [_report(done, project), gr.Button(visible=False)]

    def add_typed(self, typed: str, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        texts = list(dict.fromkeys(line.strip() for line in typed.splitlines() if line.strip()))
        if not texts:
            raise BadInput("Write at least one prompt.")
        with self._studio.visitors.room(project, len(texts), characters=sum(map(len, texts))):
            new = prompts.add(
                self._studio.db, [prompts.new(project.project_id, [Message("user", t)], source="typed") for t in texts]
            )
        known = f" {count(len(texts) - new, 'was', 'were')} there already." if new < len(texts) else ""
        said = f"{count(new, 'prompt')} added.{known}"
        return [note(said, "good", *((GENERATE, "Generate answers") if new else ("data", "See the prompts"))), ""]

    def fetch_hub(self, name: str, split: str, request: gr.Request) -> str:
        viewer = self._studio.viewer(request)
        if viewer.is_visitor:
            raise BadInput("A visitor cannot fetch from the hub; run the studio on your own machine.")
        name, split = name.strip(), split.strip() or "train"
        if not name:
            raise BadInput("Give the name of a data set, such as owner/name.")
        args = {"dataset": name, "split": split}
        run = self._studio.start_run(viewer, "hub_import", "data.hub", f"{name} ({split})", {"args": args}, {}, [], RunSize())
        return f"./{run_link(run)}"

    # --- parts ---

    def _there(self, viewer: Viewer) -> list[Any]:
        """The files of the import folder to choose from; a visitor has none but what they have just uploaded."""
        found = [] if viewer.is_visitor else import_folder.files(self._studio.settings, viewer.owner)
        choices = [(f"{f.name} · {_size(f.size)}", f.name) for f in found]
        return [gr.update(visible=bool(found)), gr.Dropdown(choices, value=None)]

    def _nothing(self) -> list[Any]:
        hidden = gr.update(visible=False)
        return ["", hidden, gr.skip(), *[gr.skip()] * len(CHANGEABLE), hidden, "", ""]

    def _look(self, viewer: Viewer, path: Path) -> list[Any]:
        seen = self._read(viewer, path)
        options = [("–", ""), *((name, name) for name in seen.columns)]
        boxes = [gr.Dropdown(options, value=getattr(seen.mapping, field)) for field in CHANGEABLE]
        return [_preview(seen), gr.update(visible=True), seen.kind, *boxes, _button(seen), "", str(path)]

    def _read(self, viewer: Viewer, path: Path, mapping: ColumnMap | None = None) -> Preview:
        limit = MAX_UNPACKED if viewer.is_visitor else 0
        return importers.read(self._studio.settings, path, mapping, viewer.owner, limit)

    def _mapping(self, viewer: Viewer, file: str, layout: str, columns: tuple[str | None, ...]) -> ColumnMap | None:
        """The detected mapping with what was changed; None where nothing was."""
        if layout not in LAYOUTS:
            raise BadInput("Choose what the file is.")
        found = self._read(viewer, Path(file)).mapping
        wanted = {field: column or "" for field, column in zip(CHANGEABLE, columns, strict=True)}
        if layout == found.layout and all(getattr(found, field) == column for field, column in wanted.items()):
            return None
        return found.with_columns(layout=layout, **wanted)


def _size(n: int) -> str:
    return f"{n / 2**20:,.1f} MB" if n >= 2**20 else f"{max(1, round(n / 2**10)):,} KB"


def too_big(studio: Studio) -> str:
    """The script that refuses a file before it is uploaded."""
    settings = studio.settings
    limit = settings.max_upload_bytes
    here = f"Copy it to {settings.import_dir}, where a file of any size is read from, reload this page and choose it below."
    sentence = (
        f"Uploads end at {limit // 2**20} MB. {'Run the studio on your own machine for larger ones.' if settings.visitor else here}"
    )
    inner = json.dumps(sentence)[1:-1].replace("`", "'").replace("${", "$ {")
    return TOO_BIG.replace("LIMIT", str(limit)).replace("SENTENCE", inner)


def _button(seen: Preview) -> Any:
    rows = count(seen.good, "row") if seen.complete else "all rows"
    return gr.Button(f"Import {rows}", visible=seen.good > 0)


def _preview(seen: Preview) -> Html:
    said = "".join(f"<li>{esc(line)}</li>" for line in seen.description)
    columns = [Column("Prompt", "clip"), Column("Answers", "clip"), Column("Labels", "clip")]
    sample = table(columns, [_sample(item) for item in seen.sample], label="How the first rows will be stored")
    return Html(
        f'<section class="st-card"><h2 class="st-h2">{esc(seen.name)}</h2><p class="st-sub">{esc(seen.summary)}</p>'
        f'<ul class="st-said">{said}</ul>{notes(seen.warnings)}{_problems(seen.problems, seen.problem_count)}</section>'
        f'<p class="st-sub st-above">How the first rows will be stored:</p>{sample}'
    )


def _sample(item: Item) -> tuple[str, str, str]:
    asked = " ⏎ ".join([*(m.content if m.role == "user" else f"[{m.role}] {m.content}" for m in item.messages)])
    later = "".join(f" → {turn}" for turn in item.follow_up)
    said = " | ".join(shorten(answer.text, 120) for answer in item.answers)
    return shorten(asked + later, 240), said or "–", "; ".join(f"{v.annotator_id}: {SAID[v.said]}" for v in item.votes) or "–"


def _problems(problems: tuple[Problem, ...] | list[Problem], total: int) -> Html:
    if not total:
        return Html("")
    rows = [(f"{p.line:,}", p.reason) for p in problems[:SHOWN_PROBLEMS]]
    more = f'<p class="st-sub">and {total - len(rows):,} more</p>' if total > len(rows) else ""
    return Html(
        f'<p class="st-sub st-above">{count(total, "row")} cannot be used; the others can:</p>'
        f"{table([Column('Line', 'tight'), Column('Why')], rows, label='Rows that cannot be used')}{more}"
    )


def _report(done: ImportReport, project: Project) -> Html:
    new = ((done.prompts_added, "prompt"), (done.completions_added, "answer"), (done.preferences_added, "label"))
    *first, last = [count(n, what) for n, what in new if n] or ["Nothing new"]
    added = f"{', '.join(first)} and {last} added." if first else f"{last} added."
    known = f" {count(done.duplicates, 'row was', 'rows were')} there already." if done.duplicates else ""
    stopped = note(f"Reading ended early: {done.stopped} What came before is stored.", "warn") if done.stopped else ""
    best, *others = _next(done, project)
    links = button(*best) + "".join(button(text, link, quiet=True) for text, link in others)
    return Html(
        f'{note(added + known, "good")}{stopped}{_problems(done.problems, done.problem_count)}<div class="st-actions">{links}</div>'
    )


def _next(done: ImportReport, project: Project) -> list[tuple[str, str]]:
    """What to do with what has come, the most useful first."""
    steps = [("See the prompts", "data")]
    if done.preferences_added:
        steps.insert(0, ("Train on the labels", "train"))
    if done.completions_added > (0 if project.task == "binary" else done.prompts_added):
        steps.insert(0 if not done.preferences_added else 1, ("Label the answers", "label"))
    if done.prompts_added and not done.completions_added:
        steps.insert(0, ("Generate answers for these", GENERATE))
    return steps
