"""What stands beside a training set or an exported file: which labels it was made of, what fell out and why, how far people agree,
their bias card, and the file's sha256. Annotators are named by their pseudonym, as in the file.

`labeling/snapshots.py` stores it with a frozen set; for a file that is exported, `of_export` writes it as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data import projects
from data.database import Database
from data.export_write import columns_of
from data.exporters import ExportResult, Layout
from data.pseudonyms import Pseudonyms
from data.records import Project, Split
from data.votes import Chosen, Filters, Rules
from labeling.label_data import Styles, load
from labeling.label_data import votes as label_votes
from labeling.label_report import agreement_of, binary_cards, cards


def of_labels(db: Database, project_id: str, chosen: Chosen, filters: Filters, rules: Rules) -> dict[str, Any]:
    """Whose labels count, by which rule, and how many of each kind there are."""
    names = Pseudonyms(db, project_id)
    return {
        "filters": asdict(filters) | {"annotators": [names.of(annotator_id) for annotator_id in filters.annotators]},
        "rules": asdict(rules),
        "labels": {source: chosen.sources[source] for source in ("people", "simulated", "imported")}
        | {"left_out": chosen.left_out.total()},
        "left_out_by": dict(chosen.left_out),
        "flags": dict(chosen.flags.most_common()),
        "decided": len(chosen.known),
    }


def trust(db: Database, project: Project, chosen: Chosen) -> dict[str, Any]:
    """How far the labels that count here can be trusted, those that the filters leave out not among them."""
    held = load(db, project).labels
    if chosen.left_out:
        hashes = db.columns("select hash(unnest($ids::varchar[])) as id", {"ids": [cast.impression_id for cast in chosen.cast]})
        held = held.only(np.isin(held.impression, hashes["id"]))
    agree = agreement_of(project, label_votes(held, project.task).table)
    found: dict[str, Any] = {
        "agreement": {name: asdict(getattr(agree.four, name)) for name in ("alpha", "raw", "fleiss", "ac1")}
        | {"items": agree.four.n_items, "labels": agree.four.n_labels, "annotators": agree.four.n_annotators}
    }
    names = Pseudonyms(db, project.project_id)
    people, report = (binary_cards if project.task == "binary" else cards)(db, project, held, Styles(db))
    flagged = {
        names.of(people[card.annotator]): list(card.flags)
        for card in report.annotators
        if card.flags and card.annotator is not None
    }
    return found | {"bias_card": asdict(report.project), "annotators_that_stand_out": flagged}


def of_export(
    db: Database, project_id: str, done: ExportResult, layout: Layout, filters: Filters, rules: Rules, split: Split | str = ""
) -> Path:
    """Write the manifest of an exported file beside it. Labels play no part in a file of prompts.

    `labels` and what follows from them are of all prompts; `split` leaves rows out, which `dropped` counts.
    """
    project = projects.get(db, project_id)
    manifest: dict[str, Any] = {
        "file": done.path.name,
        "sha256": done.sha256,
        "bytes": done.path.stat().st_size,
        "layout": layout,
        "columns": columns_of(layout, rules.aggregation == "weighted"),
        "project": project.name,
        "split": split or "all",
        "rows": done.rows,
        "dropped": {reason: n for reason, n in done.dropped.items() if reason not in done.chosen.left_out},
    }
    if layout != "prompts":
        manifest |= of_labels(db, project_id, done.chosen, filters, rules) | trust(db, project, done.chosen)
    path = done.path.with_name(f"{done.path.name}.manifest.json")  # one of the same name may be there as another format
    write(path, manifest)
    return path


def write(path: Path, manifest: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(manifest, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
