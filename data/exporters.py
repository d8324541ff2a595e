"""Export: prompts, labels and training sets as files that TRL and other tools load as they are.

    dpo      prompt, chosen, rejected      one row a pair that people decided, by majority
    reward   the same, as TRL's reward trainer takes it
    kto      prompt, completion, label     one row an answer called good or bad, by itself or else by how its pairs came out
    sft      prompt, completion            the good ones of these
    prompts  prompt, follow_up, reference, category, external_id, source, split
    labels   one row a label that stands, ties and skips included, with who (a pseudonym) saw what on which side

JSON lines and Parquet hold messages (conversational) or plain text as TRL wants them. CSV is for spreadsheets: messages are JSON in
a cell, and a cell that a spreadsheet would run as a formula (it starts with = + - @, a tab or a return) gets an apostrophe in
front, which the importer takes off again. Plain text knows no system message and no earlier turns: such prompts are left out of it
and counted. What is written is what stands now; its manifest is `labeling/manifest.py`, a frozen
training set `labeling/snapshots.py`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from data import completions, home, projects, prompts, votes
from data.database import Database
from data.errors import BadInput
from data.export_rows import DROPPED, Judged, LabelRow, decided_pairs, judged_answers, label_rows
from data.export_write import Format, new_file, write
from data.import_folder import folder_of
from data.pseudonyms import Pseudonyms
from data.records import Completion, Prompt, Split, content_id
from data.rundir import sha256_of
from data.settings import Settings
from data.votes import Chosen, Filters, Rules
from data.words import count

__all__ = ["DROPPED", "ExportResult", "Format", "Layout", "export"]

Layout = Literal["dpo", "reward", "kto", "sft", "prompts", "labels"]
Row = dict[str, Any]
T = TypeVar("T")
CHUNK_ROWS = 1_000


class ExportResult(NamedTuple):
    """`dropped` counts what is not in the file, by a reason of DROPPED; `chosen` are the labels it was made of."""

    path: Path
    rows: int
    dropped: dict[str, int]
    sha256: str
    chosen: Chosen


class _Job(NamedTuple):
    db: Database
    project_id: str
    conversational: bool
    dropped: Counter[str]
    names: Pseudonyms
    chosen: Chosen
    rules: Rules
    split: Split | Literal[""]


def export(
    db: Database,
    settings: Settings,
    project_id: str,
    layout: Layout,
    format: Format = "jsonl",
    conversational: bool = True,
    filters: Filters = Filters(),
    rules: Rules = Rules(),
    split: Split | Literal[""] = "",
) -> ExportResult:
    """Write the file into the export folder of the project's owner, all or nothing. BadInput when there is nothing to write, saying
    what was dropped."""
    if layout not in _ROWS:
        raise BadInput(f"{layout!r} cannot be exported; choose one of {', '.join(_ROWS)}.")
    votes.check(filters, rules)
    project = projects.get(db, project_id)
    chosen = votes.choose(db, project_id, filters)
    names = Pseudonyms(db, project_id)
    job = _Job(db, project_id, conversational, Counter(chosen.left_out), names, chosen, rules, split)
    folder = folder_of(settings.export_dir, project.owner)
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = write(part, format, layout, conversational, _ROWS[layout](job), rules.aggregation == "weighted")
        if not rows:
            raise BadInput(f"There is nothing to export as {layout.upper() if len(layout) == 3 else layout}{_why(job.dropped)}.")
        path = part.replace(new_file(folder, project.name, layout, format))
    except OSError as error:
        raise home.words(error, settings) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return ExportResult(path, rows, {reason: n for reason, n in job.dropped.items() if n}, sha256_of(path), chosen)


def _why(dropped: Counter[str]) -> str:
    most = [count(n, *DROPPED[reason]) for reason, n in dropped.most_common(2) if n]
    return f": {' and '.join(most)}" if most else " yet; import or label something first"


# --- rows of each layout, a chunk of texts in memory at a time ---------------------------------------------------------------


def _dpo(job: _Job) -> Iterator[Row]:
    for chunk in _chunks(decided_pairs(job.chosen, job.rules, job.dropped)):
        asked, said = _texts(job, [pair.prompt_id for pair in chunk], [c for pair in chunk for c in pair.ids])
        for pair in chunk:
            prompt = _prompt(job, asked[pair.prompt_id])
            chosen, rejected = (said[c].text for c in pair.ids)
            if prompt is None or _is_empty(job, chosen, rejected):
                continue
            yield {"prompt": prompt, "chosen": _answer(job, chosen), "rejected": _answer(job, rejected), "weight": pair.weight}


def _kto(job: _Job) -> Iterator[Row]:
    for judged, prompt, text in _judged(job):
        yield {"prompt": prompt, "completion": _answer(job, text), "label": judged.good, "weight": judged.weight}


def _sft(job: _Job) -> Iterator[Row]:
    """The same text to the same prompt once."""
    written: set[str] = set()
    for judged, prompt, text in _judged(job):
        if judged.good:
            if (key := content_id(judged.prompt_id, text.strip())) in written:
                continue
            written.add(key)
            yield {"prompt": prompt, "completion": _answer(job, text), "weight": judged.weight}
        else:
            job.dropped["bad"] += 1


def _judged(job: _Job) -> Iterator[tuple[Judged, Any, str]]:
    for chunk in _chunks(judged_answers(job.chosen, job.rules, job.dropped)):
        asked, said = _texts(job, [judged.prompt_id for judged in chunk], [judged.completion_id for judged in chunk])
        for judged in chunk:
            prompt, text = _prompt(job, asked[judged.prompt_id]), said[judged.completion_id].text
            if prompt is not None and not _is_empty(job, text):
                yield judged, prompt, text


def _prompts(job: _Job) -> Iterator[Row]:
    offset = 0
    while page := prompts.of_project(job.db, job.project_id, limit=CHUNK_ROWS, offset=offset):
        offset += len(page)
        for found in page:
            prompt = _prompt(job, found)
            if prompt is not None:
                yield {
                    "prompt": prompt,
                    "follow_up": list(found.follow_up),
                    "reference": found.reference,
                    "category": found.category,
                    "external_id": found.external_id,
                    "source": found.source,
                    "split": found.split,
                }


def _labels(job: _Job) -> Iterator[Row]:
    for chunk in _chunks(label_rows(job.chosen)):
        asked, said = _texts(
            job, [label.prompt_id for label in chunk], [c for label in chunk for c in (label.left, label.right) if c]
        )
        for label in chunk:
            prompt = _prompt(job, asked[label.prompt_id])
            if prompt is not None:
                yield _label(job, label, prompt, asked[label.prompt_id], said)


def _label(job: _Job, label: LabelRow, prompt: Any, asked: Prompt, said: dict[str, Completion]) -> Row:
    right = said.get(label.right)
    return {
        "label_id": label.key,
        "task": label.task,
        "prompt": prompt,
        "follow_up": list(asked.follow_up),
        "response_a": said[label.left].text,
        "response_b": right.text if right is not None else None,
        "preference": label.preference,
        "annotator": job.names.of(label.annotator_id),
        "model_a": said[label.left].model,
        "model_b": right.model if right is not None else None,
        "split": asked.split,
        "simulated": label.simulated,
        "dwell_ms": label.dwell_ms,
        "note": label.note,
        "labelled_at": _iso(label.created_at),
    }


_ROWS: dict[Layout, Callable[[_Job], Iterator[Row]]] = {
    "dpo": _dpo, "reward": _dpo, "kto": _kto, "sft": _sft, "prompts": _prompts, "labels": _labels,
}  # fmt: skip


# --- parts of a row ----------------------------------------------------------------------------------------------------------


def _prompt(job: _Job, prompt: Prompt) -> Any:
    """Messages or text; None, counted, where text cannot say it or the prompt is of the other split."""
    if job.split and prompt.split != job.split:
        job.dropped["split"] += 1
        return None
    if job.conversational:
        return [message._asdict() for message in prompt.messages]
    if len(prompt.messages) > 1:
        job.dropped["many_turns"] += 1
        return None
    return prompt.text


def _answer(job: _Job, text: str) -> Any:
    return [{"role": "assistant", "content": text}] if job.conversational else text


def _is_empty(job: _Job, *texts: str) -> bool:
    empty = any(not text.strip() for text in texts)
    job.dropped["empty_text"] += empty
    return empty


def _texts(job: _Job, prompt_ids: Sequence[str], completion_ids: Sequence[str]) -> tuple[dict[str, Prompt], dict[str, Completion]]:
    asked = {p.prompt_id: p for p in prompts.get_many(job.db, sorted(set(prompt_ids)))}
    return asked, {c.completion_id: c for c in completions.get_many(job.db, sorted(set(completion_ids)))}


def _chunks(rows: Iterable[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while chunk := list(islice(source, CHUNK_ROWS)):
        yield chunk


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
