"""Judgments: what a judge said of two completions, in both orders. Never mixed with what people said."""

from __future__ import annotations

from collections.abc import Sequence

from data.database import Database
from data.records import Judgment, content_id, from_row, to_row


def judgment_id(run_id: str, prompt_id: str, sample_index: int, model_a: str, model_b: str) -> str:
    return content_id(run_id, prompt_id, sample_index, model_a, model_b)


def add(db: Database, judgments: Sequence[Judgment]) -> int:
    """Store them; how many were new."""
    return db.insert("judgments", [to_row(j) for j in judgments])


def of_run(db: Database, run_id: str) -> list[Judgment]:
    sql = "select * from judgments where run_id = ? order by prompt_id, sample_index, judgment_id"
    return [from_row(Judgment, row) for row in db.rows(sql, [run_id])]
