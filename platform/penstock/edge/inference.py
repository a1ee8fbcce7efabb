"""The token path: chat completions, completions and embeddings, mounted as plain ASGI handlers.

Litestar's ordinary handlers serve everything else; they cost twice as much as this whole path
(ops/decisions/0002).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from litestar import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send
from msgspec import Raw

from penstock.access.keyring import Keyring, Principal
from penstock.access.limits import NONE
from penstock.adapters.book import AdapterBook
from penstock.adapters.register import Live as LiveAdapter
from penstock.admission import limits
from penstock.admission.funds import Ask, Funds
from penstock.admission.idempotency.claims import Kept
from penstock.admission.rates import Rates, endpoint_scope, limited_scopes
from penstock.edge import once, openai, problems, rate_headers, steering, wire
from penstock.edge.once import Once
from penstock.edge.openai import ChatAsked, CompletionsAsked, EmbeddingsAsked
from penstock.edge.problems import Problem
from penstock.edge.refusals import BadRequest, NoPrice, Starting, UnknownModel
from penstock.endpoints.book import EndpointBook
from penstock.endpoints.serverless import Live
from penstock.observe import metrics
from penstock.routing.directory import Directory
from penstock.routing.policy import ANYWHERE, Hint
from penstock.serving.attempt import MeteringFailed
from penstock.serving.call import Call, Surface, UsageView
from penstock.serving.conduct import AlreadyBegun, Conductor
from penstock.serving.tickets import ClientGone
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
WAITING = {b"", b"comments"}
"""What `x-penstock-waiting` may say."""
WRONG_METHOD = Problem(405, "method_not_allowed", "use POST here", headers=((b"allow", b"POST"),))


@dataclass(slots=True, frozen=True)
class Arrived:
    """A request that was let in and is not understood yet."""

    surface: Surface
    body: bytes
    principal: Principal
    client_request_id: str | None
    event_id: bytes
    started_ns: int
    endpoint: Live | None
    """The endpoint that was called; None for a model called by its name."""
    told_waiting: bool
    """Whether the client wants to see that it waits."""

    @property
    def request_id(self) -> str:
        """What the client is told."""
        return f"req_{self.event_id.hex()}"


class Inference:
    """Lets requests in, understands them, and hands them to the conductor."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        shelf: Shelf,
        prices: PriceBook,
        directory: Directory,
        endpoints: EndpointBook,
        adapters: AdapterBook,
        journal: Journal,
        conductor: Conductor,
        once: Once,
        rates: Rates,
        funds: Funds,
        body_bytes_max: int,
    ) -> None:
        self._keyring = keyring
        self._shelf = shelf
        self._prices = prices
        self._directory = directory
        self._endpoints = endpoints
        self._adapters = adapters
        self._journal = journal
        self._conductor = conductor
        self._once = once
        self._rates = rates
        self._funds = funds
        self._body_bytes_max = body_bytes_max

    def routes(self) -> list[ASGIRouteHandler]:
        """The handlers to mount."""
        return [asgi(path, copy_scope=False)(self._handler(surface)) for surface, path in PATHS.items()]

    def _handler(self, surface: Surface) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await self.answer(surface, cast("HTTPScope", scope), receive, send)

        return handle

    async def answer(
        self,
        surface: Surface,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        endpoint: str | None = None,
        caller: Principal | None = None,
    ) -> None:
        """Answer one request; what goes wrong before its first byte becomes an error in OpenAI's shape.

        `caller`: who it is from, where that is known by other means than a key.
        """
        started_ns = time.perf_counter_ns()
        event_id = ids.uuid7_bytes()
        request_id = f"req_{event_id.hex()}"
        if scope["method"] != "POST":
            await self._refuse(send, WRONG_METHOD, surface, request_id)
            return
        try:
            head = wire.read_head(scope)
            principal = await self._keyring.authenticate(head.api_key) if caller is None else caller
            called = self._endpoint(endpoint, principal)
            body = await wire.read_json_body(head, receive, self._body_bytes_max)
            if head.waiting not in WAITING:
                raise BadRequest("x-penstock-waiting may say 'comments'", param="x-penstock-waiting")
            # A kept answer must not depend on how long it waited.
            told = bool(head.waiting) and not head.repeatable
            arrived = Arrived(
                surface, body, principal, head.client_request_id, event_id, started_ns, called, told
            )
            if head.repeatable:
                await self._answer_once(scope, head.repeatable, arrived, receive, send)
            else:
                await self._execute(arrived, receive, send)
        except (wire.ClientLeft, ClientGone):
            return
        except Exception as error:  # the edge is where everything unforeseen ends, in words
            cause = error.__cause__ if isinstance(error, AlreadyBegun) else error
            problem = problems.of(cause) if isinstance(cause, Exception) else None
            if problem is None:
                logger.exception("unforeseen error", extra={"request_id": request_id})
                problem = problems.INTERNAL
            await self._refuse(send, problem, surface, request_id, begun=isinstance(error, AlreadyBegun))

    async def _answer_once(
        self,
        scope: HTTPScope,
        repeatable: list[tuple[bytes, bytes]],
        arrived: Arrived,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request that may have been sent before: from what was kept, or by its one execution."""
        found = await self._once.metered(
            scope, repeatable, arrived.principal, arrived.body, arrived.request_id, receive, send
        )
        if isinstance(found, Kept):
            metrics.requests(arrived.surface.value, "", str(found.answer.status), "replayed").inc()
            await once.replay(send, found, arrived.request_id, metered=True)
        elif found is None:
            await self._execute(arrived, receive, send)
        else:
            async with found as execution:
                await self._execute(
                    arrived,
                    execution.receive,
                    execution.send,
                    execution.settled,
                    noted=not execution.promised,
                )

    async def _execute(
        self,
        arrived: Arrived,
        receive: Receive,
        send: Send,
        settled: Callable[[UsageRecord], None] | None = None,
        *,
        noted: bool = True,
    ) -> None:
        """Answer a request that is not a repetition."""
        scopes = limited_scopes(arrived.principal)
        if arrived.endpoint is not None and arrived.endpoint.limits != NONE:
            scopes.append(endpoint_scope(arrived.endpoint.id, arrived.endpoint.name, arrived.endpoint.limits))
        if not scopes:
            call = await self._call(arrived, settled, noted=noted)
            await self._conductor.run(call, receive, send, _headers(call))
            return
        with self._rates.enter(scopes) as passed:

            def count(record: UsageRecord) -> None:
                # Our failures are free of limits, too.
                if record.outcome.billable:
                    passed.tokens = record.input_tokens + record.output_tokens
                if settled is not None:
                    settled(record)

            call = await self._call(arrived, count, noted=noted)
            headers = [*_headers(call), *rate_headers.headers(passed.rooms)]
            await self._conductor.run(call, receive, send, headers)

    async def _call(
        self,
        arrived: Arrived,
        on_settled: Callable[[UsageRecord], None] | None = None,
        *,
        noted: bool = True,
    ) -> Call:
        """Turn a body into a call that is paid for, or raise what is wrong with it."""
        surface, body, principal, endpoint = (
            arrived.surface,
            arrived.body,
            arrived.principal,
            arrived.endpoint,
        )
        asked = openai.understand(surface, body)
        if endpoint is None and not asked.model:
            raise BadRequest("model is required", param="model", code="missing_required_parameter")
        # An endpoint has one model: whatever a client calls it.
        called = asked.model if endpoint is None else endpoint.model
        card, adapter = self._card(called, principal.organisation_id)
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
        urgency = steering.urgency_of(asked)
        shared = card.shared_prefix_cache or self._directory.settings(card.id).shared_prefix_cache
        salt = None if shared else self._keyring.cache_salt(principal.organisation_id)
        fields = openai.engine_fields(surface, body, streamed=streamed)
        if endpoint is not None:
            fields["model"] = Raw(b'"%b"' % card.id.encode())
        if adapter is not None:
            fields["model"] = Raw(b'"%b"' % adapter.digest.encode())
        if surface is not Surface.EMBEDDINGS:
            fields |= steering.engine_fields(salt, urgency)
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
            event_id=arrived.event_id,
            request_id=arrived.request_id,
            client_request_id=arrived.client_request_id,
            surface=surface,
            principal=principal,
            card=card,
            price=price,
            body=openai.engine_body(surface, fields, shortened),
            streamed=streamed,
            usage_view=view,
            prompts=prompts,
            n=n,
            started_ns=arrived.started_ns,
            endpoint=endpoint.name if endpoint is not None else "",
            hint=self._hint(card, asked, salt, adapter),
            urgency=urgency,
            adapter=adapter,
            charge=charge,
            on_settled=on_settled,
            noted=noted,
            told_waiting=arrived.told_waiting,
        )

    def _hint(
        self,
        card: ModelCard,
        asked: ChatAsked | CompletionsAsked | EmbeddingsAsked,
        salt: str | None,
        adapter: LiveAdapter | None,
    ) -> Hint:
        """Where the request belongs; it costs microseconds, and with one engine there is no choice."""
        if adapter is None and len(self._directory.targets(card.id)) < 2:
            return ANYWHERE
        return steering.hint_of(asked, salt or "everyone", adapter.digest if adapter is not None else None)

    def _endpoint(self, name: str | None, principal: Principal) -> Live | None:
        """The endpoint that was called; raises UnknownEndpoint, WrongEndpoint or EndpointSuspended."""
        if name is None:
            self._endpoints.check_plain(principal)
            return None
        return self._endpoints.open(principal, name)

    def _card(self, model: str, organisation_id: int) -> tuple[ModelCard, LiveAdapter | None]:
        """The card of a model that is served here, and an organisation's adapter of it where one is named.

        Raises UnknownModel, also for an adapter that is another's, or Starting.
        """
        base, named, _ = model.partition(":")
        card = self._shelf.get(base)
        if card is not None and not self._directory.loaded:
            # A gateway that has just started knows no engine, which is not to say that there is none.
            raise Starting
        adapter = self._adapters.find(organisation_id, model) if named else None
        if card is None or not self._directory.offers(base) or (named and adapter is None):
            own = [f"{each.base_model}:{each.name}" for each in self._adapters.of(organisation_id)]
            raise UnknownModel(model, [*self._directory.models(), *own])
        return card, adapter

    async def _refuse(
        self, send: Send, problem: Problem, surface: Surface, request_id: str, *, begun: bool = False
    ) -> None:
        """Answer with what went wrong; as the last event of a stream that has begun."""
        metrics.requests(surface.value, "", str(problem.status), problem.code).inc()
        if problem.status >= 500:
            logger.warning(
                "request failed",
                extra={"request_id": request_id, "status": problem.status, "reason": problem.code},
            )
        if begun:
            last = b"data: %b\n\n" % problem.openai()
            await send({"type": "http.response.body", "body": last, "more_body": False})
        else:
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
