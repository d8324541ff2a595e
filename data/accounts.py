"""Accounts: who may sign in, and how a password is kept.

    account = accounts.check(db, login, password)        None when the two do not belong together
    accounts.change_password(db, annotator_id, new)      every cookie signed before is no longer good

A password is kept as argon2id with its salt and cost in the hash, and made anew with today's cost when its owner signs in.
A wrong login takes as long as a wrong password: both verify one hash, so the answer's time tells nobody which logins exist.
An account comes into being through an invitation only (`data/invitations.py`); its annotator's id is random, never made
from the login, so that what is left after "delete my data" says nothing.
"""

from __future__ import annotations

import re
import threading
import unicodedata
import uuid
from datetime import datetime
from functools import cache
from typing import NamedTuple, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from data import members
from data.cursor import Cursor
from data.database import Database
from data.errors import BadInput, NotFound
from data.records import Account, Person, Role, from_row, now, to_row

MIN_PASSWORD = 10
MAX_PASSWORD = 512
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@+-]{1,59}")
_hasher = PasswordHasher()  # argon2id, RFC 9106's second recommendation: 64 MiB a hash
_hashing = threading.BoundedSemaphore(4)  # many sign-ins at once must not take all the memory


class Listed(NamedTuple):
    """An account as the People page lists it."""

    account: Account
    person: Person
    projects: tuple[str, ...]  # ids of the projects an annotator labels


# --- passwords --------------------------------------------------------------------------------------------------------------


def normal_login(login: str) -> str:
    """The login as it is stored; BadInput in words for what cannot be one."""
    login = login.strip().lower()
    if not _LOGIN.fullmatch(login):
        raise BadInput("A sign-in name has 2 to 60 letters, digits or . _ - @ +, and begins with a letter or digit.")
    return login


def hash_new(password: str, login: str) -> str:
    """The hash of a password somebody chose; BadInput in words for one that is too easy."""
    password = _same(password)
    if len(password) < MIN_PASSWORD:
        raise BadInput(f"Choose a password of at least {MIN_PASSWORD} characters; a short sentence is easy to remember.")
    if len(password) > MAX_PASSWORD:
        raise BadInput(f"A password may have {MAX_PASSWORD} characters at most.")
    if password.casefold() == login.casefold() or len(set(password)) < 4:
        raise BadInput("This password is too easy to guess; choose one that is not your sign-in name or a few letters repeated.")
    with _hashing:
        return _hasher.hash(password)


def _same(password: str) -> str:
    """One spelling for what looks the same, whatever keyboard it was typed on."""
    return unicodedata.normalize("NFKC", password)


@cache
def _nobody() -> str:
    return _hasher.hash("the password of nobody")


