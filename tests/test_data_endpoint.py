"""The engine over OpenAI-compatible servers: one that can misbehave, our local engine behind it, and `transformers serve`."""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import free_port

from data.endpoint import EndpointEngine
from data.endpoint_http import EndpointLimits
from data.engine import GenRequest, LabelRequest, Message, ModelSpec
from data.errors import EngineError

from fakes import FakeEngine  # isort: skip
from openai_server import OpenAIServer, openai_server  # isort: skip
from tiny_model import DEMO_MODEL  # isort: skip

KEY = "sk-test-0123456789abcdef"
QUICK = EndpointLimits(attempts=3, connect_s=2, read_s=0.4, total_s=1.5, backoff_s=0.02, max_wait_s=1, max_bytes=200_000)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    fake = FakeEngine(lambda r: f"You said {r.messages[-1].content}", labels={"A": -0.2, "B": -1.8})
    with openai_server(fake) as running:
        yield running


def engine_at(url: str, key: str = "", limits: EndpointLimits = QUICK) -> EndpointEngine:
    return EndpointEngine(ModelSpec("endpoint", "some-model", url=url), key, limits)


def ask(text: str = "hi", **changes: Any) -> GenRequest:
    return GenRequest((Message("user", text),), **{"max_new_tokens": 50, **changes})


def error_of(engine: EndpointEngine, request: GenRequest | None = None) -> str:
    (result,) = engine.generate([request or ask()])
    assert result.finish_reason == "error"
    assert result.error
    assert "\n" not in result.error
    assert "Traceback" not in result.error
    return result.error


# --- what is asked and answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions", "/v1/completions"])
def test_generate_and_stream_in_chat_and_completions(server: OpenAIServer, path: str) -> None:
    engine = engine_at(server.url(path=path))
    results = sorted(engine.generate([ask("one"), ask("two words", max_new_tokens=2)]), key=lambda r: r.index)
    assert [(r.text, r.finish_reason, r.tokens) for r in results] == [("You said one", "stop", 3), ("You said", "length", 2)]
    assert list(engine.stream(ask("one"))) == ["You", " said", " one"]
    kind = "prompt" if path == "/v1/completions" else "messages"
    assert all(kind in body for body in server.bodies)
    assert all(body["model"] == "some-model" for body in server.bodies)


def test_settings_travel_and_every_sample_has_a_seed_of_its_own(server: OpenAIServer) -> None:
    engine = engine_at(server.url(), KEY)
    list(engine.generate([ask(temperature=0.7, top_p=0.9, top_k=5, stop=("END",), sample_index=i) for i in range(4)]))
    first = server.bodies[0]
    assert (first["temperature"], first["top_p"], first["top_k"], first["stop"], first["max_tokens"]) == (0.7, 0.9, 5, ["END"], 50)
    assert len({body["seed"] for body in server.bodies}) == 4
    assert all("n" not in body for body in server.bodies)  # n samples are n requests: servers ignore `n` in silence
    assert not [asked.path for asked in server.asked if "models" in asked.path]
    assert all(asked.headers["Authorization"] == f"Bearer {KEY}" for asked in server.asked)
    list(engine.generate([ask()]))
    assert not {"top_p", "top_k", "stop"} & server.bodies[-1].keys()


def test_many_requests_run_at_once_and_each_answer_has_its_index(server: OpenAIServer) -> None:
    engine = engine_at(server.url())
    results = list(engine.generate([ask(f"number {i}") for i in range(60)]))
    assert {r.index: r.text for r in results} == {i: f"You said number {i}" for i in range(60)}


