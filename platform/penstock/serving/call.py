"""One request as the way through the system sees it: what is asked, by whom, at which price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

from penstock.access.keyring import Principal
from penstock.adapters.register import Live
from penstock.admission.credit.charge import Charge
from penstock.admission.fair_queue import Urgency
from penstock.routing.policy import ANYWHERE, Hint
from penstock_billing.prices import PriceVersion
from penstock_billing.record import UsageRecord
from penstock_catalog.cards import ModelCard


class Surface(StrEnum):
    """An inference operation, whatever API spelled it; the value is what records and metrics say."""

    CHAT = "chat.completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"

    @property
    def engine_path(self) -> bytes:
        """Where the engine answers it."""
        return ENGINE_PATHS[self]


ENGINE_PATHS = {
    Surface.CHAT: b"/v1/chat/completions",
    Surface.COMPLETIONS: b"/v1/completions",
    Surface.EMBEDDINGS: b"/v1/embeddings",
}


class UsageView(Enum):
    """How much of the engine's running count a streaming client sees; the engine is always asked for all."""

    HIDDEN = "nothing: stream_options did not ask"
    FINAL = "`usage: null` on every event and one last event with the usage (include_usage)"
    CONTINUOUS = "the count on every event (continuous_usage_stats, an extension of vLLM)"


@dataclass(slots=True, frozen=True)
class Call:
    """A request that was let in, understood, priced and paid for; of it only the charge changes yet."""

    event_id: bytes
    """16 bytes, UUIDv7: the identity of its usage record."""
    request_id: str
    """`req_` and the event id in hexadecimal: what the client is told, and the engine's own id for it."""
    client_request_id: str | None
    surface: Surface
    principal: Principal
    card: ModelCard
    price: PriceVersion
    body: bytes
    """JSON for the engine: allowed fields only."""
    streamed: bool
    usage_view: UsageView
    prompts: int
    """How many inputs the request carries; each is counted and answered."""
    n: int
    """How many answers to each prompt."""
    started_ns: int
    """time.perf_counter_ns() when the request's head was read."""
    charge: Charge
    """Who pays, and what is held for it; whoever runs the call closes it."""
    on_settled: Callable[[UsageRecord], None] | None = None
    """Told of the record as soon as it is in the journal, before the last byte leaves."""
    noted: bool = True
    """Whether a stream is charged as far as it came when its gateway is killed. Not where it bears an
    Idempotency-Key: then it costs nothing, and the retry, which the key promises an answer, is executed."""
    endpoint: str = ""
    """The endpoint that was called; empty for a model called by its name."""
    hint: Hint = ANYWHERE
    """What may steer it to one engine rather than another."""
    urgency: Urgency = Urgency.INTERACTIVE
    """Whether somebody waits for the answer."""
    told_waiting: bool = False
    """Whether a stream's client wants comments while it waits; a refusal is an event then, after 200."""
    adapter: Live | None = None
    """The adapter of the card's model that answers; None: the model itself."""

    @property
    def model(self) -> str:
        """What the record and the answer call the model: with an adapter, that and its version as well."""
        return self.card.id if self.adapter is None else self.adapter.model