def _fits(password: str, password_hash: str) -> bool:
    """Whether the password belongs to the hash; takes as long for '' (signs in elsewhere, or there is no such account)."""
    try:
        with _hashing:
            _hasher.verify(password_hash or _nobody(), _same(password)[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHashError):
        return False
    return bool(password_hash)


# --- signing in ---------------------------------------------------------------------------------------------------------------


def check(db: Database, login: str, password: str) -> Account | None:
    """The account whose login and password these are; None for any other, one that is disabled included."""
    row = db.row("select * from accounts where login = ?", [login.strip().lower()])
    account = from_row(Account, row) if row else None
    if not _fits(password, account.password_hash if account else "") or account is None or account.disabled_at:
        return None
    if _hasher.check_needs_rehash(account.password_hash):
        with _hashing:
            fresh = _hasher.hash(_same(password))
        db.update("accounts", {"annotator_id": account.annotator_id, "password_hash": account.password_hash}, password_hash=fresh)
    return account


def change_password(db: Database, annotator_id: str, password: str, since: datetime | None = None) -> Account:
    """Sessions begun before this are over. `since`: the account's `sessions_from` when it was seen who may change it; NotFound
    where the account was changed after that."""
    account = get(db, annotator_id)
    password_hash = hash_new(password, account.login)
    _change_as_seen(db, annotator_id, since, password_hash=password_hash, sessions_from=now())
    return get(db, annotator_id)


def end_sessions(db: Database, annotator_id: str, since: datetime | None = None) -> None:
    """Sign this person out everywhere; `since` as above."""
    _change_as_seen(db, annotator_id, since, sessions_from=now())


def _change_as_seen(db: Database, annotator_id: str, since: datetime | None, **fields: object) -> None:
    key = {"annotator_id": annotator_id} | ({"sessions_from": since} if since else {})
    if not db.update("accounts", key, **fields):
        raise NotFound("This account was changed meanwhile; sign in again.")


# --- looking up and changing --------------------------------------------------------------------------------------------------


def get(db: Database, annotator_id: str) -> Account:
    row = db.row("select * from accounts where annotator_id = ?", [annotator_id])
    if row is None:
        raise NotFound("There is no such account any more; reload the page.")
    return from_row(Account, row)


def by_login(db: Database, login: str) -> Account | None:
    row = db.row("select * from accounts where login = ?", [login])
    return from_row(Account, row) if row else None


def everybody(db: Database) -> list[Listed]:
    """All accounts, in the order in which they were made."""
    people = {row["annotator_id"]: from_row(Person, row) for row in db.rows("select * from people where kind = 'account'")}
    projects = members.by_annotator(db)
    rows = db.rows("select * from accounts order by created_at, annotator_id")
    listed = [(from_row(Account, row), people.get(row["annotator_id"])) for row in rows]
    return [Listed(account, person, projects.get(account.annotator_id, ())) for account, person in listed if person]


def has_admin(db: Database, besides: str = "") -> bool:
    """Whether somebody can sign in as admin, `besides` one."""
    return bool(db.value(_ADMINS, [besides]))


ONLY_ADMIN = "This is the only admin; make somebody else admin first."
_ADMINS = """select count(*) from accounts join people using (annotator_id)
             where people.role = 'admin' and accounts.disabled_at is null and annotator_id != ?"""


def set_role(db: Database, annotator_id: str, role: Role) -> None:
    """Counts from that person's next request. BadInput when it would leave no admin."""
    if role not in get_args(Role):
        raise BadInput("Choose annotator, researcher or admin.")

    def change(cursor: Cursor) -> None:
        if not cursor.update("people", {"annotator_id": annotator_id, "kind": "account"}, role=role):
            raise NotFound("There is no such person.")
        keep_an_admin(cursor)

    db.write(change)


def disable(db: Database, annotator_id: str) -> None:
    """Out at once, and no way in until `enable`; what they labelled stays. BadInput when it would leave no admin."""

    def change(cursor: Cursor) -> None:
        if not cursor.update("accounts", {"annotator_id": annotator_id}, disabled_at=now(), sessions_from=now()):
            raise NotFound("There is no such account.")
        keep_an_admin(cursor)

    db.write(change)


def enable(db: Database, annotator_id: str) -> None:
    _change(db, annotator_id, disabled_at=None)


def keep_an_admin(cursor: Cursor) -> None:
    """BadInput, which undoes the change around it, when nobody could sign in as admin after it."""
    if not cursor.value(_ADMINS, [""]):
        raise BadInput(ONLY_ADMIN)


def add(cursor: Cursor, login: str, password_hash: str, role: Role, name: str = "") -> Account:
    """A new account with its person; BadInput when the login is taken. For `data/invitations.py`, inside its write."""
    if cursor.row("select 1 from accounts where login = ?", [login]) is not None:
        raise BadInput("This sign-in name is taken; choose another one.")
    at = now()
    account = Account("person-" + uuid.uuid4().hex, login, password_hash, at, at)
    cursor.insert("people", [to_row(Person(account.annotator_id, name or login, "account", "", at, role))])
    cursor.insert("accounts", [to_row(account)])
    return account


def _change(db: Database, annotator_id: str, **fields: object) -> None:
    if not db.update("accounts", {"annotator_id": annotator_id}, **fields):
        raise NotFound("There is no such account.")
