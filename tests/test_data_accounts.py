"""Accounts, invitations, members and pseudonyms: what opens a door, what does not, and what is stored of it."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from argon2 import PasswordHasher

from data import accounts, invitations, members, projects, secret_key
from data.database import Database
from data.directory import Directory
from data.errors import BadInput, NotFound, StudioError, WorkspaceError
from data.records import Account, Project, Role
from data.settings import Settings

PASSWORD = "correct horse battery"


def join(db: Database, login: str, role: Role = "admin", project_id: str = "") -> Account:
    return invitations.accept(db, invitations.make(db, role, project_id, "somebody"), login, PASSWORD)


@pytest.fixture(autouse=True)
def _cheap_hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same hash at a hundredth of the cost, but where the cost is what is tested."""
    if "at_full_cost" not in request.fixturenames:
        monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=512, parallelism=1))
    accounts._nobody.cache_clear()


@pytest.fixture
def at_full_cost() -> None:
    """Marks a test that hashes as the app does."""


@pytest.fixture
def project(db: Database) -> Project:
    return projects.create(db, "Answers")


# --- passwords ---


def test_a_password_that_is_changed_while_another_is_looked_at_stays_changed(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash is made anew with today's cost at a sign-in: not over one that came meanwhile."""
    ada, fits = join(db, "ada"), accounts._fits

    def meanwhile(password: str, password_hash: str) -> bool:
        right = fits(password, password_hash)
        accounts.change_password(db, ada.annotator_id, "another long one")
        return right

    dearer = PasswordHasher(time_cost=2, memory_cost=512, parallelism=1)
    monkeypatch.setattr(accounts, "_hasher", dearer)
    monkeypatch.setattr(accounts, "_fits", meanwhile)
    accounts.check(db, "ada", PASSWORD)
    monkeypatch.setattr(accounts, "_fits", fits)
    assert accounts.check(db, "ada", PASSWORD) is None
    assert accounts.check(db, "ada", "another long one") is not None


def test_a_new_password_is_only_for_an_account_as_it_was_seen(db: Database) -> None:
    ada = join(db, "ada")
    accounts.change_password(db, ada.annotator_id, "another long one", ada.sessions_from)
    with pytest.raises(NotFound, match="changed meanwhile"):
        accounts.change_password(db, ada.annotator_id, "a third long one", ada.sessions_from)
    assert accounts.check(db, "ada", "another long one") is not None


def test_a_password_opens_its_account_and_no_other(db: Database) -> None:
    ada, bob = join(db, "ada"), join(db, "bob")
    assert accounts.check(db, " ADA ", PASSWORD) == ada
    assert accounts.check(db, "ada", PASSWORD + " ") is None
    assert accounts.check(db, "ada", "") is None
    assert accounts.check(db, "nobody", PASSWORD) is None
    accounts.change_password(db, bob.annotator_id, "another long one")
    assert accounts.check(db, "bob", PASSWORD) is None
    assert accounts.check(db, "bob", "another long one") is not None


def test_what_is_stored_is_argon2id_and_nothing_else(settings: Settings, db: Database, at_full_cost: None) -> None:
    ada, bob = join(db, "ada"), join(db, "bob")
    assert ada.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert ada.password_hash != bob.password_hash  # salted
    db.close()
    for file in settings.home.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


def test_an_unknown_name_takes_as_long_as_a_wrong_password(db: Database, at_full_cost: None) -> None:
    """Without the hash that nobody has, the unknown name would be a hundred times faster."""
    join(db, "ada")

    def seconds(login: str) -> float:
        before = time.process_time()
        assert accounts.check(db, login, "not the password") is None
        return time.process_time() - before

    seconds("nobody")  # the hash that nobody has is made once
    known, unknown = median(seconds("ada") for _ in range(3)), median(seconds("nobody") for _ in range(3))
    assert unknown > known / 4


@pytest.mark.parametrize(
    ("login", "password", "says"),
    [
        ("ada", "short", "at least 10"),
        ("ada-lovelace", "Ada-Lovelace", "easy to guess"),
        ("ada", "aaaaaaaaaaaa", "easy to guess"),
        ("ada", "x" * 600, "at most"),
        ("a", PASSWORD, "sign-in name"),
        ("ada lovelace", PASSWORD, "sign-in name"),
        ("<script>", PASSWORD, "sign-in name"),
    ],
)
def test_names_and_passwords_that_are_refused(db: Database, login: str, password: str, says: str) -> None:
    token = invitations.make(db, "admin", "", "")
    with pytest.raises(BadInput, match=says):
        invitations.accept(db, token, login, password)
    assert invitations.find(db, token)  # not used up
    assert not accounts.everybody(db)


def test_a_password_typed_in_another_unicode_spelling_is_the_same(db: Database) -> None:
    account = invitations.accept(
        db, invitations.make(db, "admin", "", ""), "zoé@example.org".replace("é", "e"), "caf\u00e9 au lait noir"
    )
    assert accounts.check(db, account.login, "cafe\u0301 au lait noir") == account


def test_a_hash_of_an_older_cost_is_made_anew_at_the_next_sign_in(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = join(db, "ada")
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=2, memory_cost=512, parallelism=1))
    assert accounts.check(db, "ada", PASSWORD)
    assert "t=2" in accounts.get(db, ada.annotator_id).password_hash
    assert accounts.check(db, "ada", PASSWORD)


