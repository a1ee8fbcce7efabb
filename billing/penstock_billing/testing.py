"""Records for tests of whatever meters or bills: plausible, and each with an identity of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import asyncpg
import msgspec

from penstock_base import ids
from penstock_billing import ledger
from penstock_billing.leases import Wallet
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind
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


async def fund(
    connection: asyncpg.Connection,
    wallet: Wallet,
    nano_usd: int = 0,
    *,
    promotional_nano_usd: int = 0,
    strict: bool = False,
) -> None:
    """Make a wallet prepaid and add credit to it."""
    await connection.execute(
        "insert into billing.wallet (organisation_id, project_id, funding, strict)"
        " values ($1, $2, 'prepaid', $3) on conflict (organisation_id, project_id)"
        " do update set funding = 'prepaid', strict = excluded.strict",
        wallet.organisation_id,
        wallet.project_id,
        strict,
    )
    added = {
        TransactionKind.TOP_UP: (AccountKind.CASH, AccountKind.PREPAID, nano_usd),
        TransactionKind.PROMOTION: (
            AccountKind.PROMOTION_COST,
            AccountKind.PROMOTIONAL,
            promotional_nano_usd,
        ),
    }
    for kind, (given, owed, amount) in added.items():
        if amount:
            sides = {given: amount, owed: -amount}
            entries = {
                Account(wallet.organisation_id, wallet.project_id, each): moved
                for each, moved in sides.items()
            }
            await ledger.book(
                connection, Booking(ref=f"test:{ids.random_text(12)}", kind=kind, entries=entries)
            )


async def credit_nano_usd(connection: asyncpg.Connection, wallet: Wallet) -> int:
    """What a wallet has, leased or not; below 0 when it is overdrawn."""
    return int(
        await connection.fetchval(
            "select coalesce(-sum(posted_nano_usd), 0)::bigint from billing.account"
            " where organisation_id = $1 and project_id = $2 and kind in ('prepaid', 'promotional', 'lease')",
            wallet.organisation_id,
            wallet.project_id,
        )
    )
