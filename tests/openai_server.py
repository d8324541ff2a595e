"""A small OpenAI-compatible server over any Engine; it can also be slow, wrong, down or hostile, each in its own folder of the URL.

    with openai_server(FakeEngine("Paris.")) as server:
        EndpointEngine(ModelSpec("endpoint", "m", url=server.url()))            # behaves
        EndpointEngine(ModelSpec("endpoint", "m", url=server.url("html")))      # answers with a web page

Every request is kept in `server.asked` with its headers. The engine is asked by one thread at a time.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data.engine import GenRequest, LabelRequest, Message


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class OpenAIServer:
    engine: Any
    http: ThreadingHTTPServer
    asked: list[Asked] = field(default_factory=list)
    failures: int = 0  # the folder "flaky" fails so many times before it behaves
    retry_after: str = ""
    release: threading.Event = field(default_factory=threading.Event)  # what "silent" and "stalls" wait for
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, behaviour: str = "ok", path: str = "/v1") -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{behaviour}{path}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.asked]


@contextmanager
def openai_server(engine: Any) -> Iterator[OpenAIServer]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    server = OpenAIServer(engine, http)
    http.studio = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    @property
    def state(self) -> OpenAIServer:
        return self.server.studio  # type: ignore[attr-defined, no-any-return]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.asked.append(Asked(self.path, dict(self.headers.items()), body))
        behaviour = self.path.split("/")[1]
        act: Callable[[dict[str, Any]], None] = getattr(self, f"be_{behaviour.replace('-', '_')}", self.be_status)
        try:
            act(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # --- behaving ---------------------------------------------------------------------------------------------------------------

    def be_ok(self, body: dict[str, Any], logprobs: bool = True, **choice: Any) -> None:
        if not self.path.endswith(("/v1/chat/completions", "/v1/completions")):
            self.send(404, {"error": {"message": "no such route"}})
        elif body.get("stream"):
            self.stream(body)
        else:
            self.send(200, self.completion(body, logprobs) | choice)

    def completion(self, body: dict[str, Any], logprobs: bool) -> dict[str, Any]:
        chat = self.path.endswith("/chat/completions")
        asks_logprobs = logprobs and (body.get("logprobs") if chat else body.get("logprobs") is not None)
        with self.state.lock:
            if asks_logprobs:
                return {"choices": [self.label_choice(body, chat)]}
            (result,) = self.state.engine.generate([request_of(body)])
        if result.finish_reason == "error":
            return {"error": {"message": result.error}}
        said = {"message": {"role": "assistant", "content": result.text}} if chat else {"text": result.text}
        choice = {"index": 0, "finish_reason": result.finish_reason, "logprobs": None, **said}
        return {"object": "completion", "choices": [choice], "usage": {"completion_tokens": result.tokens}}

    def label_choice(self, body: dict[str, Any], chat: bool) -> dict[str, Any]:
        request = request_of(body)
        (result,) = self.state.engine.label_logprobs([LabelRequest(request.messages)])
        top = [{"token": label, "logprob": max(odds, -9999.0)} for label, odds in zip("AB", result.logprobs, strict=True)]
        if chat:
            content = [{"token": result.text, "logprob": -0.1, "top_logprobs": top}]
            return {"message": {"content": result.text}, "finish_reason": "length", "logprobs": {"content": content}}
        plain = [{entry["token"]: entry["logprob"] for entry in top}]
        return {"text": result.text, "finish_reason": "length", "logprobs": {"top_logprobs": plain}}

    def stream(self, body: dict[str, Any], cut: int | None = None, stall: int | None = None) -> None:
        """`cut`: break off after so many pieces; `stall`: fall silent after so many."""
        chat = self.path.endswith("/chat/completions")
        self.start_stream()
        with self.state.lock:
            for n, piece in enumerate(self.state.engine.stream(request_of(body))):
                if n == cut:
                    self.close_connection = True
                    return
                if n == stall:
                    self.state.release.wait()
                self.event({"choices": [{"delta": {"content": piece}} if chat else {"text": piece}]})
        self.event({"choices": [{"delta": {}, "text": "", "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": {"completion_tokens": 3}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def start_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b": keep alive\n\ndata: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def send(self, status: int, value: Any, content_type: str = "application/json", **headers: str) -> None:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(raw)))
        for name, held in headers.items():
            self.send_header(name.replace("_", "-"), held)
        self.end_headers()
        self.wfile.write(raw)

    # --- misbehaving ------------------------------------------------------------------------------------------------------------

    def be_status(self, body: dict[str, Any]) -> None:
        """/401/v1 and the like; the key that came is thrown back, as some servers do."""
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.send(int(self.path.split("/")[1]), {"error": {"message": f"it went wrong for {key}"}})

    def be_nologprobs(self, body: dict[str, Any]) -> None:
        self.be_ok(body, logprobs=False)

    def be_rejects_logprobs(self, body: dict[str, Any]) -> None:
        if "logprobs" in body:
            self.send(400, {"error": {"message": "top_logprobs is not supported by this model"}})
        else:
            self.be_ok(body)

    def be_rejects_seed(self, body: dict[str, Any]) -> None:
        if "seed" in body or "max_tokens" in body:
            name = "seed" if "seed" in body else "max_tokens: use max_completion_tokens instead"
            self.send(400, {"detail": f"Unsupported parameter {name}"})
        else:
            self.be_ok({**body, "max_tokens": body["max_completion_tokens"]})

    def be_flaky(self, body: dict[str, Any]) -> None:
        with self.state.lock:
            self.state.failures -= 1
            failing = self.state.failures >= 0
        if failing:
            self.send(429, {"error": "slow down"}, **({"Retry_After": self.state.retry_after} if self.state.retry_after else {}))
        else:
            self.be_ok(body)

    def be_html(self, body: dict[str, Any]) -> None:
        self.send(200, b"<!doctype html><title>Welcome</title>", "text/html")

    def be_truncated(self, body: dict[str, Any]) -> None:
        self.send(200, b'{"choices": [{"message": {"content": "Par')

    def be_list(self, body: dict[str, Any]) -> None:
        self.send(200, [1, 2])

    def be_nested(self, body: dict[str, Any]) -> None:
        self.send(200, b"[" * 200_000)

    def be_empty(self, body: dict[str, Any]) -> None:
        self.send(200, {"choices": []})

    def be_shapeless(self, body: dict[str, Any]) -> None:
        self.send(200, {"choices": [{"message": {"content": ["parts"]}, "finish_reason": "stop"}]})

    def be_error200(self, body: dict[str, Any]) -> None:
        self.send(200, {"error": {"message": "the model is not loaded"}})

    def be_filter(self, body: dict[str, Any]) -> None:
        self.send(200, {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]})

    def be_badzip(self, body: dict[str, Any]) -> None:
        self.send(200, b"this is no gzip", Content_Encoding="gzip")

    def be_redirect(self, body: dict[str, Any]) -> None:
        self.send(307, b"", Location=f"http://127.0.0.1:{self.server.server_port}/ok{self.path.removeprefix('/redirect')}")  # type: ignore[attr-defined]

    def be_huge(self, body: dict[str, Any]) -> None:
        self.start_stream()
        for _ in range(4096):
            self.wfile.write(b"x" * 65_536)

    def be_endless(self, body: dict[str, Any]) -> None:
        self.start_stream()
        while True:
            self.event({"choices": [{"delta": {"content": "more "}}]})

    def be_dribble(self, body: dict[str, Any]) -> None:
        """A byte now and then, so that no single silence is long."""
        self.start_stream()
        while True:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.02)

    def be_silent(self, body: dict[str, Any]) -> None:
        self.state.release.wait()
        self.close_connection = True

    def be_stalls(self, body: dict[str, Any]) -> None:
        self.stream(body, stall=2)

    def be_cuts(self, body: dict[str, Any]) -> None:
        self.stream(body, cut=2)

    def be_hangs_up(self, body: dict[str, Any]) -> None:
        self.close_connection = True

    def be_whole(self, body: dict[str, Any]) -> None:
        """No event stream, although one was asked for."""
        self.be_ok({**body, "stream": False})


def request_of(body: dict[str, Any]) -> GenRequest:
    """What the client asked for, as a request to our engine."""
    messages = body.get("messages") or [{"role": "user", "content": body["prompt"]}]
    return GenRequest(
        tuple(Message(m["role"], m["content"]) for m in messages),
        max_new_tokens=body.get("max_tokens", 16),
        temperature=body.get("temperature", 1.0),
        top_p=body.get("top_p", 1.0),
        seed=body.get("seed", 0),
        stop=tuple(body.get("stop", ())),
    )
