"""Requests that may be sent again, at the HTTP level: claimed, watched while they are answered, and replayed.

Nothing here is touched by a request that has none of the headers of `identity.HEADERS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, cast

from litestar import Router
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Message, Receive, Scope, Send

from penstock.access.keyring import Keyring, Principal
from penstock.admission.idempotency import identity
from penstock.admission.idempotency.claims import ANSWER_BYTES_MAX, Answer, Claim, Claims, End, Kept, State
from penstock.edge import wire
from penstock_base import ids, money
from penstock_billing.record import Outcome, UsageRecord

CLAIMS_ITSELF = "claims_itself"
"""In a handler's `opt`: its bodies are too large to be read here, so it calls `Once.run` when it has one."""
REQUEST_ID = "request_id"
"""In a request's state: what it is called, where somebody named it before."""
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
KEPT_HEADERS = frozenset({b"content-type", b"cache-control", b"x-accel-buffering", b"location", b"etag"})
"""Headers that belong to an answer and not to the exchange that brought it."""


class Execution:
    """One claimed execution: sees what is sent, and ends the claim exactly once.

    Used as `async with`; `send` and `receive` stand in for the server's. The end is written before the
    answer's last bytes leave, so a client that has the whole answer can already have it again.
    """

    def __init__(self, claims: Claims, claim: Claim, receive: Receive, send: Send) -> None:
        self._claims = claims
        self._claim = claim
        self._receive = receive
        self._send = send
        self._status = 0
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._parts: list[bytes] | None = []
        self._size_bytes = 0
        self._ended = False
        self._record: UsageRecord | None = None

    async def __aenter__(self) -> Execution:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if not self._ended:
            self._ended = True
            end = self._broken_off()
            if kind is None or issubclass(kind, Exception):
                # Before the refusal leaves: who reads it may try again at once.
                await self._claims.end(end)
            else:
                self._claims.end_later(end)
        return False

    @property
    def promised(self) -> bool:
        """Whether a retry is to get an answer, whatever happens to this execution."""
        return self._claim.promised

    def settled(self, record: UsageRecord) -> None:
        """Note what it was charged."""
        self._record = record

    async def receive(self) -> HTTPReceiveMessage:
        """With an Idempotency-Key, a client that leaves is not heard: the answer is made for its retry."""
        if self._claim.promised:
            await asyncio.get_running_loop().create_future()
        return cast("HTTPReceiveMessage", await self._receive())

    async def send(self, message: Message) -> None:
        """Pass on, and remember."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._remember(message.get("body", b""))
            if not message.get("more_body", False) and not self._ended:
                self._ended = True
                await self._claims.end(self._answered())
        await self._send(message)

    def _remember(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > ANSWER_BYTES_MAX:
            self._parts = None
        elif self._parts is not None and data:
            self._parts.append(data)

    def _answered(self) -> End:
        """The whole answer is there."""
        record = self._record
        if record is None or not (record.outcome is Outcome.DONE or record.cost_nano_usd):
            return End(self._claim)
        return self._with_answer(record.cost_nano_usd)

    def _broken_off(self) -> End:
        """There is no whole answer, and there will be none."""
        cost_nano_usd = self._record.cost_nano_usd if self._record else 0
        return End(self._claim, State.LOST if cost_nano_usd else None, None, cost_nano_usd)

    def _with_answer(self, cost_nano_usd: int) -> End:
        if self._parts is None or _secret(self._headers):
            return End(self._claim, State.NOT_KEPT, None, cost_nano_usd)
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._headers if n in KEPT_HEADERS]
        answer = Answer(self._status, headers, b"".join(self._parts))
        return End(self._claim, State.ANSWERED, answer, cost_nano_usd)


class UnmeteredExecution(Execution):
    """An execution that is judged by its answer alone: what it does leaves no usage record."""

    async def receive(self) -> HTTPReceiveMessage:
        """The body was read already; a client that leaves changes nothing here."""
        return cast("HTTPReceiveMessage", await self._receive())

    async def send(self, message: Message) -> None:
        """Name the request, so that what is said to a retry of it can be understood."""
        if message["type"] == "http.response.start":
            request_id = (b"x-request-id", self._claim.request_id.encode())
            message["headers"] = [*message.get("headers", ()), request_id]
        await super().send(message)

    def _answered(self) -> End:
        """A refusal took no effect. What nobody foresaw may have: that is for a person to look at."""
        if self._status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return End(self._claim, State.UNKNOWN)
        return End(self._claim) if self._status >= HTTPStatus.BAD_REQUEST else self._with_answer(0)

    def _broken_off(self) -> End:
        return End(self._claim, State.UNKNOWN)


async def replay(send: Send, kept: Kept, request_id: str, *, metered: bool) -> None:
    """Answer as the first time, saying so; a finished stream comes at once."""
    headers = [
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.answer.headers),
        (b"content-length", b"%d" % len(kept.answer.body)),
        (b"x-request-id", request_id.encode()),
        (b"x-original-request-id", kept.request_id.encode()),
        (b"idempotent-replayed", b"true"),
    ]
    if metered:
        headers.append((b"x-penstock-cost-usd", money.nano_to_usd(0).encode()))
        headers.append((b"x-original-cost-usd", money.nano_to_usd(kept.cost_nano_usd).encode()))
    await send({"type": "http.response.start", "status": kept.answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": kept.answer.body, "more_body": False})


class Once:
    """Makes handlers obey the headers."""

    def __init__(self, claims: Claims, keyring: Keyring, body_bytes_max: int) -> None:
        self.claims = claims
        self._keyring = keyring
        self._body_bytes_max = body_bytes_max

    async def metered(
        self,
        scope: HTTPScope,
        headers: Sequence[tuple[bytes, bytes]],
        principal: Principal,
        body: bytes,
        request_id: str,
        receive: Receive,
        send: Send,
    ) -> Execution | Kept | None:
        """Claim a request that is charged by its usage record, or find its answer.

        None when it is to be executed as any other. Raises one of NotExecuted.
        """
        taken = await self._take(scope, headers, principal, body, request_id, metered=True)
        return Execution(self.claims, taken, receive, send) if isinstance(taken, Claim) else taken

    def over(self, handlers: Sequence[HTTPRouteHandler]) -> Router:
        """Make ordinary handlers that change something obey the headers.

        They are judged by their answers: 2xx and 3xx are kept and replayed; a refusal (4xx, 502 to 504)
        promises that nothing happened; after a 500 a retry is told to look. An answer with
        `Cache-Control: no-store`, such as a new secret, is never kept.
        """

        def middleware(app: ASGIApp) -> ASGIApp:
            async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
                await self._handle(app, scope, receive, send)

            return guarded

        return Router("/", route_handlers=list(handlers), middleware=[middleware])

    async def _handle(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _repeatable(scope)
        itself = CLAIMS_ITSELF in scope["route_handler"].opt
        if not headers or itself or scope.get("method") not in CHANGING:
            await app(scope, receive, send)
            return
        scope = cast("HTTPScope", scope)
        head = wire.read_head(scope)
        principal = await self._keyring.authenticate(head.api_key)
        body = await wire.read_body(head, receive, self._body_bytes_max)
        await self.run(app, scope, headers, principal, body, _again(body, receive), send)

    async def run(
        self,
        app: ASGIApp,
        scope: HTTPScope,
        headers: Sequence[tuple[bytes, bytes]],
        principal: Principal,
        body: bytes,
        receive: Receive,
        send: Send,
    ) -> None:
        """Have a request handled that was read already: `body` is compared with that of the first time.

        Raises one of NotExecuted.
        """
        request_id = scope["state"].get(REQUEST_ID) or f"req_{ids.uuid7_bytes().hex()}"
        taken = await self._take(scope, headers, principal, body, request_id, metered=False)
        if isinstance(taken, Kept):
            await replay(send, taken, request_id, metered=False)
        elif taken is None:
            await app(scope, receive, send)
        else:
            async with UnmeteredExecution(self.claims, taken, receive, send) as execution:
                await app(scope, execution.receive, execution.send)

    async def _take(
        self,
        scope: HTTPScope,
        headers: Sequence[tuple[bytes, bytes]],
        principal: Principal,
        body: bytes,
        request_id: str,
        *,
        metered: bool,
    ) -> Claim | Kept | None:
        repeatable = identity.read(headers)
        if repeatable is None:
            return None
        target = scope["raw_path"].partition(b"?")[0] + b"?" + scope["query_string"]
        return await self.claims.take(
            repeatable, principal, scope["method"], target, body, request_id, metered=metered
        )


def _repeatable(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [header for header in scope["headers"] if header[0] in identity.HEADERS]


def _secret(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name == b"cache-control" and b"no-store" in value.lower() for name, value in headers)


def _again(body: bytes, receive: Receive) -> Receive:
    """The server's `receive`, as if the body had not been read yet."""
    first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Any:
        return first.pop() if first else await receive()

    return give