# --- invitations ---


def test_an_invitation_works_once(db: Database, project: Project) -> None:
    token = invitations.make(db, "annotator", project.project_id, "ada")
    account = invitations.accept(db, token, "ann", PASSWORD)
    known = Directory(db).find(account.annotator_id)
    assert known is not None
    assert (known.role, known.projects, known.name) == ("annotator", (project.project_id,), "ann")
    with pytest.raises(NotFound, match="no longer good"):
        invitations.accept(db, token, "eve", PASSWORD)
    assert [one.account.login for one in accounts.everybody(db)] == ["ann"]


def test_of_many_at_once_one_gets_the_invitation(db: Database) -> None:
    token = invitations.make(db, "researcher", "", "ada")

    def attempt(i: int) -> str:
        try:
            return invitations.accept(db, token, f"person{i}", PASSWORD).login
        except StudioError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(attempt, range(6)))
    assert len(accounts.everybody(db)) == 1
    assert said.count(invitations.NO_LONGER_GOOD) == 5


def test_a_name_is_taken_once(db: Database) -> None:
    join(db, "ada")
    with pytest.raises(BadInput, match="taken"):
        join(db, "Ada")


def test_old_withdrawn_and_made_up_links_open_nothing(db: Database, project: Project) -> None:
    old = invitations.make(db, "admin", "", "ada", timedelta(seconds=-1))
    withdrawn = invitations.make(db, "annotator", project.project_id, "ada")
    [listed] = invitations.still_open(db)
    with pytest.raises(NotFound):
        invitations.withdraw(db, listed.invitation_id, by="eve")
    invitations.withdraw(db, listed.invitation_id, by="ada")
    assert invitations.still_open(db) == []
    for token in (old, withdrawn, "made-up", "", listed.invitation_id, "\ud800"):
        with pytest.raises(NotFound, match="no longer good"):
            invitations.accept(db, token, "eve", PASSWORD)


def test_a_link_is_stored_nowhere(settings: Settings, db: Database) -> None:
    token = invitations.make(db, "admin", "", "ada")
    db.close()
    for file in settings.home.rglob("*"):
        assert not file.is_file() or token.encode() not in file.read_bytes(), file


def test_an_annotator_is_invited_to_a_project(db: Database) -> None:
    with pytest.raises(BadInput, match="project"):
        invitations.make(db, "annotator", "", "ada")
    with pytest.raises(NotFound):
        invitations.make(db, "annotator", "no-such", "ada")


def test_a_set_up_link_is_good_until_the_next_one_is_made(db: Database) -> None:
    first = invitations.make_first_admin(db)
    second = invitations.make_first_admin(db)
    with pytest.raises(NotFound):
        invitations.find(db, first)
    assert invitations.find(db, second).role == "admin"
    assert not accounts.has_admin(db)
    invitations.accept(db, second, "ada", PASSWORD)
    assert accounts.has_admin(db)


