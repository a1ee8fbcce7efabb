"""What an organisation used: read from roll-ups, and for a single request from its event.

Every query names the organisation: there is none that looks across tenants.
"""

from __future__ import annotations

from datetime import date, datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.record import Outcome

SQL = queries.load("penstock_billing", "usage.sql")


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over requests. Tokens and cost are those that are charged; our own failures are only counted."""

    requests: int
    failed_requests: int
    """Requests that we could not finish; free."""
    input_tokens: int
    cached_tokens: int
    """Part of the input tokens."""
    output_tokens: int
    reasoning_tokens: int
    """Part of the output tokens."""
    cost_nano_usd: int


class UsageRow(UsageTotals, frozen=True, kw_only=True):
    """One model's usage on one UTC day."""

    day: date
    model: str


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one request used and cost, and how it went."""

    request_id: str
    client_request_id: str | None
    ended_at: datetime
    project_id: int
    key_id: str
    surface: str
    model: str
    price_version: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    outcome: Outcome
    status: int
    streamed: bool
    queue_us: int
    first_token_us: int
    duration_us: int
    replica: str
    cost_nano_usd: int


async def by_day_and_model(
    pool: asyncpg.Pool | asyncpg.Connection,
    organisation_id: int,
    since: datetime,
    until: datetime,
    project_id: int | None = None,
) -> list[UsageRow]:
    """Sum usage by UTC day and model, for the minutes that begin in [since, until)."""
    rows = await pool.fetch(SQL["by_day_and_model"], organisation_id, since, until, project_id)
    return [UsageRow(**row) for row in rows]


async def totals(
    pool: asyncpg.Pool | asyncpg.Connection,
    organisation_id: int,
    since: datetime,
    until: datetime,
    project_id: int | None = None,
) -> UsageTotals:
    """Sum usage for the minutes that begin in [since, until)."""
    row = await pool.fetchrow(SQL["totals"], organisation_id, since, until, project_id)
    assert row is not None
    return UsageTotals(**row)


async def request(
    pool: asyncpg.Pool | asyncpg.Connection, organisation_id: int, request_id: str
) -> RequestUsage | None:
    """Find one request by our id, or else the latest one that the client called so.

    None when there is none, or its record is not shipped yet (some 200 ms after the response's end).
    """
    row = await pool.fetchrow(SQL["request"], organisation_id, request_id)
    if row is None:
        return None
    columns = {name: row[name] for name in RequestUsage.__struct_fields__}
    return RequestUsage(**(columns | {"outcome": Outcome(row["outcome"])}))
