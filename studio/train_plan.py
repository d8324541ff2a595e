"""What the controls of the Train page say, as one value: how it becomes frozen rows, a run, or a check before the run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from data.records import Model, Project, Run, Snapshot
from data.votes import Filters, Rules
from labeling import snapshots
from labeling.snapshots import Preview
from studio.context import Studio, Viewer
from studio.visitors import RunSize
from training.config import Method, TrainConfig, run_args, steps_of
from training.methods import METHOD_FACTS, module_of
from training.verdicts import Sieve

CHECK = "training.preflight"


class TrainPlan(NamedTuple):
    """`leave_out`: rows that the person wants to be without, beside what filters and rules say."""

    method: Method
    parent: Model
    config: TrainConfig
    filters: Filters
    rules: Rules
    leave_out: tuple[Sieve, ...]

    def preview(self, studio: Studio, project: Project) -> Preview:
        layout = METHOD_FACTS[self.method].layout
        return snapshots.preview(
            studio.db, project.project_id, layout, filters=self.filters, rules=self.rules, leave_out=self.leave_out
        )

    def freeze(self, studio: Studio, project: Project) -> Snapshot:
        """BadInput where there is too little."""
        return snapshots.freeze(
            studio.db, studio.settings, project.project_id, METHOD_FACTS[self.method].layout,
            filters=self.filters, rules=self.rules, leave_out=self.leave_out,
        )  # fmt: skip

    def about(self, studio: Studio, project: Project) -> dict[str, Any]:
        """All that a check's outcome depends on, to tell whether it still holds."""
        return {
            "method": self.method,
            "model_id": self.parent.model_id,
            "train": self.config.to_json(),
            "filters": asdict(self.filters) | {key: list(getattr(self.filters, key)) for key in ("annotators", "without_flags")},
            "rules": asdict(self.rules),
            "leave_out": sorted(self.leave_out),
            "labels": snapshots.stamp(studio.db, project.project_id),
        }


def train(studio: Studio, viewer: Viewer, plan: TrainPlan, snapshot: Snapshot, name: str, group_id: str = "") -> Run:
    return _start(studio, viewer, plan, snapshot, plan.method, module_of(plan.method), name, {}, group_id)


def check(studio: Studio, viewer: Viewer, plan: TrainPlan) -> Run:
    """A run that looks at what the training run would come to, with the same rows and settings."""
    project = studio.project(viewer)
    about = plan.about(studio, project)  # before the rows are read: labels that come meanwhile make the check an old one
    snapshot = plan.freeze(studio, project)
    more = {"method": plan.method, "about": about}
    return _start(studio, viewer, plan, snapshot, "preflight", CHECK, f"Check before {plan.method.upper()}", more)


def _start(
    studio: Studio,
    viewer: Viewer,
    plan: TrainPlan,
    snapshot: Snapshot,
    kind: Any,
    module: str,
    name: str,
    more: dict[str, Any],
    group_id: str = "",
) -> Run:
    file = snapshots.file_of(studio.settings, snapshot)
    named = {"model_id": plan.parent.model_id, "model_name": plan.parent.name}
    return studio.start_run(
        viewer,
        kind,
        module,
        name,
        {
            "args": run_args(studio.keys.spec(plan.parent), plan.config) | named | more,
            "data": {"file": "data.parquet", "sha256": snapshot.sha256, "rows": snapshot.rows},
        },
        {"data.parquet": file},
        [plan.parent],
        RunSize(steps=steps_of(plan.config, int(snapshot.manifest["rows"]["train"]))),
        snapshot.snapshot_id,
        group_id,
    )
