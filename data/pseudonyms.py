"""Names under which people appear in exports: they tell nobody who it is.

A pseudonym is made from the project's id with a key that is the person's own, random and stored with them alone. So it is the
same in every export of a project, another in the next project, cannot be computed from an id (a visitor's is made from a
cookie), and once the key is destroyed nobody can say again which name was whose (`data/forget.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from data.cursor import Cursor
from data.database import Database
from data.records import Person, now, to_row

IMPORTED = "imported:"  # people who came with a file keep the name they had there


class Pseudonyms:
    """Of one project's people."""

    def __init__(self, db: Database, project_id: str) -> None:
        self._db, self._project_id = db, project_id
        self._names: dict[str, str] = {}

    def of(self, annotator_id: str) -> str:
        """The person's key is made here at its first use."""
        if annotator_id.startswith(IMPORTED):
            return annotator_id
        if annotator_id not in self._names:
            key = self._db.write(lambda cursor: _key(cursor, annotator_id))
            made = hmac.new(key.encode(), self._project_id.encode(), hashlib.sha256).hexdigest()
            self._names[annotator_id] = f"annotator-{made[:10]}"
        return self._names[annotator_id]

    def everybody(self) -> dict[str, str]:
        """Of everybody who labelled here, by id: known before rows are read one by one, which no write may interrupt."""
        sql = "select distinct annotator_id from label_events where project_id = ?"
        return {row["annotator_id"]: self.of(row["annotator_id"]) for row in self._db.rows(sql, [self._project_id])}


def _key(cursor: Cursor, annotator_id: str) -> str:
    row = cursor.row("select pseudonym_key from people where annotator_id = ?", [annotator_id])
    if row and row["pseudonym_key"]:
        return str(row["pseudonym_key"])
    key = secrets.token_hex(16)
    if row:
        cursor.update("people", {"annotator_id": annotator_id}, pseudonym_key=key)
    else:  # labels from before everybody had a row
        cursor.insert("people", [to_row(Person(annotator_id, "", "imported", "", now(), pseudonym_key=key))])
    return key
