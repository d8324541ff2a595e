"""Impressions: what was shown to whom, with which completion on which side. Written when served; a label is nothing without one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from data.database import Database
from data.lookup import among
from data.records import Impression, from_row, to_row


def add(db: Database, impressions: Sequence[Impression]) -> int:
    return db.insert("impressions", [to_row(i) for i in impressions])


def submit_new(db: Database, impressions: Sequence[Impression]) -> Future[int]:
    """Store impressions whose ids were made just now; the result is there once they are durable."""
    rows = [to_row(i) for i in impressions]
    return db.submit(lambda cursor: len(cursor.insert("impressions", rows, known_new=True)))


def get_many(db: Database, impression_ids: Sequence[str]) -> list[Impression]:
    """Those that exist, in no particular order."""
    if not impression_ids:
        return []
    marks, params = among(impression_ids)
    return [from_row(Impression, row) for row in db.rows(f"select * from impressions where impression_id in {marks}", params)]


def of_annotator(db: Database, annotator_id: str, project_id: str) -> list[Impression]:
    sql = "select * from impressions where annotator_id = ? and project_id = ? order by served_at, impression_id"
    return [from_row(Impression, row) for row in db.rows(sql, [annotator_id, project_id])]
