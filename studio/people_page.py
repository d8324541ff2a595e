"""People: who may sign in, as what, and for which projects; invitations.

For admins, who may do all of it; a researcher sees and makes invitations to label, and no more. A page of plain forms like the
account's: which address is whose `studio/auth.py` knows, and every handler asks for its role again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from data import accounts, invitations, members, projects
from data.accounts import Listed
from data.errors import BadInput, NotAllowed, StudioError
from data.records import Invitation, Project, Role
from data.words import count
from studio.account_page import links_for
from studio.context import Studio, Viewer
from studio.plain.page import Body, card, draw, file, form, form_of, head, hidden, said, select, submit, up
from studio.render import Html, ago, esc, note
from studio.sessions import Sessions, is_https

ROLE_OPTIONS = [("annotator", "Annotator"), ("researcher", "Researcher"), ("admin", "Admin")]
ADMIN = "people/admin/"
Handler = Callable[[Viewer, Mapping[str, str]], "Done"]


class Done(NamedTuple):
    """What a form did: a sentence, and a link that is shown this once."""

    says: str
    link: str = ""


class Worked(NamedTuple):
    labels: int
    last: datetime | None


class PeoplePage:
    def __init__(self, studio: Studio, sessions: Sessions) -> None:
        self._studio, self._sessions = studio, sessions

    def routes(self) -> list[BaseRoute]:
        both: dict[str, Handler] = {"/people/invite": self.invite, "/people/withdraw": self.withdraw}
        admins: dict[str, Handler] = {
            f"/{ADMIN}role": self.role,
            f"/{ADMIN}add": self.add,
            f"/{ADMIN}remove": self.remove,
            f"/{ADMIN}disable": self.disable,
            f"/{ADMIN}enable": self.enable,
            f"/{ADMIN}password": self.password,
        }
        return [
            Route("/people", self.show, methods=["GET"]),
            *(Route(path, self._posted(handler, "researcher"), methods=["POST"]) for path, handler in both.items()),
            *(Route(path, self._posted(handler, "admin"), methods=["POST"]) for path, handler in admins.items()),
        ]

    async def show(self, request: Request) -> Response:
        try:
            viewer = await run_in_threadpool(self._studio.require, request, "researcher")
        except NotAllowed as error:
            return _refused(request, error)
        return await run_in_threadpool(self._page, request, viewer)

    def _posted(self, handler: Handler, role: Role) -> Callable[[Request], object]:
        async def handle(request: Request) -> Response:
            typed, problem = await form_of(request)
            try:
                viewer = await run_in_threadpool(self._studio.require, request, role)
            except NotAllowed as error:
                return _refused(request, error)
            if not problem:
                try:
                    done = await run_in_threadpool(handler, viewer, typed)
                    return await run_in_threadpool(self._page, request, viewer, "", done)
                except StudioError as error:
                    problem = str(error)
            return await run_in_threadpool(self._page, request, viewer, problem)

        return handle

    # --- what the forms do ---

    def invite(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        role, project_id = typed.get("role", "annotator"), typed.get("project", "")
        if role not in get_args(Role):
            raise BadInput("Choose annotator, researcher or admin.")
        if viewer.role != "admin" and role != "annotator":
            raise BadInput("Researchers invite annotators; ask an admin to invite others.")
        token = invitations.make(self._studio.db, role, project_id, viewer.annotator_id)  # type: ignore[arg-type]
        return Done(f"This link makes one {role}'s account within 7 days. It is shown this once: copy it now.", f"join/{token}")

    def withdraw(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        by = None if viewer.role == "admin" else viewer.annotator_id
        invitations.withdraw(self._studio.db, typed.get("invitation", ""), by)
        return Done("The invitation is withdrawn; its link opens nothing any more.")

    def role(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        role = typed.get("role", "")
        accounts.set_role(self._studio.db, typed.get("person", ""), role)  # type: ignore[arg-type]
        return Done(f"{self._name(typed)} is {'an' if role[:1] == 'a' else 'a'} {role} from now on.")

    def add(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        accounts.get(self._studio.db, typed.get("person", ""))
        members.add(self._studio.db, typed.get("project", ""), typed.get("person", ""))
        return Done(f"{self._name(typed)} labels in this project from now on.")

    def remove(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        members.remove(self._studio.db, typed.get("project", ""), typed.get("person", ""))
        return Done(f"{self._name(typed)} is out of the project; their labels stay.")

    def disable(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        accounts.disable(self._studio.db, typed.get("person", ""))
        return Done(f"{self._name(typed)} cannot sign in any more; their labels stay.")

    def enable(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        accounts.enable(self._studio.db, typed.get("person", ""))
        return Done(f"{self._name(typed)} can sign in again.")

    def password(self, viewer: Viewer, typed: Mapping[str, str]) -> Done:
        account = accounts.get(self._studio.db, typed.get("person", ""))
        if not account.password_hash:
            raise BadInput("This person signs in with Hugging Face and has no password here.")
        token = self._sessions.new_password_token(account)
        return Done(
            f"With this link {self._name(typed)} chooses a new password, within a day. Copy it now.", f"new-password/{token}"
        )

    def _name(self, typed: Mapping[str, str]) -> str:
        sql = "select name from people where annotator_id = ?"
        return str(self._studio.db.value(sql, [typed.get("person", "")]) or "This person")

    # --- what is shown ---

    def _page(self, request: Request, viewer: Viewer, problem: str = "", done: Done = Done("")) -> Response:
        root, db, is_admin = up(request), self._studio.db, viewer.role == "admin"
        shared = projects.visible(db)
        open_ones = [i for i in invitations.still_open(db) if is_admin or i.invited_by == viewer.annotator_id]
        parts = [
            head("People", "Who may sign in, as what, and which projects they label." if is_admin else "Invite people to label."),
            said(problem, "" if done.link else done.says),
            _invite(root, is_admin, shared, done, _address(request)),
        ]
        if open_ones:
            parts.append(_open_invitations(root, open_ones, {p.project_id: p.name for p in shared}))
        if is_admin:
            listed = accounts.everybody(db)
            parts.append(_everybody(root, listed, shared, self._worked(), viewer.annotator_id))
        script = Html(f'<script src="{file("copy.js", root)}" defer></script>') if done.link else Html("")
        body = Body("People", Html("".join(parts)), "wide", script)
        return draw(request, body, links_for(viewer), "people", status=400 if problem else 200)

    def _worked(self) -> dict[str, Worked]:
        sql = "select annotator_id, count(*) as labels, max(created_at) as last from current_labels group by annotator_id"
        return {row["annotator_id"]: Worked(row["labels"], row["last"]) for row in self._studio.db.rows(sql)}


def _refused(request: Request, error: NotAllowed) -> Response:
    return draw(request, Body("Not your page", head("Not your page", str(error))), status=403)


def _address(request: Request) -> str:
    """The studio's address as this admin's browser knows it."""
    scheme = "https" if is_https(request.scope) else "http"
    host = request.headers.get("x-forwarded-host", "") or request.headers.get("host", "")
    return f"{scheme}://{host}{request.scope.get('root_path', '')}/"


def _invite(root: str, is_admin: bool, shared: list[Project], done: Done, address: str) -> Html:
    roles = select("role", "As", ROLE_OPTIONS) if is_admin else hidden("role", "annotator")
    where = select("project", "Project to label", [(p.project_id, p.name) for p in shared])
    ask = form(f"{root}people/invite", f'<div class="pl-row">{roles}{where}{submit("Make a link")}</div>', label="Invite")
    link = ""
    if done.link:
        box = f'<input id="link" readonly aria-label="Link" value="{esc(address + done.link)}">'
        copy = '<button type="button" class="pl-button quiet" data-copy="link" hidden>Copy</button>'
        link = f'{note(done.says, "good")}<div class="pl-link">{box}{copy}</div>'
    says = "A link works once. Annotators label the chosen project and see nothing else."
    if is_admin:
        says += " Researchers see every project; admins also people and backups."
    return card("Invite somebody", link, ask, says=says)


def _open_invitations(root: str, found: list[Invitation], names: dict[str, str]) -> Html:
    rows = [_invitation(root, one, names.get(one.project_id, "")) for one in found]
    return card("Open invitations", f'<div class="pl-people">{"".join(rows)}</div>')


def _invitation(root: str, one: Invitation, project: str) -> str:
    withdraw = form(f"{root}people/withdraw", hidden("invitation", one.invitation_id), submit("Withdraw", "quiet"))
    return (
        f'<div class="pl-person"><div><h3>{esc(one.role.capitalize())}</h3><p class="st-sub">{esc(project)}</p></div>'
        f'<p class="st-sub">made {esc(ago(one.created_at))}, good until {one.expires_at:%d %b %H:%M} UTC</p>'
        f'<div class="pl-does">{withdraw}</div></div>'
    )


def _everybody(root: str, listed: list[Listed], shared: list[Project], worked: dict[str, Worked], me: str) -> Html:
    rows = "".join(_person(root, one, shared, worked.get(one.account.annotator_id, Worked(0, None)), me) for one in listed)
    return card(count(len(listed), "person", "people"), f'<div class="pl-people">{rows}</div>')


def _person(root: str, one: Listed, shared: list[Project], did: Worked, me: str) -> Html:
    account, name = one.account, one.person.name
    who = hidden("person", account.annotator_id)

    def does(what: str, *parts: str) -> Html:
        return form(f"{root}{ADMIN}{what}", who, *parts)

    last = f", last {ago(did.last)}" if did.last else ""
    state = " · switched off" if account.disabled_at else ""
    self_mark = " (you)" if account.annotator_id == me else ""
    facts = f"{esc(account.login)} · " * (account.login != name) + f"{count(did.labels, 'label')}{last}{state}"
    about = f'<div><h3>{esc(name)}{self_mark}</h3><p class="st-sub">{facts}</p></div>'
    role = does("role", select("role", f"Role of {name}", ROLE_OPTIONS, one.person.role, True), submit("Change", "quiet"))
    switch = does("enable", submit("Switch on", "quiet")) if account.disabled_at else does("disable", submit("Switch off", "quiet"))
    link = does("password", submit("Password link", "quiet")) if account.password_hash and not account.disabled_at else ""
    mine = _projects(does, one, shared) if one.person.role == "annotator" else '<p class="st-sub">Every project</p>'
    return Html(
        f'<div class="pl-person">{about}<div class="pl-chips">{mine}</div><div class="pl-does">{role}{link}{switch}</div></div>'
    )


def _projects(does: Callable[..., Html], one: Listed, shared: list[Project]) -> str:
    name = one.person.name
    chips = [
        does(
            "remove",
            hidden("project", p.project_id),
            f"<span>{esc(p.name)}</span>",
            submit("Remove", "quiet", aria_label=f"Remove {name} from {p.name}"),
        )
        for p in shared
        if p.project_id in one.projects
    ]
    others = [(p.project_id, p.name) for p in shared if p.project_id not in one.projects]
    add = does("add", select("project", f"Project for {name}", others, hidden_label=True), submit("Add", "quiet")) if others else ""
    return "".join(chips) + add
