"""A frozen snapshot as a data set of the Hugging Face hub: `python -m data.hub_push RUN_DIR`.

    args   dataset (owner/name), license (an id of the hub's list), private
    data   data.parquet, the frozen file, checked against its sha256; manifest.json beside it

A run, because it needs the network and may take minutes. The file is cut by its stored split (no prompt is in both), the card is
written from the manifest, and all of it goes up as one commit. The files stay in the run's folder, so that without a network
nothing is lost. The token is huggingface_hub's own (HF_TOKEN, or `hf auth login`); it is neither stored nor shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RunError
from data.hub import NAME, UNREACHABLE, names_of
from data.rundir import RunDir, run_child
from data.words import number

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
LICENSES = ("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "apache-2.0", "mit", "odc-by", "other")
SPLITS = {"train": "train", "held_out": "test"}  # as stored -> as the hub calls it


@dataclass(frozen=True)
class Wanted:
    """Where to push; every part is checked before it reaches a library."""

    dataset: str
    license: str = "other"
    private: bool = True


def read_args(args: Mapping[str, Any]) -> Wanted:
    """RunError for anything that is no name of a data set or no licence."""
    try:
        wanted = Wanted(**args)
    except TypeError as error:
        raise RunError("The run does not say where to push; start it again from the Data page.") from error
    check_target(wanted.dataset, wanted.license, wanted.private, "data set", "preferences", "Data")
    return wanted


def check_target(name: object, license: object, private: object, what: str, such: str, page: str) -> None:
    """RunError for what is no name of a repository on the hub, no licence or not plainly private or public."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise RunError(f"{str(name)[:100]!r} is no name of a {what}; write owner/name, such as your-name/{such}.")
    if not isinstance(license, str) or not LICENSE.fullmatch(license):
        raise RunError("Choose a licence from the list.")
    if not isinstance(private, bool):
        raise RunError(f"The run does not say whether the {what} is private; start it again from the {page} page.")


def main(run: RunDir) -> dict[str, Any]:
    config = run.config()
    wanted, frozen = read_args(config.get("args", {})), config.get("data", {})
    source = run.check_data("data.parquet", str(frozen.get("sha256", "")))
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    counts = cut(source, run.path)
    (run.path / "README.md").write_text(card(manifest, counts, wanted), encoding="utf-8")
    names = [f"{SPLITS[split]}.parquet" for split in counts] + ["README.md", "manifest.json"]
    run.event(
        "log", text=f"Pushing {sum(counts.values()):,} rows to {wanted.dataset}, {'private' if wanted.private else 'public'}."
    )
    try:
        commit = _push(run.path, names, wanted)
    except RunError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        raise explain(error, wanted.dataset) from error
    return {"dataset": wanted.dataset, "rows": sum(counts.values()), "splits": counts, "private": wanted.private, "commit": commit}


def cut(source: Path, folder: Path) -> dict[str, int]:
    """Rows by split, each written to a file of its own; splits without rows have none."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table, counts = pq.read_table(source), {}
    for split, name in SPLITS.items():
        part = table.filter(pc.equal(table["split"], split))
        if part.num_rows:
            pq.write_table(part.drop_columns(["split"]), folder / f"{name}.parquet", compression="zstd")
            counts[split] = part.num_rows
    return counts


def _push(folder: Path, names: list[str], wanted: Wanted) -> str:
    from huggingface_hub import CommitOperationAdd

    from data import hub_client

    api = hub_client.api()
    make_repository(api, wanted.dataset, "dataset", wanted.private)
    files = [CommitOperationAdd(name, str(folder / name)) for name in names]
    done = api.create_commit(wanted.dataset, files, commit_message="Push from Alignment Studio", repo_type="dataset")
    return str(done.oid)


def make_repository(api: Any, name: str, kind: str, private: bool) -> None:
    """RunError where what should be private would go to everybody: the hub leaves one that exists as it is."""
    api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
    if private and api.repo_info(name, repo_type=kind).private is not True:
        raise RunError(f"{name} is on the hub already and everybody can see it; choose another name, or untick Private.")


# --- the card ---------------------------------------------------------------------------------------------------------------


def card(manifest: Mapping[str, Any], counts: Mapping[str, int], wanted: Wanted) -> str:
    """README.md: what is in the set, where it comes from, what fell out, how far to trust it."""
    files = "\n".join(f"  - split: {SPLITS[split]}\n    path: {SPLITS[split]}.parquet" for split in counts)
    name = " ".join(str(manifest["project"]).split())
    tag = "preference" if manifest["layout"] == "preference" else "feedback"
    head = (
        f"---\nlicense: {wanted.license}\npretty_name: {json.dumps(name, ensure_ascii=False)}\n"
        f"task_categories:\n- text-generation\ntags:\n- {tag}\n- trl\n"
        f"configs:\n- config_name: default\n  data_files:\n{files}\n---\n"
    )
    parts = [head, f"# {_plain(name)}\n", _what(manifest, counts), _labels(manifest), _trust(manifest), _file(manifest)]
    return "\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """A project's name is anybody's text: no Markdown, no HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~-])", r"\\\1", text)


