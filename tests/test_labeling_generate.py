"""Generation as a run: distinct candidates, retries, stops, kills and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data.engine import GenRequest, GenResult, ModelSpec
from data.errors import EngineError, RunError
from data.rundir import RunDir, Stopped, sha256_of
from labeling import generate

from fakes import FakeEngine  # isort: skip
from openai_server import openai_server  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ModelSpec("local", "somewhere").to_json()


def make_run(folder: Path, prompts: Sequence[str] = ("one", "two"), file: str = "prompts.jsonl", **args: Any) -> RunDir:
    settings = {"model": LOCAL, "model_name": "tiny", "model_id": "m1", "n": 3, "max_new_tokens": 30, **args}
    run = RunDir.create(folder / "run", {"run_id": "run1", "project_id": "p", "args": settings})
    rows = [{"prompt_id": f"id-{p}", "messages": [{"role": "user", "content": p}]} for p in prompts]
    if file.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), run.path / file)
    else:
        (run.path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {**run.config(), "data": {"file": file, "sha256": sha256_of(run.path / file), "rows": len(rows)}}
    (run.path / "config.json").write_text(json.dumps(config))
    return run


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeEngine], FakeEngine]:
    def put(engine: FakeEngine) -> FakeEngine:
        monkeypatch.setattr(generate, "open_engine", lambda spec: engine)
        return engine

    return put


def written(run: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "completions.jsonl").read_bytes().splitlines()]


def numbered(request: GenRequest) -> str:
    return f"{request.messages[-1].content} {request.sample_index}"


@pytest.mark.parametrize("file", ["prompts.jsonl", "prompts.parquet"])
def test_n_answers_a_prompt_are_written_with_all_that_made_them(tmp_path: Path, use: Any, file: str) -> None:
    engine = use(FakeEngine(numbered))
    run = make_run(tmp_path, file=file, temperature=0.7, top_p=0.9, seed=5)
    result = generate.main(run)
    rows = written(run)
    assert (result["completions"], result["prompts"], result["duplicates"], result["errors"]) == (6, 2, 0, 0)
    assert sorted(row["text"] for row in rows) == [f"{p} {i}" for p in ("one", "two") for i in range(3)]
    first = rows[0]
    assert first["prompt_id"] == "id-one"
    assert (first["model"], first["model_id"], first["run_id"], first["finish_reason"]) == ("tiny", "m1", "run1", "stop")
    assert first["sampling"] == {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 30}
    assert len({(row["completion_id"]) for row in rows}) == 6
    assert len({(row["prompt_id"], row["seed"]) for row in rows}) == 2  # a seed a prompt, an index a sample
    assert all(request.temperature == 0.7 for request in engine.asked)
    assert engine.closed


def test_the_rows_are_what_the_store_takes_in(tmp_path: Path, use: Any) -> None:
    from dataclasses import fields

    from data.records import Completion

    use(FakeEngine(numbered))
    run = make_run(tmp_path)
    generate.main(run)
    names = {f.name for f in fields(Completion)} - {"created_at"}
    assert all(set(row) == names for row in written(run))


def test_the_seed_is_the_runs_own_unless_given(tmp_path: Path, use: Any) -> None:
    seeds = []
    for name, args in (("a", {}), ("b", {}), ("c", {"seed": 1}), ("d", {"seed": 2})):
        engine = use(FakeEngine(numbered))
        run = make_run(tmp_path / name, **args)
        if name == "b":
            (run.path / "config.json").write_text(json.dumps({**run.config(), "run_id": "run2"}))
        generate.main(run)
        seeds.append(tuple(request.seed for request in engine.asked))
    assert len(set(seeds)) == 4


def test_duplicates_are_sampled_again_hotter_then_given_up(tmp_path: Path, use: Any) -> None:
    said = {"one": ["same", " same ", "other"], "two": ["stuck"]}
    engine = use(FakeEngine(lambda r: said[r.messages[-1].content][r.sample_index % len(said[r.messages[-1].content])]))
    run = make_run(tmp_path, n=2, temperature=0.8)
    result = generate.main(run)
    assert sorted(row["text"] for row in written(run)) == ["other", "same", "stuck"]
    assert (result["completions"], result["duplicates"]) == (3, 1)
    of_two = [r for r in engine.asked if r.messages[-1].content == "two"]
    assert [round(r.temperature, 2) for r in of_two] == [0.8, 0.8, 1.0, 1.2, 1.4]
    assert [r.sample_index for r in of_two] == [0, 1, 2, 3, 4]
    other = next(row for row in written(run) if row["text"] == "other")
    assert other["sampling"]["temperature"] == 1.0  # what it was really sampled with


def test_at_temperature_0_nothing_is_sampled_again(tmp_path: Path, use: Any) -> None:
    engine = use(FakeEngine("always this"))
    result = generate.main(make_run(tmp_path, temperature=0))
    assert (result["completions"], result["duplicates"]) == (2, 4)
    assert len(engine.asked) == 6


def test_truncated_empty_and_unstorable_texts(tmp_path: Path, use: Any) -> None:
    texts = ["word " * 50, "", "half \ud83d of\x00 one"]
    use(FakeEngine(lambda r: texts[r.sample_index]))
    run = make_run(tmp_path, prompts=("one",))
    result = generate.main(run)
    assert (result["completions"], result["truncated"], result["empty"]) == (3, 1, 1)
    assert [row["text"] for row in written(run)][2] == "half \ufffd of\ufffd one"


def test_the_system_prompt_goes_before_prompts_without_one(tmp_path: Path, use: Any) -> None:
    engine = use(FakeEngine(numbered))
    run = make_run(tmp_path, system="Be brief.")
    generate.main(run)
    assert all([m.role for m in r.messages] == ["system", "user"] for r in engine.asked)
    assert written(run)[0]["sampling"]["system"] == "Be brief."


def test_failures_are_counted_and_the_rest_is_kept(tmp_path: Path, use: Any) -> None:
    use(FakeEngine(lambda r: EngineError("The prompt is too long.") if r.messages[-1].content == "two" else numbered(r)))
    run = make_run(tmp_path)
    result = generate.main(run)
    assert (result["completions"], result["errors"], result["first_error"]) == (3, 3, "The prompt is too long.")
    assert any("3 answers failed" in event.get("text", "") for event in run.tail().events)


def test_a_model_that_answers_nothing_ends_the_run_in_words(tmp_path: Path, use: Any) -> None:
    engine = use(FakeEngine(EngineError("Nothing answers at http://x; start the server there.")))
    with pytest.raises(RunError, match=r"Nothing answers at http://x"):
        generate.main(make_run(tmp_path, prompts=[f"{i}" for i in range(1000)]))
    assert len(engine.asked) == 3 * generate.PROMPTS_AT_ONCE  # not all thousand prompts are tried in vain
    use(FakeEngine(EngineError("No.")))
    with pytest.raises(RunError, match=r"tiny answered none of the 1 prompts: No."):
        generate.main(make_run(tmp_path / "one", prompts=["one"], n=1))


def test_a_restart_asks_only_for_what_is_missing(tmp_path: Path, use: Any) -> None:
    use(FakeEngine(numbered))
    run = make_run(tmp_path, prompts=("one", "two", "three"))
    generate.main(run)
    file = run.path / "completions.jsonl"
    whole = sorted(file.read_bytes().splitlines())
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:50])  # killed in the middle of a line
    engine = use(FakeEngine(numbered))
    result = generate.main(run)
    assert sorted(file.read_bytes().splitlines()) == whole
    assert len(engine.asked) == 5
    assert result["completions"] == 9
    engine = use(FakeEngine(numbered))
    assert generate.main(run)["completions"] == 9
    assert engine.asked == []


def test_a_stop_keeps_what_is_there_and_says_so(tmp_path: Path, use: Any) -> None:
    run = make_run(tmp_path, prompts=[f"{i}" for i in range(50)])

    class Stoppable(FakeEngine):
        """The stop comes after ten answers; what the engine is asked to cancel, it gives up."""

        def generate(self, requests: Sequence[GenRequest]) -> Any:
            for n, result in enumerate(super().generate(requests)):
                if n == 10:
                    run.request_stop()
                    while not self._cancelled.wait(0.01):
                        assert "stop-watch" in {thread.name for thread in threading.enumerate()}
                yield result if not self._cancelled.is_set() else GenResult(result.index, "", "cancelled")

    use(Stoppable(numbered))
    result = generate.main(run)
    assert result["completions"] == len(written(run)) == 10
    assert result["duplicates"] == 0


def test_progress_counts_and_ends_complete(tmp_path: Path, use: Any) -> None:
    use(FakeEngine("same"))
    run = make_run(tmp_path)
    generate.main(run)
    progress = [event for event in run.tail().events if event["type"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 6
    assert progress[-1]["eta_s"] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"n": 0}, "at least one answer"),
        ({"temperature": -1}, "at least one answer"),
        ({"top_p": 0}, "at least one answer"),
        ({"colour": "red"}, "incomplete or of another version"),
        ({"n": "many"}, "incomplete or of another version"),
        ({"model": None}, "incomplete or of another version"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path: Path, args: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        generate.main(make_run(tmp_path, **args))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "There are no prompts"),
        (b"not json\n", "Row 1 of prompts.jsonl is no JSON"),
        (b'{"prompt_id": "x"}\n', "Row 1 of prompts.jsonl is no prompt"),
        (b'{"prompt_id": "x", "messages": [{"role": "user", "content": "a"}]}\n[]\n', "Row 2 of prompts.jsonl is no prompt"),
    ],
)
def test_bad_prompts_are_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    run = make_run(tmp_path)
    (run.path / "prompts.jsonl").write_bytes(content)
    with pytest.raises(RunError, match="has changed since"):
        generate.main(run)
    config = run.config()
    config["data"]["sha256"] = sha256_of(run.path / "prompts.jsonl")
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=words):
        generate.main(run)


def start(run: RunDir, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "labeling.generate", str(run.path)], cwd=ROOT, env={**os.environ, **env})


def test_an_endpoint_as_a_run_of_its_own_process(tmp_path: Path) -> None:
    """The key reaches the child by its environment alone; what the server cannot do is said in the result."""
    texts = iter(f"answer {i}" for i in range(100))
    with openai_server(FakeEngine(lambda r: next(texts))) as server:
        spec = ModelSpec("endpoint", "m", url=server.url(), key_env="STUDIO_KEY_TEST")
        run = make_run(tmp_path, model=spec.to_json())
        process = start(run, STUDIO_KEY_TEST="sk-secret-123")
        assert process.wait() == 0
        assert len(written(run)) == 6
        assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer sk-secret-123"}
    files = [file.read_text() for file in run.path.iterdir()]
    assert not [text for text in files if "sk-secret-123" in text]
    assert run.tail().events[-1]["status"] == "finished"


def test_a_stop_before_the_model_is_loaded_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "open_engine", lambda spec: pytest.fail("it was opened"))
    run = make_run(tmp_path)
    run.request_stop()
    with pytest.raises(Stopped, match="nothing was written"):
        generate.main(run)


def test_the_result_counts_what_is_missing_and_why_over_all_starts(tmp_path: Path, use: Any) -> None:
    """12 asked: of "one" all say the same, "two" has an empty and a cut-off answer, "three" fails; 4 + 1 + 3 + 4 = 12."""

    def answer(request: GenRequest) -> str | EngineError:
        match request.messages[-1].content, request.sample_index:
            case "one", _:
                return "the same"
            case "two", 0:
                return ""
            case "two", 1:
                return "word " * 50
            case "three", _:
                return EngineError("the server is out of breath")
        return numbered(request)

    run = make_run(tmp_path, prompts=("one", "two", "three"), n=4)
    use(FakeEngine(answer))
    counted = ("prompts", "asked", "completions", "duplicates", "errors", "truncated", "empty")
    result = generate.main(run)
    assert {name: result[name] for name in counted} == {
        "prompts": 3, "asked": 12, "completions": 5, "duplicates": 3, "errors": 4, "truncated": 1, "empty": 1,
    }  # fmt: skip
    assert result["first_error"] == "the server is out of breath"
    again = generate.main(run)
    assert {name: again[name] for name in counted} == {name: result[name] for name in counted}
    use(FakeEngine(lambda r: f"now {numbered(r)}"))
    mended = generate.main(run)
    assert (mended["completions"], mended["duplicates"], mended["errors"], mended["truncated"], mended["empty"]) == (12, 0, 0, 1, 1)


def test_an_endpoint_that_is_down_fails_the_run_in_words(tmp_path: Path) -> None:
    run = make_run(tmp_path, model=ModelSpec("endpoint", "m", url="http://127.0.0.1:9/v1").to_json())
    assert start(run).wait() == 1
    error = next(event for event in run.tail().events if event["type"] == "error")
    assert error["message"] == "Nothing answers at http://127.0.0.1:9; start the server there or correct the URL."


@pytest.mark.model
@pytest.mark.slow
def test_kill_stop_and_restart_with_a_real_model(tmp_path: Path) -> None:
    from tiny_model import save_model  # isort: skip

    model = ModelSpec("local", str(save_model(tmp_path / "tiny", context=2048))).to_json()
    settings = {"model": model, "n": 2, "max_new_tokens": 160, "temperature": 1.0}
    run = make_run(tmp_path, prompts=[f"prompt {i}" for i in range(100)], **settings)
    process = start(run)
    while not (run.path / "completions.jsonl").exists() or len(written_so_far(run)) < 20:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = written_so_far(run)

    process = start(run)
    while len(written_so_far(run)) < len(kept) + 20:
        assert process.poll() is None
        time.sleep(0.02)
    run.request_stop()
    assert process.wait() == 0
    events = run.tail().events
    assert events[-1]["status"] == "stopped"
    stopped = written_so_far(run)
    assert stopped[: len(kept)] == kept
    assert next(e for e in events if e["type"] == "result")["completions"] == len(stopped) < 200

    (run.path / "stop").unlink()
    assert start(run).wait() == 0
    rows = written(run)
    assert len(rows) == 200
    assert len({(row["prompt_id"], row["text"].strip()) for row in rows}) == 200
    again = make_run(tmp_path / "again", prompts=[f"prompt {i}" for i in range(100)], **settings)
    assert start(again).wait() == 0
    assert {row["completion_id"] for row in written(again)} == {row["completion_id"] for row in rows}  # as if nothing had happened


def written_so_far(run: RunDir) -> list[dict[str, Any]]:
    raw = (run.path / "completions.jsonl").read_bytes()
    return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
