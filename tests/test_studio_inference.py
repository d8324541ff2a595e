"""Models for the pages: a real worker behind the client, from many threads, killed, unloaded; and endpoints without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data.engine import Engine, GenRequest, LabelRequest, Message, ModelSpec
from data.errors import EngineError
from data.settings import Settings
from studio.inference import Inference, InferenceStatus

from fakes import FakeEngine  # isort: skip
from openai_server import openai_server  # isort: skip
from tiny_model import save_adapter, save_model  # isort: skip

ROOT = Path(__file__).resolve().parent.parent


def ask(text: str = "hello", **changes: Any) -> GenRequest:
    return GenRequest((Message("user", text),), **{"max_new_tokens": 20, "temperature": 0.01, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inference")
    save_adapter(root / "adapter", save_model(root / "base"))
    return root


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inference]:
    made = Inference(Settings(home=tmp_path_factory.mktemp("home") / "workspace"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def base(folder: Path) -> ModelSpec:
    return ModelSpec("local", str(folder / "base"))


def test_importing_it_loads_no_torch() -> None:
    code = "import studio.inference, sys; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_endpoint_needs_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inference = Inference(Settings(home=tmp_path))
    with openai_server(FakeEngine("fine words", labels={"A": -0.5, "B": -1.0})) as server:
        spec = ModelSpec("endpoint", "m", url=server.url(), key_env="STUDIO_TEST_KEY")
        monkeypatch.setenv("STUDIO_TEST_KEY", "sk-from-the-environment")
        assert list(inference.stream(spec, ask())) == ["fine", " words"]
        assert [r.text for r in inference.generate(spec, [ask(), ask()], "sk-typed")] == ["fine words"] * 2
        assert [r.logprobs for r in inference.label_logprobs(spec, [LabelRequest((Message("user", "x"),))])] == [(-0.5, -1.0)]
        sent = [asked.headers["Authorization"] for asked in server.asked]
        assert sent[:3] == ["Bearer sk-from-the-environment", "Bearer sk-typed", "Bearer sk-typed"]
    with pytest.raises(EngineError, match="Nothing answers"):
        list(inference.stream(spec, ask()))
    assert inference.status() == InferenceStatus()
    inference.close()


@pytest.mark.model
def test_nothing_runs_until_the_first_request_and_unload_ends_it(inference: Inference, base: ModelSpec) -> None:
    inference.unload()  # what a test before this one may have left
    assert inference.status() == InferenceStatus()
    model, seen = _opened(inference, base)
    assert seen & {f"loading {base.base}", "starting"}, "the status is there while a model loads"
    status = inference.status()
    assert status.running
    assert status.models == (base.base,)
    assert status.memory_mb > 50
    assert status.busy == 0
    inference.unload()
    with pytest.raises(ProcessLookupError):
        os.kill(status.pid, 0)
    assert inference.status() == InferenceStatus()
    assert "".join(model.stream(ask()))  # a handle outlives the worker: the next request starts another
    assert inference.status().pid not in (0, status.pid)


def _opened(inference: Inference, spec: ModelSpec) -> tuple[Engine, set[str]]:
    """And what the worker said it was doing meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        opening = thread.submit(inference.open, spec)
        seen = set()
        while not opening.done():
            seen.add(inference.status().doing)
            time.sleep(0.01)
    return opening.result(), seen


@pytest.mark.model
def test_a_handle_is_an_engine(inference: Inference, folder: Path, base: ModelSpec) -> None:
    from training.local_engine import LocalEngine

    local, model = LocalEngine(base), inference.open(base)
    requests = [ask(), ask(sample_index=1, temperature=1.0), ask(adapter=str(folder / "adapter")), ask("x" * 500)]
    mine = {r.index: r for r in local.generate(requests)}
    assert {r.index: r for r in model.generate(requests)} == mine
    assert "".join(model.stream(requests[1])) == mine[1].text
    labels = [LabelRequest((Message("user", "A or B?"),)), LabelRequest((Message("user", "x" * 500),))]
    mine_too, theirs = ({r.index: r for r in e.label_logprobs(labels)} for e in (local, model))
    assert theirs == mine_too
    assert model.count_tokens([Message("user", "hello")]) == local.count_tokens([Message("user", "hello")])
    with pytest.raises(EngineError, match="shorten the prompt"):
        list(model.stream(requests[3]))