def _what(manifest: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    says = {
        "preference": "Pairs of answers, the one that people preferred and the other.",
        "binary": "Answers that people called good or bad.",
        "sft": "Answers that people preferred or called good.",
    }[manifest["layout"]]
    rows = "\n".join(f"| {SPLITS[split]} | {n:,} |" for split, n in counts.items())
    columns = ", ".join(f"`{column}`" for column in manifest["columns"] if column != "split")
    table = f"| split | rows |\n|---|---|\n{rows}"
    return f"{says} No prompt is in two splits.\n\n{table}\n\nColumns: {columns} (TRL's conversational form).\n"


def _labels(manifest: Mapping[str, Any]) -> str:
    held = manifest["labels"]
    lines = ["## Labels\n", f"- {held['people']:,} by people, {held['imported']:,} imported, {held['simulated']:,} simulated"]
    for title, counts in (("left out by choice", manifest["left_out_by"]), ("fell out", manifest["dropped"])):
        if counts:
            lines.append(f"- {title}: " + ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in counts.items()))
    if manifest["flags"]:
        lines.append("- kept with a flag: " + ", ".join(f"{n:,} {flag.replace('_', ' ')}" for flag, n in manifest["flags"].items()))
    rule, decided = manifest["rules"]["aggregation"], manifest["decided"]
    lines.append(f"- where several people labelled: {rule}; {decided:,} items have an answer that a researcher knew or decided")
    return "\n".join(lines) + "\n"


def _trust(manifest: Mapping[str, Any]) -> str:
    lines = ["## How far to trust them\n"]
    agreement = manifest["agreement"]
    for name, title in (("alpha", "Krippendorff's alpha"), ("raw", "Raw agreement"), ("ac1", "Gwet's AC1")):
        held = agreement[name]
        value = "undefined: " + held["note"] if held["value"] is None else f"{number(held['value'], '.2f')}{_interval(held)}"
        lines.append(f"- {title}: {value}")
    for name, says in (("left", "The left answer was chosen in {}; sides were drawn by lot"), ("good", "Called good: {}")):
        held = manifest.get("bias_card", {}).get(name)  # the one of pairs, the other of answers shown one at a time
        if held and held["value"] is not None:
            lines.append("- " + says.format(f"{held['value']:.2f}{_interval(held)} of {held['n']:,}"))
    return "\n".join(lines) + "\n"


def _interval(held: Mapping[str, Any]) -> str:
    return (
        ""
        if held["low"] is None or held["high"] is None
        else f" (95 % interval {number(held['low'], '.2f')} to {number(held['high'], '.2f')})"
    )


def _file(manifest: Mapping[str, Any]) -> str:
    return f"The frozen file's sha256 is `{manifest['sha256']}`; `manifest.json` has every count.\n"


# --- errors -----------------------------------------------------------------------------------------------------------------


def explain(error: Exception, name: str) -> RunError:
    """The hub's error in one sentence that says what to do."""
    names = names_of(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if names & set(UNREACHABLE):
        return RunError(
            f"The hub cannot be reached, so nothing was pushed to {name}; the files lie in this run's folder: "
            "push again with a network and without HF_HUB_OFFLINE."
        )
    if status in (401, 403) or "LocalTokenNotFoundError" in names:
        return RunError(f"The hub does not let you write to {name}; set HF_TOKEN to a token with write access, then push again.")
    said = " ".join(str(error).split())[:200]
    return RunError(f"{name} could not be pushed ({type(error).__name__}: {said}); try again.")


if __name__ == "__main__":
    run_child(main)
