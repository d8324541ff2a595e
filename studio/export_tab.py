"""Export and backup: the data as files that other tools load as they are, and the whole workspace as one file.

A file that was made is offered under an address that only this person's browser can fetch (`studio/offers.py`).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from data import exporters, hub_push, import_folder, people
from data.errors import BadInput, RunError
from data.exporters import DROPPED, Format, Layout
from data.hub_push import LICENSES
from data.records import Project, SnapshotLayout
from labeling import manifest, snapshots
from studio.context import LOCAL_ANNOTATOR, Studio, Viewer
from studio.frame import PRIVATE, block, choice, goes_to, guarded
from studio.label_choice import LabelChoice
from studio.render import Html, button, count, esc, note, run_link
from studio.visitors import RunSize

LAYOUTS: list[tuple[str, Layout]] = [
    ("Preferences: prompt, chosen, rejected (TRL: DPO)", "dpo"),
    ("The same for a reward model (TRL: reward)", "reward"),
    ("Good and bad answers: prompt, completion, label (TRL: KTO)", "kto"),
    ("Good answers: prompt, completion (TRL: SFT)", "sft"),
    ("Prompts", "prompts"),
    ("Labels, as they were given", "labels"),
]
SPLITS: list[tuple[str, str]] = [("All prompts", ""), ("Training prompts", "train"), ("Held-out prompts", "held_out")]
FORMATS: list[tuple[str, Format]] = [("JSON lines", "jsonl"), ("Parquet", "parquet"), ("CSV, for spreadsheets", "csv")]
HUB_LAYOUTS: list[tuple[str, SnapshotLayout]] = [
    ("Preferences (DPO, reward)", "preference"),
    ("Good and bad answers (KTO)", "binary"),
    ("Good answers (SFT)", "sft"),
]
HUB_SAYS = (
    "Training and held-out prompts as two splits, with a card that says how the labels were made and how far people agree. "
    "“Which labels” above counts here too. It needs a token: set HF_TOKEN before the app starts."
)
MANIFEST_SAYS = "The manifest says what fell out and why, how far people agree, and what sways them."
NAMES: dict[str, tuple[str, str]] = {
    "dpo": ("preference", "preferences"),
    "reward": ("preference", "preferences"),
    "kto": ("answer", "answers"),
    "sft": ("answer", "answers"),
    "prompts": ("prompt", "prompts"),
    "labels": ("label", "labels"),
}


class ExportTab:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.which = LabelChoice("export")

    def build(self) -> None:
        local = not self._studio.settings.visitor
        with gr.Row(equal_height=False):
            with gr.Column(elem_classes="st-panel", min_width=320):
                block('<h2 class="st-h2">Take data out</h2>')
                self.layout = gr.Radio(LAYOUTS, value="dpo", label="What", elem_id="export-layout")
                self.format = gr.Radio(FORMATS, value="jsonl", label="As", elem_id="export-format")
                self.messages = gr.Checkbox(True, label="As conversations", info="Lists of messages. Off: plain text.")
                self.split = gr.Radio(SPLITS, value="", label="Of which prompts", elem_id="export-split")
                with gr.Accordion("Which labels", open=False, elem_id="export-which"):
                    self.which.build()
                self.make = gr.Button("Make the file", variant="primary", elem_id="export-go")
                self.made = block(elem_id="export-made")
                with gr.Accordion("Put it on the Hugging Face hub", open=False, visible=local, elem_id="export-hub"):
                    block(f'<p class="st-sub">{HUB_SAYS}</p>')
                    self.dataset = gr.Textbox(
                        "", label="Data set", placeholder="your-name/preferences", max_length=200, elem_id="hub-name"
                    )
                    self.hub_layout = gr.Radio(HUB_LAYOUTS, value="preference", label="What", elem_id="hub-layout")
                    self.license = gr.Dropdown(list(LICENSES), value="other", label="Licence", elem_id="hub-license")
                    self.private = gr.Checkbox(True, label="Private", info="Only you and whom you let in can see it.")
                    self.push = gr.Button("Push", elem_id="hub-go")
                    self.where = gr.Textbox("", visible=False)
            with gr.Column(elem_classes="st-panel", min_width=320, visible=local):
                block('<h2 class="st-h2">The whole workspace</h2>')
                block('<p class="st-sub">All projects, labels and trained models in one file.</p>')
                self.backup = gr.Button("Make a backup", elem_id="backup-go")
                self.kept = block(elem_id="backup-made")
                with gr.Accordion("Put a backup in place of this workspace", open=False, elem_id="restore"):
                    self.archive = gr.File(
                        label="A backup made here (.zip)", file_types=[".zip"], height=120, elem_id="restore-file"
                    )
                    self.there = choice(label="Or one in the import folder")
                    self.sure = gr.Checkbox(
                        False, label="Replace what is here", info="What is here now is kept in a folder beside it."
                    )
                    self.restore = gr.Button("Restore", variant="stop", elem_id="restore-go")
                    self.restored = block(elem_id="restore-says")
        self.shown = [self.there, *self.which.components]
        asked = [self.layout, self.format, self.messages, self.split, *self.which.components]
        self.make.click(guarded(self.export), asked, self.made, **PRIVATE)
        pushed = [self.dataset, self.hub_layout, self.license, self.private, *self.which.components]
        goes_to(self.push.click(guarded(self.push_to_hub), pushed, self.where, **PRIVATE), self.where)
        self.backup.click(guarded(self.back_up), None, self.kept, **PRIVATE)
        self.restore.click(
            guarded(self.put_back), [self.archive, self.there, self.sure], [self.restored, self.archive, self.sure], **PRIVATE
        )

    # --- handlers ---

    def load(self, viewer: Viewer, project: Project) -> list[Any]:
        folder = self._studio.settings.import_dir
        found = [] if viewer.is_visitor else sorted(file.name for file in folder.glob("*.zip") if file.is_file())
        return [gr.Dropdown(found, value=None), *self.which.load(self._studio.db, project)]

    def export(self, request: gr.Request, layout: Layout, format: Format, messages: bool, split: str, *which: Any) -> Html:
        viewer = self._studio.viewer(request)
        project = self._studio.project(viewer)
        if format not in get_args(Format):
            raise BadInput("Choose JSON lines, Parquet or CSV.")
        if split not in {value for _, value in SPLITS}:
            raise BadInput("Choose all, training or held-out prompts.")
        filters, rules = self.which.read(which)
        done = exporters.export(
            self._studio.db, self._studio.settings, project.project_id, layout, format, bool(messages), filters, rules,
            split,  # type: ignore[arg-type]
        )  # fmt: skip
        beside = manifest.of_export(self._studio.db, project.project_id, done, layout, filters, rules, split)
        files = [("Download", done.path), ("manifest.json", beside)]
        links = [(title, self._studio.offers.add(path, path.name, viewer.owner)) for title, path in files]
        left = ", ".join(count(n, *DROPPED[reason]) for reason, n in done.dropped.items())
        said = note(f"{count(done.rows, *NAMES[layout])} written.{f' Left out: {left}.' if left else ''}", "good")
        return Html(
            f'{said}<div class="st-actions">{button(*links[0])}{button(*links[1], quiet=True)}</div>'
            f'<p class="st-sub st-path">{esc(done.path.name)}, sha256 <code>{done.sha256}</code>. '
            f"{'' if layout == 'prompts' else MANIFEST_SAYS}</p>"
        )

    def push_to_hub(
        self, request: gr.Request, dataset: str, layout: SnapshotLayout, license: str, private: bool, *which: Any
    ) -> str:
        """Freeze the labels and start the run that pushes them; its page is where to go."""
        viewer = self._studio.require(request, "researcher")
        if viewer.is_visitor:
            raise BadInput("A visitor cannot push to the hub; run the studio on your own machine for that.")
        studio, project = self._studio, self._studio.project(viewer)
        if layout not in {value for _, value in HUB_LAYOUTS}:
            raise BadInput("Choose what to push.")
        args = {"dataset": dataset.strip(), "license": license, "private": bool(private)}
        try:
            hub_push.read_args(args)
        except RunError as error:
            raise BadInput(str(error)) from None
        if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            raise BadInput("This studio is offline (HF_HUB_OFFLINE is set), so nothing was pushed; make a file instead.")
        filters, rules = self.which.read(which)
        frozen = snapshots.freeze(studio.db, studio.settings, project.project_id, layout, filters=filters, rules=rules)
        file = snapshots.file_of(studio.settings, frozen)
        beside = file.with_suffix(".manifest.json")
        manifest.write(beside, frozen.manifest)
        config = {"args": args, "data": {"file": "data.parquet", "sha256": frozen.sha256, "rows": frozen.rows}}
        files = {"data.parquet": file, "manifest.json": beside}
        name = f"{args['dataset']} to the hub"
        run = studio.start_run(viewer, "hub_push", "data.hub_push", name, config, files, [], RunSize(), frozen.snapshot_id)
        return f"./{run_link(run)}"

    def back_up(self, request: gr.Request) -> Html:
        viewer = self._admin(request)
        name = f"alignment-studio-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"
        path = self._studio.db.backup(self._studio.settings.export_dir / name)
        link = self._studio.offers.add(path, name, viewer.owner)
        said = note(f"The backup has {path.stat().st_size / 2**20:,.1f} MB; it also lies in {path.parent}.", "good")
        return Html(f'{said}<div class="st-actions">{button(f"Download {name}", link)}</div>')

    def put_back(self, upload: str | None, name: str | None, sure: bool, request: gr.Request) -> list[Any]:
        self._admin(request)
        if not upload and not name:
            raise BadInput("Choose a backup file first.")
        if not sure:
            raise BadInput("Tick “Replace what is here” first: all pages will show the backup's projects from then on.")
        settings = self._studio.settings
        archive = Path(upload) if upload else import_folder.resolve(settings, Path(str(name)))
        kept = self._studio.db.restore(archive)
        if self._studio.sessions is None:
            people.ensure(self._studio.db, LOCAL_ANNOTATOR, "You", "local")
        said = note(f"The backup is in place. What was here before is kept in {kept}.", "good")
        return [Html(f'{said}<div class="st-actions">{button("Go to Home", "")}</div>'), None, False]

    def _admin(self, request: gr.Request) -> Viewer:
        viewer = self._studio.viewer(request)
        if viewer.is_visitor:
            raise BadInput("A visitor cannot back up or restore the workspace.")
        return self._studio.require(request, "admin")  # a backup holds every account
