"""vLLM's answers as bytes, captured from vLLM 0.32.0 and cut where a request's own values go."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

FINGERPRINT: Final = b'"system_fingerprint":"vllm-simulated"'
DONE: Final = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
"""The last event and the end of the chunked body."""

WORDS: Final = [json.dumps(f" t{number}").encode() for number in range(8192)]
"""The text of the k-th token of any answer, as JSON: what is missing or doubled shows."""
DELTAS: Final = [b'{"content":%b}' % text for text in WORDS]


def word(number: int) -> bytes:
    """The k-th token's text as JSON, from 0."""
    return WORDS[number % len(WORDS)]


def text(tokens: int) -> bytes:
    """The text of the first so many tokens, as JSON."""
    return b'"' + b"".join(word(number)[1:-1] for number in range(tokens)) + b'"'


def chunk(event: bytes) -> bytes:
    """Wrap one event as vLLM's server does: a chunk of its own."""
    return b"%x\r\n%b\r\n" % (len(event), event)


class Head:
    """Response heads; the date is written once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._common = b""

    def stream(self) -> bytes:
        """The head of a stream."""
        return (
            b"HTTP/1.1 200 OK\r\n%bcontent-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        ) % self._lines()

    def whole(self, status: bytes, body: bytes, content_type: bytes = b"application/json") -> bytes:
        """A whole response."""
        return (b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\ncontent-type: %b\r\nvary: Origin\r\n\r\n%b") % (
            status,
            self._lines(),
            len(body),
            content_type,
            body,
        )

    def _lines(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode()
            self._common = b"date: %b\r\nserver: uvicorn\r\n" % date
        return self._common


class ChatWire:
    """The bytes of one chat completion."""

    reasoning = 0
    """How many tokens each choice begins with that are reasoning; 0: a model that does not reason."""
    choices = 1

    def __init__(self, request_id: bytes, model: bytes, usage: bool, continuous: bool) -> None:
        self._usage = usage
        self._continuous = continuous
        self._start = (
            b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":"%b",'
            % (
                request_id,
                int(time.time()),
                model,
            )
        )
        self._id = request_id
        self._model = model

    def first(self, index: int, prompt_tokens: int) -> bytes:
        """The event that opens one choice: its role."""
        return chunk(
            b'%b"choices":[{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}]%b,"prompt_token_ids":null,"prompt_text":null}\n\n'
            % (self._start, index, self._counts(prompt_tokens, 0))
        )

    def token(self, index: int, number: int, prompt_tokens: int, finish: bytes | None) -> bytes:
        """The event of one token, `number` from 0; with the reason where it is the last."""
        end = b"null" if finish is None else b'"%b","stop_reason":null' % finish
        print_end = FINGERPRINT if finish is not None and not self._usage else b""
        return chunk(
            b'%b"choices":[{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b,'
            b'"token_ids":null}]%b%b}\n\n'
            % (
                self._start,
                index,
                self._delta(number),
                end,
                self._counts(prompt_tokens, number + 1),
                b"," + print_end if print_end else b"",
            )
        )

    def usage(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> bytes:
        """The event after the last token, where the client asked for usage."""
        return chunk(
            b'%b"choices":[],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
            b'"prompt_tokens_details":{"cached_tokens":%d,"created_cache_tokens":0}%b},%b}\n\n'
            % (
                self._start,
                prompt_tokens,
                prompt_tokens + completion_tokens,
                completion_tokens,
                cached_tokens,
                b',"completion_tokens_details":' + self._details(completion_tokens, self.choices)
                if self.reasoning
                else b"",
                FINGERPRINT,
            )
        )

    def whole(
        self, choices: int, prompt_tokens: int, cached_tokens: int, tokens: int, finish: bytes
    ) -> bytes:
        """The body of an answer that is not streamed."""
        content = text(tokens)
        listed = b",".join(
            b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null,"annotations":null,'
            b'"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"%b",'
            b'"stop_reason":null,"token_ids":null,"routed_experts":null}' % (index, content, finish)
            for index in range(choices)
        )
        return (
            b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":"%b","choices":[%b],'
            b'"service_tier":null,%b,%b,"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,'
            b'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
        ) % (
            self._id,
            int(time.time()),
            self._model,
            listed,
            FINGERPRINT,
            whole_usage(
                prompt_tokens, cached_tokens, choices * tokens, b"0", self._details(choices * tokens, choices)
            ),
        )

    def _delta(self, number: int) -> bytes:
        return DELTAS[number % len(DELTAS)]

    def _counts(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        if not self._continuous:
            return b""
        return (
            b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
            b'"completion_tokens_details":%b}'
        ) % (
            prompt_tokens,
            prompt_tokens + completion_tokens,
            completion_tokens,
            self._details(completion_tokens, 1),
        )

    def _details(self, completion_tokens: int, choices: int) -> bytes:
        if not self.reasoning:
            return b"null"
        return b'{"reasoning_tokens":%d}' % min(completion_tokens, choices * self.reasoning)


class ScriptedChat(ChatWire):
    """The bytes of a chat whose every delta was given."""

    deltas: Sequence[bytes] = ()

    def _delta(self, number: int) -> bytes:
        return self.deltas[number]


class CompletionWire:
    """The bytes of one text completion of one prompt."""

    def __init__(self, request_id: bytes, model: bytes, usage: bool, continuous: bool) -> None:
        self._usage = usage
        self._continuous = continuous
        self._start = b'data: {"id":"cmpl-%b","object":"text_completion","created":%d,"model":"%b",' % (
            request_id,
            int(time.time()),
            model,
        )
        self._id = request_id
        self._model = model

    def first(self, index: int, prompt_tokens: int) -> bytes:  # noqa: ARG002 - as ChatWire
        """Nothing opens a choice here."""
        return b""

    def token(self, index: int, number: int, prompt_tokens: int, finish: bytes | None) -> bytes:
        """The event of one token, `number` from 0; with the reason where it is the last."""
        end = b"null" if finish is None else b'"%b"' % finish
        print_end = b"," + FINGERPRINT if finish is not None and not self._usage else b""
        return chunk(
            b'%b"choices":[{"index":%d,"text":%b,"logprobs":null,"finish_reason":%b,"stop_reason":null,'
            b'"prompt_token_ids":null,"token_ids":null}]%b%b}\n\n'
            % (self._start, index, word(number), end, self._counts(prompt_tokens, number + 1), print_end)
        )

    def usage(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> bytes:
        """The event after the last token, where the client asked for usage."""
        return chunk(
            b'%b"choices":[],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
            b'"prompt_tokens_details":{"cached_tokens":%d}},%b}\n\n'
            % (
                self._start,
                prompt_tokens,
                prompt_tokens + completion_tokens,
                completion_tokens,
                cached_tokens,
                FINGERPRINT,
            )
        )

    def whole(
        self, choices: int, prompt_tokens: int, cached_tokens: int, tokens: int, finish: bytes
    ) -> bytes:
        """The body of an answer that is not streamed."""
        content = text(tokens)
        listed = b",".join(
            b'{"index":%d,"text":%b,"logprobs":null,"finish_reason":"%b","stop_reason":null,"token_ids":null,'
            b'"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}'
            % (index, content, finish)
            for index in range(choices)
        )
        return (
            b'{"id":"cmpl-%b","object":"text_completion","created":%d,"model":"%b","choices":[%b],'
            b'"service_tier":null,%b,%b,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
        ) % (
            self._id,
            int(time.time()),
            self._model,
            listed,
            FINGERPRINT,
            whole_usage(prompt_tokens, cached_tokens, choices * tokens, b"null"),
        )

    def _counts(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        if not self._continuous:
            return b""
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
            prompt_tokens,
            prompt_tokens + completion_tokens,
            completion_tokens,
        )


Wire = ChatWire | CompletionWire


def whole_usage(
    prompt_tokens: int, cached_tokens: int, completion_tokens: int, created: bytes, details: bytes = b"null"
) -> bytes:
    """The usage of an answer that is not streamed."""
    return (
        b'"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":'
        b'{"cached_tokens":%d,"created_cache_tokens":%b,"multimodal_tokens":null},'
        b'"completion_tokens_details":%b}'
    ) % (prompt_tokens, prompt_tokens + completion_tokens, completion_tokens, cached_tokens, created, details)


def embeddings(request_id: bytes, model: bytes, vectors: Sequence[bytes], prompt_tokens: int) -> bytes:
    """The body of an answer of embeddings; each vector as JSON."""
    listed = b",".join(
        b'{"index":%d,"object":"embedding","embedding":%b}' % (index, vector)
        for index, vector in enumerate(vectors)
    )
    return (
        b'{"id":"embd-%b","object":"list","created":%d,"model":"%b","data":[%b],"usage":{"prompt_tokens":%d,'
        b'"total_tokens":%d,"completion_tokens":0,"prompt_tokens_details":null,'
        b'"completion_tokens_details":null}}'
    ) % (request_id, int(time.time()), model, listed, prompt_tokens, prompt_tokens)


def error(message: str, kind: str, parameter: str | None, code: int) -> bytes:
    """The body of an error."""
    problem = {"message": message, "type": kind, "param": parameter, "code": code}
    return json.dumps({"error": problem}, separators=(",", ":")).encode()


def models(model: str, context_length: int, adapters: Mapping[str, Path]) -> bytes:
    """The body of the list of models: the base, and adapters that are loaded."""
    permission = {
        "id": "modelperm-simulated",
        "object": "model_permission",
        "created": int(time.time()),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {
        "id": model,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "vllm",
        "root": model,
        "parent": None,
        "max_model_len": context_length,
        "permission": [permission],
    }
    loaded = [
        card | {"id": name, "root": str(place), "parent": model, "max_model_len": None}
        for name, place in adapters.items()
    ]
    return json.dumps({"object": "list", "data": [card, *loaded]}, separators=(",", ":")).encode()
