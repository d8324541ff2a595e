"""Impressions: what was shown to whom, with which completion on which side. Written when served; a label is nothing without one."""

from __future__ import annotations

from collections.abc import Sequence

from data.database import Database
from data.records import Impression, from_row, to_row


def add(db: Database, impressions: Sequence[Impression]) -> int:
    return db.insert("impressions", [to_row(i) for i in impressions])


def get_many(db: Database, impression_ids: Sequence[str]) -> list[Impression]:
    """Those that exist, in no particular order."""
    if not impression_ids:
        return []
    sql = "select * from impressions where impression_id in (select unnest(?::varchar[]))"
    return [from_row(Impression, row) for row in db.rows(sql, [list(impression_ids)])]


def of_annotator(db: Database, annotator_id: str, project_id: str) -> list[Impression]:
    sql = "select * from impressions where annotator_id = ? and project_id = ? order by served_at, impression_id"
    return [from_row(Impression, row) for row in db.rows(sql, [annotator_id, project_id])]
