"""Charges minutes again and again, as every controller does: a process of its own, so that it can be killed.

Its clock runs ahead of the real one, three minutes a round, from a moment that it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import datetime, timedelta

import asyncpg

from penstock_billing import minutes

STEP = timedelta(minutes=3)


async def main(url: str, begin: datetime, end: datetime) -> None:
    """Charge up to each moment from `begin` to `end`, from the beginning after each failure."""
    while True:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
            now = begin
            while now < end:
                now += STEP
                await minutes.accrue(connection, now)
            await connection.close()
            return
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], datetime.fromisoformat(sys.argv[2]), datetime.fromisoformat(sys.argv[3])))
