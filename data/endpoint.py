"""An engine over any OpenAI-compatible server: vLLM, llama.cpp, `transformers serve`, Ollama, hosted ones.

    engine = EndpointEngine(ModelSpec("endpoint", base="qwen3-8b", url="https://host/v1"), key)

A URL that ends in /completions speaks to a server that only completes text; all others are asked for chat completions. Servers
differ in what they support and often ignore the rest in silence, so: n samples are n requests, each with a seed of its own; the
list of models is never asked for; an option the server rejects is left out from then on, unless leaving it out would change what
was asked; and where no log-probabilities come back, `notes()` says so and label requests fall back to the reply's text. Safe to
use from many threads; `cancel` ends every call under way.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from data.endpoint_call import Call, Cancelled
from data.endpoint_http import DONE, EndpointLimits, Http, RefusedError
from data.endpoint_logprobs import first_tokens, log_sum
from data.endpoint_url import FatalError
from data.engine import FinishReason, GenRequest, GenResult, LabelRequest, LabelResult, Message, ModelSpec
from data.errors import EngineError

R = TypeVar("R")
OPTIONAL = ("seed", "top_k")  # without them a reply is as good; without the temperature or a stop string it is another
TOP_LOGPROBS = 20
FALLBACK_TOKENS = 16  # of the reply that is read where there are no log-probabilities
WAS_CANCELLED = "It was cancelled."


class EndpointEngine:
    """One model of one server. FatalError (an EngineError) for a URL or key that can never work."""

    def __init__(self, spec: ModelSpec, key: str = "", limits: EndpointLimits | None = None) -> None:
        self.spec = spec
        self.limits = limits or EndpointLimits()
        url = spec.url.strip().rstrip("/")
        self.chat = url.endswith("/chat/completions") or not url.endswith("/completions")
        self.path = "/chat/completions" if self.chat else "/completions"
        self.http = Http(url.removesuffix("/completions").removesuffix("/chat"), key, self.limits)
        self.gives_logprobs: bool | None = None  # None = not asked yet
        self._left_out: set[str] = set()
        self._token_limit = "max_tokens"
        self._top_logprobs = TOP_LOGPROBS
        self._calls: set[Call] = set()  # without a lock: the collector may end one that was left half-way, in any thread and line

    def notes(self) -> tuple[str, ...]:
        """What a person should know about this server's answers, in sentences."""
        said = []
        if self.gives_logprobs is False:
            said.append(f"{self.http.where} gives no log-probabilities, so labels are read from its text.")
        said += [f"{self.http.where} does not take {name}, so it was left out." for name in sorted(self._left_out)]
        if self.http.exposes_key:
            said.append(f"The key travels to {self.http.where} unencrypted; use https outside a trusted network.")
        return tuple(said)

    # --- the contract -----------------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[GenResult]:
        def failed(index: int, error: str) -> GenResult:
            return GenResult(index, "", "error", error=error)

        def cancelled(index: int) -> GenResult:
            return GenResult(index, "", "cancelled")

        return self._spread(len(requests), lambda i, call: self._complete(i, requests[i], call), failed, cancelled)

    def label_logprobs(self, requests: Sequence[LabelRequest]) -> Iterator[LabelResult]:
        def failed(index: int, error: str) -> LabelResult:
            return LabelResult(index, (), error=error)

        def cancelled(index: int) -> LabelResult:
            return LabelResult(index, (), error=WAS_CANCELLED)

        return self._spread(len(requests), lambda i, call: self._label(i, requests[i], call), failed, cancelled)

    def stream(self, request: GenRequest) -> Iterator[str]:
        """Read in a thread of its own, so that a cancel is heard while the server is silent."""
        call = self._begin()
        pieces: queue.Queue[str | EngineError | None] = queue.Queue()

        def read() -> None:
            try:
                for piece in self._pieces(request, call):
                    pieces.put(piece)
                pieces.put(None)
            except Cancelled:
                pieces.put(None)
            except Exception as error:  # as in `_spread`
                pieces.put(EngineError(self._words(error)))

        try:
            threading.Thread(target=read, name="endpoint-stream", daemon=True).start()
            for piece in _until_cancelled(pieces, call):
                if piece is None:
                    return
                if isinstance(piece, EngineError):
                    raise piece
                yield piece
        finally:
            self._end(call)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        raise EngineError("An endpoint does not tell how many tokens a prompt has.")

    def cancel(self) -> None:
        for call in self._calls.copy():
            call.cancel()

    def close(self) -> None:
        self.cancel()
        self.http.close()

    # --- many requests at once --------------------------------------------------------------------------------------------------

    def _begin(self) -> Call:
        call = Call()
        self._calls.add(call)
        return call

    def _end(self, call: Call) -> None:
        """Also when the reader lost interest half-way: what is under way then is cut off."""
        self._calls.discard(call)
        call.cancel()

    def _spread(
        self, count: int, work: Callable[[int, Call], R], failed: Callable[[int, str], R], cancelled: Callable[[int], R]
    ) -> Iterator[R]:
        """`work(i)` for each i in a few threads, results as they come; an error that would befall all ends the rest at once."""
        call = self._begin()
        waiting, done = deque(range(count)), queue.Queue[tuple[int, R]]()
        fatal: list[str] = []

        def labour() -> None:
            while not call.cancelled:
                try:
                    index = waiting.popleft()
                except IndexError:
                    return
                try:
                    result = failed(index, fatal[0]) if fatal else work(index, call)
                except Cancelled:
                    return
                except Exception as error:  # the end of a thread: what is not handed over here would leave the reader waiting
                    if isinstance(error, FatalError):
                        fatal.append(str(error))
                    result = failed(index, self._words(error))
                done.put((index, result))

        missing = set(range(count))
        try:
            for _ in range(min(self.limits.concurrency, count)):
                threading.Thread(target=labour, daemon=True).start()
            for index, result in _until_cancelled(done, call):
                missing.discard(index)
                yield result
                if not missing:
                    return
            for index in sorted(missing):
                yield cancelled(index)
        finally:
            self._end(call)

    def _words(self, error: Exception) -> str:
        if isinstance(error, EngineError):
            return str(error)
        if isinstance(error, UnicodeError):
            return "The prompt holds half a character that cannot be sent; correct its text."
        return f"{self.http.where} could not be asked ({type(error).__name__})."

    # --- one request ------------------------------------------------------------------------------------------------------------

    def _complete(self, index: int, request: GenRequest, call: Call) -> GenResult:
        reply = self._ask(lambda: self._body(request), call)
        choice = self._choice(reply)
        text, reason = self._text(choice), choice.get("finish_reason")
        if reason == "content_filter":
            return GenResult(index, text, "error", error=self._withheld())
        usage = reply.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
        ended: FinishReason = "length" if reason == "length" else "stop"
        return GenResult(index, text, ended, tokens if isinstance(tokens, int) else 0)

    def _pieces(self, request: GenRequest, call: Call) -> Iterator[str]:
        body = {**self._body(request), "stream": True}
        most = 2**18 + 4096 * request.max_new_tokens
        finished = answered = False
        for event in self.http.events(self.path, body, call, most):
            finished = finished or DONE in event
            if not event.get("choices"):
                continue  # a last event may hold the usage alone
            choice = self._choice(event)
            answered, finished = True, finished or bool(choice.get("finish_reason"))
            if choice.get("finish_reason") == "content_filter":
                raise EngineError(self._withheld())
            piece = self._text({**choice, "message": choice.get("delta", choice.get("message"))}, empty_is_fine=True)
            if piece:
                yield piece
        if not finished and not call.cancelled:
            raise EngineError(f"{self.http.where} broke its reply off.")
        if not answered and not call.cancelled:
            raise EngineError(f"{self.http.where} answered without a completion in it.")

    def _withheld(self) -> str:
        return f"{self.http.where} withheld the reply (content filter)."

    def _ask(self, body: Callable[[], dict[str, Any]], call: Call) -> dict[str, Any]:
        """POST; when the server rejects an option that can be spared, once more without it (`body` is asked anew)."""
        for _ in range(len(OPTIONAL) + 3):
            sent = body()
            try:
                return self.http.post(self.path, sent, call)
            except RefusedError as error:
                if not self._adapt(error.said, sent):
                    raise
        raise EngineError(f"{self.http.where} rejects every form of the request.")

    def _adapt(self, said: str, sent: dict[str, Any]) -> bool:
        """Learn from a rejection; whether the next request will differ."""
        if "max_completion_tokens" in said and "max_tokens" in sent:
            self._token_limit = "max_completion_tokens"
            return True
        if "logprobs" in said and "logprobs" in sent:
            if self._top_logprobs > 5:
                self._top_logprobs = 5
                return True
            self.gives_logprobs = False
            return False
        named = [name for name in OPTIONAL if name in said and name in sent]
        self._left_out.update(named)
        return bool(named)

    def _body(self, request: GenRequest) -> dict[str, Any]:
        if request.adapter:
            raise EngineError("An adapter cannot be put on an endpoint's model; name the server's own model instead.")
        body: dict[str, Any] = {"model": self.spec.base, "temperature": request.temperature, **self._prompt(request.messages)}
        body[self._token_limit] = request.max_new_tokens
        if request.top_p < 1:
            body["top_p"] = request.top_p
        if request.top_k > 0:
            body["top_k"] = request.top_k
        if request.stop:
            body["stop"] = list(request.stop)
        body["seed"] = _seed(request)
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _prompt(self, messages: Sequence[Message]) -> dict[str, Any]:
        if self.chat:
            return {"messages": [{"role": m.role, "content": m.content} for m in messages]}
        if len(messages) == 1:
            return {"prompt": messages[0].content}
        turns = [f"{m.role.capitalize()}: {m.content}" for m in messages]
        return {"prompt": "\n\n".join([*turns, "Assistant:"])}

    def _choice(self, reply: dict[str, Any]) -> dict[str, Any]:
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise EngineError(f"{self.http.where} answered without a completion in it.")
        return choices[0]

    def _text(self, choice: dict[str, Any], empty_is_fine: bool = False) -> str:
        message = choice.get("message") if self.chat else choice
        if not isinstance(message, dict):
            raise EngineError(f"{self.http.where} answered without a completion in it.")
        text = message.get("content" if self.chat else "text")
        if text is None and (empty_is_fine or choice.get("finish_reason") in ("length", "content_filter", "tool_calls")):
            return ""
        if not isinstance(text, str):
            raise EngineError(f"{self.http.where} answered without a text in it.")
        return text

    # --- labels -----------------------------------------------------------------------------------------------------------------

    def _label(self, index: int, request: LabelRequest, call: Call) -> LabelResult:
        if self.gives_logprobs is not False:
            found = self._top_tokens(request, call)
            if found:
                self.gives_logprobs = True
                sums = tuple(log_sum(odds for token, odds in found if token.strip() == label) for label in request.labels)
                return LabelResult(index, sums, found[0][0])
            self.gives_logprobs = False
        plain = GenRequest(request.messages, max_new_tokens=FALLBACK_TOKENS, temperature=0.0, adapter=request.adapter)
        result = self._complete(index, plain, call)
        return LabelResult(index, (), result.text, result.error)

    def _top_tokens(self, request: LabelRequest, call: Call) -> list[tuple[str, float]]:
        """The likeliest first tokens with their log-probabilities, likeliest first; [] where the server gives none."""
        one = GenRequest(request.messages, max_new_tokens=1, temperature=1.0, adapter=request.adapter)

        def body() -> dict[str, Any]:
            wanted = {"logprobs": True, "top_logprobs": self._top_logprobs} if self.chat else {"logprobs": self._top_logprobs}
            return {**self._body(one), **wanted}

        try:
            given = self._choice(self._ask(body, call)).get("logprobs")
        except RefusedError:
            if self.gives_logprobs is False:
                return []
            raise
        return sorted(first_tokens(given), key=lambda pair: -pair[1])


def _seed(request: GenRequest) -> int:
    """Another for each sample: servers know no sample index and would write n identical candidates."""
    digest = hashlib.sha256(f"{request.seed}:{request.sample_index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _until_cancelled(results: queue.Queue[R], call: Call) -> Iterator[R]:
    while not call.cancelled:
        try:
            yield results.get(timeout=0.1)
        except queue.Empty:
            continue
