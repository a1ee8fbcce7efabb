"""Receipts: what a request used, by the engine's own count, also when its client left before the end.

`GET /penstock/receipts/{id}`, where the id is the `X-Request-Id` the request was sent with, answers

    {"prompt_tokens": n, "cached_tokens": n, "completion_tokens": n, "finished": bool, "aborted": bool}

`finished` says that the counts are final: the exchange is over and the engine works on no part of it.
`aborted` says that a part was cut before its own end. The answer waits until it is final, `?wait_ms=` at most
(1000 unless told, 5000 at most); 404 says that no such request came within the last minute. Prompt tokens
count from the moment the prompt was computed, as in the engine's own metrics; before, they are 0.

`GET /penstock/receipts` answers {"boot": text, "in_hand": n, "done": n}: which start of the engine this is,
how many requests it works on, and how many receipts are in its file (receipt_log.py).

The last chunk a gateway read is no such count: a tool parser withholds chunks, and no chunk but the last
tells cached tokens. Runs inside vLLM's API process: a middleware (a public extension point) learns the id,
and the methods of vLLM's OutputProcessor through which every request is opened and closed keep the book.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from penstock_engines.receipt_log import Line, ReceiptLog, now_ms

KEPT_MAX: Final = 4096
KEPT_S: Final = 60.0
WAIT_MS: Final = 1000
WAIT_MS_MAX: Final = 5000
PATH: Final = "/penstock/receipts/"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class EngineRequest(Protocol):
    """What this room reads of vLLM's RequestState."""

    request_id: str
    request_index: int
    prompt_len: int
    num_cached_tokens: int
    is_prefilling: bool
    parent_req: Any
    detokenizer: Any


@dataclass
class Part:
    """One sequence the engine works on; a request with n choices or m prompts has n times m."""

    prompt: str
    """The same for all choices of one prompt."""
    index: int
    live: EngineRequest | None
    """None once it ended; a reference kept longer would keep the prompt in memory."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def read(self) -> None:
        """Take the counts over from the engine's own state."""
        if self.live is None or self.live.is_prefilling:
            return
        self.prompt_tokens = self.live.prompt_len
        self.cached_tokens = self.live.num_cached_tokens
        if self.live.detokenizer is not None:
            self.completion_tokens = self.live.detokenizer.num_output_tokens()


@dataclass
class Entry:
    """One request, as its id names it."""

    exchanges: int = 0
    """HTTP exchanges under this id that are not over."""
    parts: list[Part] = field(default_factory=list)
    tries: int = 0
    """HTTP exchanges under this id in all."""
    aborted: bool = False
    told: tuple[int, int, int] = (0, 0, 0)
    """What is in the log of it, as the engine's metrics count."""
    ended_s: float = 0.0
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the counts are final."""
        return self.exchanges == 0 and all(part.live is None for part in self.parts)

    def receipt(self) -> dict[str, int | bool]:
        """Sum the parts up: a prompt once however many choices it had, every choice's own tokens."""
        prompts: dict[str, Part] = {}
        for part in self.parts:
            part.read()
            first = prompts.get(part.prompt)
            # Of the choices of one prompt the first is the one that the cache helped or did not: the others
            # find what the first one computed.
            if part.prompt_tokens and (first is None or part.index < first.index):
                prompts[part.prompt] = part
        return {
            "prompt_tokens": sum(part.prompt_tokens for part in prompts.values()),
            "cached_tokens": sum(part.cached_tokens for part in prompts.values()),
            "completion_tokens": sum(part.completion_tokens for part in self.parts),
            "finished": self.finished,
            "aborted": self.aborted,
        }

    def line(self, request_id: str) -> Line:
        """Write down what is new; the receipt is whole, what the metrics counted is told once."""
        receipt = self.receipt()
        counted = (
            sum(part.prompt_tokens for part in self.parts),
            sum(part.cached_tokens for part in self.parts),
            sum(part.completion_tokens for part in self.parts),
        )
        told, self.told = self.told, counted
        return Line(
            request_id,
            now_ms(),
            receipt["prompt_tokens"],
            receipt["cached_tokens"],
            receipt["completion_tokens"],
            max(1, self.tries),
            self.aborted,
            *(now - before for now, before in zip(counted, told, strict=True)),
        )


