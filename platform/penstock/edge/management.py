"""The management API: `/api/v1`. The tenant comes from the credential only."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.access.keyring import Principal
from penstock.edge.refusals import BadRequest, NotFound
from penstock_base import money
from penstock_billing import usage
from penstock_billing.usage import RequestUsage, UsageRow

DAYS_DEFAULT = 30
DAYS_MAX = 400


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get("/api/v1/usage")
    async def show_usage(
        principal: NamedDependency[Principal],
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        first, last = period(since, until, datetime.now(UTC).date())
        rows = await usage.by_day_and_model(
            pool, principal.organisation_id, midnight(first), midnight(last + timedelta(days=1))
        )
        return {"since": first, "until": last, "data": [used(row) for row in rows]}

    @get("/api/v1/requests/{request_id:str}")
    async def show_request(
        principal: NamedDependency[Principal], request_id: FromPath[str]
    ) -> dict[str, Any]:
        found = await usage.request(pool, principal.organisation_id, request_id)
        if found is None:
            raise NotFound(
                f"no request {request_id[:100]!r} is recorded for this organisation; "
                "one that just ended appears within a second"
            )
        return used(found)

    return [show_usage, show_request]


def used(row: UsageRow | RequestUsage) -> dict[str, Any]:
    """Usage with its cost in dollars beside the exact integer."""
    fields: dict[str, Any] = msgspec.to_builtins(row)
    return fields | {"cost_usd": money.nano_to_usd(row.cost_nano_usd)}


def midnight(day: date) -> datetime:
    """The moment a UTC day begins."""
    return datetime.combine(day, time(), UTC)


def period(since: str | None, until: str | None, today: date) -> tuple[date, date]:
    """First and last day (UTC, both included); by default the last 30 days. Raises BadRequest."""
    last = _day("until", until) or today
    first = _day("since", since) or last - timedelta(days=DAYS_DEFAULT - 1)
    if first > last:
        raise BadRequest(f"since ({first}) is after until ({last})", param="since")
    if (last - first).days >= DAYS_MAX:
        raise BadRequest(f"at most {DAYS_MAX} days at once", param="since")
    return first, last


def _day(param: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{param} is {text[:40]!r}: write a day as 2026-11-21", param=param) from None
