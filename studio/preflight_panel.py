"""The check before a run, as the Train page shows it: verdicts on the rows while one is choosing, and "Check first".

What the rows alone can tell (`labeling/row_checks.py`) is said at once. The rest is a run like any other (`training/preflight.py`),
so it waits for the device, can be stopped and outlives the page. Nothing of it is kept in the browser: what is shown follows from
what the controls hold and from the newest check in the database, and a fix that a button asks for is looked up there too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import gradio as gr

from data import runs
from data.errors import BadInput, StudioError
from data.records import Project, Run
from labeling.row_checks import check_rows
from studio import train_plan
from studio.context import Studio, Viewer
from studio.form import Form
from studio.frame import PRIVATE, block, guarded
from studio.render import Html, ago, bar, esc, note, progress_line, share_done
from studio.train_plan import TrainPlan
from studio.verdict_list import cost_facts, verdict_list
from training.methods import METHOD_FACTS
from training.preflight import halved
from training.verdicts import SIEVES, Report, Verdict, stops

SIEVE_NAMES = {"contradictions": "Contradict each other", "repeats": "Repeat another"}
_KEPT = 16  # previews of whose rows the verdicts are kept
_OLD = timedelta(hours=1)  # after which a check of other settings is not worth mentioning; one of another method never is
_FIX = """
element.addEventListener('click', e => {
  const b = e.target.closest('button[data-fix]');
  if (!b) return;
  b.disabled = true;
  trigger('pick', {fix: b.dataset.fix});
});
"""
Read = Callable[[Viewer, Sequence[Any]], TrainPlan]  # what the controls hold, or BadInput in words


class PreflightPanel:
    """Build its parts inside the page, then `wire` it; the page calls `refuse` before it starts a run."""

    def __init__(self, studio: Studio, read: Read) -> None:
        self._studio, self._read = studio, read
        self._known: dict[Any, tuple[Verdict, ...]] = {}

    # --- parts ---

    def build_choice(self) -> gr.CheckboxGroup:
        """Which rows to be without; belongs among the controls that say which labels count."""
        self.leave_out = gr.CheckboxGroup(
            [(SIEVE_NAMES[name], name) for name in SIEVES], value=[], label="Leave out rows that", elem_id="train-leave-out"
        )
        return self.leave_out

    def build_button(self) -> None:
        self.check = gr.Button("Check first", size="lg", interactive=False, elem_id="train-check")

    def build(self) -> None:
        self.list = block(elem_id="train-checks", js_on_load=_FIX)
        self.stop = gr.Button("Stop the check", visible=False, size="sm", elem_id="train-check-stop")
        self.timer = gr.Timer(0.7, active=False)

    @property
    def shown(self) -> list[Any]:
        return [self.list, self.check, self.stop, self.timer]

    def wire(self, form: Form, inputs: list[Any]) -> Any:
        """Returns the event after which the page has to show itself anew: a fix was made."""
        self._form, self._inputs = form, inputs
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        gr.on(
            [*(knob.change for knob in form.components), self.timer.tick],
            guarded(self.refresh),
            inputs,
            self.shown,
            trigger_mode="always_last",
            **quiet,
        )
        self.check.click(guarded(self.start), inputs, self.shown, **quiet)
        self.stop.click(guarded(self.end), inputs, self.shown, **quiet)
        return self.list.pick(guarded(self.mend), inputs, [self.leave_out, *form.components], **quiet)

    def follow(self, events: Sequence[Any]) -> None:
        """Show anew after each of the page's events that may have changed what the controls hold."""
        for event in events:
            event.then(guarded(self.refresh), self._inputs, self.shown, show_progress="hidden", **PRIVATE)

    # --- handlers ---

    def refresh(self, request: gr.Request, *values: Any) -> list[Any]:
        return self._show(self._studio.viewer(request), values)

    def start(self, request: gr.Request, *values: Any) -> list[Any]:
        viewer = self._studio.viewer(request)
        plan = self._read(viewer, values)
        _refuse(self._row_verdicts(self._studio.project(viewer), plan))
        train_plan.check(self._studio, viewer, plan)
        return self._show(viewer, values)

    def end(self, request: gr.Request, *values: Any) -> list[Any]:
        viewer = self._studio.viewer(request)
        run = self._newest(viewer)
        if run is not None and _is_going(run):
            self._studio.jobs.stop(run.run_id)
        return self._show(viewer, values)

    def mend(self, event: gr.EventData, request: gr.Request, *values: Any) -> list[Any]:
        """Do what a verdict's button says, as the verdict in the database says it."""
        viewer = self._studio.viewer(request)
        plan = self._read(viewer, values)
        wanted = str(event._data.get("fix", ""))
        found = next((v.fix for v in self._verdicts(viewer, plan) if v.check == wanted and v.fix), None)
        if found is None:
            raise BadInput("This has changed meanwhile; check again.")
        left_out = sorted({*plan.leave_out, *found.sieve})
        return [left_out if found.sieve else gr.skip(), *self._form.put(found.settings)]

    # --- what the page asks ---

    def refuse(self, viewer: Viewer, plan: TrainPlan) -> None:
        """BadInput with the reason, where the rows or the last check of these very settings say that the run must not start."""
        _refuse(self._verdicts(viewer, plan))

    # --- what is known ---

    def _verdicts(self, viewer: Viewer, plan: TrainPlan) -> list[Verdict]:
        """On the rows, and of the last check where it was of the same; what the model itself found counts more."""
        project = self._studio.project(viewer)
        run = self._newest(viewer)
        measured = _outcome(run, plan)[0] if run is not None and self._same(run, plan, project) else ()
        known = {verdict.check for verdict in measured}
        return [*(v for v in self._row_verdicts(project, plan) if v.check not in known), *measured]

    def _row_verdicts(self, project: Project, plan: TrainPlan) -> tuple[Verdict, ...]:
        layout = METHOD_FACTS[plan.method].layout
        about = plan.about(self._studio, project)
        key = repr((project.project_id, layout, about["labels"], plan.filters, plan.rules, plan.leave_out))
        found = self._known.get(key)
        if found is None:
            while len(self._known) >= _KEPT:
                self._known.pop(next(iter(list(self._known)), None), None)
            rows = plan.preview(self._studio, project).rows
            found = self._known[key] = tuple(check_rows(rows, layout, every_vote=plan.rules.aggregation == "every"))
        return found

    def _newest(self, viewer: Viewer) -> Run | None:
        mine = runs.of_project(self._studio.db, self._studio.project(viewer).project_id)
        return next((run for run in mine if run.kind == "preflight" and run.owner == viewer.owner), None)

    def _same(self, run: Run, plan: TrainPlan, project: Project) -> bool:
        return bool(run.config.get("args", {}).get("about") == plan.about(self._studio, project))

    # --- what is shown ---

    def _show(self, viewer: Viewer, values: Sequence[Any]) -> list[Any]:
        run = self._newest(viewer)
        going = run is not None and _is_going(run)
        try:
            plan = self._read(viewer, values)
        except StudioError as error:  # a knob is being typed into, or nothing can be trained yet
            said = note(str(error), "warn") if values[1] else Html("")  # that there is no model is said above
            return [said, gr.update(interactive=False), gr.update(visible=going), gr.Timer(active=going)]
        project = self._studio.project(viewer)
        verdicts = self._verdicts(viewer, plan)
        parts = [self._of_run(run, plan, project) if run is not None else "", verdict_list(verdicts, fixable=not going)]
        can = not going and bool(self._row_verdicts(project, plan))
        word = "Check again" if run is not None and not going and self._same(run, plan, project) else "Check first"
        return [
            Html("".join(f'<div class="st-part">{part}</div>' for part in parts if part)),
            gr.update(interactive=can, value=word),
            gr.update(visible=going),
            gr.Timer(active=going),
        ]

    def _of_run(self, run: Run, plan: TrainPlan, project: Project) -> Html:
        """How far the check is, what the run would cost, or that the check was of something else."""
        if _is_going(run):
            other = run.status == "queued" and any(each.status == "running" for each in runs.active(self._studio.db))
            waits = "Waits for its turn: another run is going." if other else "Checking: starting."
            line = progress_line(run)
            doing = f"Checking: {line}." if line and run.status == "running" else waits
            return Html(f'{bar(share_done(run))}<p class="st-sub" role="status">{esc(doing)}</p>')
        if not self._same(run, plan, project):
            other = (run.config.get("args", {}).get("about") or {}).get("method") != plan.method
            if other or datetime.now(UTC) - (run.ended_at or run.queued_at) > _OLD:
                return Html("")
            return note(f"The last check, {ago(run.ended_at)}, was of other settings or labels; check again.")
        cost = _outcome(run, plan)[1]
        if run.status == "stopped":
            return note("The check was stopped.")
        return cost_facts(cost) if cost else Html("")


def _refuse(verdicts: Sequence[Verdict]) -> None:
    if wrong := stops(verdicts):
        example = next((e.prompt for e in wrong[0].examples if e.prompt), "")
        raise BadInput(wrong[0].sentence + (f" Such as: “{example}”." if example else ""))


def _is_going(run: Run) -> bool:
    return run.status in ("queued", "running")


def _outcome(run: Run, plan: TrainPlan) -> tuple[tuple[Verdict, ...], Any]:
    """What the check found; a check that died is a verdict too, with a smaller batch to try where memory may have run out."""
    if run.status == "finished" and run.result:
        try:
            report = Report.from_json(run.result)
        except BadInput as error:
            return (Verdict("run", "warn", str(error)),), None
        return report.verdicts, report.cost
    if run.status in ("failed", "lost"):
        lost = run.status == "lost"
        sentence = run.error or "The check ended without a word; memory may have run out."
        # A fault of the check itself, since what is wrong with the run is in its report: no reason to refuse the run.
        return (Verdict("run", "warn", sentence, fix=halved(plan.config) if lost else None),), None
    return (), None
