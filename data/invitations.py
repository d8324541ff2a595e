"""Invitations: a link that lets one person make one account.

The link holds a random token; stored is its hash alone, so neither the database nor a backup opens the door. An invitation
fixes role and project, ends after its time, when it is used, or when it is withdrawn.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_args

from data import accounts, members
from data.cursor import Cursor
from data.database import Database
from data.errors import BadInput, NotFound
from data.records import Account, Invitation, Role, from_row, now, to_row

LIFETIME = timedelta(days=7)
SETUP_LIFETIME = timedelta(hours=1)
RANKS: dict[Role, int] = {"annotator": 0, "researcher": 1, "admin": 2}
NO_LONGER_GOOD = "This invitation is no longer good: it was used, withdrawn or is too old. Ask for a new one."


def make(db: Database, role: Role, project_id: str, invited_by: str, lifetime: timedelta = LIFETIME) -> str:
    """A new invitation; the token for its link, which is told this once."""
    if role not in get_args(Role):
        raise BadInput("Choose annotator, researcher or admin.")
    if role == "annotator" and not project_id:
        raise BadInput("Choose the project this person is to label.")
    if project_id and db.row("select 1 from projects where project_id = ?", [project_id]) is None:
        raise NotFound("There is no such project any more; reload the page.")
    token, at = secrets.token_urlsafe(24), now()
    invitation = Invitation(_id(token), role, project_id if role == "annotator" else "", invited_by, at, at + lifetime)
    db.insert("invitations", [to_row(invitation)])
    return token


def make_first_admin(db: Database) -> str:
    """The set-up link's token: an admin's invitation from nobody, for an hour; earlier ones are withdrawn."""

    def change(cursor: Cursor) -> None:
        sql = "select invitation_id from invitations where invited_by = '' and used_by = '' and withdrawn_at is null"
        for row in cursor.rows(sql):
            cursor.update("invitations", {"invitation_id": row["invitation_id"]}, withdrawn_at=now())

    db.write(change)
    return make(db, "admin", "", "", SETUP_LIFETIME)


def find(db: Database, token: str) -> Invitation:
    """The open invitation of this link; NotFound in words when there is none."""
    row = db.row("select * from invitations where invitation_id = ?", [_id(token)])
    return _open(row)


def accept(db: Database, token: str, login: str, password: str) -> Account:
    """Make the account the invitation is for; BadInput when the login is taken or the password too easy."""
    find(db, token)  # nobody hashes passwords for a link that opens nothing
    login = accounts.normal_login(login)
    password_hash = accounts.hash_new(password, login)
    return db.write(lambda cursor: _accept(cursor, token, login, password_hash, login))


def accept_elsewhere(db: Database, token: str, login: str, name: str) -> Account:
    """The same for somebody who signs in elsewhere: no password is kept here."""
    return db.write(lambda cursor: _accept(cursor, token, login, "", name))


def accept_as(db: Database, token: str, annotator_id: str) -> None:
    """The same for somebody who has an account: into the project, or up to the role; never down from one."""

    def change(cursor: Cursor) -> None:
        row = cursor.row("select * from invitations where invitation_id = ?", [_id(token)])
        invitation = _open(row)
        role = cursor.value("select role from people where annotator_id = ?", [annotator_id])
        if RANKS[invitation.role] > RANKS[role]:
            cursor.update("people", {"annotator_id": annotator_id}, role=invitation.role)
        if invitation.project_id:
            members.add_in(cursor, invitation.project_id, annotator_id)
        cursor.update("invitations", {"invitation_id": invitation.invitation_id}, used_by=annotator_id)

    db.write(change)


def _accept(cursor: Cursor, token: str, login: str, password_hash: str, name: str) -> Account:
    row = cursor.row("select * from invitations where invitation_id = ?", [_id(token)])
    invitation = _open(row)
    account = accounts.add(cursor, login, password_hash, invitation.role, name)
    if invitation.project_id:
        members.add_in(cursor, invitation.project_id, account.annotator_id)
    cursor.update("invitations", {"invitation_id": invitation.invitation_id}, used_by=account.annotator_id)
    return account


def withdraw(db: Database, invitation_id: str, by: str | None = None) -> None:
    """`by`: only if that person made it."""
    key = {"invitation_id": invitation_id, "used_by": ""} | ({"invited_by": by} if by is not None else {})
    if not db.update("invitations", key, withdrawn_at=now()):
        raise NotFound("This invitation was used already, or is not yours; reload the page.")


def still_open(db: Database) -> list[Invitation]:
    """Newest first."""
    sql = """select * from invitations where used_by = '' and withdrawn_at is null and expires_at > ?
             order by created_at desc, invitation_id"""
    return [from_row(Invitation, row) for row in db.rows(sql, [now()])]


def _open(row: Mapping[str, Any] | None) -> Invitation:
    invitation = from_row(Invitation, row) if row else None
    if invitation is None or invitation.used_by or invitation.withdrawn_at or invitation.expires_at <= now():
        raise NotFound(NO_LONGER_GOOD)
    return invitation


def _id(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
