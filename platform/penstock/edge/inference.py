"""The token path: chat completions, completions and embeddings, mounted as plain ASGI handlers.

Litestar's ordinary handlers serve everything else; they cost twice as much as this whole path
(ops/decisions/0002).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import cast

from litestar import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send

from penstock.access.keyring import Keyring, Principal
from penstock.admission import limits
from penstock.admission.funds import Ask, Funds
from penstock.admission.idempotency.claims import Kept
from penstock.edge import once, openai, problems, wire
from penstock.edge.once import Once
from penstock.edge.openai import ChatAsked, CompletionsAsked, EmbeddingsAsked
from penstock.edge.problems import Problem
from penstock.edge.refusals import BadRequest, NoPrice, UnknownModel
from penstock.observe import metrics
from penstock.routing.directory import Directory, NoEngine
from penstock.serving.call import Call, Surface, UsageView
from penstock.serving.conduct import Conductor, MeteringFailed
from penstock_base import ids
from penstock_billing.journal import Journal
from penstock_billing.prices import PriceBook
from penstock_billing.record import UsageRecord
from penstock_catalog.cards import Capability, ModelCard, Task
from penstock_catalog.shelf import Shelf

logger = logging.getLogger(__name__)

PATHS = {
    Surface.CHAT: "/v1/chat/completions",
    Surface.COMPLETIONS: "/v1/completions",
    Surface.EMBEDDINGS: "/v1/embeddings",
}
TASKS = {Surface.CHAT: Task.CHAT, Surface.COMPLETIONS: Task.CHAT, Surface.EMBEDDINGS: Task.EMBEDDING}
MEDIA = {Capability.VISION, Capability.AUDIO}

JSON = (b"content-type", b"application/json")
EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Tells nginx not to collect the stream before passing it on.
    (b"x-accel-buffering", b"no"),
]
WRONG_METHOD = Problem(405, "method_not_allowed", "use POST here", headers=((b"allow", b"POST"),))


class Inference:
    """Lets requests in, understands them, and hands them to the conductor."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        shelf: Shelf,
        prices: PriceBook,
        directory: Directory,
        journal: Journal,
        conductor: Conductor,
        once: Once,
        funds: Funds,
        body_bytes_max: int,
    ) -> None:
        self._keyring = keyring
        self._shelf = shelf
        self._prices = prices
        self._directory = directory
        self._journal = journal
        self._conductor = conductor
        self._once = once
        self._funds = funds
        self._body_bytes_max = body_bytes_max

    def routes(self) -> list[ASGIRouteHandler]:
        """The handlers to mount."""
        return [asgi(path, copy_scope=False)(self._handler(surface)) for surface, path in PATHS.items()]

    def _handler(self, surface: Surface) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await self.answer(surface, cast("HTTPScope", scope), receive, send)

        return handle

    async def answer(self, surface: Surface, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request; what goes wrong before its first byte becomes an error in OpenAI's shape."""
        started_ns = time.perf_counter_ns()
        event_id = ids.uuid7_bytes()
        request_id = f"req_{event_id.hex()}"
        if scope["method"] != "POST":
            await self._refuse(send, WRONG_METHOD, surface, request_id)
            return
        try:
            head = wire.read_head(scope)
            principal = await self._keyring.authenticate(head.api_key)
            body = await wire.read_json_body(head, receive, self._body_bytes_max)
            if head.repeatable:
                asked = (surface, body, principal, head.client_request_id, event_id, started_ns)
                await self._answer_once(scope, head.repeatable, asked, receive, send)
                return
            call = await self._call(surface, body, principal, head.client_request_id, event_id, started_ns)
            await self._conductor.run(call, receive, send, _headers(call))
        except wire.ClientLeft:
            return
        except Exception as error:  # the edge is where everything unforeseen ends, in words
            problem = problems.of(error)
            if problem is None:
                logger.exception("unforeseen error", extra={"request_id": request_id})
                problem = problems.INTERNAL
            await self._refuse(send, problem, surface, request_id)

    async def _answer_once(
        self,
        scope: HTTPScope,
        repeatable: list[tuple[bytes, bytes]],
        asked: tuple[Surface, bytes, Principal, str | None, bytes, int],
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request that may have been sent before: from what was kept, or by its one execution."""
        surface, body, principal, _, event_id, _ = asked
        request_id = f"req_{event_id.hex()}"
        found = await self._once.metered(scope, repeatable, principal, body, request_id, receive, send)
        if isinstance(found, Kept):
            metrics.requests(surface.value, "", str(found.answer.status), "replayed").inc()
            await once.replay(send, found, request_id, metered=True)
        elif found is None:
            call = await self._call(*asked)
            await self._conductor.run(call, receive, send, _headers(call))
        else:
            async with found as execution:
                call = await self._call(*asked, execution.settled, noted=not execution.promised)
                await self._conductor.run(call, execution.receive, execution.send, _headers(call))

    async def _call(
        self,
        surface: Surface,
        body: bytes,
        principal: Principal,
        client_request_id: str | None,
        event_id: bytes,
        started_ns: int,
        on_settled: Callable[[UsageRecord], None] | None = None,
        *,
        noted: bool = True,
    ) -> Call:
        """Turn a body into a call that is paid for, or raise what is wrong with it."""
        asked = openai.understand(surface, body)
        card = self._card(asked.model)
        limits.check_task(card, TASKS[surface], PATHS[surface])
        streamed, view, n, max_tokens = False, UsageView.HIDDEN, 1, 0
        if not isinstance(asked, EmbeddingsAsked):
            streamed, view, n = bool(asked.stream), asked.usage_view, 1 if asked.n is None else asked.n
            if asked.stream_options is not None and not streamed:
                raise BadRequest("stream_options goes with stream: true only", param="stream_options")
            param, limit = asked.output_limit
            limits.check_output(card, n=n, max_tokens=limit, max_tokens_param=param)
            max_tokens = card.max_output_tokens if limit is None else limit
        prompts = _check_inputs(asked, card)
        if not self._journal.healthy:
            raise MeteringFailed("usage cannot be recorded right now, so no request is taken")
        price = self._prices.current(card.id, principal.organisation_id)
        if price is None:
            raise NoPrice(card.id)
        fields = openai.engine_fields(surface, body, streamed=streamed)
        # The last thing that can go wrong: whoever has a charge must close it.
        charge = await self._funds.admit(
            Ask(
                principal=principal,
                price=price,
                input_tokens_max=limits.input_tokens_max(
                    card, len(body), inputs=prompts, media=_has_media(asked, card)
                ),
                output_tokens_max=max_tokens,
                choices=prompts * n,
                streamed=streamed,
            )
        )
        shortened = charge.output_tokens_max if charge.output_tokens_max < max_tokens else None
        return Call(
            event_id=event_id,
            request_id=f"req_{event_id.hex()}",
            client_request_id=client_request_id,
            surface=surface,
            principal=principal,
            card=card,
            price=price,
            body=openai.engine_body(surface, fields, shortened),
            streamed=streamed,
            usage_view=view,
            prompts=prompts,
            n=n,
            started_ns=started_ns,
            charge=charge,
            on_settled=on_settled,
            noted=noted,
        )

    def _card(self, model: str) -> ModelCard:
        """The card of a model that has engines here; raises UnknownModel."""
        card = self._shelf.get(model)
        if card is not None and not self._directory.loaded:
            # A gateway that has just started knows no engine, which is not to say that there is none.
            raise NoEngine(model, "this gateway has just started")
        offered = self._directory.models()
        if card is None or model not in offered:
            raise UnknownModel(model, offered)
        return card

    async def _refuse(self, send: Send, problem: Problem, surface: Surface, request_id: str) -> None:
        metrics.requests(surface.value, "", str(problem.status), problem.code).inc()
        if problem.status >= 500:
            logger.warning(
                "request failed",
                extra={"request_id": request_id, "status": problem.status, "reason": problem.code},
            )
        await wire.send_problem(send, problem, request_id)


def _check_inputs(asked: ChatAsked | CompletionsAsked | EmbeddingsAsked, card: ModelCard) -> int:
    """Check what is to be read; how many inputs there are."""
    if isinstance(asked, ChatAsked):
        openai.check_messages(asked.messages, media=bool(MEDIA & set(card.capabilities)))
        return 1
    if isinstance(asked, CompletionsAsked):
        inputs, param = asked.prompt, "prompt"
    else:
        inputs, param = asked.input, "input"
    openai.check_inputs(inputs, param)
    count = openai.count_inputs(inputs)
    limits.check_prompts(count, param)
    return count


def _has_media(asked: ChatAsked | CompletionsAsked | EmbeddingsAsked, card: ModelCard) -> bool:
    """Whether there is anything but text to be read: what that counts cannot be told from its size."""
    if not isinstance(asked, ChatAsked) or not MEDIA & set(card.capabilities):
        return False
    return any(isinstance(message.content, list) for message in asked.messages)


def _headers(call: Call) -> list[tuple[bytes, bytes]]:
    """The headers of an answer."""
    headers = [(b"x-request-id", call.request_id.encode())]
    if call.charge.shortened:
        headers.append((b"x-penstock-max-tokens", b"%d" % call.charge.output_tokens_max))
    if call.client_request_id is not None:
        headers.append((b"x-client-request-id", call.client_request_id.encode()))
    return [*EVENTS, *headers] if call.streamed else [JSON, *headers]