class Book:
    """All requests in hand, and those that ended lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.log: ReceiptLog | None = None
        self._clock = clock
        self._nameless = 0
        self._entries: dict[str, Entry] = {}
        self._ended: OrderedDict[str, Entry] = OrderedDict()
        self._open: dict[str, tuple[str, Entry, Part]] = {}
        """By the engine's internal id."""

    def begin(self, request_id: str) -> None:
        """An HTTP exchange under this id begins."""
        self._ended.pop(request_id, None)
        entry = self._entries.setdefault(request_id, Entry())
        entry.exchanges += 1
        entry.tries += 1

    def end(self, request_id: str) -> None:
        """An HTTP exchange under this id is over."""
        entry = self._entries[request_id]
        entry.exchanges -= 1
        self._settle(request_id, entry)

    def opened(self, request_id: str | None, state: EngineRequest) -> None:
        """The engine took on a part of this request, or of one without an id."""
        entry = None if request_id is None else self._entries.get(request_id)
        if request_id is None or entry is None:
            request_id, entry = "", Entry()
            self._nameless += 1
        parent = state.parent_req
        part = Part(parent.request_id if parent else state.request_id, state.request_index, state)
        entry.parts.append(part)
        self._open[state.request_id] = (request_id, entry, part)

    def closed(self, internal_id: str, *, aborted: bool) -> None:
        """The engine is done with a part, or was told to drop it."""
        found = self._open.pop(internal_id, None)
        if found is None:
            return
        request_id, entry, part = found
        part.read()
        part.live = None
        entry.aborted |= aborted
        self._settle(request_id, entry)

    async def read(self, request_id: str, wait_s: float) -> dict[str, int | bool] | None:
        """The receipt, final if it is or becomes so in time; None where the request is not known."""
        entry = self._entries.get(request_id)
        if entry is None:
            return None
        if not entry.finished:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry.waiters.append(settled)
            await asyncio.wait({settled}, timeout=wait_s)
        return entry.receipt()

    def state(self) -> dict[str, str | int]:
        """Which start of the engine this is, and how busy."""
        in_hand = len(self._entries) - len(self._ended) + self._nameless
        if self.log is None:
            return {"boot": "", "in_hand": in_hand, "done": 0}
        return {"boot": self.log.boot, "in_hand": in_hand, "done": self.log.requests}

    def close(self) -> None:
        """The engine ends by itself: write down what is still in hand."""
        if self.log is None:
            return
        for request_id, entry in self._entries.items():
            if request_id not in self._ended and entry.parts:
                self.log.add(entry.line(request_id))
        self.log.close()
        self.log = None

    def _settle(self, request_id: str, entry: Entry) -> None:
        if not entry.finished:
            return
        if self.log is not None and entry.parts:
            self.log.add(entry.line(request_id))
        if not request_id:
            self._nameless -= 1
            return
        now_s = self._clock()
        entry.ended_s = now_s
        self._ended[request_id] = entry
        self._ended.move_to_end(request_id)
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_result(None)
        entry.waiters.clear()
        while self._ended:
            oldest = next(iter(self._ended))
            if len(self._ended) <= KEPT_MAX and now_s - self._ended[oldest].ended_s <= KEPT_S:
                break
            del self._ended[oldest]
            self._entries.pop(oldest, None)


BOOK: Final = Book()
_current: ContextVar[str | None] = ContextVar("penstock_request_id", default=None)


class ReceiptsMiddleware:
    """Answers for receipts, and tells the book whose request is being handled."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == PATH.rstrip("/"):
            await _send(send, 200, BOOK.state())
        elif scope["path"].startswith(PATH):
            await _answer(scope, send)
        else:
            await self._follow(scope, receive, send)

    async def _follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = header.decode("latin-1") if header is not None else None
        # vLLM's handlers, and the tasks they start, inherit this.
        _current.set(request_id)
        if request_id is None:
            await self._app(scope, receive, send)
            return
        BOOK.begin(request_id)
        try:
            await self._app(scope, receive, send)
        finally:
            BOOK.end(request_id)


async def _answer(scope: Scope, send: Send) -> None:
    query = parse_qs(scope["query_string"].decode("latin-1"))
    asked = query.get("wait_ms", [""])[0]
    wait_ms = min(int(asked), WAIT_MS_MAX) if asked.isdecimal() else WAIT_MS
    receipt = await BOOK.read(scope["path"].removeprefix(PATH), wait_ms / 1000)
    if receipt is None:
        await _send(send, 404, {"error": "no such request lately"})
    else:
        await _send(send, 200, receipt)


async def _send(send: Send, status: int, answer: Mapping[str, str | int | bool]) -> None:
    body = json.dumps(answer).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def install(log: ReceiptLog | None = None) -> None:
    """Have vLLM's OutputProcessor keep the book from now on; once per process, before the engine is made."""
    BOOK.log = log
    from vllm.v1.engine.output_processor import OutputProcessor  # noqa: PLC0415 - engine processes only

    add_request = OutputProcessor.add_request
    finish_request = OutputProcessor._finish_request
    abort_requests = OutputProcessor.abort_requests

    def adding(self: Any, request: Any, *arguments: Any, **named: Any) -> None:
        add_request(self, request, *arguments, **named)
        BOOK.opened(_current.get(), self.request_states[request.request_id])

    def finishing(self: Any, req_state: Any) -> None:
        finish_request(self, req_state)
        BOOK.closed(req_state.request_id, aborted=False)

    def aborting(self: Any, request_ids: Any, internal: bool) -> list[str]:
        aborted: list[str] = abort_requests(self, request_ids, internal)
        for internal_id in aborted:
            BOOK.closed(internal_id, aborted=True)
        return aborted

    OutputProcessor.add_request = adding
    OutputProcessor._finish_request = finishing
    OutputProcessor.abort_requests = aborting
