"""A run folder that goes on: what counts as a checkpoint, what is kept, and how the folder is opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import resume
from data.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", {})


def written(run: RunDir, step: int, sealed: bool = True) -> Path:
    path = run.path / "checkpoints" / f"checkpoint-{step}"
    (path / "ref").mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(b"weights" * step)
    (path / "ref" / "adapter_model.safetensors").write_bytes(b"reference")
    if sealed:
        resume.seal(path, step, {"tokens": step})
    return path


def test_the_newest_sealed_checkpoint_is_the_one_to_go_on_from(run: RunDir) -> None:
    assert resume.newest(run.path) is None
    written(run, 9)
    written(run, 10)
    written(run, 11, sealed=False)
    found = resume.newest(run.path)
    assert found is not None
    assert (found.step, found.state) == (10, {"tokens": 10})
    assert resume.start_point(run.path) == (found, [11])


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "ref/adapter_model.safetensors"])
def test_a_damaged_checkpoint_is_not_whole(run: RunDir, file: str) -> None:
    path = written(run, 10)
    raw = (path / file).read_bytes()
    (path / file).write_bytes(raw[:-1] + b"?")
    found = resume.newest(run.path)
    assert found is not None
    assert not resume.is_whole(found)
    older = written(run, 9)
    assert resume.start_point(run.path) == (resume.Checkpoint(older, 9, {"tokens": 9}), [10])
    (path / file).write_bytes(raw[:-1])
    cut = resume.newest(run.path)
    assert cut is not None
    assert cut.step == 9, "a truncated file is seen without hashing"


@pytest.mark.parametrize("words", ["", "{", "[]", '{"step": 1}', '{"step": 1, "files": 3, "state": {}}'])
def test_a_seal_that_cannot_be_read_is_none(run: RunDir, words: str) -> None:
    (written(run, 10) / "seal.json").write_text(words)
    assert resume.newest(run.path) is None


def test_only_what_is_named_is_kept(run: RunDir) -> None:
    for step in (1, 2, 3):
        written(run, step)
    (run.path / "checkpoints" / "README.md").touch()
    resume.prune(run.path, {"checkpoint-3", "checkpoint-1"})
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {"checkpoint-3", "checkpoint-1"}
    resume.discard(run.path)
    assert not (run.path / "checkpoints").exists()


def test_a_reopened_folder_appends_its_events_and_hears_no_old_stop(run: RunDir) -> None:
    run.event("status", status="running")
    run.event("error", message="an old one")
    run.event("status", status="stopped")
    run.request_stop()
    with (run.path / "events.jsonl").open("ab") as f:
        f.write(b'{"type": "metrics", "st')  # killed while it wrote
    for life in (1, 2):
        (run.path / "stdout.log").write_text(f"life {life}")
        resume.reopen(run)
    assert not run.stop_requested
    assert not (run.path / "stdout.log").exists()
    assert [(run.path / f"stdout-{life}.log").read_text() for life in (1, 2)] == ["life 1", "life 2"]
    assert resume.last_life(run.tail().events) == []
    run.event("status", status="running")
    assert [event["status"] for event in resume.last_life(run.tail().events)] == ["running"]


def test_a_run_that_was_never_reopened_has_one_life(run: RunDir) -> None:
    run.event("status", status="running")
    run.event("status", status="finished")
    assert len(resume.last_life(run.tail().events)) == 2