def test_an_invitation_raises_who_has_an_account_and_never_lowers(db: Database, project: Project) -> None:
    ann, ada = join(db, "ann", "annotator", project.project_id), join(db, "ada")
    second = projects.create(db, "Second")
    directory = Directory(db)
    invitations.accept_as(db, invitations.make(db, "annotator", second.project_id, ""), ann.annotator_id)
    invitations.accept_as(db, invitations.make(db, "annotator", second.project_id, ""), ada.annotator_id)
    invitations.accept_as(db, invitations.make(db, "researcher", "", ""), ann.annotator_id)
    found = {who.annotator_id: directory.find(who.annotator_id) for who in (ann, ada)}
    assert [k and k.role for k in found.values()] == ["researcher", "admin"]


# --- people ---


def test_the_directory_knows_a_change_at_once(db: Database, project: Project) -> None:
    join(db, "ada")
    ann = join(db, "ann", "annotator", project.project_id).annotator_id
    directory = Directory(db)

    def now() -> Any:
        known = directory.find(ann)
        return known and (known.role, known.projects)

    changes: list[tuple[Callable[[], None], Any]] = [
        (lambda: members.remove(db, project.project_id, ann), ("annotator", ())),
        (lambda: members.add(db, project.project_id, ann), ("annotator", (project.project_id,))),
        (lambda: accounts.set_role(db, ann, "researcher"), ("researcher", (project.project_id,))),
        (lambda: accounts.disable(db, ann), None),
        (lambda: accounts.enable(db, ann), ("researcher", (project.project_id,))),
    ]
    for change, then in changes:
        change()
        assert now() == then


def test_somebody_switched_off_cannot_sign_in(db: Database) -> None:
    join(db, "ada")
    bob = join(db, "bob")
    accounts.disable(db, bob.annotator_id)
    assert accounts.check(db, "bob", PASSWORD) is None
    accounts.enable(db, bob.annotator_id)
    assert accounts.check(db, "bob", PASSWORD) is not None


def test_there_is_always_an_admin(db: Database) -> None:
    ada, bob = join(db, "ada"), join(db, "bob", "researcher")
    for change in (lambda: accounts.disable(db, ada.annotator_id), lambda: accounts.set_role(db, ada.annotator_id, "annotator")):
        with pytest.raises(BadInput, match="only admin"):
            change()
    assert accounts.has_admin(db)
    accounts.set_role(db, bob.annotator_id, "admin")
    accounts.disable(db, ada.annotator_id)
    with pytest.raises(BadInput, match="only admin"):
        accounts.set_role(db, bob.annotator_id, "researcher")


def test_accounts_come_back_from_the_journal(settings: Settings, db: Database, project: Project) -> None:
    join(db, "ann", "annotator", project.project_id)
    before = accounts.everybody(db)
    db.close()
    settings.db_path.unlink()
    again = Database(settings)
    try:
        assert accounts.everybody(again) == before
        assert accounts.check(again, "ann", PASSWORD)
    finally:
        again.close()


# --- the key ---


def test_the_key_is_made_once_is_its_owners_and_in_no_backup(settings: Settings, db: Database, tmp_path: Path) -> None:
    key = secret_key.read_or_make(settings)
    assert key == secret_key.read_or_make(settings)
    assert (settings.home / secret_key.NAME).stat().st_mode & 0o777 == 0o600
    archive = db.backup(tmp_path / "backup.zip")
    with zipfile.ZipFile(archive) as packed:
        assert not any("secret" in name for name in packed.namelist())
        assert not any(key in packed.read(name) for name in packed.namelist())


def test_a_damaged_key_is_said_in_words(settings: Settings, db: Database) -> None:
    (settings.home / secret_key.NAME).write_text("")
    with pytest.raises(WorkspaceError, match="damaged"):
        secret_key.read_or_make(settings)
