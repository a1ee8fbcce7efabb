"""The usage record: what one request used and cost, written once, counted once, never changed."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from penstock_billing.errors import UsageRefused

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Duration = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Any sign: a clock that stepped must not keep a record from being counted."""
Name = Annotated[str, msgspec.Meta(max_length=256)]
"""Bounded because Postgres refuses index rows above 2.7 kB."""


class Outcome(enum.StrEnum):
    """How a request ended; each ends in exactly one way."""

    DONE = "done"
    """The whole answer was produced."""
    CLIENT_GONE = "client_gone"
    """The caller left first; what the engine had generated until the abort is charged."""
    ENGINE_FAILED = "engine_failed"
    """The engine died or answered with an error: free."""
    STALLED = "stalled"
    """The engine stopped making progress and was given up: free."""
    SHUTDOWN = "shutdown"
    """The gateway had to stop before the answer was whole: free."""
    CREDIT_ENDED = "credit_ended"
    """The caller's credit ended while the answer was written; what was generated until then is charged."""
    RECOVERED = "recovered"
    """The gateway was killed while it streamed; what it had last noted as delivered is charged."""

    @property
    def billable(self) -> bool:
        """Whether the caller pays: our own failures are free."""
        return self in BILLABLE


BILLABLE = frozenset({Outcome.DONE, Outcome.CLIENT_GONE, Outcome.CREDIT_ENDED, Outcome.RECOVERED})


class Funding(enum.StrEnum):
    """What a request is paid from, fixed when it is admitted."""

    PREPAID = "prepaid"
    """Credit that the gateway holds a lease on."""
    POSTPAID = "postpaid"
    """It is owed, and invoiced later."""


class UsageRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request's usage, as it stands in the journal and later in Postgres.

    Encoded as a msgpack array, so the order of the fields is the format: new fields go to the end and
    have a default. A new meaning of an old field, or a new outcome, needs a new journal format version.

    The bounds are checked when a record is decoded; building one raises UsageRefused only when its
    cached tokens are not a part of its input.
    """

    event_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    """UUID version 7; with `ended_ms` the identity under which the record counts once."""
    ended_ms: Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000)]
    """When the request ended, Unix milliseconds (until 2100); never recomputed on a replay."""
    organisation_id: Id
    project_id: Id
    key_id: Name
    request_id: Name
    """Ours, as the response's header named it."""
    client_request_id: Name | None
    """What the client called the request, where it did."""
    surface: Name
    """Which API was called, such as "chat.completions", "completions" or "embeddings"."""
    model: Name
    price_version: Id
    """The price version fixed at admission; `cost_nano_usd` follows from it."""
    input_tokens: Count
    cached_tokens: Count
    """The part of the input that came from the engine's prefix cache."""
    output_tokens: Count
    reasoning_tokens: Count
    """The part of the output that was reasoning; shown, not charged apart."""
    outcome: Outcome
    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    """HTTP status the client was given; 0 when it left before one."""
    streamed: bool
    queue_us: Duration
    """Microseconds between arrival and its being sent to the engine that it ended at."""
    first_token_us: Duration
    """Microseconds between arrival and the first token; 0 when none came."""
    duration_us: Duration
    """Microseconds between arrival and the end."""
    replica: Name
    cost_nano_usd: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    images: Count = 0
    audio_ms: Count = 0
    """Milliseconds of audio."""
    documents: Count = 0
    """Documents that were ranked."""
    batch: bool = False
    """Whether the batch discount applies."""
    endpoint: Name = ""
    """The endpoint that was called; empty for a model called by its name."""
    funding: Funding = Funding.POSTPAID
    wallet_project_id: Id = 0
    """The project whose wallet pays; 0 is the organisation's own."""
    admit_us: Duration = 0
    """Microseconds of `queue_us` until it was let in: its body read, its key, limits and credit checked."""
    wait_us: Duration = 0
    """Microseconds of `queue_us` that it waited for its turn; the rest was lost at engines that failed it."""
    wake_us: Duration = 0
    """Microseconds of `wait_us` in which no engine of its model was ready."""
    retries: Count = 0
    """Engines that failed it before this one."""
    policy: Name = ""
    """The routing policy that chose the engine; empty in records from before this was kept."""
    candidates: Count = 0
    """Engines with room that the policy chose from."""
    pool_version: Count = 0
    """The version of its pool that the engine ran; 0 is not known."""
    hedged: bool = False
    """It was sent to a second engine too, since the first was late; the slower one's work is free."""

    def __post_init__(self) -> None:
        if self.cached_tokens > self.input_tokens:
            raise UsageRefused(
                f"cached_tokens {self.cached_tokens} must be a part of input_tokens {self.input_tokens}"
            )


encode = msgspec.msgpack.Encoder().encode
"""Turn a record into its msgpack body."""

decode = msgspec.msgpack.Decoder(UsageRecord).decode
"""Read a msgpack body; raises msgspec.ValidationError or msgspec.DecodeError when it is no usage record."""
