"""Requests whose record could not be written, so that reconciling knows why an engine worked for nobody.

Such a request is free and its client got an error. This list is kept in memory and written to Postgres when
that answers: it explains, and no money hangs on it.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_billing", "unrecorded.sql")

KEPT_MAX = 10_000
"""While Postgres is away; the oldest are forgotten first."""


class UnrecordedRequest(msgspec.Struct, frozen=True):
    """One of them."""

    request_id: str
    ended_at: datetime
    reason: str


class Unrecorded:
    """What one process could not record."""

    def __init__(self) -> None:
        self._waiting: deque[UnrecordedRequest] = deque(maxlen=KEPT_MAX)

    def note(self, request_id: str, reason: str) -> None:
        """Remember one that ended now."""
        self._waiting.append(UnrecordedRequest(request_id, datetime.now(UTC), reason))

    async def write(self, connection: asyncpg.Connection | asyncpg.Pool) -> int:
        """Write them down; returns how many. Raises what asyncpg raises; then they wait for the next time."""
        waiting = list(self._waiting)
        if not waiting:
            return 0
        await connection.execute(
            SQL["add"],
            [one.request_id for one in waiting],
            [one.ended_at for one in waiting],
            [one.reason for one in waiting],
        )
        for one in waiting:
            if self._waiting and self._waiting[0] is one:
                self._waiting.popleft()
        return len(waiting)
