"""Train: freeze the labels, choose a method and a model to start from, start the run.

What the run will learn from is shown before it starts: rows, what falls out and why, and a warning where labels are few.
Everything else has a default that was measured on the demo model or is a published recipe (`training/config.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from data import prompts
from data.errors import BadInput
from data.models import is_trained
from data.records import Model, Project, Run
from data.votes import Filters, Rules
from studio import several
from studio.choices import outside_world, rewards
from studio.context import Studio, Viewer
from studio.elsewhere import Prepared, of_plan
from studio.elsewhere_panel import ElsewherePanel, Outline
from studio.form import Form
from studio.frame import PRIVATE, Top, block, choice, goes_to, guarded, heading, query
from studio.label_choice import LabelChoice
from studio.learns import learns_from
from studio.local_models import parameters_of
from studio.preflight_panel import PreflightPanel
from studio.render import Html, count, figures, note, run_link
from studio.several_panel import SeveralPanel
from studio.train_plan import TrainPlan, train
from training.config import Method, SamplingConfig, from_json, method_named
from training.defaults import recipe
from training.methods import METHOD_FACTS, short_name
from training.recipe_files import RecipeFile, recipes_for
from training.verdicts import SIEVES, Sieve

METHODS = [(facts.title, method) for method, facts in METHOD_FACTS.items()]
DEFAULT = ("Studio default", "")
NO_SEVERAL = "Give a setting two values or more, such as 0.1, 0.5; every combination is a run of its own."
LOOK_AT = 500  # labelled prompts, to see whether they are of the demo model's world


class TrainPage:
    title, path = "Train", "train"

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.which = LabelChoice("train")
        self.several = SeveralPanel("several")
        self.preflight = PreflightPanel(studio, self.read)
        self.elsewhere = ElsewherePanel(studio, self.outline, self.prepared, "train")

    def build(self, demo: gr.Blocks) -> None:
        self.top = Top(self._studio, self.path)
        heading(
            "Train", "An add-on to the model (an adapter) or a copy of it learns from your labels. The model itself stays as it is."
        )
        with gr.Row(equal_height=False):
            with gr.Column(elem_classes="st-panel", min_width=320, scale=5):
                self.method = gr.Radio(METHODS, value="dpo", label="What it should learn", elem_id="train-method")
                self.fits = block(elem_id="train-method-fits")
                self.start_from = choice(label="Start from", elem_id="train-from")
                self.recipe = gr.Dropdown([DEFAULT], value="", label="Recipe", filterable=False, elem_id="train-recipe")
                self.form = Form()
                self.form.build_open("dpo")
            with gr.Column(elem_classes="st-panel", min_width=320, scale=6):
                self.learns = block(elem_id="train-data")
                self.name = gr.Textbox("", label="Name of the run", max_length=120, visible=False, elem_id="train-name")
                with gr.Row(elem_classes="st-go"):
                    self.go = gr.Button("Train", variant="primary", size="lg", interactive=False, elem_id="train-go")
                    self.preflight.build_button()
                self.preflight.build()
        with (
            gr.Accordion("Which labels", open=False, elem_classes="st-settings", elem_id="train-which") as self.which_box,
            gr.Row(elem_classes="st-knobs"),
        ):
            self.which.build()
            leave_out = self.preflight.build_choice()
        self.form.build_closed("dpo")
        self._build_several()
        self.elsewhere.build()
        self.where = gr.Textbox("", visible=False)
        self.proposal = gr.Textbox("", visible=False)  # what the recipe put into the form
        knobs, which = self.form.components, [*self.which.components, leave_out]
        chosen = [self.fits, self.which_box, self.recipe, self.name, self.learns, self.go, self.proposal, *knobs]
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        loaded = demo.load(guarded(self.load), outputs=[self.top.html, self.method, self.start_from, *which, *chosen], **quiet)
        changed = [each.submit if isinstance(each, gr.Textbox) else each.input for each in which]
        others = [self.method.input, self.start_from.input, self.form.named("tuning").input]
        left = [each.blur for each in which if isinstance(each, gr.Textbox)]
        anew = [guarded(self.choose), [self.method, self.start_from, self.recipe, self.proposal, *which, *knobs], chosen]
        chose = gr.on([*others, *changed, *left], *anew, **quiet)
        filled = self.recipe.input(guarded(self.fill), [self.method, self.start_from, self.recipe, *which], chosen, **quiet)
        started = self.go.click(
            guarded(self.start),
            [self.method, self.start_from, self.name, *which, *knobs],
            self.where,
            concurrency_limit=4,
            **PRIVATE,
        )
        goes_to(started, self.where)
        held = [self.method, self.start_from, self.name, *which, *knobs]
        self.elsewhere.wire(held, self.where, [loaded, chose, filled])
        mended = self.preflight.wire(self.form, [self.method, self.start_from, *which, *knobs])
        self.preflight.follow([loaded, chose, filled, mended.then(*anew, **quiet)])
        self._wire_several([self.method, self.start_from, *which, *knobs], quiet)

    def _build_several(self) -> None:
        with gr.Accordion(
            "Try several settings",
            open=False,
            elem_classes="st-settings",
            elem_id="train-several",
            visible=not self._studio.settings.visitor,
        ) as self.several_box:
            self.several.build()
            with gr.Row():
                self.try_go = gr.Button("Start the runs", scale=0, min_width=200, elem_id="several-go")

    def _wire_several(self, held: list[Any], quiet: dict[str, Any]) -> None:
        offered = [[self.method, *self.several.names], self.several.names]
        gr.on([self.several_box.expand, self.method.input], guarded(self.offer), *offered, **quiet)
        inputs, shown = [*held, *self.several.inputs], [self.several.says, self.try_go]
        gr.on([self.several_box.expand, *self.several.changed], guarded(self.plan), inputs, shown, **quiet)
        goes_to(self.try_go.click(guarded(self.start_several), inputs, self.where, concurrency_limit=4, **PRIVATE), self.where)

    # --- handlers ---

    def load(self, request: gr.Request) -> list[Any]:
        viewer = self._studio.viewer(request)
        self._studio.jobs.prepare()
        project = self._studio.project(viewer)
        asked = query(request, "method")
        method: Method = method_named(asked) if asked in METHOD_FACTS else "dpo" if project.task == "pairwise" else "kto"
        parents = self._parents(viewer)
        chosen = next((m for m in parents if m.run_id and m.run_id == query(request, "run")), parents[0] if parents else None)
        choices = [(m.name, m.model_id) for m in parents]
        first = gr.Dropdown(choices, value=chosen.model_id if chosen else None)
        return [
            self.top.show(viewer, project),
            method,
            first,
            *self.which.load(self._studio.db, project),
            [],
            *self._choice(viewer, method, chosen, {}),
        ]

    def choose(
        self, request: gr.Request, chosen: str, model_id: str | None, recipe: str | None, proposal: str, *values: Any
    ) -> list[Any]:
        method, viewer = method_named(chosen), self._studio.viewer(request)
        parent = self._parent(viewer, model_id) if model_id else None
        which, leave_out, knobs = self._parts(values)
        edits = self.form.edits(proposal, knobs)
        return self._choice(viewer, method, parent, edits, *self.which.read(which), leave_out, recipe or "")

    def fill(self, request: gr.Request, chosen: str, model_id: str | None, recipe: str | None, *values: Any) -> list[Any]:
        """Put a recipe's settings into the form, over whatever stands there."""
        method, viewer = method_named(chosen), self._studio.viewer(request)
        parent = self._parent(viewer, model_id) if model_id else None
        which, leave_out, _ = self._parts(values)
        return self._choice(viewer, method, parent, {}, *self.which.read(which), leave_out, recipe or "")

    def start(self, request: gr.Request, chosen: str, model_id: str | None, name: str, *values: Any) -> str:
        """Freeze, start, and go and watch; not where a check has found a reason against it."""
        viewer = self._studio.viewer(request)
        plan = self.read(viewer, [chosen, model_id, *values])
        self.preflight.refuse(viewer, plan)
        return f"./{run_link(self._begin(viewer, plan, name))}"

    def offer(self, request: gr.Request, chosen: str, *names: str | None) -> list[Any]:
        """The settings of the method, to try several values of."""
        return self.several.offer(method_named(chosen), names)

    def plan(self, request: gr.Request, chosen: str, model_id: str | None, *values: Any) -> list[Any]:
        """What the values make and how long it would take."""
        method, viewer = method_named(chosen), self._studio.viewer(request)
        plan, wanted = self._several(viewer, [chosen, model_id, *values])
        config, project = plan.config, self._studio.project(viewer)
        try:
            made = several.combinations(method, config, wanted)
        except BadInput as error:
            return [note(str(error), "bad"), "Start the runs"]
        if len(made) < 2:
            return [Html(f'<p class="st-sub">{NO_SEVERAL}</p>'), "Start the runs"]
        learns = learns_from(self._studio.db, project, method, plan.filters, plan.rules, plan.leave_out)
        base = str(plan.parent.spec.get("base", ""))
        told = several.preview(self._studio, project.project_id, base, method, config, made, learns.train)
        return [Html(f'<p class="st-sub">{figures(told)}</p>'), f"Start {len(made)} runs"]

    def start_several(self, request: gr.Request, chosen: str, model_id: str | None, *values: Any) -> str:
        """Freeze once, queue a run for each combination, and go and watch."""
        method, viewer = method_named(chosen), self._studio.viewer(request)
        plan, wanted = self._several(viewer, [chosen, model_id, *values])
        self.preflight.refuse(viewer, plan)
        made = several.combinations(method, plan.config, wanted)
        if len(made) < 2:
            raise BadInput(NO_SEVERAL)

        def first(changes: several.Changes, name: str, group_id: str) -> Run:
            changed = from_json(method, {**plan.config.to_json(), **changes})
            return self._begin(viewer, plan._replace(config=changed), name, group_id)

        return f"./{run_link(several.start(self._studio, viewer, method, made, None, first))}"

    def _several(self, viewer: Viewer, values: Sequence[Any]) -> tuple[TrainPlan, list[several.Setting]]:
        """The controls of the one run, and what is to be tried."""
        end = len(values) - len(self.several.inputs)
        return self.read(viewer, values[:end]), self.several.read(tuple(values[end:]))

    def _begin(self, viewer: Viewer, plan: TrainPlan, name: str, group_id: str = "") -> Run:
        """Freeze the labels and start a run on them."""
        snapshot = plan.freeze(self._studio, self._studio.project(viewer))
        known_as = " ".join(name.split()) or _name(plan.method, int(snapshot.manifest["rows"]["train"]))
        return train(self._studio, viewer, plan, snapshot, known_as, group_id)

    def outline(self, request: gr.Request, chosen: str, model_id: str | None, name: str, *values: Any) -> Outline | None:
        """What the run would be elsewhere; None before there is something to train."""
        if not model_id or not name:
            return None
        plan = self.read(self._studio.viewer(request), [chosen, model_id, *values])
        return Outline(name, plan.method, plan.config.batch_size * plan.config.accumulation)

    def prepared(self, request: gr.Request, chosen: str, model_id: str | None, name: str, *values: Any) -> Prepared:
        viewer = self._studio.viewer(request)
        return of_plan(self._studio, viewer, self.read(viewer, [chosen, model_id, *values]), name)

    def read(self, viewer: Viewer, values: Sequence[Any]) -> TrainPlan:
        """What the controls hold: method, model, which labels and rows, knobs. BadInput in words."""
        method = method_named(values[0])
        parent = self._parent(viewer, values[1])
        which, leave_out, knobs = self._parts(values[2:])
        return TrainPlan(method, parent, self.form.read(method, knobs), *self.which.read(which), leave_out)

    def _parts(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Sieve, ...], Sequence[Any]]:
        """Which labels, which rows to be without, knobs."""
        split = len(self.which.components)
        wanted = values[split] if len(values) > split else []
        return tuple(values[:split]), tuple(name for name in SIEVES if name in (wanted or [])), values[split + 1 :]

    # --- what is shown ---

    def _parents(self, viewer: Viewer) -> list[Model]:
        """Bases first, then what was trained here from new to old."""
        local = [m for m in self._studio.models(viewer) if m.spec.get("kind") == "local" and m.kind in ("base", "adapter")]
        return [m for m in local if not is_trained(m)] + [m for m in reversed(local) if is_trained(m)]

    def _parent(self, viewer: Viewer, model_id: str | None) -> Model:
        if not model_id:
            raise BadInput("Choose the model to start from; add one on the Models page if there is none.")
        model = self._studio.model(viewer, model_id)
        if model.spec.get("kind") != "local" or model.kind not in ("base", "adapter"):
            raise BadInput(f"{model.name} cannot be trained here; choose a base model or an adapter.")
        return model

    def _choice(
        self,
        viewer: Viewer,
        method: Method,
        parent: Model | None,
        edits: Mapping[str, Any],
        filters: Filters = Filters(),
        rules: Rules = Rules(),
        leave_out: tuple[Sieve, ...] = (),
        name: str = "",
    ) -> list[Any]:
        """All that follows from the method, the parent and the recipe by name: what it is for, rows, button, knobs."""
        project = self._studio.project(viewer)
        graders = rewards(self._studio, viewer, project) if METHOD_FACTS[method].samples else []
        learns = learns_from(self._studio.db, project, method, filters, rules, leave_out, graders)
        edits = self.form.fitting(method, edits, graders)
        size = parameters_of(str(parent.spec.get("base", ""))) if parent else 0
        made = next((each for each in recipes_for(method) if each.name == name), None)
        config = made.config if made else recipe(method, size, learns.train, str(edits.get("tuning", "")))
        if isinstance(config, SamplingConfig) and graders and (method == "rloo" or config.reward not in dict(graders).values()):
            config = replace(config, reward=graders[0][1])  # what people prefer before rules, where there is a model of it
        text = f"Train on {count(learns.train, *METHOD_FACTS[method].row)}" if learns.train else "Train"
        missing = "" if parent else note("There is no model to train.", "bad", "models", "Add one on the Models page")
        choices = [DEFAULT, *((each.title, each.name) for each in recipes_for(method))]
        return [
            Html(f'<p class="st-sub">{METHOD_FACTS[method].fits}</p>'),
            gr.Accordion(visible=not METHOD_FACTS[method].samples),
            gr.Dropdown(choices, value=made.name if made else "", visible=len(choices) > 1, info=_where_from(made)),
            gr.Textbox(_name(method, learns.train), visible=learns.ready),
            Html(f"{learns.html}{missing}{self._foreign(viewer, project, parent)}"),
            gr.Button(text, interactive=learns.ready and parent is not None),
            self.form.proposal(config, edits),
            *self.form.show(config, method, edits, graders),
        ]

    def _foreign(self, viewer: Viewer, project: Project, parent: Model | None) -> Html:
        """What to know before the demo model is trained on what people said about the real world."""
        labelled = prompts.labelled(self._studio.db, project.project_id, LOOK_AT)
        return outside_world([parent], labelled, "it will hardly learn anything from their labels", viewer.is_visitor)


def _where_from(made: RecipeFile | None) -> str:
    """What a recipe was made for, under its name."""
    if made is None:
        return "What suits the model you start from and the number of labels."
    alone = made.rows_a_step // made.config.batch_size
    devices = f" On one device {alone} batches a step make as many." if made.launch else ""
    return f"{made.source}. Made for {made.base} and {made.data}. {made.note}{devices}"


def _name(method: Method, train: int) -> str:
    called = short_name(method)
    return f"{called[:1].upper()}{called[1:]} on {count(train, *METHOD_FACTS[method].row)}" if train else ""
