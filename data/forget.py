"""Delete my data: what a person said of themselves goes, what they labelled stays and is nobody's any more.

    forget.person(db, annotator_id)      irreversible; returns when nothing of it is on the disk
    forget.finish(db)                    at every start: does what a crash left undone

Gone: account and password, name, memberships, the notes and reasons they wrote, and the key of their pseudonym, so that no
export made before can be tied to them again. A change alone would leave all of it behind, in the journal's older lines and in
freed blocks of the database's file. So the journal is begun anew from the tables (written beside, synced, read back; only then
are older segments deleted) and the database is copied into a new file that takes the old one's place. The list of who is to be
forgotten is on the disk before the first step and is deleted after the last; every step can be done twice. What was copied
elsewhere (exports, backups, a hub) is out of reach.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

from data import accounts, home, journal
from data.cursor import Cursor
from data.database import Database
from data.errors import BadInput, WorkspaceError
from data.settings import Settings

_one_at_a_time = threading.Lock()


def person(db: Database, annotator_id: str) -> None:
    """NotFound when there is no such account, BadInput when it is the only admin's: then nothing is changed."""
    accounts.get(db, annotator_id)
    if not accounts.has_admin(db, besides=annotator_id):
        raise BadInput(accounts.ONLY_ADMIN)
    with _one_at_a_time:
        _note(db.settings, sorted({*_noted(db.settings), annotator_id}))
        _finish(db)


def finish(db: Database) -> None:
    """Forget everybody on the list. WorkspaceError in words when the disk does not let us; the next start tries again."""
    with _one_at_a_time:
        _finish(db)


def _finish(db: Database) -> None:
    waiting = _noted(db.settings)
    if not waiting:
        return
    for annotator_id in waiting:
        db.write(lambda cursor, who=annotator_id: _redact(cursor, who))  # type: ignore[misc]
    try:
        db.forget_deleted()
        if len(journal.segments(db.settings.journal_dir)) > 1:
            raise WorkspaceError("The new journal could not be read back, so the old one was kept; check the disk and start again.")
        db.rewrite_file()
        shutil.rmtree(db.settings.home / "before-recovery", ignore_errors=True)
        _list(db.settings).unlink()
    except OSError as error:
        raise home.words(error, db.settings) from error


def _redact(cursor: Cursor, annotator_id: str) -> None:
    who = {"annotator_id": annotator_id}
    cursor.delete("accounts", who)
    cursor.delete("members", who)
    cursor.update("people", who, name="", pseudonym_key="", project_id="", role="annotator")
    cursor.update("label_events", who, note="")
    by = {"actor": annotator_id}
    cursor.update("label_events", by, note="")
    cursor.update("gold", by, note="")
    cursor.update("adjudications", by, reason="")


def _list(settings: Settings) -> Path:
    return settings.home / "forget.json"


def _noted(settings: Settings) -> list[str]:
    try:
        return [str(one) for one in json.loads(_list(settings).read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"The file {_list(settings)} cannot be read; it names who is to be forgotten: mend it.") from error


def _note(settings: Settings, ids: list[str]) -> None:
    part = _list(settings).with_suffix(".part")
    try:
        with part.open("w") as file:
            json.dump(ids, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(_list(settings))
        home.sync(settings.home)
    except OSError as error:
        raise home.words(error, settings) from error
