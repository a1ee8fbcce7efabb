"""How an endpoint's requests ended that were not answered whole."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from penstock_billing.latency import SQL
from penstock_billing.record import Outcome

COUNTED_MAX = 10_000
"""The latest that are looked at."""


class Failed(msgspec.Struct, frozen=True):
    """Requests that ended the same way."""

    outcome: Outcome
    status: int
    """What the client was told; 0 when it left before that."""
    requests: int
    latest: datetime


class Failures(msgspec.Struct, frozen=True):
    """The kinds of them, the most frequent first."""

    kinds: list[Failed]
    since: datetime
    """From when on they are counted: later than the window where there were more than COUNTED_MAX."""

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(kind.requests for kind in self.kinds)


async def of_endpoint(
    pool: asyncpg.Pool, organisation_id: int, endpoint: str, since: datetime, until: datetime
) -> Failures:
    """Count them by outcome and status; what was refused before an engine took it has no record."""
    rows = await pool.fetch(SQL["failed"], organisation_id, endpoint, since, until, COUNTED_MAX)
    kinds = [Failed(Outcome(row["outcome"]), row["status"], row["requests"], row["latest"]) for row in rows]
    full = sum(kind.requests for kind in kinds) >= COUNTED_MAX
    return Failures(kinds, min(row["earliest"] for row in rows) if full else since)