def test_label_logprobs_sum_the_spellings(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from data.endpoint_logprobs import first_tokens, log_sum

    top = [{"token": t, "logprob": o} for t, o in (("A", -1.0), (" A", -2.0), ("B", -3.0), ("The", -0.5), ("x", None), (3, -1))]
    pairs = list(first_tokens({"content": [{"top_logprobs": top}]}))
    assert log_sum(o for t, o in pairs if t.strip() == "A") == pytest.approx(math.log(math.exp(-1) + math.exp(-2)))
    assert log_sum([]) == -math.inf
    for nonsense in (None, [], {"content": []}, {"content": [{"top_logprobs": None}]}, {"top_logprobs": "x"}, "text"):
        assert list(first_tokens(nonsense)) == []


@pytest.mark.parametrize("path", ["/v1", "/v1/completions"])
def test_label_logprobs_come_back(server: OpenAIServer, path: str) -> None:
    engine = engine_at(server.url(path=path))
    (result,) = engine.label_logprobs([LabelRequest((Message("user", "A or B?"),))])
    assert result.logprobs == pytest.approx((-0.2, -1.8))
    assert result.text == "A"
    assert engine.gives_logprobs is True
    assert engine.notes() == ()


@pytest.mark.parametrize("behaviour", ["nologprobs", "rejects-logprobs"])
def test_a_server_without_logprobs_is_said_to_have_none_and_its_text_is_handed_over(server: OpenAIServer, behaviour: str) -> None:
    server.engine.texts = "B is better"
    engine = engine_at(server.url(behaviour))
    results = list(engine.label_logprobs([LabelRequest((Message("user", f"{i}"),)) for i in range(3)]))
    assert [(r.logprobs, r.text, r.error) for r in results] == [((), "B is better", "")] * 3
    assert engine.gives_logprobs is False
    assert "gives no log-probabilities" in engine.notes()[0]
    before = len(server.asked)
    list(engine.label_logprobs([LabelRequest((Message("user", "again"),))]))
    assert len(server.asked) == before + 1  # it is not asked for them again
    assert server.bodies[-1]["temperature"] == 0


def test_options_that_a_server_rejects_are_left_out_and_said(server: OpenAIServer) -> None:
    engine = engine_at(server.url("rejects-seed"))
    (result,) = engine.generate([ask()])
    assert result.text == "You said hi"
    assert "seed" not in server.bodies[-1]
    assert server.bodies[-1]["max_completion_tokens"] == 50
    assert any("does not take seed" in note for note in engine.notes())
    assert len(server.asked) == 3
    list(engine.generate([ask()]))
    assert len(server.asked) == 4  # learned


def test_a_stream_from_a_server_that_does_not_stream(server: OpenAIServer) -> None:
    assert list(engine_at(server.url("whole")).stream(ask())) == ["You said hi"]


def test_an_adapter_cannot_be_put_on_an_endpoint(server: OpenAIServer) -> None:
    assert "adapter" in error_of(engine_at(server.url()), ask(adapter="/some/adapter"))
    with pytest.raises(EngineError, match="does not tell how many tokens"):
        engine_at(server.url()).count_tokens([Message("user", "x")])


def test_half_a_character_in_a_prompt_is_one_sentence(server: OpenAIServer) -> None:
    engine = engine_at(server.url())
    bad, good = sorted(engine.generate([ask("\ud800"), ask("fine")]), key=lambda r: r.index)
    assert "half a character" in bad.error
    assert good.text == "You said fine"
    with pytest.raises(EngineError, match="half a character"):
        list(engine.stream(ask("\ud800")))


# --- faults ---------------------------------------------------------------------------------------------------------------------

FAULTS = [
    ("html", "answered with a web page"),
    ("truncated", "no JSON, or with half of it"),
    ("nested", "no JSON"),
    ("list", "something that is no completion"),
    ("empty", "without a completion in it"),
    ("shapeless", "without a text in it"),
    ("error200", "It says: the model is not loaded"),
    ("filter", "content filter"),
    ("badzip", "damaged data"),
    ("huge", "sent more than was asked for"),
    ("endless", "sent more than was asked for"),
    ("dribble", "was not done within 1.5 seconds"),
    ("silent", "was silent for 0.4 seconds. It was tried 3 times."),
    ("hangs-up", "broke the connection off. It was tried 3 times."),
    ("redirect", "sends requests on to http://127.0.0.1"),
    ("400", "refused the request (400). It says: it went wrong for ***"),
    ("401", "refused the key (401)"),
    ("403", "refused the key (403)"),
    ("404", "no such address or model (404)"),
    ("429", "has too many requests (429). It says: it went wrong for ***. It was tried 3 times."),
    ("500", "failed (500)"),
    ("503", "failed (503)"),
]


@pytest.mark.parametrize(("behaviour", "words"), FAULTS)
def test_faults_are_one_sentence_without_the_key(
    server: OpenAIServer, behaviour: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = engine_at(server.url(behaviour), KEY)
    said = error_of(engine)
    assert words.removesuffix(".") in said
    assert KEY not in said
    assert KEY not in caplog.text
    assert KEY not in repr(engine) + repr(engine.http) + repr(vars(engine))
    with pytest.raises(EngineError) as caught:
        list(engine.stream(ask()))
    assert KEY not in str(caught.value)
    if behaviour in ("401", "403", "404", "400", "redirect", "html", "empty"):
        assert len(server.asked) == 2  # once for each: it will not pass


def test_a_redirect_is_not_followed_with_the_key(server: OpenAIServer) -> None:
    error_of(engine_at(server.url("redirect"), KEY))
    assert [asked.path for asked in server.asked] == ["/redirect/v1/chat/completions"]


def test_without_a_key_401_asks_for_one(server: OpenAIServer) -> None:
    assert "wants a key (401)" in error_of(engine_at(server.url("401")))


def test_nobody_there_and_unknown_hosts() -> None:
    port = free_port()
    assert f"Nothing answers at http://127.0.0.1:{port}; start the server" in error_of(engine_at(f"http://127.0.0.1:{port}/v1"))
    assert "The host no-such-host.invalid cannot be found" in error_of(engine_at("http://no-such-host.invalid/v1"))


def test_something_that_speaks_no_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert "broke the connection off" in error_of(engine_at(f"http://127.0.0.1:{listener.getsockname()[1]}/v1"))
        assert "prove its identity" in error_of(engine_at(f"https://127.0.0.1:{listener.getsockname()[1]}/v1"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with http"),
        ("localhost:8000/v1", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("ftp://host/v1", "must begin with http"),
        ("http://", "must begin with http"),
        ("http://me:secret@host/v1", "user name or password"),
        ("http://[broken/v1", "cannot be read"),
    ],
)
def test_urls_that_cannot_work(url: str, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        engine_at(url)
    assert "secret" not in str(caught.value)


def test_keys_that_cannot_be_sent_are_refused_without_being_shown() -> None:
    for key in ("sk two", "sk\nHost: evil", "schlüssel"):
        with pytest.raises(EngineError, match="The key holds") as caught:
            engine_at("http://127.0.0.1:1/v1", key)
        assert key not in str(caught.value)


def test_retries_wait_as_long_as_the_server_says(server: OpenAIServer) -> None:
    server.failures, server.retry_after = 2, "0.3"
    started = time.monotonic()
    (result,) = engine_at(server.url("flaky")).generate([ask()])
    assert result.text == "You said hi"
    assert time.monotonic() - started >= 0.6
    assert len(server.asked) == 3


def test_a_server_that_wants_a_long_rest_is_left_alone(server: OpenAIServer) -> None:
    server.failures, server.retry_after = 99, "3600"
    assert "left alone for 3600 seconds" in error_of(engine_at(server.url("flaky")))
    assert len(server.asked) == 1


def test_retry_after_as_a_date() -> None:
    from email.utils import formatdate

    from data.endpoint_http import _retry_after

    def of(value: str) -> float | None:
        return _retry_after(httpx.Response(429, headers={"Retry-After": value}))

    soon = of(formatdate(time.time() + 30, usegmt=True))
    assert soon is not None
    assert 25 < soon <= 31
    assert [of(v) for v in ("2.5", "Wed, 01 Jan 2020 00:00:00 GMT", "tomorrow", "", "nan", "inf", "-3")] == [2.5, 0.0, *[None] * 5]


def test_an_error_that_would_befall_all_is_met_once_not_a_thousand_times(server: OpenAIServer) -> None:
    results = list(engine_at(server.url("401"), KEY).generate([ask(f"{i}") for i in range(1000)]))
    assert {r.error for r in results} == {results[0].error}
    assert sorted(r.index for r in results) == list(range(1000))
    assert len(server.asked) <= 2 * QUICK.concurrency


def test_a_stream_that_breaks_off_says_so_after_what_came(server: OpenAIServer) -> None:
    server.engine.texts = "one two three four"
    pieces: list[str] = []
    with pytest.raises(EngineError, match="broke its reply off"):
        pieces.extend(engine_at(server.url("cuts")).stream(ask()))
    assert pieces == ["one", " two"]


def test_a_stream_that_stalls_ends_with_a_sentence(server: OpenAIServer) -> None:
    server.engine.texts = "one two three four"
    pieces: list[str] = []
    with pytest.raises(EngineError, match=r"was silent for 0\.4 seconds"):
        pieces.extend(engine_at(server.url("stalls")).stream(ask()))
    assert pieces == ["one", " two"]


# --- cancelling -----------------------------------------------------------------------------------------------------------------

PATIENT = EndpointLimits(read_s=600, total_s=600)


def test_cancel_is_heard_while_the_server_is_silent(server: OpenAIServer) -> None:
    engine = engine_at(server.url("silent"), limits=PATIENT)
    _cancel_once_asked(engine, server, "number")
    results = list(engine.generate([ask(f"number {i}") for i in range(20)]))
    assert [r.finish_reason for r in results] == ["cancelled"] * 20
    _cancel_once_asked(engine, server, "a stream")
    assert list(engine.stream(ask("a stream"))) == []
    _cancel_once_asked(engine, server, "a label")
    assert {r.error for r in engine.label_logprobs([LabelRequest((Message("user", "a label"),))])} == {"It was cancelled."}


def _cancel_once_asked(engine: EndpointEngine, server: OpenAIServer, words: str) -> None:
    """From a thread, and never before there is something to cancel: however slow the machine is, a cancel that came too early
    would cancel nothing."""

    def cancel() -> None:
        while not any(words in body["messages"][-1]["content"] for body in server.bodies) and not server.release.is_set():
            time.sleep(0.01)
        engine.cancel()

    threading.Thread(target=cancel, daemon=True).start()


def test_cancel_cuts_a_stream_so_that_the_server_can_stop(server: OpenAIServer) -> None:
    engine = engine_at(server.url("endless"), limits=PATIENT)
    pieces = []
    for piece in engine.stream(ask(max_new_tokens=10_000_000)):
        pieces.append(piece)
        if len(pieces) == 3:
            engine.cancel()
    assert 3 <= len(pieces) < 10_000
    wait_for_no_readers()


def test_a_stream_left_half_way_is_cut(server: OpenAIServer) -> None:
    stream = engine_at(server.url("endless"), limits=PATIENT).stream(ask(max_new_tokens=10_000_000))
    assert next(stream) == "more "
    stream.close()  # type: ignore[attr-defined]
    wait_for_no_readers()


def wait_for_no_readers() -> None:
    """The thread that read the stream ends, which it only does when its connection was cut."""
    while any(thread.name == "endpoint-stream" for thread in threading.enumerate()):
        time.sleep(0.02)


# --- a real model behind it -----------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_our_own_model_behind_an_endpoint_answers_as_it_does_locally(tmp_path: Path) -> None:
    from training.engines import open_engine

    from tiny_model import save_model  # isort: skip

    local = open_engine(ModelSpec("local", str(save_model(tmp_path / "tiny"))))
    with openai_server(local) as server:
        remote = open_engine(ModelSpec("endpoint", "tiny", url=server.url(), key_env="NO_SUCH_VARIABLE"))
        greedy = ask("hello", temperature=0, max_new_tokens=20)
        (here,), (there,) = local.generate([greedy]), remote.generate([greedy])
        assert (here.text, here.finish_reason, here.tokens) == (there.text, there.finish_reason, there.tokens)
        assert "".join(remote.stream(greedy)) == here.text
        request = LabelRequest((Message("user", "A or B?"),))
        (mine,), (theirs,) = local.label_logprobs([request]), remote.label_logprobs([request])
        assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-6)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(not (DEMO_MODEL / "config.json").exists(), reason="no demo model: `python -m training.pretrain_demo`")
@pytest.mark.parametrize("path", ["/v1", "/v1/completions"])
def test_transformers_serve(transformers_serve: str, path: str) -> None:
    """A server we did not write: it ignores `n` and log-probabilities in silence."""
    engine = EndpointEngine(ModelSpec("endpoint", str(DEMO_MODEL), url=transformers_serve + path))
    question = "What is the capital of France?" if path == "/v1" else "<|user|>What is the capital of France?<|end|><|assistant|>"
    results = list(engine.generate([ask(question, temperature=1.0, sample_index=i, max_new_tokens=30) for i in range(6)]))
    assert not [r.error for r in results if r.error]
    assert all(r.text for r in results)
    assert len({r.text for r in results}) > 1
    (greedy,) = engine.generate([ask(question, temperature=0.0, max_new_tokens=30)])
    streamed = "".join(engine.stream(ask(question, temperature=0.0, max_new_tokens=30)))
    assert "Paris" in greedy.text
    assert "Paris" in streamed
    (label,) = engine.label_logprobs([LabelRequest((Message("user", question),))])
    assert label.error == ""
    assert label.logprobs == ()
    assert label.text
    assert "gives no log-probabilities" in engine.notes()[0]


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        str(DEMO_MODEL),
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            while True:
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.3)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
