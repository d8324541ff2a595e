"""The model worker as a real process: JSON lines in, JSON lines out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.engine import GenRequest, LabelRequest, Message, ModelSpec
from training import serve, wire

from tiny_model import save_adapter, save_model  # isort: skip

pytestmark = pytest.mark.model
ROOT = Path(__file__).resolve().parent.parent


class Pipe:
    """Speaks to a worker; `told` is everything it said, in order."""

    def __init__(self, log: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "training.serve", "--log", str(log), *flags],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self.told: list[dict[str, Any]] = []

    def send(self, **said: Any) -> None:
        self.raw(json.dumps(said).encode() + b"\n")

    def raw(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        self.told.append(json.loads(line))
        return self.told[-1]

    def until_ended(self, *ids: str) -> dict[str, list[dict[str, Any]]]:
        """All that `told` holds about each of these requests once they have ended well; one that fails is not waited for."""
        while True:
            about = {id: [said for said in self.told if said["id"] == id] for id in ids}
            assert not [said for lines in about.values() for said in lines if said["type"] == "error"]
            if all(lines and lines[-1]["type"] == "done" for lines in about.values()):
                return about
            self.read()

    def until_last(self, id: str | None) -> list[dict[str, Any]]:
        """Everything said about a request, to its end; what is said about others is kept in `told`."""
        mine: list[dict[str, Any]] = []
        while not mine or mine[-1]["type"] not in ("done", "error"):
            said = self.read()
            if said["id"] == id:
                mine.append(said)
        return mine

    def ask(self, id: str, **said: Any) -> list[dict[str, Any]]:
        self.send(id=id, **said)
        return self.until_last(id)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serve")
    for i in range(3):
        save_model(root / f"base{i}", seed=i)
    save_adapter(root / "adapter", root / "base0")
    return root


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Iterator[Pipe]:
    made = Pipe(folder / "worker.log")
    yield made
    made.close()


def spec(folder: Path, base: str = "base0", adapter: str = "") -> dict[str, Any]:
    return ModelSpec("local", str(folder / base), adapter=str(folder / adapter) if adapter else "").to_json()


def request(text: str = "hello", **changes: Any) -> dict[str, Any]:
    return GenRequest((Message("user", text),), **{"max_new_tokens": 20, "temperature": 0.01, **changes}).to_json()


def text_of(lines: list[dict[str, Any]]) -> str:
    return "".join(line["text"] for line in lines if line["type"] == "piece")


def test_every_operation_answers(pipe: Pipe, folder: Path) -> None:
    assert pipe.ask("p", op="ping")[-1]["value"] == "pong"
    opened = pipe.ask("o", op="open", spec=spec(folder, adapter="adapter"))[-1]
    assert opened["value"]["context"] == 256
    results = pipe.ask("g", op="generate", spec=spec(folder), requests=[request(), request(sample_index=1), request("x" * 500)])
    assert [line["type"] for line in results] == ["result"] * 3 + ["done"]
    by_index = {line["result"]["index"]: line["result"] for line in results[:-1]}
    assert by_index[0]["text"]
    assert "shorten the prompt" in by_index[2]["error"]
    streamed = pipe.ask("s", op="stream", spec=spec(folder), requests=[request()])
    assert text_of(streamed) == by_index[0]["text"]
    assert streamed[-2]["result"]["finish_reason"] == "length"
    adapted = pipe.ask("s2", op="stream", spec=spec(folder, adapter="adapter"), requests=[request()])
    assert text_of(adapted) != text_of(streamed)
    bare = pipe.ask("s3", op="stream", spec=spec(folder, adapter="adapter"), requests=[request(adapter="")])
    assert text_of(bare) == text_of(streamed)
    label = wire.label_request_to_json(LabelRequest((Message("user", "A or B?"),)))
    said = pipe.ask("l", op="label_logprobs", spec=spec(folder), requests=[label, label])
    assert all(odds < 0 for line in said[:-1] for odds in line["result"]["logprobs"])
    assert (
        pipe.ask("c", op="count_tokens", spec=spec(folder), messages=[{"role": "user", "content": "hello"}])[-1]["value"]["tokens"]
        > 5
    )
    status = pipe.ask("st", op="status")[-1]["value"]
    assert status["pid"] == pipe.process.pid
    assert status["models"] == [{"base": str(folder / "base0"), "quantize": False}]
    assert status["memory_mb"] > 50
    assert status["busy"] == 0


def test_bad_lines_are_answered_and_the_worker_lives_on(pipe: Pipe, folder: Path) -> None:
    for line in (
        b"not json\n",
        b"[1, 2]\n",
        b'{"op": "ping"}\n',
        b'{"id": 3, "op": "ping"}\n',
        b"\xff\xfe\n",
        b"\n",
        b"[" * 100_000 + b"\n",
    ):
        pipe.raw(line)
        assert "is no request" in pipe.until_last(None)[-1]["message"]
    for wrong in (
        {"op": "destroy"},
        {"op": "generate"},
        {"op": "generate", "spec": {"kind": "local", "colour": "red"}},
        {"op": "generate", "spec": spec(folder), "requests": [{"messages": "hi"}]},
        {"op": "label_logprobs", "spec": spec(folder), "requests": 7},
        {"op": "generate", "spec": ModelSpec("endpoint", "m", url="http://x/v1").to_json(), "requests": []},
        {"op": "open", "spec": ModelSpec("local", "/no/such/folder").to_json()},
        {"op": "open", "spec": ModelSpec("local", str(folder / "base0"), adapter="/no/such/adapter").to_json()},
    ):
        (said,) = pipe.ask("bad", **wrong)
        assert said["type"] == "error", wrong
        assert said["message"]
    assert pipe.ask("still", op="ping")[-1]["value"] == "pong"
    assert text_of(pipe.ask("works", op="stream", spec=spec(folder), requests=[request()]))


def test_streams_of_base_adapter_and_another_base_run_at_the_same_time(pipe: Pipe, folder: Path) -> None:
    specs = {"a": spec(folder), "b": spec(folder, adapter="adapter"), "c": spec(folder, "base1")}
    alone = {id: text_of(pipe.ask(f"{id}0", op="stream", spec=s, requests=[request(max_new_tokens=60)])) for id, s in specs.items()}
    pipe.told.clear()
    for id, s in specs.items():
        pipe.send(id=id, op="stream", spec=s, requests=[request(max_new_tokens=60)])
    told = pipe.until_ended(*specs)
    order = "".join(line["id"] for line in pipe.told if line["type"] == "piece")
    first_end = min(order.rindex(id) for id in specs)
    assert all(order.index(id) < first_end for id in specs), order  # each had begun before any ended
    assert {id: text_of(lines) for id, lines in told.items()} == alone


def test_cancel_in_the_middle_ends_that_request_alone(pipe: Pipe, folder: Path) -> None:
    pipe.told.clear()
    pipe.send(id="long", op="stream", spec=spec(folder), requests=[request(max_new_tokens=240)])
    pipe.send(id="other", op="generate", spec=spec(folder), requests=[request(max_new_tokens=30, sample_index=i) for i in range(3)])
    while (said := pipe.read())["id"] != "long":
        assert said["type"] != "error", said
    assert said["type"] == "piece"
    pipe.send(id="stop", op="cancel", target="long")
    told = pipe.until_ended("long", "other", "stop")
    cut = next(line["result"] for line in told["long"] if line["type"] == "result")
    assert cut["finish_reason"] == "cancelled"
    assert cut["tokens"] < 240
    assert [line["result"]["finish_reason"] for line in told["other"] if line["type"] == "result"] == ["length"] * 3


def test_cancel_of_what_has_not_begun_and_of_what_is_unknown(pipe: Pipe, folder: Path) -> None:
    lines = [
        {"id": "first", "op": "generate", "spec": spec(folder), "requests": [request(max_new_tokens=200)]},
        {"id": "second", "op": "generate", "spec": spec(folder), "requests": [request(max_new_tokens=200)]},
        {"id": "x", "op": "cancel", "target": "second"},
        {"id": "y", "op": "cancel", "target": "nobody"},
    ]
    pipe.told.clear()
    pipe.raw(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    ended = pipe.until_ended(*(line["id"] for line in lines))
    assert ended["second"][0]["result"]["finish_reason"] == "cancelled"
    assert ended["first"][0]["result"]["finish_reason"] == "length"


def test_two_bases_stay_and_the_third_pushes_the_oldest_out(pipe: Pipe, folder: Path) -> None:
    for base in ("base0", "base1", "base0", "base2"):
        assert text_of(pipe.ask(f"s-{base}", op="stream", spec=spec(folder, base), requests=[request()]))
    held = [model["base"] for model in pipe.ask("st", op="status")[-1]["value"]["models"]]
    assert str(folder / "base2") in held
    assert len(held) <= 2
    assert str(folder / "base1") not in held


def test_what_libraries_print_goes_to_the_log(pipe: Pipe, folder: Path) -> None:
    assert all(set(said) >= {"id", "type"} for said in pipe.told)
    assert "loading" in pipe.log.read_text()
    assert oct(pipe.log.stat().st_mode)[-3:] == "600"


def test_it_ends_when_stdin_does_even_in_the_middle(folder: Path, tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "log")
    try:
        pipe.ask("o", op="open", spec=spec(folder))
        pipe.send(id="long", op="stream", spec=spec(folder), requests=[request(max_new_tokens=240)])
        pipe.read()
        assert pipe.process.stdin is not None
        pipe.process.stdin.close()
        assert pipe.process.wait() == 0
    finally:
        pipe.close()


def test_a_line_that_memory_runs_out_over_is_answered_and_what_cannot_be_read_at_all_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that is gone would leave a worker that looks alive and answers nobody."""
    real, lines = serve.json.loads, [b'{"id": "huge", "op": "status"}\n', b'{"id": "next", "op": "ping"}\n']

    def loads(raw: bytes) -> Any:
        if b"huge" in raw:
            raise MemoryError
        return real(raw)

    class Source(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            if not lines:
                raise OSError(5, "Input/output error")
            return lines.pop(0)

    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended

    monkeypatch.setattr(serve.json, "loads", loads)
    monkeypatch.setattr(os, "_exit", end)
    said = io.BytesIO()
    with pytest.raises(Ended):
        serve.Worker(Source(), said).read()
    first, second = map(real, said.getvalue().splitlines())
    assert (first["id"], first["type"]) == (None, "error")
    assert (second["id"], second["value"]) == ("next", "pong")