@pytest.mark.model
def test_what_cannot_be_opened_is_one_sentence(inference: Inference, folder: Path, base: ModelSpec) -> None:
    for spec, words in (
        (ModelSpec("local", "/no/such/folder"), "There is no model folder"),
        (ModelSpec("local", base.base, adapter=str(folder / "none")), "There is no adapter folder"),
    ):
        with pytest.raises(EngineError, match=words):
            inference.open(spec)
    assert "".join(inference.stream(base, ask()))


@pytest.mark.model
def test_many_threads_at_once_get_their_own_answers(inference: Inference, base: ModelSpec) -> None:
    prompts = [f"prompt {i % 10}" for i in range(40)]
    expected = {p: "".join(inference.stream(base, ask(p))) for p in set(prompts)}
    assert len(set(expected.values())) > 5
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda p: "".join(inference.stream(base, ask(p))), prompts))
    assert found == [expected[p] for p in prompts]


@pytest.mark.model
def test_two_models_stream_at_the_same_time(inference: Inference, folder: Path, base: ModelSpec) -> None:
    inference.open(base)
    came: list[str] = []

    def read(name: str, spec: ModelSpec) -> None:
        for _ in inference.stream(spec, ask(max_new_tokens=120)):
            came.append(name)

    specs = {"base": base, "adapter": ModelSpec("local", base.base, adapter=str(folder / "adapter"))}
    threads = [threading.Thread(target=read, args=item) for item in specs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = min(len(came) - 1 - came[::-1].index(name) for name in specs)
    assert all(came.index(name) < last for name in specs), came


@pytest.mark.model
def test_cancel_ends_one_handles_stream_or_all(inference: Inference, base: ModelSpec) -> None:
    one, two = inference.open(base), inference.open(base)
    long = ask(max_new_tokens=240)
    whole = "".join(one.stream(long))
    first, second = one.stream(long), two.stream(long)
    begun = [next(first), next(second)]
    one.cancel()
    cut = begun[0] + "".join(first)
    assert whole.startswith(cut)
    assert cut != whole
    assert begun[1] + "".join(second) == whole
    third = two.stream(long)
    next(third)
    inference.cancel()
    assert len("".join(third)) < len(whole) - 1


@pytest.mark.model
def test_a_stream_left_half_way_ends_in_the_worker(inference: Inference, base: ModelSpec) -> None:
    stream = inference.stream(base, ask(max_new_tokens=240))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    while inference.status().busy:
        time.sleep(0.01)


@pytest.mark.model
def test_a_killed_worker_is_said_to_everybody_and_started_anew(inference: Inference, base: ModelSpec) -> None:
    inference.open(base)
    streams = [inference.stream(base, ask(max_new_tokens=240)) for _ in range(3)]
    for stream in streams:
        next(stream)
    pid = inference.status().pid
    assert pid, "0 would be this process and all that belong to it"
    os.kill(pid, signal.SIGKILL)
    for stream in streams:
        with pytest.raises(EngineError, match=r"ended in the middle of this .* ask again"):
            list(stream)
    assert "".join(inference.stream(base, ask()))


@pytest.mark.model
def test_unloading_while_somebody_reads_is_said_to_them(inference: Inference, base: ModelSpec) -> None:
    stream = inference.stream(base, ask(max_new_tokens=240))
    next(stream)
    inference.unload()
    with pytest.raises(EngineError, match="unloaded to make room"):
        list(stream)


@pytest.mark.model
def test_the_worker_ends_when_the_app_is_killed(tmp_path: Path, base: ModelSpec) -> None:
    code = (
        "import sys, time; from pathlib import Path; from data.engine import ModelSpec; from data.settings import Settings\n"
        "from studio.inference import Inference\n"
        f"i = Inference(Settings(home=Path({str(tmp_path)!r}))); i.open(ModelSpec('local', {base.base!r}))\n"
        "print(i.status().pid, flush=True); time.sleep(600)"
    )
    app = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    worker = int(app.stdout.readline())
    assert worker
    os.kill(worker, 0)
    app.kill()
    app.wait()
    while running(worker):
        time.sleep(0.05)


def running(pid: int) -> bool:
    """A zombie that nobody waits for has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
