"""HTTP/1.1 in front of a simulated engine: keep-alive, one request at a time per connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec

from penstock_engines.adapter_names import NAME_HEADER
from penstock_engines.simulated import requests, wire
from penstock_engines.simulated.engine import NAMELESS, Engine, Generation, Outcome
from penstock_engines.simulated.faults import NONE, Fault

FORMS: dict[bytes, type[wire.ChatWire] | type[wire.CompletionWire]] = {
    b"/v1/chat/completions": wire.ChatWire,
    b"/v1/completions": wire.CompletionWire,
}
RECEIPTS = b"/penstock/receipts/"
RECEIPT_WAIT_S = 1.0

_read_generate = msgspec.json.Decoder(requests.GenerateRequest).decode
_read_embedding = msgspec.json.Decoder(requests.EmbeddingRequest).decode
_read_unload = msgspec.json.Decoder(requests.UnloadRequest).decode
_read_fault = msgspec.json.Decoder(Fault).decode
_write_json = msgspec.json.Encoder().encode


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, engine: Engine, head: wire.Head) -> None:
        self._engine = engine
        self._head = head
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._generation: Generation | None = None
        self._url = b""
        self._request_id: bytes | None = None
        self._fault_header: bytes | None = None
        self._called: bytes | None = None
        self._body: list[bytes] = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's signature
        """Called by the event loop."""
        self._transport = None
        if self._generation is not None:
            self._generation.abort()
            self._generation = None

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._cut()

    def pause_writing(self) -> None:
        """Called by the event loop."""
        if self._generation is not None:
            self._generation.pause()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        if self._generation is not None:
            self._generation.resume()

    # httptools

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._url = b""
        self._request_id = None
        self._fault_header = None
        self._called = None
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if len(name) == 12 and name.lower() == b"x-request-id":
            self._request_id = value
        elif len(name) == 16 and name.lower() == b"x-penstock-fault":
            self._fault_header = value
        elif len(name) == 16 and name.lower() == NAME_HEADER:
            self._called = value

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        path = self._url.partition(b"?")[0]
        method = self._parser.get_method()
        try:
            if path in FORMS and method == b"POST":
                self._generate(path, b"".join(self._body))
            elif path == b"/v1/embeddings" and method == b"POST":
                self._embed(b"".join(self._body))
            else:
                self._beside(method, path)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error), "BadRequestError", None)

    # what it answers

    def _generate(self, path: bytes, body: bytes) -> None:
        asked = _read_generate(body)
        fault = self._fault()
        if not self._may(asked.model, fault):
            return
        chat = path == b"/v1/chat/completions"
        prompt = requests.chat_tokens(asked.messages) if chat else requests.prompt_tokens(asked.prompt)
        settings = self._engine.settings
        limit = asked.max_completion_tokens or asked.max_tokens or settings.context_length - prompt
        if limit < 1 or prompt + limit > settings.context_length:
            room = settings.context_length
            message = f"{prompt} prompt tokens and {limit} of answer are more than {room}."
            self._refuse(HTTPStatus.BAD_REQUEST, message, "BadRequestError", "max_tokens")
            return
        natural = limit if asked.ignore_eos else settings.answer_tokens
        scripted = fault.deltas if chat and asked.stream else []
        if scripted:
            natural = len(scripted)
        tokens, finish = (natural, b"stop") if natural < limit else (limit, b"length")
        options = asked.stream_options or requests.StreamOptions()
        usage = bool(asked.stream and options.include_usage) and not fault.without_usage
        continuous = usage and bool(options.continuous_usage_stats)
        request_id = self._name()
        kind = wire.ScriptedChat if scripted else FORMS[path]
        form = kind(request_id, self._answering(asked.model), usage, continuous)
        choices = asked.n or 1
        if isinstance(form, wire.ChatWire):
            form.reasoning, form.choices = fault.reasoning_tokens, choices
        if isinstance(form, wire.ScriptedChat):
            form.deltas = [bytes(delta) for delta in scripted]
        cached = self._engine.prefixes.take(asked, prompt) if settings.prefix_cache else 0
        cached = max(cached, min(fault.cached_tokens, prompt))
        tally = self._engine.begin(request_id.decode(), prompt, cached)

        def whole() -> None:
            self._generation = None
            if tally.outcome is not Outcome.FINISHED:
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, fault.error_text, "InternalServerError", None)
                return
            counts = (choices, prompt, tally.cached_tokens, tokens)
            answer = form.whole(*counts, finish)
            if fault.without_usage:
                answer = answer.replace(b'"usage":{', b'"usage_withheld":{')
            self._send(self._head.whole(b"200 OK", answer))

        def streamed() -> None:
            self._generation = None

        paced = bool(settings.tokens_per_second or settings.first_token_ms)
        if not asked.stream and not paced and not fault.stepwise and not self._engine.hung:
            # The quick way: nothing can happen between the tokens.
            self._engine.count(tally, choices * tokens)
            self._engine.end(tally, Outcome.FINISHED)
            whole()
            return
        if asked.stream:
            self._send(self._head.stream())
        self._generation = Generation(
            self._engine,
            form,
            tally,
            fault,
            choices=choices,
            tokens=tokens,
            finish=finish,
            streamed=bool(asked.stream),
            usage=usage,
            write=self._send,
            cut=self._cut,
            over=streamed if asked.stream else whole,
        )
        self._generation.start()

    def _embed(self, body: bytes) -> None:
        asked = _read_embedding(body)
        fault = self._fault()
        if not self._may(asked.model, fault):
            return
        texts = requests.inputs(asked.input)
        prompt = sum(requests.prompt_tokens(one) for one in texts)
        request_id = self._name()
        tally = self._engine.begin(request_id.decode(), prompt, 0)
        self._engine.end(tally, Outcome.FINISHED)
        # Not all the same, so that a mix-up of texts shows: the first number is the text's tokens.
        rest = ",0.5" * (self._engine.settings.dimensions - 1)
        vectors = [f"[{requests.prompt_tokens(one)}.0{rest}]".encode() for one in texts]
        answer = wire.embeddings(request_id, self._engine.settings.model.encode(), vectors, prompt)
        self._send(self._head.whole(b"200 OK", answer))

    def _beside(self, method: bytes, path: bytes) -> None:
        engine = self._engine
        routes: dict[tuple[bytes, bytes], Callable[[], Any]] = {
            (b"GET", b"/health"): lambda: b"",
            (b"GET", b"/metrics"): engine.metrics,
            (b"GET", b"/v1/models"): lambda: wire.models(
                engine.settings.model, engine.settings.context_length, engine.adapters
            ),
            (b"POST", b"/v1/unload_lora_adapter"): self._unload,
            (b"GET", b"/penstock/receipts"): lambda: _write_json(engine.state()),
            (b"GET", b"/penstock/oracle"): lambda: _write_json({"requests": engine.tallies}),
            (b"DELETE", b"/penstock/oracle"): engine.tallies.clear,
            (b"POST", b"/penstock/faults"): self._set_fault,
            (b"DELETE", b"/penstock/faults"): self._mend,
            (b"POST", b"/sleep"): engine.sleep,
            (b"POST", b"/wake_up"): engine.wake_up,
            (b"GET", b"/is_sleeping"): lambda: _write_json({"is_sleeping": engine.asleep}),
        }
        if (answer := routes.get((method, path))) is not None:
            kind = b"text/plain" if path == b"/metrics" else b"application/json"
            self._send(self._head.whole(b"200 OK", answer() or b"", kind))
        elif method == b"GET" and path.startswith(RECEIPTS):
            asked_ms = self._url.rpartition(b"wait_ms=")[2]
            wait_s = int(asked_ms) / 1000 if asked_ms.isdigit() else RECEIPT_WAIT_S
            deadline_s = asyncio.get_running_loop().time() + wait_s
            self._receipt(path.removeprefix(RECEIPTS).decode(), deadline_s)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "Not Found", "Not Found", None)

    def _receipt(self, request_id: str, deadline_s: float) -> None:
        tally = self._engine.tallies.get(request_id)
        if tally is None:
            self._refuse(HTTPStatus.NOT_FOUND, "no such request lately", "NotFoundError", None)
            return
        loop = asyncio.get_running_loop()
        if tally.outcome is Outcome.RUNNING and loop.time() < deadline_s:
            # Its connection may be closed already without our having been told.
            loop.call_later(0.005, self._receipt, request_id, deadline_s)
            return
        if self._engine.fault.die_at_receipt:
            os.kill(os.getpid(), signal.SIGKILL)
        receipt = {
            "prompt_tokens": tally.prompt_tokens,
            "cached_tokens": tally.cached_tokens,
            "completion_tokens": tally.completion_tokens,
            "finished": tally.outcome is not Outcome.RUNNING,
            "aborted": tally.outcome is Outcome.ABORTED,
        }
        self._send(self._head.whole(b"200 OK", _write_json(receipt)))

    # how

    def _may(self, model: str | None, fault: Fault) -> bool:
        """Answer what never reaches the engine: another model, and a refusal that a fault wants."""
        if fault.status is not None:
            status = HTTPStatus(fault.status)
            self._refuse(status, "The engine is currently busy. Please try again later.", status.phrase, None)
            return False
        if self._engine.asleep:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self._refuse(status, "The engine sleeps.", status.phrase, None)
            return False
        if model is not None and not self._engine.serves(model):
            message = f"The model `{model}` does not exist. Valid aliases: {self._engine.settings.model}."
            self._refuse(HTTPStatus.NOT_FOUND, message, "NotFoundError", "model")
            return False
        return True

    def _answering(self, model: str | None) -> bytes:
        """What the answer calls the model."""
        base = self._engine.settings.model
        if model is None or model == base:
            return base.encode()
        return self._called or model.encode()

    def _unload(self) -> None:
        self._engine.adapters.pop(_read_unload(b"".join(self._body)).lora_name, None)

    def _fault(self) -> Fault:
        return self._engine.fault if self._fault_header is None else _read_fault(self._fault_header)

    def _set_fault(self) -> None:
        self._engine.fault = _read_fault(b"".join(self._body))

    def _mend(self) -> None:
        self._engine.fault = NONE
        self._engine.hung = False

    def _name(self) -> bytes:
        """The request's id, or one of our own."""
        return self._request_id or b"%b%d" % (NAMELESS.encode(), len(self._engine.tallies))

    def _refuse(self, status: HTTPStatus, message: str, kind: str, parameter: str | None) -> None:
        line = f"{status.value} {status.phrase}".encode()
        self._send(self._head.whole(line, wire.error(message, kind, parameter, status.value)))

    def _send(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _cut(self) -> None:
        self._generation = None
        if self._transport is not None:
            self._transport.abort()
