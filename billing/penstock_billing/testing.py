"""Records for tests of whatever meters or bills: plausible, and each with an identity of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import asyncpg
import msgspec

from penstock_base import ids
from penstock_billing.record import Outcome, UsageRecord

EXAMPLE = UsageRecord(
    event_id=bytes(16),
    ended_ms=0,
    organisation_id=1,
    project_id=1,
    key_id="key_example",
    request_id="req_example",
    client_request_id=None,
    surface="chat.completions",
    model="penstock/demo-chat",
    price_version=1,
    input_tokens=100,
    cached_tokens=40,
    output_tokens=20,
    reasoning_tokens=5,
    outcome=Outcome.DONE,
    status=200,
    streamed=True,
    queue_us=120,
    first_token_us=30_000,
    duration_us=400_000,
    replica="demo-chat-0",
    cost_nano_usd=12_345,
)


def usage_record(**changes: object) -> UsageRecord:
    """Make a record that ended now, with fields changed as given."""
    identity = {
        "event_id": ids.uuid7_bytes(),
        "ended_ms": time.time_ns() // 1_000_000,
        "request_id": "req_" + ids.random_text(12),
    }
    return msgspec.structs.replace(EXAMPLE, **(identity | changes))


@contextlib.asynccontextmanager
async def in_the_past(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Let rows be inserted as if it had been earlier: no trigger of the database fires, for its owner.

    All of it is one transaction. What it leaves must be what was really possible then.
    """
    async with connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        yield
