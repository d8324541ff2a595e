"""A data set of the Hugging Face hub, fetched by name into a Parquet file of the run: `python -m data.hub RUN_DIR`.

    args   dataset (owner/name), split, config ('' = the only one), rows (at most), revision

A run, because it may take minutes and needs the network: the web process stays out of it. The rows are streamed, so that a
million-row data set costs what the wanted rows cost. Only data is read: `datasets` runs no code of a data set any more, and the
name must be a hub id, never a path, so nothing local can be fetched. The file is then previewed and imported like any other.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RunError
from data.rundir import RunDir, run_child, sha256_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ROWS = 50_000
MAX_ROWS = 5_000_000
BATCH = 500
UNREACHABLE = (
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "OfflineModeIsEnabled",
    "TimeoutException",
    "Timeout",
)


@dataclass(frozen=True)
class Wanted:
    """What to fetch; every part is checked before it reaches a library."""

    dataset: str
    split: str = "train"
    config: str = ""
    revision: str = ""
    rows: int = ROWS

    @property
    def file_name(self) -> str:
        return "-".join([self.dataset.replace("/", "--"), *([self.config] if self.config else []), self.split]) + ".parquet"


def read_args(args: Mapping[str, Any]) -> Wanted:
    """RunError for anything that is not a hub id and plain words."""
    try:
        wanted = Wanted(**args)
    except TypeError as error:
        raise RunError("The run does not say which data set to fetch; start it again from the Data page.") from error
    if not isinstance(wanted.dataset, str) or not NAME.fullmatch(wanted.dataset) or ".." in wanted.dataset:
        raise RunError(f"{str(wanted.dataset)[:100]!r} is no data set of the hub; write owner/name, as in its address.")
    if wanted.dataset.startswith("buckets/"):
        raise RunError("Storage buckets cannot be fetched; write the name of a data set, owner/name.")
    for what, word in (
        ("split", wanted.split),
        ("configuration", wanted.config or "default"),
        ("revision", wanted.revision or "main"),
    ):
        if not isinstance(word, str) or not WORD.fullmatch(word):
            raise RunError(f"{str(word)[:100]!r} is no {what}; write one word, such as train.")
    if not isinstance(wanted.rows, int) or not 1 <= wanted.rows <= MAX_ROWS:
        raise RunError(f"Fetch between 1 and {MAX_ROWS:,} rows.")
    return wanted


def main(run: RunDir) -> dict[str, Any]:
    wanted = read_args(run.config().get("args", {}))
    path = run.path.resolve() / wanted.file_name
    try:
        rows, total = _fetch(run, wanted, path)
    except (RunError, MemoryError):
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        path.unlink(missing_ok=True)
        raise explain(error, wanted) from error
    if not rows:
        path.unlink(missing_ok=True)
        raise RunError(f"The split {wanted.split} of {wanted.dataset} has no rows; choose another split.")
    file = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
    return {"file": file, "rows": rows, "total": total, "sha256": sha256_of(path), "dataset": wanted.dataset, "split": wanted.split}


def _fetch(run: RunDir, wanted: Wanted, path: Path) -> tuple[int, int | None]:
    """Rows written, and how many the split has where the hub says so."""
    os.environ["USE_TORCH"] = "0"  # `datasets` would import torch with its streams: ten seconds for nothing
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import load_dataset

    from data import hub_client

    hub_client.limit_silence()
    data = load_dataset(
        f"hf://datasets/{wanted.dataset}",  # the prefix keeps a folder of that name from being read instead
        wanted.config or None,
        split=wanted.split,
        revision=wanted.revision or None,
        streaming=True,
    )
    splits = data.info.splits or {}
    total = splits[wanted.split].num_examples if wanted.split in splits else None
    expected = min(wanted.rows, total or wanted.rows)
    started, done, writer = time.monotonic(), 0, None
    run.event("log", text=f"Fetching at most {expected:,} rows of {wanted.dataset}, split {wanted.split}.")
    try:
        for table in _tables(data.take(wanted.rows)):
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table if table.schema == writer.schema else table.select(writer.schema.names).cast(writer.schema))
            done += table.num_rows
            run.progress(done, max(done, expected), "rows", started)
            if run.stop_requested:
                break
    except pa.ArrowInvalid as error:
        raise RunError(
            f"The rows of {wanted.dataset} change their columns after row {done:,}; fetch {done:,} rows or fewer."
        ) from error
    finally:
        if writer is not None:
            writer.close()
    run.progress(done, done, "rows", started)
    if done == wanted.rows and done != total:
        run.event("log", text=f"The limit of {done:,} rows was reached; the data set may have more.")
    return done, total


def _tables(data: Any) -> Iterator[Any]:
    """Batches as Arrow tables, without columns of bytes (images, sound): nothing here could use them."""
    import pyarrow as pa

    for table in data.with_format("arrow").iter(batch_size=BATCH):
        kept = [field.name for field in table.schema if not _has_bytes(field.type, pa)]
        yield table.select(kept).replace_schema_metadata(None)


def _has_bytes(kind: Any, pa: Any) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    return any(_has_bytes(kind.field(i).type, pa) for i in range(kind.num_fields))


def explain(error: Exception, wanted: Wanted) -> RunError:
    """The hub's error in one sentence that says what to do."""
    names = names_of(error)
    said = " ".join(str(error).split())
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError"}:
        if "gated" in said:
            return RunError(f"{wanted.dataset} is gated: ask for access on its hub page and set HF_TOKEN, then fetch it again.")
        if "Revision" in said:
            return RunError(f"{wanted.dataset} has no revision {wanted.revision}; leave it empty for the newest.")
        return RunError(f"The hub has no public data set {wanted.dataset}; check the spelling, or set HF_TOKEN if it is private.")
    if names & set(UNREACHABLE):
        return RunError(
            f"The hub cannot be reached, so {wanted.dataset} was not fetched; check the network "
            "(and that HF_HUB_OFFLINE is not set), or import a file instead."
        )
    choices = re.search(r"\[([^\]]*)\]", said)
    known = choices.group(1).replace("'", "")[:300] if choices else ""
    if "Config name is missing" in said:
        return RunError(f"{wanted.dataset} has several configurations; choose one of {known}.")
    if "BuilderConfig" in said:
        return RunError(f"{wanted.dataset} has no configuration {wanted.config}; choose one of {known}.")
    if "split" in said.lower() and known:
        return RunError(f"{wanted.dataset} has no split {wanted.split}; choose one of {known}.")
    if "scripts are no longer supported" in said:
        return RunError(f"{wanted.dataset} needs code of its own to be read, which is never run here; look for a Parquet version.")
    if names & {"EmptyDatasetError", "DataFilesNotFoundError"}:
        return RunError(f"{wanted.dataset} holds no files that can be read as rows; choose another data set.")
    return RunError(f"{wanted.dataset} could not be fetched ({type(error).__name__}: {said[:200]}); try again or import a file.")


def names_of(error: BaseException) -> set[str]:
    """Of its kind and of those that led to it. A library that tries again may make them lead to each other in a circle."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        one = one.__cause__ or one.__context__
    return {type(each).__name__ for each in seen}


if __name__ == "__main__":
    run_child(main)
