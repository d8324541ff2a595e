"""What every page, route and handler is handed: the store, the runs, the model worker, and who is looking.

`Studio` is made once in `app.py`. `viewer(request)` answers "who is this?" from the request alone and `project(viewer)`
"what has this person open?" from the database, so no handler keeps either in a component: what a browser sends back is never
trusted to say whose it is. Local mode has one person. In visitor mode the cookie is a secret and the owner written into rows
is its hash, so that no export, run folder or page ever holds something that opens another visitor's project. A project is made
when the cookie comes back and not before: what keeps none (a crawler, a health check) has no project.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data import accounts, forget, models, people, projects, runs
from data.copies import Copier, Recovered, recover
from data.copies_place import place_of
from data.database import Database
from data.errors import NotAllowed, NotFound, WorkspaceError
from data.records import Model, ModelKind, PersonKind, Project, Role, Run, RunKind
from data.settings import Settings
from data.words import count
from studio import run_queue
from studio.endpoint_keys import EndpointKeys
from studio.metrics import Metrics
from studio.offers import Offers
from studio.rewards import own_tokens, with_reward_model
from studio.sessions import Sessions
from studio.visitors import RunSize, Visitors
from training import reporting

if TYPE_CHECKING:
    from labeling.assignment import Assignment
    from studio.inference import Inference
    from studio.jobs import Jobs

LOCAL_ANNOTATOR = "local"
ROLES: tuple[Role, ...] = ("annotator", "researcher", "admin")  # each goes further than the one before
VISITOR_COOKIE = "studio_visitor"
GAP = "A piece was missing where this workspace was filled from: labels of some seconds may be lost, the later ones are here."
TORN_RUNS = (
    "Where this workspace was filled from, the copy of {} was cut off: what is whole is here; train a model that is missing again."
)
NO_COOKIE = "Your browser keeps no cookie for this page; allow cookies or open the page in a tab of its own, then reload."
VISITOR_TOKEN = re.compile(r"[0-9a-f]{32,64}")  # made by `studio/security.py`: secrets.token_hex


class Viewer(NamedTuple):
    """Who is looking. `owner` is what their rows carry: '' but for a visitor, whose id it is (which is also the annotator's).

    `role` says how far they go: an annotator labels in their projects, a researcher does everything else, an admin also sees to
    people and to the workspace as a whole. Alone on one's own machine one is admin. `name` is '' where nobody signs in.
    """

    annotator_id: str
    owner: str
    is_visitor: bool
    role: Role = "admin"
    name: str = ""
    projects: tuple[str, ...] = ()  # an annotator's
    address: str = ""  # a visitor's, where one is known


def visitor_of(token: str) -> str:
    """The visitor's id in the database: a hash, so that rows do not hold the cookie that opens them."""
    return "visitor-" + hashlib.sha256(token.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Studio:
    """The app's long-lived parts, handed to every page and route."""

    settings: Settings
    db: Database
    jobs: Jobs
    inference: Inference
    assignment: Assignment
    keys: EndpointKeys
    offers: Offers = field(default_factory=Offers)
    copier: Copier | None = None  # None: nothing is copied off this machine
    metrics: Metrics = field(init=False)
    visitors: Visitors = field(init=False)
    sessions: Sessions | None = field(init=False)  # None: nobody signs in

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", Metrics(self.settings.runs_dir))
        object.__setattr__(self, "visitors", Visitors(self.settings, self.db, self.jobs, self.offers))
        object.__setattr__(self, "sessions", Sessions(self.settings, self.db) if self.settings.accounts else None)

    def viewer(self, request: Any) -> Viewer:
        """Who sent this `gr.Request` or Starlette request; NotAllowed where people sign in and this one has not, WorkspaceError
        when a visitor's browser keeps no cookie."""
        inner = getattr(request, "request", None) or request
        if self.sessions is not None:
            session = self.sessions.of(inner.cookies)
            if session is None:
                raise NotAllowed("You are not signed in any more; open the sign-in page.")
            known = session.known
            return Viewer(known.account.annotator_id, "", False, known.role, known.name, known.projects)
        if not self.settings.visitor:
            return Viewer(LOCAL_ANNOTATOR, "", False)
        token = str(inner.cookies.get(VISITOR_COOKIE, ""))
        if not VISITOR_TOKEN.fullmatch(token):
            raise WorkspaceError(NO_COOKIE)
        visitor, client = visitor_of(token), getattr(inner, "client", None)
        return Viewer(visitor, visitor, True, "researcher", address=client.host if client else "")

    def require(self, request: Any, role: Role) -> Viewer:
        """The viewer, who must have this role or one that goes further; NotAllowed in words otherwise."""
        viewer = self.viewer(request)
        if ROLES.index(viewer.role) < ROLES.index(role):
            raise NotAllowed(f"This is for {'an admin' if role == 'admin' else 'researchers'}; ask one to do it, or for the role.")
        return viewer

    def project(self, viewer: Viewer) -> Project:
        """The project this person has open; their first one where that is gone. NotFound where there is none."""
        opened = people.open_project(self.db, viewer.annotator_id)
        visible = self.projects(viewer)
        for project in visible:
            if project.project_id == opened:
                return project
        if not visible and viewer.role == "annotator":
            raise NotFound("You are in no project yet; ask whoever invited you to add you to one.")
        if not visible:
            raise NotFound("There is no project yet; make one on the Home page.")
        return self.open_project(viewer, visible[0].project_id)

    def projects(self, viewer: Viewer) -> list[Project]:
        """Theirs and no other; a visitor's is made here when they have none."""
        if viewer.is_visitor:
            return [self.visitors.project(viewer.owner, viewer.address)]
        shared = projects.visible(self.db, "")
        return [p for p in shared if p.project_id in viewer.projects] if viewer.role == "annotator" else shared

    def open_project(self, viewer: Viewer, project_id: str) -> Project:
        """Make `project_id` the one this person has open; NotFound when it is not theirs to see."""
        for project in self.projects(viewer):
            if project.project_id == project_id:
                people.ensure(self.db, viewer.annotator_id, "Visitor" if viewer.is_visitor else "You", _kind(viewer))
                people.set_open_project(self.db, viewer.annotator_id, project_id)
                return project
        raise NotFound("This project does not exist any more; choose another one.")

    def run(self, viewer: Viewer, run_id: str) -> Run:
        """A run of the open project; NotFound for any other, whoever owns it."""
        run = runs.get(self.db, run_id)
        if run.project_id != self.project(viewer).project_id or run.owner != viewer.owner:
            raise NotFound("This run does not exist in the open project.")
        return run

    def model(self, viewer: Viewer, model_id: str) -> Model:
        """A model this person may use in the open project; NotFound for any other."""
        for model in self.models(viewer):
            if model.model_id == model_id:
                return model
        raise NotFound("This model is not in the list any more; choose another one.")

    def models(self, viewer: Viewer, kind: ModelKind | None = None) -> list[Model]:
        """Models to choose from in the open project. A visitor is never offered an endpoint."""
        found = models.visible(self.db, self.project(viewer).project_id, viewer.owner, kind)
        return [m for m in found if not (viewer.is_visitor and m.spec.get("kind") != "local")]

    def start_run(
        self,
        viewer: Viewer,
        kind: RunKind,
        module: str,
        name: str,
        config: dict[str, Any],
        files: Mapping[str, Path],
        chosen: Sequence[Model],
        size: RunSize,
        snapshot_id: str = "",
        group_id: str = "",
    ) -> Run:
        """Start a run in the open project: the one way, so that a visitor's limits and the endpoints' keys are never forgotten."""
        project = self.project(viewer)
        config, chosen = with_reward_model(self, viewer, config, chosen)
        size = size._replace(tokens=own_tokens(self, kind, config, size.steps, snapshot_id))
        reporting.check(config.get("args", {}).get("train", {}).get("report_to", "none"), viewer.is_visitor)
        with self.visitors.starting:
            for model in chosen:
                self.model(viewer, model.model_id)  # its own run may go on since it was chosen, which changes its weights
            self.visitors.check_run(project, chosen, size)
            return self.jobs.start(
                kind,
                module,
                name,
                project.project_id,
                config,
                files,
                owner=viewer.owner,
                snapshot_id=snapshot_id,
                device=run_queue.wanted(config),
                env=self.keys.env(chosen),
                group_id=group_id,
            )


def _kind(viewer: Viewer) -> PersonKind:
    if viewer.is_visitor:
        return "visitor"
    return "local" if viewer.annotator_id == LOCAL_ANNOTATOR else "account"


@contextmanager
def open_studio(settings: Settings) -> Iterator[Studio]:
    """Open the workspace and start what the app needs beside its pages; closes all of it again, but for the runs that are going."""
    from labeling.assignment import Assignment
    from studio import demo_project
    from studio.inference import Inference
    from studio.jobs import Jobs
    from studio.warm import WarmStart

    with ExitStack() as stack:
        place = place_of(settings.backup) if settings.backup else None
        recovered = recover(settings, place) if place is not None else Recovered()
        db = Database(settings)
        stack.callback(db.close)
        if recovered.has_gap:
            db.notices.append(GAP)
            db.forget_deleted()  # a new journal, whose copies have no gap
        if recovered.torn_runs:
            db.notices.append(TORN_RUNS.format(count(recovered.torn_runs, "run")))
        copier = Copier(settings, db, place) if place is not None else None
        if copier is not None:
            copier.start()
            stack.callback(copier.close)
        forget.finish(db)
        if settings.accounts is None:  # a workspace with accounts is not opened to whoever reaches this address
            settings = replace(settings, accounts=not settings.visitor and bool(accounts.everybody(db)))
        warm = WarmStart(settings.home / "warm.log") if settings.warm_start else None
        if warm is not None:
            stack.callback(warm.close)
        jobs = Jobs(settings, db, warm=warm)
        stack.callback(jobs.close)
        inference = Inference(settings)
        stack.callback(inference.close)
        jobs.before_launch(lambda run: inference.unload())  # the run needs the memory more
        studio = Studio(settings, db, jobs, inference, Assignment(db), EndpointKeys(), copier=copier)
        demo_project.ensure_models(db)
        if settings.visitor:
            studio.visitors.start()
            stack.callback(studio.visitors.close)
        else:
            demo_project.ensure_project(db)
        if not settings.visitor and not settings.accounts:
            people.ensure(db, LOCAL_ANNOTATOR, "You", "local")
        jobs.reconcile()
        yield studio
